//! A clock that stands still while this process does.

use std::time::{Duration, Instant};

/// How often a data plane that watches peers wants to be called.
pub const TICK: Duration = Duration::from_millis(20);

/// A longer pause between two calls was not ours to choose: what it is longer than this is no time
/// in which a peer was silent.
pub const LONGEST_GAP: Duration = Duration::from_millis(50);

/// Time in which this process ran. Starved of CPU, stopped or frozen with its machine it neither
/// asked nor listened, and a peer is not dead for that.
#[derive(Debug)]
pub struct Awake {
    last: Instant,
    missed: Duration,
}

impl Awake {
    /// A clock that starts at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            last: now,
            missed: Duration::ZERO,
        }
    }

    /// Tells the clock that the process runs, and returns its time.
    pub fn advance(&mut self, now: Instant) -> Instant {
        let gap = now.saturating_duration_since(self.last);
        self.missed += gap.saturating_sub(LONGEST_GAP);
        self.last = self.last.max(now);
        self.last - self.missed
    }

    /// Its time at `now`; does not count as running.
    pub fn at(&self, now: Instant) -> Instant {
        let gap = now.saturating_duration_since(self.last);
        self.last - self.missed + gap.min(LONGEST_GAP)
    }

    /// When [`Self::advance`] wants to be called next, so that `due` of this clock is not missed and
    /// no time is taken for a gap.
    pub fn until(&self, due: Instant) -> Instant {
        (due + self.missed).min(self.last + TICK)
    }
}
