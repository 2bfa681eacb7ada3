//! Chance, to spread what would else happen at once. Not for secrets.

use std::time::Duration;

/// A number drawn by lot. Without chance whoever draws does so in step with others, which costs time and nothing else.
pub(crate) fn drawn() -> u64 {
    let mut lot = [0; 8];
    let _ = getrandom::fill(&mut lot);
    u64::from_ne_bytes(lot)
}

/// Numbers from a seed, by SplitMix64.
#[derive(Debug)]
pub(crate) struct Lot(u64);

impl Lot {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A time between nothing and `bound`.
    pub(crate) fn within(&mut self, bound: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bound = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos((z ^ (z >> 31)) % bound.saturating_add(1))
    }
}
