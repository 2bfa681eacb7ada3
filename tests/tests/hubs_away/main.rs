//! All hubs are away for ten minutes of virtual time (F21, I4): nodes go on, and the return of hubs is no news to them.
//!
//! Hubs' cores, agents' followers and data planes are the product's own state machines, and every packet goes through them.
//! Sockets, disks, the clock, whom to dial, and what manifests come to are the test's; messages arrive at once. `hubs.rs`
//! does the same for a minute with processes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use hawser_tests::say;

mod packets;
mod world;

use world::{World, pod};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn changes(world: &World) -> [u32; 2] {
    world.sites.each_ref().map(|site| site.changes)
}

fn initiations(world: &World) -> u32 {
    world.sites.iter().map(|site| site.initiations).sum()
}

/// Nothing was dropped, for any reason.
fn assert_clean(world: &World) {
    for site in &world.sites {
        assert_eq!(site.dropped(), Default::default());
    }
}

/// What a cluster says of a new pod reaches the other's data plane: a world in which nothing can arrive proves nothing.
fn assert_news_arrives(world: &mut World, host: u8) {
    let before = changes(world);
    world.say(1, &pod(1, host));
    world.settle();
    world.pass(SECOND);
    let after = changes(world);
    assert!(
        after[0] > before[0] && after[1] > before[1],
        "a new identity is news to both nodes: {before:?} then {after:?}"
    );
}

#[test]
fn ten_minutes_without_any_hub_cost_no_packet_and_the_return_changes_nothing() {
    for (title, forgetful) in [
        ("hubs return with what they had kept", false),
        (
            "hubs return and have to ask each other for everything",
            true,
        ),
    ] {
        let mut world = World::new();
        assert_news_arrives(&mut world, 20);
        let mut packets = world.carry_for(10 * SECOND);
        let before = (changes(&world), initiations(&world));

        world.kill_hubs();
        for _ in 0..2 {
            packets += world.carry_for(5 * MINUTE);
            world.rekey();
        }
        // What changed meanwhile nobody could tell; the old state is the one that counts.
        assert_eq!(changes(&world), before.0, "{title}");
        let renewed = initiations(&world) - before.1;
        // REKEY_AFTER_TIME is two minutes; two were forced, by both sides.
        assert!((8..=12).contains(&renewed), "{title}: {renewed} handshakes");

        let away = initiations(&world);
        world.return_of_hubs(forgetful);
        packets += world.carry_for(MINUTE);
        assert!(world.is_complete(), "{title}");
        assert_eq!(changes(&world), before.0, "{title}: churn on the data path");
        assert!(initiations(&world) <= away + 1, "{title}: handshakes");
        assert_clean(&world);
        assert_news_arrives(&mut world, 21);
        assert_clean(&world);
        say(format_args!(
            "{title}: {packets} packets, 0 lost, {renewed} handshakes meanwhile"
        ));
    }
}

#[test]
fn agents_that_start_anew_while_all_hubs_are_away_tell_their_data_planes_nothing_new() {
    let mut world = World::new();
    world.carry_for(10 * SECOND);
    world.kill_hubs();
    let before = changes(&world);
    for minute in 0..10 {
        world.restart_agent(minute % 2);
        world.carry_for(MINUTE);
    }
    world.return_of_hubs(false);
    world.carry_for(MINUTE);
    assert!(world.is_complete());
    assert_eq!(changes(&world), before);
    assert_clean(&world);
    assert_news_arrives(&mut world, 20);
}

/// What a cluster says while nobody can hear it arrives once hubs are back, as one change, and costs no packet of others.
#[test]
fn what_was_said_meanwhile_arrives_when_hubs_are_back() {
    let mut world = World::new();
    world.kill_hubs();
    let before = changes(&world);
    for host in 30..40 {
        world.say(1, &pod(1, host));
        world.carry_for(MINUTE);
    }
    assert_eq!(changes(&world), before);
    world.return_of_hubs(false);
    world.carry_for(MINUTE);
    assert!(world.is_complete());
    let after = changes(&world);
    assert!(
        (1..=3).contains(&(after[0] - before[0])) && (1..=3).contains(&(after[1] - before[1])),
        "ten identities came together: {before:?} then {after:?}"
    );
    assert_clean(&world);
}
