//! How many frames met which fate.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use super::{Direction, Dropped, Kind, LogLine, Way};

/// Frames by fate. A frame that was dropped counts once; one that was corrupted, duplicated and delayed in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// All that came to the wire.
    pub frames: u64,
    /// Came out once, as they were, and in their turn.
    pub passed: u64,
    /// Vanished by chance.
    pub lost: u64,
    /// Came while nothing passed.
    pub cut: u64,
    /// Longer than the wire's MTU.
    pub oversize: u64,
    /// Found the queue full.
    pub queue_full: u64,
    /// Had a bit flipped.
    pub corrupted: u64,
    /// Came out twice.
    pub duplicated: u64,
    /// Were held back for others to pass.
    pub delayed: u64,
    /// Times that the device at the end refused a frame, because it was down or gone.
    pub refused: u64,
}

impl Tally {
    /// Frames that the wire did not let through.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.lost + self.cut + self.oversize + self.queue_full
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.frames += other.frames;
        self.passed += other.passed;
        self.lost += other.lost;
        self.cut += other.cut;
        self.oversize += other.oversize;
        self.queue_full += other.queue_full;
        self.corrupted += other.corrupted;
        self.duplicated += other.duplicated;
        self.delayed += other.delayed;
        self.refused += other.refused;
    }
}

/// How many frames of a wire met which fate, since it was made or rewound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    by_way: BTreeMap<Way, BTreeMap<Kind, Tally>>,
    /// Frames that never came to the wire because the device's queue before it was full, by direction.
    overruns: BTreeMap<Way, u64>,
}

impl Counts {
    /// Frames of every kind.
    #[must_use]
    pub fn of(&self, direction: Direction) -> Tally {
        let mut sum = Tally::default();
        for kind in Kind::ALL {
            sum += self.kind(direction, kind);
        }
        sum
    }

    /// Frames of one kind.
    #[must_use]
    pub fn kind(&self, direction: Direction, kind: Kind) -> Tally {
        let mut sum = Tally::default();
        for way in direction.ways() {
            let tally = self.by_way.get(way).and_then(|kinds| kinds.get(&kind));
            sum += tally.copied().unwrap_or_default();
        }
        sum
    }

    /// Frames that never came to the wire because the device's queue before it was full. They have no fate.
    #[must_use]
    pub fn overruns(&self, direction: Direction) -> u64 {
        let ways = direction.ways().iter();
        ways.filter_map(|way| self.overruns.get(way)).sum()
    }

    /// Counts a frame.
    pub fn add(&mut self, line: &LogLine) {
        let tally = self.tally(line.way, line.kind);
        tally.frames += 1;
        match line.fate.dropped {
            Some(Dropped::Cut) => tally.cut += 1,
            Some(Dropped::Oversize) => tally.oversize += 1,
            Some(Dropped::Lost) => tally.lost += 1,
            Some(Dropped::QueueFull) => tally.queue_full += 1,
            None => {
                tally.passed += u64::from(line.fate.passed());
                tally.corrupted += u64::from(line.fate.corrupted.is_some());
                tally.duplicated += u64::from(line.fate.duplicated);
                tally.delayed += u64::from(line.fate.delayed_past.is_some());
            }
        }
    }

    /// Counts a frame that the device at the end refused.
    pub(super) fn refuse(&mut self, way: Way, kind: Kind) {
        self.tally(way, kind).refused += 1;
    }

    /// Counts frames that found the device's queue full.
    pub(super) fn overrun(&mut self, way: Way, frames: u64) {
        *self.overruns.entry(way).or_default() += frames;
    }

    fn tally(&mut self, way: Way, kind: Kind) -> &mut Tally {
        self.by_way.entry(way).or_default().entry(kind).or_default()
    }
}
