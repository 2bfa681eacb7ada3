use super::*;
use etherparse::PacketBuilder;
use proptest::prelude::*;

const NEEDS_CSUM: u8 = Header::NEEDS_CSUM;

/// A super-frame's packet as the kernel leaves it, and the header it puts in front.
fn tcp(six: bool, payload: &[u8], size: u16) -> (Header, Vec<u8>) {
    let mut packet = Vec::new();
    if six {
        let builder = PacketBuilder::ipv6([1; 16], [2; 16], 64)
            .tcp(1, 2, 0xffff_fff0, 99)
            .psh()
            .fin()
            .cwr()
            .ack(7);
        builder.write(&mut packet, payload).unwrap();
    } else {
        let builder =
            PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp(1, 2, 0xffff_fff0, 99);
        builder
            .psh()
            .fin()
            .cwr()
            .ack(7)
            .write(&mut packet, payload)
            .unwrap();
    }
    let transport = if six { 40 } else { 20 };
    let start = u16::try_from(ETHERNET_LEN + transport).unwrap();
    let header = Header {
        flags: NEEDS_CSUM,
        gso_type: if six { 4 } else { 1 },
        hdr_len: 0,
        gso_size: size,
        csum_start: start,
        csum_offset: 16,
    };
    (header, packet)
}

fn udp(payload: &[u8], size: u16) -> (Header, Vec<u8>) {
    let mut packet = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(1, 2)
        .write(&mut packet, payload)
        .unwrap();
    let header = Header {
        flags: NEEDS_CSUM,
        gso_type: 5,
        hdr_len: 0,
        gso_size: size,
        csum_start: 34,
        csum_offset: 6,
    };
    (header, packet)
}

fn split(header: Header, packet: &[u8], fill: bool) -> Result<Vec<Vec<u8>>, Reject> {
    let segments = Segments::new(header, packet, Packet::parse(packet)?)?;
    Ok((0..segments.count())
        .map(|at| {
            let mut out = vec![0xee; segments.length(at)];
            assert!(out.len() <= segments.largest());
            segments.write(at, fill, &mut out);
            out
        })
        .collect())
}

fn checksum_is_right(packet: &[u8]) -> bool {
    let ip = Packet::parse(packet).unwrap();
    let header =
        !ip.source.is_ipv4() || checksum::fold(checksum::sum(&packet[..ip.transport])) == 0xffff;
    header
        && checksum::fold(ip.pseudo_header_sum() + checksum::sum(&packet[ip.transport..])) == 0xffff
}

proptest! {
    #[test]
    fn segments_hold_every_byte_once_with_right_headers(
        payload in prop::collection::vec(any::<u8>(), 1..9000), size in 5_u16..1400, six: bool,
    ) {
        let (header, packet) = tcp(six, &payload, size);
        let segments = split(header, &packet, true).unwrap();
        let transport = if six { 40 } else { 20 };
        let mut joined = Vec::new();
        for (at, segment) in segments.iter().enumerate() {
            prop_assert!(checksum_is_right(segment), "segment {}", at);
            let tcp = &segment[transport..];
            let sequence = u32::from_be_bytes(tcp[4..8].try_into().unwrap());
            prop_assert_eq!(sequence, 0xffff_fff0_u32.wrapping_add(u32::try_from(joined.len()).unwrap()));
            let (first, last) = (at == 0, at + 1 == segments.len());
            prop_assert_eq!(tcp[13] & TCP_CWR != 0, first, "CWR on the first alone");
            prop_assert_eq!(tcp[13] & TCP_FIN_PSH, if last { TCP_FIN_PSH } else { 0 });
            if !six {
                prop_assert_eq!(usize::from(u16::from_be_bytes([segment[4], segment[5]])), at);
            }
            joined.extend_from_slice(&tcp[20..]);
        }
        prop_assert_eq!(joined, payload);
    }

    #[test]
    fn datagrams_of_one_size(payload in prop::collection::vec(any::<u8>(), 1..9000), size in 5_u16..1400) {
        let (header, packet) = udp(&payload, size);
        let mut joined = Vec::new();
        for segment in split(header, &packet, true).unwrap() {
            prop_assert!(checksum_is_right(&segment));
            prop_assert_eq!(usize::from(u16::from_be_bytes([segment[24], segment[25]])), segment.len() - 20);
            joined.extend_from_slice(&segment[28..]);
        }
        prop_assert_eq!(joined, payload);
    }

    #[test]
    fn any_offload_header_is_taken_or_refused(
        flags: u8, gso_type: u8, gso_size: u16, csum_start in 0_u16..200, csum_offset in 0_u16..200, six: bool,
        payload in prop::collection::vec(any::<u8>(), 0..200), offset: u8,
    ) {
        let (_, mut packet) = tcp(six, &payload, 0);
        packet[if six { 52 } else { 32 }] = offset;
        let header = Header { flags, gso_type, hdr_len: 0, gso_size, csum_start, csum_offset };
        for fill in [false, true] {
            let _ = split(header, &packet, fill);
        }
    }
}

