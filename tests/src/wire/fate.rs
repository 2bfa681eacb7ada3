//! What happens to frame n of a direction.
//!
//! Each frame has draws of its own: block n of the ChaCha8 key stream whose key is the wire's seed and whose nonce is
//! the direction. So the same frame number meets the same fate however many draws the frames before it needed, however
//! long they were and whenever they came.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng as _, SeedableRng as _};

use super::Way;
use super::impairment::{Impairment, below};

/// Words of 32 bits that belong to one frame: one block of the key stream.
const WORDS: u128 = 16;
/// The MTU of a wire does not count it.
pub(super) const ETHERNET: usize = 14;

/// The draws of one wire.
#[derive(Debug)]
pub struct Dice([ChaCha8Rng; 2]);

/// The draws of one frame, each uniform over all numbers of 64 bits. They are made whether they are needed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws {
    loss: u64,
    duplicate: u64,
    reorder: u64,
    corrupt: u64,
    bit: u64,
    depth: u64,
    jitter: u64,
}

impl Dice {
    /// The draws of the wire of node `index` of `cluster` in a lab with this seed.
    #[must_use]
    pub fn new(seed: u64, cluster: u16, index: u16) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..10].copy_from_slice(&cluster.to_le_bytes());
        key[10..12].copy_from_slice(&index.to_le_bytes());
        Self(Way::BOTH.map(|way| {
            let mut rng = ChaCha8Rng::from_seed(key);
            rng.set_stream(match way {
                Way::Out => 0,
                Way::In => 1,
            });
            rng
        }))
    }

    /// The draws of frame `ordinal` (from 0) of a direction.
    pub fn draws(&mut self, way: Way, ordinal: u64) -> Draws {
        let rng = &mut self.0[way.index()];
        rng.set_word_pos(u128::from(ordinal) * WORDS);
        Draws {
            loss: rng.next_u64(),
            duplicate: rng.next_u64(),
            reorder: rng.next_u64(),
            corrupt: rng.next_u64(),
            bit: rng.next_u64(),
            depth: rng.next_u64(),
            jitter: rng.next_u64(),
        }
    }
}

/// Why a frame did not come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    /// Nothing passes.
    Cut,
    /// It is longer than the wire's MTU.
    Oversize,
    /// By chance.
    Lost,
    /// The queue before a rate, or the wire's memory, was full.
    QueueFull,
}

impl Dropped {
    const ALL: [Self; 4] = [Self::Cut, Self::Oversize, Self::Lost, Self::QueueFull];

    const fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Oversize => "oversize",
            Self::Lost => "lost",
            Self::QueueFull => "queue-full",
        }
    }
}

/// What happened to a frame. The default: it passed.
///
/// As text: `passed`, or the reason why it was dropped, or what was done to it joined by `+`, as in
/// `corrupted@117+duplicated+delayed-past 2`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// It did not come out. Nothing else applies then.
    pub dropped: Option<Dropped>,
    /// This bit was flipped, from 0; bit 0 is the lowest of the first byte.
    pub corrupted: Option<usize>,
    /// It came twice.
    pub duplicated: bool,
    /// It was held back until so many later frames had come to the wire, or until the hold had passed.
    pub delayed_past: Option<u32>,
}

impl Fate {
    /// What happens to a frame of `length` bytes, the Ethernet header included.
    #[must_use]
    pub fn decide(impairment: &Impairment, draws: &Draws, length: usize) -> Self {
        let dropped = if impairment.cut {
            Some(Dropped::Cut)
        } else if impairment.mtu.is_some_and(|mtu| length > mtu + ETHERNET) {
            Some(Dropped::Oversize)
        } else {
            let lost = impairment.loss.happens(draws.loss);
            lost.then_some(Dropped::Lost)
        };
        if dropped.is_some() {
            return Self::dropped(dropped);
        }
        let bits = u64::try_from(length).unwrap_or(u64::MAX).saturating_mul(8);
        let bit = || usize::try_from(below(draws.bit, bits)).unwrap_or_default();
        let reorder = impairment.reorder;
        let past =
            || 1 + u32::try_from(below(draws.depth, reorder.depth.into())).unwrap_or_default();
        Self {
            dropped: None,
            corrupted: impairment.corrupt.happens(draws.corrupt).then(bit),
            duplicated: impairment.duplicate.happens(draws.duplicate),
            delayed_past: reorder.chance.happens(draws.reorder).then(past),
        }
    }

    /// A frame that was dropped.
    pub(super) const fn dropped(dropped: Option<Dropped>) -> Self {
        Self {
            dropped,
            corrupted: None,
            duplicated: false,
            delayed_past: None,
        }
    }

    /// Whether the frame came out once, as it was, and in its turn.
    #[must_use]
    pub fn passed(&self) -> bool {
        *self == Self::default()
    }
}

/// How long a frame is under way.
#[must_use]
pub fn delay(impairment: &Impairment, draws: &Draws) -> Duration {
    let jitter = u64::try_from(impairment.jitter.as_nanos()).unwrap_or(u64::MAX);
    let offset = below(draws.jitter, jitter.saturating_mul(2).saturating_add(1));
    (impairment.delay + Duration::from_nanos(offset)).saturating_sub(impairment.jitter)
}

impl fmt::Display for Fate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(dropped) = self.dropped {
            return formatter.write_str(dropped.name());
        }
        if self.passed() {
            return formatter.write_str("passed");
        }
        let mut joint = "";
        if let Some(bit) = self.corrupted {
            write!(formatter, "corrupted@{bit}")?;
            joint = "+";
        }
        if self.duplicated {
            write!(formatter, "{joint}duplicated")?;
            joint = "+";
        }
        if let Some(frames) = self.delayed_past {
            write!(formatter, "{joint}delayed-past {frames}")?;
        }
        Ok(())
    }
}

impl FromStr for Fate {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "passed" {
            return Ok(Self::default());
        }
        if let Some(dropped) = Dropped::ALL.into_iter().find(|why| why.name() == text) {
            return Ok(Self::dropped(Some(dropped)));
        }
        let mut fate = Self::default();
        for part in text.split('+') {
            let number = |of: &str| format!("fate: {text:?}: {of} must have a number");
            if let Some(bit) = part.strip_prefix("corrupted@") {
                fate.corrupted = Some(bit.parse().with_context(|| number("corrupted"))?);
            } else if let Some(frames) = part.strip_prefix("delayed-past ") {
                fate.delayed_past = Some(frames.parse().with_context(|| number("delayed-past"))?);
            } else if part == "duplicated" {
                fate.duplicated = true;
            } else {
                bail!("fate: {part:?}: must be what a wire does to a frame");
            }
        }
        Ok(fate)
    }
}
