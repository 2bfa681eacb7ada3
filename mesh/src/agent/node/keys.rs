//! Pre-shared keys with peers: those that were derived, those that the data plane had before, and with whom to derive
//! others.

use super::Node;
use crate::agent::keys::{Keyring, Roster};
use crate::agent::replicated::Contact;
use crate::config::NodeConfig;
use crate::psk::{Demand, EAGER, Group, Keys, Partner, PostQuantum};
use hawser_tunnel::control::Request;
use hawser_tunnel::node::NodeId;
use hawser_tunnel::state::State;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The keys that the node knows.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownKeys {
    /// Derived since the start.
    keyring: Arc<Keyring>,
    /// In force when this agent came to the data plane, and not replaced yet. An agent before this one derived them.
    kept: BTreeMap<NodeId, Keys>,
    /// Of a mesh that is not small: the peers with a session, or that somebody wants one with.
    demanded: Arc<BTreeSet<NodeId>>,
    /// It is time to ask for them.
    asks_demand: bool,
}

impl KnownKeys {
    /// The keys with a peer, if they are what is asked for.
    fn of(&self, peer: NodeId, demand: PostQuantum) -> Option<&Keys> {
        let held = self.keyring.held.get(&peer);
        let enough = |group| demand == PostQuantum::Preferred || group == Group::Hybrid;
        let derived = held.filter(|held| enough(held.taken.group));
        derived
            .map(|held| &held.keys)
            .or_else(|| self.kept.get(&peer))
    }

    /// Puts them into a state, for the peers that records tell of. The others have what the file says.
    pub(super) fn fill(
        &self,
        state: &mut State,
        contacts: &BTreeMap<NodeId, Contact>,
        demand: PostQuantum,
    ) {
        for (&id, peer) in &mut state.peers {
            if !contacts.contains_key(&id) {
                continue;
            }
            let keys = self.of(id, demand);
            for (at, lane) in peer.lanes.iter_mut().enumerate() {
                lane.preshared_key = keys.and_then(|keys| keys.of_lane(at)).cloned();
                lane.needs_key = demand == PostQuantum::Required;
            }
        }
    }

    /// Takes over those of the state in force, where none were derived yet. While pre-shared keys were not required, of
    /// those nobody knows how they were derived.
    pub(super) fn adopt(&mut self, state: &State, config: &NodeConfig) {
        for (&id, peer) in &state.peers {
            let is_of_file = config.statics.peers.contains_key(&id);
            let lanes = peer.lanes.iter();
            let enough = config.post_quantum == PostQuantum::Preferred
                || lanes.clone().all(|lane| lane.needs_key);
            if is_of_file || !enough || self.keyring.held.contains_key(&id) {
                continue;
            }
            if let Some(keys) = Keys::of_lanes(lanes.map(|lane| lane.preshared_key.as_ref())) {
                self.kept.entry(id).or_insert(keys);
            }
        }
    }

    /// More is asked for than before.
    pub(super) fn forget_kept(&mut self) {
        self.kept.clear();
    }

    /// Forgets those of peers that are none any more, and those that others took the place of.
    pub(super) fn retain(&mut self, contacts: &BTreeMap<NodeId, Contact>) {
        let held = &self.keyring.held;
        self.kept
            .retain(|id, _| contacts.contains_key(id) && !held.contains_key(id));
    }
}

impl Node {
    /// Other keys were derived, or this node can be reached for them at another port.
    pub(in crate::agent) fn handle_keys(&mut self, keyring: Arc<Keyring>) {
        self.announcement.key_port = keyring.port;
        let before = std::mem::replace(&mut self.keys.keyring, keyring);
        self.roster_stale = true;
        if before.held != self.keys.keyring.held {
            self.rebuild_soon();
        }
    }

    /// Whether keys are derived only with peers that are in use.
    fn derives_on_demand(&self) -> bool {
        let wanted = self.wanted.as_ref();
        wanted.is_some_and(|wanted| wanted.contacts.len() > EAGER)
    }

    /// The data plane is asked soon which peers are in use, where that matters.
    pub(in crate::agent) fn look_at_demand(&mut self) {
        self.keys.asks_demand = self.derives_on_demand();
    }

    pub(super) fn poll_demand(&mut self) -> Option<Request> {
        let due = self.keys.asks_demand;
        let request = due.then(|| self.conversation.poll_demand())??;
        self.keys.asks_demand = false;
        Some(request)
    }

    pub(super) fn handle_demand(&mut self, peers: Vec<NodeId>) {
        let peers: BTreeSet<NodeId> = peers.into_iter().collect();
        if peers != *self.keys.demanded {
            self.keys.demanded = Arc::new(peers);
            self.roster_stale = true;
        }
    }

