//! How much of one origin we take.

use std::time::{Duration, Instant};

/// What one origin may cost. Whoever asks for more harms itself alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Records, refused ones too.
    pub records: usize,
    /// Bytes of keys and values.
    pub bytes: usize,
    /// Changes per second in the long run. Above it acknowledgements wait, and the publisher coalesces.
    pub changes_per_second: u32,
    /// Changes that may come at once.
    pub burst: u32,
}

impl Default for Quota {
    /// A cluster of 5,000 nodes and 100,000 pods, twice.
    fn default() -> Self {
        Self {
            records: 250_000,
            bytes: 128 << 20,
            changes_per_second: 2_000,
            burst: 10_000,
        }
    }
}

/// A bucket of tokens that may be overdrawn: who overdraws it waits until it is level again.
#[derive(Clone, Debug)]
pub(super) struct Rate {
    per_second: u32,
    burst: u32,
    /// When the bucket will be full, if nothing is taken.
    full_at: Option<Instant>,
}

impl Rate {
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        Self {
            per_second: per_second.max(1),
            burst,
            full_at: None,
        }
    }

    /// Takes tokens. Returns when the bucket is level, if it is overdrawn.
    pub(super) fn take(&mut self, tokens: usize, now: Instant) -> Option<Instant> {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + self.time_of(tokens);
        self.full_at = Some(full_at);
        let level = full_at.checked_sub(self.burst_time())?;
        (level > now).then_some(level)
    }

    /// Takes one token if it is there.
    pub(super) fn try_take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + self.time_of(1);
        let fits = full_at <= now + self.burst_time();
        if fits {
            self.full_at = Some(full_at);
        }
        fits
    }

    fn time_of(&self, tokens: usize) -> Duration {
        // A part has at most a million changes: this stays far below what an instant can hold.
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX).min(1 << 20);
        Duration::from_secs(1) * tokens / self.per_second
    }

    fn burst_time(&self) -> Duration {
        Duration::from_secs(1) * self.burst / self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_changes_too_much_waits_until_the_bucket_is_level() {
        let start = Instant::now();
        let mut rate = Rate::new(10, 20);
        assert_eq!(rate.take(20, start), None);
        assert_eq!(
            rate.take(5, start),
            Some(start + Duration::from_millis(500))
        );
        assert_eq!(rate.take(0, start + Duration::from_millis(500)), None);
        assert!(!rate.try_take(start + Duration::from_millis(500)));
        assert!(rate.try_take(start + Duration::from_millis(600)));
    }
}
