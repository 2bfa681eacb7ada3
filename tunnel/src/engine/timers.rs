//! When a session is renewed, tried again for, given up and kept alive (whitepaper, section 6).

use std::time::{Duration, Instant};

/// Age at which the initiator of a session renews it when it sends.
pub(super) const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
/// Age from which a session neither seals nor opens. Its keys are wiped then: there is no use for them until three times
/// that age, when the whitepaper wants them gone.
pub(super) const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
/// How long an initiation waits for its answer, with a jitter of [`MAX_JITTER`] at most.
pub(super) const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_JITTER: u32 = 333;
/// How long one tries before one gives up.
pub(super) const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
/// Who got data and has nothing to send says after this that it is there.
pub(super) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Age at which the initiator of a session renews it when it only receives.
pub(super) const REKEY_ON_RECEIVE: Duration = Duration::from_secs(180 - 10 - 5);
/// Who sent data and has heard nothing after this begins a handshake.
pub(super) const NEW_HANDSHAKE: Duration = Duration::from_secs(10 + 5);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Send an initiation, the first or another.
    Initiation,
    /// Send a message that carries nothing.
    Keepalive,
    /// Nobody answered for as long as one tries.
    GiveUp,
}

/// A handshake that we want: since when, and when it is tried again.
#[derive(Clone, Copy)]
struct Attempt {
    since: Instant,
    again: Instant,
}

/// The timers of one pair of keys.
#[derive(Default)]
pub(super) struct Timers {
    attempt: Option<Attempt>,
    /// A session was used that is old or worn.
    worn: bool,
    /// First data sent of all that nothing was heard after.
    unanswered: Option<Instant>,
    /// First data received of all that nothing was sent after.
    owed: Option<Instant>,
}

/// Not the same for two ends, nor for two attempts: our index differs. Nobody needs to be kept from guessing it.
fn jitter(index: u32) -> Duration {
    let mixed = index.wrapping_mul(0x9e37_79b9) >> 16;
    Duration::from_millis(u64::from(mixed % (MAX_JITTER + 1)))
}

impl Timers {
    /// Since when a handshake runs that we began.
    pub(super) fn trying_since(&self) -> Option<Instant> {
        self.attempt.map(|attempt| attempt.since)
    }

    /// Whether a handshake runs that we began.
    pub(super) fn is_trying(&self) -> bool {
        self.attempt.is_some()
    }

    /// Whether a handshake runs that we began, or one is to begin though nobody sends anything more.
    pub(super) fn wants_session(&self) -> bool {
        self.attempt.is_some() || self.worn || self.unanswered.is_some()
    }

    /// An initiation was sent that names our `index`.
    pub(super) fn initiated(&mut self, index: u32, now: Instant) {
        let since = self.attempt.map_or(now, |attempt| attempt.since);
        let again = now + REKEY_TIMEOUT + jitter(index);
        self.attempt = Some(Attempt { since, again });
        self.worn = false;
        self.unanswered = None;
        self.sent();
    }

    /// There is a new session to send on.
    pub(super) fn renewed(&mut self) {
        self.attempt = None;
        self.worn = false;
    }

    /// Something was sent that the peer can verify.
    pub(super) fn sent(&mut self) {
        self.owed = None;
    }

    /// What was sent carried data.
    pub(super) fn sent_data(&mut self, now: Instant) {
        self.unanswered.get_or_insert(now);
    }

    /// The session in use wants to be renewed.
    pub(super) fn worn(&mut self) {
        self.worn = true;
    }

    /// Something was received that verified.
    pub(super) fn received(&mut self) {
        self.unanswered = None;
    }

    /// What was received carried data.
    pub(super) fn received_data(&mut self, now: Instant) {
        self.owed.get_or_insert(now);
    }

    /// What is to be done at `now`; one thing at a time.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Due {
        let due = |since: Option<Instant>, time| {
            since.is_some_and(|at| now.saturating_duration_since(at) >= time)
        };
        match self.attempt {
            Some(attempt) if now < attempt.again => {}
            Some(attempt) if due(Some(attempt.since), REKEY_ATTEMPT_TIME) => {
                *self = Self::default();
                return Due::GiveUp;
            }
            Some(_) => return Due::Initiation,
            None if self.worn || due(self.unanswered, NEW_HANDSHAKE) => return Due::Initiation,
            None => {}
        }
        if due(self.owed, KEEPALIVE_TIMEOUT) {
            self.owed = None;
            return Due::Keepalive;
        }
        Due::Nothing
    }
}
