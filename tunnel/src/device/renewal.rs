//! From one table to the next: pairs of lanes that stay, those that come, and those whose place another takes.

use super::{Control, Device, lanes};
use crate::forwarding::{Forwarding, Pairs, Peer};
use crate::key::PublicKey;
use crate::lane::{Lane, LaneKeys, LaneNumber};
use crate::node::NodeId;
use crate::outgoing::ByLane;
use crate::reject::Reject;
use crate::state::Checked;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// With so many peers at most all are greeted when they become known; beyond, by the first packet for them.
const EAGER: usize = 1_000;

/// A pair is ended when the one that takes its place has had a session for so long, and nothing came by the old one for as
/// long: whoever is late still sends by it.
const GRACE: Duration = Duration::from_secs(10);

impl Device {
    /// Puts a state in force. Pairs of lanes that it keeps keep their sessions; those that another key takes the place of
    /// carry packets until the new ones are proven. Handshakes that start are left in `out`.
    pub fn apply(&self, state: Checked, now: Instant, out: &mut impl ByLane) {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.table();
        let mut indices: BTreeSet<u32> = lanes(old.as_deref()).map(|lane| lane.index()).collect();
        indices.extend(&control.inheritance.indices);
        let mut renewal = Renewal {
            device: self,
            control: &mut control,
            old: old.as_deref(),
            indices,
            is_small: state.peers.len() <= EAGER,
            are_few: state.peers.len() * self.own.len() <= EAGER,
            fresh: Vec::new(),
            now,
        };
        let table = Forwarding::new(state, self.own.len(), &mut renewal);
        let fresh = renewal.fresh;
        let removed: Vec<_> = lanes(old.as_deref())
            .filter(|lane| {
                let kept = table.lanes_by_key(lane.own(), &lane.public_key());
                !kept.iter().any(|kept| Arc::ptr_eq(kept, lane))
            })
            .cloned()
            .collect();
        let table = Arc::new(table);
        self.table.store(Some(Arc::clone(&table)));
        self.set_watched(&table, control.watch_seed(), now);
        for lane in removed {
            let waited = lane.close();
            match table.peer(lane.peer()) {
                // A new key of the same peer: its lane takes over what waited for the old one.
                Some(peer) if !waited.is_empty() => {
                    let heir = peer.lane(lane.own(), 0);
                    heir.send(&waited, now, &self.drops, out.of(heir.own()));
                }
                Some(_) => {}
                None => self.drops.add(Reject::PeerRemoved, waited.len() as u64),
            }
        }
        drop(control);
        for lane in &fresh {
            lane.initiate(now, out.of(lane.own()));
        }
    }

    /// What waits for a pair that nobody answers on goes by another that works.
    pub(super) fn send_instead(
        &self,
        peer: &Peer,
        lane: &Arc<Lane>,
        now: Instant,
        out: &mut impl ByLane,
    ) {
        if !lane.is_silent() {
            return;
        }
        let other = peer.lane(lane.own(), 0);
        if other.is_proven() && !Arc::ptr_eq(other, lane) {
            let waited = lane.take_waiting();
            if !waited.is_empty() {
                other.send(&waited, now, &self.drops, out.of(other.own()));
            }
        }
    }

    /// Ends a pair whose place another has taken: when that one is proven, and nothing comes by the old one any more; or
    /// when the old one has no session left. The peer may learn later than we that it is gone: its session is not renewed,
    /// which tells it.
    pub(super) fn retire(&self, peer: &Peer, lane: &Lane, now: Instant, out: &mut impl ByLane) {
        let mut heirs = peer.lanes.iter().filter(|heir| heir.own() == lane.own());
        let is_replaced = heirs.any(|heir| {
            let age = heir.snapshot(now).handshake_age;
            age.is_some_and(|age| age >= GRACE)
        });
        let ends = match is_replaced {
            true => lane.withdraw(GRACE, now),
            false => !lane.is_alive(now),
        };
        if !ends {
            return;
        }
        let waited = lane.close();
        if !waited.is_empty() {
            let heir = peer.lane(lane.own(), 0);
            heir.send(&waited, now, &self.drops, out.of(heir.own()));
        }
    }
}

/// What a new table takes over from the one before, and what it needs anew.
struct Renewal<'a> {
    device: &'a Device,
    control: &'a mut Control,
    old: Option<&'a Forwarding>,
    /// Session indices that are taken.
    indices: BTreeSet<u32>,
    /// There are so few peers that all are greeted at once.
    is_small: bool,
    /// There are so few pairs that all of them are, in the beginning.
    are_few: bool,
    /// Pairs whose handshake starts at once.
    fresh: Vec<Arc<Lane>>,
    now: Instant,
}

impl Pairs for Renewal<'_> {
    fn pair(
        &mut self,
        peer: NodeId,
        own: LaneNumber,
        desired: &crate::state::Lane,
        first: bool,
    ) -> Arc<Lane> {
        let kept = self.old.and_then(|old| {
            let lanes = old.lanes_by_key(own, &desired.public_key);
            lanes.iter().find(|lane| lane.serves(peer, own, desired))
        });
        if let Some(lane) = kept {
            let before = self
                .old
                .and_then(|old| desired_endpoint(old, peer, &desired.public_key));
            if before != desired.endpoint {
                lane.set_endpoint(desired.endpoint);
            }
            return Arc::clone(lane);
        }
        let replaces = self.old.and_then(|old| old.peer(peer)).is_some_and(|peer| {
            let mut lanes = peer.all_lanes().filter(|lane| lane.own() == own);
            lanes.any(|lane| lane.is_alive(self.now))
        });
        let inherited = &self.control.inheritance.in_use;
        // What is heard counts until the first state of our own; later ones know better.
        let heard = inherited.iter().find(|in_use| {
            self.old.is_none() && (in_use.own, in_use.public_key) == (own, desired.public_key)
        });
        let heard = heard.map(|in_use| in_use.endpoint);
        // Nobody knows which pairs were in use before a crash: a peer that only sends goes on to a session that is lost
        // until it hears of another.
        let greets = self.is_small && (first || (self.old.is_none() && self.are_few));
        let eager = replaces || heard.is_some() || greets;
        let keys = LaneKeys {
            own,
            private: &self.device.own(own).private,
            index: self.control.index(&mut self.indices),
            ordered: self.device.waker.get().is_some(),
        };
        let lane = Arc::new(Lane::new(peer, desired, &keys));
        if heard.is_some() {
            lane.set_endpoint(heard);
        }
        if eager {
            self.fresh.push(Arc::clone(&lane));
        }
        lane
    }

    fn older(&mut self, peer: NodeId, lanes: &[Arc<Lane>]) -> Vec<Arc<Lane>> {
        let Some(before) = self.old.and_then(|old| old.peer(peer)) else {
            return Vec::new();
        };
        let is_kept = |lane: &Arc<Lane>| lanes.iter().any(|kept| Arc::ptr_eq(kept, lane));
        let older = before.all_lanes().filter(|lane| !is_kept(lane));
        older
            .filter(|lane| lane.in_use(self.now).is_some())
            .cloned()
            .collect()
    }
}

fn desired_endpoint(table: &Forwarding, peer: NodeId, key: &PublicKey) -> Option<SocketAddr> {
    table
        .state
        .peers
        .get(&peer)?
        .lanes
        .iter()
        .find(|lane| lane.public_key == *key)?
        .endpoint
}
