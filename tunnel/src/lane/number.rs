//! The lanes of a node, counted.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Which of this node's lanes: 0 is the one that every peer knows.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "u8", into = "u8")]
pub struct LaneNumber(u8);

impl LaneNumber {
    /// Lanes of a node at most. A lane is a thread for each direction: more than most nodes have cores for traffic.
    pub const MAX: u8 = 16;

    /// The one that every peer knows.
    pub const FIRST: Self = Self(0);

    /// The lane with this number.
    ///
    /// # Errors
    /// When no node has so many.
    pub fn new(number: u8) -> Result<Self, NoSuchLane> {
        match number < Self::MAX {
            true => Ok(Self(number)),
            false => Err(NoSuchLane(number)),
        }
    }

    /// The first `count` lanes.
    pub fn first(count: usize) -> impl Iterator<Item = Self> {
        (0..Self::MAX).take(count).map(Self)
    }

    /// To count places with.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A number that no lane has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lane {0}: must be 0 to 15")]
pub struct NoSuchLane(u8);

impl TryFrom<u8> for LaneNumber {
    type Error = NoSuchLane;
    fn try_from(number: u8) -> Result<Self, NoSuchLane> {
        Self::new(number)
    }
}

impl From<LaneNumber> for u8 {
    fn from(lane: LaneNumber) -> Self {
        lane.0
    }
}

impl fmt::Display for LaneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
