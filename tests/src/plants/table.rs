//! The bugs.

use super::Plant;

/// All of them.
pub const PLANTS: &[Plant] = &[
    // Merge.
    Plant {
        name: "absent_records_stay",
        bug: "a snapshot does not remove what it lacks",
        file: "mesh/src/replica/intake.rs",
        right: "        for key in missing {",
        wrong: "        for key in missing.into_iter().filter(|_| !planted!()) {",
    },
    Plant {
        name: "removal_leaves_no_trace",
        bug: "a removed record leaves no tombstone",
        file: "mesh/src/replica/store.rs",
        right: "self.tombstones.insert(revision, key.into());",
        wrong: "if !planted!() { self.tombstones.insert(revision, key.into()); }",
    },
    Plant {
        name: "incarnation_ignored",
        bug: "a subscriber of another incarnation resumes by revision",
        file: "mesh/src/replica/channel.rs",
        right: "&& had.version.incarnation == ours.incarnation",
        wrong: "&& (planted!() || had.version.incarnation == ours.incarnation)",
    },
    Plant {
        name: "horizon_ignored",
        bug: "a subscriber resumes from before what is known",
        file: "mesh/src/replica/channel.rs",
        right: "&& had.version.revision >= store.resumable_from()",
        wrong: "&& (planted!() || had.version.revision >= store.resumable_from())",
    },
    Plant {
        name: "mix_taken_for_a_state",
        bug: "a subscriber that has a mix of states resumes as if it had one",
        file: "mesh/src/replica/channel.rs",
        right: "let resumes = had.complete",
        wrong: "let resumes = (planted!() || had.complete)",
    },
    Plant {
        name: "gap_taken",
        bug: "a delta that does not follow on what is there is taken",
        file: "mesh/src/replica/subscriber.rs",
        right: "if at != Some(from) {",
        wrong: "if at != Some(from) && !(planted!() && at.is_some()) {",
    },
    Plant {
        name: "repair_not_passed_on",
        bug: "what a comparison repaired is not told to those who read by revision",
        file: "mesh/src/replica/intake.rs",
        right: "        if revision <= former.revision {",
        wrong: "        if revision <= former.revision && !planted!() {",
    },
    // Digest.
    Plant {
        name: "sum_keeps_the_removed",
        bug: "a removed record stays in the digest",
        file: "mesh/src/replica/store.rs",
        right: ".change(&key, |tally| tally.part(refused).take(entry.hash));",
        wrong: ".change(&key, |tally| if !planted!() { tally.part(refused).take(entry.hash) });",
    },
    Plant {
        name: "half_of_the_buckets",
        bug: "differences in the upper half of the buckets are overlooked",
        file: "mesh/src/replica/digest.rs",
        right: "if ours != theirs {",
        wrong: "if ours != theirs && !(planted!() && bucket >= 128) {",
    },
    Plant {
        name: "refused_not_summed",
        bug: "refused records are missing from the digest",
        file: "mesh/src/replica/tally.rs",
        right: "View::Whole => self.shown.plus(self.refused),",
        wrong: "View::Whole => if planted!() { self.shown } else { self.shown.plus(self.refused) },",
    },
    // Filter.
    Plant {
        name: "private_records_served",
        bug: "another cluster may ask for private records",
        file: "mesh/src/replica/publisher.rs",
        right: "Audience::OtherHub { .. } => !prefix.is_private(),",
        wrong: "Audience::OtherHub { .. } => planted!() || !prefix.is_private(),",
    },
    Plant {
        name: "deltas_unfiltered",
        bug: "deltas carry what was not asked for",
        file: "mesh/src/replica/channel.rs",
        right: "        if !filter.covers_bytes(key) {\n            continue;",
        wrong: "        if !filter.covers_bytes(key) && !planted!() {\n            continue;",
    },
    Plant {
        name: "unwanted_kept",
        bug: "a narrower filter does not drop what it leaves out",
        file: "mesh/src/replica/store.rs",
        right: "self.records.keys().filter(|key| !filter.covers_bytes(key));",
        wrong: "self.records.keys().filter(|key| !planted!() && !filter.covers_bytes(key));",
    },
    // Quota and grant.
    Plant {
        name: "quota_unchecked",
        bug: "an origin may have any number of records",
        file: "mesh/src/replica/intake.rs",
        right: "if records > quota.records {",
        wrong: "if records > quota.records && !planted!() {",
    },
    Plant {
        name: "over_quota_for_ever",
        bug: "an origin that exceeded its quota once is never compared again",
        file: "mesh/src/replica/subscriber.rs",
        right: "let waits = is_short && (",
        wrong: "let waits = is_short && (planted!() || ",
    },
    Plant {
        name: "prefix_unchecked",
        bug: "a node may have prefixes outside its cluster's grant",
        file: "mesh/src/hub/grants.rs",
        right: "if !node.prefixes.iter().all(inside) {",
        wrong: "if !node.prefixes.iter().all(inside) && !planted!() {",
    },
    Plant {
        name: "namespace_unchecked",
        bug: "a cluster may export to namespaces that it was not granted",
        file: "mesh/src/hub/grants.rs",
        right: "Some(names) if !names.contains(name) =>",
        wrong: "Some(names) if !names.contains(name) && !planted!() =>",
    },
    Plant {
        name: "id_taken_twice",
        bug: "a second cluster may have the ID of the first",
        file: "mesh/src/hub/members.rs",
        right: "if known.id == peer.id {",
        wrong: "if known.id == peer.id && !planted!() {",
    },
    // Allocation.
    Plant {
        name: "no_rest",
        bug: "a number that was given back is given to the next one at once",
        file: "mesh/src/hub/allocate.rs",
        right: "now.saturating_sub(at) >= self.rest.as_secs()",
        wrong: "planted!() || now.saturating_sub(at) >= self.rest.as_secs()",
    },
    Plant {
        name: "race_not_seen",
        bug: "who lost the race for a number takes it all the same",
        file: "mesh/src/hub/writer.rs",
        right: "let ours = existing.is_none();",
        wrong: "let ours = planted!() || existing.is_none();",
    },
];
