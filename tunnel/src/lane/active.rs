//! What a lane has only while it has a session, or wants one.

use super::Totals;
use super::waiting::Waiting;
use crate::batch::{Batch, Datagrams};
use crate::engine::{Engine as _, LaneEngine, Timeout};
use crate::wireguard::Message;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Demand for a session is remembered so long after the last packet: through the time in which the
/// old keys are still kept.
const DEMAND: Duration = Duration::from_secs(540);

/// How long a session that nobody sends anything for is tried for: WireGuard's REKEY_ATTEMPT_TIME.
const PATIENCE: Duration = Duration::from_secs(90);

/// An attempt that nobody answered is repeated after this: WireGuard's REKEY_TIMEOUT and its jitter. The engine repeats its
/// own; this is for those that it gave up.
const RETRY: Duration = Duration::from_millis(5_333);

/// An answer comes within this, or not at all; less than it takes the engine to ask again.
const ANSWER: Duration = Duration::from_secs(4);

/// WireGuard's KEEPALIVE_TIMEOUT: who got data shows after this that it is there, if it has said nothing since. The engine
/// does so first; this is for data of a session on which nothing could be sent then.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// An engine and what the lane knows of its sessions.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) engine: LaneEngine,
    pub(super) waiting: Waiting,
    /// The peer has shown that it has the session too: it answered our initiation, or data of it
    /// opened here. Nothing is sealed before.
    pub(super) confirmed: bool,
    /// Since when somebody wants a session; attempts go on until there is one.
    pub(super) wanted: Option<Instant>,
    /// Responses that were looked at since the last initiation.
    pub(super) answers: u8,
    pub(super) last_sent: Option<Instant>,
    /// When the first data came of all that the peer has had no authenticated message for.
    pub(super) unanswered: Option<Instant>,
    /// When data was opened last.
    pub(super) last_received: Option<Instant>,
    /// When the session in use was made.
    pub(super) made: Option<Instant>,
    /// Since when a session is wanted that is not there.
    pub(super) without: Option<Instant>,
    /// A session is asked for that nobody needs: once, and no more if nobody answers.
    pub(super) knocks: bool,
    last_initiation: Option<Instant>,
    /// When a cookie made us initiate again before it was time.
    last_cookie: Option<Instant>,
}

impl Active {
    pub(super) fn new(engine: LaneEngine) -> Self {
        Self {
            engine,
            waiting: Waiting::default(),
            confirmed: false,
            wanted: None,
            answers: 0,
            last_sent: None,
            unanswered: None,
            last_received: None,
            made: None,
            without: None,
            knocks: false,
            last_initiation: None,
            last_cookie: None,
        }
    }

    pub(super) fn is_ready(&self, now: Instant) -> bool {
        self.confirmed && self.engine.session_age(now).is_some()
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.is_some() || !self.waiting.is_empty()
    }

    /// Whether a session was asked for that nobody needs, and there was no answer.
    pub(super) fn knocked_in_vain(&self, now: Instant) -> bool {
        let late = |at| now.saturating_duration_since(at) >= ANSWER;
        self.knocks && !self.is_wanted() && self.last_initiation.is_some_and(late)
    }

