//! What the agent says of pre-shared keys, beside what the data plane says.

use super::super::agent_socket::ask;
use super::age;
use crate::agent_socket::{PeerKeyStatus, Request, Response};
use hawser_tunnel::node::NodeId;
use hawser_tunnel::status::{PeerStatus, Status};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// How it stands with each peer that a hub told of.
#[derive(Debug, Default)]
pub(super) struct PeerKeys(BTreeMap<NodeId, PeerKeyStatus>);

impl PeerKeys {
    /// Asks the agent beside a data plane's socket. Without a hub there is none, and without an agent there is nobody to
    /// ask: then the data plane's word is all.
    pub(super) fn ask(tunnel: &Path) -> Self {
        match ask(tunnel, &Request::Status { digest: false }) {
            Ok(Response::Status(status)) => Self::new(status.keys),
            Ok(
                Response::Renewing { .. }
                | Response::Watching
                | Response::TooSlow
                | Response::Refused { .. },
            )
            | Err(_) => Self::default(),
        }
    }

    pub(super) fn new(keys: Vec<PeerKeyStatus>) -> Self {
        Self(keys.into_iter().map(|it| (it.id, it)).collect())
    }

    /// Whether there is anything to be said of anybody.
    pub(super) fn matter(&self, peers: &[PeerStatus]) -> bool {
        let mut lanes = peers.iter().flat_map(|peer| &peer.lanes);
        !self.0.is_empty() || lanes.any(|lane| lane.preshared_key)
    }

    /// Where a peer's keys come from, and how old they are.
    pub(super) fn shown(&self, peer: &PeerStatus) -> String {
        let in_force = peer.lanes.iter().all(|lane| lane.preshared_key);
        match (self.0.get(&peer.id), in_force) {
            (None, true) => "file".to_owned(),
            (None, false) => "none".to_owned(),
            (Some(keys), _) => match keys.age_ms {
                Some(age_ms) => format!("{} {}", keys.post_quantum.name(), age(age_ms)),
                None => keys.post_quantum.name().to_owned(),
            },
        }
    }

    /// Peers with which the last attempt at newer keys led to nothing, and why.
    pub(super) fn failures(&self) -> impl Iterator<Item = (NodeId, &str)> {
        let failed = self.0.iter();
        failed.filter_map(|(&id, keys)| Some((id, keys.failure.as_deref()?)))
    }

    /// The data plane's status, with what is said here in each peer's `keys`.
    pub(super) fn json(&self, status: &Status) -> serde_json::Result<Value> {
        let mut value = serde_json::to_value(status)?;
        let peers = value["peers"].as_array_mut().into_iter().flatten();
        for (peer, said) in status.peers.iter().zip(peers) {
            if let Some(keys) = self.0.get(&peer.id) {
                said["keys"] = serde_json::to_value(keys)?;
            }
        }
        Ok(value)
    }
}
