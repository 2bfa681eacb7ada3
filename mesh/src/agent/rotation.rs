//! When a node changes its own WireGuard keys: about once in a period, each node at a time of its own, and when an
//! operator says so. Never before a hub can tell its peers.

use crate::lot::Lot;
use std::time::Duration;
use tokio::time::Instant;

/// How often, where nothing else is said.
pub(crate) const HOURLY: Duration = Duration::from_secs(3600);
/// What is due when an agent starts is done by lot within this time: many may start together.
const SOON: Duration = Duration::from_secs(60);
/// The last change is not over, or there is no hub: asked again after this time.
const AGAIN: Duration = Duration::from_secs(30);

/// One node's rotation.
#[derive(Debug)]
pub(crate) struct Rotation {
    every: Option<Duration>,
    /// Nodes that start together, or in step, do not change in step.
    lot: Lot,
    due: Option<Instant>,
}

impl Rotation {
    /// `every`: `None` for only when somebody says so. The keys are of this `age`. `seed` is drawn by lot.
    pub(crate) fn new(every: Option<Duration>, age: Duration, seed: u64, now: Instant) -> Self {
        let mut rotation = Self {
            every: None,
            lot: Lot::new(seed),
            due: None,
        };
        rotation.set_every(every, now);
        // Who starts often does not keep its keys for ever.
        if !age.is_zero()
            && let Some(due) = rotation.due
        {
            let due = due.checked_sub(age).unwrap_or(now);
            rotation.due = Some(due.max(now + rotation.lot.within(SOON)));
        }
        rotation
    }

    /// Takes another period. The same one changes nothing.
    pub(crate) fn set_every(&mut self, every: Option<Duration>, now: Instant) {
        if every != self.every {
            self.every = every;
            self.schedule(now);
        }
    }

    /// Now, whatever the time.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.due = Some(now);
    }

    /// Whether keys are to be changed now. `is_heard`: a hub has this node's keys and is there for the next ones.
    pub(crate) fn is_due(&self, is_heard: bool, now: Instant) -> bool {
        is_heard && self.due.is_some_and(|due| due <= now)
    }

    /// The keys changed.
    pub(crate) fn handle_done(&mut self, now: Instant) {
        self.schedule(now);
    }

    /// They did not; what was asked for is done later.
    pub(crate) fn handle_put_off(&mut self, now: Instant) {
        self.due = Some(now + AGAIN);
    }

    /// Between a half and the whole of a period: keys are never older than it.
    fn schedule(&mut self, now: Instant) {
        let lot = &mut self.lot;
        self.due = self
            .every
            .map(|every| now + every / 2 + lot.within(every / 2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_never_older_than_the_period_and_nodes_do_not_change_in_step() {
        let start = Instant::now();
        let mut firsts: Vec<Duration> = Vec::new();
        for node in 0..1_000u64 {
            let mut rotation = Rotation::new(Some(HOURLY), Duration::ZERO, node, start);
            let mut now = start;
            for change in 0..24 {
                let due = rotation.due.unwrap();
                let age = due - now;
                assert!((HOURLY / 2..=HOURLY).contains(&age), "{age:?}");
                assert!(!rotation.is_due(true, due - Duration::from_nanos(1)));
                assert!(rotation.is_due(true, due));
                if change == 0 {
                    firsts.push(age);
                }
                now = due;
                rotation.handle_done(now);
            }
        }
        // 1,000 nodes in half an hour: one in 1.8 s. No minute has four times its share.
        let mut minutes = [0; 61];
        for first in firsts {
            minutes[usize::try_from(first.as_secs() / 60).unwrap()] += 1;
        }
        assert!(
            minutes.iter().all(|count| *count <= 4 * 1_000 / 30),
            "{minutes:?}"
        );
    }

    #[test]
    fn an_agent_that_starts_again_and_again_changes_keys_all_the_same() {
        let mut seed = 0;
        let (mut now, mut changed) = (Instant::now(), Instant::now());
        let mut oldest = Duration::ZERO;
        // A new one every ten minutes, for ten days.
        for _ in 0..10 * 24 * 6 {
            seed += 1;
            let mut rotation = Rotation::new(Some(HOURLY), now - changed, seed, now);
            let next = now + HOURLY / 6;
            while let Some(due) = rotation.due.filter(|due| *due < next) {
                oldest = oldest.max(due - changed);
                changed = due;
                rotation.handle_done(due);
            }
            now = next;
        }
        assert!(oldest >= HOURLY / 2 && oldest <= HOURLY, "{oldest:?}");
        // One that was off for long does not begin at the same moment as all others that were.
        let day = 24 * HOURLY;
        let due = |seed| Rotation::new(Some(HOURLY), day, seed, now).due.unwrap() - now;
        let dues: std::collections::BTreeSet<Duration> = (0..100).map(due).collect();
        assert!(dues.len() > 90 && dues.iter().all(|due| *due <= SOON));
    }

    #[test]
    fn nothing_changes_before_a_hub_can_tell_the_peers() {
        let now = Instant::now();
        let mut rotation = Rotation::new(None, Duration::ZERO, 7, now);
        assert!(!rotation.is_due(true, now + 100 * HOURLY));
        rotation.hurry(now);
        assert!(!rotation.is_due(false, now));
        assert!(rotation.is_due(true, now));
        // The change before is not over: it is not forgotten.
        rotation.handle_put_off(now);
        assert!(!rotation.is_due(true, now));
        assert!(rotation.is_due(true, now + AGAIN));
        rotation.handle_done(now + AGAIN);
        assert!(!rotation.is_due(true, now + 100 * HOURLY));
    }

    #[test]
    fn another_period_counts_from_now_and_the_same_one_from_before() {
        let now = Instant::now();
        let mut rotation = Rotation::new(Some(HOURLY), Duration::ZERO, 7, now);
        let due = rotation.due;
        rotation.set_every(Some(HOURLY), now + HOURLY);
        assert_eq!(rotation.due, due);
        rotation.set_every(Some(2 * HOURLY), now);
        assert!(rotation.due.unwrap() >= now + HOURLY);
        rotation.set_every(None, now);
        assert_eq!(rotation.due, None);
    }
}
