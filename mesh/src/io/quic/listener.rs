//! Connections that come.

use super::handshake::{HandshakeError, Opener, complete};
use super::{Connection, Tls, code, socket, transport};
use crate::trust::PeerId;
use blake2::Blake2sMac256;
use blake2::digest::Mac as _;
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{Endpoint, EndpointConfig, Incoming, TokioRuntime};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use zeroize::Zeroizing;

/// With so many handshakes going on, who comes must first show that it gets our answers (Retry, RFC 9000, section 8.1).
const TRUSTING: usize = 64;
/// The most handshakes at a time; each holds some 50 KiB for at most three seconds.
const HANDSHAKES: usize = 1024;
/// The most of them from one address, or from one /64.
const HANDSHAKES_PER_SOURCE: usize = 128;
/// The most connections of one peer: one, and some that died and have not timed out.
const PER_PEER: usize = 4;
/// Packets that came before their connection was looked at, in bytes, of one and of all.
const EARLY: (u64, u64) = (16 << 10, 4 << 20);

/// Accepts connections on a UDP port. Each has shown who it is before [`Self::accept`] gives it.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    accepted: mpsc::Receiver<Connection>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Listener {
    /// Listens on an address; `[::]` takes IPv4, too. Taken are nodes of our own cluster and hubs of others.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn bind(address: SocketAddr, tls: Arc<Tls>) -> io::Result<Self> {
        let key = ResetKey(tls.credentials().reset().clone());
        let (config, _) = tls.server().map_err(io::Error::other)?;
        let endpoint = Endpoint::new(
            EndpointConfig::new(Arc::new(key)),
            Some(bounded(config)),
            socket(address)?,
            Arc::new(TokioRuntime),
        )?;
        let (accepted, taken) = mpsc::channel(64);
        let shared = Arc::new(Shared::default());
        let door = Door {
            tls,
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

    /// The next connection; none after [`Self::close`]. May be cancelled at any time.
    pub async fn accept(&mut self) -> Option<Connection> {
        self.accepted.recv().await
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

/// What the handshakes share.
#[derive(Debug, Default)]
struct Shared(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    refusals: BTreeMap<&'static str, u64>,
    going_on: usize,
    sources: BTreeMap<IpAddr, usize>,
    peers: BTreeMap<PeerId, VecDeque<quinn::Connection>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, address: SocketAddr, error: &HandshakeError) {
        let mut counts = self.lock();
        *counts.refusals.entry(error.name()).or_default() += 1;
        drop(counts);
        tracing::debug!(%address, reason = error.name(), %error, "connection refused");
    }
}

/// A handshake that is going on, in the counts.
struct Place {
    shared: Arc<Shared>,
    /// Not known for certain before the address was validated.
    source: Option<IpAddr>,
}

impl Place {
    fn take(shared: &Arc<Shared>, incoming: &Incoming) -> Option<Self> {
        let validated = incoming.remote_address_validated();
        let source = validated.then(|| source(incoming.remote_address()));
        let mut counts = shared.lock();
        if counts.going_on >= HANDSHAKES {
            return None;
        }
        if let Some(source) = source {
            let theirs = counts.sources.entry(source).or_default();
            if *theirs >= HANDSHAKES_PER_SOURCE {
                return None;
            }
            *theirs += 1;
        }
        counts.going_on += 1;
        Some(Self {
            shared: Arc::clone(shared),
            source,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.shared.lock();
        counts.going_on -= 1;
        let Some(source) = self.source else {
            return;
        };
        if let Some(theirs) = counts.sources.get_mut(&source) {
            *theirs -= 1;
            if *theirs == 0 {
                counts.sources.remove(&source);
            }
        }
    }
}

/// What one sender of packets can be told by: whoever has an IPv6 address has its /64.
fn source(address: SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
    }
}

struct Door {
    tls: Arc<Tls>,
    shared: Arc<Shared>,
    accepted: mpsc::Sender<Connection>,
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
        let config = self.tls.server();
        let begun = config
            .map_err(|error| HandshakeError::Tls(error.to_string()))
            .and_then(|(config, found)| {
                let connecting = incoming.accept_with(Arc::new(bounded(config)))?;
                Ok((connecting, found))
            });
        let (connecting, found) = match begun {
            Ok(begun) => begun,
            Err(error) => return self.shared.refuse(address, &error),
        };
        let (shared, accepted) = (Arc::clone(&self.shared), self.accepted.clone());
        handshakes.spawn(async move {
            let done = complete(connecting, found, Opener::Peer).await;
            drop(place);
            match done {
                Ok(connection) => {
                    admit(&shared, &connection);
                    // Who does not accept has gone away.
                    let _ = accepted.send(connection).await;
                }
                Err(error) => shared.refuse(address, &error),
            }
        });
    }
}

/// Counts a peer's connections; the oldest makes room.
fn admit(shared: &Arc<Shared>, connection: &Connection) {
    let quic = connection.tx.quic().clone();
    let mut counts = shared.lock();
    let theirs = counts.peers.entry(connection.peer.clone()).or_default();
    theirs.push_back(quic.clone());
    let oldest = if theirs.len() > PER_PEER {
        theirs.pop_front()
    } else {
        None
    };
    drop(counts);
    if let Some(oldest) = oldest {
        oldest.close(code::DONE, b"replaced");
    }
    let (shared, peer) = (Arc::clone(shared), connection.peer.clone());
    tokio::spawn(async move {
        quic.closed().await;
        let mut counts = shared.lock();
        let Some(theirs) = counts.peers.get_mut(&peer) else {
            return;
        };
        theirs.retain(|other| other.stable_id() != quic.stable_id());
        if theirs.is_empty() {
            counts.peers.remove(&peer);
        }
    });
}

/// Makes the tokens by which peers of a process that was killed are told that it is gone.
struct ResetKey(Zeroizing<[u8; 32]>);

impl ResetKey {
    fn mac(&self, data: &[u8]) -> Blake2sMac256 {
        let mac = Blake2sMac256::new_from_slice(&*self.0).expect("BLAKE2s takes keys of 32 bytes");
        mac.chain_update(data)
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let signature = self.mac(data).finalize().into_bytes();
        signature_out.copy_from_slice(&signature);
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let verified = self.mac(data).verify_slice(signature);
        verified.map_err(|_| CryptoError)
    }
}
