//! A process of the world: a replica of a hub, or an agent, with the real state machines inside.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use hawser_mesh::record::{Incarnation, Key, Revision, Version};
use hawser_mesh::replica::{
    AdmitAll, Audience, Event, Filter, Limits, Quota, Replica, SessionId, Stream, Transmit, Wanted,
};
use hawser_tunnel::node::{ClusterId, NodeIndex};

use super::clock::{Clock, Moment, SECOND};
use super::grant::Grants;
use super::item;
use super::shape::{AGENTS, CLUSTERS, HUBS, Place};
use super::source::{Source, Step};
use super::story::Keeps;
use super::violation::Violation;
use super::watch::{View, Watch};

/// What a hub takes of another cluster.
pub(super) const QUOTA: Quota = Quota {
    records: 64,
    bytes: 64 << 10,
    changes_per_second: 40,
    burst: 80,
};

/// Who restores a source waits for so long before it does it again.
const BUMP: Moment = 60 * SECOND;

/// A process that runs, or will again.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) place: Place,
    pub(super) clock: Clock,
    /// It stands still until then.
    pub(super) stalled: Moment,
    /// It reads nothing until then.
    pub(super) deaf: Moment,
    /// It hears nothing of its source until then.
    pub(super) lag: Moment,
    /// How often it was started.
    pub(super) life: u32,
    /// Whom it dials.
    pub(super) dials: Vec<Dial>,
    /// When its timer rings.
    pub(super) timer: Option<Moment>,
    replica: Option<Replica>,
    /// Its sessions; those that it dialed, with their slot.
    sessions: BTreeMap<SessionId, Option<usize>>,
    watches: Vec<Watch>,
    filter: usize,
    wanted: Filter,
    /// What it wanted when it last said so.
    subscribed: Filter,
    followed: usize,
    /// On disk.
    disk: BTreeMap<ClusterId, Kept>,
    /// Who has seen a newer state of ours.
    ahead: BTreeMap<Place, Version>,
    audience: BTreeMap<SessionId, Place>,
    bumped: Option<Moment>,
}

/// An origin on disk.
#[derive(Clone, Debug)]
struct Kept {
    version: Version,
    complete: bool,
    /// What was subscribed to.
    wanted: Filter,
    records: Vec<(Revision, Key, Bytes)>,
}

/// Somebody whom a process keeps a session with.
#[derive(Clone, Debug)]
pub(super) struct Dial {
    cluster: usize,
    replica: usize,
    pub(super) session: Option<SessionId>,
    pub(super) dialing: bool,
}

/// What a process has to say.
#[derive(Debug)]
pub(super) enum Said {
    Transmit(Transmit),
    /// Its source went back: another incarnation.
    Bump(Incarnation),
}

impl Dial {
    fn to(cluster: usize, replica: usize) -> Self {
        Self {
            cluster,
            replica,
            session: None,
            dialing: false,
        }
    }

    /// Whom to try next; each time another one.
    pub(super) fn next(&mut self) -> Place {
        self.replica = (self.replica + 1) % HUBS;
        Place::hub(self.cluster, self.replica)
    }
}

impl Process {
    pub(super) fn new(place: Place, epoch: Instant) -> Self {
        let dials = if place.is_hub() {
            let others = (0..CLUSTERS).filter(|cluster| *cluster != place.cluster);
            others.map(|cluster| Dial::to(cluster, place.number())).collect()
        } else {
            vec![Dial::to(place.cluster, place.number())]
        };
        let filter = if place.is_hub() {
            0
        } else {
            1 + (place.cluster * AGENTS + place.number()) % (item::FILTERS - 1)
        };
        let mut process = Self {
            place,
            clock: Clock::new(epoch),
            stalled: 0,
            deaf: 0,
            lag: 0,
            life: 0,
            dials,
            timer: None,
            replica: None,
            sessions: BTreeMap::new(),
            watches: (0..CLUSTERS).map(|_| Watch::default()).collect(),
            filter,
            wanted: Filter::default(),
            subscribed: Filter::default(),
            followed: 0,
            disk: BTreeMap::new(),
            ahead: BTreeMap::new(),
            audience: BTreeMap::new(),
            bumped: None,
        };
        process.wanted = process.filter_of(filter);
        process
    }

