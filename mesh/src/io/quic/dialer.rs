//! Connections that are opened.

use super::handshake::{HandshakeError, call, printable_error};
use super::{ALPN, Connection, Tls, socket, transport};
use crate::dial::{Action, Dial, Target};
use crate::io::resolve::Resolver;
use crate::trust::Expected;
use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;

/// More than [`crate::dial::MAX_ADDRESSES`] with their names.
const MAX_FAILURES: usize = 64;

/// Opens one connection to one address, once.
///
/// # Errors
/// Nobody answers there, or not whom we expect, or it does not take us.
pub async fn connect(
    address: SocketAddr,
    tls: &Tls,
    expected: Expected,
) -> Result<Connection, HandshakeError> {
    let (config, found) = tls
        .client(expected, ALPN)
        .map_err(|error| HandshakeError::Tls(error.to_string()))?;
    call(begin(address, config)?, found).await
}

/// Begins a connection from a socket of its own.
pub(super) fn begin(
    address: SocketAddr,
    mut config: quinn::ClientConfig,
) -> Result<quinn::Connecting, HandshakeError> {
    let unspecified = match address.ip() {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let endpoint = open(SocketAddr::new(unspecified, 0));
    let endpoint = endpoint.map_err(|error| HandshakeError::Unreachable(error.to_string()))?;
    config.transport_config(transport(quinn::Side::Client));
    // The name is not sent; who the server is, its certificate says.
    endpoint
        .connect_with(config, address, "hub")
        .map_err(|error| HandshakeError::Unreachable(error.to_string()))
}

/// A socket for each attempt: its port is the connection's alone, and is gone with it.
fn open(address: SocketAddr) -> io::Result<Endpoint> {
    let config = EndpointConfig::default();
    Endpoint::new(config, None, socket(address)?, Arc::new(TokioRuntime))
}

/// Opens connections to a cluster's hubs, as often as they are lost.
#[derive(Debug)]
pub struct Dialer {
    dial: Dial,
    tls: Arc<Tls>,
    expected: Expected,
    resolver: Resolver,
    failures: BTreeMap<String, String>,
}

enum Done {
    Connected(SocketAddr, Box<Connection>),
    Failed(SocketAddr, HandshakeError),
    Resolved(String, Vec<IpAddr>, Instant),
    Unresolved(String, String),
}

impl Dialer {
    /// Dials these targets; `seed` is drawn by lot.
    pub fn new(
        targets: Vec<Target>,
        tls: Arc<Tls>,
        expected: Expected,
        resolver: Resolver,
        seed: u64,
    ) -> Self {
        Self {
            dial: Dial::new(targets, seed),
            tls,
            expected,
            resolver,
            failures: BTreeMap::new(),
        }
    }

    /// Dials others from now on.
    pub fn set_targets(&mut self, targets: Vec<Target>) {
        self.dial.set_targets(targets);
    }

    /// Opens a connection, however long it takes. The one before is taken as lost: its address is tried last. May be
    /// cancelled at any time.
    pub async fn connect(&mut self) -> Connection {
        self.dial.handle_start(clock());
        let mut tasks = JoinSet::new();
        loop {
            while let Some(action) = self.dial.poll_action(clock()) {
                self.begin(action, &mut tasks);
            }
            let deadline = self.dial.poll_timeout();
            tokio::select! {
                Some(done) = tasks.join_next(), if !tasks.is_empty() => {
                    // A task that panicked is a bug that the panic has told of; its address is tried with the next round.
                    let Ok(done) = done else { continue };
                    if let Some(connection) = self.handle(done) {
                        return connection;
                    }
                }
                () = sleep_until(deadline) => {}
            }
        }
    }

    /// What went wrong last, by address or name, since the last connection.
    pub fn failures(&self) -> &BTreeMap<String, String> {
        &self.failures
    }

    /// Addresses come and go with names; what is too much is told again if it still fails.
    fn note(&mut self, place: String, error: String) {
        if self.failures.len() >= MAX_FAILURES {
            self.failures.clear();
        }
        self.failures.insert(place, error);
    }

    fn begin(&self, action: Action, tasks: &mut JoinSet<Done>) {
        match action {
            Action::Connect(address) => {
                let (tls, expected) = (Arc::clone(&self.tls), self.expected.clone());
                tasks.spawn(async move {
                    match connect(address, &tls, expected).await {
                        Ok(connection) => Done::Connected(address, Box::new(connection)),
                        Err(error) => Done::Failed(address, error),
                    }
                });
            }
            Action::Resolve(name) => {
                let resolver = self.resolver.clone();
                tasks.spawn(async move {
                    match resolver.addresses(&name).await {
                        Ok((addresses, valid)) => Done::Resolved(name, addresses, valid),
                        Err(error) => Done::Unresolved(name, printable_error(&error)),
                    }
                });
            }
        }
    }

    fn handle(&mut self, done: Done) -> Option<Connection> {
        let now = clock();
        match done {
            Done::Connected(address, connection) => {
                self.dial.handle_connected(address, now);
                self.failures.clear();
                return Some(*connection);
            }
            Done::Failed(address, error) => {
                tracing::debug!(%address, reason = error.name(), %error, "no connection");
                self.note(address.to_string(), error.to_string());
                self.dial.handle_failed(address, now);
            }
            Done::Resolved(name, addresses, valid) => {
                self.failures.remove(&name);
                self.dial.handle_resolved(&name, addresses, valid, now);
            }
            Done::Unresolved(name, error) => {
                tracing::debug!(%name, %error, "no address");
                self.note(name.clone(), error);
                self.dial.handle_unresolved(&name, now);
            }
        }
        None
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn clock() -> Instant {
    Instant::now()
}
