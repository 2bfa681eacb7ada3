//! A publisher and a subscriber on a wire that does what it wants.

use super::super::source::Source;
use super::lie;
use bytes::Bytes;
use hawser_mesh::record::{Incarnation, Key, Kind, Prefix, Revision, Version};
use hawser_mesh::replica::{
    Audience, Event, Filter, Gate, Limits, MAX_INCARNATION_STEP, Quota, Refusal, Reject, Replica,
    SessionId, Store, Stream, Wanted,
};
use hawser_mesh::wire::{Body, Change, Message};
use hawser_tunnel::node::{ClusterId, NodeIndex};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// What the subscriber takes: all that the publisher ever has fits, and not much more.
const LIMITS: Limits = Limits {
    origins: 5,
    quota: Quota {
        records: 64,
        bytes: 4096,
        changes_per_second: 100,
        burst: 100,
    },
    tombstones: 2,
};

/// Long enough for everything that is retried: origins over their quota are compared each minute.
const HEALED_AFTER: Duration = Duration::from_secs(300);

/// Messages that one silence may take: more, and they talk for ever.
const TALK: usize = 5_000;

/// Both directions of both streams.
const PLACES: [(Side, Stream); 4] = [
    (Side::Subscriber, Stream::Changes),
    (Side::Publisher, Stream::Changes),
    (Side::Subscriber, Stream::Bulk),
    (Side::Publisher, Stream::Bulk),
];

/// Who gets a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Publisher,
    Subscriber,
}

/// Refuses some keys of other origins.
struct RefuseD;

impl Gate for RefuseD {
    fn admit(&self, _: ClusterId, key: &Key, _: &Bytes) -> Result<(), Refusal> {
        if refused(key) {
            return Err(Refusal::Grant("ends_in_d"));
        }
        Ok(())
    }
}

fn refused(key: &Key) -> bool {
    key.as_bytes().last() == Some(&b'd')
}

/// The hub of cluster 1, which has records of cluster 2 as well, and an agent of its own or the hub of cluster 3.
pub(super) struct Pair {
    publisher: Replica,
    subscriber: Replica,
    other_hub: bool,
    filter: Filter,
    /// What was subscribed with last.
    subscribed: Filter,
    session: Option<SessionId>,
    last: SessionId,
    queues: BTreeMap<(Side, Stream), VecDeque<Bytes>>,
    now: Instant,
    /// What the subscriber's events tell.
    told: BTreeMap<(ClusterId, Key), Bytes>,
    seen: BTreeMap<ClusterId, Version>,
    rejects: Vec<Reject>,
}

impl Pair {
    pub(super) fn new(other_hub: bool) -> Self {
        let limits = Limits {
            tombstones: LIMITS.tombstones,
            ..Limits::default()
        };
        let mut publisher = Replica::new(limits, Box::new(RefuseD));
        publisher.own(cluster(1), Version::new(1, 0));
        publisher.set_members(BTreeSet::from([cluster(2)]));
        let mut subscriber = Replica::new(LIMITS, Box::new(RefuseD));
        if other_hub {
            subscriber.own(cluster(3), Version::new(1, 0));
        }
        let mut pair = Self {
            publisher,
            subscriber,
            other_hub,
            filter: filter(other_hub, 0),
            subscribed: Filter::default(),
            session: None,
            last: 0,
            queues: BTreeMap::new(),
            now: Instant::now(),
            told: BTreeMap::new(),
            seen: BTreeMap::new(),
            rejects: Vec::new(),
        };
        pair.load_other(Version::new(1, 5));
        let first = [&[1, b'a'][..], &[3, b'b'], &[65, b'a'], &[67, 0, 8, b'a']];
        let first = first.map(|key| {
            let key = Key::parse(Bytes::from_static(key)).expect("some bytes are a key");
            (key, Some(Bytes::from_static(b"first")))
        });
        assert!(pair.publisher.write(Revision(1), first));
        pair.connect();
        pair
    }

    /// What the publisher knows of cluster 2.
    fn load_other(&mut self, version: Version) {
        let records = [&[1, b'a'][..], &[4, b's', b'b']].map(|key| {
            let key = Key::parse(Bytes::from_static(key)).expect("some bytes are a key");
            (Revision(2), key, Bytes::from_static(b"other"))
        });
        self.publisher.load(cluster(2), version, true, records);
    }

