//! Two data planes in one thread: what is carried, what waits, and what is refused by name.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod world;

use hawser_tunnel::batch::Datagrams;
use hawser_tunnel::engine::{Engine as _, NoiseEngine};
use hawser_tunnel::lane::MAX_WAITING;
use hawser_tunnel::state::PeerKind;
use std::net::IpAddr;
use world::{World, pod, private_key, state, udp};

#[test]
fn a_packet_crosses_with_its_identity_and_nothing_else_changes() {
    let mut world = World::new();
    let v6 = |node: usize| {
        format!("fd01:{}:1::10", node + 1)
            .parse::<IpAddr>()
            .unwrap()
    };
    for (packet, ethertype) in [
        (udp(pod(0), pod(1), b"hello"), [8, 0]),
        (udp(v6(0), v6(1), b"hello"), [0x86, 0xdd]),
    ] {
        world.frame(0, &packet);
        world.settle();
        let (_, frame) = world.nodes[1].delivered.pop().unwrap();
        assert_eq!(frame[..6], [2, 0, 0, 0, 0, 2], "to the TAP");
        assert_eq!(
            frame[6..12],
            [2, 0, 0x10, 0, 0x03, 0xe8],
            "cluster 1, identity 1000"
        );
        assert_eq!(frame[12..14], ethertype);
        assert_eq!(frame[14..], packet);
    }
    // The host of a peer is a remote node here.
    world.frame(0, &udp("10.1.1.1".parse().unwrap(), pod(1), b"host"));
    world.settle();
    let (_, frame) = world.nodes[1].delivered.pop().unwrap();
    assert_eq!(frame[6..12], [2, 0, 0x10, 0, 0, 2]);
}

#[test]
fn every_length_that_fits_crosses_and_the_next_is_too_big() {
    let mut world = World::new();
    for payload in (0..=1364).chain([1365]) {
        world.frame(0, &udp(pod(0), pod(1), &vec![7; payload]));
        world.settle();
        let delivered = std::mem::take(&mut world.nodes[1].delivered);
        assert_eq!(
            delivered.len(),
            usize::from(payload <= 1364),
            "{payload} bytes: 1392 is the MTU"
        );
    }
    assert_eq!(world.dropped(0)["too_big"], 1);
}

#[test]
fn ipv6_packets_of_1280_bytes_cross_a_path_that_is_too_small_for_them() {
    let mut world = World::new();
    for node in 0..2 {
        let mut small = state(node, PeerKind::Native);
        small
            .peers
            .values_mut()
            .for_each(|peer| peer.path_mtu = 1280);
        world.apply(node, small);
    }
    let v6 = |node: usize| {
        format!("fd01:{}:1::10", node + 1)
            .parse::<IpAddr>()
            .unwrap()
    };
    for payload in 1100..=1232 {
        let packet = udp(v6(0), v6(1), &vec![9; payload]);
        world.frame(0, &packet);
        world.settle();
        let (_, frame) = world.nodes[1].delivered.pop().expect("delivered");
        assert_eq!(frame[14..], packet, "{payload} bytes of payload");
    }
    world.frame(0, &udp(v6(0), v6(1), &vec![9; 1233]));
    assert_eq!(
        world.dropped(0)["too_big"],
        1,
        "1281 bytes are the sender's to fragment"
    );
}

#[test]
fn packets_wait_for_a_handshake_up_to_a_bound_and_what_is_past_it_is_counted() {
    let mut world = World::new();
    world.cut = true;
    world.nodes[0].device = hawser_tunnel::device::Device::new(private_key(0), [5; 32]);
    world.apply(0, state(0, PeerKind::Native));
    for number in 0..MAX_WAITING + 10 {
        world.frame(0, &udp(pod(0), pod(1), &number.to_be_bytes()));
    }
    assert_eq!(world.dropped(0), [("queue_full".to_owned(), 10)].into());
    assert!(world.nodes[1].delivered.is_empty());
    world.cut = false;
    let mut out = Datagrams::default();
    let peer = Some("2/1".parse().unwrap());
    assert_eq!(world.nodes[0].device.rekey(peer, world.now, &mut out), 1);
    world.send(0, &out);
    world.settle();
    let numbers = world.nodes[1]
        .delivered
        .iter()
        .map(|(_, frame)| usize::from_be_bytes(frame[42..50].try_into().unwrap()));
    assert!(
        numbers.eq(10..MAX_WAITING + 10),
        "in order, the oldest went"
    );
}

