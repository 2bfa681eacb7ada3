//! A day of a pair of nodes on simulated time: rekeys, partitions, quiet hours.
#![cfg(feature = "sim")]

mod world;

use hawser_tunnel::clock::SIMULATED_CLOCK;
use std::time::Duration;
use world::{World, pod, udp};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_day_with_a_packet_each_second_loses_nothing_and_rekeys_every_two_minutes() {
    const { assert!(SIMULATED_CLOCK) };
    let mut world = World::new();
    let seconds = 24 * 60 * 60_u64;
    for second in 0..seconds {
        for node in 0..2 {
            world.frame(node, &udp(pod(node), pod(1 - node), &second.to_be_bytes()));
        }
        world.settle();
        world.pass(SECOND);
    }
    for node in 0..2 {
        assert_eq!(
            world.nodes[node].delivered.len() as u64,
            seconds,
            "node {node}"
        );
        for (second, (_, frame)) in (0..seconds).zip(&world.nodes[node].delivered) {
            assert_eq!(frame[42..50], second.to_be_bytes(), "in order");
        }
        assert_eq!(world.dropped(node), Default::default(), "node {node}");
    }
    // REKEY_AFTER_TIME is 120 s; a handshake is one initiation and one response.
    let initiations = world.on_wire[&1];
    assert!(
        (700..=735).contains(&initiations),
        "{initiations} initiations"
    );
    assert_eq!(world.on_wire[&2], initiations);
    let handshakes = world.nodes[0].device.peer_status(world.now)[0].lanes[0].handshakes;
    assert!((700..=735).contains(&handshakes), "{handshakes} handshakes");
}

/// F22: past the 90 s after which boringtun gives up, and past the 540 s after which keys go.
#[test]
fn after_a_partition_of_any_length_traffic_comes_back_within_five_seconds() {
    for minutes in [1, 2, 4, 10, 60, 600] {
        let mut world = World::new();
        world.pass(10 * SECOND);
        world.cut = true;
        for _ in 0..minutes * 60 {
            world.frame(0, &udp(pod(0), pod(1), b"lost or waits"));
            world.pass(SECOND);
        }
        world.cut = false;
        world.nodes[1].delivered.clear();
        let mut waited = 0;
        while world.nodes[1].delivered.is_empty() {
            world.frame(0, &udp(pod(0), pod(1), b"heard"));
            world.settle();
            world.pass(SECOND / 10);
            waited += 1;
            assert!(
                waited <= 55,
                "{minutes} minutes: not back after {waited} tenths of a second"
            );
        }
    }
}

/// F21 on a quiet link: nobody sends for hours, then one packet finds its way.
#[test]
fn after_quiet_hours_the_first_packet_waits_for_one_handshake_and_arrives() {
    let mut world = World::new();
    world.pass(6 * 60 * 60 * SECOND);
    assert!(
        world.on_wire.get(&1).copied().unwrap_or_default() <= 4,
        "a quiet pair does not talk: {:?}",
        world.on_wire
    );
    world.frame(0, &udp(pod(0), pod(1), b"first"));
    world.settle();
    assert_eq!(world.nodes[1].delivered.len(), 1);
}

/// The peer comes back with its key and no sessions, as after a crash: it speaks first.
#[test]
fn a_restarted_peer_is_back_with_one_handshake_though_the_other_side_knows_nothing() {
    let mut world = World::new();
    for _ in 0..10 {
        world.pass(7 * SECOND);
        let seed = [9; 32];
        world.nodes[1].device =
            hawser_tunnel::device::Device::new(world::private_key(1), seed, world.now);
        world.apply(1, world::state(1, hawser_tunnel::state::PeerKind::Native));
        world.settle();
        world.nodes[1].delivered.clear();
        world.frame(0, &udp(pod(0), pod(1), b"on"));
        world.settle();
        assert_eq!(world.nodes[1].delivered.len(), 1);
    }
}
