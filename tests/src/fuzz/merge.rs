//! Packets that are joined to super-frames, taken apart again by a reader of its own.

use std::collections::BTreeMap;

use hawser_tunnel::ip::Packet;
use hawser_tunnel::merge::{Frame, Joins, MAX_PARTS, Merger, Piece};

use super::packet::{TCP, UDP, make, ones_sum, pseudo_sum};
use super::source::Source;
use super::world::INBOUND;
use crate::integrity::Superframe;

/// More packets show nothing new and take long.
const MOST_PACKETS: usize = 90;

/// One packet as it was opened.
struct Given {
    packet: Vec<u8>,
    ip: Packet,
    ethernet: [u8; 14],
    checksum_left: bool,
}

/// Target: packets of several flows, most of which continue one before; each flow comes out as it went in.
pub(super) fn flows(input: &[u8]) {
    let mut source = Source::new(input);
    let joins = source.pick(&[Joins::ALL, Joins::ALL, Joins::NONE]);
    let mut given: Vec<Given> = Vec::new();
    while !source.is_empty() && given.len() < MOST_PACKETS {
        given.extend(next(&mut source, &given));
    }
    let mut bytes = Vec::new();
    let mut merger = Merger::new(joins);
    let mut pieces = Vec::new();
    for one in &given {
        let start = bytes.len();
        bytes.extend(&one.packet);
        pieces.push(Piece {
            range: start..bytes.len(),
            ip: one.ip,
            ethernet: one.ethernet,
            checksum_left: one.checksum_left,
        });
    }
    for piece in pieces {
        merger.push(&bytes, piece);
    }
    merger.finish(&mut bytes);
    let went_in = by_flow(given.iter().map(|one| {
        let whole = Superframe {
            packet: one.packet.clone(),
            size: 0,
            partial: one.checksum_left,
        };
        (one.ethernet, whole)
    }));
    let came_out = by_flow(merger.frames(&bytes).map(|frame| read(&frame)));
    assert!(went_in == came_out, "a flow is not what it was");
    if joins == Joins::NONE {
        assert_eq!(merger.len(), given.len());
    }
}

fn next(source: &mut Source<'_>, given: &[Given]) -> Option<Given> {
    let before = match given.len() {
        0 => None,
        count => {
            let back = source.below(count.min(4)) + 1;
            let new = source.once_in(5);
            (!new).then(|| &given[count - back])
        }
    };
    let (packet, mut ethernet, left) = match before {
        Some(before) => (
            continued(source, before),
            before.ethernet,
            before.checksum_left,
        ),
        None => {
            let most = source.pick(&[100, 1400, 8]);
            let made = make(source, &INBOUND, most);
            (made.bytes, [2; 14], source.once_in(2))
        }
    };
    if source.once_in(20) {
        ethernet[11] ^= source.any::<u8>();
    }
    let ip = Packet::parse(&packet).ok()?;
    let checksum_left = left && ip.checksum_offset().is_some();
    Some(Given {
        packet,
        ip,
        ethernet,
        checksum_left,
    })
}

/// The packet that would follow; where the input says so, something in it is unlike.
fn continued(source: &mut Source<'_>, before: &Given) -> Vec<u8> {
    let mut packet = before.packet.clone();
    let (transport, six) = (before.ip.transport, packet[0] >> 4 == 6);
    let headers = match before.ip.protocol {
        TCP => {
            let words = packet.get(transport + 12).map_or(5, |byte| byte >> 4);
            transport + usize::from(words.max(5)) * 4
        }
        UDP => transport + 8,
        _ => transport,
    };
    let Some(payload) = packet.len().checked_sub(headers) else {
        return packet;
    };
    let length = source.pick(&[payload, payload, payload, payload / 2, payload + 1, 0]);
    packet.truncate(headers);
    packet.extend(source.pattern(length));
    let total = packet.len();
    let word = |value: usize| u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes();
    if six {
        packet[4..6].copy_from_slice(&word(total - 40));
    } else {
        packet[2..4].copy_from_slice(&word(total));
        let id = u16::from_be_bytes([packet[4], packet[5]]);
        let ahead: u16 = source.pick(&[1, 1, 1, 0, 2]);
        packet[4..6].copy_from_slice(&id.wrapping_add(ahead).to_be_bytes());
    }
    match before.ip.protocol {
        TCP => {
            let at = transport + 4;
            let sequence =
                u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
            let ahead = u32::try_from(payload).unwrap_or(u32::MAX);
            packet[at..at + 4].copy_from_slice(&sequence.wrapping_add(ahead).to_be_bytes());
            packet[transport + 13] = source.pick(&[0x10, 0x10, 0x10, 0x18, 0x11, 0x90, 0x50, 0x02]);
        }
        UDP => packet[transport + 4..transport + 6].copy_from_slice(&word(total - transport)),
        _ => {}
    }
    if source.once_in(12) {
        // Not the version: it would be another packet, and not one that is unlike.
        let at = 1 + source.below(headers - 1);
        packet[at] ^= source.any::<u8>();
    }
    sums(source, &mut packet, before, six);
    packet
}

