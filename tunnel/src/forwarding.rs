//! The forwarding table: an immutable snapshot of everything that a packet is judged by.
//!
//! A change of state makes a new table; lanes that did not change are shared with the old one, so
//! that their sessions live on and no packet is lost.

use crate::identity::Identity;
use crate::key::PublicKey;
use crate::lane::Lane;
use crate::mtu;
use crate::node::{ClusterId, NodeId};
use crate::owners::Owners;
use crate::state::{Checked, Checksums, PeerKind};
use crate::status::PodMtu;
use crate::vni::Vni;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// What the lanes of a data plane share while they handle a batch.
#[derive(Debug)]
pub struct Forwarding {
    /// The network.
    pub vni: Vni,
    /// This node.
    pub node: NodeId,
    /// This node's overlay address.
    pub overlay: Ipv4Addr,
    /// Whether checksums that a kernel left to be filled in stay so on their way to nodes of ours.
    pub leaves_checksums: bool,
    /// The state that this table was made of.
    pub state: Checked,
    owners: Owners,
    endpoints: HashMap<IpAddr, Identity>,
    identities: BTreeMap<ClusterId, HashSet<Identity>>,
    peers: BTreeMap<NodeId, Arc<Peer>>,
    by_index: HashMap<u32, (Arc<Peer>, Arc<Lane>)>,
    by_key: BTreeMap<PublicKey, (Arc<Peer>, Arc<Lane>)>,
}

/// A peer, ready for packets.
#[derive(Debug)]
pub struct Peer {
    /// Who.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Whether it speaks our option.
    pub kind: PeerKind,
    /// Its overlay address.
    pub overlay: Ipv4Addr,
    /// The MTU of the underlay path, in bytes.
    pub path_mtu: u16,
    /// Its lanes; never empty.
    pub lanes: Vec<Arc<Lane>>,
}

/// A lane that a new state needs and the old table may have.
pub(crate) type LaneOf<'a> = dyn FnMut(NodeId, &crate::state::Lane) -> Arc<Lane> + 'a;

impl Forwarding {
    /// Makes the table of a state; `lane` finds or makes the lanes.
    pub(crate) fn new(state: Checked, lane: &mut LaneOf<'_>) -> Self {
        let mut peers = BTreeMap::new();
        let mut by_index = HashMap::new();
        let mut by_key = BTreeMap::new();
        for (&id, peer) in &state.peers {
            let lanes: Vec<_> = peer.lanes.iter().map(|desired| lane(id, desired)).collect();
            let peer = Arc::new(Peer {
                id,
                name: peer.name.clone(),
                kind: peer.kind,
                overlay: id.overlay_address(),
                path_mtu: peer.path_mtu,
                lanes,
            });
            for lane in &peer.lanes {
                by_index.insert(lane.index(), (Arc::clone(&peer), Arc::clone(lane)));
                by_key.insert(lane.public_key(), (Arc::clone(&peer), Arc::clone(lane)));
            }
            peers.insert(id, peer);
        }
        let identities = state
            .clusters
            .iter()
            .map(|(&id, cluster)| (id, cluster.identities.iter().copied().collect()))
            .collect();
        Self {
            vni: state.vni,
            node: state.node,
            overlay: state.node.overlay_address(),
            owners: Owners::new(&state),
            endpoints: state
                .endpoints
                .iter()
                .map(|(&address, &identity)| (address, identity))
                .collect(),
            identities,
            peers,
            by_index,
            by_key,
            leaves_checksums: state.checksums == Checksums::Left,
            state,
        }
    }

    /// The node that owns an address.
    pub fn owner(&self, address: IpAddr) -> Option<NodeId> {
        self.owners.owner(address)
    }

    /// The identity of a local address.
    pub fn local_identity(&self, address: IpAddr) -> Option<Identity> {
        self.endpoints.get(&address).copied()
    }

    /// Whether a cluster published an identity.
    pub fn is_published(&self, cluster: ClusterId, identity: Identity) -> bool {
        self.identities
            .get(&cluster)
            .is_some_and(|published| published.contains(&identity))
    }

    /// A peer by its id.
    pub fn peer(&self, id: NodeId) -> Option<&Arc<Peer>> {
        self.peers.get(&id)
    }

    /// All peers, in the order of their ids.
    pub fn peers(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.peers.values()
    }

    /// The lane that a receiver index belongs to; an engine counts sessions in the low eight bits.
    pub(crate) fn lane_by_index(&self, receiver: u32) -> Option<&(Arc<Peer>, Arc<Lane>)> {
        self.by_index.get(&(receiver >> 8))
    }

    /// The lane that a key belongs to.
    pub(crate) fn lane_by_key(&self, key: &PublicKey) -> Option<&(Arc<Peer>, Arc<Lane>)> {
        self.by_key.get(key)
    }
}

impl Peer {
    /// The lane of a flow.
    pub fn lane(&self, flow: u32) -> &Arc<Lane> {
        let count = u32::try_from(self.lanes.len()).unwrap_or(u32::MAX);
        &self.lanes[usize::try_from(flow % count.max(1)).unwrap_or_default()]
    }

    /// The largest plaintext of one message to this peer, where it is reached at `endpoint`.
    pub fn plaintext(&self, endpoint: IpAddr) -> usize {
        usize::from(mtu::plaintext(self.path_mtu, endpoint))
    }

    /// What pods are told of the path.
    pub fn pod_mtu(&self, endpoint: Option<IpAddr>) -> PodMtu {
        let endpoint = endpoint.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        PodMtu {
            ipv4: mtu::pod(self.path_mtu, endpoint),
            ipv6: mtu::pod_ipv6(self.path_mtu, endpoint),
        }
    }
}
