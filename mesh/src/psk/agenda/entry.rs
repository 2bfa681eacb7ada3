//! One peer: what is known of it, and when a session is due.

use super::{Begin, FIRST, Failure, KEPT, LONGEST_PAUSE, PATIENCE, RENEWAL, SHORTEST_PAUSE, Taken};
use crate::lot::Lot;
use crate::psk::{Group, PostQuantum, Refusal, Terms};
use hawser_tunnel::key::PublicKey;
use hawser_tunnel::node::NodeId;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What records say of a peer and of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partner {
    /// This node's newest WireGuard keys, by its lanes; at least one.
    pub own: Vec<PublicKey>,
    /// The peer's; at least one.
    pub peer: Vec<PublicKey>,
    /// Where its agent is reached; `None`: it must come to us.
    pub at: Option<SocketAddr>,
    /// Whether it can reach us.
    pub reachable: bool,
    /// Whether there are keys in use already, by an agent before.
    pub has_keys: bool,
    /// Who needs them.
    pub demand: Demand,
}

/// Who needs keys with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Whoever will send the first packet: the mesh is small.
    Eager,
    /// There is a session with the peer, or somebody wants one.
    Now,
    /// Nobody.
    None,
}

impl Partner {
    /// Whether this node has the lower of the two keys.
    fn is_lower(&self) -> bool {
        self.own.first() < self.peer.first()
    }

    /// Whether this node opens sessions, rather than the peer.
    fn leads(&self) -> bool {
        self.at.is_some() && (self.is_lower() || !self.reachable)
    }
}

#[derive(Debug)]
pub(super) struct Entry {
    partner: Partner,
    /// The newest that was taken or heard of; 0: none.
    epoch: u64,
    taken: Option<Taken>,
    due: Option<Instant>,
    under_way: bool,
    /// In a row.
    failures: u32,
    /// The peer takes no hybrid handshake, and the next attempt is without.
    classical: bool,
}

impl Entry {
    pub(super) fn new(partner: Partner, now: Instant, lot: &mut Lot) -> Self {
        let mut entry = Self {
            partner,
            epoch: 0,
            taken: None,
            due: None,
            under_way: false,
            failures: 0,
            classical: false,
        };
        entry.schedule(entry.partner.has_keys, now, lot);
        entry
    }

    /// When a session is to be opened, where none is being opened.
    pub(super) fn due(&self) -> Option<Instant> {
        let wanted = !self.under_way && self.partner.demand != Demand::None;
        self.due.filter(|_| wanted)
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way
    }

