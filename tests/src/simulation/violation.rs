//! What must never be seen, by name.

use std::fmt;

use hawser_mesh::record::{Key, Version};

use super::clock::{Moment, SECOND};
use super::shape::Place;

/// A broken invariant.
#[derive(Clone, Debug)]
pub(super) enum Violation {
    /// I3: a record that its origin's hub never wrote.
    NeverWritten { origin: usize, key: Key },
    /// I3: a record that its origin was not granted.
    NotGranted { origin: usize, key: Key },
    /// I3: what is for a cluster's own agents alone was told to others.
    PrivateTold { origin: usize, key: Key },
    /// A record that nobody here asked for.
    NotAskedFor { origin: usize, key: Key },
    /// A state of an origin that is older than the one before.
    VersionWentBack {
        origin: usize,
        from: Version,
        to: Version,
    },
    /// A record's older state took the place of a newer one.
    OlderState { origin: usize, key: Key },
    /// A removed record came back.
    CameBack { origin: usize, key: Key },
    /// A record that was never removed is gone.
    Vanished { origin: usize, key: Key },
    /// An event that changes nothing.
    Idle { origin: usize, key: Key },
    /// Honest sessions led to a state that only a comparison put right.
    RepairNeeded { origin: usize },
    /// Events do not add up to what the store holds.
    EventsDiffer { origin: usize },
    /// I5: not everybody agrees in time.
    NotConverged { origin: usize, what: String },
    /// I5: equal digests of different contents, or the reverse.
    DigestLies { origin: usize, with: Place },
    /// I7: what an honest process said was refused.
    HonestRejected { reject: String },
    /// I7: a record that an honest cluster may announce was refused.
    HonestRefused { origin: usize, reason: String },
    /// I7: a session with somebody else suffered.
    OthersHarmed { what: String },
    /// Something grew beyond its bound.
    Unbounded { what: &'static str, size: usize },
    /// I6: a number was given twice.
    GivenTwice { what: String },
    /// Somebody without the right became a member.
    LetIn { what: String },
    /// The code gave up.
    Panicked { message: String },
}

impl Violation {
    /// Its name. A shortened story must end in the same one.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::NeverWritten { .. } => "never_written",
            Self::NotGranted { .. } => "not_granted",
            Self::PrivateTold { .. } => "private_told",
            Self::NotAskedFor { .. } => "not_asked_for",
            Self::VersionWentBack { .. } => "version_went_back",
            Self::OlderState { .. } => "older_state",
            Self::CameBack { .. } => "came_back",
            Self::Vanished { .. } => "vanished",
            Self::Idle { .. } => "idle_event",
            Self::RepairNeeded { .. } => "repair_needed",
            Self::EventsDiffer { .. } => "events_differ",
            Self::NotConverged { .. } => "not_converged",
            Self::DigestLies { .. } => "digest_lies",
            Self::HonestRejected { .. } => "honest_rejected",
            Self::HonestRefused { .. } => "honest_refused",
            Self::OthersHarmed { .. } => "others_harmed",
            Self::Unbounded { .. } => "unbounded",
            Self::GivenTwice { .. } => "given_twice",
            Self::LetIn { .. } => "let_in",
            Self::Panicked { .. } => "panicked",
        }
    }
}

/// Where and when an invariant broke.
#[derive(Clone, Debug)]
pub struct Broken {
    pub(super) at: Moment,
    pub(super) place: Option<Place>,
    pub(super) violation: Violation,
}

impl Broken {
    /// The invariant's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.violation.name()
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.at / SECOND, self.at % SECOND);
        write!(f, "{:>4}.{micros:06} s  {}", seconds, self.violation.name())?;
        if let Some(place) = self.place {
            write!(f, " at {place}")?;
        }
        write!(f, ": {}", self.violation)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverWritten { origin, key }
            | Self::NotGranted { origin, key }
            | Self::PrivateTold { origin, key }
            | Self::NotAskedFor { origin, key }
            | Self::OlderState { origin, key }
            | Self::CameBack { origin, key }
            | Self::Vanished { origin, key }
            | Self::Idle { origin, key } => write!(f, "{key} of cluster {origin}"),
            Self::VersionWentBack { origin, from, to } => {
                write!(f, "cluster {origin} from {from} to {to}")
            }
            Self::EventsDiffer { origin } | Self::RepairNeeded { origin } => {
                write!(f, "cluster {origin}")
            }
            Self::NotConverged { origin, what } => write!(f, "cluster {origin}: {what}"),
            Self::DigestLies { origin, with } => write!(f, "cluster {origin}, beside {with}"),
            Self::HonestRejected { reject } => f.write_str(reject),
            Self::HonestRefused { origin, reason } => write!(f, "cluster {origin}: {reason}"),
            Self::Unbounded { what, size } => write!(f, "{what}: {size}"),
            Self::OthersHarmed { what } | Self::GivenTwice { what } | Self::LetIn { what } => {
                f.write_str(what)
            }
            Self::Panicked { message } => f.write_str(message),
        }
    }
}
