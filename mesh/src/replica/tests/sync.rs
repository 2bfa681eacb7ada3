//! What a subscriber gets, and what it costs.

use super::*;

fn backends(count: u32) -> Vec<(Key, Option<Bytes>)> {
    let record = |n: u32| {
        let name = format!(
            "\x04sshop\0web\0web-{n:05}-{:06x}",
            n.wrapping_mul(2_654_435_761)
        );
        (
            key(&name),
            Some(Bytes::from(vec![u8::try_from(n % 251).unwrap(); 60])),
        )
    };
    (0..count).map(record).collect()
}

#[test]
fn a_new_subscriber_gets_all_and_then_each_change() {
    let mut world = World::new(2);
    world.write(1, [set("a1", "x"), set("b1", "y")]);
    let session = world.follow(1, HUB);
    world.settle();
    let origin = cluster(1);
    assert_eq!(
        world.take_events(1),
        [
            Event::Init { origin },
            Event::InitApply {
                origin,
                key: key("a1"),
                value: "x".into()
            },
            Event::InitApply {
                origin,
                key: key("b1"),
                value: "y".into()
            },
            Event::InitDone { origin },
            Event::Synced { session, origin },
        ]
    );
    world.write(2, [unset("a1"), set("b1", "y"), set("b2", "z")]);
    world.settle();
    assert_eq!(
        world.take_events(1),
        [
            Event::Delete {
                origin,
                key: key("a1")
            },
            Event::Apply {
                origin,
                key: key("b2"),
                value: "z".into()
            },
        ]
    );
    world.assert_same(1);
}

#[test]
fn a_change_in_a_service_of_5000_backends_costs_at_most_200_bytes() {
    let mut world = World::new(2);
    world.write(1, backends(5000));
    world.follow(1, HUB);
    world.pass(Duration::from_secs(60));
    world.take_bytes();
    let (name, _) = backends(5000).swap_remove(4711);
    world.write(2, [(name, Some(vec![9; 60].into()))]);
    world.pass(Duration::from_secs(60));
    world.assert_same(1);
    let bytes = world.take_bytes();
    assert!(
        bytes <= 200,
        "{bytes} bytes with acknowledgement and summary"
    );
}

#[test]
fn churn_that_no_filter_selects_costs_nothing() {
    let mut world = World::new(2);
    world.write(1, [set("a1", "x")]);
    world.connect(1, HUB, Wanted::All, Filter::new([prefix("a")]));
    world.pass(Duration::from_secs(60));
    world.take_bytes();
    for revision in 2..1000 {
        world.write(
            revision,
            [set(&format!("b{}", revision % 10), &revision.to_string())],
        );
        world.settle();
    }
    world.pass(Duration::from_secs(60));
    assert_eq!(world.take_bytes(), 0);
    world.write(1000, [set("a2", "z")]);
    world.settle();
    assert_eq!(world.records(1, 1).len(), 2);
    assert_eq!(world.rejects, []);
}

/// Two hubs of cluster 1, which were told the same, and an agent that follows the first one.
fn two_hubs(records: u32) -> (World, SessionId) {
    let mut world = World::new(3);
    world.replicas[1].own(cluster(1), Version::new(1, 0));
    both(&mut world, 1, backends(records));
    let session = world.follow(2, HUB);
    world.pass(Duration::from_secs(60));
    world.assert_same(2);
    (world, session)
}

fn both(world: &mut World, revision: u64, changes: Vec<(Key, Option<Bytes>)>) {
    for hub in [HUB, 1] {
        assert!(world.replicas[hub].write(Revision(revision), changes.clone()));
    }
}