    pub(super) fn taken(&self) -> Option<Taken> {
        self.taken
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Sets when to begin, where nothing is known to have failed.
    fn schedule(&mut self, has_keys: bool, now: Instant, lot: &mut Lot) {
        self.failures = 0;
        let wait = match (self.partner.leads(), has_keys) {
            (true, true) => lot.within(KEPT),
            // A packet waits, and the peer may know nothing of it.
            (_, false) if self.partner.demand == Demand::Now => Duration::ZERO,
            (true, false) => lot.within(FIRST),
            // It is the other's to begin; where it does not, its agent may be unable to.
            (false, true) => KEPT + PATIENCE + lot.within(FIRST),
            (false, false) => PATIENCE + lot.within(FIRST),
        };
        self.due = self.partner.at.map(|_| now + wait);
    }

    pub(super) fn set_partner(&mut self, partner: Partner, now: Instant, lot: &mut Lot) {
        let before = std::mem::replace(&mut self.partner, partner);
        let keys = |of: &Partner| (of.own.clone(), of.peer.clone());
        let lost = before.has_keys && !self.partner.has_keys && self.taken.is_none();
        if lost || keys(&before) != keys(&self.partner) {
            // Keys are bound to those before. They are in use until there are others.
            self.schedule(false, now, lot);
            return;
        }
        let has_keys = self.partner.has_keys || self.taken.is_some();
        let moved = (before.leads(), before.at) != (self.partner.leads(), self.partner.at);
        if moved || before.demand != self.partner.demand && !has_keys {
            self.schedule(has_keys, now, lot);
        }
    }

    /// Begins soon.
    pub(super) fn hurry(&mut self, now: Instant, lot: &mut Lot) {
        self.due = self.partner.at.map(|_| now + lot.within(FIRST));
    }

    /// Whether the keys in use are what is asked for.
    pub(super) fn is_enough(&self, demand: PostQuantum) -> bool {
        let classical = self.taken.is_some_and(|it| it.group == Group::Classical);
        !(classical && demand == PostQuantum::Required)
    }

    /// The keys are not used any more.
    pub(super) fn forget(&mut self, now: Instant, lot: &mut Lot) {
        self.taken = None;
        self.schedule(false, now, lot);
    }

    /// Begins a session.
    pub(super) fn begin(&mut self, peer: NodeId, unix: u64) -> Option<Begin> {
        let at = self.partner.at?;
        self.under_way = true;
        let terms = Terms {
            epoch: self.next_epoch(unix),
            client: self.partner.own.clone(),
            server: self.partner.peer.clone(),
        };
        let group = match self.classical {
            true => Group::Classical,
            false => Group::Hybrid,
        };
        Some(Begin {
            peer,
            terms,
            at,
            group,
        })
    }

    /// Beyond all that is known, also over a restart: twice the time, and one more where the key is the higher.
    fn next_epoch(&self, unix: u64) -> u64 {
        let least = self.epoch.saturating_add(1).max(unix.saturating_mul(2));
        let fits = is_of_lower(least) == self.partner.is_lower();
        least.saturating_add(u64::from(!fits))
    }

    /// The session that was begun is over. Returns whether there was one.
    pub(super) fn end(&mut self) -> bool {
        std::mem::take(&mut self.under_way)
    }

    /// Whether these are the terms that this node would offer now.
    pub(super) fn offers(&self, terms: &Terms) -> bool {
        terms.client == self.partner.own && terms.server == self.partner.peer
    }

    /// Whether this node answers these terms with keys.
    pub(super) fn judge(
        &self,
        terms: &Terms,
        group: Group,
        demand: PostQuantum,
    ) -> Result<(), Refusal> {
        if terms.client != self.partner.peer || terms.server != self.partner.own {
            return Err(Refusal::KeysOther);
        }
        if is_of_lower(terms.epoch) == self.partner.is_lower() {
            return Err(Refusal::Malformed);
        }
        if terms.epoch <= self.epoch {
            return Err(Refusal::EpochOld);
        }
        if group == Group::Classical && !self.takes_classical(demand) {
            return Err(Refusal::GroupClassical);
        }
        Ok(())
    }

    /// Whether a session without the hybrid group is good enough. Never behind one that had it: somebody on the way may
    /// have seen to it.
    fn takes_classical(&self, demand: PostQuantum) -> bool {
        let was_hybrid = self.taken.is_some_and(|it| it.group == Group::Hybrid);
        demand == PostQuantum::Preferred && !was_hybrid
    }

    /// Takes keys, unless there are newer ones.
    pub(super) fn take(&mut self, epoch: u64, group: Group, now: Instant, lot: &mut Lot) -> bool {
        if epoch <= self.epoch {
            return false;
        }
        self.epoch = epoch;
        self.taken = Some(Taken {
            epoch,
            group,
            at: now,
        });
        self.failures = 0;
        self.classical = false;
        let wait = match self.partner.leads() {
            true => RENEWAL.0 + lot.within(RENEWAL.1 - RENEWAL.0),
            false => RENEWAL.1 + PATIENCE,
        };
        self.due = self.partner.at.map(|_| now + wait);
        true
    }

    /// A session that was begun led to nothing.
    pub(super) fn fail(
        &mut self,
        begin: &Begin,
        failure: &Failure,
        demand: PostQuantum,
        now: Instant,
        lot: &mut Lot,
    ) {
        if self.epoch > begin.terms.epoch || !self.offers(&begin.terms) {
            // Newer keys came from the other side meanwhile, or this was about others: when to begin has been said.
            return;
        }
        let falls_back = *failure == Failure::Group && begin.group == Group::Hybrid;
        self.classical = falls_back && self.takes_classical(demand);
        if let Failure::Refused {
            refusal: Some(Refusal::EpochOld),
            epoch,
        } = *failure
        {
            self.epoch = self.epoch.max(epoch);
        }
        if self.classical {
            self.due = Some(now);
            return;
        }
        let doubled = SHORTEST_PAUSE.saturating_mul(1 << self.failures.min(10));
        let bound = doubled.min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        let pause: Duration = bound / 2 + lot.within(bound / 2);
        self.due = self.partner.at.map(|_| now + pause);
    }
}

/// Epochs of sessions that the lower key opens are even: two that cross are never equal.
fn is_of_lower(epoch: u64) -> bool {
    epoch.is_multiple_of(2)
}