    fn filter_of(&self, filter: usize) -> Filter {
        if self.place.is_hub() {
            return Filter::public();
        }
        let node = u8::try_from(self.place.number()).expect("agents are few");
        Filter::new(item::prefixes(filter, node))
    }

    pub(super) fn is_up(&self) -> bool {
        self.replica.is_some()
    }

    pub(super) fn is_awake(&self, now: Moment) -> bool {
        self.stalled <= now
    }

    /// From when on it reads.
    pub(super) fn reads_from(&self) -> Moment {
        self.stalled.max(self.deaf)
    }

    pub(super) fn replica(&self) -> Option<&Replica> {
        self.replica.as_ref()
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.sessions.keys().copied()
    }

    pub(super) fn watch(&self, origin: usize) -> &Watch {
        &self.watches[origin]
    }

    pub(super) fn watch_mut(&mut self, origin: usize) -> &mut Watch {
        &mut self.watches[origin]
    }

    /// Whether it wants such a record.
    pub(super) fn wants(&self, key: &Key) -> bool {
        self.wanted.covers(key)
    }

    pub(super) fn wanted(&self) -> &Filter {
        &self.wanted
    }

    /// What it has of one origin, or of all, may be old.
    pub(super) fn taint(&mut self, origin: Option<usize>) {
        match origin {
            Some(origin) => self.watches[origin].tainted = true,
            None => self.watches.iter_mut().for_each(|watch| watch.tainted = true),
        }
    }

    fn up(&mut self) -> &mut Replica {
        self.replica.as_mut().expect("only who runs is asked")
    }

    /// Starts with what is on disk, and what the source says.
    pub(super) fn start(&mut self, now: Moment, sources: &[Source]) {
        self.life += 1;
        let limits = Limits {
            quota: QUOTA,
            ..Limits::default()
        };
        let own = item::id(self.place.cluster);
        let mut replica = if self.place.is_hub() {
            Replica::new(limits, Box::new(Grants))
        } else {
            Replica::new(Limits::default(), Box::new(AdmitAll))
        };
        for watch in &mut self.watches {
            let tainted = watch.tainted;
            watch.forget();
            watch.tainted = tainted;
        }
        let _ = now;
        for (id, kept) in &self.disk {
            let origin = item::cluster_of(*id);
            let view = View {
                source: &sources[origin],
                origin,
                own: origin == self.place.cluster,
                incarnation: kept.version.incarnation,
            };
            for (_, key, value) in &kept.records {
                self.watches[origin].begin(view, key.clone(), value.clone());
            }
            self.watches[origin].version = kept.version;
            replica.load(
                *id,
                kept.version,
                kept.complete && kept.wanted == self.wanted,
                kept.records.iter().cloned(),
            );
        }
        if self.place.is_hub() {
            let source = &sources[self.place.cluster];
            let records = source
                .state()
                .iter()
                .map(|(key, (revision, value))| (*revision, key.clone(), value.clone()));
            replica.load(own, source.version(), true, records);
            replica.own(own, source.version());
            self.followed = source.log().len();
        }
        self.replica = Some(replica);
    }

    /// What it has now is on its disk.
    pub(super) fn flush(&mut self) {
        let Some(replica) = &self.replica else {
            return;
        };
        let own = item::id(self.place.cluster);
        self.disk.clear();
        for id in replica.origins() {
            if self.place.is_hub() && id == own {
                continue;
            }
            let Some(store) = replica.store(id) else {
                continue;
            };
            let records = store.records().collect();
            self.disk.insert(id, Kept {
                version: store.version(),
                complete: store.is_complete(),
                wanted: self.subscribed.clone(),
                records,
            });
        }
    }

    /// Decides what it will have kept.
    pub(super) fn keep(&mut self, keeps: Keeps) {
        match keeps {
            Keeps::All => self.flush(),
            Keeps::Flushed => {}
            Keeps::Nothing => self.disk.clear(),
        }
    }

