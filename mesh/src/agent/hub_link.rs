//! The agent's end of the talk with its hub: a thread of its own that dials, follows, keeps, and answers the agent's
//! socket. The node is told only what makes a state.
//!
//! It decides nothing: [`super::follower`] does. It has a thread because a state of thousands of peers keeps the node's
//! loop busy for longer than a connection may be silent.

mod dialing;
mod enrolling;
mod session;
mod watchers;

use super::follower::{Event, Follower};
use super::keys::{Proof, Report};
use super::node::Records;
use crate::agent_socket::{HubStatus, KeptStatus, NodeStatus, OriginReport, StatusReply};
use crate::config::{HubConfig, HubFault, NodeConfig};
use crate::io::agent_socket::{Asked, Listening};
use crate::io::kept::Kept;
use crate::io::quic::Tls;
use crate::kept::{KeptError, Loaded};
use crate::record::{Key, LaneRecord, Record};
use crate::trust::{Credentials, Trust, Untrusted};
use crate::wire::decode_record;
use dialing::Dialing;
use enrolling::{Enrolling, News};
use hawser_tunnel::node::ClusterId;
use session::Session;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use watchers::Watchers;

/// The file in the state directory.
const KEPT: &str = "kept.redb";
/// News of the mesh are handed over together, this long after the first.
const SETTLE: Duration = Duration::from_millis(10);
/// Of the time at most one part in so many is spent in handing them over.
const SHARE: u32 = 10;
/// Orders come one at a time, and seldom.
const ORDERS: usize = 16;

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubLinkError {
    /// A certificate or key.
    #[error(transparent)]
    Files(#[from] Box<HubFault>),
    /// What was heard before cannot be read, and what will be heard not be kept.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// The system refused.
    #[error("failed to {what}")]
    System {
        /// What was to be done.
        what: &'static str,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
}

/// What the node tells the link.
#[derive(Debug)]
enum Order {
    /// The own lanes changed.
    Announce(Vec<LaneRecord>),
    /// The file changed.
    Configure(Box<NodeConfig>),
    /// What the node thinks, for who asks.
    Report(NodeStatus),
}

/// The node's end.
#[derive(Debug)]
pub(super) struct HubLink {
    orders: mpsc::Sender<Order>,
    records: watch::Receiver<Records>,
    proof: watch::Receiver<Proof>,
    connected: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl HubLink {
    /// Reads what was kept and begins to dial. What was kept is there at once: [`Self::records`].
    pub(super) fn open(
        config: &NodeConfig,
        hub: &HubConfig,
        report: Arc<Report>,
    ) -> Result<Self, HubLinkError> {
        let system = |what| move |source| HubLinkError::System { what, source };
        let brought = hub.read_files(&config.cluster, &config.name)?;
        let stored = match &brought {
            Some(_) => None,
            None => Enrolling::stored(config, hub),
        };
        let (kept, loaded) = Kept::open(&hub.state_directory.join(KEPT))?;
        let mut follower = Follower::new(&config.cluster, &config.name, hub.endpoints);
        tell_loaded(&loaded);
        follower.load(loaded);
        let (records, heard) = watch::channel(Arc::new(follower.records()));
        let (orders, ordered) = mpsc::channel(ORDERS);
        let listener = Listening::bind(&config.agent_socket());
        let listener = listener.map_err(system("listen on the agent's socket"))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(system("start the link to the hub"))?;
        let proof = brought.or_else(|| {
            let stored = stored.as_ref()?;
            Some((stored.credentials.clone(), stored.trust.clone()))
        });
        let (tell_proof, proven) = watch::channel(proof.clone());
        let tls = proof.map(|(credentials, trust)| Tls::new(credentials, trust));
        let (config, hub) = (config.clone(), hub.clone());
        let connected = Arc::new(AtomicBool::new(false));
        let tell_connected = Arc::clone(&connected);
        let thread = std::thread::Builder::new()
            .name("hawser-hub".to_owned())
            .spawn(move || {
                let serve = async move {
                    let dial =
                        |tls: &Arc<Tls>| Dialing::start(&config.cluster, &hub, Arc::clone(tls));
                    let dialing = tls.as_ref().map(dial);
                    let enrolling = Enrolling::start(&config, &hub, stored);
                    let link = Link {
                        config,
                        hub,
                        follower,
                        kept,
                        tls,
                        proof: tell_proof,
                        report,
                        dialing,
                        enrolling,
                        unenrolled: None,
                        session: None,
                        connected: tell_connected,
                        sessions: 0,
                        records,
                        mesh_due: None,
                        mesh_told: (Duration::ZERO, Instant::now()),
                        watchers: Watchers::default(),
                        node: NodeStatus::default(),
                        since: Instant::now(),
                        silent_told: false,
                    };
                    link.serve(ordered, listener).await;
                };
                runtime.block_on(serve);
            })
            .map_err(system("start the link to the hub"))?;
        Ok(Self {
            orders,
            records: heard,
            proof: proven,
            connected,
            thread,
        })
    }

    /// By what this node proves who it is, now and from now on.
    pub(super) fn proof(&self) -> watch::Receiver<Proof> {
        self.proof.clone()
    }

    /// Whether a hub is there.
    pub(super) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// The records that make a state, as they are now.
    pub(super) fn records(&mut self) -> Records {
        Arc::clone(&self.records.borrow_and_update())
    }

    /// Waits until they are others.
    pub(super) async fn changed(&mut self) -> Records {
        if self.records.changed().await.is_err() {
            // The thread has ended, with a panic that was told. The node goes on with what it knows.
            std::future::pending::<()>().await;
        }
        self.records()
    }

    pub(super) async fn announce(&self, lanes: Vec<LaneRecord>) {
        let _ = self.orders.send(Order::Announce(lanes)).await;
    }

    pub(super) async fn configure(&self, config: &NodeConfig) {
        let config = Box::new(config.clone());
        let _ = self.orders.send(Order::Configure(config)).await;
    }

    pub(super) async fn report(&self, node: NodeStatus) {
        let _ = self.orders.send(Order::Report(node)).await;
    }

    /// Ends it, and waits until all that was heard is on disk.
    pub(super) async fn close(self) {
        drop((self.orders, self.records, self.proof));
        let joined = tokio::task::spawn_blocking(move || self.thread.join());
        // A thread that panicked has said so.
        let _ = joined.await;
    }
}

fn tell_loaded(loaded: &Loaded) {
    let origins = loaded.origins.len();
    let records: usize = loaded.origins.values().map(|it| it.records.len()).sum();
    if origins == 0 {
        tracing::info!("nothing was kept; a hub must tell everything");
    } else {
        tracing::info!(origins, records, "begins with what was kept");
    }
}

/// The thread's end.
#[derive(Debug)]
struct Link {
    config: NodeConfig,
    hub: HubConfig,
    follower: Follower,
    kept: Kept,
    /// `None`: this node has no certificate yet.
    tls: Option<Arc<Tls>>,
    /// The same for others.
    proof: watch::Sender<Proof>,
    /// How it stands with pre-shared keys, for who asks.
    report: Arc<Report>,
    dialing: Option<Dialing>,
    enrolling: Option<Enrolling>,
    /// Why there is no certificate, or no newer one.
    unenrolled: Option<String>,
    session: Option<Session>,
    /// Whether there is one, for the node.
    connected: Arc<AtomicBool>,
    /// How many there were; the newest one's number.
    sessions: u64,
    records: watch::Sender<Records>,
    /// When records are handed over.
    mesh_due: Option<Instant>,
    /// How long that took the last time, and when it was done.
    mesh_told: (Duration, Instant),
    watchers: Watchers,
    node: NodeStatus,
    /// When the session began, or the one before ended.
    since: Instant,
    /// That no hub answers was told.
    silent_told: bool,
}

/// How long hubs may be silent before that is told.
const SILENCE: Duration = Duration::from_secs(3);
/// How often the files of certificates and keys are looked at.
const FILES: Duration = Duration::from_secs(2);

impl Link {
    async fn serve(mut self, mut orders: mpsc::Receiver<Order>, mut listener: Listening) {
        let mut files = tokio::time::interval(FILES);
        let mut watched = dialing::Files::new(&self.hub);
        loop {
            self.look_after();
            let due = self.poll_timeout();
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(order) => self.handle_order(order),
                    None => break,
                },
                news = enrolling::next(&mut self.enrolling) => self.handle_enrolled(news),
                connection = Dialing::next_of(&mut self.dialing) => {
                    self.handle_connected(connection);
                }
                heard = session::next(&mut self.session) => self.handle_heard(heard),
                asked = listener.next() => self.handle_asked(asked),
                _ = files.tick() => {
                    if watched.have_changed() {
                        self.read_files();
                    }
                    self.look_at_refusals();
                }
                () = sleep_until(due) => {}
            }
        }
        if let Some(session) = &self.session {
            session.close("agent_stops");
        }
    }

    /// What is due, then what was told, then what is to be sent.
    fn look_after(&mut self) {
        let now = Instant::now();
        self.follower.handle_timeout(now);
        while let Some(event) = self.follower.poll_event() {
            self.handle_event(event, now);
        }
        while let Some(sent) = self.follower.poll_transmit(now) {
            if let Some(session) = self.session.as_mut()
                && let Some(stream) = session.send(sent)
            {
                self.follower.set_writable(session.number, stream, false);
            }
        }
        if self.mesh_due.is_some_and(|due| due <= now) {
            self.mesh_due = None;
            self.records.send_replace(Arc::new(self.follower.records()));
            let done = Instant::now();
            self.mesh_told = (done - now, done);
        }
        if self.session.is_none() && !self.silent_told && now - self.since >= SILENCE {
            self.silent_told = true;
            let failures = self.failures().join("; ");
            tracing::warn!(failures, "no hub answers; what was heard holds");
        }
    }

    /// Why there is no hub: address or name, and what failed.
    fn failures(&self) -> Vec<String> {
        let dialing = self.dialing.as_ref().map(Dialing::failures);
        let mut failures = dialing.unwrap_or_default();
        if let Some(why) = &self.unenrolled {
            failures.push(format!("certificate: {why}"));
        }
        failures
    }

    fn handle_enrolled(&mut self, news: News) {
        match news {
            News::Certified(certified) => {
                tracing::info!("certificate taken");
                self.unenrolled = None;
                self.set_proof(certified.credentials, certified.trust);
                self.look_at_session();
            }
            News::Failed(why) => {
                tracing::warn!(why, "no certificate from the hub; tries again");
                self.unenrolled = Some(why);
            }
        }
    }

    /// Connections from now on are made with these.
    fn set_proof(&mut self, credentials: Credentials, trust: Trust) {
        self.proof
            .send_replace(Some((credentials.clone(), trust.clone())));
        match &self.tls {
            Some(tls) => {
                tls.set_credentials(credentials);
                tls.set_trust(trust);
            }
            None => {
                let tls = Tls::new(credentials, trust);
                let dialing = Dialing::start(&self.config.cluster, &self.hub, Arc::clone(&tls));
                self.dialing = Some(dialing);
                self.tls = Some(tls);
            }
        }
    }

    /// What the own hub says of the cluster's CAs, once they are not those that this node was enrolled with.
    fn look_at_cas(&self, origin: ClusterId) {
        let Some(enrolling) = &self.enrolling else {
            return;
        };
        let key = Key::cluster(origin);
        let prefix = key.as_prefix();
        let store = self.follower.replica().store(origin);
        let record = store.and_then(|store| store.under(&prefix).find(|(_, at, _)| *at == key));
        if let Some((_, _, value)) = record
            && let Ok(Record::Cluster(own)) = decode_record(&key, &value)
            && own.name == self.config.cluster
            && !own.ca.is_empty()
        {
            enrolling.tell_cas(&own.ca);
        }
    }

    /// Whether hubs refuse our certificate for who has signed it.
    fn look_at_refusals(&self) {
        let (None, Some(enrolling), Some(dialing)) =
            (&self.session, &self.enrolling, &self.dialing)
        else {
            return;
        };
        let is_unknown = |why: &String| why.contains(Untrusted::IssuerUnknown.name());
        if dialing.failures().iter().any(is_unknown) {
            enrolling.tell_refused();
        }
    }

    /// The session was made with other certificates than those of now. A CA that made the old ones may go, so another
    /// session is made, and takes the place of this one when it is there.
    fn look_at_session(&mut self) {
        let (Some(session), Some(tls)) = (&self.session, &self.tls) else {
            return;
        };
        if session.is_made_with(&tls.credentials()) {
            return;
        }
        if let Some(dialing) = &self.dialing {
            dialing.go();
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let silence = Some(self.since + SILENCE);
        let silence = silence.filter(|_| self.session.is_none() && !self.silent_told);
        let follower = self.follower.poll_timeout();
        follower
            .into_iter()
            .chain(self.mesh_due)
            .chain(silence)
            .min()
    }

    fn handle_event(&mut self, event: Event, now: Instant) {
        match &event {
            Event::Mesh => {
                let (took, done) = self.mesh_told;
                let due = (now + SETTLE).max(done + took * (SHARE - 1));
                self.mesh_due.get_or_insert(due);
            }
            Event::Apply { origin, key, value } => {
                if *key == Key::cluster(*origin) {
                    self.look_at_cas(*origin);
                }
                self.watchers.apply(*origin, key, value);
            }
            Event::Delete { origin, key } => self.watchers.delete(*origin, key),
            Event::Forgotten { origin } => {
                tracing::info!(%origin, "cluster left");
                self.watchers.forgotten(*origin);
            }
            Event::Synced { origin } => {
                tracing::debug!(%origin, "origin is as the hub has it");
                self.look_at_cas(*origin);
            }
            Event::Keep(_) => {}
        }
        if let Event::Keep(keep) = event {
            keep.note(&self.kept);
        }
    }

    fn handle_connected(&mut self, connection: crate::io::quic::Connection) {
        self.sessions += 1;
        tracing::info!(hub = %connection.peer, address = %connection.address, "hub connected");
        self.follower.connect(self.sessions, Instant::now());
        let made_with = self.tls.as_ref().map(|tls| tls.credentials());
        let session = Session::new(self.sessions, connection, made_with);
        if let Some(old) = self.session.replace(session) {
            old.close("dialed_anew");
        }
        self.connected.store(true, Ordering::Relaxed);
        self.since = Instant::now();
        self.silent_told = false;
    }

    fn handle_heard(&mut self, heard: session::Heard) {
        let Some(session) = &self.session else { return };
        let number = session.number;
        match heard {
            session::Heard::Message(stream, bytes) => {
                let now = Instant::now();
                let done = self.follower.handle_message(number, stream, bytes, now);
                if let Err(reject) = done {
                    session.close(reject.name());
                    self.handle_lost(reject.name());
                }
            }
            session::Heard::Writable(stream) => self.follower.set_writable(number, stream, true),
            session::Heard::Ended(reason) => self.handle_lost(&reason),
        }
    }

    fn handle_lost(&mut self, reason: &str) {
        tracing::warn!(reason, "hub lost; what was heard holds");
        self.follower.disconnect();
        self.session = None;
        self.connected.store(false, Ordering::Relaxed);
        self.since = Instant::now();
        if let Some(dialing) = &self.dialing {
            dialing.go();
        }
    }

    fn handle_order(&mut self, order: Order) {
        match order {
            Order::Announce(lanes) => {
                tracing::info!(lanes = lanes.len(), "tells its lanes");
                self.follower.announce(lanes);
            }
            Order::Report(node) => self.node = node,
            Order::Configure(config) => {
                let Some(hub) = &config.hub else { return };
                if let Some(dialing) = &self.dialing {
                    dialing.set_targets(hub.addresses.clone());
                }
                let enrols_anew =
                    (&hub.identity, &hub.addresses) != (&self.hub.identity, &self.hub.addresses);
                if hub.endpoints != self.hub.endpoints {
                    self.follower.set_endpoints(hub.endpoints, Instant::now());
                }
                self.hub = hub.clone();
                self.config = *config;
                self.read_files();
                if enrols_anew {
                    let stored = Enrolling::stored(&self.config, &self.hub);
                    self.enrolling = Enrolling::start(&self.config, &self.hub, stored);
                }
            }
        }
    }

    /// Certificates are renewed while we run; connections that stand are not touched.
    fn read_files(&mut self) {
        match self.hub.read_files(&self.config.cluster, &self.config.name) {
            Ok(None) => {}
            Ok(Some((credentials, trust))) => {
                self.set_proof(credentials, trust);
                tracing::info!("certificates read");
            }
            Err(fault) => tracing::error!("{fault}; those before stay in force"),
        }
    }

    fn handle_asked(&mut self, asked: Asked) {
        match asked {
            Asked::Status { digest, reply } => {
                // Who asked may be gone.
                let _ = reply.send(self.status(digest));
            }
            Asked::RenewKeys { reply } => {
                let _ = reply.send(self.report.renew());
            }
            Asked::Rotate { reply } => {
                let _ = reply.send(self.report.rotate());
            }
            Asked::Watch {
                filter,
                values,
                lines,
                begun,
            } => {
                self.watchers.add(filter, values, lines);
                let _ = begun.send(());
            }
        }
    }

    fn status(&self, digest: bool) -> StatusReply {
        let of_origin = |(id, origin): (_, super::follower::OriginStatus)| {
            let store = self.follower.replica().store(id).filter(|_| digest);
            OriginReport::new(id, &origin, store.map(|store| store.digest()))
        };
        let origins = self.follower.status().into_iter().map(of_origin);
        let session = self.session.as_ref();
        let stats = self.follower.stats();
        let (keys, key_refusals) = self.report.status(Instant::now());
        StatusReply {
            cluster: self.config.cluster.clone(),
            name: self.config.name.clone(),
            node: self.node.clone(),
            hub: HubStatus {
                connected: session.is_some(),
                peer: session.map(|session| session.peer.clone()),
                address: session.map(|session| session.address),
                since_ms: self
                    .since
                    .elapsed()
                    .as_millis()
                    .try_into()
                    .unwrap_or(u64::MAX),
                sessions: self.sessions,
                failures: self.failures(),
                messages_in: stats.messages_in,
                bytes_in: stats.bytes_in,
            },
            origins: origins.collect(),
            kept: KeptStatus::from(self.kept.stats()),
            keys,
            key_refusals,
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
