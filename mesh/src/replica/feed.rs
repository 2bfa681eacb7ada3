//! How one origin comes in over one session.

use super::WINDOW;
use super::digest::BucketSet;
use super::quota::{Quota, Rate};
use super::reject::Reject;
use crate::record::Version;
use bytes::Bytes;
use std::time::{Duration, Instant};

/// Digests are sent this often in the long run: each may bring a snapshot.
const DIGESTS_PER_SECOND: u32 = 2;

/// And this often at once.
const DIGESTS_BURST: u32 = 8;

/// How often an origin that has more than its quota is compared, to see whether it fits again.
const OVER_QUOTA_INTERVAL: Duration = Duration::from_secs(60);

/// An acknowledgement that nobody waits for is sent after this: in small change it would cost as much as the change.
const LAZY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Feed {
    pub(super) state: State,
    /// Number of the last part that was taken.
    taken: u64,
    acked: u64,
    ack_at: Option<Instant>,
    /// Not before this: more came than the quota allows.
    held_until: Option<Instant>,
    pub(super) digests_at: Option<Instant>,
    /// The newest question that was heard.
    pub(super) round: u32,
    changes: Rate,
    comparisons: Rate,
    over_quota_until: Option<Instant>,
    /// When an origin that could fit again is tried, although nothing of it is heard.
    retry_at: Option<Instant>,
    pub(super) synced: bool,
}

#[derive(Debug)]
pub(super) enum State {
    /// Subscribed; nothing was heard yet.
    Fresh,
    /// A snapshot was asked for. Deltas are skipped: what we sent digests of must not change before it comes.
    Awaiting,
    /// A snapshot comes in.
    Filling(Fill),
    /// Deltas go on from here.
    Following { at: Version },
}

/// A snapshot that comes in.
#[derive(Debug, Clone)]
pub(super) struct Fill {
    pub(super) version: Version,
    /// `None`: all.
    pub(super) buckets: Option<BucketSet>,
    /// Where the next part begins.
    pub(super) end: Bytes,
    /// Some record did not fit.
    pub(super) short: bool,
}

impl Feed {
    pub(super) fn new(quota: Quota) -> Self {
        Self {
            state: State::Fresh,
            taken: 0,
            acked: 0,
            ack_at: None,
            held_until: None,
            digests_at: None,
            round: 0,
            changes: Rate::new(quota.changes_per_second, quota.burst),
            comparisons: Rate::new(DIGESTS_PER_SECOND, DIGESTS_BURST),
            over_quota_until: None,
            retry_at: None,
            synced: false,
        }
    }

    /// A new subscription: all begins anew, only what was used of the quota stays.
    pub(super) fn restart(&mut self) {
        self.state = State::Fresh;
        (self.taken, self.acked, self.round) = (0, 0, 0);
        (self.ack_at, self.digests_at, self.retry_at) = (None, None, None);
        self.synced = false;
    }

    /// A part came.
    pub(super) fn take(&mut self, sequence: u64) -> Result<(), Reject> {
        if self.taken.checked_add(1) != Some(sequence) {
            return Err(Reject::SequenceOrder);
        }
        if sequence - self.acked > WINDOW {
            return Err(Reject::WindowExceeded);
        }
        self.taken = sequence;
        Ok(())
    }

    /// What was taken counts as so many changes, and is to be acknowledged: later if it was too much. Returns when it is
    /// due, if that is later, and whether it is late because of the quota.
    pub(super) fn acknowledge(&mut self, changes: usize, now: Instant) -> (Option<Instant>, bool) {
        let level = self.changes.take(changes, now);
        if let Some(until) = level {
            self.held_until = Some(until);
        }
        // The publisher may send as much again before it waits.
        let half = self.taken - self.acked >= WINDOW / 2;
        let due = if half || level.is_some() {
            now
        } else {
            now + LAZY
        };
        self.ack_by(due);
        (self.ack_due().filter(|at| *at > now), level.is_some())
    }

    /// The publisher may wait for it: what was taken is acknowledged as soon as the quota allows.
    pub(super) fn hurry(&mut self, now: Instant) {
        if self.taken > self.acked {
            self.ack_by(now);
        }
    }

    fn ack_by(&mut self, at: Instant) {
        self.ack_at = Some(self.ack_at.map_or(at, |before| before.min(at)));
    }

    fn ack_due(&self) -> Option<Instant> {
        let at = self.ack_at?;
        Some(self.held_until.map_or(at, |until| at.max(until)))
    }

    /// Asks for a snapshot of what differs, later if that happens too often. Returns when, if it is later.
    pub(super) fn ask(&mut self, now: Instant) -> Option<Instant> {
        self.state = State::Awaiting;
        self.hurry(now);
        if self.digests_at.is_some() {
            return None;
        }
        let level = self.comparisons.take(1, now);
        self.digests_at = Some(level.unwrap_or(now));
        level
    }

    /// The acknowledgement that is due.
    pub(super) fn due_ack(&mut self, now: Instant) -> Option<u64> {
        self.ack_due().filter(|at| *at <= now)?;
        self.ack_at = None;
        self.acked = self.taken;
        Some(self.taken)
    }

    /// Whether digests are due.
    pub(super) fn due_digests(&mut self, now: Instant) -> bool {
        self.digests_at.take_if(|at| *at <= now).is_some()
    }

    /// Whether an origin that was over its quota may be tried again.
    pub(super) fn may_retry(&mut self, now: Instant) -> bool {
        if self.over_quota_until.is_some_and(|until| until > now) {
            return false;
        }
        self.over_quota_until = Some(now + OVER_QUOTA_INTERVAL);
        true
    }

    /// It may not be tried yet. Returns when it will be.
    pub(super) fn retry_later(&mut self) -> Option<Instant> {
        self.retry_at = self.over_quota_until;
        self.retry_at
    }

    /// Whether it is to be tried now. What comes in already is a try.
    pub(super) fn due_retry(&mut self, now: Instant) -> bool {
        let due = self.retry_at.take_if(|at| *at <= now).is_some();
        due && matches!(self.state, State::Following { .. }) && self.may_retry(now)
    }
}

impl Fill {
    /// Whether this part goes on where the one before ended.
    pub(super) fn is_continued_by(
        &self,
        version: Version,
        buckets: Option<&BucketSet>,
        start: &[u8],
    ) -> bool {
        self.version == version && self.buckets.as_ref() == buckets && self.end == start
    }
}
