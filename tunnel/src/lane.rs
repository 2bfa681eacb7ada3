//! A pair of lanes, one of this node's and one of a peer's: its engine, where the peer is reached, and what waits for the
//! handshake.

use crate::batch::{Batch, Datagrams};
use crate::engine::{Engine, Handshake, LaneEngine, Opened, Timeout};
use crate::key::{PresharedKey, PrivateKey, PublicKey};
use crate::node::NodeId;
use crate::reject::{Drops, Reject};
use crate::wireguard::Message;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

mod number;
mod waiting;
pub use number::{LaneNumber, NoSuchLane};
pub use waiting::MAX_WAITING;
use waiting::Waiting;

/// Demand for a session is remembered so long after the last packet: through the time in which the
/// old keys are still kept.
const DEMAND: Duration = Duration::from_secs(540);

/// An attempt that nobody answered is repeated after this: WireGuard's REKEY_TIMEOUT and its jitter. The engine repeats its
/// own; this is for those that it gave up.
const RETRY: Duration = Duration::from_millis(5_333);

/// A pair of lanes that nobody has answered on for so long is passed by, where the peer has another that works: one of the
/// two may know of fewer lanes, or of another key, than the other.
const SILENCE: Duration = Duration::from_secs(1);

/// Responses to one initiation that are looked at. One is right; it may come twice, and others may be
/// forged.
const ANSWERS: u8 = 8;

/// WireGuard's KEEPALIVE_TIMEOUT: who got data shows after this that it is there, if it has said nothing since. The engine
/// does so first; this is for data of a session on which nothing could be sent then.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// The keys of one lane pair and what was made of them.
pub struct Lane {
    peer: NodeId,
    /// Of this node's lanes the one whose key, socket and threads it has.
    own: LaneNumber,
    index: u32,
    public_key: PublicKey,
    preshared_key: Option<PresharedKey>,
    /// Whether the endpoint is an IPv6 address: what the size of a plaintext depends on.
    over_ipv6: AtomicBool,
    /// Packets can be sealed: what a thread sees that picks a lane, without its lock.
    proven: AtomicBool,
    /// Nobody has answered for [`SILENCE`].
    silent: AtomicBool,
    state: Mutex<LaneState>,
}

#[derive(Debug)]
struct LaneState {
    engine: LaneEngine,
    endpoint: Option<SocketAddr>,
    waiting: Waiting,
    /// The peer has shown that it has the session too: it answered our initiation, or data of it
    /// opened here. Nothing is sealed before.
    confirmed: bool,
    /// Somebody wants a session; attempts go on until there is one.
    wanted: bool,
    /// No state asks for this lane any more.
    closed: bool,
    last_initiation: Option<Instant>,
    /// Responses that were looked at since the last initiation.
    answers: u8,
    /// Since when a session is wanted that is not there.
    without: Option<Instant>,
    /// When a cookie made us initiate again before it was time.
    last_cookie: Option<Instant>,
    last_sent: Option<Instant>,
    /// When the first data came of all that the peer has had no authenticated message for.
    unanswered: Option<Instant>,
    /// When the session in use was made.
    made: Option<Instant>,
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
    pub(crate) own: LaneNumber,
    pub(crate) private: &'a PrivateKey,
    /// Random upper 24 bits of the session indices.
    pub(crate) index: u32,
    /// A handshake starts at once, not by the first packet.
    pub(crate) eager: bool,
}

