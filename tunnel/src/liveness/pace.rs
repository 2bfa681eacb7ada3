//! When a peer is asked, and what was asked and not answered.

use super::awake::TICK;
use super::jitter::Jitter;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Between requests to a peer that answers: from this ...
const STEADY: Duration = Duration::from_millis(250);
/// ... to so much more.
const STEADY_SPREAD: Duration = Duration::from_millis(60);

/// Between requests to a peer that owes a reply: from this ...
const FAST: Duration = Duration::from_millis(75);
/// ... to so much more.
const FAST_SPREAD: Duration = Duration::from_millis(15);

/// No reply is overdue earlier: schedulers need some time too.
const LEAST_PATIENCE: Duration = Duration::from_millis(50);

/// Every reply is overdue after this.
const MOST_PATIENCE: Duration = Duration::from_millis(300);

/// A peer one of whose replies took longer than [`MOST_PATIENCE`] is asked fast for so long: its path
/// is long or it starves, and at the steady pace there would be too few requests before the verdict.
const SLOW_FOR: Duration = Duration::from_secs(10);

/// A dead peer is asked fast for so long, then as a live one.
const SEEK_FAST: Duration = Duration::from_secs(30);

/// Requests that are remembered: the fastest pace for 4.8 s.
const WINDOW: usize = 64;

/// Requests, and how long their replies take.
#[derive(Debug)]
pub(super) struct Pace {
    jitter: Jitter,
    /// When the last requests were sent; `None` for those that were answered.
    sent: VecDeque<Option<Instant>>,
    /// The number of the next request.
    next: u64,
    /// One more than the highest that was answered.
    answered: u64,
    last: Option<Instant>,
    steady: Duration,
    fast: Duration,
    /// Smoothed round trip and its deviation (RFC 6298, section 2).
    trip: Option<(Duration, Duration)>,
    /// When a reply came last that took longer than [`MOST_PATIENCE`].
    slow: Option<Instant>,
}

impl Pace {
    pub(super) fn new(jitter: Jitter) -> Self {
        Self {
            jitter,
            sent: VecDeque::with_capacity(WINDOW),
            next: 0,
            answered: 0,
            last: None,
            steady: STEADY,
            fast: FAST,
            trip: None,
            slow: None,
        }
    }

    /// Notes a request at `now` and returns its number.
    pub(super) fn ask(&mut self, now: Instant) -> u64 {
        if self.sent.len() == WINDOW {
            self.sent.pop_front();
        }
        self.sent.push_back(Some(now));
        self.last = Some(now);
        self.steady = self.jitter.duration(STEADY, STEADY_SPREAD);
        self.fast = self.jitter.duration(FAST, FAST_SPREAD);
        self.next += 1;
        self.next - 1
    }

    /// Notes a reply. `false` if the request is not remembered, or was answered before.
    pub(super) fn answered(&mut self, sequence: u64, now: Instant) -> bool {
        let slot = self.slot(sequence).and_then(|at| self.sent.get_mut(at));
        let Some(sent) = slot.and_then(Option::take) else {
            return false;
        };
        self.answered = self.answered.max(sequence + 1);
        let trip = now.saturating_duration_since(sent);
        if trip > MOST_PATIENCE {
            self.slow = Some(now);
        }
        self.measure(trip);
        true
    }

    /// When a peer that answers is asked next; `None` is at once.
    pub(super) fn watch(&self) -> Option<Instant> {
        let last = self.last?;
        let overdue = self.waits_since().map(|since| since + self.patience());
        let slow = self.slow.map(|at| last.saturating_duration_since(at));
        let hurry = overdue.is_some_and(|at| at <= last) || slow.is_some_and(|ago| ago < SLOW_FOR);
        Some(match (hurry, overdue) {
            (true, _) => last + self.fast,
            (false, None) => last + self.steady,
            (false, Some(overdue)) => overdue.min(last + self.steady),
        })
    }

    /// When a peer that does not answer since `silent` is asked next; `None` is at once.
    pub(super) fn seek(&self, silent: Instant) -> Option<Instant> {
        let last = self.last?;
        Some(match last.saturating_duration_since(silent) < SEEK_FAST {
            true => last + self.fast,
            false => last + self.steady,
        })
    }

    /// The smoothed round trip.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.trip.map(|(smoothed, _)| smoothed)
    }

    /// When the request was sent that is next to be answered; `None` if nothing waits.
    fn waits_since(&self) -> Option<Instant> {
        let oldest = self.next - self.sent.len() as u64;
        let at = self.slot(self.answered.max(oldest))?;
        self.sent.get(at).copied().flatten()
    }

    fn slot(&self, sequence: u64) -> Option<usize> {
        let back = self.next.checked_sub(sequence)?;
        self.sent.len().checked_sub(usize::try_from(back).ok()?)
    }

    fn patience(&self) -> Duration {
        self.trip.map_or(MOST_PATIENCE, |(smoothed, deviation)| {
            (smoothed + (deviation * 4).max(TICK)).clamp(LEAST_PATIENCE, MOST_PATIENCE)
        })
    }

    fn measure(&mut self, trip: Duration) {
        self.trip = Some(match self.trip {
            None => (trip, trip / 2),
            Some((smoothed, deviation)) => (
                (smoothed * 7 + trip) / 8,
                (deviation * 3 + smoothed.abs_diff(trip)) / 4,
            ),
        });
    }
}