    pub(super) fn connect(&mut self) {
        self.cut();
        self.last += 1;
        let (id, filter) = (self.last, self.filter.clone());
        let (to, wanted) = if self.other_hub {
            let other = cluster(3);
            (
                Audience::OtherHub { cluster: other },
                Wanted::One(cluster(1)),
            )
        } else {
            let node = NodeIndex::new(7).expect("7 is an index");
            (Audience::OwnAgent { node }, Wanted::All)
        };
        self.subscribed = filter.clone();
        self.publisher.publish(id, to);
        self.subscriber.subscribe(id, wanted, filter, self.now);
        self.session = Some(id);
        self.collect();
    }

    pub(super) fn cut(&mut self) {
        if let Some(id) = self.session.take() {
            self.publisher.close(id);
            self.subscriber.close(id);
        }
        self.queues.clear();
        self.collect();
    }

    pub(super) fn write(&mut self, source: &mut Source<'_>) {
        let changes: BTreeMap<_, _> = (0..=source.below(6))
            .map(|_| {
                let key = lie::key(source);
                (key, (!source.once_in(3)).then(|| lie::value(source)))
            })
            .collect();
        let after = self.version().revision.0 + 1;
        assert!(self.publisher.write(Revision(after), changes));
        self.collect();
    }

    pub(super) fn filter(&mut self, source: &mut Source<'_>) {
        self.filter = filter(self.other_hub, source.below(5));
        if let Some(id) = self.session {
            self.subscribed = self.filter.clone();
            self.subscriber
                .set_filter(id, self.filter.clone(), self.now);
        }
        self.collect();
    }

    /// The transport takes nothing on a stream for now.
    pub(super) fn block(&mut self, source: &mut Source<'_>) {
        let (side, stream) = source.pick(&PLACES);
        let (id, writable) = (self.session.unwrap_or(0), source.any());
        self.replica(side).set_writable(id, stream, writable);
        self.collect();
    }

    /// Something else that happens to a hub or its subscriber.
    pub(super) fn turn(&mut self, source: &mut Source<'_>) {
        match source.below(4) {
            0 => {
                let next = self.version().incarnation.0 + 1;
                self.publisher.bump_incarnation(Incarnation(next));
            }
            1 => self.publisher.forget(cluster(2)),
            2 => self.other_comes(),
            _ => self.subscriber.set_gate(Box::new(RefuseD), self.now),
        }
        self.collect();
    }

    fn other_comes(&mut self) {
        self.publisher.set_members(BTreeSet::from([cluster(2)]));
        if self.publisher.store(cluster(2)).is_none() {
            self.load_other(Version::new(1, 5));
        }
    }

    /// Delivers a message: as it is, or as it pleases the wire.
    pub(super) fn deliver(&mut self, source: &mut Source<'_>, changed: bool) {
        let (to, stream) = source.pick(&PLACES);
        let queue = self.queues.entry((to, stream)).or_default();
        let Some(bytes) = queue.pop_front() else {
            if changed {
                let body = lie::body(source);
                self.hand(to, stream, Message::of(body).to_bytes());
            }
            return;
        };
        if !changed {
            return self.hand(to, stream, bytes);
        }
        match source.below(8) {
            0 => {}
            1 => {
                self.hand(to, stream, bytes.clone());
                self.hand(to, stream, bytes);
            }
            2 => queue.push_back(bytes),
            3 => {
                let mut bytes = bytes.to_vec();
                let bit = source.below(bytes.len() * 8);
                if let Some(byte) = bytes.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
                self.hand(to, stream, bytes.into());
            }
            4 => self.hand(to, stream, bytes.slice(..source.below(bytes.len()))),
            5 => {
                let body = lie::body(source);
                self.hand(to, stream, Message::of(body).to_bytes());
            }
            _ => {
                let body = Message::parse(bytes).ok().and_then(|message| message.body);
                let body = body.expect("replicas say what they understand");
                let lie = Message::of(lie::changed(body, source)).to_bytes();
                self.hand(to, stream, lie);
            }
        }
    }

    fn hand(&mut self, to: Side, stream: Stream, bytes: Bytes) {
        let (Some(id), now) = (self.session, self.now) else {
            return;
        };
        if let Err(reject) = self.replica(to).handle_message(id, stream, bytes, now) {
            assert!(!reject.name().is_empty() && !reject.to_string().is_empty());
            self.rejects.push(reject);
            self.cut();
        }
        self.collect();
    }

    fn replica(&mut self, side: Side) -> &mut Replica {
        match side {
            Side::Publisher => &mut self.publisher,
            Side::Subscriber => &mut self.subscriber,
        }
    }

