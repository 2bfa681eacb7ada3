//! What a hub's decisions come to.

use super::super::bump::Claim;
#[cfg(doc)]
use super::{Core, bump};
use crate::record::{Incarnation, Key, LaneRecord, Revision, Version};
use crate::replica::SessionId;
use crate::revocation::Signed;
use crate::trust::{Authorities, PeerId};
use bytes::Bytes;
use hawser_tunnel::node::ClusterId;

/// What the owner is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Keep one connection to a hub of this cluster, and tell [`Core::dialed`] of it. Takes the place of what was said
    /// of that cluster before.
    Dial {
        /// Whose hubs.
        cluster: ClusterId,
        /// That cluster's name, which must be in the hub's certificate.
        name: String,
        /// `HOST:PORT` each.
        hubs: Vec<String>,
    },
    /// The cluster left: dial it no more.
    Hang {
        /// Which.
        cluster: ClusterId,
    },
    /// Trust this CA of that cluster from now on, and end connections that it does not vouch for; `None`: none.
    Trust {
        /// The cluster's name.
        name: String,
        /// PEM.
        ca: Option<String>,
    },
    /// Close this connection, with this reason.
    Close {
        /// Which.
        session: SessionId,
        /// A name, for the other side too.
        reason: &'static str,
    },
    /// Hand a node's lanes to who writes.
    Announced {
        /// The node's name.
        node: String,
        /// All of its lanes.
        lanes: Vec<LaneRecord>,
    },
    /// Let who writes begin another incarnation.
    Bump {
        /// Which.
        to: Incarnation,
    },
    /// Tell who writes, for its [`Core::heard`], that these say to have had newer states than there are.
    Ahead {
        /// At most [`bump::MAX_TOLD`].
        claims: Vec<Claim>,
    },
    /// Keep this of another cluster.
    Keep {
        /// Whose.
        origin: ClusterId,
        /// Of the newest state that was ever complete.
        version: Version,
        /// Whether the records are that state.
        complete: bool,
        /// What changed since the last time; `None`: gone.
        changes: Vec<(Key, Option<(Revision, Bytes)>)>,
    },
    /// Keep nothing of this cluster any more.
    Forget {
        /// Which.
        origin: ClusterId,
    },
    /// A member told whom it revoked: keep it for good, and cut off whom it may.
    Revocations {
        /// Checked, and not older than what was known.
        signed: Signed,
    },
    /// A member told what its CAs are by now: keep those that are believed, and trust them.
    Authorities {
        /// The member's name.
        name: String,
        /// As it came; the gate believed one of them at least.
        said: Authorities,
    },
    /// A member's CAs changed: make another connection to its hubs before the present one ends, so that both sides know
    /// each other by what is newest.
    Redial {
        /// Which.
        cluster: ClusterId,
    },
    /// Another cluster's hub refused one of our records.
    Refused {
        /// Who.
        by: PeerId,
        /// Where the record is found.
        key: Key,
        /// The refusal's name.
        reason: String,
        /// Whether the log should have it: the first of a cluster, then ever fewer.
        loud: bool,
    },
    /// We have all that this cluster has to tell.
    Synced {
        /// Which.
        origin: ClusterId,
    },
}

/// Why a peer is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unwelcome {
    /// No `ClusterPeer` has its cluster's name.
    #[error("its cluster is no member")]
    ClusterUnknown,
    /// No `Node` has its name.
    #[error("there is no node of that name")]
    NodeUnknown,
    /// A node of another cluster, or a hub of our own.
    #[error("nobody of its role is served")]
    RoleUnserved,
}

impl Unwelcome {
    /// Its name in metrics and logs, and as the reason that the peer is told.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClusterUnknown => "cluster_unknown",
            Self::NodeUnknown => "node_unknown",
            Self::RoleUnserved => "role_unserved",
        }
    }
}
