//! From one table to the next: pairs of lanes that stay, those that come, and those whose place another takes.

use super::{Control, Device, lanes};
use crate::forwarding::{Forwarding, Pairs, Peer};
use crate::key::PublicKey;
use crate::lane::{Lane, LaneKeys, LaneNumber};
use crate::node::NodeId;
use crate::outgoing::ByLane;
use crate::own_key::{Generations, OwnKey};
use crate::reject::Reject;
use crate::state::Checked;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// With so many peers at most all are greeted when they become known; beyond, by the first packet for them.
pub(super) const EAGER: usize = 1_000;

/// A pair is ended when the one that takes its place has had a session for so long, and nothing came by the old one for as
/// long: whoever is late still sends by it.
const GRACE: Duration = Duration::from_secs(10);

/// How often a peer is asked for a session by the pair that shall take the place of another, once the first attempts are
/// over. It may be hours late, and never begin a handshake itself; each time costs it two exchanges of keys.
const KNOCK: Duration = Duration::from_secs(30);

impl Device {
    /// Puts a state in force. Pairs of lanes that it keeps keep their sessions; those that another key takes the place of
    /// carry packets until the new ones are proven. Handshakes that start are left in `out`.
    pub fn apply(&self, state: Checked, now: Instant, out: &mut impl ByLane) {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        self.renew(control, Arc::new(state), false, now, out);
    }

