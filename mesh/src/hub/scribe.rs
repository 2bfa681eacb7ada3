//! Reads the source and the journal; and, for as long as it holds the lock of the state directory, writes.
//!
//! A thread of its own: it waits for disks. What it reports is on the disk.

use super::bump::Claim;
use super::derive::{Rules, unfit};
use super::joining::Affair;
use super::journal::{End, Frame, Live};
use super::manifest::document::Ground;
use super::manifest::{Catalog, Content, News, Object, ObjectKey, ObjectKind};
use super::members::{MemberChange, Members};
use super::tokens::seconds;
use super::writer::Writer;
use crate::config::hub_yaml::HubConfig;
use crate::io::folder::{Folder, MANIFESTS};
use crate::io::folder_watch::FolderWatch;
use crate::io::journal_file::{JournalError, JournalFile};
use crate::io::lock::{self, Lock};
use crate::io::numbers::NumberFiles;
use crate::io::token_store::{TokenStore, TokenStoreError};
use crate::record::{Incarnation, Key, Kind, LaneRecord, Record, Version};
use crate::wire::decode_record;
use heard::Heard;
use lanes::Announced;
use peers::Peers;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc::UnboundedSender;

mod affairs;
mod heard;
mod lanes;
mod peers;

/// How long the source must be quiet before it is looked at: files are often written in several steps.
const SETTLE: Duration = Duration::from_millis(50);
/// How long it may be unquiet before it is looked at all the same.
const UNQUIET: Duration = Duration::from_millis(500);
/// How often everything is looked at although nothing was heard: not every file system tells of changes.
const RESCAN: Duration = Duration::from_secs(2);

/// What the scribe is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Something changed in the source.
    Source,
    /// Something changed in the journal.
    Journal,
    /// Some node's lanes were written.
    Announced,
    /// Some replica wrote what it heard of newer states.
    Heard,
    /// Some replica wrote of a member that joined or left.
    Peers,
    /// Something about members is asked or to be done.
    Affair(Affair),
    /// Nobody else writes any more.
    Locked(Lock),
    /// The lock cannot be had.
    Unlockable(io::Error),
    /// An agent told its node's lanes.
    Lanes(String, Vec<LaneRecord>),
    /// Subscribers told this replica, which does not write, of newer states.
    Ahead(Vec<Claim>),
    /// Begin another incarnation.
    Bump(Incarnation),
    /// End.
    Stop,
}

/// What the scribe tells.
#[derive(Debug)]
pub(super) enum Report {
    /// The own cluster's state, once.
    Own(Live),
    /// The next change of it.
    Frame(Frame),
    /// A member came, changed or left.
    Member(MemberChange),
    /// Another replica heard this.
    Heard(Claim),
    /// This replica writes from now on.
    Writes,
    /// How many objects there are, and what is wrong with others: a line each.
    Source(usize, Vec<String>),
    /// It cannot go on.
    Failed(ScribeError),
}

