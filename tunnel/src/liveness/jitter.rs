//! Numbers that need not be secret, only different: SplitMix64 (Steele, Lea, Flood 2014).

use std::time::Duration;

/// A sequence of numbers that a seed gives.
#[derive(Clone, Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    /// The sequence of a seed.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(super) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A time from `least` to `least + spread`.
    pub(super) fn duration(&mut self, least: Duration, spread: Duration) -> Duration {
        let part = u32::try_from(self.draw() >> 48).unwrap_or_default();
        least + spread * part / (1 << 16)
    }
}