    /// With whom keys are to be derived, where that may be something else than before.
    pub(in crate::agent) fn poll_roster(&mut self) -> Option<Roster> {
        if !std::mem::take(&mut self.roster_stale) {
            return None;
        }
        let port = self.config.hub.as_ref()?.key_port;
        let wanted = self.wanted.as_ref()?;
        let own = self.announcement.keys();
        if own.is_empty() {
            return None;
        }
        let on_demand = self.derives_on_demand();
        let partner = |(&id, contact): (&NodeId, &Contact)| {
            let demand = match on_demand {
                false => Demand::Eager,
                true if self.keys.demanded.contains(&id) => Demand::Now,
                true => Demand::None,
            };
            let partner = Partner {
                own: own.to_vec(),
                peer: contact.lanes.clone(),
                at: contact.at,
                reachable: self.announcement.is_reachable(),
                has_keys: self.keys.kept.contains_key(&id),
                demand,
            };
            (id, partner)
        };
        let contacts = wanted.contacts.iter();
        Some(Roster {
            port,
            demand: self.config.post_quantum,
            partners: contacts.clone().map(partner).collect(),
            ids: contacts.map(|(&id, it)| (id, it.id.clone())).collect(),
            authorities: wanted.authorities.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::keys::Held;
    use crate::psk::Taken;
    use crate::trust::PeerId;
    use hawser_tunnel::key::{PresharedKey, PublicKey};
    use std::path::Path;

    const NODE: &str = "
cluster: { name: east, id: 1 }
node: { name: east-1, index: 1 }
underlay: { devices: [eth0] }
pods: [ { cidr: 10.1.1.0/24, router: 10.1.1.1 } ]
clusters: [ { name: east, id: 1, prefixes: [10.1.0.0/16] }, { name: west, id: 2, prefixes: [10.2.0.0/16] } ]
peers:
  - { name: west-1, cluster: west, index: 1, prefixes: [10.2.1.0/24], lanes: [ { publicKey: AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE= } ] }
";

    fn config(more: &str) -> NodeConfig {
        NodeConfig::parse(&format!("{NODE}{more}"), Path::new("node.yaml")).unwrap()
    }

    /// A state with the peer of the file, and one that a record tells of, which has two lanes.
    fn state() -> State {
        let mut state = config("").state().unwrap();
        let mut peer = state.peers[&id(1)].clone();
        let lane = peer.lanes[0].clone();
        peer.lanes.push(lane);
        state.peers.insert(id(2), peer);
        state
    }

    fn id(index: u16) -> NodeId {
        format!("2/{index}").parse().unwrap()
    }

    fn contacts() -> BTreeMap<NodeId, Contact> {
        let contact = Contact {
            id: PeerId::node("west", "west-2"),
            lanes: vec![PublicKey::new([1; 32]); 2],
            at: None,
        };
        BTreeMap::from([(id(2), contact)])
    }

    fn key(byte: u8) -> PresharedKey {
        PresharedKey::new(&[byte; 32])
    }

    fn keys(bytes: &[u8]) -> Keys {
        let keys: Vec<_> = bytes.iter().map(|&byte| key(byte)).collect();
        Keys::of_lanes(keys.iter().map(Some)).unwrap()
    }

    fn derived(bytes: &[u8], group: Group) -> Arc<Keyring> {
        let taken = Taken {
            epoch: 2,
            group,
            at: std::time::Instant::now(),
        };
        let keys = keys(bytes);
        Arc::new(Keyring {
            held: BTreeMap::from([(id(2), Held { keys, taken })]),
            port: None,
        })
    }

    fn filled(known: &KnownKeys, demand: PostQuantum) -> State {
        let mut state = state();
        known.fill(&mut state, &contacts(), demand);
        state
    }

    fn lanes(state: &State, index: u16) -> Vec<Option<PresharedKey>> {
        let lanes = state.peers[&id(index)].lanes.iter();
        lanes.map(|lane| lane.preshared_key.clone()).collect()
    }

    #[test]
    fn derived_keys_go_to_the_lanes_of_peers_that_records_tell_of() {
        let mut known = KnownKeys::default();
        let state = filled(&known, PostQuantum::Preferred);
        assert_eq!(lanes(&state, 2), [None, None]);
        known.keyring = derived(&[7], Group::Hybrid);
        let state = filled(&known, PostQuantum::Preferred);
        assert_eq!(lanes(&state, 2), [Some(key(7)), Some(key(7))]);
        assert_eq!(lanes(&state, 1), [None], "the file says what it has");
        assert!(!state.peers[&id(2)].lanes[0].needs_key);
    }

    #[test]
    fn what_is_required_waits_for_a_hybrid_key() {
        let mut known = KnownKeys {
            keyring: derived(&[7, 8], Group::Classical),
            ..KnownKeys::default()
        };
        let state = filled(&known, PostQuantum::Required);
        assert!(state.peers[&id(2)].lanes.iter().all(|it| it.awaits_key()));
        known.keyring = derived(&[7, 8], Group::Hybrid);
        let state = filled(&known, PostQuantum::Required);
        assert_eq!(lanes(&state, 2), [Some(key(7)), Some(key(8))]);
        assert!(!state.peers[&id(2)].lanes[0].awaits_key());
    }

    #[test]
    fn an_agent_that_starts_takes_over_the_keys_in_force() {
        let before = KnownKeys {
            keyring: derived(&[7, 8], Group::Hybrid),
            ..KnownKeys::default()
        };
        for demand in [PostQuantum::Preferred, PostQuantum::Required] {
            let mut config = config("");
            config.post_quantum = demand;
            let mut in_force = filled(&before, demand);
            let of_file = in_force.peers.get_mut(&id(1)).unwrap();
            of_file.lanes[0].preshared_key = Some(key(1));
            let mut known = KnownKeys::default();
            known.adopt(&in_force, &config);
            assert_eq!(known.kept, BTreeMap::from([(id(2), keys(&[7, 8]))]));
            let state = filled(&known, demand);
            assert_eq!(lanes(&state, 2), lanes(&in_force, 2));
            // Newer ones take their place.
            known.keyring = derived(&[9], Group::Hybrid);
            known.retain(&contacts());
            assert!(known.kept.is_empty());
            known.adopt(&in_force, &config);
            assert!(known.kept.is_empty());
        }
        // More is required than they are known to be.
        let mut known = KnownKeys::default();
        let mut required = config("");
        required.post_quantum = PostQuantum::Required;
        known.adopt(&filled(&before, PostQuantum::Preferred), &required);
        assert!(known.kept.is_empty());
    }
}
