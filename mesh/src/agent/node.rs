//! One node: what is wanted, what is known, and what to do about the difference.

mod announcement;
mod keys;
mod rotation;
mod upkeep;
mod wanted;

use super::conversation::{Conversation, Heard};
use super::dirty::{Dirty, Scope};
use super::liveness::Liveness;
use super::paths::Paths;
use super::preflight;
use super::replicated::{Conflict, Waiting};
use super::rotation::Rotation;
use super::trouble::Troubles;
use crate::agent_socket::NodeStatus;
use crate::chain::one_line;
use crate::config::NodeConfig;
use crate::io::clamp_table::ClampTable;
use crate::io::netlink::Netlink;
use crate::io::tunnel_link::TunnelEvent;
use crate::psk::PostQuantum;
use crate::record::Key;
use announcement::Announcement;
use bytes::Bytes;
use hawser_tunnel::control::Request;
use hawser_tunnel::io::nft::{Nft, NftError};
use hawser_tunnel::liveness;
use hawser_tunnel::mtu;
use hawser_tunnel::node::ClusterId;
use ipnet::IpNet;
use keys::KnownKeys;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use wanted::Wanted;

/// News come in bursts; they are looked at together, this long after the first.
const COALESCE: Duration = Duration::from_millis(20);
/// What failed is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// What hubs said of the mesh: the records that make a state.
pub(super) type Records = Arc<Vec<(ClusterId, Key, Bytes)>>;

/// The agent's view of its node.
#[derive(Debug)]
pub(super) struct Node {
    config: Arc<NodeConfig>,
    records: Records,
    netlink: Netlink,
    nft: Arc<Nft>,
    clamp: Arc<Mutex<ClampTable>>,
    /// Prefixes that were blocked before; those that no cluster has any more stay so.
    blocked: BTreeSet<IpNet>,
    paths: Arc<Paths>,
    /// The kernel was made to choose source addresses again, and has not been seen right since.
    sources_refreshed: bool,
    /// MTU of a path that cannot be looked up, in bytes.
    fallback: u32,
    /// `None`: nobody has told yet which node this is, and everything stays as it was found.
    wanted: Option<Wanted>,
    /// What is wanted is derived anew at this time.
    stale: Option<Instant>,
    /// The guard was loaded, or cannot be told yet. Nothing else is done before.
    guarded: bool,
    /// How long that took the last time, and when it was done.
    derived: (Duration, Instant),
    waiting: Option<Waiting>,
    conflicts: BTreeSet<Conflict>,
    announcement: Announcement,
    keys: KnownKeys,
    rotation: Rotation,
    /// A hub is there, which tells others of this node's keys.
    is_heard: bool,
    /// With whom keys are to be derived may be something else than what was told of it.
    roster_stale: bool,
    /// What became of what was heard is something else than what was told of it.
    reports: bool,
    scope: Scope,
    conversation: Conversation,
    liveness: Liveness,
    /// It is time to ask for it.
    asks_liveness: bool,
    dirty: Dirty,
    deadline: Option<Instant>,
    troubles: Troubles,
    waits_for_device: bool,
}

impl Node {
    /// Loads the guard, before anything else.
    pub(super) async fn start(
        config: NodeConfig,
        records: Records,
        netlink: Netlink,
    ) -> Result<Self, NftError> {
        let nft = Arc::new(Nft::default());
        let mut node = Self {
            blocked: BTreeSet::new(),
            paths: Arc::default(),
            sources_refreshed: false,
            fallback: u32::from(mtu::MIN_UNDERLAY),
            wanted: None,
            stale: None,
            guarded: false,
            derived: (Duration::ZERO, Instant::now()),
            waiting: None,
            conflicts: BTreeSet::new(),
            announcement: Announcement::default(),
            keys: KnownKeys::default(),
            rotation: rotation::begin(&config),
            is_heard: false,
            roster_stale: true,
            reports: true,
            scope: Scope::default(),
            conversation: Conversation::default(),
            liveness: Liveness::default(),
            asks_liveness: false,
            dirty: Dirty::default(),
            deadline: None,
            troubles: Troubles::default(),
            waits_for_device: false,
            clamp: Arc::default(),
            config: Arc::new(config),
            records,
            netlink,
            nft,
        };
        node.rebuild().await;
        if node.wanted.is_some() {
            node.ensure_guard().await?;
        }
        node.guarded = true;
        node.log_start();
        // The paths first: what the data plane is told must not differ from what it was told
        // before only because they were not measured yet.
        node.measure().await;
        node.look_at(Dirty {
            guard: false,
            ..Dirty::ALL
        });
        Ok(node)
    }

    /// Where the data plane listens.
    pub(super) fn socket(&self) -> &Path {
        &self.config.socket
    }

