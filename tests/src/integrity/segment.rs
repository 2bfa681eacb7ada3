//! TCP segments, UDP datagrams and other packets, made byte by byte.

use std::net::IpAddr;

use crate::sniffer::checksum;

/// TCP's number among the protocols of IP.
pub(super) const TCP: u8 = 6;
/// UDP's.
pub(super) const UDP: u8 = 17;

/// One TCP segment in its IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// From where to where.
    pub ends: (IpAddr, IpAddr),
    /// Source and destination port.
    pub ports: (u16, u16),
    /// Identification (IPv4) or flow label (IPv6).
    pub id: u16,
    /// Don't fragment (IPv4).
    pub whole: bool,
    /// Type of service, or traffic class.
    pub class: u8,
    /// Time to live, or hop limit.
    pub hops: u8,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledged: u32,
    /// CWR, ECE, URG, ACK, PSH, RST, SYN, FIN from the highest bit.
    pub flags: u8,
    /// Window.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// Data.
    pub payload: Vec<u8>,
    /// What the checksum is off by.
    pub checksum_error: u16,
}

impl Segment {
    /// An acknowledgement with these bytes.
    #[must_use]
    pub fn new(ends: (IpAddr, IpAddr), ports: (u16, u16), sequence: u32, payload: &[u8]) -> Self {
        Self {
            ends,
            ports,
            id: 1,
            whole: true,
            class: 0,
            hops: 64,
            sequence,
            acknowledged: 0x0101_0101,
            flags: 0x10,
            window: 500,
            urgent: 0,
            options: Vec::new(),
            payload: payload.to_vec(),
            checksum_error: 0,
        }
    }

    /// The packet.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        let (from, to) = self.ports;
        let words = u8::try_from(5 + self.options.len() / 4).unwrap_or(15);
        let mut segment = [
            &from.to_be_bytes()[..],
            &to.to_be_bytes(),
            &self.sequence.to_be_bytes(),
            &self.acknowledged.to_be_bytes(),
            &[words << 4, self.flags],
            &self.window.to_be_bytes(),
            &[0, 0],
            &self.urgent.to_be_bytes(),
            &self.options,
            &self.payload,
        ]
        .concat();
        let sum = transport_sum(self.ends, TCP, &segment);
        let sum = u16::from_be_bytes(sum).wrapping_add(self.checksum_error);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        let mut packet = ip_packet(self.ends, TCP, &[], &segment);
        let fields = (self.id, self.whole, self.class, self.hops);
        fill(&mut packet, fields);
        packet
    }
}

/// One UDP datagram in its IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// From where to where.
    pub ends: (IpAddr, IpAddr),
    /// Source and destination port.
    pub ports: (u16, u16),
    /// Identification (IPv4) or flow label (IPv6).
    pub id: u16,
    /// Don't fragment (IPv4).
    pub whole: bool,
    /// Type of service, or traffic class.
    pub class: u8,
    /// Time to live, or hop limit.
    pub hops: u8,
    /// Data.
    pub payload: Vec<u8>,
    /// Whether it has a checksum at all.
    pub has_checksum: bool,
    /// What the checksum is off by.
    pub checksum_error: u16,
}

impl Datagram {
    /// A datagram with these bytes.
    #[must_use]
    pub fn new(ends: (IpAddr, IpAddr), ports: (u16, u16), payload: &[u8]) -> Self {
        Self {
            ends,
            ports,
            id: 1,
            whole: true,
            class: 0,
            hops: 64,
            payload: payload.to_vec(),
            has_checksum: true,
            checksum_error: 0,
        }
    }

    /// The packet.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        let (from, to) = self.ports;
        let length = u16::try_from(self.payload.len() + 8).unwrap_or(u16::MAX);
        let header = [from, to, length, 0].map(u16::to_be_bytes).concat();
        let mut datagram = [&header[..], &self.payload].concat();
        if self.has_checksum {
            let sum = u16::from_be_bytes(transport_sum(self.ends, UDP, &datagram));
            let sum = sum.wrapping_add(self.checksum_error);
            // Zero would say that there is none (RFC 768).
            let sum = if sum == 0 { u16::MAX } else { sum };
            datagram[6..8].copy_from_slice(&sum.to_be_bytes());
        }
        let mut packet = ip_packet(self.ends, UDP, &[], &datagram);
        let fields = (self.id, self.whole, self.class, self.hops);
        fill(&mut packet, fields);
        packet
    }
}

/// Writes identification or flow label, don't fragment, class and hops into a packet of [`ip_packet`].
fn fill(packet: &mut [u8], (id, whole, class, hops): (u16, bool, u8, u8)) {
    if packet[0] >> 4 == 4 {
        packet[1] = class;
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet[6] = if whole { 0x40 } else { 0 };
        packet[8] = hops;
        fill_header_sum(packet);
    } else {
        packet[0] = 0x60 | (class >> 4);
        packet[1] = (class << 4) | 0x05;
        packet[2..4].copy_from_slice(&id.to_be_bytes());
        packet[7] = hops;
    }
}

/// An IP packet with a body of any protocol, as it is. `options` are those of IPv4, a multiple of 4 bytes.
///
/// # Panics
/// When the ends are of two families, or it does not fit into a packet.
#[must_use]
pub fn ip_packet(
    (from, to): (IpAddr, IpAddr),
    protocol: u8,
    options: &[u8],
    body: &[u8],
) -> Vec<u8> {
    let length = |more: usize| {
        let length = u16::try_from(body.len() + more);
        length.expect("a body of a packet").to_be_bytes()
    };
    let mut header = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let words = u8::try_from(5 + options.len() / 4).expect("options of a packet");
            header.extend([0x40 | words, 0]);
            header.extend(length(20 + options.len()));
            header.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            header.extend(options);
            fill_header_sum(&mut header);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            header.extend([0x60, 0, 0, 0]);
            header.extend(length(0));
            header.extend([protocol, 64]);
            header.extend(from.octets());
            header.extend(to.octets());
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            panic!("{from} and {to} are of two families")
        }
    }
    header.extend(body);
    header
}

/// Makes the checksum of an IPv4 header anew.
pub(super) fn fill_header_sum(packet: &mut [u8]) {
    let length = usize::from(packet[0] & 0x0f) * 4;
    packet[10..12].fill(0);
    let sum = checksum::internet(&[&packet[..length]]);
    packet[10..12].copy_from_slice(&sum);
}

/// The checksum of a transport header and its data, whose own field is zero.
pub(super) fn transport_sum(ends: (IpAddr, IpAddr), protocol: u8, data: &[u8]) -> [u8; 2] {
    checksum::internet(&[&pseudo(ends, protocol, data.len()), data])
}

/// The pseudo header that transport checksums count (RFC 9293, RFC 8200).
pub(super) fn pseudo(ends: (IpAddr, IpAddr), protocol: u8, length: usize) -> Vec<u8> {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    // IPv4 has a byte and a word where IPv6 has a word and a byte of four: the sum is the same.
    let (from, to) = (octets(ends.0), octets(ends.1));
    [&from[..], &to, &length.to_be_bytes(), &[0, 0, 0, protocol]].concat()
}
