//! Says in words what the bytes of a captured packet are.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// The class of the product's Geneve option, and its type.
const OPTION: (u16, u8) = (0xff48, 1);

/// Reads big-endian numbers at fixed places; what is not there reads as zero.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn number(&self, at: usize, length: usize) -> u64 {
        let bytes = self.0.get(at..at + length).unwrap_or_default();
        bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    fn little(&self, at: usize, length: usize) -> u64 {
        let bytes = self.0.get(at..at + length).unwrap_or_default();
        bytes
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    fn mac(&self, at: usize) -> String {
        (at..at + 6)
            .map(|at| format!("{:02x}", self.number(at, 1)))
            .collect::<Vec<_>>()
            .join(":")
    }

    fn rest(&self, at: usize) -> Bytes<'_> {
        Bytes(self.0.get(at..).unwrap_or_default())
    }
}

/// A WireGuard frame from the underlay.
pub(super) fn wire(frame: &[u8]) -> Vec<String> {
    let frame = Bytes(frame);
    let mut lines = vec![format!("Ethernet   {} > {}", frame.mac(6), frame.mac(0))];
    let (line, header) = ip(&frame.rest(ETHERNET));
    lines.push(line);
    let udp = frame.rest(ETHERNET + header);
    lines.push(udp_line(&udp));
    let message = udp.rest(8);
    lines.push(format!(
        "WireGuard  type {} (transport data), receiver 0x{:08x}, counter {}, then {} bytes of ciphertext and tag",
        message.number(0, 1),
        message.little(4, 4),
        message.little(8, 8),
        udp.number(4, 2).saturating_sub(8 + 16)
    ));
    lines
}

/// An overlay packet: IPv4, UDP, Geneve, option, pod packet.
pub(super) fn geneve(packet: &[u8]) -> Vec<String> {
    let packet = Bytes(packet);
    let (line, header) = ip(&packet);
    let udp = packet.rest(header);
    let mut lines = vec![line.replacen("IPv4      ", "Overlay   ", 1), udp_line(&udp)];
    let geneve = udp.rest(8);
    let options = usize::try_from(geneve.number(0, 1) & 0x3f).unwrap_or_default() * 4;
    lines.push(format!(
        "Geneve     version {}, protocol 0x{:04x}, VNI {}, {options} bytes of options",
        geneve.number(0, 1) >> 6,
        geneve.number(2, 2),
        geneve.number(4, 3)
    ));
    if options >= 12
        && (geneve.number(8, 2), geneve.number(10, 1)) == (OPTION.0.into(), OPTION.1.into())
    {
        lines.push(format!(
            "Option     class 0x{:04x} type 0x{:02x}: source cluster {}, flags 0x{:x}, source identity {}",
            OPTION.0,
            OPTION.1,
            geneve.number(12, 2),
            geneve.number(14, 2),
            geneve.number(16, 4)
        ));
    }
    lines.extend(pod(&geneve.rest(8 + options)));
    lines
}

/// A pod's packet as a frame whose source MAC carries cluster and identity.
pub(super) fn plain(frame: &[u8]) -> Vec<String> {
    let frame = Bytes(frame);
    let mut lines = vec![format!(
        "Ethernet   {} > {}   (cluster {}, identity {})",
        frame.mac(6),
        frame.mac(0),
        frame.number(7, 5) >> 28,
        frame.number(7, 5) & 0x0fff_ffff
    )];
    lines.extend(pod(&frame.rest(ETHERNET)));
    lines
}

/// Whether a frame holds an ICMP echo request.
pub(super) fn is_echo_request(frame: &[u8]) -> bool {
    let packet = Bytes(frame).rest(ETHERNET).0.to_vec();
    let packet = Bytes(&packet);
    let header = usize::try_from(packet.number(0, 1) & 0xf).unwrap_or_default() * 4;
    packet.number(0, 1) >> 4 == 4 && packet.number(9, 1) == 1 && packet.number(header, 1) == 8
}

fn pod(packet: &Bytes<'_>) -> Vec<String> {
    let (line, header) = ip(packet);
    let icmp = packet.rest(header);
    vec![
        line,
        format!(
            "ICMP       type {} (echo request), id {}, sequence {}",
            icmp.number(0, 1),
            icmp.number(4, 2),
            icmp.number(6, 2)
        ),
    ]
}

/// A line about an IP header, and its length.
fn ip(packet: &Bytes<'_>) -> (String, usize) {
    if packet.number(0, 1) >> 4 == 6 {
        let address = |at: usize| {
            let high = u128::from(packet.number(at, 8)) << 64;
            Ipv6Addr::from(high | u128::from(packet.number(at + 8, 8)))
        };
        let line = format!(
            "IPv6       {} > {}, next header {}, hop limit {}, {} bytes",
            address(8),
            address(24),
            packet.number(6, 1),
            packet.number(7, 1),
            packet.number(4, 2) + 40
        );
        return (line, 40);
    }
    let address =
        |at: usize| Ipv4Addr::from(u32::try_from(packet.number(at, 4)).unwrap_or_default());
    let line = format!(
        "IPv4       {} > {}, protocol {}, TTL {}, {} bytes",
        address(12),
        address(16),
        packet.number(9, 1),
        packet.number(8, 1),
        packet.number(2, 2)
    );
    (
        line,
        usize::try_from(packet.number(0, 1) & 0xf).unwrap_or_default() * 4,
    )
}

fn udp_line(udp: &Bytes<'_>) -> String {
    let (from, to, length) = (udp.number(0, 2), udp.number(2, 2), udp.number(4, 2));
    format!(
        "UDP        {from} > {to}, {} bytes of payload, checksum 0x{:04x}",
        length.saturating_sub(8),
        udp.number(6, 2)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_packet_is_told_header_by_header() {
        let mut packet = vec![
            0x45, 0, 0, 96, 0, 0, 0, 0, 64, 17, 0, 0, 240, 1, 0, 1, 240, 2, 0, 1,
        ];
        packet.extend([0xc0, 1, 0x17, 0xc1, 0, 76, 0, 0]);
        packet.extend([
            3, 0, 8, 0, 0, 0, 1, 0, 0xff, 0x48, 1, 2, 0, 1, 0, 0, 0, 0, 0x03, 0xe9,
        ]);
        packet.extend([
            0x45, 0, 0, 48, 0, 0, 0x40, 0, 63, 1, 0, 0, 10, 1, 1, 10, 10, 2, 1, 10, 8, 0, 0, 0, 0,
            5, 0, 6,
        ]);
        assert_eq!(
            geneve(&packet),
            [
                "Overlay    240.1.0.1 > 240.2.0.1, protocol 17, TTL 64, 96 bytes",
                "UDP        49153 > 6081, 68 bytes of payload, checksum 0x0000",
                "Geneve     version 0, protocol 0x0800, VNI 1, 12 bytes of options",
                "Option     class 0xff48 type 0x01: source cluster 1, flags 0x0, source identity 1001",
                "IPv4       10.1.1.10 > 10.2.1.10, protocol 1, TTL 63, 48 bytes",
                "ICMP       type 8 (echo request), id 5, sequence 6",
            ]
        );
    }

    #[test]
    fn identity_is_read_from_the_mac_address() {
        let frame = [
            &[2, 0, 0, 0, 0, 1, 0x02, 0x00, 0x10, 0x00, 0x03, 0xe9, 8, 0][..],
            &[0x45; 40],
        ]
        .concat();
        assert_eq!(
            plain(&frame)[0],
            "Ethernet   02:00:10:00:03:e9 > 02:00:00:00:00:01   (cluster 1, identity 1001)"
        );
    }
}
