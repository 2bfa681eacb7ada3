//! A day of a pair of nodes on simulated time: rekeys, partitions, quiet hours.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod world;

use std::time::Duration;
use world::{World, pod, udp};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_day_with_a_packet_each_second_loses_nothing_and_rekeys_every_two_minutes() {
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

/// KEEPALIVE_TIMEOUT (whitepaper, section 6.5): without a sign of life the sender would shake hands again after 15 s. The
/// data may come as soon as it likes after what the listener said last: with the handshake, or as an answer.
#[test]
fn whoever_only_listens_says_so_within_ten_seconds() {
    for quiet in [Duration::ZERO, SECOND / 20, SECOND] {
        for question in [false, true] {
            let mut world = World::new();
            world.pass(quiet);
            if question {
                world.frame(1, &udp(pod(1), pod(0), b"question"));
                world.settle();
            }
            world.frame(0, &udp(pod(0), pod(1), b"listen"));
            world.settle();
            let title = format!("{quiet:?} after the handshake, question: {question}");
            let said = world.on_wire.clone();
            world.pass(11 * SECOND);
            assert_eq!(world.on_wire[&4], said[&4] + 1, "{title}: no keepalive");
            world.pass(30 * SECOND);
            assert_eq!(world.on_wire[&4], said[&4] + 1, "{title}: more than one");
            assert_eq!(world.on_wire[&1], said[&1], "{title}: a handshake");
        }
    }
}

/// F21 on a quiet link: nobody sends for hours, then one packet finds its way.
#[test]
fn after_quiet_hours_the_first_packet_waits_for_one_handshake_and_arrives() {
    let mut world = World::new();
    let mut out = hawser_tunnel::batch::Datagrams::default();
    world.nodes[0].device.rekey(None, world.now, &mut out);
    let old = out.iter().next().unwrap().0.to_vec();
    world.send(0, &out);
    world.settle();
    world.pass(6 * 60 * 60 * SECOND);
    assert!(
        world.on_wire.get(&1).copied().unwrap_or_default() <= 4,
        "a quiet pair does not talk: {:?}",
        world.on_wire
    );
    let handshakes = |world: &World| [world.on_wire[&1], world.on_wire[&2]];
    let before = handshakes(&world);
    // The engines went long ago, what they had heard did not.
    world.receive(1, world::address(0), &old);
    assert_eq!(world.dropped(1)["wg_timestamp"], 1);
    assert_eq!(handshakes(&world), before);
    world.frame(0, &udp(pod(0), pod(1), b"first"));
    world.settle();
    assert_eq!(world.nodes[1].delivered.len(), 1);
    assert_eq!(handshakes(&world), before.map(|count| count + 1));
}

/// The peer comes back with its key and no sessions, as after a crash: it speaks first.
#[test]
fn a_restarted_peer_is_back_with_one_handshake_though_the_other_side_knows_nothing() {
    let mut world = World::new();
    for _ in 0..10 {
        world.pass(7 * SECOND);
        let seed = [9; 32];
        world.nodes[1].device = hawser_tunnel::device::Device::new(world::private_key(1), seed);
        world.apply(1, world::state(1, hawser_tunnel::state::PeerKind::Native));
        world.settle();
        world.nodes[1].delivered.clear();
        world.frame(0, &udp(pod(0), pod(1), b"on"));
        world.settle();
        assert_eq!(world.nodes[1].delivered.len(), 1);
    }
}

/// T3, F35: a flood from many sources puts handshakes behind cookies; who can be reached gets in.
#[test]
fn under_a_flood_of_handshakes_an_honest_peer_proves_its_address_and_gets_in() {
    use hawser_tunnel::batch::Datagrams;
    use hawser_tunnel::engine::{Engine as _, NoiseEngine};
    let mut world = World::new();
    let key = hawser_tunnel::key::PrivateKey::from_random([77; 32]);
    let victim = world::private_key(1).public();
    let mut stranger = NoiseEngine::new(&key, &victim, None, 1);
    let mut initiation = Vec::new();
    assert!(stranger.initiate(false, world.now, &mut initiation));
    let flood = |world: &mut World| {
        for source in 0..3_000_u32 {
            let from =
                std::net::SocketAddr::from((std::net::Ipv4Addr::from(0xcb00_0000 | source), 1));
            world.receive(1, from, &initiation);
        }
    };
    flood(&mut world);
    assert!(
        world.dropped(1)["wg_under_load"] >= 1_000,
        "{:?}",
        world.dropped(1)
    );
    // The honest peer comes in the middle of it, as after its restart.
    let mut out = Datagrams::default();
    let honest = "2/1".parse().unwrap();
    let before = world.nodes[0].device.peer_status(world.now)[0].lanes[0].handshakes;
    let cookies = world.on_wire[&3];
    assert_eq!(
        world.nodes[0]
            .device
            .rekey(Some(honest), world.now, &mut out),
        1
    );
    world.send(0, &out);
    world.settle();
    let handshakes =
        |world: &World| world.nodes[0].device.peer_status(world.now)[0].lanes[0].handshakes;
    assert_eq!(
        (world.on_wire[&3], handshakes(&world)),
        (cookies + 1, before + 1),
        "it was asked for a cookie, and in with it"
    );
    for _ in 0..7 {
        world.pass(SECOND);
        flood(&mut world);
    }
    assert_eq!(handshakes(&world), before + 1, "once, under the same flood");
    world.nodes[1].delivered.clear();
    world.frame(0, &udp(pod(0), pod(1), b"in"));
    world.settle();
    assert_eq!(world.nodes[1].delivered.len(), 1);
}

/// One direction of the wire is lost: initiations of node 1 arrive, nothing of node 0 does.
fn deaf(world: &mut World, seconds: u64) {
    for second in 0..seconds {
        let mut out = hawser_tunnel::batch::Datagrams::default();
        if second % 5 == 0 {
            world.nodes[1]
                .device
                .rekey(Some("1/1".parse().unwrap()), world.now, &mut out);
        }
        for (datagram, _) in out.iter() {
            world.cut = true; // what node 0 answers is lost
            world.receive(0, world::address(1), datagram);
            world.cut = false;
        }
        world.now += SECOND;
        for node in 0..2 {
            let mut lost = hawser_tunnel::batch::Datagrams::default();
            world.nodes[node]
                .device
                .handle_timeout(world.now, &mut lost);
        }
    }
}

fn restarted(world: &mut World) {
    world.cut = true;
    let fresh = hawser_tunnel::device::Device::new(world::private_key(0), [5; 32]);
    world.nodes[0].device = fresh;
    world.apply(0, world::state(0, hawser_tunnel::state::PeerKind::Native));
    world.cut = false;
}

/// A session that the peer never had must not swallow packets, however many of its initiations were
/// answered into the void; and ours go on, though boringtun forgets them when others cross them.
#[test]
fn packets_wait_until_the_peer_has_shown_that_it_has_the_session() {
    let mut world = World::new();
    restarted(&mut world);
    world.cut = true;
    for number in 0..20_u64 {
        world.frame(0, &udp(pod(0), pod(1), &number.to_be_bytes()));
    }
    world.cut = false;
    deaf(&mut world, 60);
    let lane = &world.nodes[0].device.peer_status(world.now)[0].lanes[0];
    assert_eq!(
        (lane.tx_packets, lane.handshake_age_ms),
        (0, None),
        "sealed for nobody"
    );
    world.nodes[1].delivered.clear();
    world.pass(12 * SECOND);
    assert_eq!(
        world.nodes[1].delivered.len(),
        20,
        "all that waited, once the wire is whole"
    );
    assert_eq!(world.dropped(0), Default::default());
}

/// T2: a recorded initiation, sent again from elsewhere after a restart, is answered and moves nothing.
#[test]
fn a_replayed_initiation_after_a_restart_does_not_move_the_endpoint() {
    let mut world = World::new();
    let mut out = hawser_tunnel::batch::Datagrams::default();
    world.nodes[1]
        .device
        .rekey(Some("1/1".parse().unwrap()), world.now, &mut out);
    let recorded = out.iter().next().unwrap().0.to_vec();
    restarted(&mut world);
    world.receive(0, "203.0.113.66:666".parse().unwrap(), &recorded);
    let endpoint =
        |world: &World| world.nodes[0].device.peer_status(world.now)[0].lanes[0].endpoint;
    assert_eq!(endpoint(&world), Some(world::address(1)));
    world.nodes[1].delivered.clear();
    world.frame(0, &udp(pod(0), pod(1), b"goes where it belongs"));
    world.pass(12 * SECOND);
    assert_eq!(
        (endpoint(&world), world.nodes[1].delivered.len()),
        (Some(world::address(1)), 1)
    );
}

/// T3: somebody who knows our public key sends handshakes in the name of a peer's address.
#[test]
fn a_peer_whose_address_is_used_by_a_flood_proves_itself_and_gets_in() {
    use hawser_tunnel::engine::{Engine as _, NoiseEngine};
    let mut world = World::new();
    let key = hawser_tunnel::key::PrivateKey::from_random([77; 32]);
    let victim = world::private_key(1).public();
    let mut stranger = NoiseEngine::new(&key, &victim, None, 1);
    let mut spoofed = Vec::new();
    assert!(stranger.initiate(false, world.now, &mut spoofed));
    restarted(&mut world);
    let handshakes =
        |world: &World| world.nodes[0].device.peer_status(world.now)[0].lanes[0].handshakes;
    for _ in 0..200 {
        for _ in 0..60 {
            world.receive(1, world::address(0), &spoofed);
        }
        world.pass(SECOND / 10);
    }
    assert!(
        world.dropped(1)["wg_source_limit"] > 5_000,
        "{:?}",
        world.dropped(1)
    );
    assert!(
        handshakes(&world) >= 1,
        "not in after 20 seconds of 600 forgeries a second"
    );
}

#[test]
fn what_waited_for_hours_is_not_sent_any_more_and_what_is_new_is() {
    let mut world = World::new();
    restarted(&mut world);
    world.cut = true;
    for minute in 0..180_u64 {
        for _ in 0..2 {
            world.frame(0, &udp(pod(0), pod(1), &minute.to_be_bytes()));
        }
        world.pass(60 * SECOND);
    }
    world.cut = false;
    world.nodes[1].delivered.clear();
    world.frame(0, &udp(pod(0), pod(1), &999_u64.to_be_bytes()));
    world.pass(6 * SECOND);
    let newest = world.nodes[1]
        .delivered
        .last()
        .map(|(_, frame)| frame[42..50].to_vec());
    assert_eq!(newest, Some(999_u64.to_be_bytes().to_vec()));
    assert!(
        world.nodes[1].delivered.len() <= 5,
        "{}",
        world.nodes[1].delivered.len()
    );
    assert!(
        world.dropped(0)["queue_expired"] >= 350,
        "{:?}",
        world.dropped(0)
    );
}
