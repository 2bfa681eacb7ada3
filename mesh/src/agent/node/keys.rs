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
