//! Follows what the own hub tells: which records a node asks for, and what they come to.
//!
//! Pure. The owner opens and closes sessions, carries messages, calls [`Follower::handle_timeout`] when
//! [`Follower::poll_timeout`] says, and after each call takes events and messages until there are none.

mod filter;
mod keeping;

pub use keeping::Keep;

use super::learned::{Learned, makes_state};
use crate::config::EndpointsWanted;
use crate::kept::Loaded;
use crate::record::{Key, Kind, LaneRecord, Version};
use crate::replica::{
    self, AdmitAll, Filter, Limits, Reject, Replica, SessionId, Stats, Stream, Transmit, Wanted,
};
use bytes::Bytes;
use filter::wanted_filter;
use hawser_tunnel::node::ClusterId;
use keeping::Keeping;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// What is asked for is derived anew this long after a record that may change it: such records come in bursts.
const SETTLE: Duration = Duration::from_millis(100);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Records that make a state changed: [`Follower::learned`] is something else than before. Told once until it is asked.
    Mesh,
    /// To be written to disk.
    Keep(Keep),
    /// A record is new or changed.
    Apply {
        /// Whose.
        origin: ClusterId,
        /// Where it is found.
        key: Key,
        /// The record, undecoded.
        value: Bytes,
    },
    /// A record is gone.
    Delete {
        /// Whose.
        origin: ClusterId,
        /// Where it was found.
        key: Key,
    },
    /// An origin left, with all its records.
    Forgotten {
        /// Whose.
        origin: ClusterId,
    },
    /// The hub of this session has told all that it has of an origin.
    Synced {
        /// Whose.
        origin: ClusterId,
    },
}

/// What is known of an origin, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginStatus {
    /// The newest state that was ever complete here.
    pub version: Version,
    /// Whether the records are that state.
    pub complete: bool,
    /// Whether the hub that is connected has told all that it has.
    pub synced: bool,
    /// How many records.
    pub records: usize,
    /// How many were refused.
    pub refused: usize,
    /// Bytes of keys and values.
    pub bytes: usize,
}

/// The subscriber of one node.
#[derive(Debug)]
pub struct Follower {
    cluster: String,
    node: String,
    endpoints: EndpointsWanted,
    replica: Replica,
    session: Option<SessionId>,
    filter: Filter,
    /// When the filter is derived anew.
    filter_due: Option<Instant>,
    lanes: Vec<LaneRecord>,
    mesh_told: bool,
    synced: BTreeSet<ClusterId>,
    keeping: Keeping,
    events: VecDeque<Event>,
}

impl Follower {
    /// One that knows nothing. `cluster` and `node` are the names of the node and its cluster.
    pub fn new(cluster: &str, node: &str, endpoints: EndpointsWanted) -> Self {
        let replica = Replica::new(Limits::default(), Box::new(AdmitAll));
        let mut follower = Self {
            cluster: cluster.to_owned(),
            node: node.to_owned(),
            endpoints,
            replica,
            session: None,
            filter: Filter::default(),
            filter_due: None,
            lanes: Vec::new(),
            mesh_told: false,
            synced: BTreeSet::new(),
            keeping: Keeping::default(),
            events: VecDeque::new(),
        };
        follower.filter = follower.derive_filter();
        follower
    }

    /// Begins with what was kept. No events are told of it but [`Event::Mesh`].
    pub fn load(&mut self, loaded: Loaded) {
        if loaded.origins.is_empty() {
            return;
        }
        for (origin, kept) in loaded.origins {
            let (version, complete) = (kept.version, kept.complete);
            self.replica.load(origin, version, complete, kept.records);
        }
        // What to ask for is said by the records themselves.
        self.filter = self.derive_filter();
        if keeping::scope(&self.filter) != loaded.scope {
            // They were asked for by another filter, so they are not all that this one wants.
            for origin in self.replica.origins().collect::<Vec<_>>() {
                let Some(store) = self.replica.store(origin) else {
                    continue;
                };
                let (version, records) = (store.version(), store.records().collect::<Vec<_>>());
                self.replica.load(origin, version, false, records);
            }
        } else {
            self.replica.loaded_under(&self.filter);
        }
        self.keeping.scope(&self.filter);
        self.tell_mesh();
    }

    /// Asks for other endpoints from here on.
    pub fn set_endpoints(&mut self, endpoints: EndpointsWanted, now: Instant) {
        self.endpoints = endpoints;
        self.filter_due = Some(now);
    }

    /// What this node tells of itself, now and to every hub to come.
    pub fn announce(&mut self, lanes: Vec<LaneRecord>) {
        self.lanes = lanes;
        if let Some(session) = self.session {
            self.replica.announce(session, self.lanes.clone());
        }
    }

    /// A hub is connected. Session numbers are never used twice.
    pub fn connect(&mut self, session: SessionId, now: Instant) {
        self.disconnect();
        self.session = Some(session);
        self.synced.clear();
        let filter = self.filter.clone();
        self.replica.subscribe(session, Wanted::All, filter, now);
        if !self.lanes.is_empty() {
            self.replica.announce(session, self.lanes.clone());
        }
        self.drain(now);
        self.keep_scope();
    }

    /// The connection is over; everything that was heard holds.
    pub fn disconnect(&mut self) {
        if let Some(session) = self.session.take() {
            self.replica.close(session);
        }
    }

