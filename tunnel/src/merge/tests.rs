use super::*;
use crate::segment::Segments;
use etherparse::PacketBuilder;
use proptest::prelude::*;

/// One generated packet: which flow, how much payload, and what is unlike in it.
#[derive(Clone, Debug)]
struct Told {
    flow: u8,
    payload: usize,
    flags: u8,
    odd: Odd,
}

/// What may be unlike in a packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Odd {
    Nothing,
    Hole,
    Acknowledgement,
    Window,
    Options,
    Id,
    TimeToLive,
    Service,
    Sum,
    Mac,
    Fragment,
    Urgent,
}

/// Where each flow is.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    sequence: u32,
    id: u16,
}

const FILLED: u8 = 4;

/// Writes a packet of a flow. Flow bits: 1 IPv6, 2 UDP, 4 checksums filled in, 8 another port.
fn make(told: &Told, cursor: &mut Cursor, serial: u8) -> (Vec<u8>, bool, [u8; ETHERNET_LEN]) {
    let (six, udp) = (told.flow & 1 != 0, told.flow & 2 != 0);
    let left = told.flow & FILLED == 0;
    let port = 1000 + u16::from(told.flow & 8);
    let payload: Vec<u8> = (0..told.payload)
        .map(|at| u8::try_from(at % 251).unwrap() ^ serial)
        .collect();
    if told.odd == Odd::Hole {
        cursor.sequence = cursor.sequence.wrapping_add(7);
    }
    if told.odd == Odd::Id {
        cursor.id = cursor.id.wrapping_add(3);
    }
    let mut packet = Vec::new();
    let window = if told.odd == Odd::Window { 99 } else { 500 };
    let acknowledged = if told.odd == Odd::Acknowledgement {
        6
    } else {
        5
    };
    let options = [
        1,
        1,
        8,
        10,
        0,
        0,
        0,
        u8::from(told.odd == Odd::Options),
        0,
        0,
        0,
        2,
    ];
    let transport = if six { 40 } else { 20 };
    macro_rules! write {
        ($builder:expr) => {{
            if udp {
                $builder
                    .udp(port, 2000)
                    .write(&mut packet, &payload)
                    .unwrap();
            } else {
                $builder
                    .tcp(port, 2000, cursor.sequence, window)
                    .ack(acknowledged)
                    .options_raw(&options)
                    .unwrap()
                    .write(&mut packet, &payload)
                    .unwrap();
            }
        }};
    }
    match six {
        true => write!(PacketBuilder::ipv6([1; 16], [2; 16], 64)),
        false => write!(PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)),
    }
    if !six {
        packet[4..6].copy_from_slice(&cursor.id.to_be_bytes());
        // Every other packet may be fragmented, so that its identification counts.
        packet[6] = if told.flow & 8 == 0 { 0x40 } else { 0 };
    }
    match told.odd {
        Odd::TimeToLive => packet[if six { 7 } else { 8 }] = 63,
        Odd::Service => packet[1] ^= if six { 0x10 } else { 1 },
        Odd::Fragment if !six => packet[6] = 0x20,
        Odd::Fragment
        | Odd::Nothing
        | Odd::Hole
        | Odd::Acknowledgement
        | Odd::Window
        | Odd::Options
        | Odd::Id
        | Odd::Sum
        | Odd::Mac
        | Odd::Urgent => {}
    }
    if !udp {
        packet[transport + 13] |= told.flags;
        if told.odd == Odd::Urgent {
            packet[transport + 13] |= 0x20;
        }
    }
    if !six {
        packet[10..12].fill(0);
        let sum = !checksum::fold(checksum::sum(&packet[..20]));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    cursor.sequence = cursor
        .sequence
        .wrapping_add(u32::try_from(told.payload).unwrap());
    cursor.id = cursor.id.wrapping_add(1);
    let ip = Packet::parse(&packet).unwrap();
    let field = transport + if udp { 6 } else { 16 };
    if left {
        let pseudo = checksum::fold(ip.pseudo_header_sum());
        packet[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
    } else {
        crate::segment::fill_checksum(&mut packet, &ip);
    }
    if told.odd == Odd::Sum {
        packet[field] ^= 0x11;
    }
    let mut ethernet = [2; ETHERNET_LEN];
    ethernet[11] = u8::from(told.odd == Odd::Mac);
    ethernet[12..].copy_from_slice(if six { &[0x86, 0xdd] } else { &[8, 0] });
    (packet, left && ip.fragment == Fragment::Whole, ethernet)
}

fn told() -> impl Strategy<Value = Told> {
    let odd = prop_oneof![
        30 => Just(Odd::Nothing), 1 => Just(Odd::Hole), 1 => Just(Odd::Acknowledgement), 1 => Just(Odd::Window),
        1 => Just(Odd::Options), 1 => Just(Odd::Id), 1 => Just(Odd::TimeToLive), 1 => Just(Odd::Service),
        1 => Just(Odd::Sum), 1 => Just(Odd::Mac), 1 => Just(Odd::Fragment), 1 => Just(Odd::Urgent),
    ];
    let payload =
        prop_oneof![12 => Just(1000_usize), 2 => 1_usize..1001, 1 => Just(0), 1 => Just(1001)];
    let flags = prop_oneof![12 => Just(0_u8), 1 => Just(8), 1 => Just(9), 1 => Just(0x80), 1 => Just(0x40), 1 => Just(2), 1 => Just(4)];
    (
        prop_oneof![8 => Just(0_u8), 1 => 0_u8..16],
        payload,
        flags,
        odd,
    )
        .prop_map(|(flow, payload, flags, odd)| Told {
            flow,
            payload,
            flags,
            odd,
        })
}

/// All frames of what was told: the packets that went in, and the frames that came out.
struct Run {
    packets: Vec<(Vec<u8>, bool, [u8; ETHERNET_LEN])>,
    bytes: Vec<u8>,
    merger: Merger,
}

fn run(all: &[Told], joins: Joins) -> Run {
    let mut cursors = [Cursor::default(); 16];
    let mut packets = Vec::new();
    for (serial, told) in all.iter().enumerate() {
        let cursor = &mut cursors[usize::from(told.flow)];
        packets.push(make(told, cursor, u8::try_from(serial % 256).unwrap()));
    }
    let mut bytes = Vec::new();
    let mut merger = Merger::new(joins);
    let mut pieces = Vec::new();
    for (packet, left, ethernet) in &packets {
        bytes.extend_from_slice(&[0xee; 9]);
        let start = bytes.len();
        bytes.extend_from_slice(packet);
        pieces.push(Piece {
            range: start..bytes.len(),
            ip: Packet::parse(packet).unwrap(),
            ethernet: *ethernet,
            checksum_left: *left,
        });
    }
    for piece in pieces {
        merger.push(&bytes, piece);
    }
    merger.finish(&mut bytes);
    Run {
        packets,
        bytes,
        merger,
    }
}

/// What a receiver's kernel knows a packet by; IPv4's identification means nothing where fragmenting is forbidden.
fn known(frame: &[u8], header: Header) -> (Vec<u8>, bool) {
    let mut frame = frame.to_vec();
    let packet = &mut frame[ETHERNET_LEN..];
    if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    let whole = Packet::parse(packet).is_ok_and(|ip| ip.checksum_offset().is_some());
    // Filled in or left to be: what leaves the host is the same.
    if header.needs_checksum() && whole {
        let ip = Packet::parse(packet).unwrap();
        let field = ip.transport + ip.checksum_offset().unwrap();
        let pseudo = checksum::fold(ip.pseudo_header_sum());
        if packet[field..field + 2] == pseudo.to_be_bytes() {
            crate::segment::fill_checksum(packet, &ip);
        } else {
            return (frame, true);
        }
    }
    (frame, false)
}

fn flow_of(frame: &[u8]) -> Vec<u8> {
    let packet = &frame[ETHERNET_LEN..];
    let ip = Packet::parse(packet).unwrap();
    let ports = ip.ports(packet);
    let ends = format!(
        "{:?} {:?} {} {ports:?}",
        ip.source, ip.destination, ip.protocol
    );
    [&frame[..ETHERNET_LEN], ends.as_bytes()].concat()
}

/// Each flow with its packets in order, and of each whether its checksum is nobody's.
type Flows = Vec<(Vec<u8>, Vec<(Vec<u8>, bool)>)>;

fn per_flow(frames: impl Iterator<Item = (Header, Vec<u8>)>) -> Flows {
    let mut flows = Flows::new();
    for (header, frame) in frames {
        let key = flow_of(&frame);
        let seen = known(&frame, header);
        match flows.iter_mut().find(|(flow, _)| *flow == key) {
            Some((_, list)) => list.push(seen),
            None => flows.push((key, vec![seen])),
        }
    }
    flows.sort();
    flows
}

fn check(all: &[Told], joins: Joins) -> (usize, usize) {
    let run = run(all, joins);
    let went_in = run.packets.iter().map(|(packet, left, ethernet)| {
        let piece = Piece {
            range: 0..packet.len(),
            ip: Packet::parse(packet).unwrap(),
            ethernet: *ethernet,
            checksum_left: *left,
        };
        (single(&piece), [&ethernet[..], packet].concat())
    });
    let came_out = run
        .merger
        .frames(&run.bytes)
        .flat_map(|frame| frame.split());
    assert!(
        per_flow(went_in) == per_flow(came_out),
        "a flow is not what it was"
    );
    for frame in run.merger.frames(&run.bytes) {
        sound(&frame);
    }
    let counted: usize = run
        .merger
        .frames(&run.bytes)
        .map(|frame| frame.packets())
        .sum();
    assert_eq!(counted, all.len());
    (all.len(), run.merger.len())
}

/// The headers of a frame are what Linux takes.
fn sound(frame: &Frame<'_>) {
    let bytes = frame.to_vec();
    let packet = &bytes[ETHERNET_LEN..];
    let ip = Packet::parse(packet).expect("as long as it says");
    let header = frame.header();
    if frame.packets() == 1 {
        assert_eq!(header.gso_type, 0);
        return;
    }
    if packet[0] >> 4 == 4 {
        assert_eq!(checksum::fold(checksum::sum(&packet[..20])), 0xffff);
    }
    assert_eq!(usize::from(header.csum_start), ETHERNET_LEN + ip.transport);
    let field = ip.transport + usize::from(header.csum_offset);
    let pseudo = checksum::fold(ip.pseudo_header_sum());
    assert_eq!(packet[field..field + 2], pseudo.to_be_bytes());
    let segments = Segments::new(header, packet, ip).expect("what is joined can be split");
    assert_eq!(segments.count(), frame.packets());
    assert!(frame.packets() <= MAX_PARTS && packet.len() <= MAX_PACKET);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(17_000))]

    /// A slow reference over a million packets: split again, each flow is the list of packets that went in.
    #[test]
    fn joined_and_split_again_every_flow_is_what_it_was(all in prop::collection::vec(told(), 1..120)) {
        check(&all, Joins::ALL);
    }

    #[test]
    fn nothing_is_joined_where_the_device_takes_no_super_frames(all in prop::collection::vec(told(), 1..60)) {
        let (packets, frames) = check(&all, Joins::NONE);
        prop_assert_eq!(packets, frames);
    }
}

