//! Replication: every replica ends up with what each origin wrote, whoever it heard it from.
//!
//! Pure: messages go in and come out as bytes, time is given. A session has two sides: one *publishes* what it has, the
//! other *subscribes* to a part of it, a [`Filter`]. An agent subscribes at its hub to all origins; a hub subscribes at
//! another cluster's hub to that cluster.
//!
//! ```text
//!               Subscribe (what I want, what I have) ->
//!   subscriber  <- Delta, Delta ...  (what I have is known: only what is newer)            publisher
//!               <- Compare, Digests ->, <- Snapshot of the buckets that differ
//!               Ack ->     <- Summary (what you should have by now)
//! ```
//!
//! - A publisher keeps no queue for a subscriber, but a place in the order of revisions. A slow one costs nothing.
//! - A removed record leaves a tombstone, for as long as there are not too many. Who is older than those compares.
//! - A record is refused alone. Whoever breaks the protocol is cut off by a [`Reject`].
//! - A subscriber never goes back to a state that is older than one it had.

mod channel;
mod digest;
mod event;
mod feed;
mod filter;
mod intake;
mod part;
mod publisher;
mod quota;
mod refusal;
mod reject;
mod session;
mod shelf;
mod stats;
mod store;
mod subscriber;
mod tally;
#[cfg(test)]
mod tests;
mod tombstones;

pub use digest::Digest;
pub use event::Event;
pub use filter::{Filter, MAX_PREFIXES};
pub use quota::Quota;
pub use refusal::{AdmitAll, Gate, MAX_VALUE, Refusal};
pub use reject::Reject;
pub use stats::Stats;
pub use store::Store;

pub use crate::frame::Stream;

use crate::record::{Incarnation, Key, LaneRecord, Revision, Version};
use crate::wire::Message;
use bytes::Bytes;
use hawser_tunnel::node::{ClusterId, NodeIndex};
use publisher::{Publisher, next_after};
use session::{Session, Side};
use shelf::Shelf;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;
use store::{Content, Difference};
use subscriber::Subscriber;

/// Names a session for as long as its connection lasts. Chosen by the owner, never used twice.
pub type SessionId = u64;

/// The most parts of an origin that are on their way to a subscriber: enough for deltas of 16 KiB over 100 ms at 20
/// Mbit/s, and sixteen times as much in parts of a snapshot. Half of them are acknowledged at once.
pub const WINDOW: u64 = 16;

/// The most by which an incarnation may grow at once. A source is not restored a thousand times.
pub const MAX_INCARNATION_STEP: u64 = 1000;

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// To whom.
    pub session: SessionId,
    /// On which stream.
    pub stream: Stream,
    /// One [`Message`], not framed.
    pub bytes: Bytes,
}

/// Who subscribes at us, as its certificate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// An agent of our own cluster: it may have all origins, and the private records of ours except other nodes' pods.
    OwnAgent {
        /// Its node.
        node: NodeIndex,
    },
    /// A hub of another cluster: it may have our own origin, without private records.
    OtherHub {
        /// Its cluster.
        cluster: ClusterId,
    },
}

/// Which origins are subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All that the publisher has: at our own hub.
    All,
    /// One: at that cluster's hub.
    One(ClusterId),
}

/// What a replica takes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Origins.
    pub origins: usize,
    /// Of each origin that has no other.
    pub quota: Quota,
    /// Tombstones of each origin that are kept however few records there are: a cluster that just lost most of its
    /// records still resumes cheaply.
    pub tombstones: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            origins: 1024,
            quota: Quota::default(),
            tombstones: 4096,
        }
    }
}

/// All origins that are known here, and the sessions over which they come and go.
///
/// After each call the owner takes events and messages until there are none, and calls [`Self::handle_timeout`] when
/// [`Self::poll_timeout`] says.
#[derive(Debug)]
pub struct Replica {
    shelf: Shelf,
    sessions: BTreeMap<SessionId, Session>,
    /// Sessions that may have something to say.
    awake: BTreeSet<SessionId>,
    turn: Option<SessionId>,
    /// What was touched up to here woke its readers.
    tick: u64,
}

