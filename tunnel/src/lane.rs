//! One lane of one peer: its engine, where it is reached, and what waits for its handshake.

use crate::batch::{Batch, Datagrams};
use crate::engine::{BoringtunEngine, Engine, Handshake, Opened, Timeout};
use crate::key::{PresharedKey, PrivateKey, PublicKey};
use crate::node::NodeId;
use crate::reject::{Drops, Reject};
use boringtun::noise::rate_limiter::RateLimiter;
use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Packets that wait for a handshake at most, for each lane. A handshake takes one round trip; this
/// is what a pod sends in that time at 10,000 packets a second over 25 ms, and 400 kB at most.
pub const MAX_WAITING: usize = 256;

/// Demand for a session is remembered so long after the last packet: through the time in which the
/// old keys are still kept.
const DEMAND: Duration = Duration::from_secs(540);

/// The keys of one lane pair and what was made of them.
pub struct Lane {
    peer: NodeId,
    index: u32,
    public_key: PublicKey,
    preshared_key: Option<PresharedKey>,
    /// Whether the endpoint is an IPv6 address: what the size of a plaintext depends on.
    over_ipv6: AtomicBool,
    state: Mutex<LaneState>,
}

#[derive(Debug)]
struct LaneState {
    engine: BoringtunEngine,
    endpoint: Option<SocketAddr>,
    waiting: VecDeque<Vec<u8>>,
    /// Somebody wants a session; attempts go on until there is one.
    wanted: bool,
    last_sent: Option<Instant>,
    last_age: Option<Duration>,
    totals: Totals,
}

/// What went over a lane since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Handshakes that led to a session.
    pub handshakes: u64,
    /// Plaintext bytes sealed.
    pub tx_bytes: u64,
    /// Plaintext bytes opened.
    pub rx_bytes: u64,
    /// Plaintexts sealed.
    pub tx_packets: u64,
    /// Plaintexts opened.
    pub rx_packets: u64,
}

/// A lane as [`crate::status`] shows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) handshake_age: Option<Duration>,
    pub(crate) totals: Totals,
}

/// What a lane is made of.
pub(crate) struct LaneKeys<'a> {
    pub(crate) private: &'a PrivateKey,
    pub(crate) unlimited: &'a Arc<RateLimiter>,
    /// Random upper 24 bits of the session indices.
    pub(crate) index: u32,
}

impl Lane {
    pub(crate) fn new(
        peer: NodeId,
        desired: &crate::state::Lane,
        keys: &LaneKeys<'_>,
        now: Instant,
    ) -> Self {
        let preshared = desired.preshared_key.as_ref();
        let engine = BoringtunEngine::new(
            keys.private,
            &desired.public_key,
            preshared,
            keys.index,
            Arc::clone(keys.unlimited),
            now,
        );
        Self {
            peer,
            index: keys.index,
            public_key: desired.public_key,
            preshared_key: desired.preshared_key.clone(),
            over_ipv6: AtomicBool::new(desired.endpoint.is_some_and(|at| at.is_ipv6())),
            state: Mutex::new(LaneState {
                engine,
                endpoint: desired.endpoint,
                waiting: VecDeque::new(),
                wanted: desired.endpoint.is_some(),
                last_sent: None,
                last_age: None,
                totals: Totals::default(),
            }),
        }
    }

    /// Whose lane this is.
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    /// The peer's key.
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// The random upper 24 bits of its session indices.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Whether a pre-shared key is in use.
    pub fn has_preshared_key(&self) -> bool {
        self.preshared_key.is_some()
    }

    /// Whether this lane is what a state asks for, so that its sessions may go on.
    pub(crate) fn serves(&self, peer: NodeId, desired: &crate::state::Lane) -> bool {
        (self.peer, self.public_key) == (peer, desired.public_key)
            && self.preshared_key == desired.preshared_key
    }

    /// An address of the family over which the peer is reached now.
    pub(crate) fn family(&self) -> IpAddr {
        match self.over_ipv6.load(Ordering::Relaxed) {
            true => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
            false => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        }
    }

