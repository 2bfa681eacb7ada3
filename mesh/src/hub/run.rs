//! The hub's shell: sockets, connections and clocks around [`Core`].

use super::admin::AdminSocket;
use super::certificates::{self, Begun, Certificates};
use super::connections::{Connections, Input};
use super::core::{Action, Core};
use super::enrolment::{Enrolment, SWEEP};
pub use super::scribe::{JournalFault, ScribeError};
use super::scribe::{Order, Report, Scribe};
use crate::ca::IssueError;
use crate::config::hub_yaml::HubConfig;
use crate::io::ca_store::{CaStoreError, OwnCa};
use crate::io::pem_file::{self, PemFault};
use crate::io::quic::{Arrival, Connection, Listener, Tls};
use crate::io::token_store::TokenStoreError;
use crate::kept::{Kept, KeptError};
use crate::trust::{PeerId, Role, Trust};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

mod joiner;
mod operator;

/// Why a connection ends whose CA is trusted no longer.
const CA_CHANGED: &str = "ca_changed";
/// How often certificates are looked at: they are renewed hours before they end.
const RENEWAL: Duration = Duration::from_secs(5);
/// How many inputs are taken in before answers go out: what came together is answered together.
const BATCH: usize = 256;
/// And how many bytes: whoever says much does not keep others waiting.
const BATCH_BYTES: usize = 16 << 10;

