//! A task that dials: an attempt that is under way must not be cut off because something else happens.

use crate::config::{HubConfig, NodeIdentity};
use crate::dial::Target;
use crate::io::config_file::ConfigFile;
use crate::io::quic::{Connection, Dialer, Tls};
use crate::io::resolve::Resolver;
use crate::trust::Expected;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// An attempt is given up and begun anew after this time, longer than a handshake may take: then it is told what failed.
const ROUND: Duration = Duration::from_secs(4);

enum Order {
    /// Dial.
    Go,
    /// Dial these from here on.
    Targets(Vec<Target>),
}

/// Its handle.
#[derive(Debug)]
pub(super) struct Dialing {
    orders: mpsc::UnboundedSender<Order>,
    connections: mpsc::Receiver<Connection>,
    failures: Arc<Mutex<Vec<String>>>,
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Go => f.write_str("Go"),
            Self::Targets(targets) => f.debug_tuple("Targets").field(targets).finish(),
        }
    }
}

impl Dialing {
    /// Begins to dial.
    pub(super) fn start(cluster: &str, hub: &HubConfig, tls: Arc<Tls>) -> Self {
        let dialer = Dialer::new(
            hub.addresses.clone(),
            tls,
            Expected::HubOf(cluster.to_owned()),
            Resolver::system(),
            crate::lot::drawn(),
        );
        let (orders, ordered) = mpsc::unbounded_channel();
        let (tell, connections) = mpsc::channel(1);
        let failures = Arc::default();
        tokio::spawn(dial(dialer, ordered, tell, Arc::clone(&failures)));
        let dialing = Self {
            orders,
            connections,
            failures,
        };
        dialing.go();
        dialing
    }

    /// The connection was lost; dials again.
    pub(super) fn go(&self) {
        let _ = self.orders.send(Order::Go);
    }

    pub(super) fn set_targets(&self, targets: Vec<Target>) {
        let _ = self.orders.send(Order::Targets(targets));
    }

    /// Waits for the next connection.
    async fn next(&mut self) -> Connection {
        match self.connections.recv().await {
            Some(connection) => connection,
            // The task ends with us.
            None => std::future::pending().await,
        }
    }

    /// See [`Self::next`]; for ever, where there is nothing to dial with.
    pub(super) async fn next_of(dialing: &mut Option<Self>) -> Connection {
        match dialing {
            Some(dialing) => dialing.next().await,
            None => std::future::pending().await,
        }
    }

    /// Why there is none yet: address or name, and what failed.
    pub(super) fn failures(&self) -> Vec<String> {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn dial(
    mut dialer: Dialer,
    mut orders: mpsc::UnboundedReceiver<Order>,
    connections: mpsc::Sender<Connection>,
    failures: Arc<Mutex<Vec<String>>>,
) {
    let mut dials = false;
    loop {
        let order = if dials {
            tokio::select! {
                biased;
                order = orders.recv() => Some(order),
                connected = tokio::time::timeout(ROUND, dialer.connect()) => {
                    if let Ok(connection) = connected {
                        dials = false;
                        if connections.send(connection).await.is_err() {
                            return;
                        }
                    }
                    None
                }
            }
        } else {
            Some(orders.recv().await)
        };
        match order {
            None => {
                let failed = dialer.failures().iter();
                let failed = failed.map(|(target, why)| format!("{target}: {why}"));
                *failures.lock().unwrap_or_else(PoisonError::into_inner) = failed.collect();
            }
            Some(None) => return,
            Some(Some(Order::Go)) => dials = true,
            Some(Some(Order::Targets(targets))) => dialer.set_targets(targets),
        }
    }
}

/// The files of certificates and keys.
#[derive(Debug)]
pub(super) struct Files(Vec<ConfigFile>);

impl Files {
    pub(super) fn new(hub: &HubConfig) -> Self {
        match &hub.identity {
            NodeIdentity::Files {
                ca,
                certificate,
                key,
            } => Self(
                [ca, certificate, key]
                    .map(|path| ConfigFile::new(path))
                    .into(),
            ),
            // What a token brings is renewed by ourselves.
            NodeIdentity::Token(_) => Self(Vec::new()),
        }
    }

    /// Whether one of them is another than the last time.
    pub(super) fn have_changed(&mut self) -> bool {
        let changed: Vec<bool> = self.0.iter_mut().map(ConfigFile::has_changed).collect();
        changed.contains(&true)
    }
}
