//! Records of ours that others refused, for who asks why theirs do not arrive.

use crate::record::Key;
use crate::trust::PeerId;
use std::collections::{BTreeMap, VecDeque};

/// The most that are remembered one by one; beyond them the oldest goes.
pub const MAX_SHOWN: usize = 128;
/// The most reasons that are counted by name: they are the other side's words.
const MAX_REASONS: usize = 64;
/// Under what all further reasons are counted.
const OTHER: &str = "other";
/// So many of each cluster are told to the log one by one; then those whose number is a power of two.
const LOGGED: u64 = 16;

/// Who refused what, and why. Bounded, whatever they say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusedByOthers {
    /// By cluster and key, with the reason.
    shown: BTreeMap<(String, Key), String>,
    /// The same, the oldest first.
    order: VecDeque<(String, Key)>,
    counts: BTreeMap<String, u64>,
    told: BTreeMap<String, u64>,
}

impl RefusedByOthers {
    /// Each that stands, newest last: the cluster, where the record is found, the reason.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Key, &str)> {
        let reason = |place: &(String, Key)| self.shown.get(place).map(String::as_str);
        let all = self.order.iter();
        all.filter_map(move |place| Some((place.0.as_str(), &place.1, reason(place)?)))
    }

    /// How many there were since the start, by reason.
    pub fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }

    /// Takes what somebody said. Returns whether the log should have it.
    pub(super) fn told(&mut self, by: &PeerId, key: &Key, reason: &str) -> bool {
        let known = self.counts.contains_key(reason) || self.counts.len() < MAX_REASONS;
        let counted = if known { reason } else { OTHER };
        *self.counts.entry(counted.to_owned()).or_default() += 1;
        let place = (by.cluster.clone(), key.clone());
        if self.shown.get(&place).is_some_and(|had| had == reason) {
            return false;
        }
        if self
            .shown
            .insert(place.clone(), reason.to_owned())
            .is_none()
        {
            self.order.push_back(place);
            if self.order.len() > MAX_SHOWN
                && let Some(oldest) = self.order.pop_front()
            {
                self.shown.remove(&oldest);
            }
        }
        let told = self.told.entry(by.cluster.clone()).or_default();
        *told += 1;
        *told <= LOGGED || told.is_power_of_two()
    }

    /// A record of ours is another one now, or gone.
    pub(super) fn changed(&mut self, key: &Key) {
        self.keep(|(_, of)| of != key);
    }

    /// A cluster left.
    pub(super) fn left(&mut self, cluster: &str) {
        self.keep(|(by, _)| by != cluster);
        self.told.remove(cluster);
    }

    fn keep(&mut self, stays: impl Fn(&(String, Key)) -> bool) {
        if self.shown.keys().all(&stays) {
            return;
        }
        self.shown.retain(|place, _| stays(place));
        self.order.retain(stays);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Key {
        Key::service("shop", &format!("s{number}"))
    }

    fn by(cluster: &str) -> PeerId {
        PeerId::hub(cluster, "hub-1")
    }

    fn shown(refused: &RefusedByOthers) -> Vec<String> {
        let line = |(by, key, why): (&str, &Key, &str)| format!("{by} {key} {why}");
        refused.iter().map(line).collect()
    }

    #[test]
    fn what_was_refused_is_shown_until_it_changes_or_the_cluster_leaves() {
        let mut refused = RefusedByOthers::default();
        assert!(refused.told(&by("west"), &key(1), "namespace_protected"));
        assert!(
            !refused.told(&by("west"), &key(1), "namespace_protected"),
            "known"
        );
        assert!(refused.told(&by("north"), &key(1), "namespace_not_granted"));
        assert!(refused.told(&by("west"), &key(2), "namespace_not_granted"));
        let lines = [
            format!("west {} namespace_protected", key(1)),
            format!("north {} namespace_not_granted", key(1)),
            format!("west {} namespace_not_granted", key(2)),
        ];
        assert_eq!(shown(&refused), lines);
        let counts: Vec<_> = refused.counts().clone().into_iter().collect();
        let expected = [("namespace_not_granted", 2), ("namespace_protected", 2)];
        assert_eq!(counts, expected.map(|(reason, n)| (reason.to_owned(), n)));
        refused.changed(&key(1));
        assert_eq!(shown(&refused), lines[2..]);
        refused.left("west");
        assert!(shown(&refused).is_empty());
    }

    #[test]
    fn whatever_others_say_it_stays_small_and_the_log_quiet() {
        let mut refused = RefusedByOthers::default();
        let mut logged = 0;
        for number in 0..100_000 {
            let reason = format!("why_{}", number % 1_000);
            logged += u32::from(refused.told(&by("west"), &key(number), &reason));
        }
        assert_eq!(refused.iter().count(), MAX_SHOWN);
        assert_eq!(refused.shown.len(), MAX_SHOWN);
        assert_eq!(refused.counts().len(), MAX_REASONS + 1);
        assert_eq!(refused.counts().values().sum::<u64>(), 100_000);
        assert_eq!(logged, 16 + 12, "and then 32, 64 … 65,536");
        // Another cluster's are told all the same.
        assert!(refused.told(&by("north"), &key(1), "namespace_protected"));
    }
}
