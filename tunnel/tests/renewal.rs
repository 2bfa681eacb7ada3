//! Another key takes the place of one in use: make before break. Whatever the order in which the two ends learn of it,
//! no packet is lost (F27).

mod world;

use hawser_tunnel::key::PresharedKey;
use hawser_tunnel::state::PeerKind;
use std::time::Duration;
use world::{World, pod, state, udp};

const STEP: Duration = Duration::from_millis(100);

fn preshared(number: u8) -> PresharedKey {
    // 32 bytes in base64, with the number in the last digits.
    let text = format!("{}{number:03}AA=", "A".repeat(38));
    PresharedKey::from_base64(&text).expect("a key")
}

/// Tells a node that the pre-shared key is this one.
fn tell(world: &mut World, node: usize, key: Option<u8>) {
    let mut keyed = state(node, PeerKind::Native);
    for peer in keyed.peers.values_mut() {
        peer.lanes[0].preshared_key = key.map(preshared);
    }
    world.apply(node, keyed);
}

/// Tells a node that there must be a pre-shared key, and which it is.
fn demand(world: &mut World, node: usize, key: Option<u8>) {
    let mut keyed = state(node, PeerKind::Native);
    for peer in keyed.peers.values_mut() {
        peer.lanes[0].needs_key = true;
        peer.lanes[0].preshared_key = key.map(preshared);
    }
    world.apply(node, keyed);
}

/// Packets go on for a while; all arrive.
fn carry(world: &mut World, time: Duration) {
    world.carry(STEP, time);
}

/// How many handshakes led to a session of the pair in force.
fn handshakes(world: &World, node: usize) -> u64 {
    world.nodes[node].device.peer_status(world.now)[0].lanes[0].handshakes
}

#[test]
fn one_end_may_be_late() {
    for late in [0, 1] {
        for wait in [0, 1, 7, 200] {
            let mut world = World::new();
            carry(&mut world, Duration::from_secs(1));
            tell(&mut world, 1 - late, Some(1));
            // Longer than a session lives: the old pair makes new ones meanwhile.
            carry(&mut world, Duration::from_secs(wait));
            tell(&mut world, late, Some(1));
            carry(&mut world, Duration::from_secs(20));
            for node in 0..2 {
                assert!(handshakes(&world, node) > 0, "no session by the new key");
            }
            // What was there is gone: the new key carries for ever.
            carry(&mut world, Duration::from_secs(400));
        }
    }
}

#[test]
fn changes_that_cross_lose_nothing() {
    let mut world = World::new();
    for round in 1..=100 {
        let first = usize::from(round % 2 == 0);
        tell(&mut world, first, Some(round));
        if round % 3 == 0 {
            carry(&mut world, Duration::from_secs(1));
        }
        tell(&mut world, 1 - first, Some(round));
        carry(&mut world, Duration::from_millis(300));
    }
    // And back to none.
    for node in 0..2 {
        tell(&mut world, node, None);
    }
    carry(&mut world, Duration::from_secs(20));
}

#[test]
fn the_ends_may_be_several_keys_apart() {
    let mut world = World::new();
    for key in 1..=5 {
        tell(&mut world, 0, Some(key));
        carry(&mut world, Duration::from_secs(2));
    }
    for key in 1..=5 {
        tell(&mut world, 1, Some(key));
        carry(&mut world, Duration::from_secs(2));
    }
    carry(&mut world, Duration::from_secs(200));
}

#[test]
fn messages_of_the_change_may_be_lost() {
    for lost in 0..8 {
        let mut world = World::new();
        carry(&mut world, Duration::from_secs(1));
        for node in 0..2 {
            world.cut = lost >> node & 1 == 1;
            tell(&mut world, node, Some(1));
            world.cut = false;
            if lost >> 2 & 1 == 1 {
                carry(&mut world, STEP);
            }
        }
        carry(&mut world, Duration::from_secs(30));
        for node in 0..2 {
            assert!(handshakes(&world, node) > 0, "no session by the new key");
        }
    }
}

#[test]
fn a_key_that_was_replaced_opens_nothing_in_the_end() {
    let mut world = World::new();
    carry(&mut world, Duration::from_secs(1));
    // A message by the old key, kept by somebody on the way.
    world.cut = true;
    world.frame(0, &udp(pod(0), pod(1), b"kept back"));
    world.cut = false;
    let kept = world.last_sent.clone();
    for node in 0..2 {
        tell(&mut world, node, Some(1));
    }
    carry(&mut world, Duration::from_secs(15));
    let before = world.dropped(1);
    world.receive(1, world::address(0), &kept);
    assert!(world.nodes[1].delivered.is_empty());
    assert_ne!(world.dropped(1), before, "refused by a name");
}

#[test]
fn a_change_may_be_taken_back() {
    for wait in [1, 11, 25] {
        let mut world = World::new();
        carry(&mut world, Duration::from_secs(1));
        for key in [Some(1), None] {
            for node in 0..2 {
                tell(&mut world, node, key);
            }
            carry(&mut world, Duration::from_secs(wait));
        }
        carry(&mut world, Duration::from_secs(400));
        for node in 0..2 {
            let status = &world.nodes[node].device.peer_status(world.now)[0];
            let age = status.lanes[0].handshake_age_ms;
            assert!(age.is_some(), "no session by the key in force");
        }
    }
}

#[test]
fn packets_wait_for_a_key_that_there_must_be() {
    // Without a key before, or with one that is not good enough any more.
    for (late, had) in [(0, None), (1, None), (0, Some(7)), (1, Some(7))] {
        let mut world = World::new();
        for node in 0..2 {
            tell(&mut world, node, had);
        }
        carry(&mut world, Duration::from_secs(20));
        // The session ends at once, and there is no other.
        demand(&mut world, 0, None);
        let before = world.on_wire.get(&1).copied();
        for _ in 0..10 {
            world.frame(0, &udp(pod(0), pod(1), b"patience"));
            world.pass(Duration::from_secs(1));
        }
        assert!(world.nodes[1].delivered.is_empty());
        assert_eq!(world.on_wire.get(&1).copied(), before, "nobody asks");
        // The other end needs no key; when it finds that its session is gone, it asks for another and is refused by name.
        world.frame(1, &udp(pod(1), pod(0), b"lost with its session"));
        world.pass(Duration::from_secs(10));
        world.pass(Duration::from_secs(20));
        assert!(world.nodes[0].delivered.is_empty());
        assert!(world.dropped(0)["wg_no_preshared_key"] > 0);
        for node in [1 - late, late] {
            demand(&mut world, node, Some(1));
            world.pass(Duration::from_secs(1));
        }
        assert_eq!(world.nodes[1].delivered.drain(..).count(), 10);
        world.nodes[0].delivered.clear();
        carry(&mut world, Duration::from_secs(200));
    }
}

#[test]
fn what_waits_for_a_key_is_bounded_and_dropped_by_name() {
    let mut world = World::new();
    demand(&mut world, 0, None);
    for _ in 0..300 {
        world.frame(0, &udp(pod(0), pod(1), b"too many"));
    }
    world.pass(Duration::from_secs(1));
    assert_eq!(world.dropped(0)["no_preshared_key"], 300 - 256);
    assert_eq!(world.nodes[0].device.in_demand().len(), 1, "who waits");
    world.pass(Duration::from_secs(100));
    assert_eq!(world.dropped(0)["no_preshared_key"], 300);
    assert!(world.nodes[1].delivered.is_empty());
}
