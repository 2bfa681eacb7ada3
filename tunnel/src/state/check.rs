//! The rules that a state keeps before a packet is judged by it.

use super::{Peer, PeerKind, State};
use crate::identity::Identity;
use crate::key::PublicKey;
use crate::mtu;
use crate::node::{ClusterId, NodeId};
use crate::owners::Owners;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;

/// A state that keeps every rule. There is no other way to make one than [`State::check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked(State);

/// A rule that a state breaks. The text names field, value and rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A pod prefix that no pod can have.
    #[error("prefix {prefix} of {owner}: lies in {range}, which is not for pods")]
    Martian {
        /// The prefix.
        prefix: IpNet,
        /// Whose it is.
        owner: String,
        /// The range that it meets.
        range: IpNet,
    },
    /// The same prefix twice.
    #[error("prefix {prefix}: has two owners, {first} and {second}")]
    TwoOwners {
        /// The prefix.
        prefix: IpNet,
        /// One owner.
        first: NodeId,
        /// The other.
        second: NodeId,
    },
    /// A node's prefix outside those of its cluster.
    #[error("prefix {prefix} of node {node}: lies outside the prefixes of cluster {}", node.cluster)]
    OutsideCluster {
        /// The prefix.
        prefix: IpNet,
        /// The node.
        node: NodeId,
    },
    /// Prefixes of two clusters that meet.
    #[error(
        "prefix {first} of cluster {first_cluster} overlaps {second} of cluster {second_cluster}"
    )]
    ClustersOverlap {
        /// One prefix.
        first: IpNet,
        /// Its cluster.
        first_cluster: ClusterId,
        /// The other prefix.
        second: IpNet,
        /// Its cluster.
        second_cluster: ClusterId,
    },
    /// A node of a cluster that is not listed.
    #[error("node {0}: its cluster is not listed")]
    UnknownCluster(NodeId),
    /// A peer that is this node.
    #[error("peer {0}: is this node itself")]
    PeerIsSelf(NodeId),
    /// Two lanes with one key.
    #[error("public key {key}: belongs to two lanes, of {first} and of {second}")]
    KeyTwice {
        /// The key.
        key: PublicKey,
        /// One peer.
        first: NodeId,
        /// The other.
        second: NodeId,
    },
    /// A peer without lanes, or a foreign one with several.
    #[error("peer {peer}: has {lanes} lanes; must have 1 to 64, a foreign peer exactly 1")]
    Lanes {
        /// The peer.
        peer: NodeId,
        /// How many it has.
        lanes: usize,
    },
    /// A lane whose endpoint cannot be reached or would be encrypted again.
    #[error(
        "endpoint {endpoint} of peer {peer}: must be a host's address with a port, outside all pod prefixes"
    )]
    Endpoint {
        /// The endpoint.
        endpoint: std::net::SocketAddr,
        /// The peer.
        peer: NodeId,
    },
    /// A path that carries too little.
    #[error("path mtu {mtu} of peer {peer}: must be 1280 or more")]
    PathMtu {
        /// The MTU.
        mtu: u16,
        /// The peer.
        peer: NodeId,
    },
    /// A local endpoint outside this node's prefixes, or inside a longer one of another node.
    #[error("endpoint {0}: lies outside this node's prefixes")]
    EndpointOutside(IpAddr),
    /// A local endpoint with an identity that peers would refuse.
    #[error(
        "identity {identity} of endpoint {endpoint}: is neither the host's nor published by cluster {cluster}"
    )]
    EndpointIdentity {
        /// The identity.
        identity: Identity,
        /// The endpoint.
        endpoint: IpAddr,
        /// This node's cluster.
        cluster: ClusterId,
    },
    /// A prefix with bits set behind its length.
    #[error("prefix {prefix}: has host bits set; write {}", prefix.trunc())]
    HostBits {
        /// The prefix.
        prefix: IpNet,
    },
    /// A foreign peer that would speak with a reserved identity.
    #[error(
        "identity {identity} of foreign peer {peer}: must be 3 (world) or one of 256 and above"
    )]
    ForeignIdentity {
        /// The identity.
        identity: Identity,
        /// The peer.
        peer: NodeId,
    },
    /// A foreign peer that is to be watched.
    #[error("foreign peer {0}: cannot be watched; it answers no probes")]
    ForeignWatched(NodeId),
    /// A prefix of another cluster that the guard leaves open.
    #[error("guard: does not cover prefix {prefix} of cluster {cluster}")]
    Unguarded {
        /// The prefix.
        prefix: IpNet,
        /// Its cluster.
        cluster: ClusterId,
    },
    /// A guard that takes other prefixes for this node's.
    #[error("guard: its local prefixes are not this node's prefixes")]
    GuardLocal,
    /// A cluster that publishes what is not its to give.
    #[error("identity {identity} of cluster {cluster}: 1 to 255 are reserved")]
    ReservedIdentity {
        /// The identity.
        identity: Identity,
        /// The cluster.
        cluster: ClusterId,
    },
}