impl Replica {
    /// One that knows nothing.
    pub fn new(limits: Limits, gate: Box<dyn Gate + Send>) -> Self {
        Self {
            shelf: Shelf::new(limits, gate),
            sessions: BTreeMap::new(),
            awake: BTreeSet::new(),
            turn: None,
            tick: 0,
        }
    }

    /// Makes an origin ours: it is written here, and never taken from anybody. Its state is that of `version`, or of
    /// what was loaded before if that is newer.
    pub fn own(&mut self, origin: ClusterId, version: Version) {
        self.shelf.own = Some(origin);
        let store = self.shelf.store_mut(origin);
        store.begun = true;
        store.initialised = true;
        store.jump(version.max(store.version()));
        self.shelf.touched.touch(origin);
    }

    /// Changes records of our own origin. Returns `false`, and does nothing, if the revision is not greater than the
    /// one before, or no origin is ours. A value that is longer than [`MAX_VALUE`] counts as none, and as a refusal.
    pub fn write(
        &mut self,
        revision: Revision,
        changes: impl IntoIterator<Item = (Key, Option<Bytes>)>,
    ) -> bool {
        let shelf = &mut self.shelf;
        let Some(origin) = shelf.own else {
            return false;
        };
        let version = shelf.store_mut(origin).version();
        if revision <= version.revision {
            return false;
        }
        for (key, value) in changes {
            let too_long = value.as_ref().is_some_and(|value| value.len() > MAX_VALUE);
            if too_long {
                shelf.stats.refused(origin, &Refusal::ValueTooLong);
            }
            let value = value.filter(|_| !too_long);
            let content = value.as_ref().map_or(Content::Gone, |v| Content::Value(v));
            let store = shelf.store_mut(origin);
            let event = match store.set(revision, key.as_bytes(), content) {
                Difference::None => continue,
                Difference::Applied => {
                    let value = value.unwrap_or_default();
                    Event::Apply { origin, key, value }
                }
                Difference::Deleted => Event::Delete { origin, key },
            };
            shelf.events.push_back(event);
        }
        let version = Version {
            revision,
            ..version
        };
        shelf.store_mut(origin).reach(version);
        shelf.events.push_back(Event::Reached {
            origin,
            version,
            complete: true,
        });
        shelf.touched.touch(origin);
        true
    }

    /// Our own origin's source went back in time. Does nothing if the incarnation is not greater than the one before.
    pub fn bump_incarnation(&mut self, to: Incarnation) {
        let Some(origin) = self.shelf.own else {
            return;
        };
        let store = self.shelf.store_mut(origin);
        let version = Version {
            incarnation: to,
            ..store.version()
        };
        if version > store.version() {
            store.break_history();
            store.jump(version);
            self.shelf.events.push_back(Event::Reached {
                origin,
                version,
                complete: true,
            });
            self.shelf.touched.touch(origin);
        }
    }

    /// Takes an origin as it was kept on disk, in place of what is here. No events are told of it. `complete`: the
    /// records are all of `version`, under the filter that is subscribed with next.
    pub fn load(
        &mut self,
        origin: ClusterId,
        version: Version,
        complete: bool,
        records: impl IntoIterator<Item = (Revision, Key, Bytes)>,
    ) {
        let mut store = Store::loaded(self.shelf.limits.tombstones, version, complete, records);
        if let Some(before) = self.shelf.stores.get(&origin) {
            store.break_history_of(before);
        }
        self.shelf.stores.insert(origin, store);
        self.shelf.touched.touch(origin);
    }

    /// Says under which filter that was taken what was loaded. Whoever then subscribes to something else is not thought
    /// to have it.
    pub fn loaded_under(&mut self, filter: &Filter) {
        let own = self.shelf.own;
        let stores = self.shelf.stores.iter_mut();
        for (_, store) in stores.filter(|(origin, _)| Some(**origin) != own) {
            store.filter.get_or_insert_with(|| filter.clone());
        }
    }

    /// Says which origins may be here besides our own. Others are forgotten, and subscribers that still have something
    /// of another are told to forget it. Before the first call every origin may be here.
    pub fn set_members(&mut self, members: BTreeSet<ClusterId>) {
        let origins = self.shelf.stores.keys().copied();
        let left = origins.filter(|o| !members.contains(o) && self.shelf.own != Some(*o));
        let left: Vec<_> = left.collect();
        self.shelf.members = Some(members);
        for origin in left {
            self.forget(origin);
        }
    }

