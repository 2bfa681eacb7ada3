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

#[derive(Debug)]
pub(super) struct Feed {
    pub(super) state: State,
    /// Number of the last part that was taken.
    taken: u64,
    acked: u64,
    pub(super) ack_at: Option<Instant>,
    pub(super) digests_at: Option<Instant>,
    /// The newest question that was heard.
    pub(super) round: u32,
    changes: Rate,
    comparisons: Rate,
    over_quota_until: Option<Instant>,
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
            digests_at: None,
            round: 0,
            changes: Rate::new(quota.changes_per_second, quota.burst),
            comparisons: Rate::new(DIGESTS_PER_SECOND, DIGESTS_BURST),
            over_quota_until: None,
            synced: false,
        }
    }

    /// A new subscription: all begins anew, only what was used of the quota stays.
    pub(super) fn restart(&mut self) {
        self.state = State::Fresh;
        (self.taken, self.acked, self.round) = (0, 0, 0);
        (self.ack_at, self.digests_at) = (None, None);
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

    /// Acknowledges what was taken, later if it was too much. Returns when, if it is later.
    pub(super) fn acknowledge(&mut self, changes: usize, now: Instant) -> Option<Instant> {
        let level = self.changes.take(changes, now);
        let at = level.unwrap_or(now);
        self.ack_at = Some(self.ack_at.map_or(at, |before| before.max(at)));
        level
    }

    /// Asks for a snapshot of what differs, later if that happens too often. Returns when, if it is later.
    pub(super) fn ask(&mut self, now: Instant) -> Option<Instant> {
        self.state = State::Awaiting;
        if self.digests_at.is_some() {
            return None;
        }
        let level = self.comparisons.take(1, now);
        self.digests_at = Some(level.unwrap_or(now));
        level
    }

    /// The acknowledgement that is due.
    pub(super) fn due_ack(&mut self, now: Instant) -> Option<u64> {
        self.ack_at.take_if(|at| *at <= now)?;
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