/// Why a hub ended or did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A certificate or a key is of no use.
    #[error(transparent)]
    Pem(#[from] PemFault),
    /// The certificate is another's.
    #[error(
        "tls.certificate: is for {found}; must be for a hub of cluster {cluster} in {clusterset}; issue it with `hawser ca hub`"
    )]
    Certificate {
        /// Whom it is for.
        found: String,
        /// The own cluster.
        cluster: String,
        /// The clusterset.
        clusterset: String,
    },
    /// The own CA cannot be taken or made.
    #[error(transparent)]
    CaStore(#[from] CaStoreError),
    /// The own CA cannot sign.
    #[error("failed to issue the hub's own certificate")]
    Issue(#[from] IssueError),
    /// Tokens cannot be kept.
    #[error(transparent)]
    Tokens(#[from] TokenStoreError),
    /// The address cannot be had.
    #[error("failed to listen on {address}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What was learned of other clusters cannot be kept.
    #[error("failed to keep other clusters' state")]
    Kept(#[from] KeptError),
    /// The journal or the state directory is of no use.
    #[error(transparent)]
    Scribe(#[from] ScribeError),
    /// The system does not let us.
    #[error("failed to {what}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Checks the certificates of a configuration, and makes nothing.
///
/// # Errors
/// One line each, with field, value, rule and fix.
pub fn check(config: &HubConfig) -> Result<(), HubError> {
    certificates::check(config)
}

/// Runs a hub until it is told to end.
///
/// # Errors
/// It could not start, or its disk failed.
pub async fn run(config: HubConfig) -> Result<(), HubError> {
    let config = Arc::new(config);
    let mut hub = Hub::start(Arc::clone(&config)).await?;
    let ended = hub.serve().await;
    hub.end().await;
    ended
}

struct Hub {
    config: Arc<HubConfig>,
    core: Core,
    tls: Arc<Tls>,
    trust: Trust,
    certificates: Certificates,
    enrolment: Enrolment,
    listener: Listener,
    connections: Connections,
    inputs: tokio::sync::mpsc::Receiver<Input>,
    kept: Kept,
    orders: mpsc::Sender<Order>,
    reports: UnboundedReceiver<Report>,
    admin: AdminSocket,
    source: (usize, Vec<String>),
    writes: bool,
}

impl Hub {
    async fn start(config: Arc<HubConfig>) -> Result<Self, HubError> {
        let Begun {
            certificates,
            credentials,
            trust,
        } = certificates::begin(&config, SystemTime::now())?;
        let enrolment = Enrolment::open(&config, certificates.own_ca())?;
        let name = match &credentials.id().role {
            Role::Hub(name) | Role::Node(name) => name.clone(),
        };
        let tls = Tls::new(credentials, trust.clone());
        let address = config.listen;
        let listen = |source| HubError::Listen { address, source };
        let listener = Listener::bind(address, Arc::clone(&tls)).map_err(listen)?;
        let port = listener.local_address().map_err(listen)?.port();
        let (orders, taken) = mpsc::channel();
        let (reporter, mut reports) = unbounded_channel();
        let replica = format!("{name}-{port}");
        let own_ca = certificates.own_ca();
        let scribe = Scribe::open(Arc::clone(&config), own_ca, &replica, &orders, reporter)?;
        let admin = AdminSocket::open(&config.state_directory.join(format!("hub-{replica}.sock")))
            .map_err(system("listen for requests of operators"))?;
        std::thread::Builder::new()
            .name("hub-scribe".to_owned())
            .spawn(move || scribe.run(&taken))
            .map_err(system("start a thread"))?;
        let path = config.state_directory.join(format!("kept-{replica}.redb"));
        let opened = tokio::task::spawn_blocking(move || Kept::open(&path)).await;
        let opened = opened
            .map_err(io::Error::other)
            .map_err(system("open a file"))?;
        let (kept, loaded) = opened?;
        let mut core = Core::new(
            config.cluster.clone(),
            config.clusterset.clone(),
            config.quotas,
        );
        core.protect(config.protected.clone());
        let mut source = (0, Vec::new());
        let (mut writes, mut rolled) = (false, None);
        tracing::info!(
            cluster = %config.cluster.name, id = %config.cluster.id, hub = name, port, "waiting for the journal"
        );
        loop {
            match reports.recv().await {
                Some(Report::Own(live)) => {
                    core.load_own(&live);
                    break;
                }
                Some(Report::Member(change)) => core.set_member(change, Instant::now()),
                Some(Report::Epochs(epochs)) => core.raise_epochs(epochs),
                Some(Report::Writes) => writes = true,
                Some(Report::Source(objects, complaints)) => source = (objects, complaints),
                Some(Report::Failed(error)) => return Err(error.into()),
                // The own state comes before its changes. Who is ahead, says so again.
                Some(Report::Frame(_) | Report::Heard(_)) => {}
                Some(Report::Ca(own)) => rolled = Some(own),
                None => {
                    let error = io::Error::other("its reader ended");
                    return Err(system("read the journal")(error));
                }
            }
        }
        for (origin, kept) in loaded.origins {
            core.load(origin, kept);
        }
        core.set_writer(writes);
        let (inputs, taken_inputs) = tokio::sync::mpsc::channel(BATCH);
        let connections = Connections::new(inputs, Arc::clone(&tls));
        tracing::info!(version = %core.version(), "serving");
        let mut hub = Self {
            config,
            core,
            tls,
            trust,
            certificates,
            enrolment,
            listener,
            connections,
            inputs: taken_inputs,
            kept,
            orders,
            reports,
            admin,
            source,
            writes,
        };
        if let Some(own) = rolled {
            hub.take_ca(own);
        }
        Ok(hub)
    }

    async fn serve(&mut self) -> Result<(), HubError> {
        let open = |kind| signal(kind).map_err(system("handle signals"));
        let mut terminate: Signal = open(SignalKind::terminate())?;
        let mut interrupt = open(SignalKind::interrupt())?;
        let mut hang_up = open(SignalKind::hangup())?;
        let mut renewal = tokio::time::interval(RENEWAL);
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            self.act();
            let deadline = self.core.poll_timeout().map(tokio::time::Instant::from_std);
            tokio::select! {
                input = self.inputs.recv() => {
                    let (mut next, mut bytes) = (input, 0);
                    for left in (0..BATCH).rev() {
                        let Some(input) = next else { break };
                        bytes += input.len();
                        self.take(input);
                        let goes_on = left > 0 && bytes < BATCH_BYTES;
                        next = goes_on.then(|| self.inputs.try_recv().ok()).flatten();
                    }
                }
                report = self.reports.recv() => match report {
                    Some(report) => self.hear(report)?,
                    None => return Ok(()),
                },
                Some(arrival) = self.listener.accept() => match arrival {
                    Arrival::Peer(connection) => self.welcome(connection),
                    Arrival::Guest(guest) => self.receive(guest),
                },
                Some(question) = self.admin.next() => self.answer(question),
                () = sleep_until(deadline) => self.core.handle_timeout(Instant::now()),
                _ = renewal.tick() => self.renew(false),
                _ = sweep.tick() => self.enrolment.sweep(),
                _ = hang_up.recv() => self.renew(true),
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
            }
        }
    }

    fn welcome(&mut self, connection: Connection) {
        let session = self.connections.next_session();
        match self.core.accepted(session, connection.peer.clone()) {
            Ok(()) => self.connections.add(session, connection),
            Err(unwelcome) => {
                tracing::info!(peer = ?connection.peer, reason = unwelcome.name(), "connection refused");
                self.connections.refuse(unwelcome.name());
                connection.tx.close(unwelcome.name());
            }
        }
    }

    /// Whether a guest has shown that it is one of our nodes, as the source has them now.
    fn is_member(&self, peer: Option<&PeerId>) -> bool {
        peer.is_some_and(|peer| match &peer.role {
            Role::Node(name) => self.core.has_node(name),
            Role::Hub(_) => false,
        })
    }

    async fn end(mut self) {
        tracing::info!("ending");
        self.listener.close("going_away").await;
        // The scribe may have ended before.
        let _ = self.orders.send(Order::Stop);
        let kept = self.kept;
        let flushed = tokio::task::spawn_blocking(move || kept.flush()).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "the last changes of other clusters were not kept");
        }
    }

    /// Does what the core wants, and sends what it has to say.
    fn act(&mut self) {
        loop {
            while let Some(action) = self.core.poll_action() {
                self.perform(action);
            }
            let Some(transmit) = self.core.poll_transmit(Instant::now()) else {
                if let Some(action) = self.core.poll_action() {
                    self.perform(action);
                    continue;
                }
                return;
            };
            let (session, stream) = (transmit.session, transmit.stream);
            if !self.connections.send(transmit) {
                self.core.set_writable(session, stream, false);
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Dial {
                cluster,
                name,
                hubs,
            } => {
                if let Some(old) = self.connections.dial(cluster, name, &hubs) {
                    self.core.closed(old);
                }
            }
            Action::Hang { cluster } => {
                if let Some(old) = self.connections.hang(cluster) {
                    self.core.closed(old);
                }
            }
            Action::Trust { name, ca } => self.set_trust(&name, ca.as_deref()),
            Action::Redial { cluster } => self.connections.redial(cluster),
            Action::Authorities { name, said } => self.order(Order::Authorities(name, said)),
            Action::Close { session, reason } => {
                tracing::info!(session, reason, "connection closed");
                self.connections.close(session, reason);
            }
            Action::Announced { node, lanes } => self.order(Order::Lanes(node, lanes)),
            Action::Revocations { signed } => self.order(Order::Revocations(Box::new(signed))),
            Action::Ahead { claims } => self.order(Order::Ahead(claims)),
            Action::Bump { to } => self.order(Order::Bump(to)),
            Action::Keep {
                origin,
                version,
                complete,
                changes,
            } => self.kept.note(origin, version, complete, changes),
            Action::Forget { origin } => self.kept.forget(origin),
            Action::Refused {
                by,
                key,
                reason,
                loud,
            } => {
                if loud {
                    tracing::warn!(?by, %key, reason, "one of our records was refused");
                }
            }
            Action::Synced { origin } => {
                let name = self.core.name_of(origin).unwrap_or_default();
                tracing::info!(cluster = name, "cluster known");
            }
        }
    }

    fn order(&self, order: Order) {
        // When the scribe ended, its report says why.
        let _ = self.orders.send(order);
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Message(session, stream, bytes) => {
                self.connections.heard(session, Instant::now());
                self.core
                    .handle_message(session, stream, bytes, Instant::now());
            }
            Input::Writable(session, stream) => self.core.set_writable(session, stream, true),
            Input::Ended(session, why) => {
                if let Some(peer) = self.connections.ended(session) {
                    tracing::info!(session, ?peer, why, "connection ended");
                }
                self.core.closed(session);
            }
            Input::Dialed(cluster, connection) => {
                let session = self.connections.next_session();
                tracing::info!(session, peer = ?connection.peer, address = %connection.address, "connected");
                let peer = connection.peer.clone();
                // It takes the place of the one before.
                if let Some(old) = self.connections.fed_by(cluster, session) {
                    self.connections.close(old, "dialed_anew");
                    self.core.closed(old);
                }
                self.connections.add(session, *connection);
                self.core.dialed(session, cluster, peer, Instant::now());
            }
        }
    }

    fn hear(&mut self, report: Report) -> Result<(), HubError> {
        match report {
            Report::Own(_) => {}
            Report::Frame(frame) => self.core.write(frame),
            Report::Member(change) => self.core.set_member(change, Instant::now()),
            Report::Epochs(epochs) => self.core.raise_epochs(epochs),
            Report::Ca(own) => self.take_ca(own),
            Report::Heard(claim) => self.core.heard(claim, Instant::now()),
            Report::Writes => {
                self.writes = true;
                self.core.set_writer(true);
            }
            Report::Source(objects, complaints) => self.source = (objects, complaints),
            Report::Failed(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Takes the next certificate, if there is one or it is due.
    fn renew(&mut self, even_if_same: bool) {
        let now = SystemTime::now();
        match self.certificates.next(&self.config, even_if_same, now) {
            None => {}
            Some(Ok(credentials)) => {
                tracing::info!("new certificate taken");
                self.tls.set_credentials(credentials);
            }
            Some(Err(error)) => tracing::warn!(%error, "the new certificate is not taken"),
        }
    }

    /// Trusts these CAs of a cluster from now on, and ends connections that others vouched for.
    fn set_trust(&mut self, cluster: &str, ca: Option<&str>) {
        let before = self.trust.authorities(cluster).to_vec();
        match ca {
            Some(pem) => {
                if let Err(error) = self.trust.set(cluster, pem) {
                    tracing::warn!(cluster, %error, "its CA is of no use");
                }
            }
            None => self.trust.remove(cluster),
        }
        self.tls.set_trust(self.trust.clone());
        let after = self.trust.authorities(cluster);
        if before.iter().all(|ca| after.contains(ca)) {
            return;
        }
        for session in self.connections.untrusted(cluster, &self.trust) {
            tracing::info!(session, reason = CA_CHANGED, "connection closed");
            self.connections.close(session, CA_CHANGED);
            self.core.closed(session);
        }
    }

    /// Takes the own CA, which is another by now or the only one again.
    fn take_ca(&mut self, own: Arc<OwnCa>) {
        self.enrolment.set_own(Arc::clone(&own));
        let rolled = self.certificates.set_own(&own);
        self.set_trust(&self.config.cluster.name.clone(), Some(&own.bundle()));
        if rolled {
            self.renew(true);
            self.connections.redial_all();
        }
    }

    /// The own cluster's CAs, in PEM.
    fn own_ca(&self) -> Result<String, PemFault> {
        match (&self.config.tls, self.certificates.own_ca()) {
            (Some(files), _) => pem_file::ca(&files.ca, "tls.ca"),
            (None, Some(own)) => Ok(own.bundle()),
            // A hub has the one or the other; who has none offers none, which no cluster takes.
            (None, None) => Ok(String::new()),
        }
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn system(what: &'static str) -> impl Fn(io::Error) -> HubError {
    move |source| HubError::System { what, source }
}