    pub(super) fn die(&mut self) {
        self.replica = None;
        self.sessions.clear();
        self.audience.clear();
        self.ahead.clear();
        self.timer = None;
        for dial in &mut self.dials {
            dial.session = None;
            dial.dialing = false;
        }
    }

    /// Takes what its source said since.
    pub(super) fn follow(&mut self, source: &Source) {
        let steps = source.log().get(self.followed..).unwrap_or_default();
        let steps = steps.to_vec();
        self.followed = source.log().len();
        for step in steps {
            match step {
                Step::Changes {
                    revision, changes, ..
                } => {
                    let written = self.up().write(revision, changes);
                    assert!(written, "a source's revisions grow");
                }
                Step::Bump(to) => self.up().bump_incarnation(to),
            }
        }
    }

    /// Somebody subscribes here.
    pub(super) fn serve(&mut self, session: SessionId, subscriber: Place) {
        let audience = if subscriber.is_hub() {
            Audience::OtherHub {
                cluster: item::id(subscriber.cluster),
            }
        } else {
            let node = u16::try_from(subscriber.number() + 1).expect("agents are few");
            Audience::OwnAgent {
                node: NodeIndex::new(node).expect("not 0"),
            }
        };
        self.sessions.insert(session, None);
        self.audience.insert(session, subscriber);
        self.up().publish(session, audience);
    }

    /// Subscribes at whom it dialed.
    pub(super) fn subscribe(&mut self, session: SessionId, slot: usize, now: Moment) {
        self.sessions.insert(session, Some(slot));
        self.dials[slot].session = Some(session);
        let wanted = if self.place.is_hub() {
            Wanted::One(item::id(self.dials[slot].cluster))
        } else {
            Wanted::All
        };
        let (filter, now) = (self.wanted.clone(), self.clock.read(now));
        self.subscribed = filter.clone();
        self.up().subscribe(session, wanted, filter, now);
    }

    /// Wants something else from now on.
    pub(super) fn refilter(&mut self, filter: usize, now: Moment) {
        self.filter = filter;
        self.wanted = self.filter_of(filter);
        let wanted = self.wanted.clone();
        let now = self.clock.read(now);
        let Some(session) = self.dials[0].session else {
            return;
        };
        if let Some(replica) = &mut self.replica {
            self.subscribed = wanted.clone();
            replica.set_filter(session, wanted, now);
        }
    }

    /// A session is over. Returns whom to dial again.
    pub(super) fn close(&mut self, session: SessionId) -> Option<usize> {
        let slot = self.sessions.remove(&session)?;
        self.audience.remove(&session);
        self.up().close(session);
        let slot = slot?;
        self.dials[slot].session = None;
        Some(slot)
    }

    pub(super) fn set_writable(&mut self, session: SessionId, stream: Stream, writable: bool) {
        if self.sessions.contains_key(&session) {
            self.up().set_writable(session, stream, writable);
        }
    }

    pub(super) fn handle_message(
        &mut self,
        session: SessionId,
        stream: Stream,
        bytes: Bytes,
        now: Moment,
    ) -> Result<(), String> {
        let now = self.clock.read(now);
        let taken = self.up().handle_message(session, stream, bytes, now);
        taken.map_err(|reject| reject.name().to_owned())
    }

    /// How often a comparison had to put right what changes should have told.
    pub(super) fn repairs(&self) -> u64 {
        let stats = self.replica.as_ref().map(Replica::stats);
        stats.map_or(0, |stats| stats.mismatches + stats.delta_gap)
    }

    pub(super) fn handle_timeout(&mut self, now: Moment) {
        let now = self.clock.read(now);
        if let Some(replica) = &mut self.replica {
            replica.handle_timeout(now);
        }
    }

    /// When its timer has to ring, if that is not planned yet.
    pub(super) fn arm(&mut self, now: Moment) -> Option<Moment> {
        let at = self.replica.as_ref()?.poll_timeout();
        let at = at.map(|at| self.clock.moment(at).max(now + 1));
        if at == self.timer {
            return None;
        }
        self.timer = at;
        at
    }

