//! What all sessions of a replica share.

use super::event::Event;
use super::refusal::Gate;
use super::stats::Stats;
use super::store::Store;
use super::{Limits, Quota, SessionId};
use hawser_tunnel::node::ClusterId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Instant;

pub(super) struct Shelf {
    pub(super) stores: BTreeMap<ClusterId, Store>,
    pub(super) own: Option<ClusterId>,
    /// The origins that may be shown; `None`: all that are there.
    pub(super) members: Option<BTreeSet<ClusterId>>,
    pub(super) touched: Touched,
    pub(super) timers: Timers,
    pub(super) events: VecDeque<Event>,
    pub(super) stats: Stats,
    pub(super) feeders: Feeders,
    pub(super) quotas: BTreeMap<ClusterId, Quota>,
    pub(super) limits: Limits,
    pub(super) gate: Box<dyn Gate + Send>,
}

impl Shelf {
    pub(super) fn new(limits: Limits, gate: Box<dyn Gate + Send>) -> Self {
        Self {
            stores: BTreeMap::new(),
            own: None,
            members: None,
            touched: Touched::default(),
            timers: Timers::default(),
            events: VecDeque::new(),
            stats: Stats::default(),
            feeders: Feeders::default(),
            quotas: BTreeMap::new(),
            limits,
            gate,
        }
    }

    /// The store of an origin, made if there is none.
    pub(super) fn store_mut(&mut self, origin: ClusterId) -> &mut Store {
        let tombstones = self.limits.tombstones;
        let store = self.stores.entry(origin);
        store.or_insert_with(|| Store::new(tombstones))
    }

    pub(super) fn quota(&self, origin: ClusterId) -> Quota {
        self.quotas
            .get(&origin)
            .copied()
            .unwrap_or(self.limits.quota)
    }

    /// Whether an origin is no member any more.
    pub(super) fn has_left(&self, origin: ClusterId) -> bool {
        let left = |members: &BTreeSet<ClusterId>| !members.contains(&origin);
        self.own != Some(origin) && self.members.as_ref().is_some_and(left)
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf")
            .field("own", &self.own)
            .field("origins", &self.stores.len())
            .finish_non_exhaustive()
    }
}

/// Which origins changed since somebody looked. An origin is in it once, at its newest change: whoever looks seldom has
/// no more to look at.
#[derive(Debug, Default)]
pub(super) struct Touched {
    order: BTreeMap<u64, ClusterId>,
    ticks: BTreeMap<ClusterId, u64>,
    tick: u64,
}

impl Touched {
    pub(super) fn touch(&mut self, origin: ClusterId) {
        self.tick += 1;
        if let Some(before) = self.ticks.insert(origin, self.tick) {
            self.order.remove(&before);
        }
        self.order.insert(self.tick, origin);
    }

    pub(super) fn tick(&self) -> u64 {
        self.tick
    }

    pub(super) fn since(&self, tick: u64) -> impl Iterator<Item = ClusterId> {
        self.order.range(tick + 1..).map(|(_, &origin)| origin)
    }
}

/// When which session wants to look at which origin. A timer that is not wanted any more is not taken back: whoever
/// looks too early finds nothing to do.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Instant, SessionId, ClusterId)>);

impl Timers {
    pub(super) fn set(&mut self, at: Instant, session: SessionId, origin: ClusterId) {
        self.0.insert((at, session, origin));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _, _)| *at)
    }

    pub(super) fn pop(&mut self, now: Instant) -> Option<(SessionId, ClusterId)> {
        if self.next()? > now {
            return None;
        }
        self.0
            .pop_first()
            .map(|(_, session, origin)| (session, origin))
    }

    pub(super) fn forget(&mut self, session: SessionId) {
        self.0.retain(|(_, whose, _)| *whose != session);
    }
}

/// Which session feeds which origin: one at a time, the newest that asked for it.
#[derive(Debug, Default)]
pub(super) struct Feeders {
    pub(super) one: BTreeMap<ClusterId, SessionId>,
    pub(super) all: Option<SessionId>,
}

impl Feeders {
    pub(super) fn of(&self, origin: ClusterId) -> Option<SessionId> {
        self.one.get(&origin).copied().or(self.all)
    }
}
