//! How one origin comes in over one session.

use super::WINDOW;
use super::digest::BucketSet;
use super::quota::{Quota, Rate};
use super::reject::Reject;
use crate::record::Version;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Digests are sent this often in the long run: each may bring a snapshot.
const DIGESTS_PER_SECOND: u32 = 2;

/// And this often at once.
const DIGESTS_BURST: u32 = 8;

/// How often an origin that has more than its quota is compared, to see whether it fits again.
const OVER_QUOTA_INTERVAL: Duration = Duration::from_secs(60);

/// An acknowledgement that nobody waits for is sent after this: in small change it would cost as much as the change.
const LAZY: Duration = Duration::from_secs(5);

/// Parts beyond the quota that are let go within so much of each other are let go together.
const TOGETHER: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct Feed {
    pub(super) state: State,
    /// Number of the last part that was taken.
    taken: u64,
    acked: u64,
    ack_at: Option<Instant>,
    /// Parts beyond the quota, in their order. Each is acknowledged when it is paid for: what a publisher may send
    /// again then is as little as that, and no burst that others would wait for.
    held: VecDeque<Held>,
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

/// Parts that wait together for the quota.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// The first one's number.
    first: u64,
    /// When the first one is paid for, and all of them.
    since: Instant,
    until: Instant,
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
            held: VecDeque::new(),
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
        self.held.clear();
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
            self.hold(until);
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

    /// The part that came last is not acknowledged before this.
    fn hold(&mut self, until: Instant) {
        match self.held.back_mut() {
            Some(held) if until.saturating_duration_since(held.since) < TOGETHER => {
                held.until = until;
            }
            _ => self.held.push_back(Held {
                first: self.taken,
                since: until,
                until,
            }),
        }
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
        let next = self.held.front();
        let next = next.filter(|held| held.first <= self.acked + 1);
        Some(next.map_or(at, |held| at.max(held.until)))
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

    /// The acknowledgement that is due; and when the next one is, if that is known.
    pub(super) fn due_ack(&mut self, now: Instant) -> Option<(u64, Option<Instant>)> {
        self.ack_due().filter(|at| *at <= now)?;
        while self.held.front().is_some_and(|held| held.until <= now) {
            self.held.pop_front();
        }
        let next = self.held.front();
        self.acked = next.map_or(self.taken, |held| held.first - 1);
        let next = next.map(|held| held.until);
        self.ack_at = next;
        Some((self.acked, next))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn feed() -> Feed {
        Feed::new(Quota {
            changes_per_second: 1_000,
            burst: 1_000,
            ..Quota::default()
        })
    }

    fn take(feed: &mut Feed, sequence: u64, changes: usize, now: Instant) -> bool {
        feed.take(sequence).unwrap();
        feed.acknowledge(changes, now).1
    }

    #[test]
    fn what_is_beyond_the_quota_is_let_go_part_by_part() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut feed = feed();
        assert!(!take(&mut feed, 1, 1_000, start));
        for sequence in 2..=9 {
            assert!(take(&mut feed, sequence, 100, start), "{sequence}");
        }
        assert_eq!(feed.due_ack(start), Some((1, Some(after(100)))));
        for part in 1..8 {
            let next = Some(after(100 * part + 100));
            assert_eq!(feed.due_ack(after(100 * part - 1)), None);
            assert_eq!(feed.due_ack(after(100 * part)), Some((1 + part, next)));
        }
        assert_eq!(feed.due_ack(after(800)), Some((9, None)));
        assert_eq!(feed.due_ack(after(9_000)), None);
    }

    #[test]
    fn small_parts_are_let_go_together() {
        let start = Instant::now();
        let mut feed = feed();
        assert!(!take(&mut feed, 1, 1_000, start));
        for sequence in 2..=WINDOW {
            assert!(take(&mut feed, sequence, 1, start), "{sequence}");
        }
        let times = (0..100).map(|ms| start + Duration::from_millis(ms));
        let acks: Vec<_> = times.filter_map(|now| feed.due_ack(now)).collect();
        let numbers: Vec<_> = acks.iter().map(|(sequence, _)| *sequence).collect();
        assert_eq!(numbers, [1, 11, WINDOW]);
    }

    #[test]
    fn a_new_subscription_owes_what_was_used_of_the_quota() {
        let start = Instant::now();
        let mut feed = feed();
        assert!(!take(&mut feed, 1, 1_000, start));
        assert!(take(&mut feed, 2, 500, start));
        feed.restart();
        assert!(take(&mut feed, 1, 0, start));
        assert_eq!(feed.due_ack(start), None);
        let level = start + Duration::from_millis(500);
        assert_eq!(feed.due_ack(level), Some((1, None)));
    }
}
