//! Two data planes in one thread: what is carried, what waits, and what is refused by name.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod world;

use hawser_tunnel::batch::{Batch, Datagrams};
use hawser_tunnel::engine::{BoringtunEngine, Engine as _};
use hawser_tunnel::geneve::{self, Protocol, SourceOption};
use hawser_tunnel::lane::MAX_WAITING;
use hawser_tunnel::overlay::{self, Ends};
use hawser_tunnel::reject::Reject;
use hawser_tunnel::state::PeerKind;
use hawser_tunnel::vni::Vni;
use std::net::{IpAddr, Ipv4Addr};
use world::{World, address, pod, private_key, state, udp};

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
    world.nodes[0].device = hawser_tunnel::device::Device::new(private_key(0), [5; 32], world.now);
    world.apply(0, state(0, PeerKind::Native));
    for number in 0..MAX_WAITING + 10 {
        world.frame(0, &udp(pod(0), pod(1), &number.to_be_bytes()));
    }
    assert_eq!(world.dropped(0), [("queue_full".to_owned(), 10)].into());
    assert!(world.nodes[1].delivered.is_empty());
    world.cut = false;
    let mut out = Datagrams::default();
    assert!(
        world.nodes[0]
            .device
            .rekey("2/1".parse().unwrap(), world.now, &mut out)
    );
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

/// A node that has the keys of 1/1 and says what it wants.
struct Liar {
    world: World,
    engine: BoringtunEngine,
}

impl Liar {
    fn new(kind: PeerKind) -> Self {
        let mut world = World::new();
        world.apply(1, state(1, kind));
        let key = private_key(0);
        let unlimited = BoringtunEngine::unlimited(&key.public());
        let peer = private_key(1).public();
        let mut engine = BoringtunEngine::new(&key, &peer, None, 0x0012_3456, unlimited, world.now);
        let mut message = Vec::new();
        assert!(engine.initiate(false, world.now, &mut message));
        let reply = Self::exchange(&mut world, &message).remove(0);
        engine
            .handle_handshake(&reply, world.now, &mut message)
            .unwrap();
        assert!(Self::exchange(&mut world, &message).is_empty());
        Self { world, engine }
    }

    fn exchange(world: &mut World, message: &[u8]) -> Vec<Vec<u8>> {
        let node = &mut world.nodes[1];
        let datagrams = [(0..message.len(), address(0))].into_iter();
        node.device
            .handle_datagrams(&mut node.inbound, message, datagrams, world.now);
        node.delivered.extend(
            node.inbound
                .frames
                .iter()
                .map(|(frame, &header)| (header, frame.to_vec())),
        );
        let replies = node
            .inbound
            .datagrams
            .iter()
            .map(|(reply, _)| reply.to_vec())
            .collect();
        node.inbound.clear();
        replies
    }

    /// Sends a plaintext over the session; returns how many frames came out and the reason counted.
    fn say(&mut self, plaintext: &[u8]) -> (usize, Vec<String>) {
        let before = self.world.dropped(1);
        let mut batch = Batch::default();
        batch.push(plaintext, ());
        let mut sealed = Datagrams::default();
        self.engine
            .seal(&batch, address(1), self.world.now, &mut sealed);
        let message = sealed.iter().next().unwrap().0.to_vec();
        Self::exchange(&mut self.world, &message);
        let after = self.world.dropped(1);
        let grown = after
            .into_iter()
            .filter(|(reason, count)| before.get(reason) != Some(count));
        (
            std::mem::take(&mut self.world.nodes[1].delivered).len(),
            grown.map(|(reason, _)| reason).collect(),
        )
    }
}

/// Everything that a plaintext says, to be falsified piece by piece.
#[derive(Clone)]
struct Claim {
    ends: Ends,
    vni: u32,
    option: SourceOption,
    inner: Vec<u8>,
}

impl Claim {
    fn honest() -> Self {
        Self {
            ends: Ends {
                source: Ipv4Addr::new(240, 1, 0, 1),
                destination: Ipv4Addr::new(240, 2, 0, 1),
            },
            vni: 1,
            option: SourceOption {
                cluster: 1,
                flags: 0,
                identity: 1000,
            },
            inner: udp(pod(0), pod(1), b"claim"),
        }
    }

    fn plaintext(&self) -> Vec<u8> {
        let header = geneve::encode(Vni::new(self.vni).unwrap(), Protocol::Ipv4, self.option);
        let mut plaintext = vec![0; overlay::LEN];
        overlay::write(&mut plaintext, self.ends, 7, &header, self.inner.len());
        plaintext.extend_from_slice(&self.inner);
        plaintext
    }
}

fn claim(change: impl FnOnce(&mut Claim)) -> Vec<u8> {
    let mut claim = Claim::honest();
    change(&mut claim);
    claim.plaintext()
}

/// Changes bytes of the honest plaintext.
fn bytes(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut plaintext = Claim::honest().plaintext();
    change(&mut plaintext);
    let length = u16::try_from(plaintext.len()).unwrap();
    plaintext[2..4].copy_from_slice(&length.to_be_bytes());
    plaintext[24..26].copy_from_slice(&(length - 20).to_be_bytes());
    plaintext
}

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

/// T3: handshakes that are garbage, unknown, or too many, cost nobody else anything.
#[test]
fn handshakes_are_refused_in_the_order_of_their_cost() {
    let mut world = World::new();
    let key = hawser_tunnel::key::PrivateKey::from_random([77; 32]);
    let unlimited = BoringtunEngine::unlimited(&key.public());
    let mut stranger = BoringtunEngine::new(
        &key,
        &private_key(1).public(),
        None,
        1,
        unlimited,
        world.now,
    );
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

/// A new pre-shared key is a new lane: what waited for the old one's handshake waits for the new.
#[test]
fn a_change_of_key_loses_nothing_that_waits() {
    let mut world = World::new();
    world.cut = true;
    world.nodes[0].device = hawser_tunnel::device::Device::new(private_key(0), [5; 32], world.now);
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
