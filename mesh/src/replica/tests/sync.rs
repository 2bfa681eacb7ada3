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