#[test]
fn a_change_of_state_keeps_sessions_and_a_removed_peer_is_out() {
    let mut world = World::new();
    let initiations = world.on_wire[&1];
    let mut more = state(0, PeerKind::Native);
    more.endpoints
        .insert("10.1.1.99".parse().unwrap(), 1000.try_into().unwrap());
    world.apply(0, more);
    world.frame(0, &udp("10.1.1.99".parse().unwrap(), pod(1), b"new pod"));
    world.settle();
    assert_eq!(world.nodes[1].delivered.len(), 1);
    assert_eq!(world.on_wire[&1], initiations, "no new handshake");
    let mut alone = state(1, PeerKind::Native);
    alone.peers.clear();
    world.apply(1, alone);
    world.frame(0, &udp(pod(0), pod(1), b"nobody"));
    world.settle();
    assert_eq!(world.nodes[1].delivered.len(), 1);
    assert_eq!(
        world.dropped(1),
        [("wg_unknown_index".to_owned(), 1)].into()
    );
}

#[test]
fn what_leaves_the_kernel_wrongly_is_refused_by_name() {
    let mut world = World::new();
    let stranger: IpAddr = "10.1.1.77".parse().unwrap();
    let cases: [(Vec<u8>, &str); 6] = [
        (udp(stranger, pod(1), b""), "source_not_local"),
        (
            udp(stranger, "224.0.0.22".parse().unwrap(), b""),
            "frame_link_local",
        ),
        (udp(pod(0), "10.3.1.1".parse().unwrap(), b""), "no_peer"),
        (udp(pod(0), pod(0), b""), "no_peer"),
        (udp(pod(0), pod(1), b"")[..27].to_vec(), "inner_malformed"),
        (vec![0x45; 10], "inner_malformed"),
    ];
    for (packet, reason) in cases {
        let before = world.dropped(0).get(reason).copied().unwrap_or_default();
        world.frame(0, &packet);
        assert_eq!(world.dropped(0)[reason], before + 1, "{reason}");
    }
    assert!(world.nodes[1].delivered.is_empty());
}

/// T3: handshakes that are garbage, unknown, or too many, cost nobody else anything.
#[test]
fn handshakes_are_refused_in_the_order_of_their_cost() {
    let mut world = World::new();
    let key = hawser_tunnel::key::PrivateKey::from_random([77; 32]);
    let mut stranger = NoiseEngine::new(&key, &private_key(1).public(), None, 1);
    let mut initiation = Vec::new();
    assert!(stranger.initiate(false, world.now, &mut initiation));
    let from = "203.0.113.9:1".parse().unwrap();
    world.receive(1, from, &initiation);
    assert_eq!(world.dropped(1)["wg_unknown_peer"], 1);
    for at in 0..initiation.len() {
        let mut garbage = initiation.clone();
        garbage[at] ^= 1;
        world.receive(1, from, &garbage);
    }
    let drops = world.dropped(1);
    // Type and reserved bytes; what the first MAC covers and itself; the second MAC is not looked at.
    assert_eq!((drops["wg_malformed"], drops["wg_mac1"]), (4, 128));
    for _ in 0..1000 {
        world.receive(1, from, &initiation);
    }
    let drops = world.dropped(1);
    assert_eq!(
        drops["wg_source_limit"] + drops["wg_unknown_peer"],
        1000 + 16 + 1
    );
    assert_eq!(drops["wg_unknown_peer"], 100, "the burst of one source");
    world.frame(0, &udp(pod(0), pod(1), b"others are not touched"));
    world.settle();
    assert_eq!(world.nodes[1].delivered.len(), 1);
}