fn plain(flow: u8, payload: usize) -> Told {
    Told {
        flow,
        payload,
        flags: 0,
        odd: Odd::Nothing,
    }
}

#[test]
fn a_stream_becomes_one_frame_whose_headers_count_all_of_it() {
    for flow in [0_u8, 1, 2, 3, 4, 5, 6, 7, 8, 10] {
        let all: Vec<Told> = (0..40).map(|_| plain(flow, 1000)).collect();
        assert_eq!(check(&all, Joins::ALL).1, 1, "flow {flow}");
    }
    let all: Vec<Told> = (0..130).map(|_| plain(0, 1000)).collect();
    assert_eq!(
        check(&all, Joins::ALL).1,
        3,
        "64 packets at most, and 65,535 bytes"
    );
}

#[test]
fn what_is_unlike_is_not_joined() {
    let unlike = [
        Odd::Hole,
        Odd::Acknowledgement,
        Odd::Window,
        Odd::Options,
        Odd::TimeToLive,
        Odd::Service,
        Odd::Sum,
        Odd::Mac,
        Odd::Urgent,
    ];
    for flow in [0_u8, 1, FILLED, FILLED + 1] {
        for odd in unlike {
            let all = [
                plain(flow, 1000),
                Told {
                    odd,
                    ..plain(flow, 1000)
                },
            ];
            assert_eq!(check(&all, Joins::ALL).1, 2, "flow {flow}, {odd:?}");
        }
        for flags in [0x02, 0x04, 0x20, 0x80, 0x40] {
            let all = [
                plain(flow, 1000),
                Told {
                    flags,
                    ..plain(flow, 1000)
                },
            ];
            assert_eq!(
                check(&all, Joins::ALL).1,
                2,
                "flow {flow}, flags {flags:#x}"
            );
        }
        assert_eq!(
            check(&[plain(flow, 1000), plain(flow, 1001)], Joins::ALL).1,
            2,
            "larger"
        );
        assert_eq!(
            check(&[plain(flow, 1000), plain(flow, 0)], Joins::ALL).1,
            2,
            "nothing in it"
        );
    }
    let fragments = [
        Told {
            odd: Odd::Fragment,
            ..plain(2, 1000)
        },
        Told {
            odd: Odd::Fragment,
            ..plain(2, 1000)
        },
    ];
    assert_eq!(check(&fragments, Joins::ALL).1, 2);
    let ids = [
        plain(8, 1000),
        Told {
            odd: Odd::Id,
            ..plain(8, 1000)
        },
    ];
    assert_eq!(
        check(&ids, Joins::ALL).1,
        2,
        "identifications that count do not follow"
    );
}