    fn lock(&self) -> MutexGuard<'_, LaneState> {
        // No code under this lock panics half way; a poisoned lock is as good as another.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn roam(&self, state: &mut LaneState, endpoint: SocketAddr) {
        if state.endpoint != Some(endpoint) {
            state.endpoint = Some(endpoint);
            self.over_ipv6.store(endpoint.is_ipv6(), Ordering::Relaxed);
        }
    }

    /// A new endpoint from control. The peer may have roamed since; that wins when it speaks.
    pub(crate) fn set_endpoint(&self, endpoint: Option<SocketAddr>) {
        if let Some(endpoint) = endpoint {
            self.roam(&mut self.lock(), endpoint);
        }
    }

    /// Seals plaintexts, or keeps them until there is a session and starts a handshake. Returns
    /// whether they were sealed.
    pub(crate) fn send<T>(
        &self,
        plaintexts: &Batch<T>,
        now: Instant,
        drops: &Drops,
        out: &mut Datagrams,
    ) -> bool {
        let mut state = self.lock();
        state.last_sent = Some(now);
        let Some(endpoint) = state.endpoint else {
            drops.add(
                Reject::NoEndpoint,
                u64::try_from(plaintexts.len()).unwrap_or(u64::MAX),
            );
            return false;
        };
        if state.engine.session_age(now).is_some() {
            state.seal(plaintexts, endpoint, now, out);
            return true;
        }
        for (plaintext, _) in plaintexts.iter() {
            if state.waiting.len() < MAX_WAITING {
                state.waiting.push_back(plaintext.to_vec());
            } else {
                drops.count(Reject::QueueFull);
            }
        }
        state.wanted = true;
        state.initiate(false, now, out);
        false
    }

    /// Opens data messages that came from `from`. What waited goes out if they made a session.
    pub(crate) fn receive<'a>(
        &self,
        messages: impl Iterator<Item = &'a [u8]>,
        from: SocketAddr,
        now: Instant,
        opened: &mut Batch<Opened>,
        out: &mut Datagrams,
    ) {
        let mut state = self.lock();
        let first = opened.len();
        state.engine.open(messages, now, opened);
        let mut proven = false;
        for (plaintext, result) in opened.iter().skip(first) {
            proven |= !matches!(result, Opened::Rejected(_));
            if *result == Opened::Packet {
                state.totals.rx_packets += 1;
                state.totals.rx_bytes += plaintext.len() as u64;
            }
        }
        if proven {
            self.roam(&mut state, from);
            state.session_made(now, out);
        }
    }

    /// Takes a handshake message from `from`. The reply goes back to it.
    pub(crate) fn handle_handshake(
        &self,
        message: &[u8],
        from: SocketAddr,
        now: Instant,
        out: &mut Datagrams,
    ) -> Result<(), Reject> {
        let mut reply = Vec::new();
        let mut state = self.lock();
        if state.engine.handle_handshake(message, now, &mut reply)? == Handshake::Reply {
            // Only a message that proves the peer's key gets a reply; a cookie never does.
            self.roam(&mut state, from);
            out.push(&reply, from);
            state.session_made(now, out);
        }
        Ok(())
    }

    /// Starts a handshake at once, whether or not a session is there (a forced rekey).
    pub(crate) fn initiate(&self, now: Instant, out: &mut Datagrams) {
        let mut state = self.lock();
        state.wanted = true;
        state.initiate(true, now, out);
    }

    /// Advances the engine's timers.
    pub(crate) fn handle_timeout(&self, now: Instant, out: &mut Datagrams) {
        let mut message = Vec::new();
        let mut state = self.lock();
        match state.engine.handle_timeout(now, &mut message) {
            Timeout::Idle => {}
            Timeout::Send => {
                if let Some(endpoint) = state.endpoint {
                    out.push(&message, endpoint);
                }
            }
            Timeout::Expired => {
                let lately = state
                    .last_sent
                    .is_some_and(|at| now.saturating_duration_since(at) < DEMAND);
                if state.wanted || lately || !state.waiting.is_empty() {
                    state.wanted = true;
                    state.initiate(true, now, out);
                }
            }
        }
        state.session_made(now, out);
    }

    pub(crate) fn snapshot(&self, now: Instant) -> Snapshot {
        let state = self.lock();
        Snapshot {
            endpoint: state.endpoint,
            handshake_age: state.engine.session_age(now),
            totals: state.totals,
        }
    }

    /// How many packets wait for a handshake.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }
}

impl LaneState {
    fn seal<T>(
        &mut self,
        plaintexts: &Batch<T>,
        endpoint: SocketAddr,
        now: Instant,
        out: &mut Datagrams,
    ) {
        self.totals.tx_packets += plaintexts.len() as u64;
        self.totals.tx_bytes += plaintexts.bytes() as u64;
        self.engine.seal(plaintexts, endpoint, now, out);
    }

    fn initiate(&mut self, again: bool, now: Instant, out: &mut Datagrams) {
        let mut message = Vec::new();
        if let Some(endpoint) = self.endpoint
            && self.engine.initiate(again, now, &mut message)
        {
            out.push(&message, endpoint);
        }
    }

    /// Notices a session that was not there, or is newer; sends what waited for it.
    fn session_made(&mut self, now: Instant, out: &mut Datagrams) {
        let age = self.engine.session_age(now);
        let fresh = match (age, self.last_age) {
            (Some(age), Some(last)) => age < last,
            (Some(_), None) => true,
            (None, _) => false,
        };
        self.last_age = age;
        if fresh {
            self.totals.handshakes += 1;
            self.wanted = false;
        }
        let Some((endpoint, _)) = self.endpoint.zip(age) else {
            return;
        };
        if !self.waiting.is_empty() {
            let mut plaintexts = Batch::default();
            self.waiting
                .drain(..)
                .for_each(|packet| plaintexts.push(&packet, ()));
            self.seal(&plaintexts, endpoint, now, out);
        }
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("peer", &self.peer)
            .field("public_key", &self.public_key)
            .finish_non_exhaustive()
    }
}
