//! What a peer claims is believed only as far as its key goes: everything else is refused by name.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod world;

use hawser_tunnel::batch::{Batch, Datagrams};
use hawser_tunnel::engine::Engine as _;
use hawser_tunnel::reject::Reject;
use hawser_tunnel::state::PeerKind;
use std::net::Ipv4Addr;
use world::liar::{Claim, Liar, bytes, claim};
use world::{address, pod, udp};

/// T8: what a peer is not entitled to say is dropped under its own reason, each of 500 times.
#[test]
fn a_peer_is_believed_nothing_that_it_is_not_entitled_to_say() {
    let mut liar = Liar::new(PeerKind::Native);
    assert_eq!(liar.say(&Claim::honest().plaintext()), (1, vec![]));
    let from = |address: &str| udp(address.parse().unwrap(), pod(1), b"x");
    let to = |address: &str| udp(pod(0), address.parse().unwrap(), b"x");
    let lies: Vec<(&str, Vec<u8>, Reject)> = vec![
        (
            "another node's overlay address",
            claim(|c| c.ends.source = Ipv4Addr::new(240, 1, 0, 2)),
            Reject::OverlaySource,
        ),
        (
            "another cluster's",
            claim(|c| c.ends.source = Ipv4Addr::new(240, 3, 0, 1)),
            Reject::OverlaySource,
        ),
        (
            "an underlay address",
            claim(|c| c.ends.source = Ipv4Addr::new(192, 0, 2, 1)),
            Reject::OverlaySource,
        ),
        (
            "to another node",
            claim(|c| c.ends.destination = Ipv4Addr::new(240, 2, 0, 2)),
            Reject::OverlayDestination,
        ),
        ("another network", claim(|c| c.vni = 2), Reject::GeneveVni),
        (
            "another cluster's option",
            claim(|c| c.option.cluster = 2),
            Reject::OptionCluster,
        ),
        (
            "no cluster",
            claim(|c| c.option.cluster = 0),
            Reject::OptionCluster,
        ),
        (
            "no identity",
            claim(|c| c.option.identity = 0),
            Reject::IdentityUnpublished,
        ),
        (
            "more than 28 bits",
            claim(|c| c.option.identity = 1000 | 1 << 28),
            Reject::IdentityUnpublished,
        ),
        (
            "remote node",
            claim(|c| c.option.identity = 2),
            Reject::IdentityReserved,
        ),
        (
            "world",
            claim(|c| c.option.identity = 3),
            Reject::IdentityReserved,
        ),
        (
            "health",
            claim(|c| c.option.identity = 4),
            Reject::IdentityReserved,
        ),
        (
            "reserved",
            claim(|c| c.option.identity = 255),
            Reject::IdentityReserved,
        ),
        (
            "unpublished",
            claim(|c| c.option.identity = 1001),
            Reject::IdentityUnpublished,
        ),
        (
            "this cluster's identity",
            claim(|c| c.option.identity = 2000),
            Reject::IdentityUnpublished,
        ),
        (
            "another node's pod",
            claim(|c| c.inner = from("10.1.2.10")),
            Reject::SourceNotOwned,
        ),
        (
            "this node's pod",
            claim(|c| c.inner = from("10.2.1.11")),
            Reject::SourceNotOwned,
        ),
        (
            "this node's router",
            claim(|c| c.inner = from("10.2.1.1")),
            Reject::SourceNotOwned,
        ),
        (
            "a stranger",
            claim(|c| c.inner = from("8.8.8.8")),
            Reject::SourceNotOwned,
        ),
        (
            "loopback",
            claim(|c| c.inner = from("127.0.0.1")),
            Reject::SourceNotOwned,
        ),
        (
            "multicast source",
            claim(|c| c.inner = from("224.0.0.1")),
            Reject::SourceNotOwned,
        ),
        (
            "to another node's pod",
            claim(|c| c.inner = to("10.2.2.10")),
            Reject::DestinationNotLocal,
        ),
        (
            "to the host's loopback",
            claim(|c| c.inner = to("127.0.0.1")),
            Reject::DestinationNotLocal,
        ),
        (
            "to its own pod",
            claim(|c| c.inner = to("10.1.1.11")),
            Reject::DestinationNotLocal,
        ),
        (
            "to broadcast",
            claim(|c| c.inner = to("255.255.255.255")),
            Reject::DestinationNotLocal,
        ),
        (
            "Geneve inside",
            claim(|c| c.inner[22..24].copy_from_slice(&6081_u16.to_be_bytes())),
            Reject::NestedGeneve,
        ),
        (
            "a checksum flag on ICMP",
            claim(|c| {
                c.option.flags = 1;
                c.inner[9] = 1;
            }),
            Reject::OptionFlags,
        ),
        (
            "a cut inner packet",
            claim(|c| c.inner.truncate(25)),
            Reject::InnerMalformed,
        ),
        (
            "an inner packet with more behind",
            claim(|c| c.inner.push(0)),
            Reject::InnerMalformed,
        ),
        (
            "IPv6 said, IPv4 inside",
            bytes(|b| b[30..32].copy_from_slice(&[0x86, 0xdd])),
            Reject::GeneveProtocol,
        ),
        (
            "no option",
            bytes(|b| {
                b[28] = 0;
                b.drain(36..48);
            }),
            Reject::MissingOption,
        ),
        (
            "another option alone",
            bytes(|b| b[36] = 1),
            Reject::MissingOption,
        ),
        (
            "an unknown critical option",
            bytes(|b| {
                b[36] = 1;
                b[38] = 0x81;
            }),
            Reject::GeneveCriticalOption,
        ),
        (
            "the option twice",
            bytes(|b| {
                let option = b[36..48].to_vec();
                b.splice(48..48, option);
                b[28] = 6;
            }),
            Reject::OptionTwice,
        ),
        (
            "an option of another length",
            bytes(|b| {
                b[28] = 2;
                b[39] = 1;
                b.drain(44..48);
            }),
            Reject::OptionMalformed,
        ),
        (
            "an option past the end",
            bytes(|b| b[39] = 3),
            Reject::GeneveOptionLength,
        ),
        (
            "options past the end",
            bytes(|b| {
                b[28] = 63;
            }),
            Reject::GeneveTruncated,
        ),
        ("version 1", bytes(|b| b[28] |= 0x40), Reject::GeneveVersion),
        (
            "a control message",
            bytes(|b| b[29] = 0x80),
            Reject::GeneveControl,
        ),
        (
            "Ethernet inside",
            bytes(|b| b[30..32].copy_from_slice(&[0x65, 0x58])),
            Reject::GeneveProtocol,
        ),
        (
            "another port",
            bytes(|b| b[22..24].copy_from_slice(&4789_u16.to_be_bytes())),
            Reject::OverlayNotGeneve,
        ),
        ("TCP", bytes(|b| b[9] = 6), Reject::OverlayNotGeneve),
        (
            "IPv4 options",
            bytes(|b| b[0] = 0x46),
            Reject::OverlayMalformed,
        ),
        (
            "IPv6 overlay",
            [&[0x60, 0, 0, 0, 0, 0, 17, 64][..], &[0; 32]].concat(),
            Reject::OverlayMalformed,
        ),
        ("neither IP", vec![0x10; 64], Reject::WgPlaintext),
        (
            "a middle fragment",
            bytes(|b| b[6..8].copy_from_slice(&[0x20, 1])),
            Reject::OverlayFragment,
        ),
    ];
    for (lie, plaintext, reason) in &lies {
        for _ in 0..500 {
            assert_eq!(
                liar.say(plaintext),
                (0, vec![reason.name().to_owned()]),
                "{lie}"
            );
        }
        assert!(liar.world.nodes[1].device.drops().of(*reason) >= 500);
    }
    assert_eq!(
        liar.say(&Claim::honest().plaintext()),
        (1, vec![]),
        "the honest is still heard"
    );
}

