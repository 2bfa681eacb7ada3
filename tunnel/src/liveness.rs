//! Whether one watched peer is alive, by probes through the tunnel.
//!
//! ```text
//! Unknown                ─ the first reply ──────────────────▶ Alive
//! Unknown, Alive, Damped ─ 1.2 s of silence ─────────────────▶ Dead
//! Dead                   ─ a reply ──────────────────────────▶ Alive
//! Dead                   ─ a reply, but it died too often ───▶ Damped
//! Damped                 ─ a reply when it was held enough ──▶ Alive
//! ```
//!
//! Only a reply counts. It proves both directions; data that came proves that the peer can send,
//! which it also can when nothing of ours reaches it. A reply proves life when it arrives, however
//! late: a starved peer is not a dead one.
//!
//! A reply that is overdue makes requests come faster, so that loss does not look like death. On a
//! path below 10 ms at least 11 requests could have been answered between the last reply and the
//! verdict: one after 250 to 310 ms, one when that is overdue, then one every 75 to 90 ms. With 5 % lost
//! each way one fails by 1 − 0.95² = 0.0975, and all by 8 × 10⁻¹². A peer gives 3.6 occasions a
//! second: 200 watched peers have one false alarm in six years. On a path of 100 ms they are 10, of
//! 200 ms 9, of 300 ms 8, and beyond more again, for such a path is asked fast all the time.
//!
//! Every `now` here is of a clock that stands still while this process does: see [`Awake`]. [`Watch`]
//! has that clock, and is what a data plane uses.

use crate::probe::{Kind, Probe};
use crate::reject::Reject;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{Duration, Instant};

mod awake;
mod damping;
mod jitter;
mod pace;
mod watch;
pub use awake::{Awake, LONGEST_GAP, TICK};
use damping::Damping;
use jitter::Jitter;
use pace::Pace;
pub use watch::Watch;

/// Silence that is death. With the tick, the way of the last reply and some reserve it stays below
/// the 1.5 s that are promised from the death on.
pub const SILENCE: Duration = Duration::from_millis(1200);

/// Nobody is dead who was asked less often than this since the last reply: then we did not run well
/// enough to know, whatever the clock says.
const MIN_ASKED: u32 = 6;

/// What is thought of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// It was not watched for long enough.
    Unknown,
    /// It answers.
    Alive,
    /// It does not answer.
    Dead,
    /// It answers again, but died so often that it must go on for a while first. To be treated as dead.
    Damped,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Alive => "alive",
            Self::Dead => "dead",
            Self::Damped => "damped",
        })
    }
}

/// What changed for those who use the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer can be used.
    Alive {
        /// From the reply before to this one; from the beginning where there was none.
        silent: Duration,
    },
    /// The peer cannot be used.
    Dead {
        /// Since the last reply, or the beginning.
        silent: Duration,
    },
}

/// What `status` says of a watched peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What is thought of it.
    pub state: State,
    /// How long ago it answered, without the time in which this process did not run.
    pub last_reply: Option<Duration>,
    /// Smoothed round trip.
    pub round_trip: Option<Duration>,
    /// How often it died since it is watched.
    pub deaths: u64,
    /// For how long it is held once it answers again; zero while it does not flap.
    pub hold_down: Duration,
}

/// One watched peer.
#[derive(Debug)]
pub struct Liveness {
    state: State,
    /// The last reply, or when it began to be watched.
    proof: Instant,
    replied: bool,
    /// Requests since `proof`.
    asked: u32,
    pace: Pace,
    damping: Damping,
    deaths: u64,
    cookie: u64,
    request: Option<Probe>,
    event: Option<Event>,
}

impl Liveness {
    /// A peer that is watched from `now` on. `seed` gives its jitter and its cookie.
    pub fn new(now: Instant, seed: u64) -> Self {
        let mut jitter = Jitter::new(seed);
        Self {
            state: State::Unknown,
            proof: now,
            replied: false,
            asked: 0,
            cookie: jitter.draw(),
            pace: Pace::new(jitter),
            damping: Damping::default(),
            deaths: 0,
            request: None,
            event: None,
        }
    }

    /// Advances every timer that is due at `now`: gives the verdict, asks.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.verdict_at().is_some_and(|at| at <= now) {
            self.die(now);
        }
        if self.due().is_none_or(|at| at <= now) {
            let sequence = self.pace.ask(now);
            self.asked = self.asked.saturating_add(1);
            self.request = Some(Probe {
                kind: Kind::Request,
                sequence,
                cookie: self.cookie,
            });
        }
    }

    /// Takes a reply. One that was counted already, or answers nothing that we asked, proves nothing.
    pub fn handle_reply(&mut self, reply: Probe, now: Instant) -> Result<(), Reject> {
        let asked = reply.kind == Kind::Reply && reply.cookie == self.cookie;
        if !asked || !self.pace.answered(reply.sequence, now) {
            return Err(Reject::ProbeStale);
        }
        let silent = self.silent(now);
        let before = self.state;
        (self.proof, self.replied, self.asked) = (now, true, 0);
        if before == State::Dead {
            self.damping.answers(now);
        }
        match before {
            State::Alive => {}
            // Only a reply ends a hold-down: the peer may have fallen silent in it.
            State::Unknown | State::Dead | State::Damped if !self.damping.is_held(now) => {
                self.live(silent);
            }
            State::Unknown | State::Dead | State::Damped => self.state = State::Damped,
        }
        Ok(())
    }

    /// Returns the next request to send, if any.
    pub fn poll_transmit(&mut self) -> Option<Probe> {
        self.request.take()
    }

    /// Returns what changed, if anything. Who asks late hears of the last change only.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.event.take()
    }

    /// Returns when [`Self::handle_timeout`] wants to be called next; `None` is at once.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = self.due()?;
        Some(self.verdict_at().map_or(due, |at| at.min(due)))
    }

    /// What `status` says.
    pub fn report(&self, now: Instant) -> Report {
        Report {
            state: self.state,
            last_reply: self.replied.then(|| self.silent(now)),
            round_trip: self.pace.round_trip(),
            deaths: self.deaths,
            hold_down: self.damping.hold_down(now),
        }
    }

    fn silent(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.proof)
    }

    /// When the next request is due; `None` before the first.
    fn due(&self) -> Option<Instant> {
        match self.state {
            State::Alive | State::Damped => self.pace.watch(),
            State::Unknown | State::Dead => self.pace.seek(self.proof),
        }
    }

    /// When silence will have been death. `None` while it is known, or we asked too little to tell.
    fn verdict_at(&self) -> Option<Instant> {
        let open = match self.state {
            State::Unknown | State::Alive | State::Damped => true,
            State::Dead => false,
        };
        (open && self.asked >= MIN_ASKED).then(|| self.proof + SILENCE)
    }

    fn die(&mut self, now: Instant) {
        // To its users a damped peer is dead already.
        if self.state != State::Damped {
            self.event = Some(Event::Dead {
                silent: self.silent(now),
            });
        }
        self.state = State::Dead;
        self.deaths += 1;
        self.damping.dies(now);
    }

    fn live(&mut self, silent: Duration) {
        self.state = State::Alive;
        self.event = Some(Event::Alive { silent });
    }
}

#[cfg(test)]
mod tests;