    fn version(&self) -> Version {
        let store = self.publisher.store(cluster(1));
        store.map_or(Version::NONE, Store::version)
    }

    /// All that both have to say goes onto the wire; events are heard.
    fn collect(&mut self) {
        for side in [Side::Publisher, Side::Subscriber] {
            let now = self.now;
            self.replica(side).handle_timeout(now);
            let mut most = TALK;
            while let Some(transmit) = self.replica(side).poll_transmit(now) {
                most = most.checked_sub(1).expect("one of them talks for ever");
                assert_eq!(Some(transmit.session), self.session);
                let to = match side {
                    Side::Publisher => {
                        self.check_shown(&transmit.bytes);
                        Side::Subscriber
                    }
                    Side::Subscriber => Side::Publisher,
                };
                let queue = self.queues.entry((to, transmit.stream)).or_default();
                queue.push_back(transmit.bytes);
            }
        }
        while let Some(event) = self.subscriber.poll_event() {
            self.hear(event);
        }
        while let Some(event) = self.publisher.poll_event() {
            if let Event::Ahead { origin, seen, .. } = event {
                // As its owner does: what was seen was served before a backup was restored.
                assert_eq!(origin, cluster(1));
                let next = seen.incarnation.0.saturating_add(1);
                self.publisher.bump_incarnation(Incarnation(next));
                return self.collect();
            }
        }
    }

    /// What a publisher says is for this subscriber.
    fn check_shown(&self, bytes: &Bytes) {
        let body = Message::parse(bytes.clone()).expect("it is a message").body;
        let (origin, records): (_, &[Change]) = match &body {
            Some(Body::Snapshot(snapshot)) => (snapshot.origin, &snapshot.records),
            Some(Body::Delta(delta)) => (delta.origin, &delta.changes),
            Some(Body::Summary(summary)) => (summary.origin, &[]),
            Some(Body::Compare(compare)) => (compare.origin, &[]),
            Some(Body::Gone(gone)) => {
                assert!(!self.other_hub, "of the others nothing is said");
                (gone.origin, &[])
            }
            Some(Body::Hello(_)) => return,
            Some(
                Body::Subscribe(_)
                | Body::Digests(_)
                | Body::Ack(_)
                | Body::Refused(_)
                | Body::Announce(_),
            )
            | None => panic!("a publisher does not say {body:?}"),
        };
        assert!(!self.other_hub || origin == 1, "of cluster 1 alone");
        for record in records {
            let key = Key::parse(record.key.clone()).expect("it has a key");
            let private = key.is_private();
            let of_other_node = key.kind() == Some(Kind::Pod) && key.as_bytes()[..3] != [67, 0, 7];
            assert!(!(self.other_hub && private), "{key} left its cluster");
            assert!(!of_other_node, "{key} is not for node 7");
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::InitApply { origin, key, value } | Event::Apply { origin, key, value } => {
                self.told.insert((origin, key), value);
            }
            Event::Delete { origin, key } => {
                let was = self.told.remove(&(origin, key));
                assert!(was.is_some(), "deleted what was not there");
            }
            Event::Forgotten { origin } => {
                self.told.retain(|(of, _), _| *of != origin);
                self.seen.remove(&origin);
            }
            Event::Init { .. }
            | Event::InitDone { .. }
            | Event::Reached { .. }
            | Event::Ahead { .. }
            | Event::Announced { .. }
            | Event::Refused { .. }
            | Event::Synced { .. } => {}
        }
    }

    /// What holds at any time, whatever was said.
    pub(super) fn check(&mut self) {
        let mut held = BTreeMap::new();
        let origins: Vec<_> = self.subscriber.origins().collect();
        assert!(origins.len() <= LIMITS.origins, "origins are bounded");
        for origin in origins {
            let store = self.subscriber.store(origin).expect("it is there");
            assert!(store.len() + store.refused() <= LIMITS.quota.records);
            assert!(store.bytes() <= LIMITS.quota.bytes);
            let version = store.version();
            let seen = self.seen.insert(origin, version);
            assert!(seen.is_none_or(|seen| seen <= version), "it went back");
            if self.other_hub {
                assert!(matches!(u16::from(origin), 1 | 3), "of another origin");
            }
            for (_, key, value) in store.records() {
                assert!(!(self.other_hub && key.is_private()), "{key} is private");
                assert!(self.subscribed.covers(&key), "{key} was not asked for");
                assert!(!refused(&key), "{key} is refused");
                held.insert((origin, key), value);
            }
        }
        assert!(held == self.told, "events tell another story");
    }

