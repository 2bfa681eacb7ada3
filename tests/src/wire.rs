//! A wire that can be made bad: loss, delay, jitter, reordering, duplicates, flipped bits, a rate, a smaller MTU, a cut
//! in one direction, and changes of all that over time.
//!
//! The kernel that labs run on may have no netem, so the wire is a program: the node's `eth0` and the router's port are
//! two TAPs, and [`run`] carries frames between them through a [`Link`]. The TAPs have no offloads, so that each frame
//! is one packet and faults hit packets.
//!
//! What happens to a frame depends on the seed of the wire, the frame's direction, its number in that direction and the
//! impairment in force, and on nothing else: see [`fate`]. The exceptions are a [`Rate`] and the bound of memory, where
//! a full queue depends on when frames come. Everything but [`run`] is without clock and without kernel.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

mod control;
mod counts;
pub mod fate;
mod impairment;
mod kind;
mod link;
mod log;
mod process;
mod schedule;

pub use control::{Answer, Attach, Request, WireState};
pub use counts::{Counts, Tally};
pub use fate::{Dropped, Fate};
pub use impairment::{Chance, Impairment, Rate, Reorder};
pub use kind::Kind;
pub use link::Link;
pub use log::{Log, LogLine};
pub use process::{fate_log, run, socket};
pub use schedule::{At, Schedule, Step};

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// From the node.
    Out,
    /// To the node.
    In,
}

impl Way {
    /// Both ways.
    pub const BOTH: [Self; 2] = [Self::Out, Self::In];

    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Out => 0,
            Self::In => 1,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Out => "out",
            Self::In => "in",
        })
    }
}

impl FromStr for Way {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "out" => Ok(Self::Out),
            "in" => Ok(Self::In),
            _ => bail!("direction: {text:?}: must be out or in"),
        }
    }
}

/// Which frames of a wire are meant, seen from the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Those from the node.
    Out,
    /// Those to the node.
    In,
    /// All.
    Both,
}

impl Direction {
    /// The ways that it covers.
    #[must_use]
    pub const fn ways(self) -> &'static [Way] {
        match self {
            Self::Out => &[Way::Out],
            Self::In => &[Way::In],
            Self::Both => &Way::BOTH,
        }
    }
}

impl From<Way> for Direction {
    fn from(way: Way) -> Self {
        match way {
            Way::Out => Self::Out,
            Way::In => Self::In,
        }
    }
}

#[cfg(test)]
mod tests;