#[test]
fn another_hub_costs_a_few_bytes() {
    let (mut world, session) = two_hubs(5000);
    let snapshot = world.take_bytes();
    world.take_events(2);
    world.cut(session);
    let changes = backends(20)
        .into_iter()
        .map(|(key, _)| (key, Some("new".into())));
    both(&mut world, 2, changes.collect());
    world.take_bytes();
    world.follow(2, 1);
    world.settle();
    world.assert_same(2);
    let bytes = world.take_bytes();
    assert!(bytes * 100 <= snapshot * 5, "{bytes} of {snapshot} bytes");
    // What is the same is not told again.
    assert_eq!(world.take_events(2).len(), 21);
}

#[test]
fn another_hub_that_cannot_go_on_sends_what_differs() {
    let (mut world, session) = two_hubs(20_000);
    let snapshot = world.take_bytes();
    world.take_events(2);
    world.cut(session);
    // The agent has a mix of states: it must be compared.
    let store = world.replicas[2].store(cluster(1)).unwrap();
    let mut records: Vec<_> = store.records().collect();
    let version = store.version();
    records.remove(17);
    records[500].2 = "old".into();
    world.replicas[2].load(cluster(1), version, false, records);
    world.take_bytes();
    world.follow(2, 1);
    world.settle();
    world.assert_same(2);
    let bytes = world.take_bytes();
    assert!(bytes * 100 <= snapshot * 5, "{bytes} of {snapshot} bytes");
    assert_eq!(
        world.take_events(2).len(),
        3,
        "two records, and that all is told"
    );
}

#[test]
fn a_removed_record_cannot_come_back() {
    let (mut world, session) = two_hubs(10);
    world.cut(session);
    // The second hub did not hear of the removal yet.
    let (gone, _) = backends(10).swap_remove(3);
    world.write(2, [(gone.clone(), None)]);
    let session = world.follow(2, HUB);
    world.settle();
    assert!(!world.records(2, 1).contains_key(&gone));
    world.cut(session);
    world.take_events(2);
    world.follow(2, 1);
    world.pass(Duration::from_secs(60));
    assert!(!world.records(2, 1).contains_key(&gone));
    assert_eq!(
        world.take_events(2),
        [],
        "it waits for the hub to be as new"
    );
    let ahead = Event::Ahead {
        origin: cluster(1),
        seen: Version::new(1, 2),
        session: 3,
    };
    assert_eq!(world.take_events(1).last(), Some(&ahead));
    assert!(world.replicas[1].write(Revision(2), [(gone, None)]));
    world.settle();
    world.assert_same(2);
}

#[test]
fn who_is_older_than_the_tombstones_compares_and_loses_what_was_removed() {
    let (mut world, session) = two_hubs(6000);
    world.cut(session);
    both(
        &mut world,
        2,
        backends(5500)
            .into_iter()
            .map(|(key, _)| (key, None))
            .collect(),
    );
    world.follow(2, HUB);
    world.settle();
    world.assert_same(2);
    assert_eq!(world.records(2, 1).len(), 500);
    assert_eq!(world.replicas[HUB].stats().compares_out, 1);
}

#[test]
fn more_changes_of_one_revision_than_fit_in_a_message_arrive_at_once() {
    let mut world = World::new(2);
    world.write(1, [set("a", "x")]);
    world.follow(1, HUB);
    world.settle();
    world.write(2, backends(20_000));
    world.settle();
    world.assert_same(1);
    world.write(3, [set("a", "y")]);
    world.settle();
    world.assert_same(1);
    assert_eq!(world.replicas[HUB].stats().deltas_out, 1);
}

#[test]
fn changes_while_a_snapshot_goes_out_come_after_it() {
    let mut world = World::new(2);
    world.write(1, backends(20_000));
    let session = world.follow(1, HUB);
    world.collect();
    let mut revision = 1;
    loop {
        let mut moved = false;
        for (side, stream) in [
            (0, Stream::Changes),
            (1, Stream::Changes),
            (1, Stream::Bulk),
        ] {
            moved |= world.deliver(session, side, stream);
        }
        if !moved {
            break;
        }
        if revision < 300 {
            revision += 1;
            let n = usize::try_from(revision * 61).unwrap() % 20_000;
            let (name, _) = backends(20_000).swap_remove(n);
            let value = (revision % 2 == 0).then(|| "changed".into());
            world.write(revision, [(name, value)]);
            world.collect();
        }
    }
    world.assert_same(1);
    assert_eq!(world.replicas[HUB].stats().compares_out, 0);
}

