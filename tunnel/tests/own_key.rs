//! A newer key takes the place of a node's own: whatever the order in which the two ends learn of it, and however late,
//! no packet is lost (F27).

mod world;

use hawser_tunnel::batch::Datagrams;
use hawser_tunnel::device::{Device, KeyChangeError, OLD_KEY};
use hawser_tunnel::key::{OwnKeys, PrivateKey};
use hawser_tunnel::state::PeerKind;
use std::time::Duration;
use world::{World, pod, private_key, state, udp};

const STEP: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn small(node: usize) -> u8 {
    u8::try_from(node).expect("there are two")
}

/// The key that a node has after so many changes.
fn key(node: usize, number: u8) -> PrivateKey {
    match number {
        0 => private_key(node),
        _ => PrivateKey::from_random([100 + 2 * number + small(node); 32]),
    }
}

/// Tells a node which key the other has.
fn tell(world: &mut World, node: usize, number: u8) {
    let mut told = state(node, PeerKind::Native);
    for peer in told.peers.values_mut() {
        peer.lanes[0].public_key = key(1 - node, number).public();
    }
    world.apply(node, told);
}

fn change(world: &mut World, node: usize, number: u8) {
    let mut out = Datagrams::default();
    let device = &world.nodes[node].device;
    device
        .change_keys(vec![key(node, number)], world.now, &mut out)
        .expect("none goes on");
    assert_eq!(device.public_key(), key(node, number).public());
    world.send(node, &out);
}

fn may_forget(world: &World, node: usize) -> bool {
    world.nodes[node].device.may_forget_keys(world.now)
}

fn forget(world: &mut World, node: usize) {
    let mut out = Datagrams::default();
    world.nodes[node].device.forget_keys(world.now, &mut out);
    world.send(node, &out);
    assert!(!world.nodes[node].device.has_older_keys());
}

/// Another process takes the place of a node's, with these keys and told of that key.
fn restart(world: &mut World, node: usize, keys: OwnKeys, told: u8) {
    let seed = [small(node) + 50; 32];
    world.nodes[node].device = Device::with_keys(vec![keys], seed);
    tell(world, node, told);
    world.settle();
}

/// Packets go on for a while; all arrive.
fn carry(world: &mut World, time: Duration) {
    world.carry(STEP, time);
}

/// Lets the changes come to their end, and shows that the new keys carry for ever.
fn come_to_an_end(world: &mut World, nodes: &[usize]) {
    carry(world, 25 * SECOND);
    for &node in nodes {
        let change = world.nodes[node].device.key_change(world.now);
        assert!(may_forget(world, node), "node {node}: {change:?}");
        forget(world, node);
        carry(world, SECOND);
    }
    world.carry(SECOND, 400 * SECOND);
    for node in 0..2 {
        let status = &world.nodes[node].device.peer_status(world.now)[0];
        assert!(status.lanes[0].handshakes > 0, "no session by the new key");
        assert_eq!(world.nodes[node].device.key_change(world.now), None);
    }
}

#[test]
fn a_peer_may_be_late() {
    for late in [0, 1, 7, 200] {
        let mut world = World::new();
        carry(&mut world, SECOND);
        change(&mut world, 0, 1);
        carry(&mut world, late * SECOND);
        assert!(!may_forget(&world, 0));
        tell(&mut world, 1, 1);
        come_to_an_end(&mut world, &[0]);
    }
}

#[test]
fn a_peer_may_be_late_by_a_day_and_is_not_pressed() {
    let mut world = World::new();
    carry(&mut world, SECOND);
    change(&mut world, 0, 1);
    let before = world.on_wire[&1];
    world.carry(SECOND, 3 * HOUR);
    // By the old pair each end renews in its turn, once in two minutes; the new pair tries for 90 s, then knocks twice a
    // minute.
    let initiations = world.on_wire[&1] - before;
    assert!((300..600).contains(&initiations), "{initiations}");
    let change = world.nodes[0].device.key_change(world.now).unwrap();
    let peer = "2/1".parse().unwrap();
    assert_eq!(
        (&change.late[..], &change.in_use[..]),
        (&[peer][..], &[peer][..])
    );
    assert_eq!(change.old_public_keys, [key(0, 0).public().to_string()]);
    world.carry(10 * SECOND, OLD_KEY);
    assert!(!may_forget(&world, 0), "it has a session by the old key");
    tell(&mut world, 1, 1);
    come_to_an_end(&mut world, &[0]);
}

