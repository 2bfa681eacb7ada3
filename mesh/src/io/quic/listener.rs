//! Connections that come.

use super::admission::{HANDSHAKES, Place, Shared, admit};
use super::guest::Guest;
use super::handshake::{HandshakeError, welcome};
use super::reset::config_by;
use super::tls::Served;
use super::{Connection, Tls, code, socket, transport};
use quinn::{Endpoint, Incoming, TokioRuntime};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

/// With so many handshakes going on, who comes must first show that it gets our answers (Retry, RFC 9000, section 8.1).
const TRUSTING: usize = 64;
/// Packets that came before their connection was looked at, in bytes, of one and of all.
const EARLY: (u64, u64) = (16 << 10, 4 << 20);

/// Who comes.
#[derive(Debug)]
pub enum Arrival {
    /// One whose certificate we take.
    Peer(Connection),
    /// One that asks one thing.
    Guest(Guest),
}

/// Accepts connections on a UDP port. Each has shown who it is before [`Self::accept`] gives it.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    accepted: mpsc::Receiver<Arrival>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Listener {
    /// Listens on an address; `[::]` takes IPv4, too. Taken are nodes of our own cluster and hubs of others.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn bind(address: SocketAddr, tls: Arc<Tls>) -> io::Result<Self> {
        Self::open(address, tls, Tls::server)
    }

    /// Listens for other agents, which derive keys with us. Taken are nodes of all clusters that are trusted.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn bind_for_keys(address: SocketAddr, tls: Arc<Tls>) -> io::Result<Self> {
        Self::open(address, tls, Tls::key_server)
    }

    fn open(address: SocketAddr, tls: Arc<Tls>, serve: Serve) -> io::Result<Self> {
        let key = tls.credentials().reset().clone();
        let Served { config, .. } = serve(&tls).map_err(io::Error::other)?;
        let endpoint = Endpoint::new(
            config_by(key),
            Some(bounded(config)),
            socket(address)?,
            Arc::new(TokioRuntime),
        )?;
        let (accepted, taken) = mpsc::channel(64);
        let shared = Arc::new(Shared::default());
        let door = Door {
            tls,
            serve,
            shared: Arc::clone(&shared),
            accepted,
        };
        let task = tokio::spawn(door.watch(endpoint.clone()));
        Ok(Self {
            endpoint,
            accepted: taken,
            shared,
            task,
        })
    }

    /// Who comes next; nobody after [`Self::close`]. May be cancelled at any time.
    pub async fn accept(&mut self) -> Option<Arrival> {
        self.accepted.recv().await
    }

    /// The next peer; guests are turned away, for where nobody answers them. May be cancelled at any time.
    pub async fn accept_peer(&mut self) -> Option<Connection> {
        loop {
            match self.accept().await? {
                Arrival::Peer(connection) => return Some(connection),
                Arrival::Guest(guest) => guest.turn_away("guests_not_served"),
            }
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// How many were refused, by the name of the reason.
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.shared.lock().refusals.clone()
    }

    /// Closes all its connections, and waits until their peers were told.
    pub async fn close(&mut self, reason: &str) {
        self.accepted.close();
        self.endpoint.close(code::DONE, reason.as_bytes());
        self.endpoint.wait_idle().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
        self.endpoint.close(code::DONE, b"going away");
    }
}

fn bounded(mut config: quinn::ServerConfig) -> quinn::ServerConfig {
    config
        .transport_config(transport(quinn::Side::Server))
        .migration(false)
        .max_incoming(2 * HANDSHAKES)
        .incoming_buffer_size(EARLY.0)
        .incoming_buffer_size_total(EARLY.1);
    config
}

/// What TLS is told for each connection that comes.
type Serve = fn(&Tls) -> Result<Served, rustls::Error>;

struct Door {
    tls: Arc<Tls>,
    serve: Serve,
    shared: Arc<Shared>,
    accepted: mpsc::Sender<Arrival>,
}

impl Door {
    async fn watch(self, endpoint: Endpoint) {
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                incoming = endpoint.accept() => match incoming {
                    Some(incoming) => self.begin(incoming, &mut handshakes),
                    None => return,
                },
                Some(_) = handshakes.join_next() => {}
            }
        }
    }

    fn begin(&self, incoming: Incoming, handshakes: &mut JoinSet<()>) {
        let address = incoming.remote_address();
        let crowded = self.shared.lock().going_on >= TRUSTING;
        if crowded && !incoming.remote_address_validated() && incoming.may_retry() {
            // It may fail only where a retry is not allowed.
            let _ = incoming.retry();
            return;
        }
        let Some(place) = Place::take(&self.shared, &incoming) else {
            // It tries again by itself; an answer would go to whoever it pretends to be.
            incoming.ignore();
            self.shared.refuse(address, &HandshakeError::Busy);
            return;
        };
        let served = (self.serve)(&self.tls);
        let begun = served
            .map_err(|error| HandshakeError::Tls(error.to_string()))
            .and_then(|served| {
                let connecting = incoming.accept_with(Arc::new(bounded(served.config)))?;
                Ok((connecting, (served.found, served.offered)))
            });
        let (connecting, known) = match begun {
            Ok(begun) => begun,
            Err(error) => return self.shared.refuse(address, &error),
        };
        let (shared, accepted) = (Arc::clone(&self.shared), self.accepted.clone());
        handshakes.spawn(async move {
            let done = welcome(connecting, known, &shared).await;
            drop(place);
            match done {
                Ok(arrival) => {
                    if let Arrival::Peer(connection) = &arrival {
                        admit(&shared, connection);
                    }
                    // Who does not accept has gone away.
                    let _ = accepted.send(arrival).await;
                }
                Err(error) => shared.refuse(address, &error),
            }
        });
    }
}
