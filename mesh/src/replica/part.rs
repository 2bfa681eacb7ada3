//! What a part of a state must be, before anything of it is taken.

use super::MAX_INCARNATION_STEP;
use super::digest::{BucketSet, bucket_of};
use super::filter::Filter;
use super::reject::Reject;
use crate::record::Version;
use crate::wire::{Delta, Snapshot};
use bytes::Bytes;

/// Checks that a state may follow on ours.
pub(super) fn check_version(ours: Version, theirs: Version) -> Result<(), Reject> {
    if theirs < ours {
        return Err(Reject::VersionWentBack);
    }
    let most = ours.incarnation.0.saturating_add(MAX_INCARNATION_STEP);
    let jumps = ours != Version::NONE && theirs.incarnation.0 > most;
    if theirs.incarnation.0 == 0 || jumps {
        return Err(Reject::IncarnationImplausible);
    }
    Ok(())
}

/// Checks that a part's records are sorted, and in its range.
pub(super) fn check_range(
    part: &Snapshot,
    filter: &Filter,
    buckets: Option<&BucketSet>,
) -> Result<(), Reject> {
    let goes_on = !part.end.is_empty();
    if goes_on == part.last || goes_on && part.end <= part.start {
        return Err(Reject::SnapshotRange);
    }
    let mut before: Option<&Bytes> = None;
    for record in &part.records {
        let key = &record.key;
        if before.is_some_and(|before| before >= key) {
            return Err(Reject::KeyOrder);
        }
        let in_range = *key >= part.start && (part.last || *key < part.end);
        let in_buckets = buckets.is_none_or(|set| set.contains(bucket_of(key)));
        if !in_range || !in_buckets || !filter.covers_bytes(key) || record.value.is_none() {
            return Err(Reject::KeyNotSubscribed);
        }
        before = Some(key);
    }
    Ok(())
}

/// Checks that a delta's changes are sorted by revision, within it, and were asked for.
pub(super) fn check_changes(delta: &Delta, filter: &Filter) -> Result<(), Reject> {
    let mut before = delta.from.checked_add(1).ok_or(Reject::RevisionOrder)?;
    for change in &delta.changes {
        if change.revision < before || change.revision > delta.to {
            return Err(Reject::RevisionOrder);
        }
        if !filter.covers_bytes(&change.key) {
            return Err(Reject::KeyNotSubscribed);
        }
        before = change.revision;
    }
    if delta.to <= delta.from {
        return Err(Reject::RevisionOrder);
    }
    Ok(())
}
