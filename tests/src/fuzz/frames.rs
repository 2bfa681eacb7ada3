//! Frames of the TAP: what a pod or a kernel may hand over, sealed and opened again by the peer.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::net::IpAddr;

use hawser_tunnel::device::Device;
use hawser_tunnel::inbound::accept;
use hawser_tunnel::outbound::Outbound;
use hawser_tunnel::reject::Reject;
use hawser_tunnel::virtio::Header;

use super::claims::{counts, grown};
use super::packet::{Made, Shape, TCP, UDP, make, ones_sum};
use super::source::Source;
use super::world::{OUTBOUND, World, id, receiver};

/// The largest plaintext to each peer: 1,500 and 1,280 bytes of underlay less headers, in whole blocks.
const MOST: [(&str, usize); 2] = [("1/1", 1440), ("3/1", 1216)];

/// An offload header: the one that a kernel would write for the packet, or any.
pub(super) fn offload(source: &mut Source<'_>, made: &Made) -> Header {
    let field = match made.protocol {
        TCP => 16,
        _ => 6,
    };
    let start = u16::try_from(made.transport + 14).unwrap_or(u16::MAX);
    let super_frame: u8 = match (made.protocol, made.bytes.first().map(|byte| byte >> 4)) {
        (TCP, Some(6)) => 4,
        (TCP, _) => 1,
        _ => 5,
    };
    Header {
        flags: source.pick(&[0, 1, 1, 2, 0xff]),
        gso_type: source.pick(&[0, super_frame, super_frame | 0x80, 3, 1, 4, 5, 0x7f]),
        hdr_len: source.any(),
        gso_size: source.pick(&[100, 1, 8, 536, 1392, 0, 0xffff]),
        csum_start: source.pick(&[
            start,
            start,
            start,
            start,
            14,
            0,
            start.wrapping_sub(20),
            0xffff,
        ]),
        csum_offset: source.pick(&[field, field, field, field, 0, 7, 0xffff]),
    }
}

/// Target: a frame with its offload header, taken by a data plane in session with the owner of its destination.
pub(super) fn outbound(input: &[u8]) {
    World::with_used(|world| {
        let mut source = Source::new(input);
        let mut out = Outbound::default();
        for _ in 0..=source.pick(&[0, 0, 1, 2]) {
            let (header, frame) = frame(&mut source);
            let before = counts(world.device.drops());
            world
                .device
                .handle_frame(&mut out, header, &frame, world.now);
            world.device.flush(&mut out, world.now);
            let reasons = grown(&before, world.device.drops());
            judge(world, &out, header, &frame, &reasons);
            out.clear();
        }
    });
}

pub(super) fn frame(source: &mut Source<'_>) -> (Header, Vec<u8>) {
    if source.once_in(8) {
        let header = Header::parse(&source.array());
        return (header, source.bytes(4096).to_vec());
    }
    let most = source.pick(&[64, 1600, 3600]);
    let made = make(source, &OUTBOUND, most);
    let header = match source.once_in(3) {
        true => Header::COMPLETE,
        false => offload(source, &made),
    };
    let version: u16 = if made.bytes.first().is_some_and(|byte| byte >> 4 == 6) {
        0x86dd
    } else {
        0x0800
    };
    let mut frame = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2].to_vec();
    frame.extend(
        source
            .pick(&[
                version, version, version, version, version, 0x0806, 0x0800, 0x86dd,
            ])
            .to_be_bytes(),
    );
    frame.extend(made.bytes);
    if source.once_in(16) {
        frame.truncate(source.below(frame.len()));
    }
    (header, frame)
}

