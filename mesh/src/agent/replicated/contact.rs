//! A peer whose agent keys are derived with.

use crate::record::{self, LaneRecord};
use crate::trust::PeerId;
use hawser_tunnel::key::PublicKey;
use hawser_tunnel::state::Lane;
use std::net::SocketAddr;

/// What its record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Who its certificate must say that it is.
    pub id: PeerId,
    /// Its WireGuard keys, by its lanes; at least one.
    pub lanes: Vec<PublicKey>,
    /// Where its agent is reached, if it is.
    pub at: Option<SocketAddr>,
}

impl Contact {
    /// Reads a record whose lanes became these.
    pub(super) fn new(cluster: &str, node: &record::Node, lanes: &[Lane]) -> Self {
        let endpoint = lanes.first().and_then(|lane| lane.endpoint);
        let port = node
            .lanes
            .first()
            .and_then(|lane: &LaneRecord| lane.key_port);
        let at = endpoint.zip(port);
        Self {
            id: PeerId::node(cluster, &*node.name),
            lanes: lanes.iter().map(|lane| lane.public_key).collect(),
            at: at.map(|(endpoint, port)| SocketAddr::new(endpoint.ip(), port)),
        }
    }
}