    /// Delivers until nothing is on its way; changes are faster than snapshots.
    pub(super) fn settle(&mut self) {
        self.collect();
        let mut most = TALK;
        let next = |pair: &mut Self| {
            PLACES.into_iter().find_map(|(to, stream)| {
                let queue = pair.queues.get_mut(&(to, stream))?;
                Some((to, stream, queue.pop_front()?))
            })
        };
        while let Some((to, stream, bytes)) = next(self) {
            most = most.checked_sub(1).expect("they talk for ever");
            self.hand(to, stream, bytes);
        }
    }

    /// Time passes, timer by timer.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut most = TALK;
        loop {
            most = most.checked_sub(1).expect("they never rest");
            self.settle();
            let (publisher, subscriber) = (&self.publisher, &self.subscriber);
            let due = publisher.poll_timeout().into_iter();
            let due = due.chain(subscriber.poll_timeout()).min();
            let Some(due) = due.filter(|due| *due <= end) else {
                break;
            };
            self.now = self.now.max(due);
        }
        self.now = end;
        self.settle();
    }

    /// The wire is honest from now on, and each owner did what was left for people to do.
    pub(super) fn heal(&mut self) {
        self.cut();
        self.other_comes();
        for origin in [cluster(1), cluster(2)] {
            let version = |replica: &Replica| {
                let store = replica.store(origin);
                store.map_or(Version::NONE, Store::version)
            };
            let (ours, theirs) = (version(&self.publisher), version(&self.subscriber));
            let next = theirs.incarnation.0.saturating_add(1);
            if theirs.incarnation.0 > ours.incarnation.0.saturating_add(MAX_INCARNATION_STEP) {
                // A first lie that nobody can follow: its cluster is told to leave, and comes again.
                self.subscriber.forget(origin);
            } else if theirs > ours && origin == cluster(2) {
                self.load_other(Version::new(next, 5));
            }
        }
        self.rejects.clear();
        self.connect();
        self.pass(HEALED_AFTER);
        self.check();
        assert_eq!(self.rejects, [], "an honest session is not closed");
        let shown: &[u16] = if self.other_hub { &[1] } else { &[1, 2] };
        for &origin in shown {
            self.check_healed(cluster(origin));
        }
        for origin in self.subscriber.origins() {
            let own = self.other_hub && origin == cluster(3);
            assert!(own || shown.contains(&u16::from(origin)), "{origin} stays");
        }
    }

    fn check_healed(&self, origin: ClusterId) {
        let ours = self.publisher.store(origin).expect("it is there");
        let theirs = self.subscriber.store(origin).expect("it was told");
        let wanted = ours.records();
        let wanted = wanted.filter(|(_, key, _)| self.filter.covers(key) && !refused(key));
        let mut model = Replica::new(LIMITS, Box::new(RefuseD));
        model.load(origin, ours.version(), true, wanted);
        let model = model.store(origin).expect("it was loaded");
        let plain = |store: &Store| -> BTreeMap<Key, Bytes> {
            let records = store.records();
            records.map(|(_, key, value)| (key, value)).collect()
        };
        assert_eq!(plain(theirs), plain(model), "of {origin}");
        assert_eq!(theirs.digest(), model.digest());
        assert!(theirs.is_complete());
        let incarnation = ours.version().incarnation;
        assert_eq!(theirs.version().incarnation, incarnation);
    }
}

/// What is wanted; the first is all that there is.
fn filter(other_hub: bool, number: usize) -> Filter {
    let node = NodeIndex::new(7).expect("7 is an index");
    match number {
        0 if other_hub => Filter::public(),
        0 => Filter::new(
            Kind::ALL
                .into_iter()
                .filter(|kind| *kind != Kind::Pod)
                .map(Prefix::kind)
                .chain([Prefix::pods_of(node)]),
        ),
        1 => Filter::new([Prefix::kind(Kind::Node)]),
        2 => Filter::new([Prefix::service_endpoints(), Prefix::kind(Kind::Service)]),
        3 => Filter::default(),
        _ if other_hub => Filter::new([Prefix::kind(Kind::Endpoint)]),
        _ => Filter::new([Prefix::kind(Kind::Policy), Prefix::pods_of(node)]),
    }
}

fn cluster(number: u16) -> ClusterId {
    ClusterId::new(number).expect("small numbers are IDs")
}
