//! What the node tells of its peers, and the keys that it is told.

use crate::psk::{Keys, Partner, PostQuantum, Taken};
use crate::trust::PeerId;
use hawser_tunnel::node::NodeId;
use std::collections::BTreeMap;

/// With whom keys are derived, and how each is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::agent) struct Roster {
    /// The UDP port to listen at.
    pub(in crate::agent) port: u16,
    /// What keys must be.
    pub(in crate::agent) demand: PostQuantum,
    /// The peers.
    pub(in crate::agent) partners: BTreeMap<NodeId, Partner>,
    /// Who the certificate of each must say that it is.
    pub(in crate::agent) ids: BTreeMap<NodeId, PeerId>,
    /// The CAs of other clusters in PEM, by name.
    pub(in crate::agent) authorities: BTreeMap<String, String>,
}

impl Roster {
    /// With nobody.
    pub(super) fn new(port: u16) -> Self {
        Self {
            port,
            demand: PostQuantum::default(),
            partners: BTreeMap::new(),
            ids: BTreeMap::new(),
            authorities: BTreeMap::new(),
        }
    }
}

/// The keys with one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::agent) struct Held {
    pub(in crate::agent) keys: Keys,
    pub(in crate::agent) taken: Taken,
}

/// All keys that were derived since the start, and where others can come for theirs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::agent) struct Keyring {
    pub(in crate::agent) held: BTreeMap<NodeId, Held>,
    /// The port that is listened at; `None`: it cannot be had, or there is no certificate yet.
    pub(in crate::agent) port: Option<u16>,
}
