//! Chance, to spread what would else happen at once.

use std::time::Duration;

/// Numbers from a seed, by SplitMix64: this is about spreading, not about secrets.
#[derive(Debug)]
pub(super) struct Lot(u64);

impl Lot {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A time between nothing and `bound`.
    pub(super) fn within(&mut self, bound: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bound = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos((z ^ (z >> 31)) % bound.saturating_add(1))
    }
}
