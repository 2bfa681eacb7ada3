//! With which peers a session is to be opened, when, and by whom; and whose requests are answered.
//!
//! Of two nodes the one with the lower WireGuard key opens the session, where the other can be reached. The other one
//! does so too when it has waited in vain. A session that both open at once does no harm: epochs of the two sides are
//! never equal, and each side keeps the keys of the greatest.

mod entry;

pub use entry::{Demand, Partner};

use super::{Group, PostQuantum, Refusal, Terms};
use crate::lot::Lot;
use entry::Entry;
use hawser_tunnel::node::NodeId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// With so many peers at most all get keys before anybody sends a packet.
pub const EAGER: usize = 1_000;
/// Keys are renewed when they are as old as something between these two.
pub const RENEWAL: (Duration, Duration) = (Duration::from_secs(1800), Duration::from_secs(3000));
/// Whoever waits for the other to open a session waits so long; for a renewal from [`RENEWAL`]'s end on.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Peers without a key are begun with in so much time.
const FIRST: Duration = Duration::from_secs(1);
/// Keys of an age that nobody knows, as after a restart, are renewed in so much time: all of a mesh may restart at once.
const KEPT: Duration = Duration::from_secs(60);
/// The most sessions at a time that we open. Each costs a millisecond of a processor at either end.
const AT_A_TIME: usize = 8;
/// The longest pause after a session that failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The shortest.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// A session to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    /// With whom: [`Agenda::handle_done`] or [`Agenda::handle_failed`].
    pub peer: NodeId,
    /// What the keys are to be bound to.
    pub terms: Terms,
    /// Where it is reached.
    pub at: SocketAddr,
    /// By which group.
    pub group: Group,
}

/// Why a session that we opened led to no keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The peer takes no handshake by that group.
    Group,
    /// The peer refused, and knows this epoch.
    Refused {
        /// Why, where we know the reason.
        refusal: Option<Refusal>,
        /// The newest that it knows; 0: none.
        epoch: u64,
    },
    /// There was no session, or it broke.
    Session,
}

/// The keys in use with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Their epoch.
    pub epoch: u64,
    /// The group of their session.
    pub group: Group,
    /// Since when.
    pub at: Instant,
}

/// The exchanges of one node with all its peers.
#[derive(Debug)]
pub struct Agenda {
    peers: BTreeMap<NodeId, Entry>,
    demand: PostQuantum,
    lot: Lot,
    under_way: usize,
}

impl Agenda {
    /// Knows nobody yet; `seed` is drawn by lot.
    pub fn new(demand: PostQuantum, seed: u64) -> Self {
        Self {
            peers: BTreeMap::new(),
            demand,
            lot: Lot::new(seed),
            under_way: 0,
        }
    }

    /// Asks for more or less from now on. Keys that are not enough any more are the owner's to take out of use.
    pub fn set_demand(&mut self, demand: PostQuantum, now: Instant) {
        self.demand = demand;
        for entry in self.peers.values_mut() {
            if !entry.is_enough(demand) {
                entry.forget(now, &mut self.lot);
            }
        }
    }

    /// Takes the peers as they are now, all of them.
    pub fn set_peers(&mut self, partners: BTreeMap<NodeId, Partner>, now: Instant) {
        self.peers.retain(|peer, entry| {
            let stays = partners.contains_key(peer);
            self.under_way -= usize::from(!stays && entry.is_under_way());
            stays
        });
        for (peer, partner) in partners {
            let lot = &mut self.lot;
            match self.peers.get_mut(&peer) {
                Some(entry) => entry.set_partner(partner, now, lot),
                None => {
                    self.peers.insert(peer, Entry::new(partner, now, lot));
                }
            }
        }
    }

    /// Derives other keys with all peers that can be reached, soon, whoever's turn it is.
    pub fn renew(&mut self, now: Instant) {
        for entry in self.peers.values_mut() {
            entry.hurry(now, &mut self.lot);
        }
    }

    /// The next session to be opened, if one is due. `unix` in seconds since 1970.
    pub fn poll_exchange(&mut self, now: Instant, unix: u64) -> Option<Begin> {
        if self.under_way >= AT_A_TIME {
            return None;
        }
        let due = |(_, entry): &(&NodeId, &mut Entry)| entry.due().is_some_and(|due| due <= now);
        let (&peer, entry) = self.peers.iter_mut().find(due)?;
        let begin = entry.begin(peer, unix)?;
        self.under_way += 1;
        Some(begin)
    }

    /// When [`Self::poll_exchange`] has something to say, unless something happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let dues = self.peers.values().filter_map(Entry::due);
        dues.min().filter(|_| self.under_way < AT_A_TIME)
    }

    /// A session that we opened led to keys. Returns whether they are newer than those in use.
    pub fn handle_done(&mut self, begin: &Begin, now: Instant) -> bool {
        if !self.end(begin.peer) {
            return false;
        }
        let lot = &mut self.lot;
        let entry = self.peers.get_mut(&begin.peer);
        entry.is_some_and(|entry| {
            // The WireGuard keys may have changed meanwhile.
            entry.offers(&begin.terms) && entry.take(begin.terms.epoch, begin.group, now, lot)
        })
    }

    /// A session that we opened led to nothing.
    pub fn handle_failed(&mut self, begin: &Begin, failure: &Failure, now: Instant) {
        if !self.end(begin.peer) {
            return;
        }
        let (demand, lot) = (self.demand, &mut self.lot);
        if let Some(entry) = self.peers.get_mut(&begin.peer) {
            entry.fail(begin, failure, demand, now, lot);
        }
    }

    /// Whether a request of this peer is to be answered with keys.
    ///
    /// # Errors
    /// By name, why not.
    pub fn judge(&self, peer: NodeId, terms: &Terms, group: Group) -> Result<(), Refusal> {
        let entry = self.peers.get(&peer).ok_or(Refusal::PeerUnknown)?;
        entry.judge(terms, group, self.demand)
    }

    /// A request of this peer that was judged is answered with keys, which are in use from now on.
    pub fn handle_answered(&mut self, peer: NodeId, terms: &Terms, group: Group, now: Instant) {
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.take(terms.epoch, group, now, &mut self.lot);
        }
    }

    /// The keys in use with a peer that were taken since the start.
    pub fn taken(&self, peer: NodeId) -> Option<Taken> {
        self.peers.get(&peer)?.taken()
    }

    /// The newest epoch that is known with a peer; 0: none.
    pub fn epoch(&self, peer: NodeId) -> u64 {
        self.peers.get(&peer).map_or(0, Entry::epoch)
    }

    /// A session of ours is over. Returns whether it still counts.
    fn end(&mut self, peer: NodeId) -> bool {
        let entry = self.peers.get_mut(&peer);
        let counts = entry.is_some_and(Entry::end);
        self.under_way -= usize::from(counts);
        counts
    }
}

#[cfg(test)]
mod tests;
