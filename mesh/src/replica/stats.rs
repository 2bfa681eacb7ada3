//! What a replica counts.

use super::{Refusal, Reject};
use hawser_tunnel::node::ClusterId;
use std::collections::BTreeMap;

/// Counters since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sessions that were to be closed, by [`Reject::name`].
    pub rejects: BTreeMap<&'static str, u64>,
    /// Records that were not taken, by [`Refusal::name`].
    pub refusals: BTreeMap<&'static str, u64>,
    /// The same, by the cluster whose they were.
    pub refusals_of: BTreeMap<ClusterId, BTreeMap<&'static str, u64>>,
    /// Messages that were handed out.
    pub messages_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Messages that came in.
    pub messages_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Messages of older subscriptions or newer protocols.
    pub skipped: u64,
    /// Deltas that did not fit what we have; they lead to a comparison.
    pub delta_gap: u64,
    /// Deltas that were sent.
    pub deltas_out: u64,
    /// Parts of snapshots that were sent.
    pub snapshot_parts_out: u64,
    /// Comparisons that were asked for.
    pub compares_out: u64,
    /// Summaries that did not fit what we have.
    pub mismatches: u64,
    /// Acknowledgements that waited because an origin changed too fast.
    pub delayed_acks: u64,
}

impl Stats {
    pub(super) fn rejected(&mut self, reject: Reject) {
        *self.rejects.entry(reject.name()).or_default() += 1;
    }

    pub(super) fn refused(&mut self, origin: ClusterId, refusal: &Refusal) {
        let of_origin = self.refusals_of.entry(origin).or_default();
        *of_origin.entry(refusal.name()).or_default() += 1;
        *self.refusals.entry(refusal.name()).or_default() += 1;
    }
}
