//! What a replica tells its owner.

use super::SessionId;
use crate::record::{Key, LaneRecord, Version};
use bytes::Bytes;
use hawser_tunnel::node::ClusterId;

/// What happened. The words for records are those of kube's watcher.
///
/// Of an origin that was never complete here, `Init` comes first, then `InitApply` for each record and `InitDone`.
/// From then on, also when states are compared or the session changes, only real differences are told: `Apply` and
/// `Delete`. What was given to [`super::Replica::load`] is not told again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first state of an origin begins to arrive.
    Init {
        /// Whose.
        origin: ClusterId,
    },
    /// A record of the first state.
    InitApply {
        /// Whose.
        origin: ClusterId,
        /// Where it is found.
        key: Key,
        /// The record, undecoded.
        value: Bytes,
    },
    /// The first state is complete.
    InitDone {
        /// Whose.
        origin: ClusterId,
    },
    /// A record is new or changed.
    Apply {
        /// Whose.
        origin: ClusterId,
        /// Where it is found.
        key: Key,
        /// The record, undecoded.
        value: Bytes,
    },
    /// A record is gone.
    Delete {
        /// Whose.
        origin: ClusterId,
        /// Where it was found.
        key: Key,
    },
    /// An origin left, and all its records with it; there is no `Delete` for them.
    Forgotten {
        /// Whose.
        origin: ClusterId,
    },
    /// An origin's state moved on: everything up to here was told before this. For those who keep states on disk.
    Reached {
        /// Whose.
        origin: ClusterId,
        /// The newest state that was ever complete here.
        version: Version,
        /// Whether the records are that state; else they are a mix.
        complete: bool,
    },
    /// A subscriber has had a newer state of our own origin than we have, and for some seconds we did not reach it. The
    /// source may have been restored from a backup. Told again while it lasts.
    Ahead {
        /// Ours.
        origin: ClusterId,
        /// What it has.
        seen: Version,
        /// Who says it.
        session: SessionId,
    },
    /// An agent told its node's lanes.
    Announced {
        /// Who.
        session: SessionId,
        /// All of them.
        lanes: Vec<LaneRecord>,
    },
    /// A subscriber refused a record.
    Refused {
        /// Who.
        session: SessionId,
        /// Whose record.
        origin: ClusterId,
        /// Where it is found.
        key: Key,
        /// The refusal's name.
        reason: String,
    },
    /// A session that feeds us has told all that its side has of an origin, for the first time.
    Synced {
        /// Who feeds us.
        session: SessionId,
        /// Of whom.
        origin: ClusterId,
    },
}
