//! The agent of a node: it brings the node to the state that `node.yaml` asks for and keeps it there.
//!
//! At the start the order is fixed: checks, the lock that makes it the only agent, the guard, then the
//! kernel and the data plane. After that it waits for news (a notification of the kernel, a new
//! file, an answer of the data plane) and looks again only at the part that the news is about. What
//! it finds as it should be, it does not write. When it ends, everything stays as it is.
//!
//! What is decided is decided by pure parts: [`plan`], [`desired`], [`conversation`], [`departed`],
//! [`dirty`], [`rotation`]; where a hub tells what the file does not, also [`follower`] and [`replicated`], and [`crate::psk`] for keys
//! with other nodes. [`node`], [`hub_link`] and [`keys`] hold them together, and this module waits.

pub(crate) mod claims;
pub(crate) mod clamp;
pub(crate) mod conversation;
pub(crate) mod departed;
pub(crate) mod desired;
pub(crate) mod dirty;
pub mod follower;
mod hub_link;
pub mod ipam;
pub(crate) mod kernel;
mod keys;
pub mod learned;
mod liveness;
mod node;
pub(crate) mod paths;
pub(crate) mod plan;
mod preflight;
pub mod replicated;
pub(crate) mod rotation;
pub(crate) mod selector;
mod trouble;

pub use crate::io::netlink::KernelError;
pub use hub_link::HubLinkError;
pub use preflight::PreflightError;

use crate::config::{ConfigError, HubConfig, NodeConfig};
use crate::io::config_file::ConfigFile;
use crate::io::lock::{self, LockError};
use crate::io::netlink::Netlink;
use crate::io::tunnel_link::TunnelLink;
use crate::io::watch::Watch;
use hawser_tunnel::io::nft::NftError;
use hub_link::HubLink;
use keys::{KeyLink, Keyring, Report};
use node::{Node, Records};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// How often the file is looked at.
const CONFIG_POLL: Duration = Duration::from_millis(200);
/// How often the data plane is asked which watched peers are alive, while there are any; and which are in use, where keys
/// are derived only with those.
const LIVENESS_POLL: Duration = Duration::from_millis(250);
/// How often the node's own keys and address are looked at, which a hub is told.
const OWN_LANES: Duration = Duration::from_secs(1);
/// How often everything is looked at without news.
const FULL_CHECK: Duration = Duration::from_secs(30);