#[test]
fn what_is_not_filled_holds_the_pseudo_header_of_its_own_length() {
    let (header, packet) = tcp(false, &[7; 3000], 1000);
    for segment in split(header, &packet, false).unwrap() {
        let ip = Packet::parse(&segment).unwrap();
        assert_eq!(
            u16::from_be_bytes([segment[36], segment[37]]),
            checksum::fold(ip.pseudo_header_sum())
        );
        let mut filled = segment.clone();
        assert!(fill_checksum(&mut filled, &ip));
        assert!(checksum_is_right(&filled));
    }
}

#[test]
fn a_sum_inside_a_pods_own_tunnel_is_made_here() {
    // IPIP: the sum to be made is the inner UDP's, which the receiver could not find.
    let (_, inner) = udp(&[1, 2, 3], 0);
    let mut packet = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .write(&mut packet, etherparse::IpNumber(4), &inner)
        .unwrap();
    let ip = Packet::parse(&inner).unwrap();
    let pseudo = checksum::fold(ip.pseudo_header_sum());
    packet[46..48].copy_from_slice(&pseudo.to_be_bytes());
    let header = Header {
        flags: NEEDS_CSUM,
        csum_start: 54,
        csum_offset: 6,
        ..Header::COMPLETE
    };
    let segments = split(header, &packet, false).unwrap();
    assert!(checksum_is_right(&segments[0][20..]));
}

#[test]
fn offload_headers_that_do_not_fit_are_malformed() {
    let (good, packet) = tcp(false, &[7; 3000], 1000);
    let refused = |header: Header, packet: &[u8]| {
        assert_eq!(split(header, packet, false), Err(Reject::FrameMalformed))
    };
    refused(
        Header {
            gso_size: 0,
            ..good
        },
        &packet,
    );
    refused(
        Header {
            gso_type: 3,
            ..good
        },
        &packet,
    );
    refused(
        Header {
            gso_type: 5,
            ..good
        },
        &packet,
    );
    refused(Header { flags: 0, ..good }, &packet);
    refused(
        Header {
            csum_start: 13,
            ..good
        },
        &packet,
    );
    refused(
        Header {
            csum_start: 65_000,
            ..good
        },
        &packet,
    );
    for offset in [0x00, 0x40, 0x4f] {
        let mut short = packet.clone();
        short[32] = offset;
        refused(good, &short);
    }
    let mut fragment = packet.clone();
    fragment[6] = 0x20;
    refused(good, &fragment);
}

/// Found by fuzzing: addresses and ports were judged as they came, and then a sum was written over them, wherever
/// the offload header of a pod's packet socket pointed.
#[test]
fn no_sum_is_written_over_the_addresses_and_ports_that_were_judged() {
    for (_, packet) in [
        tcp(false, &[7; 30], 0),
        tcp(true, &[7; 30], 0),
        udp(&[7; 30], 0),
    ] {
        let ip = Packet::parse(&packet).unwrap();
        let sum_at = |start: usize, at: usize| Header {
            flags: NEEDS_CSUM,
            csum_start: u16::try_from(ETHERNET_LEN + start).unwrap(),
            csum_offset: u16::try_from(at - start).unwrap(),
            ..Header::COMPLETE
        };
        for start in 0..=ip.transport {
            for at in start..ip.transport + 4 {
                let refused = split(sum_at(start, at), &packet, true);
                assert_eq!(refused, Err(Reject::FrameMalformed), "from {start} at {at}");
            }
        }
        let behind = split(sum_at(ip.transport, ip.transport + 4), &packet, true).unwrap();
        let judged = ..ip.transport + 4;
        assert_eq!(behind[0][judged], packet[judged]);
    }
}
