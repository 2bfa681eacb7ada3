//! Reads the source and the journal; and, for as long as it holds the lock of the state directory, writes.
//!
//! A thread of its own: it waits for disks. What it reports is on the disk.

use super::bump::Claim;
use super::derive::{Rules, unfit};
use super::journal::{End, Frame, Live};
use super::manifest::Catalog;
use super::manifest::document::Ground;
use super::members::Members;
use super::tokens::seconds;
use super::writer::Writer;
use crate::config::hub_yaml::HubConfig;
use crate::io::ca_store::OwnCa;
use crate::io::folder::Folder;
use crate::io::folder_watch::FolderWatch;
use crate::io::followed_folder::FollowedFolder;
use crate::io::journal_file::JournalFile;
use crate::io::lock::{self, Lock};
use crate::io::numbers::NumberFiles;
use crate::io::revoked_folder::RevokedFolder;
use crate::io::token_store::TokenStore;
use crate::record::{Incarnation, Key, Kind, LaneRecord, Version};
use crate::revocation::Signed;
use crate::trust::Authorities;
use heard::Heard;
use lanes::Announced;
use peers::Peers;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc::UnboundedSender;

mod affairs;
mod authorities;
mod heard;
mod lanes;
mod order;
mod peers;
mod revoked;
mod source;
mod watch;

pub use order::{JournalFault, ScribeError};
pub(super) use order::{Order, Report};

/// How long the source must be quiet before it is looked at: files are often written in several steps.
const SETTLE: Duration = Duration::from_millis(50);
/// How long it may be unquiet before it is looked at all the same.
const UNQUIET: Duration = Duration::from_millis(500);
/// How often everything is looked at although nothing was heard: not every file system tells of changes.
const RESCAN: Duration = Duration::from_secs(2);

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
    /// Who is cut off.
    revoked: RevokedFolder,
    /// It signs what this cluster decides.
    own_ca: Option<Arc<OwnCa>>,
    /// What became of the CAs of other clusters.
    followed: FollowedFolder,
    members: Members,
    /// Lists that could not be kept yet.
    unkept_lists: Vec<Signed>,
    /// CAs of members that could not be kept yet.
    unkept_authorities: BTreeMap<String, Authorities>,
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
    /// no other replica of the hub has. Without an own CA others are not told who is cut off.
    pub(super) fn open(
        config: Arc<HubConfig>,
        own_ca: Option<Arc<OwnCa>>,
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
            revoked: RevokedFolder::open(state)?,
            own_ca,
            followed: FollowedFolder::open(state)?,
            catalog: Catalog::new(ground),
            members: Members::new(config.cluster.id, config.cluster.name.clone()),
            unkept_lists: Vec::new(),
            unkept_authorities: BTreeMap::new(),
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

    /// Works until it is told to stop.
    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        if let Err(error) = self.work(orders) {
            let _ = self.reports.send(Report::Failed(error));
        }
    }

    fn work(&mut self, orders: &Receiver<Order>) -> Result<(), ScribeError> {
        self.follow()?;
        self.take_standing();
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
                Ok(Order::Revoked) => self.look_at_revoked(),
                Ok(Order::Revocations(signed)) => self.hear_revocations(&signed),
                Ok(Order::Ca) => self.look_at_ca(),
                Ok(Order::Followed) => self.look_at_followed(),
                Ok(Order::Authorities(name, said)) => self.hear_authorities(&name, &said),
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
                        self.look_at_revoked();
                        self.look_at_ca();
                        self.look_at_followed();
                        for signed in std::mem::take(&mut self.unkept_lists) {
                            self.hear_revocations(&signed);
                        }
                        for (name, said) in std::mem::take(&mut self.unkept_authorities) {
                            self.hear_authorities(&name, &said);
                        }
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
            writer.apply(key, self.counting(key, Some(object)));
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
        // Who wrote before may have ended in the middle of a roll.
        self.clear_ca()?;
        self.sign_again();
        self.publish_revocations();
        self.publish_authorities();
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
        // A source that is away at the start must not be taken for an empty one. Clusters join and are revoked without any.
        let of_source = |key: &Key| {
            let kinds = [Kind::Cluster, Kind::Revocations, Kind::Authorities];
            !key.kind().is_some_and(|kind| kinds.contains(&kind))
        };
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