#[test]
fn a_late_peer_that_begins_nothing_itself_is_found() {
    let mut world = World::new();
    carry(&mut world, SECOND);
    change(&mut world, 0, 1);
    world.carry(SECOND, HOUR);
    // It is not told where the node is.
    let mut told = state(1, PeerKind::Native);
    for peer in told.peers.values_mut() {
        peer.lanes[0].public_key = key(0, 1).public();
        peer.lanes[0].endpoint = None;
    }
    world.mute[1] = true;
    world.apply(1, told);
    world.mute[1] = false;
    world.carry(SECOND, 60 * SECOND);
    come_to_an_end(&mut world, &[0]);
}

#[test]
fn a_peer_may_know_first() {
    for wait in [0, 1, 7, 200] {
        let mut world = World::new();
        carry(&mut world, SECOND);
        tell(&mut world, 1, 1);
        carry(&mut world, wait * SECOND);
        change(&mut world, 0, 1);
        come_to_an_end(&mut world, &[0]);
    }
}

#[test]
fn both_ends_change_at_once_in_every_order() {
    let steps: [fn(&mut World); 4] = [
        |world| change(world, 0, 1),
        |world| change(world, 1, 1),
        |world| tell(world, 0, 1),
        |world| tell(world, 1, 1),
    ];
    for wait in [Duration::ZERO, STEP, 3 * SECOND, 200 * SECOND] {
        for order in 0..256 {
            let order = [order >> 6, order >> 4 & 3, order >> 2 & 3, order & 3];
            if (0..4).any(|step| !order.contains(&step)) {
                continue;
            }
            let mut world = World::new();
            carry(&mut world, SECOND);
            for step in order {
                steps[step](&mut world);
                carry(&mut world, wait);
            }
            come_to_an_end(&mut world, &[0, 1]);
        }
    }
}

#[test]
fn a_hundred_changes_lose_nothing() {
    let mut world = World::new();
    carry(&mut world, SECOND);
    for round in 0..100 {
        let node = round % 2;
        let number = u8::try_from(round / 2 + 1).expect("a hundred rounds");
        if round % 3 == 0 {
            tell(&mut world, 1 - node, number);
            carry(&mut world, STEP);
            change(&mut world, node, number);
        } else {
            change(&mut world, node, number);
            let again = world.nodes[node].device.change_keys(
                vec![key(node, 77)],
                world.now,
                &mut Datagrams::default(),
            );
            assert_eq!(again, Err(KeyChangeError::GoingOn));
            carry(&mut world, STEP * u32::try_from(round % 20).unwrap());
            tell(&mut world, 1 - node, number);
        }
        let mut steps = 0;
        while !may_forget(&world, node) {
            carry(&mut world, STEP);
            steps += 1;
            assert!(steps < 250, "round {round}");
        }
        forget(&mut world, node);
    }
    world.carry(SECOND, 400 * SECOND);
}

#[test]
fn messages_of_the_change_may_be_lost() {
    for lost in 0..4 {
        for first in 0..2 {
            let mut world = World::new();
            carry(&mut world, SECOND);
            for step in [first, 1 - first] {
                world.cut = lost >> step & 1 == 1;
                match step {
                    0 => change(&mut world, 0, 1),
                    _ => tell(&mut world, 1, 1),
                }
                world.cut = false;
                carry(&mut world, SECOND);
            }
            carry(&mut world, 30 * SECOND);
            come_to_an_end(&mut world, &[0]);
        }
    }
}

#[test]
fn either_end_may_restart_in_the_middle() {
    for told in [false, true] {
        for restarted in 0..2 {
            let mut world = World::new();
            carry(&mut world, SECOND);
            change(&mut world, 0, 1);
            if told {
                tell(&mut world, 1, 1);
                carry(&mut world, SECOND);
            }
            match restarted {
                0 => {
                    let both = OwnKeys {
                        newest: key(0, 1),
                        older: Some(key(0, 0)),
                    };
                    restart(&mut world, 0, both, 0);
                }
                _ => restart(&mut world, 1, key(1, 0).into(), u8::from(told)),
            }
            // What both had is gone, and is made anew by whichever key the peer knows.
            carry(&mut world, 200 * SECOND);
            assert_eq!(may_forget(&world, 0), told);
            if !told {
                tell(&mut world, 1, 1);
            }
            come_to_an_end(&mut world, &[0]);
        }
    }
}

