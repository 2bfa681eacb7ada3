//! The state of the data plane, from what the file says and what was learned.
//!
//! The file wins, then the own cluster, then whoever has the lower number: whatever came first, the same records make the
//! same state. What cannot stand beside it is left out alone, by name ([`Conflict`]).

mod conflict;
mod contact;

pub use conflict::{Conflict, Waiting};
pub use contact::Contact;

use super::claims::Claims;
use super::learned::Learned;
use crate::config::NodeConfig;
use crate::record;
use hawser_tunnel::guard::Guard;
use hawser_tunnel::identity::Identity;
use hawser_tunnel::key::PublicKey;
use hawser_tunnel::mtu;
use hawser_tunnel::node::{ClusterId, NodeId};
use hawser_tunnel::state::{Cluster, Lane, Peer, PeerKind, State, is_host, martian};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composed {
    /// For the data plane. Paths are not measured yet, and the guard knows nothing of clusters that left.
    pub state: State,
    /// The router address of each pod prefix of this node.
    pub routers: BTreeMap<IpNet, IpAddr>,
    /// The peers that records tell of, and not the file: with those keys are derived.
    pub contacts: BTreeMap<NodeId, Contact>,
    /// The CAs of other clusters in PEM, by name.
    pub authorities: BTreeMap<String, String>,
    /// What was left out.
    pub conflicts: BTreeSet<Conflict>,
}

/// Makes the state.
///
/// # Errors
/// Nobody has told yet which node this is.
pub fn compose(config: &NodeConfig, learned: Learned) -> Result<Composed, Waiting> {
    let node = match (config.node, learned.node()) {
        (Some(node), _) | (None, Some(node)) => node,
        (None, None) if learned.own_cluster.is_none() => return Err(Waiting::Cluster),
        (None, None) => return Err(Waiting::Node),
    };
    let mut composer = Composer {
        node,
        config,
        clusters: config.statics.clusters.clone(),
        of_clusters: Claims::default(),
        of_nodes: Claims::default(),
        keys: BTreeMap::new(),
        own_underlay: own_underlay(config, node, &learned),
        names: learned
            .clusters
            .values()
            .map(|it| (it.id, it.name.clone()))
            .collect(),
        contacts: BTreeMap::new(),
        conflicts: BTreeSet::new(),
    };
    if learned.node().is_some_and(|heard| heard != node) {
        composer.conflicts.insert(Conflict::OwnNode);
    }
    for &index in learned.namesakes.iter().skip(1) {
        composer.conflicts.insert(Conflict::Namesake { index });
    }
    composer.add_clusters(&learned);
    if !composer.clusters.contains_key(&node.cluster) {
        return Err(Waiting::Cluster);
    }
    let routers = composer.own_prefixes(learned.nodes.get(&node));
    let authorities = learned.clusters.values().filter(|it| !it.ca.is_empty());
    let authorities = authorities
        .map(|it| (it.name.clone(), it.ca.clone()))
        .collect();
    let pods = learned.pods;
    let peers = composer.peers(learned.nodes);
    let endpoints = composer.endpoints(&routers, pods);
    let prefixes: BTreeSet<IpNet> = routers.keys().copied().collect();
    let statics = &config.statics;
    let state = State {
        vni: statics.vni,
        node,
        guard: Guard {
            device: statics.device.clone(),
            underlay: statics.underlay.clone(),
            mesh: composer
                .clusters
                .values()
                .flat_map(|cluster| &cluster.prefixes)
                .copied()
                .collect(),
            local: prefixes.clone(),
        },
        prefixes,
        endpoints,
        clusters: composer.clusters,
        peers,
        checksums: statics.checksums,
    };
    Ok(Composed {
        state,
        routers,
        contacts: composer.contacts,
        authorities,
        conflicts: composer.conflicts,
    })
}

/// The first address behind the prefix's own, which no pod gets.
fn first_address(prefix: IpNet) -> IpAddr {
    let first = match prefix {
        IpNet::V4(net) => net.hosts().next().map(IpAddr::V4),
        // Its first one is for any router (RFC 4291, section 2.6.1).
        IpNet::V6(net) => net.hosts().nth(1).map(IpAddr::V6),
    };
    first.unwrap_or_else(|| prefix.addr())
}

/// Where the nodes of the own cluster are reached, as they said themselves.
fn own_underlay(config: &NodeConfig, node: NodeId, learned: &Learned) -> BTreeSet<IpAddr> {
    let own = learned.nodes.iter();
    let own = own.filter(|(id, _)| id.cluster == node.cluster);
    let lanes = own.flat_map(|(_, record)| &record.lanes);
    let told = lanes.filter_map(|lane| lane.peer_endpoint);
    let told = told.map(|endpoint| endpoint.ip());
    told.chain(config.underlay_address).collect()
}

