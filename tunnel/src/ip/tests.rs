use super::*;
use etherparse::PacketBuilder;
use proptest::prelude::*;

fn udp4(port: u16, payload: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4([10, 1, 1, 10], [10, 2, 1, 10], 64).udp(4000, port);
    builder.write(&mut packet, &vec![7; payload]).unwrap();
    packet
}

fn tcp6(payload: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    let source = Ipv6Addr::new(0xfd01, 1, 1, 0, 0, 0, 0, 0x10).octets();
    let destination = Ipv6Addr::new(0xfd01, 2, 1, 0, 0, 0, 0, 0x10).octets();
    let builder = PacketBuilder::ipv6(source, destination, 64).tcp(4000, 80, 1, 1024);
    builder.write(&mut packet, &vec![7; payload]).unwrap();
    packet
}

/// Puts IPv6 extension headers in front of the transport header.
fn with_extensions(packet: &[u8], headers: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = packet[..40].to_vec();
    let transport = packet[6];
    let kinds: Vec<u8> = headers
        .iter()
        .map(|(kind, _)| *kind)
        .chain([transport])
        .collect();
    bytes[6] = kinds[0];
    for ((_, header), next) in headers.iter().zip(&kinds[1..]) {
        let mut header = header.clone();
        header[0] = *next;
        bytes.extend(header);
    }
    bytes.extend_from_slice(&packet[40..]);
    let length = u16::try_from(bytes.len() - 40).unwrap();
    bytes[4..6].copy_from_slice(&length.to_be_bytes());
    bytes
}

#[test]
fn headers_of_both_families() {
    let packet = Packet::parse(&udp4(53, 10)).unwrap();
    assert_eq!(
        (packet.source, packet.destination),
        ([10, 1, 1, 10].into(), [10, 2, 1, 10].into())
    );
    assert_eq!(
        (packet.protocol, packet.transport, packet.length),
        (protocol::UDP, 20, 38)
    );
    assert_eq!(packet.checksum_offset(), Some(6));
    let bytes = tcp6(10);
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(
        (packet.protocol, packet.transport, packet.length),
        (protocol::TCP, 40, 70)
    );
    assert_eq!(
        (packet.ports(&bytes), packet.checksum_offset()),
        (Some((4000, 80)), Some(16))
    );
}

#[test]
fn a_packet_is_exactly_as_long_as_it_says() {
    for packet in [udp4(53, 10), tcp6(10)] {
        for short in 0..packet.len() {
            assert_eq!(Packet::parse(&packet[..short]), Err(Reject::InnerMalformed));
        }
        assert_eq!(
            Packet::parse(&[&packet[..], &[0]].concat()),
            Err(Reject::InnerMalformed)
        );
    }
    let mut packet = udp4(53, 10);
    for version_and_ihl in [0x35, 0x55, 0x44, 0x40, 0x4f] {
        packet[0] = version_and_ihl;
        assert_eq!(
            Packet::parse(&packet),
            Err(Reject::InnerMalformed),
            "{version_and_ihl:#x}"
        );
    }
}

#[test]
fn geneve_inside_geneve_is_refused_behind_any_headers() {
    assert_eq!(
        Packet::parse(&udp4(geneve::PORT, 20)),
        Err(Reject::NestedGeneve)
    );
    let mut packet = Vec::new();
    PacketBuilder::ipv6([1; 16], [2; 16], 64)
        .udp(1, geneve::PORT)
        .write(&mut packet, &[0; 20])
        .unwrap();
    assert_eq!(Packet::parse(&packet), Err(Reject::NestedGeneve));
    for kind in [0_u8, 43, 60] {
        let hidden = with_extensions(
            &packet,
            &[
                (kind, vec![0; 8]),
                (60, vec![0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            ],
        );
        assert_eq!(
            Packet::parse(&hidden),
            Err(Reject::NestedGeneve),
            "behind {kind}"
        );
    }
    let first_fragment = with_extensions(&packet, &[(44, vec![0, 0, 0, 1, 0, 0, 0, 1])]);
    assert_eq!(Packet::parse(&first_fragment), Err(Reject::NestedGeneve));
    let mut options = udp4(geneve::PORT, 20);
    options.splice(20..20, [1; 4]);
    options[0] = 0x46;
    options[3] += 4;
    assert_eq!(
        Packet::parse(&options),
        Err(Reject::NestedGeneve),
        "behind IPv4 options"
    );
}

#[test]
fn endless_extension_headers_are_malformed() {
    let packet = tcp6(0);
    let some = vec![(60_u8, vec![0; 8]); 8];
    assert!(Packet::parse(&with_extensions(&packet, &some)).is_ok());
    let many = vec![(60_u8, vec![0; 8]); 9];
    assert_eq!(
        Packet::parse(&with_extensions(&packet, &many)),
        Err(Reject::InnerMalformed)
    );
    let mut long = with_extensions(&packet, &[(60, vec![0; 8])]);
    long[41] = 255; // an extension that runs past the packet
    assert_eq!(Packet::parse(&long), Err(Reject::InnerMalformed));
}

#[test]
fn fragments_keep_together_and_must_show_their_ports() {
    let mut first = udp4(53, 100);
    let whole = Packet::parse(&first).unwrap().flow_hash(&first);
    first[6] = 0x20;
    let parsed = Packet::parse(&first).unwrap();
    assert_eq!(
        (parsed.fragment, parsed.checksum_offset()),
        (Fragment::First, None)
    );
    let mut later = udp4(53, 60);
    later[7] = 16;
    let parsed_later = Packet::parse(&later).unwrap();
    assert_eq!(
        (parsed_later.fragment, parsed_later.ports(&later)),
        (Fragment::Later, None)
    );
    assert_eq!(parsed.flow_hash(&first), parsed_later.flow_hash(&later));
    assert_ne!(parsed.flow_hash(&first), whole);
    let mut tiny = udp4(53, 0)[..22].to_vec();
    tiny[3] = 22;
    tiny[6] = 0x20;
    assert_eq!(Packet::parse(&tiny), Err(Reject::InnerTinyFragment));
}

proptest! {
    #[test]
    fn agrees_with_etherparse_on_pseudo_header_and_checksum(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut udp = Vec::new();
        PacketBuilder::ipv4([10, 1, 1, 10], [10, 2, 1, 10], 64).udp(4000, 53).write(&mut udp, &payload).unwrap();
        let mut tcp = tcp6(0);
        tcp.extend_from_slice(&payload);
        let length = u16::try_from(tcp.len() - 40).unwrap();
        tcp[4..6].copy_from_slice(&length.to_be_bytes());
        let parsed = Packet::parse(&tcp).unwrap();
        crate::segment::fill_checksum(&mut tcp, &parsed);
        for packet in [udp, tcp] {
            let parsed = Packet::parse(&packet).unwrap();
            let sum = checksum::fold(parsed.pseudo_header_sum() + checksum::sum(&packet[parsed.transport..]));
            prop_assert_eq!(sum, 0xffff);
        }
        let headers = etherparse::SlicedPacket::from_ip(&tcp6(4)).is_ok();
        prop_assert!(headers);
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200), version in 4_u8..7) {
        if let Some(first) = bytes.first_mut() {
            *first = version << 4 | (*first & 0x0f);
        }
        if let Ok(packet) = Packet::parse(&bytes) {
            prop_assert!(packet.transport <= packet.length && packet.length == bytes.len());
            let _ = (packet.ports(&bytes), packet.flow_hash(&bytes), packet.pseudo_header_sum());
        }
    }
}
