//! What this node tells of itself: its keys, and where they are reached.

use super::Node;
use crate::chain::one_line;
use crate::record::LaneRecord;
use hawser_tunnel::control::Request;
use hawser_tunnel::key::PublicKey;
use std::net::{IpAddr, SocketAddr};

/// What is known of the own lanes, and what was told of them.
#[derive(Debug, Default)]
pub(super) struct Announcement {
    /// It is time to ask the data plane for its keys.
    asks: bool,
    keys: Vec<PublicKey>,
    /// The port of the first lane; further ones have the ports behind it.
    port: u16,
    address: Option<IpAddr>,
    /// Where others come to derive keys.
    pub(super) key_port: Option<u16>,
    told: Vec<LaneRecord>,
}

impl Announcement {
    /// The data plane says what its keys are. One that is malformed takes all of them along: a lane has its place. Returns
    /// whether they are others than before.
    pub(super) fn hear_keys(&mut self, public_keys: Vec<String>, port: u16) -> bool {
        let parsed: Result<Vec<PublicKey>, _> =
            public_keys.iter().map(|text| text.parse()).collect();
        let Ok(keys) = parsed else {
            tracing::warn!("data plane tells a key that is none");
            return false;
        };
        self.port = port;
        let differs = self.keys != keys;
        self.keys = keys;
        differs
    }

    /// The own keys, once the data plane has told them.
    pub(super) fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// Whether what is known of the own lanes was told.
    pub(super) fn is_told(&self) -> bool {
        !self.told.is_empty() && self.told == self.lanes()
    }

    /// The data plane's keys are others than before, perhaps.
    pub(super) fn look_at_keys(&mut self) {
        self.asks = true;
    }

    /// Whether others are told where to come to derive keys.
    pub(super) fn is_reachable(&self) -> bool {
        self.address.is_some() && self.key_port.is_some()
    }

    /// The lanes, once the data plane has told its keys and where a port would be beyond the last one not at all.
    fn lanes(&self) -> Vec<LaneRecord> {
        let ports = self.port..=u16::MAX;
        let lanes = self.keys.iter().zip(ports).map(|(&public_key, port)| {
            let peer_endpoint = self.address.map(|address| SocketAddr::new(address, port));
            LaneRecord {
                public_key,
                peer_endpoint,
                key_port: self.key_port.filter(|_| self.address.is_some()),
            }
        });
        lanes.collect()
    }
}

impl Node {
    /// Looks at what others must know of this node: asks the data plane for its keys, and the kernel for the address.
    pub(in crate::agent) async fn look_at_own_lanes(&mut self) {
        self.announcement.asks = true;
        let before = self.announcement.address;
        self.announcement.address = match self.config.underlay_address {
            Some(address) => Some(address),
            None => match self.underlay_address().await {
                Ok(address) => address,
                Err(error) => {
                    let failure = one_line(&error);
                    return self.troubles.note("underlay address", Some(failure));
                }
            },
        };
        self.roster_stale |= before != self.announcement.address;
        self.troubles.note("underlay address", None);
    }

    pub(super) fn poll_keys(&mut self) -> Option<Request> {
        let due = self.announcement.asks;
        let request = due.then(|| self.conversation.poll_keys())??;
        self.announcement.asks = false;
        Some(request)
    }

    /// What a hub is to be told, where it is something else than before.
    pub(in crate::agent) fn poll_announcement(&mut self) -> Option<Vec<LaneRecord>> {
        let lanes = self.announcement.lanes();
        if lanes.is_empty() || lanes == self.announcement.told {
            return None;
        }
        self.announcement.told.clone_from(&lanes);
        Some(lanes)
    }
}