#[test]
fn another_filter_in_the_middle_of_a_snapshot_holds() {
    let mut world = World::new(2);
    world.write(
        1,
        backends(20_000)
            .into_iter()
            .chain([set("a1", "x"), set("b1", "y")]),
    );
    let session = world.follow(1, HUB);
    world.collect();
    for _ in 0..3 {
        world.deliver(session, 0, Stream::Changes);
        world.deliver(session, 1, Stream::Bulk);
    }
    assert!(!world.records(1, 1).is_empty());
    let now = world.now;
    world.replicas[1].set_filter(session, Filter::new([prefix("b")]), now);
    world.settle();
    assert_eq!(world.records(1, 1).len(), 1);
    world.replicas[1].set_filter(session, all(), now);
    world.settle();
    world.assert_same(1);
}

#[test]
fn a_restored_source_is_newer_whatever_its_revision() {
    let (mut world, session) = two_hubs(100);
    world.cut(session);
    let mut restored = Replica::new(Limits::default(), Box::new(AdmitAll));
    let records = backends(90).into_iter();
    let records = records.map(|(key, value)| (Revision(1), key, value.unwrap()));
    restored.load(cluster(1), Version::new(1, 0), true, records);
    restored.own(cluster(1), Version::new(1, 0));
    world.replicas[HUB] = restored;
    world.follow(2, HUB);
    world.pass(Duration::from_secs(4));
    let ahead =
        |event: &Event| matches!(event, Event::Ahead { seen, .. } if *seen == Version::new(1, 1));
    assert!(world.take_events(HUB).iter().any(ahead));
    assert_eq!(world.records(2, 1).len(), 100);
    world.replicas[HUB].bump_incarnation(Incarnation(2));
    world.settle();
    world.assert_same(2);
    let version = world.replicas[2].store(cluster(1)).unwrap().version();
    assert_eq!(version, Version::new(2, 0));
}

#[test]
fn a_cluster_that_left_is_forgotten_and_may_begin_anew() {
    // Cluster 1's hub, cluster 2's hub, an agent of cluster 2.
    let mut world = World::new(3);
    world.replicas[1].own(cluster(2), Version::new(1, 0));
    world.replicas[1].set_members(BTreeSet::from([cluster(1)]));
    world.write(900, [set("\x01n", "x")]);
    let filter = Filter::public();
    let session = world.connect(1, HUB, Wanted::One(cluster(1)), filter.clone());
    let agent = world.follow(2, 1);
    world.settle();
    assert_eq!(world.records(2, 1).len(), 1);
    world.cut(session);
    world.cut(agent);
    world.replicas[1].set_members(BTreeSet::new());
    world.follow(2, 1);
    world.settle();
    assert_eq!(world.records(2, 1).len(), 0);
    let origin = cluster(1);
    assert!(world.take_events(2).contains(&Event::Forgotten { origin }));
    assert!(world.replicas[2].store(origin).is_none());
    // Another cluster with this number, at a lower revision.
    let mut anew = Replica::new(Limits::default(), Box::new(AdmitAll));
    anew.own(origin, Version::new(1, 0));
    assert!(anew.write(Revision(1), [set("\x01n", "anew")]));
    world.replicas[HUB] = anew;
    world.replicas[1].set_members(BTreeSet::from([origin]));
    world.connect(1, HUB, Wanted::One(origin), filter);
    world.settle();
    assert_eq!(world.records(2, 1), world.records(HUB, 1));
    assert_eq!(world.rejects, []);
}