    /// Forgets a cluster that left, its version too: it may come back as if it had never been here. The session that
    /// feeds it, if any, feeds nothing from here on.
    pub fn forget(&mut self, origin: ClusterId) {
        let shelf = &mut self.shelf;
        if let Some(members) = &mut shelf.members {
            members.remove(&origin);
        }
        if shelf.stores.remove(&origin).is_some() {
            shelf.events.push_back(Event::Forgotten { origin });
        }
        shelf.feeders.one.remove(&origin);
        for (&id, session) in &mut self.sessions {
            if let Side::Publisher(publisher) = &mut session.side {
                publisher.leave(origin);
                self.awake.insert(id);
            }
        }
    }

    /// How much of an origin is taken, in place of [`Limits::quota`]. The rate holds from the next session on.
    pub fn set_quota(&mut self, origin: ClusterId, quota: Quota) {
        self.shelf.quotas.insert(origin, quota);
    }

    /// Another gate: all records of all other origins are judged again, and what was refused is asked for again.
    pub fn set_gate(&mut self, gate: Box<dyn Gate + Send>, now: Instant) {
        self.shelf.gate = gate;
        let own = self.shelf.own;
        let origins = self.shelf.stores.keys().copied();
        let origins: Vec<_> = origins.filter(|&origin| own != Some(origin)).collect();
        for origin in origins {
            let again = intake::judge_again(&mut self.shelf, origin);
            let feeder = self.shelf.feeders.of(origin);
            let session = feeder.and_then(|id| self.sessions.get_mut(&id));
            if let Some(Session {
                side: Side::Subscriber(subscriber),
                ..
            }) = session
                && subscriber.follows(origin)
            {
                subscriber.tell_refused(origin, again.refused);
                if again.had_refused {
                    subscriber.ask(&mut self.shelf, origin, now);
                }
                self.awake.extend(feeder);
            }
        }
    }

    /// What is known of an origin.
    pub fn store(&self, origin: ClusterId) -> Option<&Store> {
        self.shelf.stores.get(&origin)
    }

    /// The origins of which something is known.
    pub fn origins(&self) -> impl Iterator<Item = ClusterId> {
        self.shelf.stores.keys().copied()
    }

    /// What was counted.
    pub fn stats(&self) -> &Stats {
        &self.shelf.stats
    }

    /// Somebody subscribes at us on this session.
    pub fn publish(&mut self, session: SessionId, to: Audience) {
        let side = Side::Publisher(Publisher::new(session, to));
        self.open(session, side);
    }

    /// We subscribe on this session. It feeds these origins from here on, whoever fed them before.
    pub fn subscribe(&mut self, session: SessionId, origins: Wanted, filter: Filter, now: Instant) {
        let feeders = &mut self.shelf.feeders;
        match origins {
            Wanted::All => {
                feeders.one.clear();
                feeders.all = Some(session);
            }
            Wanted::One(origin) => {
                feeders.one.insert(origin, session);
            }
        }
        let side = Side::Subscriber(Subscriber::new(session, origins));
        self.open(session, side);
        self.set_filter(session, filter, now);
    }

    /// Subscribes anew, to something else. What is no longer wanted is deleted.
    pub fn set_filter(&mut self, session: SessionId, filter: Filter, _now: Instant) {
        if let Some(Session {
            side: Side::Subscriber(subscriber),
            ..
        }) = self.sessions.get_mut(&session)
            && !subscriber.has_subscribed(&filter)
        {
            subscriber.subscribe(&mut self.shelf, filter);
            self.awake.insert(session);
        }
    }

    /// Tells our hub the lanes of our node, all of them.
    pub fn announce(&mut self, session: SessionId, lanes: Vec<LaneRecord>) {
        if let Some(Session {
            side: Side::Subscriber(subscriber),
            ..
        }) = self.sessions.get_mut(&session)
        {
            subscriber.announce(lanes);
            self.awake.insert(session);
        }
    }