/// Ranges that never hold pods: "this", loopback, link-local, multicast, and 240.0.0.0/4,
/// which holds the overlay, virtual IPs, aliases and broadcast. For IPv6 the same, and what stands for an IPv4 address:
/// IPv4-compatible, mapped, and translated (RFC 6052), which would lead to any of the above.
const MARTIANS_V4: [(Ipv4Addr, u8); 5] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];
const MARTIANS_V6: [(Ipv6Addr, u8); 5] = [
    (Ipv6Addr::UNSPECIFIED, 96),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
];

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// The range that `prefix` meets and no pod may have, if there is one.
pub fn martian(prefix: &IpNet) -> Option<IpNet> {
    let v4 = MARTIANS_V4
        .iter()
        .map(|&(address, length)| IpNet::V4(Ipv4Net::new_assert(address, length)));
    let v6 = MARTIANS_V6
        .iter()
        .map(|&(address, length)| IpNet::V6(Ipv6Net::new_assert(address, length)));
    v4.chain(v6).find(|range| overlap(prefix, range))
}

/// Whether a host of the underlay can have an address.
pub fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_unspecified() || v4.is_broadcast() || v4.is_multicast() || v4.is_loopback())
        }
        IpAddr::V6(v6) => {
            let mapped = v6.to_ipv4_mapped().is_some();
            !(v6.is_unspecified() || v6.is_multicast() || v6.is_loopback() || mapped)
        }
    }
}

impl State {
    /// Checks every rule; the first that is broken comes back.
    pub fn check(self) -> Result<Checked, StateError> {
        self.check_clusters()?;
        self.check_owners()?;
        let mut keys = BTreeMap::new();
        for (&id, peer) in &self.peers {
            self.check_peer(id, peer)?;
            for lane in &peer.lanes {
                if let Some(first) = keys.insert(lane.public_key, id) {
                    return Err(StateError::KeyTwice {
                        key: lane.public_key,
                        first,
                        second: id,
                    });
                }
            }
        }
        self.check_endpoints()?;
        self.check_guard()?;
        Ok(Checked(self))
    }

    fn check_endpoints(&self) -> Result<(), StateError> {
        let owners = Owners::new(self);
        let published = self
            .clusters
            .get(&self.node.cluster)
            .map(|cluster| &cluster.identities);
        for (&endpoint, &identity) in &self.endpoints {
            if owners.owner(endpoint) != Some(self.node) {
                return Err(StateError::EndpointOutside(endpoint));
            }
            let known = published.is_some_and(|published| published.contains(&identity));
            if identity != Identity::HOST && !known {
                let cluster = self.node.cluster;
                return Err(StateError::EndpointIdentity {
                    identity,
                    endpoint,
                    cluster,
                });
            }
        }
        Ok(())
    }

    /// What leads into the tunnel must be kept off the underlay. Behind another CNI the own
    /// cluster's prefixes are that one's to carry, so they may be left out.
    fn check_guard(&self) -> Result<(), StateError> {
        for (&id, cluster) in self
            .clusters
            .iter()
            .filter(|(id, _)| **id != self.node.cluster)
        {
            for &prefix in &cluster.prefixes {
                if !self
                    .guard
                    .mesh
                    .iter()
                    .any(|guarded| guarded.contains(&prefix))
                {
                    return Err(StateError::Unguarded {
                        prefix,
                        cluster: id,
                    });
                }
            }
        }
        if self.guard.local != self.prefixes {
            return Err(StateError::GuardLocal);
        }
        Ok(())
    }