#[test]
fn what_a_hub_repaired_reaches_those_who_read_from_it() {
    // Cluster 1's hub, cluster 2's hub with wrong state of the same version, an agent that took it from there.
    let mut world = World::new(3);
    world.write(5, [set("\x01a", "x"), set("\x01b", "y")]);
    world.replicas[1].own(cluster(2), Version::new(1, 0));
    let wrong = [
        (Revision(2), key("\x01a"), "wrong".into()),
        (Revision(3), key("\x01c"), "z".into()),
    ];
    world.replicas[1].load(cluster(1), Version::new(1, 5), true, wrong);
    world.follow(2, 1);
    world.settle();
    assert_eq!(world.records(2, 1).len(), 2);
    world.connect(1, HUB, Wanted::One(cluster(1)), Filter::public());
    world.settle();
    world.assert_same(1);
    world.assert_same(2);
}

#[test]
fn a_new_session_takes_over_and_the_old_one_does_no_harm() {
    let (mut world, old) = two_hubs(10);
    world.follow(2, 1);
    both(&mut world, 2, vec![set("a1", "x")]);
    world.settle();
    both(&mut world, 3, vec![set("a1", "y")]);
    world.settle();
    world.assert_same(2);
    world.cut(old);
    both(&mut world, 4, vec![set("a1", "z")]);
    world.settle();
    world.assert_same(2);
}

#[test]
fn private_records_stay_in_their_cluster() {
    let mut world = World::new(3);
    world.write(
        1,
        [
            set("\x01n", "node"),
            set("A\0p", "policy"),
            set("C\0\x07x", "pod"),
        ],
    );
    world.connect(1, HUB, Wanted::One(cluster(1)), Filter::public());
    let own = Filter::new([prefix("\x01"), prefix("A"), prefix("C\0\x07")]);
    world.connect(2, HUB, Wanted::All, own);
    world.settle();
    assert_eq!(world.records(1, 1).len(), 1);
    assert_eq!(world.records(2, 1).len(), 3);
}

/// Else an agent that heard of a newer version elsewhere, and wants other records, would wait for ever at that hub.
#[test]
fn another_hub_hears_how_new_a_state_is_of_which_nothing_is_for_it() {
    let mut world = World::new(3);
    world.write(1, [set("\x01n", "node"), set("A\0p", "policy")]);
    world.connect(1, HUB, Wanted::One(cluster(1)), Filter::public());
    world.connect(2, HUB, Wanted::All, Filter::new([prefix("\x01")]));
    world.settle();
    world.write(2, [set("A\0p", "another policy")]);
    world.take_events(1);
    world.pass(Duration::from_secs(10));
    let version = |replica: usize| world.replicas[replica].store(cluster(1)).unwrap().version();
    assert_eq!(version(1), Version::new(1, 2));
    assert_eq!(
        version(2),
        Version::new(1, 1),
        "an agent is not woken for it"
    );
    assert_eq!(world.take_events(1), []);
}

#[test]
fn a_cluster_that_comes_back_is_not_overtaken_by_its_own_leaving() {
    let mut world = World::new(3);
    world.replicas[1].own(cluster(2), Version::new(1, 0));
    world.write(9, [set("\x01n", "x")]);
    let session = world.connect(1, HUB, Wanted::One(cluster(1)), Filter::public());
    let agent = world.follow(2, 1);
    world.settle();
    world.cut(session);
    world.replicas[1].forget(cluster(1));
    world.collect();
    // It joins again, all is told to its hub, and the stream of snapshots is faster than the other one.
    let session = world.connect(1, HUB, Wanted::One(cluster(1)), Filter::public());
    world.collect();
    for _ in 0..10 {
        world.deliver(session, 0, Stream::Changes);
        world.deliver(session, 1, Stream::Bulk);
        world.deliver(session, 1, Stream::Changes);
        world.deliver(agent, 1, Stream::Bulk);
    }
    world.settle();
    world.assert_same(2);
    let origin = cluster(1);
    assert!(world.take_events(2).contains(&Event::Forgotten { origin }));
}
