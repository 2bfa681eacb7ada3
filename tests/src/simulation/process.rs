//! A process of the world: a replica of a hub, or an agent, with the real state machines inside.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use hawser_mesh::hub::bump::Claim;
use hawser_mesh::hub::core::Core;
use hawser_mesh::hub::journal::Live;
use hawser_mesh::hub::manifest::QuotaLimits;
use hawser_mesh::hub::members::Members;
use hawser_mesh::kept::KeptOrigin;
use hawser_mesh::record::{Incarnation, Key};
use hawser_mesh::replica::{
    AdmitAll, Filter, Limits, Replica, SessionId, Store, Stream, Transmit, Wanted,
};
use hawser_mesh::trust::PeerId;
use hawser_tunnel::node::ClusterId;

use super::clock::{Clock, Moment};
use super::disk::Disk;
use super::item;
use super::mind::{Mind, Told};
use super::shape::{AGENTS, CLUSTERS, Place, hubs};
use super::source::Source;
use super::story::Keeps;
use super::violation::Violation;
use super::watch::{View, Watch};

/// Records that a hub takes of another cluster.
pub(super) const RECORDS: u32 = 48;

/// What a hub takes of another cluster.
const QUOTA: QuotaLimits = QuotaLimits {
    records: Some(RECORDS),
    bytes: Some(64 << 10),
    changes_per_second: Some(40),
    burst: Some(80),
};

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
    mind: Option<Mind>,
    members: Members,
    /// Its sessions; those that it dialed, with their slot.
    sessions: BTreeMap<SessionId, Option<usize>>,
    watches: Vec<Watch>,
    filter: usize,
    wanted: Filter,
    /// What it wanted when it last said so.
    subscribed: Filter,
    followed: usize,
    disk: Disk,
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
    /// It gave a session up.
    Close(SessionId, &'static str),
    /// Its source went back: another incarnation.
    Bump(Incarnation),
    /// It does not write, and heard of newer states.
    Ahead(Vec<Claim>),
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
        self.replica = (self.replica + 1) % hubs(self.cluster);
        Place::hub(self.cluster, self.replica)
    }
}

