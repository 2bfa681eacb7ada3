//! A pair of lanes, one of this node's and one of a peer's: its engine, where the peer is reached, and what waits for the
//! handshake.
//!
//! Most pairs of a large mesh carry nothing. Such a pair is its keys and a few numbers: the engine is made when somebody
//! wants a session, and goes, with its keys wiped, when there is none any more.

use crate::batch::{Batch, Datagrams};
use crate::engine::{Engine as _, Handshake, LaneEngine, Memory, Opened};
use crate::key::{PresharedKey, PublicKey};
use crate::node::NodeId;
use crate::own_key::OwnKey;
use crate::reject::{Drops, Reject};
use crate::wireguard::Message;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

mod active;
mod change;
mod number;
mod waiting;
use active::Active;
pub use number::{LaneNumber, NoSuchLane};
pub use waiting::MAX_WAITING;

/// The same where there is a session: a handshake that renews it may be lost once without a meaning.
const UNANSWERED: Duration = Duration::from_secs(2);

/// How often a lane's lock is looked at before others are let run: less than a batch takes.
const SPINS: u32 = 64;

/// A pair of lanes that nobody has answered on for so long is passed by, where the peer has another that works: one of the
/// two may know of fewer lanes, or of another key, than the other.
const SILENCE: Duration = Duration::from_millis(500);

/// Responses to one initiation that are looked at. One is right; it may come twice, and others may be
/// forged.
const ANSWERS: u8 = 8;

/// The keys of one lane pair and what was made of them.
pub struct Lane {
    key: Arc<OwnKey>,
    peer: NodeId,
    /// Of this node's lanes the one whose key, socket and threads it has.
    own: LaneNumber,
    /// What waited for a session is the sending thread's to send: nobody else's, or later packets of that thread would
    /// overtake it on their way to the socket.
    ordered: bool,
    index: u32,
    public_key: PublicKey,
    preshared_key: Option<PresharedKey>,
    /// There must be a pre-shared key and there is none: packets wait, and no session is made.
    awaits_key: bool,
    /// Whether the endpoint is an IPv6 address: what the size of a plaintext depends on.
    over_ipv6: AtomicBool,
    /// Whether there may be an engine, whose timers run. Read without the lock: most lanes have none.
    awake: AtomicBool,
    /// Packets can be sealed: what a thread sees that picks a lane, without its lock.
    proven: AtomicBool,
    /// Nobody has answered for [`SILENCE`], or too much waits.
    silent: AtomicBool,
    /// There is a session for what waited.
    released: AtomicBool,
    state: Mutex<LaneState>,
}

#[derive(Debug)]
struct LaneState {
    /// While there is a session, or somebody wants one.
    active: Option<Box<Active>>,
    /// What the next engine has to know.
    memory: Memory,
    endpoint: Option<SocketAddr>,
    /// Another pair has taken its place: no new session is made, and what still comes by the last is opened.
    withdrawn: bool,
    /// No state asks for this lane any more.
    closed: bool,
    /// When a session was last asked for, though nobody needed one.
    knocked: Option<Instant>,
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
    pub(crate) key: &'a Arc<OwnKey>,
    /// Random upper 24 bits of the session indices.
    pub(crate) index: u32,
    /// What waited is sent by [`Lane::send_released`] alone.
    pub(crate) ordered: bool,
}

