//! How long to wait before all is tried again.

use std::time::Duration;

/// The longest wait. A hub that comes back is found within it.
pub const LONGEST: Duration = Duration::from_secs(1);
/// The first wait is at most this.
const FIRST: Duration = Duration::from_millis(50);

/// Waits that grow, each drawn between nothing and twice the bound before ("full jitter").
#[derive(Debug)]
pub struct Backoff {
    state: u64,
    failures: u32,
}

impl Backoff {
    /// `seed` is drawn by lot.
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed,
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
        self.draw(bound)
    }

    /// How long a name that could not be resolved rests.
    pub fn of_name(&mut self) -> Duration {
        LONGEST / 2 + self.draw(LONGEST / 2)
    }

    fn draw(&mut self, bound: Duration) -> Duration {
        let nanoseconds = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.random() % nanoseconds.saturating_add(1))
    }

    /// SplitMix64: this is about spreading, not about secrets.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