/// A peer without our option cannot be told that a checksum is missing: it is made here.
#[test]
fn a_foreign_peer_gets_packets_with_their_checksums_made() {
    use hawser_tunnel::virtio::Header;
    for kind in [
        PeerKind::Native,
        PeerKind::Foreign {
            identity: 3_u32.try_into().unwrap(),
        },
    ] {
        let mut world = World::new();
        world.apply(0, state(0, kind));
        let whole = udp(pod(0), pod(1), b"sum of parts");
        let mut partial = whole.clone();
        // As the kernel leaves it: the sum of the pseudo-header alone.
        let pseudo = hawser_tunnel::ip::Packet::parse(&whole).unwrap();
        let pseudo = hawser_tunnel::ip::checksum::fold(pseudo.pseudo_header_sum());
        partial[26..28].copy_from_slice(&pseudo.to_be_bytes());
        let header = Header {
            flags: Header::NEEDS_CSUM,
            csum_start: 34,
            csum_offset: 6,
            ..Header::COMPLETE
        };
        let ethernet = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        let frame = [&ethernet[..], &partial].concat();
        let mut out = Datagrams::default();
        let node = &mut world.nodes[0];
        node.device
            .handle_frame(&mut node.outbound, header, &frame, world.now);
        node.device.flush(&mut node.outbound, world.now);
        for (datagram, &to) in node.outbound.datagrams.iter() {
            out.push(datagram, to);
        }
        node.outbound.clear();
        world.send(0, &out);
        world.settle();
        let (header, frame) = world.nodes[1].delivered.pop().unwrap();
        let made = kind != PeerKind::Native;
        assert_eq!(header.needs_checksum(), !made, "{kind:?}");
        assert_eq!(frame[14..] == whole, made, "{kind:?}");
    }
}

#[test]
fn a_pre_shared_key_must_be_the_same_at_both_ends() {
    let secret = |text: &str| hawser_tunnel::key::PresharedKey::from_base64(text).unwrap();
    let one = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";
    let other = "CgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgo=";
    for (theirs, crosses) in [(one, true), (other, false)] {
        let mut world = World::new();
        for (node, key) in [(0, one), (1, theirs)] {
            // Nodes that never met: a session from before another key goes on until the new one is proven.
            world.nodes[node].device = hawser_tunnel::device::Device::new(
                private_key(node),
                [u8::try_from(node).unwrap(); 32],
            );
            let mut keyed = state(node, PeerKind::Native);
            for peer in keyed.peers.values_mut() {
                peer.lanes[0].preshared_key = Some(secret(key));
            }
            world.apply(node, keyed);
        }
        world.settle();
        world.frame(0, &udp(pod(0), pod(1), b"secret"));
        world.settle();
        assert_eq!(world.nodes[1].delivered.len(), usize::from(crosses));
        let status = world.nodes[0].device.peer_status(world.now);
        assert!(status[0].lanes[0].preshared_key);
    }
}

/// A new pre-shared key is a new lane: what waited for the old one's handshake waits for the new.
#[test]
fn a_change_of_key_loses_nothing_that_waits() {
    let mut world = World::new();
    world.cut = true;
    world.nodes[0].device = hawser_tunnel::device::Device::new(private_key(0), [5; 32]);
    world.apply(0, state(0, PeerKind::Native));
    for number in 0..10_u64 {
        world.frame(0, &udp(pod(0), pod(1), &number.to_be_bytes()));
    }
    world.cut = false;
    let key = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";
    for node in [1, 0] {
        let mut keyed = state(node, PeerKind::Native);
        for peer in keyed.peers.values_mut() {
            let key = hawser_tunnel::key::PresharedKey::from_base64(key).unwrap();
            peer.lanes[0].preshared_key = Some(key);
        }
        world.apply(node, keyed);
    }
    world.nodes[1].delivered.clear();
    world.settle();
    assert_eq!(world.nodes[1].delivered.len(), 10);
    let lost = world.dropped(0);
    assert!(
        !lost.contains_key("peer_removed") && !lost.contains_key("queue_full"),
        "{lost:?}"
    );
}

/// Threads read the clock before they wait for a lane: whoever comes next may have an older time.
#[test]
fn a_thread_with_an_older_time_sees_no_handshake_that_was_not() {
    let mut world = World::new();
    let handshakes =
        |world: &World| world.nodes[0].device.peer_status(world.now)[0].lanes[0].handshakes;
    let before = handshakes(&world);
    for _ in 0..100 {
        world.now += std::time::Duration::from_millis(50);
        world.frame(0, &udp(pod(0), pod(1), b"on time"));
        world.frame(1, &udp(pod(1), pod(0), b"on time"));
        world.settle();
        let mut out = Datagrams::default();
        let older = world.now - std::time::Duration::from_millis(20);
        world.nodes[0].device.handle_timeout(older, &mut out);
    }
    assert_eq!(handshakes(&world), before);
}