fn sums(source: &mut Source<'_>, packet: &mut [u8], before: &Given, six: bool) {
    if !six {
        let headers = before.ip.transport.min(packet.len());
        packet[10..12].fill(0);
        let sum = !ones_sum(&packet[..headers]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let transport = before.ip.transport;
    let field = transport
        + match before.ip.protocol {
            TCP => 16,
            UDP => 6,
            _ => return,
        };
    if field + 2 > packet.len() || source.once_in(16) {
        return;
    }
    let partial = pseudo_sum(packet, transport, before.ip.protocol);
    packet[field..field + 2].copy_from_slice(&partial.to_be_bytes());
    if !before.checksum_left {
        let sum = !ones_sum(&packet[transport..]);
        packet[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

/// A frame as a kernel would read it.
fn read(frame: &Frame<'_>) -> ([u8; 14], Superframe) {
    let (header, bytes) = (frame.header(), frame.to_vec());
    let (ethernet, packet) = bytes.split_first_chunk::<14>().expect("a frame");
    let told = match packet[0] >> 4 {
        4 => usize::from(u16::from_be_bytes([packet[2], packet[3]])),
        _ => 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]])),
    };
    assert_eq!(told, packet.len(), "a frame is as long as it says");
    let joined = frame.packets() > 1;
    assert_eq!(joined, header.gso_type != 0);
    assert!(frame.packets() <= MAX_PARTS);
    if joined && packet[0] >> 4 == 4 {
        assert_eq!(ones_sum(&packet[..20]), 0xffff, "the header's checksum");
    }
    let whole = Superframe {
        packet: packet.to_vec(),
        size: match joined {
            true => usize::from(header.gso_size),
            false => 0,
        },
        partial: header.needs_checksum(),
    };
    if joined {
        let apart = whole.packets().expect("a super-frame can be cut");
        assert_eq!(apart.len(), frame.packets());
    }
    (*ethernet, whole)
}

/// A flow's packets in their order, and whether a sum in them was left that nobody can make.
type Flows = BTreeMap<(Vec<u8>, [u8; 14]), Vec<(Vec<u8>, bool)>>;

fn by_flow(frames: impl Iterator<Item = ([u8; 14], Superframe)>) -> Flows {
    let mut flows = Flows::new();
    for (ethernet, frame) in frames {
        let packets = match frame.packets() {
            Ok(packets) => packets.into_iter().map(|packet| (packet, false)).collect(),
            Err(_) => vec![(frame.packet.clone(), true)],
        };
        for (mut packet, garbled) in packets {
            let ip = Packet::parse(&packet).expect("a packet");
            let ends = format!("{:?}{:?}{}", ip.source, ip.destination, ip.protocol);
            let ports = format!("{ends}{:?}", ip.ports(&packet));
            // The identification means nothing where fragmenting is forbidden (RFC 6864, section 4.1).
            if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
                packet[4..6].fill(0);
                packet[10..12].fill(0);
            }
            let flow = flows.entry((ports.into_bytes(), ethernet)).or_default();
            flow.push((packet, garbled));
        }
    }
    flows
}