/// Why the agent ended by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The node is not fit.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// Another agent runs on this node.
    #[error("{}: is held by another hawser agent; only one may run on a node: stop the other", lock.display())]
    SecondInstance {
        /// The lock file.
        lock: PathBuf,
    },
    /// The lock file could not be used.
    #[error("failed to lock {}", lock.display())]
    Lock {
        /// The lock file.
        lock: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The guard could not be loaded, so nothing else was done.
    #[error("failed to load the guard")]
    Guard(#[source] NftError),
    /// There is a hub section, and the link to the hub could not be made.
    #[error(transparent)]
    HubLink(#[from] HubLinkError),
    /// The kernel or the system refused what every agent needs.
    #[error("failed to {what}")]
    System {
        /// What was to be done.
        what: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// Runs the agent until it is told to stop by SIGTERM or SIGINT.
///
/// # Errors
/// The configuration or the node is not fit, or another agent runs.
pub async fn run(path: &Path) -> Result<(), AgentError> {
    let mut file = ConfigFile::new(path);
    let config = NodeConfig::load(path)?;
    preflight::check_root()?;
    let system = |what| move |source| AgentError::System { what, source };
    let netlink = Netlink::open().map_err(system("open a netlink socket"))?;
    preflight::check(&config, &netlink).await?;
    let lock = lock::path(&config.socket);
    let _lock = lock::take(&lock).map_err(|error| match error {
        LockError::Held => AgentError::SecondInstance { lock: lock.clone() },
        LockError::Io(source) => AgentError::Lock {
            lock: lock.clone(),
            source,
        },
    })?;
    let mut signals = Signals::open().map_err(system("handle signals"))?;
    // Before the first look, so that nothing falls in between.
    let mut watch = Watch::open().map_err(system("subscribe to the kernel's notifications"))?;
    let report = Arc::new(Report::default());
    let (mut hub, mut keys) = (None, None);
    if let Some(section) = config.hub.clone() {
        let port = section.key_port;
        let link = open_link(config.clone(), section, Arc::clone(&report)).await?;
        let open = KeyLink::open(port, link.proof(), Arc::clone(&report));
        keys = Some(open.map_err(system("start to derive keys with other agents"))?);
        hub = Some(link);
    }
    let records = hub.as_mut().map(HubLink::records).unwrap_or_default();
    let mut node = Node::start(config, records, netlink)
        .await
        .map_err(AgentError::Guard)?;
    let mut link = TunnelLink::open(node.socket().to_owned());
    let mut poll = every(CONFIG_POLL);
    let mut full = every(FULL_CHECK);
    let mut liveness = every(LIVENESS_POLL);
    let mut own_lanes = tokio::time::interval(OWN_LANES);
    own_lanes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if let Some(hub) = &hub {
            tell(&mut node, hub).await;
            node.set_heard(hub.is_connected());
        }
        if let Some(keys) = &keys
            && let Some(roster) = node.poll_roster()
        {
            keys.tell(roster);
        }
        if let Some(request) = node.poll_request() {
            link.send(request);
        }
        tokio::select! {
            biased;
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.hang_up.recv() => {
                file.has_changed();
                reload(&mut node, file.path(), hub.as_ref()).await;
            }
            () = wait_until(node.poll_timeout()) => node.handle_timeout().await,
            event = link.next() => node.handle_tunnel(event),
            dirty = watch.next(node.scope()) => {
                node.look_at(dirty.map_err(system("read the kernel's notifications"))?);
            }
            records = changed(&mut hub) => node.handle_records(records),
            keyring = derived(&mut keys) => node.handle_keys(keyring),
            () = report.rotation() => node.rotate(),
            _ = poll.tick() => if file.has_changed() {
                reload(&mut node, file.path(), hub.as_ref()).await;
            },
            _ = own_lanes.tick(), if hub.is_some() => node.look_at_own_lanes().await,
            _ = liveness.tick() => node.look_at_peers(),
            _ = full.tick() => node.handle_full_check(),
        }
    }
    if let Some(keys) = keys {
        keys.close().await;
    }
    if let Some(hub) = hub {
        hub.close().await;
    }
    tracing::info!("agent stops; routes, guard and data plane stay as they are");
    Ok(())
}

async fn open_link(
    config: NodeConfig,
    hub: HubConfig,
    report: Arc<Report>,
) -> Result<HubLink, AgentError> {
    // It reads the disk.
    let opened = tokio::task::spawn_blocking(move || HubLink::open(&config, &hub, report)).await;
    Ok(opened.expect("it does not panic and is not cancelled")?)
}

/// Tells the hub's end what is new of the node.
async fn tell(node: &mut Node, hub: &HubLink) {
    if let Some(lanes) = node.poll_announcement() {
        hub.announce(lanes).await;
    }
    if let Some(status) = node.poll_report() {
        hub.report(status).await;
    }
}

async fn reload(node: &mut Node, path: &Path, hub: Option<&HubLink>) {
    if node.reload(path).await
        && let Some(hub) = hub
    {
        hub.configure(node.config()).await;
    }
}

async fn changed(hub: &mut Option<HubLink>) -> Records {
    match hub {
        Some(hub) => hub.changed().await,
        None => std::future::pending().await,
    }
}

async fn derived(keys: &mut Option<KeyLink>) -> Arc<Keyring> {
    match keys {
        Some(keys) => keys.changed().await,
        None => std::future::pending().await,
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn open() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}