fn judge(world: &mut World, out: &Outbound, header: Header, frame: &[u8], reasons: &[Reject]) {
    if out.datagrams.is_empty() {
        let silent =
            !reasons.is_empty() && reasons.iter().all(|&reason| reason == Reject::NoEndpoint);
        assert!(
            silent || reasons.len() == 1,
            "{reasons:?} of one frame that went nowhere"
        );
        assert!(
            silent || reasons[0] >= Reject::InnerMalformed && reasons[0] <= Reject::TooBig,
            "{reasons:?} of a frame"
        );
        return;
    }
    assert_eq!(reasons, [], "a frame was sent and dropped");
    let packet = &frame[14..];
    let original = Shape::of(packet).expect("an IP packet");
    let mut sent = Sent::default();
    for (message, &to) in out.datagrams.iter() {
        let (peer, speaker) = match to == world.native.at {
            true => (0, &mut world.native),
            false => (1, &mut world.foreign),
        };
        assert_eq!(to, speaker.at, "sent to nobody");
        let plaintext = speaker.open(message, world.now);
        // An engine gives back as much as the header says: the padding is seen in the message's length.
        assert!(
            (message.len() - 32).is_multiple_of(16),
            "whole cipher blocks"
        );
        assert!(message.len() - 32 <= MOST[peer].1 && message.len() - 32 - plaintext.len() < 16);
        sent.take(peer, &plaintext);
    }
    assert!(sent.halves.is_empty(), "half of a packet was sent");
    for (peer, datagram) in &sent.datagrams {
        let inner = Claim::read(*peer, datagram, &original.ends.0).inner;
        let shape = Shape::of(inner).expect("an IP packet");
        assert_eq!(shape, original, "the headers were changed");
        if *peer == 0 {
            taken_by_the_receiver(datagram, inner);
        }
    }
    let total: usize = sent
        .datagrams
        .iter()
        .map(|(_, datagram)| datagram.len() - 28)
        .sum();
    match header.gso_type & 0x7f {
        0 => assert_eq!((sent.datagrams.len(), total), (1, packet.len())),
        _ => assert!(total >= packet.len(), "payload was lost"),
    }
}

/// The data plane at the other end takes what this one sends.
fn taken_by_the_receiver(datagram: &[u8], inner: &[u8]) {
    thread_local!(static RECEIVER: OnceCell<Device> = const { OnceCell::new() });
    RECEIVER.with(|device| {
        let table = device
            .get_or_init(receiver)
            .table()
            .expect("a state in force");
        let peer = table.peer(id("2/1")).expect("a peer of the table");
        let accepted = accept(&table, peer, datagram).expect("what we send we take");
        assert_eq!(accepted.packet, inner);
    });
}

#[derive(Default)]
struct Sent {
    datagrams: Vec<(usize, Vec<u8>)>,
    halves: BTreeMap<u16, Vec<u8>>,
}

impl Sent {
    /// Takes an overlay packet apart, by RFC 791 alone.
    fn take(&mut self, peer: usize, overlay: &[u8]) {
        let word = |at: usize| u16::from_be_bytes([overlay[at], overlay[at + 1]]);
        assert_eq!(
            (overlay[0], usize::from(word(2)), overlay[9]),
            (0x45, overlay.len(), UDP)
        );
        assert_eq!(ones_sum(&overlay[..20]), 0xffff, "the header's checksum");
        assert_eq!(overlay[12..16], [240, 2, 0, 1]);
        assert_eq!(overlay[16..20], [[240, 1, 0, 1], [240, 3, 0, 1]][peer]);
        let data = overlay[20..].to_vec();
        match word(6) {
            0x4000 => self.datagrams.push((peer, data)),
            0x2000 => assert_eq!(self.halves.insert(word(4), data), None),
            offset => {
                let first = self
                    .halves
                    .remove(&word(4))
                    .expect("the first half goes first");
                assert_eq!(
                    first.len(),
                    usize::from(offset) * 8,
                    "the second half follows the first"
                );
                self.datagrams.push((peer, [first, data].concat()));
            }
        }
    }
}

/// What a datagram says of the pod packet inside, by RFC 8926 and the page on our option alone.
struct Claim<'a> {
    inner: &'a [u8],
}

impl<'a> Claim<'a> {
    fn read(peer: usize, datagram: &'a [u8], from: &IpAddr) -> Self {
        let word = |at: usize| u16::from_be_bytes([datagram[at], datagram[at + 1]]);
        assert_eq!(
            (word(2), usize::from(word(4)), word(6)),
            (6081, datagram.len(), 0)
        );
        let inner = &datagram[28..];
        let version: u16 = if inner[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
        assert_eq!((word(8), word(10)), (0x0300, version));
        assert_eq!(
            datagram[12..20],
            [0, 0, 1, 0, 0xff, 0x48, 1, 2],
            "VNI 1 and our option"
        );
        assert_eq!(word(20), 2, "our cluster");
        assert!(
            word(22) <= u16::from(peer == 0),
            "a foreign peer fills in no checksum"
        );
        let host = ["10.2.1.1", "fd01:2:1::1"]
            .iter()
            .any(|text| text.parse() == Ok(*from));
        assert_eq!((word(24), word(26)), (0, if host { 1 } else { 2000 }));
        Self { inner }
    }
}