    /// Says one thing that it has to say; holds what it tells against the sources.
    pub(super) fn poll(
        &mut self,
        now: Moment,
        sources: &[Source],
    ) -> Result<Option<Said>, Violation> {
        let Some(replica) = &mut self.replica else {
            return Ok(None);
        };
        while let Some(event) = replica.poll_event() {
            let watched = Watched {
                place: self.place,
                wanted: &self.wanted,
                sources,
            };
            watched.take(replica, &mut self.watches, &event)?;
            if let Event::Ahead { seen, session, .. } = event {
                if let Some(who) = self.audience.get(&session) {
                    self.ahead.insert(*who, seen);
                }
                if let Some(to) = self.bump(now, sources) {
                    return Ok(Some(Said::Bump(to)));
                }
                let replica = self.replica.as_mut();
                let _ = replica;
                return self.poll(now, sources);
            }
        }
        let read = self.clock.read(now);
        Ok(replica.poll_transmit(read).map(Said::Transmit))
    }

    /// Whether enough others have seen what this cluster's source does not know any more.
    fn bump(&mut self, now: Moment, sources: &[Source]) -> Option<Incarnation> {
        let version = sources[self.place.cluster].version();
        self.ahead.retain(|_, seen| *seen > version);
        let hubs = self.ahead.keys().any(|who| who.is_hub());
        let agents = self.ahead.keys().filter(|who| !who.is_hub()).count();
        let soon = self.bumped.is_some_and(|at| now < at + BUMP);
        if soon || !(hubs || agents * 2 > AGENTS) {
            return None;
        }
        let greatest = self.ahead.values().map(|seen| seen.incarnation).max()?;
        if greatest.0 > version.incarnation.0 + 1_000 {
            return None;
        }
        self.bumped = Some(now);
        self.ahead.clear();
        Some(Incarnation(greatest.max(version.incarnation).0 + 1))
    }
}

/// Where events are held against the truth.
struct Watched<'a> {
    place: Place,
    wanted: &'a Filter,
    sources: &'a [Source],
}

impl Watched<'_> {
    fn take(
        &self,
        replica: &Replica,
        watches: &mut [Watch],
        event: &Event,
    ) -> Result<(), Violation> {
        let (id, key) = match event {
            Event::Init { origin } | Event::InitDone { origin } => (*origin, None),
            Event::InitApply { origin, key, .. }
            | Event::Apply { origin, key, .. }
            | Event::Delete { origin, key } => (*origin, Some(key)),
            Event::Refused {
                origin,
                key,
                reason,
                ..
            } => {
                let origin = item::cluster_of(*origin);
                let quota = reason.starts_with("quota_");
                if !quota && self.sources[origin].is_granted(key) {
                    let reason = format!("{reason}: {key}");
                    return Err(Violation::HonestRefused { origin, reason });
                }
                return Ok(());
            }
            Event::Forgotten { origin } => {
                watches[item::cluster_of(*origin)].forget();
                return Ok(());
            }
            _ => return Ok(()),
        };
        let origin = item::cluster_of(id);
        let own = origin == self.place.cluster;
        if own && self.place.is_hub() {
            return Ok(());
        }
        let incarnation = replica.store(id).map(|store| store.version().incarnation);
        let view = View {
            source: &self.sources[origin],
            origin,
            own,
            incarnation: incarnation.unwrap_or_default(),
        };
        if let (Some(key), false) = (key, matches!(event, Event::Delete { .. }))
            && !self.wanted.covers(key)
        {
            let key = key.clone();
            return Err(Violation::NotAskedFor { origin, key });
        }
        let watch = &mut watches[origin];
        if let Event::Delete { key, .. } = event
            && !self.wanted.covers(key)
        {
            return watch.unwanted(origin, key);
        }
        match event {
            Event::Init { .. } => watch.init(),
            Event::InitApply { key, value, .. } => watch.init_apply(key.clone(), value.clone()),
            Event::InitDone { .. } => watch.init_done(view)?,
            Event::Apply { key, value, .. } => watch.apply(view, key.clone(), value.clone())?,
            Event::Delete { key, .. } => watch.delete(view, key.clone())?,
            _ => {}
        }
        Ok(())
    }
}
