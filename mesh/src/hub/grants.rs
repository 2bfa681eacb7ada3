//! What other clusters may announce, as agreed when they joined.

use super::manifest::{ClusterPeer, QuotaLimits};
use super::protected::{Breach, Protected};
use crate::record::{Endpoint, Key, Node, Record, Scope};
use crate::replica::{Gate, Quota, Refusal};
use crate::wire::decode_record;
use bytes::Bytes;
use hawser_tunnel::node::ClusterId;
use hawser_tunnel::state::martian;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// What is this cluster's own, and nobody else's to announce.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Its pod prefixes.
    pub prefixes: Vec<IpNet>,
    /// Underlay addresses of its nodes.
    pub nodes: BTreeSet<IpAddr>,
    /// What nobody imports.
    pub protected: Protected,
}

/// Judges each record of another cluster by that cluster's grant.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    own: Own,
    peers: BTreeMap<ClusterId, Arc<ClusterPeer>>,
    /// Prefixes of pods of all clusters, this one's too.
    mesh: Vec<IpNet>,
    issuers: Issuers,
}

impl Grants {
    /// The grants of these members, seen from a cluster with these things of its own.
    pub fn new(own: Own, peers: BTreeMap<ClusterId, Arc<ClusterPeer>>) -> Self {
        let theirs = peers.values().flat_map(|peer| &peer.pod_cidrs);
        let mesh = own.prefixes.iter().chain(theirs).copied().collect();
        Self {
            own,
            peers,
            mesh,
            issuers: Issuers::default(),
        }
    }

    /// The same, which knows whose revocations come, and how new they must be.
    #[must_use]
    pub fn with_issuers(self, issuers: Issuers) -> Self {
        Self { issuers, ..self }
    }

    /// What it holds for this cluster's own.
    pub fn own(&self) -> &Own {
        &self.own
    }

    fn judge(
        &self,
        origin: ClusterId,
        peer: &ClusterPeer,
        record: &Record,
    ) -> Result<(), &'static str> {
        match record {
            Record::Node(node) => self.judge_node(peer, node),
            Record::Identity(identity) => namespace(peer, &identity.namespace),
            Record::Service(service) => self.judge_service(peer, &service.namespace, &service.name),
            Record::Endpoint(endpoint) => self.judge_endpoint(peer, endpoint),
            Record::Revocations(signed) => self.issuers.judge(origin, peer, signed),
            Record::Authorities(said) => match said.vouched(&peer.ca) {
                Some(_) => Ok(()),
                None => Err("authorities_unlinked"),
            },
            Record::Policy(_) | Record::Namespace(_) | Record::Pod(_) | Record::Cluster(_) => {
                Err("kind_private")
            }
        }
    }

    fn judge_node(&self, peer: &ClusterPeer, node: &Node) -> Result<(), &'static str> {
        if node.prefixes.iter().any(|prefix| martian(prefix).is_some()) {
            return Err("prefix_martian");
        }
        let inside = |prefix: &IpNet| peer.pod_cidrs.iter().any(|cidr| cidr.contains(prefix));
        if !node.prefixes.iter().all(inside) {
            return Err("prefix_outside_grant");
        }
        let over = |prefix: &IpNet| self.own.nodes.iter().any(|node| prefix.contains(node));
        if node.prefixes.iter().any(over) {
            return Err("prefix_over_own_node");
        }
        let endpoints = node.lanes.iter().filter_map(|lane| lane.peer_endpoint);
        for endpoint in endpoints {
            let address = endpoint.ip();
            if martian(&address.into()).is_some() {
                return Err("lane_endpoint_martian");
            }
            // Its packets would go into the tunnel that they are to make.
            if self.mesh.iter().any(|cidr| cidr.contains(&address)) {
                return Err("lane_endpoint_in_mesh");
            }
        }
        Ok(())
    }

    fn judge_service(&self, peer: &ClusterPeer, of: &str, name: &str) -> Result<(), &'static str> {
        self.own.protected.judge(of, name).map_err(Breach::name)?;
        namespace(peer, of)
    }

    fn judge_endpoint(&self, peer: &ClusterPeer, endpoint: &Endpoint) -> Result<(), &'static str> {
        if endpoint.identity.is_reserved() {
            return Err("identity_reserved");
        }
        for address in &endpoint.addresses {
            if martian(&(*address).into()).is_some() {
                return Err("address_martian");
            }
            if !peer.pod_cidrs.iter().any(|cidr| cidr.contains(address)) {
                return Err("address_outside_grant");
            }
            if self.own.nodes.contains(address) {
                return Err("address_of_own_node");
            }
        }
        match &endpoint.scope {
            Scope::Service { namespace, name } => self.judge_service(peer, namespace, name),
            Scope::Identity(_) => {
                let (of, _) = endpoint.name.split_once('/').unwrap_or_default();
                namespace(peer, of)
            }
        }
    }
}

fn namespace(peer: &ClusterPeer, name: &str) -> Result<(), &'static str> {
    match &peer.namespaces {
        Some(names) if !names.contains(name) => Err("namespace_not_granted"),
        Some(_) | None => Ok(()),
    }
}

impl Gate for Grants {
    fn admit(&self, origin: ClusterId, key: &Key, value: &Bytes) -> Result<(), Refusal> {
        let Some(peer) = self.peers.get(&origin) else {
            return Err(Refusal::Grant("origin_not_member"));
        };
        if key.is_private() {
            return Err(Refusal::Grant("kind_private"));
        }
        let record = decode_record(key, value)?;
        self.judge(origin, peer, &record).map_err(Refusal::Grant)
    }
}

/// The quota of a member: what its `ClusterPeer` says, else what the hub says for all, else the default.
pub fn quota(peer: QuotaLimits, hub: QuotaLimits) -> Quota {
    let default = Quota::default();
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let records = peer.records.or(hub.records).map(|n| size(n.into()));
    let bytes = peer.bytes.or(hub.bytes).map(size);
    let rate = peer.changes_per_second.or(hub.changes_per_second);
    let burst = peer.burst.or(hub.burst);
    Quota {
        records: records.unwrap_or(default.records),
        bytes: bytes.unwrap_or(default.bytes),
        changes_per_second: rate.unwrap_or(default.changes_per_second),
        burst: burst.unwrap_or(default.burst),
    }
}

mod issuers;

pub use issuers::Issuers;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