impl Lane {
    pub(crate) fn new(peer: NodeId, desired: &crate::state::Lane, keys: &LaneKeys<'_>) -> Self {
        Self {
            key: Arc::clone(keys.key),
            peer,
            own: keys.own,
            ordered: keys.ordered,
            index: keys.index,
            public_key: desired.public_key,
            preshared_key: desired.preshared_key.clone(),
            awaits_key: desired.awaits_key(),
            over_ipv6: AtomicBool::new(desired.endpoint.is_some_and(|at| at.is_ipv6())),
            awake: AtomicBool::new(false),
            proven: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            released: AtomicBool::new(false),
            state: Mutex::new(LaneState {
                active: None,
                memory: Memory::new(keys.index),
                endpoint: desired.endpoint,
                withdrawn: false,
                closed: false,
                knocked: None,
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

    /// Whether it has a session or wants one, as far as is known without asking.
    pub(crate) fn is_awake(&self) -> bool {
        self.awake.load(Ordering::Relaxed)
    }

    /// Whether packets can be sealed, as far as is known without asking.
    pub(crate) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// Whether a session is asked for in vain: the peer may not know this pair yet.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// The random upper 24 bits of its session indices.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Whether a pre-shared key is in use.
    pub fn has_preshared_key(&self) -> bool {
        self.preshared_key.is_some()
    }

    /// Where a session may be asked for.
    fn asks_at(&self, endpoint: Option<SocketAddr>) -> Option<SocketAddr> {
        endpoint.filter(|_| !self.awaits_key)
    }

    /// Why a packet that waited is dropped: by this reason, unless it waited for more than a session.
    pub(crate) fn waits_for(&self, session: Reject) -> Reject {
        match self.awaits_key {
            true => Reject::NoPresharedKey,
            false => session,
        }
    }

    /// Where the peer is reached, if there is a session.
    pub(crate) fn in_use(&self, now: Instant) -> Option<SocketAddr> {
        let state = self.lock();
        let active = state.active.as_ref()?;
        state.endpoint.filter(|_| active.is_ready(now))
    }

    /// An address of the family over which the peer is reached now.
    pub(crate) fn family(&self) -> IpAddr {
        match self.over_ipv6.load(Ordering::Relaxed) {
            true => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
            false => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        }
    }

    /// Held for one batch at most, by the lane's two threads and now and then by another: whoever comes meanwhile lets
    /// others run, and is not put to sleep and woken by the kernel, which would take longer.
    fn lock(&self) -> MutexGuard<'_, LaneState> {
        loop {
            for _ in 0..SPINS {
                match self.state.try_lock() {
                    Ok(state) => return state,
                    // No code under this lock panics half way; a poisoned lock is as good as another.
                    Err(TryLockError::Poisoned(state)) => return state.into_inner(),
                    Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
                }
            }
            std::thread::yield_now();
        }
    }

    /// What is active of a lane, made where it is not there.
    fn wake<'a>(&self, active: &'a mut Option<Box<Active>>, memory: Memory) -> &'a mut Active {
        active.get_or_insert_with(|| {
            self.awake.store(true, Ordering::Relaxed);
            let preshared = self.preshared_key.as_ref();
            let engine = LaneEngine::resume(&self.key.private, &self.public_key, preshared, memory);
            Box::new(Active::new(engine))
        })
    }

    /// Lets go of an engine that nobody needs any more.
    fn rest(&self, state: &mut LaneState) {
        if state.active.as_ref().is_some_and(|active| active.is_idle()) {
            self.let_go(state);
        }
    }

    fn let_go(&self, state: &mut LaneState) {
        if let Some(active) = state.active.take() {
            state.memory = active.engine.memory();
            self.awake.store(false, Ordering::Relaxed);
        }
    }

    /// Shows to whoever picks a lane what has become of this one.
    fn show(&self, state: &mut LaneState, now: Instant) {
        let (mut ready, mut silent, mut released) = (false, false, false);
        if let Some(active) = state.active.as_mut().filter(|_| !state.closed) {
            ready = active.is_ready(now);
            if ready {
                active.without = None;
                // The session goes on, and its peer may have forgotten it.
                let tries = active.engine.trying_since();
                silent = tries.is_some_and(|at| now.saturating_duration_since(at) >= UNANSWERED);
            } else if !active.is_wanted() {
                active.without = None;
            } else {
                let since = *active.without.get_or_insert(now);
                silent = now.saturating_duration_since(since) >= SILENCE
                    || active.waiting.len() > MAX_WAITING / 2;
            }
            released = self.ordered && ready && !active.waiting.is_empty();
        }
        self.proven.store(ready, Ordering::Relaxed);
        self.silent.store(silent, Ordering::Relaxed);
        self.released.store(released, Ordering::Relaxed);
    }

    /// Whether there is a session for what waited, and nobody has sent it yet.
    pub(crate) fn is_released(&self) -> bool {
        self.released.load(Ordering::Relaxed)
    }

    /// Seals what waited; by the thread that sends over this lane.
    pub(crate) fn send_released(&self, now: Instant, out: &mut Datagrams) {
        let state = &mut *self.lock();
        if let (Some(active), Some(endpoint)) = (&mut state.active, state.endpoint)
            && active.is_ready(now)
        {
            active.send_waiting(endpoint, now, &mut state.totals, out);
        }
        self.show(state, now);
    }

    /// What waits, for another lane to send.
    pub(crate) fn take_waiting(&self) -> Batch<()> {
        if !self.awake.load(Ordering::Relaxed) {
            return Batch::default();
        }
        let mut state = self.lock();
        let active = state.active.as_mut();
        active.map_or_else(Batch::default, |active| active.waiting.take())
    }

    fn roam(&self, place: &mut Option<SocketAddr>, endpoint: SocketAddr) {
        if *place != Some(endpoint) {
            *place = Some(endpoint);
            self.over_ipv6.store(endpoint.is_ipv6(), Ordering::Relaxed);
        }
    }

    /// A new endpoint from control. The peer may have roamed since; that wins when it speaks.
    pub(crate) fn set_endpoint(&self, endpoint: Option<SocketAddr>) {
        if let Some(endpoint) = endpoint {
            self.roam(&mut self.lock().endpoint, endpoint);
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
        let state = &mut *self.lock();
        let count = plaintexts.len() as u64;
        if state.closed {
            drops.add(Reject::PeerRemoved, count);
            return false;
        }
        let Some(endpoint) = state.endpoint else {
            drops.add(Reject::NoEndpoint, count);
            return false;
        };
        let active = self.wake(&mut state.active, state.memory);
        active.last_sent = Some(now);
        if active.is_ready(now) {
            // Whatever waited comes first.
            if !active.waiting.is_empty() {
                active.send_waiting(endpoint, now, &mut state.totals, out);
            }
            active.seal(plaintexts, endpoint, now, &mut state.totals, out);
            return true;
        }
        let full = self.waits_for(Reject::QueueFull);
        for (plaintext, _) in plaintexts.iter() {
            active.waiting.push(plaintext, now, (full, drops));
        }
        active.wanted = Some(now);
        active.knocks = false;
        active.initiate(false, self.asks_at(state.endpoint), now, out);
        self.show(state, now);
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
        let state = &mut *self.lock();
        let Some(active) = &mut state.active else {
            messages.for_each(|_| opened.push(&[], Opened::Rejected(Reject::WgNoSession)));
            return;
        };
        let first = opened.len();
        active.engine.open(messages, now, opened);
        let mut proven = false;
        for (plaintext, result) in opened.iter().skip(first) {
            proven |= !matches!(result, Opened::Rejected(_));
            if *result == Opened::Packet {
                active.last_received = Some(now);
                active.unanswered.get_or_insert(now);
                state.totals.rx_packets += 1;
                state.totals.rx_bytes += plaintext.len() as u64;
            }
        }
        if proven {
            active.confirmed = true;
            self.roam(&mut state.endpoint, from);
            let unordered = state.endpoint.filter(|_| !self.ordered);
            active.session_made(unordered, now, &mut state.totals, out);
            self.show(state, now);
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
        let state = &mut *self.lock();
        let done = self.judge_handshake(state, message, from, now, out);
        // A message that was refused, or a replay, may have made an engine for nothing.
        self.rest(state);
        self.show(state, now);
        done
    }

    fn judge_handshake(
        &self,
        state: &mut LaneState,
        message: &[u8],
        from: SocketAddr,
        now: Instant,
        out: &mut Datagrams,
    ) -> Result<(), Reject> {
        let kind = Message::parse(message)?;
        if state.closed || state.withdrawn {
            return Err(Reject::WgUnknownPeer);
        }
        if self.awaits_key {
            return Err(Reject::WgNoPresharedKey);
        }
        let active = match kind {
            Message::Initiation => self.wake(&mut state.active, state.memory),
            // Whoever asked for these is there.
            Message::Response { .. } | Message::Cookie { .. } | Message::Data { .. } => {
                state.active.as_mut().ok_or(Reject::WgHandshake)?
            }
        };
        // Who saw our initiation can send any number of answers to it; all others miss its index, and use up nothing.
        if let Message::Response { receiver } = kind {
            if !active.engine.awaits(receiver) {
                return Err(Reject::WgHandshake);
            }
            active.answers = active.answers.saturating_add(1);
            if active.answers > ANSWERS {
                return Err(Reject::WgSourceLimit);
            }
        }
        let mut reply = Vec::new();
        if active.engine.handle_handshake(message, now, &mut reply)? == Handshake::Done {
            active.take_cookie(state.endpoint, now, out);
            return Ok(());
        }
        out.push(&reply, from);
        active.unanswered = None;
        active.knocks = false;
        // An answer to our own initiation is fresh. An initiation may be an old one that somebody
        // else sends again: it is answered where it came from, and moves nothing until data opens.
        let fresh = matches!(kind, Message::Response { .. });
        if fresh || state.endpoint.is_none() {
            self.roam(&mut state.endpoint, from);
        }
        if fresh {
            active.confirmed = true;
            // Also where the session before was made at this very moment.
            active.made = None;
            let unordered = state.endpoint.filter(|_| !self.ordered);
            active.session_made(unordered, now, &mut state.totals, out);
        }
        Ok(())
    }

    /// Starts a handshake at once, whether or not a session is there (a forced rekey). A peer that was never told where it
    /// is has to begin itself.
    pub(crate) fn initiate(&self, now: Instant, out: &mut Datagrams) {
        let state = &mut *self.lock();
        if self.asks_at(state.endpoint).is_some() && !state.closed && !state.withdrawn {
            let active = self.wake(&mut state.active, state.memory);
            active.wanted = Some(now);
            active.knocks = false;
            active.initiate(true, state.endpoint, now, out);
        }
    }

    /// Shows the peer from where this node sends now, if there is a session.
    pub(crate) fn announce(&self, now: Instant, out: &mut Datagrams) {
        let state = &mut *self.lock();
        if let (Some(endpoint), Some(active)) = (state.endpoint, &mut state.active)
            && active.is_ready(now)
        {
            active.say_nothing(endpoint, now, out);
        }
    }

    /// Advances the engine's timers, and attempts that it gave up or forgot.
    pub(crate) fn handle_timeout(&self, now: Instant, drops: &Drops, out: &mut Datagrams) {
        if !self.awake.load(Ordering::Relaxed) {
            return;
        }
        let state = &mut *self.lock();
        if let Some(active) = &mut state.active {
            let expired = self.waits_for(Reject::QueueExpired);
            active.waiting.expire(now, (expired, drops));
            let does = (!self.ordered, !state.withdrawn);
            active.handle_timeout(state.endpoint, does, now, &mut state.totals, out);
            if !state.withdrawn {
                active.try_again(self.asks_at(state.endpoint), now, out);
            }
        }
        if state
            .active
            .as_ref()
            .is_some_and(|active| active.knocked_in_vain(now))
        {
            self.let_go(state);
        }
        self.rest(state);
        self.show(state, now);
    }

    pub(crate) fn snapshot(&self, now: Instant) -> Snapshot {
        let state = self.lock();
        let active = state.active.as_ref().filter(|active| active.confirmed);
        Snapshot {
            endpoint: state.endpoint,
            handshake_age: active.and_then(|active| active.engine.session_age(now)),
            totals: state.totals,
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

#[cfg(test)]
mod tests;
