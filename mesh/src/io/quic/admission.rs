//! How many may come: handshakes, from one source, and connections of one peer.

use super::handshake::HandshakeError;
use super::{Connection, code};
use crate::trust::PeerId;
use quinn::Incoming;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most handshakes at a time; each holds some 50 KiB for at most three seconds.
pub(super) const HANDSHAKES: usize = 1024;
/// The most of them from one address, or from one /64.
const HANDSHAKES_PER_SOURCE: usize = 128;
/// The most guests at a time, each for at most three seconds.
const GUESTS: usize = 64;
/// The most of them from one address, or from one /64: as many nodes behind one address enrol at the same moment.
const GUESTS_PER_SOURCE: usize = 16;
/// The most connections of one peer: one, and some that died and have not timed out.
const PER_PEER: usize = 4;

/// What the handshakes share.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<Counts>);

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) refusals: BTreeMap<&'static str, u64>,
    pub(super) going_on: usize,
    sources: BTreeMap<IpAddr, usize>,
    guests: usize,
    guest_sources: BTreeMap<IpAddr, usize>,
    peers: BTreeMap<PeerId, VecDeque<quinn::Connection>>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn refuse(&self, address: SocketAddr, error: &HandshakeError) {
        self.refuse_by_name(address, error.name(), error);
    }

    pub(super) fn refuse_by_name(
        &self,
        address: SocketAddr,
        reason: &'static str,
        error: &dyn Display,
    ) {
        let mut counts = self.lock();
        let count = counts.refusals.entry(reason).or_default();
        *count += 1;
        let count = *count;
        drop(counts);
        // A flood of them doubles before it is told of again.
        if count.is_power_of_two() {
            tracing::warn!(%address, reason, %error, count, "connection refused");
        } else {
            tracing::debug!(%address, reason, %error, count, "connection refused");
        }
    }
}

/// A handshake that is going on, in the counts.
pub(super) struct Place {
    shared: Arc<Shared>,
    /// Not known for certain before the address was validated.
    source: Option<IpAddr>,
}

impl Place {
    pub(super) fn take(shared: &Arc<Shared>, incoming: &Incoming) -> Option<Self> {
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
        if let Some(source) = self.source {
            leave(&mut counts.sources, source);
        }
    }
}

/// A guest that is here, in the counts.
#[derive(Debug)]
pub(super) struct GuestPlace {
    pub(super) shared: Arc<Shared>,
    pub(super) address: SocketAddr,
}

impl GuestPlace {
    /// The handshake is done, so the address is the guest's.
    pub(super) fn take(shared: &Arc<Shared>, address: SocketAddr) -> Option<Self> {
        let mut counts = shared.lock();
        let theirs = counts.guest_sources.get(&source(address));
        if counts.guests >= GUESTS || theirs.is_some_and(|theirs| *theirs >= GUESTS_PER_SOURCE) {
            return None;
        }
        counts.guests += 1;
        *counts.guest_sources.entry(source(address)).or_default() += 1;
        Some(Self {
            shared: Arc::clone(shared),
            address,
        })
    }
}

impl Drop for GuestPlace {
    fn drop(&mut self) {
        let mut counts = self.shared.lock();
        counts.guests -= 1;
        leave(&mut counts.guest_sources, source(self.address));
    }
}

fn leave(sources: &mut BTreeMap<IpAddr, usize>, source: IpAddr) {
    if let Some(theirs) = sources.get_mut(&source) {
        *theirs -= 1;
        if *theirs == 0 {
            sources.remove(&source);
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

/// Counts a peer's connections; the oldest makes room.
pub(super) fn admit(shared: &Arc<Shared>, connection: &Connection) {
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