    /// Makes the table of a state anew. `changes`: this node's own keys are others than those of the table before.
    pub(super) fn renew(
        &self,
        mut control: MutexGuard<'_, Control>,
        state: Arc<Checked>,
        changes: bool,
        now: Instant,
        out: &mut impl ByLane,
    ) {
        let old = self.table();
        let mut indices: BTreeSet<u32> = lanes(old.as_deref()).map(|lane| lane.index()).collect();
        indices.extend(&control.inheritance.indices);
        let keys: Vec<_> = self.own.iter().map(|own| own.keys()).collect();
        if keys.iter().any(|keys| keys.older.is_some()) {
            control.changing.get_or_insert(now);
        }
        let mut renewal = Renewal {
            device: self,
            control: &mut control,
            old: old.as_deref(),
            keys,
            changes,
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

    /// What waits for a pair that nobody answers on, or that shall take the place of another, goes by one that works.
    pub(super) fn send_instead(
        &self,
        peer: &Peer,
        lane: &Arc<Lane>,
        now: Instant,
        out: &mut impl ByLane,
    ) {
        let is_next = !peer.older.is_empty() && !lane.is_proven();
        if !lane.is_silent() && !is_next {
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
    /// when the old one has no session left, unless the peer may know no newer key of ours. The peer may learn later than
    /// we that it is gone: its session is not renewed, which tells it.
    pub(super) fn retire(&self, peer: &Peer, lane: &Lane, now: Instant, out: &mut impl ByLane) {
        let is_alive = lane.is_alive(now);
        // By whichever lane a peer shows that it has learnt of the change, it knows all of it.
        let heirs = peer.lanes.iter().filter(|heir| {
            let is_heir = heir.own() == lane.own() || !is_alive;
            is_heir && heir.is_proven()
        });
        let ages = heirs.map(|heir| heir.snapshot(now).handshake_age);
        let is_replaced = ages.flatten().any(|age| age >= GRACE);
        let ends = match is_replaced {
            true => lane.withdraw(GRACE, now),
            false => !is_alive && !self.is_of_older_key(lane),
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

    /// Sees to it that a peer that learns late of a change is reached meanwhile, and that the change comes to its end: the
    /// old pair begins where the new one is not answered, and the new one knocks now and then.
    pub(super) fn look_for_heir(
        &self,
        peer: &Peer,
        lane: &Lane,
        is_small: bool,
        now: Instant,
        out: &mut impl ByLane,
    ) {
        let is_alive = lane.is_alive(now);
        if !is_alive && (!self.is_of_older_key(lane) || lane.is_ending()) {
            return;
        }
        let mut asked = peer.lanes.iter();
        if !is_alive && asked.any(|heir| heir.own() == lane.own() && heir.is_seeking(now)) {
            lane.initiate(now, out.of(lane.own()));
        }
        if is_alive || is_small && lane.own() == LaneNumber::FIRST {
            let heirs = peer.lanes.iter().filter(|heir| heir.own() == lane.own());
            for heir in heirs.filter(|heir| !heir.is_proven()) {
                heir.knock(KNOCK, now, out.of(heir.own()));
            }
        }
    }

    /// Whether a pair was made with a key of ours whose place another takes.
    pub(super) fn is_of_older_key(&self, lane: &Lane) -> bool {
        self.own(lane.own()).keys().is_older(lane.key())
    }
}

/// What a new table takes over from the one before, and what it needs anew.
struct Renewal<'a> {
    device: &'a Device,
    control: &'a mut Control,
    old: Option<&'a Forwarding>,
    /// This node's own keys by the number of the lane.
    keys: Vec<Arc<Generations>>,
    /// They are others than those of the old table.
    changes: bool,
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

impl Renewal<'_> {
    /// The pair of a key of ours and what a state wants, from the old table where that has it.
    fn pair_of(
        &mut self,
        peer: NodeId,
        (own, key): (LaneNumber, &Arc<OwnKey>),
        desired: &crate::state::Lane,
        first: bool,
    ) -> Arc<Lane> {
        let kept = self.old.and_then(|old| {
            let mut lanes = old.lanes_by_key(own, &desired.public_key).iter();
            lanes.find(|lane| lane.serves(peer, (own, &key.public), desired))
        });
        let said = self
            .old
            .and_then(|old| desired_endpoint(old, peer, &desired.public_key));
        if let Some(lane) = kept {
            if said != desired.endpoint {
                lane.set_endpoint(desired.endpoint);
            }
            return Arc::clone(lane);
        }
        let before = self.old.and_then(|old| old.peer(peer));
        let mut replaced = before.iter().flat_map(|peer| peer.all_lanes());
        let replaces = replaced.any(|lane| lane.own() == own && lane.is_alive(self.now));
        let inherited = &self.control.inheritance.in_use;
        // What is heard counts until the first state of our own; later ones know better.
        let heard = inherited.iter().find(|in_use| {
            self.old.is_none()
                && (in_use.own, in_use.public_key) == (own, desired.public_key)
                && in_use.is_of(key.public)
        });
        let heard = heard.map(|in_use| in_use.endpoint);
        // Nobody knows which pairs were in use before a crash: a peer that only sends goes on to a session that is lost
        // until it hears of another.
        let greets = self.is_small && (first || (self.old.is_none() && self.are_few));
        let eager = replaces || heard.is_some() || greets;
        // A peer that has roamed does not come back for a change of keys.
        let roamed = before.filter(|_| said == desired.endpoint || desired.endpoint.is_none());
        let roamed = roamed.and_then(|peer| {
            let mut lanes = peer.all_lanes().filter(|lane| lane.own() == own);
            lanes.find_map(|lane| {
                lane.in_use(self.now)
                    .filter(|_| lane.public_key() == desired.public_key)
            })
        });
        let keys = LaneKeys {
            own,
            key,
            index: self.control.index(&mut self.indices),
            ordered: self.device.waker.get().is_some(),
        };
        let lane = Arc::new(Lane::new(peer, desired, &keys));
        lane.set_endpoint(heard.or(roamed));
        if eager {
            self.fresh.push(Arc::clone(&lane));
        }
        lane
    }

    /// Whether a peer has shown in the old table that it knows all newest keys of ours.
    fn has_moved(&self, peer: Option<&Arc<Peer>>) -> bool {
        let is_open = |lane: &Arc<Lane>| {
            let keys = self.keys.get(lane.own().index());
            keys.is_some_and(|keys| keys.is_older(lane.key())) && !lane.is_ending()
        };
        !self.changes && peer.is_some_and(|peer| !peer.older.iter().any(is_open))
    }
}

impl Pairs for Renewal<'_> {
    fn pair(
        &mut self,
        peer: NodeId,
        own: LaneNumber,
        desired: &crate::state::Lane,
        first: bool,
    ) -> Arc<Lane> {
        let keys = Arc::clone(&self.keys[own.index()]);
        self.pair_of(peer, (own, &keys.newest), desired, first)
    }

    fn older(
        &mut self,
        peer: NodeId,
        wanted: &[(LaneNumber, &crate::state::Lane)],
        lanes: &[Arc<Lane>],
    ) -> Vec<Arc<Lane>> {
        let before = self.old.and_then(|old| old.peer(peer));
        // A session without a pre-shared key ends at once where there must be one; and any session does where none that
        // there was is good enough any more.
        let needs_key = wanted.iter().any(|(_, desired)| desired.needs_key);
        let awaits_key = wanted.iter().any(|(_, desired)| desired.awaits_key());
        let is_of_use = |lane: &&Arc<Lane>| {
            let is_allowed = !awaits_key && (!needs_key || lane.has_preshared_key());
            let is_kept = lanes.iter().any(|kept| Arc::ptr_eq(kept, lane));
            let keys = self.keys.get(lane.own().index());
            let is_ours = keys.is_some_and(|keys| keys.has(lane.key()));
            !is_kept && is_allowed && is_ours && lane.in_use(self.now).is_some()
        };
        let older = before.iter().flat_map(|peer| peer.all_lanes());
        let mut older: Vec<_> = older.filter(is_of_use).cloned().collect();
        if self.has_moved(before) {
            return older;
        }
        for (at, &(own, desired)) in wanted.iter().enumerate() {
            let keys = Arc::clone(&self.keys[own.index()]);
            let Some(key) = &keys.older else {
                continue;
            };
            let lane = self.pair_of(peer, (own, key), desired, at == 0);
            if !older.iter().any(|kept| Arc::ptr_eq(kept, &lane)) {
                older.push(lane);
            }
        }
        older
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