    /// Whether nobody has or wants a session.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_wanted() && self.engine.is_idle()
    }

    pub(super) fn seal<T>(
        &mut self,
        plaintexts: &Batch<T>,
        endpoint: SocketAddr,
        now: Instant,
        totals: &mut Totals,
        out: &mut Datagrams,
    ) {
        totals.tx_packets += plaintexts.len() as u64;
        totals.tx_bytes += plaintexts.bytes() as u64;
        self.unanswered = None;
        self.engine.seal(plaintexts, endpoint, now, out);
    }

    /// Sends a message that carries nothing and proves that we are here.
    pub(super) fn say_nothing(&mut self, endpoint: SocketAddr, now: Instant, out: &mut Datagrams) {
        let mut message = Vec::new();
        if self.engine.keepalive(now, &mut message) {
            self.unanswered = None;
            out.push(&message, endpoint);
        }
    }

    pub(super) fn initiate(
        &mut self,
        again: bool,
        endpoint: Option<SocketAddr>,
        now: Instant,
        out: &mut Datagrams,
    ) {
        let mut message = Vec::new();
        if let Some(endpoint) = endpoint
            && self.engine.initiate(again, now, &mut message)
        {
            self.last_initiation = Some(now);
            self.unanswered = None;
            self.answers = 0;
            out.push(&message, endpoint);
        }
    }

    /// The peer is under load and wants proof of our address, which we now have. Whoever sees our messages can make us come
    /// again this way: once, then it waits its time.
    pub(super) fn take_cookie(
        &mut self,
        endpoint: Option<SocketAddr>,
        now: Instant,
        out: &mut Datagrams,
    ) {
        let lately = |at| now.saturating_duration_since(at) < RETRY;
        if !self.last_cookie.is_some_and(lately) {
            self.last_cookie = Some(now);
            self.initiate(true, endpoint, now, out);
        }
    }

    /// Notices a session that was not there, or is newer; with an endpoint sends what waited for it.
    pub(super) fn session_made(
        &mut self,
        endpoint: Option<SocketAddr>,
        now: Instant,
        totals: &mut Totals,
        out: &mut Datagrams,
    ) {
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
            totals.handshakes += 1;
            self.wanted = None;
        }
        if let Some(endpoint) = endpoint
            && !self.waiting.is_empty()
        {
            self.send_waiting(endpoint, now, totals, out);
        }
    }

    /// Seals what waited for the session that is there now.
    pub(super) fn send_waiting(
        &mut self,
        endpoint: SocketAddr,
        now: Instant,
        totals: &mut Totals,
        out: &mut Datagrams,
    ) {
        let plaintexts = self.waiting.take();
        self.seal(&plaintexts, endpoint, now, totals, out);
    }

    /// Advances the engine's timers, and says that we are there to a peer that has sent data and heard nothing since.
    /// `sends`: also what waited, for which a session came. `renews`: a session that wears out is renewed.
    pub(super) fn handle_timeout(
        &mut self,
        endpoint: Option<SocketAddr>,
        (sends, renews): (bool, bool),
        now: Instant,
        totals: &mut Totals,
        out: &mut Datagrams,
    ) {
        let mut message = Vec::new();
        match self.engine.handle_timeout(now, &mut message) {
            Timeout::Idle => {}
            Timeout::Send
                if !renews && matches!(Message::parse(&message), Ok(Message::Initiation)) => {}
            Timeout::Send => {
                if matches!(Message::parse(&message), Ok(Message::Initiation)) {
                    self.last_initiation = Some(now);
                    self.answers = 0;
                }
                self.unanswered = None;
                if let Some(endpoint) = endpoint {
                    out.push(&message, endpoint);
                }
            }
            Timeout::Expired => self.look_for_demand(now),
        }
        self.session_made(endpoint.filter(|_| sends), now, totals, out);
        let due = |at| now.saturating_duration_since(at) >= KEEPALIVE;
        if self.unanswered.is_some_and(due)
            && self.is_ready(now)
            && let Some(endpoint) = endpoint
        {
            self.say_nothing(endpoint, now, out);
        }
    }

    /// Whether somebody has wanted a session for longer than one tries, or the engine gave up: who sent something lately
    /// still wants it.
    fn look_for_demand(&mut self, now: Instant) {
        let lately = |at: &Instant| now.saturating_duration_since(*at) < DEMAND;
        self.wanted = self.last_sent.filter(lately).map(|_| now);
    }

    /// Repeats attempts that the engine gave up or forgot.
    pub(super) fn try_again(
        &mut self,
        endpoint: Option<SocketAddr>,
        now: Instant,
        out: &mut Datagrams,
    ) {
        let passed = |at: Instant, time| now.saturating_duration_since(at) >= time;
        if self.wanted.is_some_and(|since| passed(since, PATIENCE)) {
            self.look_for_demand(now);
        }
        let patient = self.last_initiation.is_some_and(|at| !passed(at, RETRY));
        if self.is_wanted() && !self.is_ready(now) && !patient {
            self.initiate(true, endpoint, now, out);
        }
    }
}
