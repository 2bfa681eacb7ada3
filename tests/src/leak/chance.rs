//! Random choices that a seed repeats.

use std::env;
use std::time::Duration;

/// Set to the seed of an earlier run to repeat its choices.
const SEED: &str = "HAWSER_SEED";

/// SplitMix64 (Steele, Lea and Flood 2014): enough for delays, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Chance {
    seed: u64,
    state: u64,
}

impl Chance {
    /// With the seed from `HAWSER_SEED`, or a fixed one.
    #[must_use]
    pub fn from_environment() -> Self {
        let seed = env::var(SEED).ok().and_then(|text| text.parse().ok());
        Self::new(seed.unwrap_or(1))
    }

    /// With a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// What to set `HAWSER_SEED` to, to have the same again.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// A number below `end`.
    ///
    /// # Panics
    /// When `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// A time below `end`, in whole milliseconds.
    pub fn delay(&mut self, end: Duration) -> Duration {
        let millis = u64::try_from(end.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.below(millis.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_choices_and_another_makes_others() {
        let choices = |seed| {
            let mut chance = Chance::new(seed);
            (0..8).map(|_| chance.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(choices(7), choices(7));
        assert_ne!(choices(7), choices(8));
    }
}