#[test]
fn a_shorter_packet_or_one_that_pushes_ends_its_frame() {
    for flow in [0_u8, 1, 2, 3] {
        let all = [
            plain(flow, 1000),
            plain(flow, 1000),
            plain(flow, 10),
            plain(flow, 10),
        ];
        assert_eq!(check(&all, Joins::ALL).1, 2, "flow {flow}");
    }
    for flags in [0x08, 0x01, 0x09] {
        let all = [
            plain(0, 1000),
            Told {
                flags,
                ..plain(0, 1000)
            },
            plain(0, 1000),
            plain(0, 1000),
        ];
        assert_eq!(check(&all, Joins::ALL).1, 2, "flags {flags:#x}");
        let all = [
            Told {
                flags,
                ..plain(0, 1000)
            },
            plain(0, 1000),
        ];
        assert_eq!(check(&all, Joins::ALL).1, 2, "nothing follows it");
    }
}

#[test]
fn congestion_window_reduced_stays_on_the_first_packet() {
    let all = [
        Told {
            flags: 0x80,
            ..plain(0, 1000)
        },
        plain(0, 1000),
        plain(0, 1000),
    ];
    let run = run(&all, Joins::ALL);
    let frames: Vec<_> = run.merger.frames(&run.bytes).collect();
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].header().gso_type, 1 | Header::GSO_ECN);
    check(&all, Joins::ALL);
}

#[test]
fn flows_that_alternate_are_joined_each_for_itself() {
    let all: Vec<Told> = (0..40)
        .map(|at| plain([0, 1, 8, 2][at % 4], 1000))
        .collect();
    assert_eq!(check(&all, Joins::ALL).1, 4);
}

#[test]
fn udp_without_a_checksum_stays_alone() {
    let (mut packet, _, ethernet) = make(&plain(2 + FILLED, 100), &mut Cursor::default(), 0);
    packet[26..28].fill(0);
    let mut merger = Merger::default();
    let bytes = [&packet[..], &packet].concat();
    for range in [0..packet.len(), packet.len()..bytes.len()] {
        let ip = Packet::parse(&packet).unwrap();
        merger.push(
            &bytes,
            Piece {
                range,
                ip,
                ethernet,
                checksum_left: false,
            },
        );
    }
    assert_eq!(merger.len(), 2);
}