    fn check_clusters(&self) -> Result<(), StateError> {
        let mut seen: Vec<(IpNet, ClusterId)> = Vec::new();
        for (&id, cluster) in &self.clusters {
            if let Some(&identity) = cluster
                .identities
                .iter()
                .find(|identity| identity.is_reserved())
            {
                return Err(StateError::ReservedIdentity {
                    identity,
                    cluster: id,
                });
            }
            for &prefix in &cluster.prefixes {
                if prefix != prefix.trunc() {
                    return Err(StateError::HostBits { prefix });
                }
                if let Some(range) = martian(&prefix) {
                    return Err(StateError::Martian {
                        prefix,
                        owner: format!("cluster {id}"),
                        range,
                    });
                }
                if let Some(&(first, first_cluster)) = seen
                    .iter()
                    .find(|(other, cluster)| *cluster != id && overlap(other, &prefix))
                {
                    return Err(StateError::ClustersOverlap {
                        first,
                        first_cluster,
                        second: prefix,
                        second_cluster: id,
                    });
                }
                seen.push((prefix, id));
            }
        }
        Ok(())
    }

    fn check_owners(&self) -> Result<(), StateError> {
        let mut owners: BTreeMap<IpNet, NodeId> = BTreeMap::new();
        let own = self.prefixes.iter().map(|&prefix| (prefix, self.node));
        let others = self
            .peers
            .iter()
            .flat_map(|(&id, peer)| peer.prefixes.iter().map(move |&prefix| (prefix, id)));
        for (prefix, node) in own.chain(others) {
            let cluster = self
                .clusters
                .get(&node.cluster)
                .ok_or(StateError::UnknownCluster(node))?;
            if !cluster.prefixes.iter().any(|outer| outer.contains(&prefix)) {
                return Err(StateError::OutsideCluster { prefix, node });
            }
            if prefix != prefix.trunc() {
                return Err(StateError::HostBits { prefix });
            }
            if let Some(first) = owners.insert(prefix, node) {
                return Err(StateError::TwoOwners {
                    prefix,
                    first,
                    second: node,
                });
            }
        }
        Ok(())
    }

    fn check_peer(&self, id: NodeId, peer: &Peer) -> Result<(), StateError> {
        if id == self.node {
            return Err(StateError::PeerIsSelf(id));
        }
        if !self.clusters.contains_key(&id.cluster) {
            return Err(StateError::UnknownCluster(id));
        }
        if let PeerKind::Foreign { identity } = peer.kind
            && identity != Identity::WORLD
            && identity.is_reserved()
        {
            return Err(StateError::ForeignIdentity { identity, peer: id });
        }
        let is_foreign = matches!(peer.kind, PeerKind::Foreign { .. });
        if is_foreign && peer.watched {
            return Err(StateError::ForeignWatched(id));
        }
        let most = if is_foreign { 1 } else { 64 };
        if peer.lanes.is_empty() || peer.lanes.len() > most {
            return Err(StateError::Lanes {
                peer: id,
                lanes: peer.lanes.len(),
            });
        }
        if peer.path_mtu < mtu::MIN_UNDERLAY {
            return Err(StateError::PathMtu {
                mtu: peer.path_mtu,
                peer: id,
            });
        }
        let in_mesh = |address: IpAddr| {
            self.clusters
                .values()
                .flat_map(|cluster| &cluster.prefixes)
                .any(|net| net.contains(&address))
        };
        match peer
            .lanes
            .iter()
            .filter_map(|lane| lane.endpoint)
            .find(|at| at.port() == 0 || in_mesh(at.ip()) || !is_host(at.ip()))
        {
            Some(endpoint) => Err(StateError::Endpoint { endpoint, peer: id }),
            None => Ok(()),
        }
    }
}

impl Deref for Checked {
    type Target = State;
    fn deref(&self) -> &State {
        &self.0
    }
}

impl From<Checked> for State {
    fn from(checked: Checked) -> Self {
        checked.0
    }
}
