//! How long a peer that died again and again is held before it may be used.

use std::time::{Duration, Instant};

/// So many deaths in a row are bad luck, and cost nothing.
const FREE_DEATHS: u32 = 2;

/// The first hold-down; each further death doubles it.
const FIRST_HOLD: Duration = Duration::from_secs(1);

/// No hold-down is longer.
const LONGEST_HOLD: Duration = Duration::from_secs(30);

/// A peer that answered for so long has no past. Deaths with less between them are in a row.
const QUIET: Duration = Duration::from_secs(60);

/// The deaths in a row of one peer.
#[derive(Debug, Default)]
pub(super) struct Damping {
    in_row: u32,
    /// The first reply after the last death.
    answers_since: Option<Instant>,
    held_until: Option<Instant>,
}

impl Damping {
    /// The peer died.
    pub(super) fn dies(&mut self, now: Instant) {
        if self.is_past(now) {
            self.in_row = 0;
        }
        self.in_row = self.in_row.saturating_add(1);
        (self.answers_since, self.held_until) = (None, None);
    }

    /// The peer answers again.
    pub(super) fn answers(&mut self, now: Instant) {
        self.answers_since = Some(now);
        self.held_until = Some(now + self.hold());
    }

    /// Whether the peer is held.
    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| now < until)
    }

    /// For how long the peer is held now, or will be when it answers again.
    pub(super) fn hold_down(&self, now: Instant) -> Duration {
        match self.is_past(now) {
            true => Duration::ZERO,
            false => self.hold(),
        }
    }

    fn hold(&self) -> Duration {
        match self.in_row.checked_sub(FREE_DEATHS + 1) {
            None => Duration::ZERO,
            Some(doublings) => (FIRST_HOLD * (1 << doublings.min(16))).min(LONGEST_HOLD),
        }
    }

    fn is_past(&self, now: Instant) -> bool {
        self.answers_since
            .is_some_and(|since| now.saturating_duration_since(since) >= QUIET)
    }
}