struct Composer<'a> {
    node: NodeId,
    config: &'a NodeConfig,
    clusters: BTreeMap<ClusterId, Cluster>,
    of_clusters: Claims<ClusterId>,
    of_nodes: Claims<NodeId>,
    keys: BTreeMap<PublicKey, NodeId>,
    /// The clusters that records tell of.
    names: BTreeMap<ClusterId, String>,
    contacts: BTreeMap<NodeId, Contact>,
    /// Where nodes of the own cluster are reached.
    own_underlay: BTreeSet<IpAddr>,
    conflicts: BTreeSet<Conflict>,
}

impl Composer<'_> {
    fn add_clusters(&mut self, learned: &Learned) {
        for (&id, cluster) in &self.clusters {
            for &prefix in &cluster.prefixes {
                // Those of the file do not overlap.
                let _ = self.of_clusters.claim(prefix, id);
            }
        }
        let own = learned.own_cluster;
        let first = own.and_then(|id| learned.clusters.get(&id));
        let others = learned.clusters.values().filter(|it| Some(it.id) != own);
        for member in first.into_iter().chain(others) {
            let cluster = self.clusters.entry(member.id).or_insert_with(|| Cluster {
                name: member.name.clone(),
                ..Cluster::default()
            });
            if cluster.name != member.name {
                let cluster = member.id;
                self.conflicts.insert(Conflict::ClusterName { cluster });
            }
            for &prefix in &member.prefixes {
                if cluster.prefixes.contains(&prefix) {
                    continue;
                }
                if let Some(range) = martian(&prefix) {
                    self.conflicts.insert(Conflict::NotForPods {
                        cluster: member.id,
                        prefix,
                        range,
                    });
                    continue;
                }
                // Its guard and routes would cut the nodes of this cluster off from each other.
                let mut behind = self.own_underlay.range(prefix.network()..);
                if member.id != self.node.cluster
                    && let Some(&address) = behind.next().filter(|first| prefix.contains(*first))
                {
                    self.conflicts.insert(Conflict::CoversNode {
                        cluster: member.id,
                        prefix,
                        address,
                    });
                    continue;
                }
                match self.of_clusters.claim(prefix, member.id) {
                    Ok(()) => {
                        cluster.prefixes.insert(prefix);
                    }
                    Err((taken, by)) => {
                        self.conflicts.insert(Conflict::ClustersOverlap {
                            cluster: member.id,
                            prefix,
                            taken,
                            by,
                        });
                    }
                }
            }
        }
        for (id, identities) in &learned.identities {
            if let Some(cluster) = self.clusters.get_mut(id) {
                cluster.identities.extend(identities);
            }
        }
    }

    /// Whether a node may have this prefix; takes it if so.
    fn claim(&mut self, prefix: IpNet, node: NodeId) -> bool {
        let cluster = self.clusters.get(&node.cluster);
        let mut outer = cluster.into_iter().flat_map(|cluster| &cluster.prefixes);
        if !outer.any(|outer| outer.contains(&prefix)) {
            self.conflicts
                .insert(Conflict::OutsideCluster { node, prefix });
            return false;
        }
        let Err((taken, by)) = self.of_nodes.claim(prefix, node) else {
            return true;
        };
        self.conflicts.insert(Conflict::NodesOverlap {
            node,
            prefix,
            taken,
            by,
        });
        false
    }

    /// The pod prefixes of this node: those of the file, and those of its record.
    fn own_prefixes(&mut self, record: Option<&record::Node>) -> BTreeMap<IpNet, IpAddr> {
        let mut routers = self.config.routers.clone();
        // With a hub the file need not list the cluster that they lie in.
        routers.retain(|&prefix, _| self.claim(prefix, self.node));
        for &prefix in record.into_iter().flat_map(|record| &record.prefixes) {
            if !routers.contains_key(&prefix) && self.claim(prefix, self.node) {
                routers.insert(prefix, first_address(prefix));
            }
        }
        routers
    }

    fn peers(&mut self, nodes: BTreeMap<NodeId, record::Node>) -> BTreeMap<NodeId, Peer> {
        let mut peers = BTreeMap::new();
        for (&id, peer) in &self.config.statics.peers {
            if id == self.node {
                self.conflicts.insert(Conflict::PeerIsSelf);
                continue;
            }
            let mut peer = peer.clone();
            peer.prefixes.retain(|&prefix| self.claim(prefix, id));
            for lane in &peer.lanes {
                self.keys.insert(lane.public_key, id);
            }
            peers.insert(id, peer);
        }
        // This node has its keys before anybody else can say so, and so has its cluster: who is further away may only
        // have copied them.
        let own = nodes.get(&self.node);
        for lane in own.into_iter().flat_map(|node| &node.lanes) {
            self.keys.entry(lane.public_key).or_insert(self.node);
        }
        let (near, far): (Vec<_>, Vec<_>) = nodes
            .into_iter()
            .partition(|(id, _)| id.cluster == self.node.cluster);
        for (id, node) in near.into_iter().chain(far) {
            // Without lanes its agent has not told its keys yet; without its cluster nobody vouches for it yet.
            if id == self.node || node.lanes.is_empty() || !self.clusters.contains_key(&id.cluster)
            {
                continue;
            }
            if let Some(peer) = peers.get(&id) {
                if !is_same(peer, &node) {
                    self.conflicts.insert(Conflict::StaticPeer { node: id });
                }
                continue;
            }
            if let Err(conflict) = self.check_lanes(id, &node) {
                self.conflicts.insert(conflict);
                continue;
            }
            let prefixes = node.prefixes.iter().copied();
            let prefixes = prefixes.filter(|&prefix| self.claim(prefix, id)).collect();
            let lanes: Vec<Lane> = node.lanes.iter().map(|it| self.lane(id, it)).collect();
            if let Some(cluster) = self.names.get(&id.cluster) {
                let contact = Contact::new(cluster, &node, &lanes);
                self.contacts.insert(id, contact);
            }
            let peer = Peer {
                name: node.name,
                kind: PeerKind::Native,
                prefixes,
                lanes,
                path_mtu: mtu::MIN_UNDERLAY,
                watched: false,
            };
            peers.insert(id, peer);
        }
        peers
    }

    /// A lane has its place in the list, so a node with one that cannot stand is left out whole.
    fn check_lanes(&mut self, node: NodeId, record: &record::Node) -> Result<(), Conflict> {
        for lane in &record.lanes {
            if let Some(&by) = self.keys.get(&lane.public_key) {
                return Err(Conflict::KeyTwice { node, by });
            }
            if let Some(peer_endpoint) = lane.peer_endpoint
                && (!is_host(peer_endpoint.ip())
                    || self.of_clusters.of_address(peer_endpoint.ip()).is_some())
            {
                return Err(Conflict::PeerEndpoint {
                    node,
                    peer_endpoint,
                });
            }
        }
        let before = self.keys.len();
        let keys = record.lanes.iter().map(|lane| (lane.public_key, node));
        self.keys.extend(keys);
        if self.keys.len() != before + record.lanes.len() {
            return Err(Conflict::KeyTwice { node, by: node });
        }
        Ok(())
    }

    /// Another cluster's node at the address of one of ours must speak first: behind NAT both may be right, and what we
    /// sent there would reach our own.
    fn lane(&mut self, node: NodeId, lane: &record::LaneRecord) -> Lane {
        let mut endpoint = lane.peer_endpoint;
        if let Some(peer_endpoint) = endpoint
            && node.cluster != self.node.cluster
            && self.own_underlay.contains(&peer_endpoint.ip())
        {
            let conflict = Conflict::EndpointOfOwn {
                node,
                peer_endpoint,
            };
            self.conflicts.insert(conflict);
            endpoint = None;
        }
        Lane {
            public_key: lane.public_key,
            endpoint,
            preshared_key: None,
            needs_key: false,
        }
    }

    fn endpoints(
        &mut self,
        routers: &BTreeMap<IpNet, IpAddr>,
        pods: Vec<record::Pod>,
    ) -> BTreeMap<IpAddr, Identity> {
        let mut endpoints: BTreeMap<IpAddr, Identity> = routers
            .values()
            .map(|&router| (router, Identity::HOST))
            .collect();
        let published = self.clusters.get(&self.node.cluster);
        let is_inside = |address: IpAddr| routers.keys().any(|prefix| prefix.contains(&address));
        let is_published = |identity: Identity| {
            published.is_some_and(|cluster| cluster.identities.contains(&identity))
        };
        let of_file = self.config.statics.endpoints.iter();
        let of_file = of_file.map(|(&address, &identity)| (address, identity));
        let own = |pod: &record::Pod| pod.node == self.node.index;
        let of_pods = pods.into_iter().filter(own).flat_map(|pod| {
            let identity = pod.identity;
            pod.addresses
                .into_iter()
                .map(move |address| (address, identity))
        });
        for (address, identity) in of_file.chain(of_pods) {
            // A pod of the host's network is the host.
            if identity == Identity::HOST {
                continue;
            }
            let conflict = if !is_inside(address) {
                Conflict::PodOutside { address }
            } else if !is_published(identity) {
                Conflict::PodIdentity { address, identity }
            } else if let Some(&taken) = endpoints.get(&address).filter(|&&it| it != identity) {
                Conflict::PodAddressTwice { address, taken }
            } else {
                endpoints.insert(address, identity);
                continue;
            };
            self.conflicts.insert(conflict);
        }
        endpoints
    }
}

/// Whether the record says of a peer what the file says.
fn is_same(peer: &Peer, node: &record::Node) -> bool {
    let keys = peer.lanes.iter().map(|lane| lane.public_key);
    peer.prefixes.iter().eq(&node.prefixes)
        && keys.eq(node.lanes.iter().map(|lane| lane.public_key))
}

#[cfg(test)]
mod tests;