/// Why a scribe cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ScribeError {
    /// The journal is of no use.
    #[error(transparent)]
    Journal(#[from] JournalFault),
    /// The state directory is of no use.
    #[error("failed to use the state directory")]
    State(#[from] io::Error),
    /// Tokens cannot be kept in it.
    #[error(transparent)]
    Tokens(#[from] TokenStoreError),
}

/// What is wrong with the journal.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct JournalFault(JournalError);

impl From<JournalError> for ScribeError {
    fn from(error: JournalError) -> Self {
        Self::Journal(JournalFault(error))
    }
}

/// The thread's state.
pub(super) struct Scribe {
    config: Arc<HubConfig>,
    source: Folder,
    accepted: Folder,
    announced: Announced,
    heard: Heard,
    journal: JournalFile,
    live: Live,
    end: End,
    told_own: bool,
    catalog: Catalog,
    /// Those that joined by invitation.
    peers: Peers,
    tokens: TokenStore,
    members: Members,
    /// Contents that are to be kept for the next start.
    unkept: BTreeMap<String, Option<String>>,
    writing: Option<Writing>,
    reports: UnboundedSender<Report>,
    source_missing: bool,
    _watch: Option<FolderWatch>,
}

struct Writing {
    writer: Writer,
    numbers: NumberFiles,
    dirty: bool,
    _lock: Lock,
}

impl Scribe {
    /// Opens the state directory, and begins to watch it and the source, and to wait for the lock. `replica`: a name that
    /// no other replica of the hub has.
    pub(super) fn open(
        config: Arc<HubConfig>,
        replica: &str,
        orders: &Sender<Order>,
        reports: UnboundedSender<Report>,
    ) -> Result<Self, ScribeError> {
        let state = &config.state_directory;
        let accepted = Folder::make(&state.join("accepted"))?;
        let announced = Announced::open(&state.join("announced"))?;
        let heard = Heard::open(&state.join("ahead"), replica)?;
        let ground = Ground {
            cluster: config.cluster.id,
            name: config.cluster.name.clone(),
            pod_cidrs: config.cluster.prefixes.clone(),
            service_cidrs: config.service_cidrs.clone(),
        };
        let mut scribe = Self {
            source: Folder::new(&config.source),
            accepted,
            announced,
            heard,
            journal: JournalFile::new(&state.join("journal")),
            live: Live::default(),
            end: End::Clean,
            told_own: false,
            peers: Peers::open(&state.join("peers"), ground.clone())?,
            tokens: TokenStore::open(state)?,
            catalog: Catalog::new(ground),
            members: Members::new(config.cluster.id, config.cluster.name.clone()),
            unkept: BTreeMap::new(),
            writing: None,
            reports,
            source_missing: false,
            _watch: None,
            config,
        };
        scribe.watch(orders.clone());
        let path = scribe.config.state_directory.join("lock");
        let orders = orders.clone();
        std::thread::Builder::new()
            .name("hub-lock".to_owned())
            .spawn(move || {
                let order = match lock::wait(&path) {
                    Ok(lock) => Order::Locked(lock),
                    Err(error) => Order::Unlockable(error),
                };
                // The hub ended before it wrote.
                let _ = orders.send(order);
            })?;
        Ok(scribe)
    }

    fn watch(&mut self, orders: Sender<Order>) {
        let (source, state) = (self.source.path().to_owned(), &self.config.state_directory);
        let (journal, announced) = (state.join("journal"), state.join("announced"));
        let (ahead, peers) = (state.join("ahead"), state.join("peers"));
        let folders = [
            source.clone(),
            announced.clone(),
            ahead.clone(),
            peers.clone(),
            state.clone(),
        ];
        let heard = move |paths: &[std::path::PathBuf]| {
            let under = |folder: &Path| {
                paths.is_empty() || paths.iter().any(|path| path.starts_with(folder))
            };
            let orders = [
                (under(&source), Order::Source),
                (under(&journal), Order::Journal),
                (under(&announced), Order::Announced),
                (under(&ahead), Order::Heard),
                (under(&peers), Order::Peers),
            ]
            .map(|(heard, order)| heard.then(|| orders.send(order)));
            // The hub has ended.
            drop(orders);
        };
        match FolderWatch::new(heard) {
            Ok(mut watch) => {
                for folder in folders {
                    if let Err(error) = watch.add(&folder) {
                        tracing::warn!(folder = %folder.display(), %error, "changes are not told; looking every 2 s");
                    }
                }
                self._watch = Some(watch);
            }
            Err(error) => tracing::warn!(%error, "changes are not told; looking every 2 s"),
        }
    }

    /// Works until it is told to stop.
    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        if let Err(error) = self.work(orders) {
            let _ = self.reports.send(Report::Failed(error));
        }
    }

    fn work(&mut self, orders: &Receiver<Order>) -> Result<(), ScribeError> {
        self.follow()?;
        self.recall()?;
        self.look();
        self.tell_own();
        let mut quiet_at: Option<(Instant, Instant)> = None;
        let mut rescan = Instant::now() + RESCAN;
        loop {
            let quiet = quiet_at.map(|(quiet, latest)| quiet.min(latest));
            let due = [quiet, self.catalog.poll_timeout(), Some(rescan)];
            let due = due.into_iter().flatten().min().unwrap_or(rescan);
            let wait = due.saturating_duration_since(Instant::now());
            match orders.recv_timeout(wait) {
                Ok(Order::Source) => {
                    let now = Instant::now();
                    let latest = quiet_at.map_or(now + UNQUIET, |(_, latest)| latest);
                    quiet_at = Some((now + SETTLE, latest));
                }
                Ok(Order::Journal) => {
                    if self.writing.is_none() {
                        self.follow()?;
                        self.tell_own();
                    }
                }
                Ok(Order::Announced) => self.hear_lanes(),
                Ok(Order::Heard) => self.hear_others(),
                Ok(Order::Peers) => self.look_at_peers(),
                Ok(Order::Affair(affair)) => self.settle_affair(affair),
                Ok(Order::Locked(lock)) => self.begin(lock)?,
                Ok(Order::Unlockable(error)) => return Err(error.into()),
                Ok(Order::Lanes(node, lanes)) => self.keep_lanes(&node, lanes),
                Ok(Order::Ahead(claims)) => self.tell_others(&claims),
                Ok(Order::Bump(to)) => self.bump(to)?,
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {
                    let now = Instant::now();
                    if now >= rescan {
                        rescan = now + RESCAN;
                        self.hear_lanes();
                        self.hear_others();
                        self.look_at_peers();
                        if self.writing.is_none() {
                            self.follow()?;
                            self.tell_own();
                        }
                    }
                    // Not in the middle of somebody's writing.
                    if quiet.is_none_or(|quiet| now >= quiet) {
                        quiet_at = None;
                        self.look();
                    }
                }
            }
            self.settle()?;
        }
    }

    /// Reads along in the journal.
    fn follow(&mut self) -> Result<(), ScribeError> {
        let (frames, end) = self.journal.read(&mut self.live)?;
        if end == End::Corrupt && self.end != End::Corrupt {
            tracing::error!("the journal is damaged; what follows the damage is lost");
        }
        self.end = end;
        if self.told_own {
            for frame in frames {
                self.report(Report::Frame(frame));
            }
        }
        Ok(())
    }

    fn tell_own(&mut self) {
        if !self.told_own && self.live.version != Version::NONE {
            self.told_own = true;
            self.report(Report::Own(self.live.clone()));
        }
    }

    /// Takes what stood when the process before ended. Who held an ID then, holds it now.
    fn recall(&mut self) -> Result<(), ScribeError> {
        let look = self.accepted.look(MANIFESTS)?;
        let texts = look
            .files
            .into_iter()
            .filter_map(|(name, content)| match content {
                Content::Text(text) => Some((name, text)),
                Content::Unchanged | Content::Unreadable(_) => None,
            });
        let mut changes = self.catalog.load(texts.collect());
        for name in self.peers.look()? {
            let key = peer_key(&name);
            if self.catalog.get(&key).is_none() {
                changes.push((key, None));
            }
        }
        let holders = self.holders();
        changes.sort_by_key(|(key, _)| !holders.contains(&key.name));
        self.apply(changes);
        Ok(())
    }

    fn holders(&self) -> BTreeSet<String> {
        let members = self.live.records.iter();
        let members = members.filter(|(key, _)| key.kind() == Some(Kind::Cluster));
        let names = members.filter_map(|(key, (_, value))| {
            let Ok(Record::Cluster(cluster)) = decode_record(key, value) else {
                return None;
            };
            Some(cluster.name)
        });
        names.collect()
    }

    fn look(&mut self) {
        let look = match self.source.look(MANIFESTS) {
            Ok(look) => {
                self.source_missing = false;
                look
            }
            Err(error) => {
                if !self.source_missing {
                    let folder = self.source.path().display();
                    tracing::warn!(%folder, %error, "source_unreadable: what stood before, stands");
                }
                self.source_missing = true;
                return;
            }
        };
        let News {
            changes,
            complaints,
            accepted,
        } = self.catalog.handle_look(look, Instant::now());
        for complaint in &complaints {
            tracing::warn!(%complaint, "manifest refused");
        }
        let silent = changes.is_empty() && complaints.is_empty() && accepted.is_empty();
        self.unkept.extend(accepted);
        self.apply(changes);
        if !silent {
            self.report_source();
        }
    }

    fn report_source(&self) {
        let complaints = self.catalog.complaints().map(ToString::to_string);
        let refused = self.members.refused().map(|(name, why)| {
            let key = peer_key(name);
            match self.catalog.place(&key) {
                Some(place) => format!("{}: line {}: {why}", place.file, place.line),
                None => format!("{key}: {why}"),
            }
        });
        let crowded = self
            .writing
            .iter()
            .flat_map(|writing| writing.writer.crowded());
        let crowded = crowded.map(|node| {
            format!(
                "Node {node}: spec.podCIDRs: overlaps a prefix of another node; give each its own"
            )
        });
        let joined = self.peers.complaints(|name| self.declares(name));
        let writing = self.writing.iter();
        let unfit = writing.flat_map(|writing| writing.writer.complaints());
        let lines = complaints.chain(joined).chain(refused).chain(crowded);
        let lines = lines.chain(unfit::lines(unfit)).collect();
        self.report(Report::Source(self.catalog.len(), lines));
    }

    fn apply(&mut self, changes: Vec<(ObjectKey, Option<Arc<Object>>)>) {
        for (key, object) in changes {
            if key.kind == ObjectKind::ClusterPeer {
                self.set_member(&key.name);
            } else if let Some(writing) = &mut self.writing {
                writing.writer.apply(&key, object.as_deref());
                writing.dirty = true;
            }
        }
    }

    /// Takes a member as the source says, else as it joined.
    fn set_member(&mut self, name: &str) {
        let declared = self.catalog.get(&peer_key(name));
        let declared = declared.and_then(|object| object.as_cluster_peer());
        let peer = declared.map(|peer| Arc::new(peer.clone()));
        let peer = peer.or_else(|| self.peers.get(name).cloned());
        let before: BTreeSet<String> = self.refused_names();
        for change in self.members.set(name, peer) {
            if let Some(writing) = &mut self.writing {
                let peer = change.peer.as_deref();
                writing.writer.set_member(change.id, &change.name, peer);
                writing.dirty = true;
            }
            self.report(Report::Member(change));
        }
        for (name, why) in self.members.refused() {
            if !before.contains(name) {
                tracing::warn!(cluster = name, why, "ClusterPeer refused");
            }
        }
    }

    /// Whether the source has a `ClusterPeer` of that name.
    fn declares(&self, name: &str) -> bool {
        self.catalog.get(&peer_key(name)).is_some()
    }

    fn refused_names(&self) -> BTreeSet<String> {
        self.members
            .refused()
            .map(|(name, _)| name.to_owned())
            .collect()
    }

    /// Nobody else writes any more: goes on where that one ended.
    fn begin(&mut self, lock: Lock) -> Result<(), ScribeError> {
        self.follow()?;
        let damaged = self.end == End::Corrupt;
        self.journal.begin(&self.live, self.end)?;
        self.end = End::Clean;
        self.tell_own();
        self.heard.begin()?;
        let numbers = NumberFiles::open(&self.config.state_directory)?;
        let rules = Rules {
            cluster: self.config.cluster.clone(),
            excluded_labels: self.config.excluded_labels.clone(),
            protected: self.config.protected.clone(),
        };
        let all = numbers.load()?;
        let mut writer = Writer::new(
            rules,
            self.live.clone(),
            all,
            self.config.rest,
            seconds(SystemTime::now()),
        );
        for (key, object) in self.catalog.objects() {
            writer.apply(key, Some(object));
        }
        for (name, peer) in self.members.accepted() {
            writer.set_member(peer.id, name, Some(peer));
        }
        self.writing = Some(Writing {
            writer,
            numbers,
            dirty: true,
            _lock: lock,
        });
        self.hear_lanes();
        tracing::info!(version = %self.live.version, "this replica writes");
        self.report(Report::Writes);
        if damaged {
            // Others may have more of this incarnation than is left here.
            self.bump(Incarnation(self.live.version.incarnation.0 + 1))?;
        }
        Ok(())
    }

    /// Writes what changed.
    fn settle(&mut self) -> Result<(), ScribeError> {
        let Some(writing) = &mut self.writing else {
            return Ok(());
        };
        // A source that is away at the start must not be taken for an empty one. Clusters join without any.
        let of_source = |key: &Key| key.kind() != Some(Kind::Cluster);
        let unknown = self.catalog.is_empty() && self.live.records.keys().any(of_source);
        if !writing.dirty || unknown {
            return Ok(());
        }
        let frame = match writing
            .writer
            .settle(&mut writing.numbers, seconds(SystemTime::now()))
        {
            Ok(frame) => frame,
            Err(error) => {
                tracing::error!(%error, "numbers cannot be kept; trying again");
                return Ok(());
            }
        };
        writing.dirty = false;
        for (kind, count) in writing.writer.exhausted() {
            tracing::error!(?kind, count, "numbers_exhausted");
        }
        let (news, changed) = writing.writer.take_news();
        for complaint in news.iter().take(unfit::LOGGED) {
            tracing::warn!(reason = complaint.why.name(), %complaint, "not exported");
        }
        if let Some(frame) = frame {
            self.append(frame)?;
        }
        if changed {
            self.report_source();
        }
        for (name, text) in std::mem::take(&mut self.unkept) {
            let kept = match &text {
                Some(text) => self.accepted.put(&name, text),
                None => self.accepted.remove(&name),
            };
            if let Err(error) = kept {
                tracing::warn!(file = name, %error, "a manifest is not kept for the next start");
            }
        }
        Ok(())
    }

    fn append(&mut self, frame: Frame) -> Result<(), ScribeError> {
        self.journal.append(&frame)?;
        self.live.apply(&frame);
        if self.told_own {
            self.report(Report::Frame(frame));
        }
        self.tell_own();
        self.journal.compact(&self.live)?;
        Ok(())
    }

    fn bump(&mut self, to: Incarnation) -> Result<(), ScribeError> {
        if let Some(writing) = &mut self.writing
            && let Some(frame) = writing.writer.bump(to)
        {
            tracing::warn!(version = %frame.version, "others had newer states than the source: another incarnation");
            self.append(frame)?;
        }
        Ok(())
    }

    /// Lanes that an agent told this replica: written where the one that writes finds them.
    fn keep_lanes(&mut self, node: &str, lanes: Vec<LaneRecord>) {
        match self.announced.put(node, &lanes) {
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => tracing::error!(node, %error, "a node's lanes cannot be kept"),
        }
        if let Some(writing) = &mut self.writing {
            writing.writer.set_lanes(node, lanes);
            writing.dirty = true;
        }
    }

    fn hear_lanes(&mut self) {
        let Some(writing) = &mut self.writing else {
            return;
        };
        match self.announced.look() {
            Ok(news) => {
                for (node, lanes) in news {
                    writing.writer.set_lanes(&node, lanes);
                    writing.dirty = true;
                }
            }
            Err(error) => tracing::warn!(%error, "lanes of nodes cannot be read"),
        }
    }

    /// Of newer states: written where the replica that writes finds it.
    fn tell_others(&self, claims: &[Claim]) {
        // Who writes by now, hears it again from the subscribers.
        if self.writing.is_none()
            && let Err(error) = self.heard.put(claims)
        {
            tracing::warn!(%error, "who writes cannot be told of newer states");
        }
    }

    fn hear_others(&mut self) {
        if self.writing.is_none() {
            return;
        }
        match self.heard.look() {
            Ok(claims) => {
                for claim in claims {
                    self.report(Report::Heard(claim));
                }
            }
            Err(error) => tracing::warn!(%error, "what other replicas heard cannot be read"),
        }
    }

    fn report(&self, report: Report) {
        // The hub ends; so shall we, with the next order.
        let _ = self.reports.send(report);
    }
}

fn peer_key(name: &str) -> ObjectKey {
    ObjectKey {
        kind: ObjectKind::ClusterPeer,
        namespace: String::new(),
        name: name.to_owned(),
    }
}