#[test]
fn a_late_peer_without_a_session_is_reached_and_reaches() {
    for sender in 0..2 {
        let mut world = World::new();
        world.pass(HOUR);
        change(&mut world, 0, 1);
        world.settle();
        world.pass(HOUR);
        let in_use = || world.nodes[0].device.key_change(world.now).unwrap().in_use;
        assert!(in_use().is_empty());
        let mut packet = 0_u8..;
        let mut send = |world: &mut World| {
            let payload = [packet.next().unwrap()];
            world.frame(sender, &udp(pod(sender), pod(1 - sender), &payload));
            world.settle();
        };
        send(&mut world);
        // The first attempt is by the new key, which the peer does not know; the next tick sees that.
        world.pass(2 * STEP);
        send(&mut world);
        let delivered = world.nodes[1 - sender].delivered.drain(..);
        let payloads: Vec<u8> = delivered.map(|(_, frame)| frame[frame.len() - 1]).collect();
        assert_eq!(payloads, [0, 1], "from node {sender}");
        carry(&mut world, 200 * SECOND);
        tell(&mut world, 1, 1);
        come_to_an_end(&mut world, &[0]);
    }
}

#[test]
fn who_has_moved_is_not_late_again_when_a_state_comes() {
    let mut world = World::new();
    carry(&mut world, SECOND);
    change(&mut world, 0, 1);
    tell(&mut world, 1, 1);
    carry(&mut world, 25 * SECOND);
    // No session is left that could show it.
    world.pass(HOUR);
    assert!(may_forget(&world, 0));
    let mut told = state(0, PeerKind::Native);
    told.endpoints.pop_last();
    world.cut = true;
    world.apply(0, told);
    world.pass(SECOND);
    assert!(may_forget(&world, 0));
}

#[test]
fn a_peer_that_is_gone_does_not_hold_the_old_key_for_ever() {
    let mut world = World::new();
    carry(&mut world, SECOND);
    world.cut = true;
    change(&mut world, 0, 1);
    let before = world.on_wire[&1];
    world.pass(HOUR);
    let initiations = world.on_wire[&1] - before;
    assert!(initiations < 250, "{initiations}");
    assert!(!may_forget(&world, 0));
    world.now += OLD_KEY - 2 * HOUR;
    world.pass(HOUR - SECOND);
    assert!(!may_forget(&world, 0));
    world.pass(2 * SECOND);
    assert!(may_forget(&world, 0));
    forget(&mut world, 0);
}

#[test]
fn without_a_state_nobody_knows_who_is_late() {
    let device = Device::new(key(0, 0), [1; 32]);
    let now = world::start();
    let changed = device.change_keys(vec![key(0, 1)], now, &mut Datagrams::default());
    assert_eq!(changed, Ok(()));
    assert!(!device.may_forget_keys(now + 2 * OLD_KEY));
    let both = device.change_keys(Vec::new(), now, &mut Datagrams::default());
    assert_eq!(both, Err(KeyChangeError::GoingOn));
    let device = Device::new(key(0, 0), [1; 32]);
    let none = device.change_keys(Vec::new(), now, &mut Datagrams::default());
    assert_eq!(none, Err(KeyChangeError::Count));
    assert_eq!(device.public_key(), key(0, 0).public());
}

#[test]
fn who_ends_a_change_cuts_off_who_is_late_until_it_knows() {
    let mut world = World::new();
    carry(&mut world, SECOND);
    change(&mut world, 0, 1);
    carry(&mut world, SECOND);
    forget(&mut world, 0);
    for node in 0..2 {
        world.frame(node, &udp(pod(node), pod(1 - node), b"lost or late"));
    }
    world.settle();
    world.pass(20 * SECOND);
    for node in 0..2 {
        assert!(world.nodes[node].delivered.is_empty());
    }
    let refused = world.dropped(0);
    assert!(refused["wg_unknown_index"] > 0, "{refused:?}");
    assert!(refused["wg_mac1"] > 0, "by the old key: {refused:?}");
    tell(&mut world, 1, 1);
    world.settle();
    world.pass(10 * SECOND);
    for node in 0..2 {
        world.nodes[node].delivered.clear();
    }
    carry(&mut world, 400 * SECOND);
}