#[test]
fn a_foreign_peer_has_the_identity_it_was_given_whatever_it_says() {
    let identity = 3_u32.try_into().unwrap();
    let mut liar = Liar::new(PeerKind::Foreign { identity });
    let without = bytes(|b| {
        b[28] = 0;
        b.drain(36..48);
    });
    let forged = claim(|c| c.option.identity = 1000);
    for plaintext in [without, forged] {
        let mut batch = Batch::default();
        batch.push(&plaintext, ());
        let mut sealed = Datagrams::default();
        liar.engine
            .seal(&batch, address(1), liar.world.now, &mut sealed);
        let message = sealed.iter().next().unwrap().0.to_vec();
        Liar::exchange(&mut liar.world, &message);
        let (_, frame) = liar.world.nodes[1].delivered.pop().expect("delivered");
        assert_eq!(frame[6..12], [2, 0, 0x10, 0, 0, 3]);
    }
    let lie = claim(|c| c.inner = udp("10.1.2.10".parse().unwrap(), pod(1), b"x"));
    assert_eq!(liar.say(&lie).1, ["source_not_owned"]);
}

/// T2: every bit of a data message, flipped: nothing is delivered, nothing changes.
#[test]
fn a_flipped_bit_anywhere_delivers_nothing() {
    let mut liar = Liar::new(PeerKind::Native);
    let mut batch = Batch::default();
    batch.push(&Claim::honest().plaintext(), ());
    let mut sealed = Datagrams::default();
    liar.engine
        .seal(&batch, address(1), liar.world.now, &mut sealed);
    let message = sealed.iter().next().unwrap().0.to_vec();
    for at in 0..message.len() {
        for bit in 0..8 {
            let mut flipped = message.clone();
            flipped[at] ^= 1 << bit;
            Liar::exchange(&mut liar.world, &flipped);
            assert!(
                liar.world.nodes[1].delivered.is_empty(),
                "byte {at}, bit {bit}"
            );
        }
    }
    Liar::exchange(&mut liar.world, &message);
    assert_eq!(
        liar.world.nodes[1].delivered.len(),
        1,
        "the message itself is still good"
    );
    for _ in 0..1000 {
        Liar::exchange(&mut liar.world, &message);
    }
    assert_eq!(liar.world.nodes[1].delivered.len(), 1, "once");
    assert!(liar.world.nodes[1].device.drops().of(Reject::WgReplay) >= 1000);
}

/// The counter is its sender's to choose: near the top of its range it must not overflow anything.
#[test]
fn a_counter_at_the_end_of_its_range_is_refused_before_anybody_adds_to_it() {
    let mut liar = Liar::new(PeerKind::Native);
    let mut batch = Batch::default();
    batch.push(&Claim::honest().plaintext(), ());
    let mut sealed = Datagrams::default();
    liar.engine
        .seal(&batch, address(1), liar.world.now, &mut sealed);
    let good = sealed.iter().next().unwrap().0.to_vec();
    for below in [0, 1, 1023, 1024, 8191] {
        let mut message = good.clone();
        message[8..16].copy_from_slice(&(u64::MAX - below).to_le_bytes());
        let before = liar.world.nodes[1].device.drops().of(Reject::WgReplay);
        Liar::exchange(&mut liar.world, &message);
        let after = liar.world.nodes[1].device.drops().of(Reject::WgReplay);
        assert_eq!(after, before + 1, "2^64 - 1 - {below}");
    }
    Liar::exchange(&mut liar.world, &good);
    assert_eq!(liar.world.nodes[1].delivered.len(), 1);
}
