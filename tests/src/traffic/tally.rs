//! What became of the packets of one pair.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use crate::lab::Pair;

/// Source addresses that are remembered of one pair; more than one is wrong already.
const SOURCES: usize = 8;

/// Numbers of one pair.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PairReport {
    /// Who sent to whom.
    pub pair: Pair,
    /// Packets that the kernel took from the sender.
    pub sent: u64,
    /// Different packets that arrived.
    pub received: u64,
    /// Packets that never arrived.
    pub lost: u64,
    /// Packets that arrived again.
    pub duplicated: u64,
    /// Packets that arrived after a later one.
    pub reordered: u64,
    /// The longest time between two arrivals.
    pub longest_gap: Duration,
    /// The source addresses that the receiver saw.
    pub sources: BTreeSet<IpAddr>,
}

/// The receiver's side of one pair.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// A bit for each sequence number.
    seen: Vec<u64>,
    received: u64,
    duplicated: u64,
    reordered: u64,
    next: u64,
    last: Option<Duration>,
    longest_gap: Duration,
    sources: BTreeSet<IpAddr>,
}

impl Tally {
    /// Notes packet number `sequence`, which arrived `now`; `false` when it had arrived before.
    pub(crate) fn note(&mut self, sequence: u64, now: Duration, source: IpAddr) -> bool {
        let Ok(index) = usize::try_from(sequence / 64) else {
            return false;
        };
        if self.seen.len() <= index {
            self.seen.resize(index + 1, 0);
        }
        let bit = 1 << (sequence % 64);
        if self.seen[index] & bit != 0 {
            self.duplicated += 1;
            return false;
        }
        self.seen[index] |= bit;
        self.received += 1;
        self.reordered += u64::from(sequence < self.next);
        self.next = self.next.max(sequence + 1);
        if let Some(last) = self.last {
            self.longest_gap = self.longest_gap.max(now.saturating_sub(last));
        }
        self.last = Some(now);
        if self.sources.len() < SOURCES {
            self.sources.insert(source);
        }
        true
    }

    pub(crate) fn report(self, pair: Pair, sent: u64) -> PairReport {
        PairReport {
            pair,
            sent,
            received: self.received,
            lost: sent.saturating_sub(self.received),
            duplicated: self.duplicated,
            reordered: self.reordered,
            longest_gap: self.longest_gap,
            sources: self.sources,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Family;

    #[test]
    fn each_packet_counts_once() {
        let source: IpAddr = "10.1.1.10".parse().unwrap();
        let mut tally = Tally::default();
        for (sequence, at) in [(0, 0), (1, 1), (3, 2), (2, 3), (3, 4), (200, 90)] {
            tally.note(sequence, Duration::from_millis(at), source);
        }
        let pair = Pair {
            from: "a".into(),
            to: "b".into(),
            family: Family::V4,
        };
        let report = tally.report(pair, 201);
        assert_eq!(
            (
                report.received,
                report.duplicated,
                report.reordered,
                report.lost
            ),
            (5, 1, 1, 196)
        );
        assert_eq!(report.longest_gap, Duration::from_millis(87));
    }
}