    /// Takes a message of the hub.
    ///
    /// # Errors
    /// The connection must be closed, and the hub told why by [`Reject::name`].
    pub fn handle_message(
        &mut self,
        session: SessionId,
        stream: Stream,
        bytes: Bytes,
        now: Instant,
    ) -> Result<(), Reject> {
        let done = self.replica.handle_message(session, stream, bytes, now);
        self.drain(now);
        done
    }

    /// Whether the transport takes more on a stream.
    pub fn set_writable(&mut self, session: SessionId, stream: Stream, writable: bool) {
        self.replica.set_writable(session, stream, writable);
    }

    /// The next message to send, if any.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        self.replica.poll_transmit(now)
    }

    /// The next event, if any.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.replica
            .poll_timeout()
            .into_iter()
            .chain(self.filter_due)
            .min()
    }

    /// Looks after what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.replica.handle_timeout(now);
        if self.filter_due.is_some_and(|due| due <= now) {
            self.filter_due = None;
            let filter = self.derive_filter();
            if filter != self.filter {
                self.filter = filter;
                if let Some(session) = self.session {
                    let filter = self.filter.clone();
                    self.replica.set_filter(session, filter, now);
                }
                self.drain(now);
                self.keep_scope();
            }
        }
        self.drain(now);
    }

    /// The records that make a state, for [`Learned::read`].
    pub fn records(&mut self) -> Vec<(ClusterId, Key, Bytes)> {
        self.mesh_told = false;
        let mut records = Vec::new();
        for origin in self.replica.origins() {
            let store = self.replica.store(origin);
            for prefix in super::learned::KINDS.map(crate::record::Prefix::kind) {
                let under = store.into_iter().flat_map(|store| store.under(&prefix));
                records.extend(under.map(|(_, key, value)| (origin, key, value)));
            }
        }
        records
    }

    /// What was heard, by its meaning.
    pub fn learned(&mut self) -> Learned {
        let records = self.records();
        Learned::read(&self.cluster, &self.node, records)
    }

    /// What is known of each origin.
    pub fn status(&self) -> BTreeMap<ClusterId, OriginStatus> {
        let status = |origin| {
            let store = self.replica.store(origin)?;
            let status = OriginStatus {
                version: store.version(),
                complete: store.is_complete(),
                synced: self.session.is_some() && self.synced.contains(&origin),
                records: store.len(),
                refused: store.refused(),
                bytes: store.bytes(),
            };
            Some((origin, status))
        };
        self.replica.origins().filter_map(status).collect()
    }

    /// What replication counted.
    pub fn stats(&self) -> &Stats {
        self.replica.stats()
    }

    /// All that is known, for who wants to look.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// What is asked for.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    fn derive_filter(&self) -> Filter {
        wanted_filter(&self.replica, &self.cluster, &self.node, self.endpoints)
    }

    fn keep_scope(&mut self) {
        // After the states that are no longer complete by it, or a crash in between would take them for complete.
        if let Some(scope) = self.keeping.scope(&self.filter) {
            self.events.push_back(Event::Keep(scope));
        }
    }

    fn tell_mesh(&mut self) {
        if !std::mem::replace(&mut self.mesh_told, true) {
            self.events.push_back(Event::Mesh);
        }
    }

    /// A record came or went.
    fn note_key(&mut self, key: &Key, now: Instant) {
        if makes_state(key) {
            self.tell_mesh();
        }
        let asks = match key.kind() {
            Some(Kind::Node | Kind::Cluster | Kind::Policy) => true,
            Some(Kind::Identity | Kind::Namespace | Kind::Pod) => {
                self.endpoints == EndpointsWanted::Used
            }
            Some(Kind::Service | Kind::Endpoint | Kind::Revocations | Kind::Authorities) | None => {
                false
            }
        };
        if asks {
            self.filter_due.get_or_insert(now + SETTLE);
        }
    }

    /// Passes on what the replica tells.
    fn drain(&mut self, now: Instant) {
        while let Some(event) = self.replica.poll_event() {
            match event {
                replica::Event::InitApply { origin, key, value }
                | replica::Event::Apply { origin, key, value } => {
                    self.note_key(&key, now);
                    self.keeping.note(origin, key.clone());
                    self.events.push_back(Event::Apply { origin, key, value });
                }
                replica::Event::Delete { origin, key } => {
                    self.note_key(&key, now);
                    self.keeping.note(origin, key.clone());
                    self.events.push_back(Event::Delete { origin, key });
                }
                replica::Event::Forgotten { origin } => {
                    self.tell_mesh();
                    self.synced.remove(&origin);
                    self.filter_due.get_or_insert(now + SETTLE);
                    let forgotten = self.keeping.forget(origin);
                    self.events.push_back(Event::Keep(forgotten));
                    self.events.push_back(Event::Forgotten { origin });
                }
                replica::Event::Reached {
                    origin,
                    version,
                    complete,
                } => {
                    let store = self.replica.store(origin);
                    let keep = store.map(|it| self.keeping.reach(origin, version, complete, it));
                    self.events.extend(keep.map(Event::Keep));
                }
                replica::Event::Synced { origin, .. } => {
                    self.synced.insert(origin);
                    self.events.push_back(Event::Synced { origin });
                }
                // Events of publishers and of origins of our own; `Init` and `InitDone` tell nothing that `Reached` does not.
                replica::Event::Init { .. }
                | replica::Event::InitDone { .. }
                | replica::Event::Ahead { .. }
                | replica::Event::Announced { .. }
                | replica::Event::Refused { .. } => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
