//! Who has too much, or changes too fast, harms itself alone.

use super::*;

fn quota() -> Quota {
    Quota {
        records: 10,
        bytes: 1000,
        changes_per_second: 10,
        burst: 100,
    }
}

/// An agent with that quota for cluster 1, which follows the hub.
fn world(quota: Quota) -> World {
    let mut world = World::new(2);
    world.replicas[1].set_quota(cluster(1), quota);
    world.follow(1, HUB);
    world
}

fn many(names: std::ops::Range<u32>) -> Vec<(Key, Option<Bytes>)> {
    names.map(|n| set(&format!("a{n:04}"), "x")).collect()
}

#[test]
fn records_beyond_the_quota_are_not_kept_and_come_when_they_fit() {
    let mut world = world(quota());
    world.write(1, many(0..8));
    world.settle();
    world.write(2, many(8..500));
    world.pass(Duration::from_secs(30));
    let store = world.replicas[1].store(cluster(1)).unwrap();
    assert!(store.is_over_quota() && store.len() == 10 && store.refused() == 0);
    assert_eq!(world.replicas[1].stats().refusals["quota_records"], 490);
    let told =
        |event: &Event| matches!(event, Event::Refused { reason, .. } if reason == "quota_records");
    assert!(world.take_events(HUB).iter().any(told));
    // No comparison brings it all again and again.
    world.take_bytes();
    world.pass(Duration::from_secs(600));
    assert!(world.take_bytes() < 200);
    world.write(3, (5..499).map(|n| unset(&format!("a{n:04}"))));
    world.pass(Duration::from_secs(70));
    world.assert_same(1);
    assert!(!world.replicas[1].store(cluster(1)).unwrap().is_over_quota());
    assert_eq!(world.records(1, 1).len(), 6);
}

#[test]
fn a_full_origin_may_exchange_all_its_records() {
    let mut world = World::new(2);
    world.replicas[1].set_quota(cluster(1), quota());
    world.write(1, many(0..10));
    let session = world.follow(1, HUB);
    world.pass(Duration::from_secs(10));
    world.cut(session);
    let gone = (0..10).map(|n| unset(&format!("a{n:04}")));
    world.write(2, gone.chain(many(20..30)));
    // What it has comes from another incarnation, so the states are compared.
    world.replicas[HUB].bump_incarnation(Incarnation(2));
    world.follow(1, HUB);
    world.pass(Duration::from_secs(10));
    world.assert_same(1);
    assert_eq!(
        world.replicas[1].stats().refusals.get("quota_records"),
        None
    );
}

#[test]
fn what_fits_again_is_asked_for_although_nothing_changes() {
    let mut world = World::new(2);
    world.replicas[1].set_quota(cluster(1), quota());
    world.write(1, many(0..10));
    let session = world.follow(1, HUB);
    world.pass(Duration::from_secs(10));
    world.cut(session);
    // One change: the new come before the old go.
    world.write(2, many(20..22));
    world.write(3, (0..2).map(|n| unset(&format!("a{n:04}"))));
    world.follow(1, HUB);
    world.pass(Duration::from_secs(130));
    world.assert_same(1);
}

#[test]
fn bytes_beyond_the_quota_are_not_kept() {
    let mut world = world(quota());
    let long = "x".repeat(400);
    world.write(1, [set("a1", &long), set("a2", &long), set("a3", &long)]);
    world.settle();
    assert_eq!(world.records(1, 1).len(), 2);
    assert_eq!(world.replicas[1].stats().refusals["quota_bytes"], 1);
    world.write(2, [set("a1", "short")]);
    world.pass(Duration::from_secs(120));
    world.assert_same(1);
}

#[test]
fn who_changes_too_fast_is_coalesced_and_others_are_not_delayed() {
    let mut world = World::new(3);
    // The agent follows a hub that has two origins: cluster 1 and cluster 2.
    world.replicas[2].own(cluster(2), Version::new(1, 0));
    world.replicas[HUB].set_members(BTreeSet::from([cluster(2)]));
    world.connect(
        HUB,
        2,
        Wanted::One(cluster(2)),
        Filter::new([prefix("\x01")]),
    );
    world.replicas[1].set_quota(cluster(1), quota());
    world.follow(1, HUB);
    world.settle();
    for revision in 1..=5000 {
        world.write(revision, [set("a1", &revision.to_string())]);
        world.settle();
    }
    let calm = world.replicas[1].stats().clone();
    assert!(calm.delayed_acks > 0 && calm.messages_in < 200, "{calm:?}");
    // The other origin's change goes through at once.
    assert!(world.replicas[2].write(Revision(1), [set("\x01n", "other")]));
    world.settle();
    assert_eq!(world.records(1, 2).len(), 1);
    world.pass(Duration::from_secs(30));
    world.assert_same(1);
    assert!(world.replicas[1].stats().messages_in < 400);
}

struct RefuseAll;

impl Gate for RefuseAll {
    fn admit(&self, _: ClusterId, _: &Key, _: &Bytes) -> Result<(), Refusal> {
        Err(Refusal::Grant("test_all"))
    }
}

#[test]
fn a_refused_record_is_remembered_and_comes_when_the_grant_allows_it() {
    let mut world = world(Quota::default());
    world.replicas[1].set_gate(Box::new(RefuseAll), world.now);
    world.write(1, [set("a1", "x"), set("a2", "y")]);
    world.pass(Duration::from_secs(30));
    assert!(world.records(1, 1).is_empty());
    assert_eq!(world.replicas[1].store(cluster(1)).unwrap().refused(), 2);
    assert_eq!(world.replicas[1].stats().mismatches, 0, "digests agree");
    world.replicas[1].set_gate(Box::new(AdmitAll), world.now);
    world.settle();
    world.assert_same(1);
    world.replicas[1].set_gate(Box::new(RefuseAll), world.now);
    world.settle();
    assert!(world.records(1, 1).is_empty());
}

#[test]
fn a_slow_reader_costs_no_memory_and_gets_the_newest_state() {
    let mut world = World::new(3);
    let slow = world.follow(1, HUB);
    world.follow(2, HUB);
    world.settle();
    world.replicas[HUB].set_writable(slow, Stream::Changes, false);
    for revision in 1..=3000 {
        world.write(
            revision,
            [set(&format!("a{}", revision % 7), &revision.to_string())],
        );
        world.settle();
    }
    assert!(world.records(1, 1).is_empty());
    world.assert_same(2);
    let before = world.replicas[HUB].stats().messages_out;
    world.replicas[HUB].set_writable(slow, Stream::Changes, true);
    world.settle();
    world.assert_same(1);
    assert_eq!(
        world.replicas[HUB].stats().messages_out - before,
        1,
        "seven newest values"
    );
}
