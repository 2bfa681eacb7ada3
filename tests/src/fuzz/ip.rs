//! Pod packets, read by the product and by another reader.

use hawser_tunnel::ip::{Fragment, Packet, checksum};
use hawser_tunnel::reject::Reject;

use super::packet::{Shape, TCP, UDP, make, ones_sum};
use super::source::Source;
use super::world::OUTBOUND;

/// Target: any bytes as a pod packet.
pub(super) fn packet(input: &[u8]) {
    let mut source = Source::new(input);
    let bytes = match source.once_in(3) {
        true => source.rest().to_vec(),
        false => make(&mut source, &OUTBOUND, 64).bytes,
    };
    assert_eq!(checksum::fold(checksum::sum(&bytes)), ones_sum(&bytes));
    match Packet::parse(&bytes) {
        Ok(packet) => agrees(&packet, &bytes),
        Err(reason) => assert!(
            matches!(
                reason,
                Reject::InnerMalformed | Reject::InnerTinyFragment | Reject::NestedGeneve
            ),
            "{reason} of a pod packet"
        ),
    }
}

fn agrees(packet: &Packet, bytes: &[u8]) {
    assert_eq!(packet.length, bytes.len());
    let shape = Shape::of(bytes).expect("a packet that another reader understands");
    assert_eq!(shape.ends, (packet.source, packet.destination));
    assert_eq!(shape.upper, (packet.protocol, packet.transport));
    assert_eq!(shape.later_fragment, packet.fragment == Fragment::Later);
    assert_eq!(shape.ports(bytes), packet.ports(bytes));
    if let Some((_, to)) = packet.ports(bytes) {
        assert!(packet.protocol != UDP || to != 6081, "Geneve inside Geneve");
    }
    if packet.fragment != Fragment::Later {
        assert!(
            packet.transport <= packet.length,
            "the upper layer lies outside"
        );
        let has_ports = matches!(packet.protocol, TCP | UDP);
        assert_eq!(
            packet.ports(bytes).is_some(),
            has_ports,
            "ports that nobody sees"
        );
    }
    if let Some(offset) = packet.checksum_offset() {
        assert_eq!(packet.fragment, Fragment::Whole);
        assert!(
            packet.transport + offset + 2 <= bytes.len(),
            "the checksum lies outside"
        );
    }
}
