//! Virtual time, and the clocks that nodes read. A clock can run fast or slow, and jump when its machine was suspended.

use std::time::{Duration, Instant};

/// Microseconds since the world began.
pub(super) type Moment = u64;

/// A millisecond of virtual time.
pub(super) const MS: Moment = 1_000;
/// A second of virtual time.
pub(super) const SECOND: Moment = 1_000_000;

/// A node's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    epoch: Instant,
    /// Since when it runs as it does.
    since: Moment,
    /// What it had counted then.
    counted: u64,
    /// How fast it runs.
    percent: u64,
}

impl Clock {
    /// A right clock, which shows `epoch` at the beginning of the world.
    pub(super) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            since: 0,
            counted: 0,
            percent: 100,
        }
    }

    /// What it shows.
    pub(super) fn read(&self, now: Moment) -> Instant {
        self.epoch + Duration::from_micros(self.count(now))
    }

    /// The first moment at which it shows `at` or later.
    pub(super) fn moment(&self, at: Instant) -> Moment {
        let micros = at.saturating_duration_since(self.epoch).as_nanos();
        let count = u64::try_from(micros.div_ceil(1_000)).unwrap_or(u64::MAX / 1_000);
        let left = count.saturating_sub(self.counted);
        self.since + (left.min(u64::MAX / 1_000) * 100).div_ceil(self.percent)
    }

    /// Makes it run fast or slow.
    pub(super) fn skew(&mut self, now: Moment, percent: u64) {
        self.counted = self.count(now);
        self.since = now;
        self.percent = percent;
    }

    /// Makes it jump ahead.
    pub(super) fn jump(&mut self, now: Moment, by: Moment) {
        self.counted = self.count(now) + by;
        self.since = now;
    }

    fn count(&self, now: Moment) -> u64 {
        self.counted + (now - self.since) * self.percent / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_runs_fast_is_early_and_never_goes_back() {
        let epoch = Instant::now();
        let mut clock = Clock::new(epoch);
        assert_eq!(clock.moment(clock.read(7 * SECOND)), 7 * SECOND);
        clock.skew(10 * SECOND, 200);
        assert_eq!(clock.read(11 * SECOND), epoch + Duration::from_secs(12));
        assert_eq!(clock.moment(epoch + Duration::from_secs(14)), 12 * SECOND);
        clock.jump(12 * SECOND, 30 * SECOND);
        clock.skew(12 * SECOND, 50);
        assert_eq!(clock.read(12 * SECOND), epoch + Duration::from_secs(44));
        assert_eq!(clock.moment(epoch + Duration::from_secs(45)), 14 * SECOND);
        assert_eq!(clock.moment(epoch), 12 * SECOND, "it is due at once");
    }

    #[test]
    fn a_timer_is_never_rung_early() {
        let mut clock = Clock::new(Instant::now());
        clock.skew(3, 73);
        for micros in 0..1_000 {
            let at = clock.epoch + Duration::from_nanos(micros * 1_001);
            let moment = clock.moment(at);
            assert!(clock.read(moment) >= at, "{micros}");
        }
    }
}