impl Process {
    pub(super) fn new(place: Place, epoch: Instant) -> Self {
        let dials = if place.is_hub() {
            let others = (0..CLUSTERS).filter(|cluster| *cluster != place.cluster);
            others
                .map(|cluster| Dial::to(cluster, place.number()))
                .collect()
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
            mind: None,
            members: Members::new(item::id(place.cluster), item::name(place.cluster)),
            sessions: BTreeMap::new(),
            watches: (0..CLUSTERS).map(|_| Watch::default()).collect(),
            filter,
            wanted: Filter::default(),
            subscribed: Filter::default(),
            followed: 0,
            disk: Disk::default(),
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
        self.mind.is_some()
    }

    pub(super) fn is_awake(&self, now: Moment) -> bool {
        self.stalled <= now
    }

    /// From when on it reads.
    pub(super) fn reads_from(&self) -> Moment {
        self.stalled.max(self.deaf)
    }

    pub(super) fn store(&self, origin: ClusterId) -> Option<&Store> {
        self.mind.as_ref()?.store(origin)
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

    /// What it has of one origin, or of all, may be old.
    pub(super) fn taint(&mut self, origin: Option<usize>) {
        match origin {
            Some(origin) => self.watches[origin].tainted = true,
            None => self
                .watches
                .iter_mut()
                .for_each(|watch| watch.tainted = true),
        }
    }

    /// Starts with what is on disk, and what the source says.
    pub(super) fn start(&mut self, now: Moment, sources: &[Source]) {
        self.life += 1;
        for watch in &mut self.watches {
            let tainted = watch.tainted;
            watch.forget();
            watch.tainted = tainted;
        }
        let read = self.clock.read(now);
        let mut mind = if self.place.is_hub() {
            Mind::Hub(Box::new(self.new_hub(read, sources)))
        } else {
            let replica = Replica::new(Limits::default(), Box::new(AdmitAll));
            Mind::Agent(Box::new(replica), VecDeque::new())
        };
        for (id, mut kept) in self.disk.read(&self.wanted) {
            let origin = item::cluster_of(id);
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
            match &mut mind {
                Mind::Hub(core) => core.load(id, kept),
                Mind::Agent(replica, _) => {
                    let records = std::mem::take(&mut kept.records);
                    replica.load(id, kept.version, kept.complete, records);
                }
            }
        }
        if let Mind::Agent(replica, _) = &mut mind {
            // It may want something else before it has a session.
            replica.loaded_under(self.disk.subscribed());
        }
        self.mind = Some(mind);
    }

    /// A hub that has its own cluster's journal, and knows all others.
    fn new_hub(&mut self, now: Instant, sources: &[Source]) -> Core {
        let mut core = Core::new(
            item::cluster(self.place.cluster),
            "set.example".to_owned(),
            QUOTA,
        );
        let mut live = Live::default();
        let steps = sources[self.place.cluster].steps();
        for logged in steps {
            live.apply(&logged.frame);
        }
        self.followed = steps.len();
        core.load_own(&live);
        let own = item::cluster(self.place.cluster);
        self.members = Members::new(own.id, own.name);
        for other in (0..CLUSTERS).filter(|other| *other != self.place.cluster) {
            let peer = Arc::new(item::peer(other));
            for change in self.members.set(&item::name(other), Some(peer)) {
                core.set_member(change, now);
            }
        }
        core
    }

    /// Somebody asks it to take in a cluster under an ID that is taken; and tries to subscribe.
    pub(super) fn ask_in(&mut self, claims: usize) -> Result<(), Violation> {
        let Some(Mind::Hub(core)) = &mut self.mind else {
            return Ok(());
        };
        let peer = Arc::new(item::impostor(claims));
        let changes = self.members.set("alien", Some(peer));
        if let Some(change) = changes.first() {
            let what = format!("{} as {}", change.name, change.id);
            return Err(Violation::LetIn { what });
        }
        for peer in [PeerId::hub("alien", "h"), PeerId::node("alien", "node-0")] {
            if core.accepted(SessionId::MAX, peer).is_ok() {
                let what = "a peer that is no member".to_owned();
                return Err(Violation::LetIn { what });
            }
        }
        let changes = self.members.set("alien", None);
        if !changes.is_empty() {
            let what = "who was never in leaves".to_owned();
            return Err(Violation::LetIn { what });
        }
        Ok(())
    }

    pub(super) fn set_writer(&mut self, writes: bool) {
        if let Some(Mind::Hub(core)) = &mut self.mind {
            core.set_writer(writes);
        }
    }

    /// What it has now is on its disk. One that is dead writes nothing: what it had wanted last is not what its disk has.
    pub(super) fn flush(&mut self) {
        if self.mind.is_none() {
            return;
        }
        if !self.place.is_hub() {
            for origin in 0..CLUSTERS {
                let id = item::id(origin);
                let store = self.mind.as_ref().and_then(|mind| mind.store(id));
                match store {
                    Some(store) => {
                        let (version, complete) = (store.version(), store.is_complete());
                        let records = store.records().collect();
                        self.disk.set(
                            id,
                            KeptOrigin {
                                version,
                                complete,
                                records,
                            },
                        );
                    }
                    None => self.disk.forget(id),
                }
            }
        }
        self.disk.flush(&self.subscribed);
    }

    /// Decides what it will have kept.
    pub(super) fn keep(&mut self, keeps: Keeps) {
        match keeps {
            Keeps::All => self.flush(),
            Keeps::Flushed => self.disk.crash(),
            Keeps::Nothing => self.disk.clear(),
        }
    }

    pub(super) fn die(&mut self) {
        self.mind = None;
        self.sessions.clear();
        self.timer = None;
        for dial in &mut self.dials {
            dial.session = None;
            dial.dialing = false;
        }
    }

    /// Takes what its source said since.
    pub(super) fn follow(&mut self, source: &Source) {
        let Some(Mind::Hub(core)) = &mut self.mind else {
            return;
        };
        for logged in source.steps().get(self.followed..).unwrap_or_default() {
            core.write(logged.frame.clone());
        }
        self.followed = source.steps().len();
    }

    /// Another replica of the hub heard this.
    pub(super) fn hear(&mut self, claim: Claim, now: Moment) {
        let now = self.clock.read(now);
        if let Some(Mind::Hub(core)) = &mut self.mind {
            core.heard(claim, now);
        }
    }

    /// Somebody subscribes here.
    pub(super) fn serve(
        &mut self,
        session: SessionId,
        subscriber: Place,
    ) -> Result<(), &'static str> {
        let Some(Mind::Hub(core)) = &mut self.mind else {
            return Ok(());
        };
        self.sessions.insert(session, None);
        let accepted = core.accepted(session, peer_id(subscriber));
        accepted.map_err(|unwelcome| unwelcome.name())
    }

    /// Subscribes at whom it dialed.
    pub(super) fn subscribe(
        &mut self,
        session: SessionId,
        slot: usize,
        publisher: Place,
        now: Moment,
    ) {
        self.sessions.insert(session, Some(slot));
        self.dials[slot].session = Some(session);
        self.subscribed = self.wanted.clone();
        let now = self.clock.read(now);
        match &mut self.mind {
            Some(Mind::Hub(core)) => {
                let cluster = item::id(publisher.cluster);
                core.dialed(session, cluster, peer_id(publisher), now);
            }
            Some(Mind::Agent(replica, _)) => {
                replica.subscribe(session, Wanted::All, self.wanted.clone(), now);
            }
            None => {}
        }
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
        if let Some(Mind::Agent(replica, _)) = &mut self.mind {
            self.subscribed = wanted.clone();
            replica.set_filter(session, wanted, now);
        }
    }

    /// A session is over. Returns whom to dial again.
    pub(super) fn close(&mut self, session: SessionId) -> Option<usize> {
        let slot = self.sessions.remove(&session)?;
        if let Some(mind) = &mut self.mind {
            mind.close(session);
        }
        let slot = slot?;
        self.dials[slot].session = None;
        Some(slot)
    }

    pub(super) fn set_writable(&mut self, session: SessionId, stream: Stream, writable: bool) {
        if let Some(mind) = &mut self.mind
            && self.sessions.contains_key(&session)
        {
            mind.set_writable(session, stream, writable);
        }
    }

    pub(super) fn handle_message(
        &mut self,
        session: SessionId,
        stream: Stream,
        bytes: Bytes,
        now: Moment,
    ) {
        let now = self.clock.read(now);
        if let Some(mind) = &mut self.mind {
            mind.handle_message(session, stream, bytes, now);
        }
    }

    /// How often a comparison had to put right what changes should have told.
    pub(super) fn repairs(&self) -> u64 {
        let stats = self.mind.as_ref().map(Mind::stats);
        stats.map_or(0, |stats| stats.mismatches + stats.delta_gap)
    }

    pub(super) fn handle_timeout(&mut self, now: Moment) {
        let now = self.clock.read(now);
        if let Some(mind) = &mut self.mind {
            mind.handle_timeout(now);
        }
    }

    /// When its timer has to ring, if that is not planned yet.
    pub(super) fn arm(&mut self, now: Moment) -> Option<Moment> {
        let at = self.mind.as_ref()?.poll_timeout();
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
        loop {
            let Some(mind) = &mut self.mind else {
                return Ok(None);
            };
            match mind.poll_told() {
                Some(Told::Close(session, reason)) => {
                    return Ok(Some(Said::Close(session, reason)));
                }
                Some(Told::Bump(to)) => return Ok(Some(Said::Bump(to))),
                Some(Told::Ahead(claims)) => return Ok(Some(Said::Ahead(claims))),
                Some(told) => self.take(told, sources)?,
                None => break,
            }
        }
        let read = self.clock.read(now);
        let transmit = self.mind.as_mut().and_then(|mind| mind.poll_transmit(read));
        Ok(transmit.map(Said::Transmit))
    }

    fn take(&mut self, told: Told, sources: &[Source]) -> Result<(), Violation> {
        match told {
            Told::Record(id, key, value) => self.record(id, key, value, sources),
            Told::Init(id) => {
                self.watches[item::cluster_of(id)].init();
                Ok(())
            }
            Told::InitRecord(id, key, value) => {
                self.wants_it(id, &key)?;
                self.watches[item::cluster_of(id)].init_apply(key, value);
                Ok(())
            }
            Told::InitDone(id) => {
                let (watch, view) = self.look_at(id, sources);
                watch.init_done(view)
            }
            Told::Keep(keep) => {
                for (key, record) in &keep.changes {
                    let value = record.as_ref().map(|(_, value)| value);
                    // A hub tells what is, not each step.
                    if self.watches[item::cluster_of(keep.origin)].value(key) != value {
                        let value = value.cloned();
                        self.record(keep.origin, key.clone(), value, sources)?;
                    }
                }
                self.disk.note(keep);
                Ok(())
            }
            Told::Forget(id) => {
                self.watches[item::cluster_of(id)].forget();
                self.disk.forget(id);
                Ok(())
            }
            Told::Refused(key, reason) => {
                let origin = self.place.cluster;
                let quota = reason.starts_with("quota_");
                if !quota && sources[origin].is_granted(&key) {
                    let reason = format!("{reason}: {key}");
                    return Err(Violation::HonestRefused { origin, reason });
                }
                Ok(())
            }
            Told::Close(..) | Told::Bump(_) | Told::Ahead(_) => Ok(()),
        }
    }

    fn record(
        &mut self,
        id: ClusterId,
        key: Key,
        value: Option<Bytes>,
        sources: &[Source],
    ) -> Result<(), Violation> {
        let wanted = self.wanted.covers(&key);
        if value.is_some() {
            self.wants_it(id, &key)?;
        }
        let (watch, view) = self.look_at(id, sources);
        match value {
            Some(value) => watch.apply(view, key, value),
            None if wanted => watch.delete(view, key),
            None => watch.unwanted(view.origin, &key),
        }
    }

    fn wants_it(&self, id: ClusterId, key: &Key) -> Result<(), Violation> {
        if self.wanted.covers(key) {
            return Ok(());
        }
        let (origin, key) = (item::cluster_of(id), key.clone());
        Err(Violation::NotAskedFor { origin, key })
    }

    fn look_at<'a>(&mut self, id: ClusterId, sources: &'a [Source]) -> (&mut Watch, View<'a>) {
        let origin = item::cluster_of(id);
        let incarnation = self.store(id).map(|store| store.version().incarnation);
        let view = View {
            source: &sources[origin],
            origin,
            own: origin == self.place.cluster,
            incarnation: incarnation.unwrap_or_default(),
        };
        (&mut self.watches[origin], view)
    }
}

fn peer_id(place: Place) -> PeerId {
    let cluster = item::name(place.cluster);
    if place.is_hub() {
        PeerId::hub(cluster, format!("hub-{}", place.number()))
    } else {
        PeerId::node(cluster, format!("node-{}", place.number()))
    }
}
