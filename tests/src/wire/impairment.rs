//! What a wire does to the frames of one direction.

use std::time::Duration;

use serde::{Deserialize, Serialize};

mod text;

/// A probability in parts of a billion, so that text, JSON and comparison are exact. Written in percent: `0.5%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chance(u32);

impl Chance {
    /// It never happens.
    pub const NEVER: Self = Self(0);
    /// It always happens.
    pub const ALWAYS: Self = Self(Self::BILLION);

    const BILLION: u32 = 1_000_000_000;

    /// So many in a billion; more than a billion is always.
    #[must_use]
    pub const fn parts_per_billion(parts: u32) -> Self {
        if parts > Self::BILLION {
            Self::ALWAYS
        } else {
            Self(parts)
        }
    }

    /// So many percent.
    #[must_use]
    pub const fn percent(percent: u32) -> Self {
        Self::parts_per_billion(percent.saturating_mul(Self::BILLION / 100))
    }

    /// As a number from 0 to 1.
    #[must_use]
    pub fn as_fraction(self) -> f64 {
        f64::from(self.0) / f64::from(Self::BILLION)
    }

    /// Whether it happens, given a draw that is uniform over all numbers of 64 bits.
    #[must_use]
    pub fn happens(self, draw: u64) -> bool {
        below(draw, u64::from(Self::BILLION)) < u64::from(self.0)
    }
}

/// Brings a draw that is uniform over all numbers of 64 bits down to one that is uniform from 0 to `bound - 1`.
pub(super) fn below(draw: u64, bound: u64) -> u64 {
    let product = u128::from(draw) * u128::from(bound);
    u64::try_from(product >> 64).unwrap_or(u64::MAX)
}

/// Frames that others overtake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reorder {
    /// How many frames are held back.
    pub chance: Chance,
    /// A frame that is held back lets 1 to `depth` frames pass that came after it, drawn for each frame anew. 1-20000.
    pub depth: u32,
    /// A frame is not held longer than this when nothing comes after it. Up to 10 s.
    pub hold: Duration,
}

impl Default for Reorder {
    fn default() -> Self {
        Self {
            chance: Chance::NEVER,
            depth: 3,
            hold: Duration::from_millis(100),
        }
    }
}

/// The speed of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bits of frames a second, Ethernet headers included. At least 1000.
    pub bits: u64,
    /// Bytes of frames that wait at most; a frame that does not fit is dropped.
    pub queue: usize,
}

impl Rate {
    /// The queue when none is named: 210 ms at 10 Mbit/s.
    pub const QUEUE: usize = 256 << 10;
}

/// What a wire does to the frames of one direction. The default is a clean wire.
///
/// As text, and so in JSON and YAML: `loss 5% duplicate 1% reorder 1% depth 3 hold 100ms corrupt 0.1% delay 20ms
/// jitter 5ms rate 100mbit queue 256kib mtu 1400`, each part optional and in any order, or `cut`, or `clean`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Impairment {
    /// Frames that vanish.
    pub loss: Chance,
    /// Frames that come twice, one right after the other.
    pub duplicate: Chance,
    /// Frames that others overtake. Nothing else reorders.
    pub reorder: Reorder,
    /// Frames in which one bit is flipped, anywhere from the Ethernet header on.
    pub corrupt: Chance,
    /// How long each frame is under way.
    pub delay: Duration,
    /// The delay is drawn evenly from `delay - jitter` to `delay + jitter`, but never below 0, and never so that a
    /// frame overtakes another: it waits for those before it. (So with many frames the delay tends to the upper end.)
    pub jitter: Duration,
    /// How fast frames go.
    pub rate: Option<Rate>,
    /// Frames with longer IP packets vanish without a word, in bytes, the Ethernet header not counted.
    pub mtu: Option<usize>,
    /// Nothing passes.
    pub cut: bool,
}

impl Impairment {
    /// Nothing passes.
    #[must_use]
    pub fn cut() -> Self {
        Self {
            cut: true,
            ..Self::default()
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