    /// The session is over. What it fed goes on from another one that wants it, if there is one.
    pub fn close(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        self.awake.remove(&session);
        self.shelf.timers.forget(session);
        let feeders = &mut self.shelf.feeders;
        feeders.one.retain(|_, feeder| *feeder != session);
        if feeders.all == Some(session) {
            let wants_all = |(_, s): &(&SessionId, &Session)| match &s.side {
                Side::Subscriber(subscriber) => subscriber.wanted == Wanted::All,
                Side::Publisher(_) => false,
            };
            let next = self.sessions.iter().rev().find(wants_all);
            feeders.all = next.map(|(&id, _)| id);
            if let Some(id) = feeders.all
                && let Some(Session {
                    side: Side::Subscriber(subscriber),
                    ..
                }) = self.sessions.get_mut(&id)
            {
                let filter = subscriber.filter().clone();
                subscriber.subscribe(&mut self.shelf, filter);
                self.awake.insert(id);
            }
        }
    }

    fn open(&mut self, id: SessionId, side: Side) {
        self.sessions.insert(id, Session::new(side));
        self.awake.insert(id);
    }

    /// Takes a message. Bytes of a session that is not there are skipped.
    ///
    /// # Errors
    /// The session must be closed, and the other side told the reject's name.
    pub fn handle_message(
        &mut self,
        session: SessionId,
        stream: Stream,
        bytes: Bytes,
        now: Instant,
    ) -> Result<(), Reject> {
        self.shelf.stats.messages_in += 1;
        self.shelf.stats.bytes_in += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let result = self.handle(session, stream, bytes, now);
        if let Err(reject) = result {
            self.shelf.stats.rejected(reject);
        }
        result
    }

    fn handle(
        &mut self,
        id: SessionId,
        stream: Stream,
        bytes: Bytes,
        now: Instant,
    ) -> Result<(), Reject> {
        let Some(session) = self.sessions.get_mut(&id) else {
            return Ok(());
        };
        let Some(body) = Message::parse(bytes)?.body else {
            // Newer than we are.
            self.shelf.stats.skipped += 1;
            return Ok(());
        };
        self.awake.insert(id);
        session.handle(&mut self.shelf, stream, body, now)
    }

    /// Whether the transport takes more on a stream. It does at first.
    pub fn set_writable(&mut self, session: SessionId, stream: Stream, writable: bool) {
        if let Some(Session { side, .. }) = self.sessions.get_mut(&session) {
            match side {
                Side::Publisher(publisher) => publisher.set_writable(stream, writable),
                Side::Subscriber(subscriber) if stream == Stream::Changes => {
                    subscriber.writable = writable;
                }
                Side::Subscriber(_) => {}
            }
            self.awake.insert(session);
        }
    }

    /// The next message to send, if any. Sessions take turns.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        self.wake_readers();
        loop {
            let id = next_after(&self.awake, self.turn)?;
            let session = self.sessions.get_mut(&id);
            let next = session.and_then(|session| session.poll(&mut self.shelf, now));
            let Some((stream, body)) = next else {
                self.awake.remove(&id);
                continue;
            };
            self.turn = Some(id);
            let bytes = Message::of(body).to_bytes();
            self.shelf.stats.messages_out += 1;
            self.shelf.stats.bytes_out += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            return Some(Transmit {
                session: id,
                stream,
                bytes,
            });
        }
    }

    /// Wakes who reads an origin that was touched. Hubs of other clusters read our own alone: what those clusters say,
    /// however much it is, wakes our agents.
    fn wake_readers(&mut self) {
        let touched = &self.shelf.touched;
        if self.tick == touched.tick() {
            return;
        }
        let own = touched
            .since(self.tick)
            .any(|origin| self.shelf.own == Some(origin));
        self.tick = touched.tick();
        let reads = |session: &Session| match &session.side {
            Side::Publisher(publisher) => own || publisher.reads_others(),
            Side::Subscriber(_) => false,
        };
        let readers = self.sessions.iter().filter(|(_, session)| reads(session));
        self.awake.extend(readers.map(|(&id, _)| id));
    }

    /// The next event, if any.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.shelf.events.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.shelf.timers.next()
    }

    /// Looks after what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((id, origin)) = self.shelf.timers.pop(now) {
            if let Some(session) = self.sessions.get_mut(&id) {
                match &mut session.side {
                    Side::Publisher(publisher) => publisher.look_at(origin),
                    Side::Subscriber(subscriber) => subscriber.look_at(origin),
                }
                self.awake.insert(id);
            }
        }
    }
}
