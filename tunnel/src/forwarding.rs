//! The forwarding table: an immutable snapshot of everything that a packet is judged by.
//!
//! A change of state makes a new table; lanes that did not change are shared with the old one, so
//! that their sessions live on and no packet is lost.

use crate::identity::Identity;
use crate::key::PublicKey;
use crate::lane::{Lane, LaneNumber};
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
    pub state: Arc<Checked>,
    owners: Owners,
    endpoints: HashMap<IpAddr, Identity>,
    identities: BTreeMap<ClusterId, HashSet<Identity>>,
    peers: BTreeMap<NodeId, Arc<Peer>>,
    by_index: HashMap<u32, (Arc<Peer>, Arc<Lane>)>,
    by_key: HashMap<(LaneNumber, PublicKey), Vec<Arc<Lane>>>,
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
    /// The pairs of a lane of ours and one of its; never empty. Pair `k` is of our lane `k` and its lane `k`, each count
    /// beginning anew where a side has fewer.
    pub lanes: Vec<Arc<Lane>>,
    /// Pairs that another key took the place of, as long as they have a session: they carry packets until the new one
    /// is proven, and open what is under way. Where it is a key of ours, also those without a session: whether the peer
    /// knows the newer key shows only when it uses it.
    pub older: Vec<Arc<Lane>>,
    /// How many lanes this node has with it.
    own_lanes: usize,
}

/// The pairs that a new state needs, which the old table may have.
pub(crate) trait Pairs {
    /// The pair of a lane of ours and one of a peer's. `first`: of the two that all nodes have.
    fn pair(
        &mut self,
        peer: NodeId,
        own: LaneNumber,
        desired: &crate::state::Lane,
        first: bool,
    ) -> Arc<Lane>;

    /// Pairs with a peer that are none of `lanes`, made for `wanted`, and are still of use.
    fn older(
        &mut self,
        peer: NodeId,
        wanted: &[(LaneNumber, &crate::state::Lane)],
        lanes: &[Arc<Lane>],
    ) -> Vec<Arc<Lane>>;
}

impl Forwarding {
    /// Makes the table of a state for a node with `own_lanes` lanes.
    pub(crate) fn new(state: Arc<Checked>, own_lanes: usize, pairs: &mut impl Pairs) -> Self {
        let own: Vec<LaneNumber> = LaneNumber::first(own_lanes.max(1)).collect();
        let mut peers = BTreeMap::new();
        let mut by_index = HashMap::new();
        let mut by_key: HashMap<_, Vec<Arc<Lane>>> = HashMap::new();
        for (&id, peer) in &state.peers {
            let own = match peer.kind {
                PeerKind::Native => &own[..],
                // It knows one key of ours.
                PeerKind::Foreign { .. } => &own[..1],
            };
            let wanted: Vec<_> = (0..own.len().max(peer.lanes.len()))
                .map(|at| (own[at % own.len()], &peer.lanes[at % peer.lanes.len()]))
                .collect();
            let lanes: Vec<_> = wanted
                .iter()
                .enumerate()
                .map(|(at, &(own, desired))| pairs.pair(id, own, desired, at == 0))
                .collect();
            let older = pairs.older(id, &wanted, &lanes);
            let peer = Arc::new(Peer {
                id,
                name: peer.name.clone(),
                kind: peer.kind,
                overlay: id.overlay_address(),
                path_mtu: peer.path_mtu,
                lanes,
                older,
                own_lanes: own.len(),
            });
            for lane in peer.all_lanes() {
                by_index.insert(lane.index(), (Arc::clone(&peer), Arc::clone(lane)));
                let key = (lane.own(), lane.public_key());
                by_key.entry(key).or_default().push(Arc::clone(lane));
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

    /// The pairs of a lane of ours and the peer's lane with this key, the one in force first: another pre-shared key makes
    /// another pair.
    pub(crate) fn lanes_by_key(&self, own: LaneNumber, key: &PublicKey) -> &[Arc<Lane>] {
        let lanes = self.by_key.get(&(own, *key));
        lanes.map(Vec::as_slice).unwrap_or_default()
    }

    /// All pairs with all peers.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.peers.values().flat_map(|peer| peer.all_lanes())
    }
}

impl Peer {
    /// The pair by which a flow goes that the kernel gave to our lane `own`: it keeps to it. One that is not proven is
    /// passed by only where another key took the place of one that is, or where nobody answers on it.
    pub fn lane(&self, own: LaneNumber, flow: u32) -> &Arc<Lane> {
        let lane = self.lane_of(own, flow);
        let is_silent = lane.is_silent();
        if !is_silent && (lane.is_proven() || self.older.is_empty()) {
            return lane;
        }
        self.other_than(lane).unwrap_or(lane)
    }

    fn lane_of(&self, own: LaneNumber, flow: u32) -> &Arc<Lane> {
        let (own, count) = (own.index(), self.lanes.len());
        // Of a foreign peer, which has fewer pairs than we have lanes.
        let own = own % count.min(self.own_lanes);
        let pairs = (count - own).div_ceil(self.own_lanes);
        let pair = usize::try_from(flow).unwrap_or_default() % pairs;
        &self.lanes[own + pair * self.own_lanes]
    }

    /// A proven pair to go by instead.
    fn other_than(&self, lane: &Arc<Lane>) -> Option<&Arc<Lane>> {
        let proven = |other: &&Arc<Lane>| other.is_proven() && !other.is_silent();
        let before = self.older.iter().filter(proven);
        let nearest = before.min_by_key(|older| older.own() != lane.own());
        let any = || self.lanes.iter().find(proven).filter(|_| lane.is_silent());
        nearest.or_else(any)
    }

    /// All pairs, those in force first.
    pub fn all_lanes(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.lanes.iter().chain(&self.older)
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
