//! What is said to the process that holds a lab's wires: one line of JSON a request, one line of JSON an answer.

use serde::{Deserialize, Serialize};

use super::{Counts, Direction, Impairment, Schedule};

/// Where a wire goes. The process makes both ends, as TAPs that are down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attach {
    /// The node's namespace, where the end is called `eth0`.
    pub netns: String,
    /// The router's namespace.
    pub router: String,
    /// The end in it.
    pub port: String,
    /// The seed of the lab's wires.
    pub seed: u64,
    /// The node's cluster ID.
    pub cluster: u16,
    /// The node's index.
    pub index: u16,
}

/// A request about the wire of one node. All are answered by the wire's state after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Request {
    /// Make both ends anew. A wire that was there keeps its impairment, numbers, counts and log.
    Attach(String, Attach),
    /// Put an impairment in force, and end the schedule. Frames that were sent before meet what was in force then.
    Set(String, Direction, Impairment),
    /// Start a schedule in place of the one before.
    Schedule(String, Schedule),
    /// Number frames from 0 again, with counts at 0, an empty log, and another seed or the same.
    Rewind(String, Option<u64>),
    /// Write out the log.
    Flush(String),
    /// Just tell.
    Tell(String),
}

impl Request {
    /// The node whose wire is meant.
    #[must_use]
    pub fn node(&self) -> &str {
        match self {
            Self::Attach(node, _)
            | Self::Set(node, _, _)
            | Self::Schedule(node, _)
            | Self::Rewind(node, _)
            | Self::Flush(node)
            | Self::Tell(node) => node,
        }
    }
}

/// What the process says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// Done.
    State(Box<WireState>),
    /// Not done: one line.
    Error(String),
}

/// How a wire is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WireState {
    /// In force for frames from the node.
    pub out: Impairment,
    /// In force for frames to the node.
    #[serde(rename = "in")]
    pub inward: Impairment,
    /// What happened so far.
    pub counts: Counts,
    /// Lines that are missing from the log, because it was full.
    pub unlogged: u64,
    /// Both ends are there.
    pub attached: bool,
}