    /// What the file says.
    pub(super) fn config(&self) -> &Arc<NodeConfig> {
        &self.config
    }

    /// What notifications are held against.
    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Parts to look at soon.
    pub(super) fn look_at(&mut self, dirty: Dirty) {
        self.schedule(dirty, COALESCE);
    }

    /// The periodic look at everything.
    pub(super) fn handle_full_check(&mut self) {
        self.conversation.retry();
        self.look_at(Dirty::ALL);
    }

    /// When [`Self::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadline.into_iter().chain(self.stale).min()
    }

    /// The next request to the data plane, if one is due.
    pub(super) fn poll_request(&mut self) -> Option<Request> {
        // What is about to be derived anew may hold prefixes that must not be let go meanwhile.
        let wanted = self.wanted.as_ref().filter(|_| self.stale.is_none());
        let request = wanted
            .and_then(|wanted| self.conversation.poll_request(&wanted.state, wanted.digest))
            .or_else(|| self.poll_keys());
        let request = request.or_else(|| self.poll_demand());
        let request = request.or_else(|| self.poll_rotation());
        request.or_else(|| {
            let due = self.asks_liveness;
            let request = due.then(|| self.conversation.poll_liveness())??;
            self.asks_liveness = false;
            Some(request)
        })
    }

    /// Whether there are peers whose death must be known.
    fn watches(&self) -> bool {
        let peers = self.wanted.iter().flat_map(|it| it.state.peers.values());
        peers.into_iter().any(|peer| peer.watched)
    }

    /// The data plane is asked soon which watched peers are alive, and which are in use.
    pub(super) fn look_at_peers(&mut self) {
        self.asks_liveness |= self.watches();
        self.look_at_demand();
    }

    fn schedule(&mut self, dirty: Dirty, after: Duration) {
        self.dirty |= dirty;
        let due = Instant::now() + after;
        self.deadline = Some(self.deadline.map_or(due, |deadline| deadline.min(due)));
    }

    /// Looks at the parts that are due and repairs them.
    pub(super) async fn handle_timeout(&mut self) {
        let now = Instant::now();
        if self.stale.is_some_and(|stale| stale <= now) {
            self.rebuild().await;
        }
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        self.deadline = None;
        let dirty = std::mem::take(&mut self.dirty);
        if dirty.paths {
            self.measure().await;
        }
        let Some(wanted) = &self.wanted else { return };
        let device = wanted.desired.device.clone();
        // While the data plane has another state in force its keeper guards by that, and would
        // undo what we write; it is being told.
        let in_charge =
            !self.conversation.is_connected() || self.conversation.is_settled(wanted.digest);
        if dirty.guard && in_charge {
            let done = self.ensure_guard().await;
            self.note(
                "guard",
                Dirty::GUARD,
                done.err().map(|error| one_line(&error)),
            );
        }
        if dirty.kernel {
            let done = self.reconcile().await;
            self.note(
                "kernel",
                Dirty::KERNEL,
                done.err().map(|error| one_line(&error)),
            );
        }
        if dirty.clamp {
            let clamp = Arc::clone(&self.clamp);
            let done = blocking(move || {
                clamp
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .ensure(&device)
            });
            let done = done.await.map(|wrote| {
                if wrote {
                    tracing::info!("segment size clamp written");
                } else {
                    tracing::debug!("segment size clamp stands");
                }
            });
            self.note(
                "clamp",
                Dirty::CLAMP,
                done.err().map(|error| one_line(&error)),
            );
        }
    }

    fn note(&mut self, part: &'static str, dirty: Dirty, failure: Option<String>) {
        if failure.is_some() {
            self.schedule(dirty, RETRY);
        }
        self.troubles.note(part, failure);
    }

    /// Takes what happened on the connection to the data plane.
    pub(super) fn handle_tunnel(&mut self, event: TunnelEvent) {
        match event {
            TunnelEvent::Connected { version } => {
                tracing::info!(version, "data plane connected");
                self.conversation.handle_connected();
            }
            TunnelEvent::Waiting(error) => {
                tracing::info!(reason = one_line(&error), "waiting for the data plane");
            }
            TunnelEvent::Lost(reason) => {
                tracing::warn!(reason, "data plane lost; traffic goes on where it lives");
                self.conversation.handle_lost();
                // Its keeper may be gone as well, and with it who repairs the guard.
                self.look_at(Dirty::GUARD);
            }
            TunnelEvent::Response(response) => {
                let heard = self.conversation.handle_response(*response);
                self.handle_heard(heard);
            }
        }
    }

    fn handle_heard(&mut self, heard: Heard) {
        match heard {
            Heard::Nothing => {}
            Heard::Keys { public_keys, port } => {
                self.roster_stale |= self.announcement.hear_keys(public_keys, port);
            }
            Heard::Demand(peers) => self.handle_demand(peers),
            Heard::NewKeys => self.handle_new_keys(),
            Heard::KeysStay { reason, detail } => self.handle_keys_stay(reason, &detail),
            Heard::Liveness(status) => {
                for (id, peer) in self.liveness.handle_status(status) {
                    let (state, deaths) = (peer.state, peer.deaths);
                    let wanted = self.wanted.as_ref();
                    let name = wanted.and_then(|it| it.state.peers.get(&id));
                    let name = name.map(|peer| peer.name.as_str());
                    match state {
                        liveness::State::Alive | liveness::State::Unknown => {
                            tracing::info!(peer = %id, name, %state, deaths, "peer is alive");
                        }
                        liveness::State::Dead | liveness::State::Damped => {
                            let hold_down_ms = peer.hold_down_ms;
                            tracing::warn!(peer = %id, name, %state, deaths, hold_down_ms, "peer is dead");
                        }
                    }
                }
            }
            Heard::InForce => {
                if let Some(state) = self.conversation.state() {
                    self.blocked.extend(&state.guard.mesh);
                    self.keys.adopt(state, &self.config);
                    self.stale = Some(Instant::now());
                    self.look_at(Dirty::KERNEL);
                }
            }
            Heard::Applied { revision, changed } => {
                tracing::info!(revision, changed, "state in force");
                self.troubles.note("data plane", None);
                self.look_at(Dirty::GUARD);
            }
            Heard::Refused { reason, detail } => {
                self.troubles
                    .note("data plane", Some(format!("{reason:?}: {detail}")));
            }
            Heard::OutOfOrder => {
                self.troubles
                    .note("data plane", Some("answered out of order".to_owned()));
            }
        }
    }

    /// Reads the file again. A wrong one is told in one line, and the old one stays.
    /// Returns whether another one is in force now.
    pub(super) async fn reload(&mut self, path: &Path) -> bool {
        match self.load(path).await {
            Ok(next) if next == *self.config => {
                tracing::debug!("configuration read; nothing changed");
                false
            }
            Ok(next) => {
                tracing::info!("configuration read");
                let before = std::mem::replace(&mut self.config, Arc::new(next));
                self.rotation
                    .set_every(self.config.key_rotation, Instant::now());
                if (before.post_quantum, self.config.post_quantum)
                    == (PostQuantum::Preferred, PostQuantum::Required)
                {
                    self.keys.forget_kept();
                }
                self.rebuild().await;
                self.measure().await;
                self.conversation.retry();
                self.look_at(Dirty::ALL);
                true
            }
            Err(error) => {
                tracing::error!("{error}; the configuration before it stays in force");
                false
            }
        }
    }

    async fn load(&self, path: &Path) -> Result<NodeConfig, String> {
        let shown = path.display();
        let next = NodeConfig::load(path).map_err(|error| error.to_string())?;
        self.config
            .check_reload(&next)
            .map_err(|fault| format!("{shown}: {fault}"))?;
        let fit = preflight::check(&next, &self.netlink).await;
        fit.map_err(|error| format!("{shown}: {}", one_line(&error)))?;
        Ok(next)
    }

    /// What became of what was heard, where it is something else than before.
    pub(super) fn poll_report(&mut self) -> Option<NodeStatus> {
        if !std::mem::take(&mut self.reports) {
            return None;
        }
        let state = self.wanted.as_ref().map(|wanted| &wanted.state);
        let conflicts = self.conflicts.iter();
        Some(NodeStatus {
            id: state.map(|state| state.node),
            peers: state.map_or(0, |state| state.peers.len()),
            waiting: self.waiting.map(|waiting| waiting.name().to_owned()),
            conflicts: conflicts
                .map(|conflict| (conflict.name().to_owned(), conflict.to_string()))
                .collect(),
        })
    }

    fn log_start(&self) {
        let state = self.wanted.as_ref().map(|wanted| &wanted.state);
        let clusters = state.iter().flat_map(|state| state.clusters.values());
        let known: BTreeSet<&IpNet> = clusters.flat_map(|cluster| &cluster.prefixes).collect();
        let mesh = state.iter().flat_map(|state| &state.guard.mesh);
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            node = state.map(|state| tracing::field::display(state.node)),
            name = self.config.name,
            device = self.config.statics.device,
            socket = %self.config.socket.display(),
            clusters = state.map(|state| state.clusters.len()),
            peers = state.map(|state| state.peers.len()),
            endpoints = state.map(|state| state.endpoints.len()),
            departed_prefixes = mesh.filter(|prefix| !known.contains(prefix)).count(),
            "agent starts"
        );
    }
}

/// Runs what waits for a program, aside from the event loop.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(work)
        .await
        .expect("the work does not panic and is not cancelled")
}
