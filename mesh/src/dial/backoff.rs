//! How long to wait before all is tried again.

use crate::lot::Lot;
use std::time::Duration;

/// The longest wait. A hub that comes back is found within it.
pub const LONGEST: Duration = Duration::from_millis(500);
/// The first wait is at most this.
const FIRST: Duration = Duration::from_millis(50);

/// Waits that grow, each drawn between nothing and twice the bound before ("full jitter").
#[derive(Debug)]
pub struct Backoff {
    lot: Lot,
    failures: u32,
}

impl Backoff {
    /// `seed` is drawn by lot.
    pub fn new(seed: u64) -> Self {
        Self {
            lot: Lot::new(seed),
            failures: 0,
        }
    }

    /// All is well again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The bound of the next wait.
    pub fn bound(&self) -> Duration {
        let factor = 1u32 << self.failures.min(10);
        FIRST.saturating_mul(factor).min(LONGEST)
    }

    /// The next wait.
    pub fn draw_next(&mut self) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        self.lot.within(bound)
    }

    /// How long a name that could not be resolved rests.
    pub fn of_name(&mut self) -> Duration {
        LONGEST / 2 + self.lot.within(LONGEST / 2)
    }
}