impl Lane {
    pub(crate) fn new(peer: NodeId, desired: &crate::state::Lane, keys: &LaneKeys<'_>) -> Self {
        let preshared = desired.preshared_key.as_ref();
        let engine = LaneEngine::new(keys.private, &desired.public_key, preshared, keys.index);
        Self {
            peer,
            own: keys.own,
            index: keys.index,
            public_key: desired.public_key,
            preshared_key: desired.preshared_key.clone(),
            over_ipv6: AtomicBool::new(desired.endpoint.is_some_and(|at| at.is_ipv6())),
            proven: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            state: Mutex::new(LaneState {
                engine,
                endpoint: desired.endpoint,
                waiting: Waiting::default(),
                confirmed: false,
                wanted: keys.eager && desired.endpoint.is_some(),
                closed: false,
                last_initiation: None,
                answers: 0,
                without: None,
                last_cookie: None,
                last_sent: None,
                unanswered: None,
                made: None,
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

    /// Which of this node's lanes it belongs to.
    pub fn own(&self) -> LaneNumber {
        self.own
    }

    /// Whether packets can be sealed, as far as is known without asking.
    pub(crate) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Whether a session was asked for in vain for a while: the peer may not know this pair yet.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// Whether this node wants anything of it: it has a session or asks for one.
    pub(crate) fn is_alive(&self, now: Instant) -> bool {
        let state = self.lock();
        !state.closed && (state.is_ready(now) || state.is_wanted())
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
    pub(crate) fn serves(
        &self,
        peer: NodeId,
        own: LaneNumber,
        desired: &crate::state::Lane,
    ) -> bool {
        (self.peer, self.own, self.public_key) == (peer, own, desired.public_key)
            && self.preshared_key == desired.preshared_key
    }

    /// Where the peer is reached, if there is a session.
    pub(crate) fn in_use(&self, now: Instant) -> Option<SocketAddr> {
        let state = self.lock();
        state.endpoint.filter(|_| state.is_ready(now))
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

    /// Shows to whoever picks a lane what has become of this one.
    fn show(&self, state: &mut LaneState, now: Instant) {
        let ready = state.is_ready(now) && !state.closed;
        if ready || !state.is_wanted() {
            state.without = None;
        } else {
            state.without.get_or_insert(now);
        }
        let silent = state
            .without
            .is_some_and(|since| now.saturating_duration_since(since) >= SILENCE);
        self.proven.store(ready, Ordering::Relaxed);
        self.silent.store(silent, Ordering::Relaxed);
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
        let count = plaintexts.len() as u64;
        if state.closed {
            drops.add(Reject::PeerRemoved, count);
            return false;
        }
        state.last_sent = Some(now);
        let Some(endpoint) = state.endpoint else {
            drops.add(Reject::NoEndpoint, count);
            return false;
        };
        if state.is_ready(now) {
            state.seal(plaintexts, endpoint, now, out);
            return true;
        }
        for (plaintext, _) in plaintexts.iter() {
            state.waiting.push(plaintext, now, drops);
        }
        state.wanted = true;
        state.initiate(false, now, out);
        self.show(&mut state, now);
        false
    }

    /// Ends the lane; what still waited is the caller's.
    pub(crate) fn close(&self) -> Batch<()> {
        let mut state = self.lock();
        state.closed = true;
        self.proven.store(false, Ordering::Relaxed);
        state.waiting.take()
    }

    /// What waits, for another lane to send.
    pub(crate) fn take_waiting(&self) -> Batch<()> {
        self.lock().waiting.take()
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
        if state.closed {
            // Its table goes as soon as another is made; until then nothing is opened by keys that were given up.
            for _ in messages {
                opened.push(&[], Opened::Rejected(Reject::WgNoSession));
            }
            return;
        }
        let first = opened.len();
        state.engine.open(messages, now, opened);
        let mut proven = false;
        for (plaintext, result) in opened.iter().skip(first) {
            proven |= !matches!(result, Opened::Rejected(_));
            if *result == Opened::Packet {
                state.unanswered.get_or_insert(now);
                state.totals.rx_packets += 1;
                state.totals.rx_bytes += plaintext.len() as u64;
            }
        }
        if proven {
            state.confirmed = true;
            self.roam(&mut state, from);
            state.session_made(now, out);
            self.show(&mut state, now);
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
        if state.closed {
            return Err(Reject::WgUnknownPeer);
        }
        // Who saw our initiation can send any number of answers to it; all others miss its index, and use up nothing.
        if let Ok(Message::Response { receiver }) = Message::parse(message) {
            if !state.engine.awaits(receiver) {
                return Err(Reject::WgHandshake);
            }
            state.answers = state.answers.saturating_add(1);
            if state.answers > ANSWERS {
                return Err(Reject::WgSourceLimit);
            }
        }
        if state.engine.handle_handshake(message, now, &mut reply)? == Handshake::Done {
            // The peer is under load and wants proof of our address, which we now have. Whoever
            // sees our messages can make us come again this way: once, then it waits its time.
            let lately = |at| now.saturating_duration_since(at) < RETRY;
            if !state.last_cookie.is_some_and(lately) {
                state.last_cookie = Some(now);
                state.initiate(true, now, out);
            }
            return Ok(());
        }
        out.push(&reply, from);
        state.unanswered = None;
        // An answer to our own initiation is fresh. An initiation may be an old one that somebody
        // else sends again: it is answered where it came from, and moves nothing until data opens.
        let fresh = matches!(Message::parse(message), Ok(Message::Response { .. }));
        if fresh || state.endpoint.is_none() {
            self.roam(&mut state, from);
        }
        if fresh {
            state.confirmed = true;
            // Also where the session before was made at this very moment.
            state.made = None;
            state.session_made(now, out);
            self.show(&mut state, now);
        }
        Ok(())
    }

    /// Starts a handshake at once, whether or not a session is there (a forced rekey).
    pub(crate) fn initiate(&self, now: Instant, out: &mut Datagrams) {
        let mut state = self.lock();
        state.wanted = true;
        state.initiate(true, now, out);
    }

    /// Shows the peer from where this node sends now, if there is a session.
    pub(crate) fn announce(&self, now: Instant, out: &mut Datagrams) {
        let mut state = self.lock();
        if let Some(endpoint) = state.endpoint
            && state.is_ready(now)
        {
            state.say_nothing(endpoint, now, out);
        }
    }

    /// Advances the engine's timers, and attempts that it gave up or forgot.
    pub(crate) fn handle_timeout(&self, now: Instant, drops: &Drops, out: &mut Datagrams) {
        let mut message = Vec::new();
        let mut state = self.lock();
        if state.closed {
            return;
        }
        match state.engine.handle_timeout(now, &mut message) {
            Timeout::Idle => {}
            Timeout::Send => {
                if matches!(Message::parse(&message), Ok(Message::Initiation)) {
                    state.last_initiation = Some(now);
                    state.answers = 0;
                }
                state.unanswered = None;
                if let Some(endpoint) = state.endpoint {
                    out.push(&message, endpoint);
                }
            }
            Timeout::Expired => {
                let lately = |at| now.saturating_duration_since(at) < DEMAND;
                state.wanted |= state.last_sent.is_some_and(lately);
                if state.is_wanted() {
                    state.initiate(true, now, out);
                }
            }
        }
        state.waiting.expire(now, drops);
        state.session_made(now, out);
        state.keep_alive(now, out);
        let answered = |at| now.saturating_duration_since(at) < RETRY;
        let patient = state.last_initiation.is_some_and(answered);
        if state.is_wanted() && !state.is_ready(now) && !patient {
            state.initiate(true, now, out);
        }
        self.show(&mut state, now);
    }

    pub(crate) fn snapshot(&self, now: Instant) -> Snapshot {
        let state = self.lock();
        let age = state.engine.session_age(now);
        Snapshot {
            endpoint: state.endpoint,
            handshake_age: age.filter(|_| state.confirmed),
            totals: state.totals,
        }
    }
}

impl LaneState {
    fn is_ready(&self, now: Instant) -> bool {
        self.confirmed && self.engine.session_age(now).is_some()
    }

    fn is_wanted(&self) -> bool {
        !self.closed && (self.wanted || !self.waiting.is_empty())
    }

    fn seal<T>(
        &mut self,
        plaintexts: &Batch<T>,
        endpoint: SocketAddr,
        now: Instant,
        out: &mut Datagrams,
    ) {
        self.totals.tx_packets += plaintexts.len() as u64;
        self.totals.tx_bytes += plaintexts.bytes() as u64;
        self.unanswered = None;
        self.engine.seal(plaintexts, endpoint, now, out);
    }

    /// Says that we are there to a peer that has sent data and heard nothing since.
    fn keep_alive(&mut self, now: Instant, out: &mut Datagrams) {
        let due = |at| now.saturating_duration_since(at) >= KEEPALIVE;
        if self.unanswered.is_some_and(due)
            && self.is_ready(now)
            && let Some(endpoint) = self.endpoint
        {
            self.say_nothing(endpoint, now, out);
        }
    }

    /// Sends a message that carries nothing and proves that we are here.
    fn say_nothing(&mut self, endpoint: SocketAddr, now: Instant, out: &mut Datagrams) {
        let mut message = Vec::new();
        if self.engine.keepalive(now, &mut message) {
            self.unanswered = None;
            out.push(&message, endpoint);
        }
    }

    fn initiate(&mut self, again: bool, now: Instant, out: &mut Datagrams) {
        let mut message = Vec::new();
        if let Some(endpoint) = self.endpoint
            && self.engine.initiate(again, now, &mut message)
        {
            self.last_initiation = Some(now);
            self.unanswered = None;
            self.answers = 0;
            out.push(&message, endpoint);
        }
    }

    /// Notices a session that was not there, or is newer; sends what waited for it.
    fn session_made(&mut self, now: Instant, out: &mut Datagrams) {
        let age = self.engine.session_age(now);
        self.confirmed &= age.is_some();
        if !self.confirmed {
            self.made = None;
            return;
        }
        // Not by its age alone: another thread may have waited for the lane with a later time.
        let made = age.and_then(|age| now.checked_sub(age));
        if made > self.made {
            self.made = made;
            self.totals.handshakes += 1;
            self.wanted = false;
        }
        if let Some(endpoint) = self.endpoint
            && !self.waiting.is_empty()
        {
            let plaintexts = self.waiting.take();
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
