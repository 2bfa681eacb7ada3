//! IP packets of every shape, and what an independent reader says of them.

use std::net::{IpAddr, Ipv6Addr};

use super::source::Source;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// Addresses that packets are made with.
pub(super) struct Ends<'a> {
    pub(super) v4: (&'a [[u8; 4]], &'a [[u8; 4]]),
    pub(super) v6: (&'a [&'a str], &'a [&'a str]),
}

/// A packet, and where its upper-layer header starts.
pub(super) struct Made {
    pub(super) bytes: Vec<u8>,
    pub(super) transport: usize,
    pub(super) protocol: u8,
}

/// The Internet checksum's sum, carries folded in; not that of the product.
pub(super) fn ones_sum(bytes: &[u8]) -> u16 {
    let mut sum: u64 = 0;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded")
}

/// The sum over the pseudo-header of a packet.
pub(super) fn pseudo_sum(packet: &[u8], transport: usize, protocol: u8) -> u16 {
    let addresses = match packet[0] >> 4 {
        4 => &packet[12..20],
        _ => &packet[8..40],
    };
    let length = u32::try_from(packet.len() - transport).expect("below 64 KiB");
    let mut pseudo = addresses.to_vec();
    pseudo.extend(length.to_be_bytes());
    pseudo.extend([0, 0, 0, protocol]);
    ones_sum(&pseudo)
}

/// Whether TCP's or UDP's checksum is right.
pub(super) fn checksum_is_right(packet: &[u8], transport: usize, protocol: u8) -> bool {
    let sums = [
        pseudo_sum(packet, transport, protocol).to_be_bytes(),
        ones_sum(&packet[transport..]).to_be_bytes(),
    ];
    ones_sum(&sums.concat()) == 0xffff
}

/// What the headers of a packet say, by RFC 791, 8200 and 4302 alone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) ether_type: u16,
    pub(super) ends: (IpAddr, IpAddr),
    pub(super) hops: u8,
    /// It is a fragment that is not the first: what follows its headers is anybody's guess.
    pub(super) later_fragment: bool,
    /// The upper layer's protocol and where it starts.
    pub(super) upper: (u8, usize),
}

impl Shape {
    /// Reads a packet with code of its own; `None` where the headers do not fit.
    pub(super) fn of(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::v4(packet.first_chunk()?),
            6 => Self::v6(packet),
            _ => None,
        }
    }

    /// Both ports of TCP and UDP.
    pub(super) fn ports(&self, packet: &[u8]) -> Option<(u16, u16)> {
        let (protocol, at) = self.upper;
        let shown = !self.later_fragment && (protocol == TCP || protocol == UDP);
        let bytes = packet.get(at..at + 4).filter(|_| shown)?;
        Some((
            u16::from(bytes[0]) << 8 | u16::from(bytes[1]),
            u16::from(bytes[2]) << 8 | u16::from(bytes[3]),
        ))
    }

    #[expect(clippy::unnecessary_wraps, reason = "beside its other version")]
    fn v4(header: &[u8; 20]) -> Option<Self> {
        let address =
            |at: usize| IpAddr::from([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        Some(Self {
            ether_type: 0x0800,
            ends: (address(12), address(16)),
            hops: header[8],
            later_fragment: header[6] & 0x1f != 0 || header[7] != 0,
            upper: (header[9], usize::from(header[0] & 15) * 4),
        })
    }

    fn v6(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<40>()?;
        let address = |at: usize| -> Option<IpAddr> {
            Some(IpAddr::from(*header[at..].first_chunk::<16>()?))
        };
        let (mut upper, mut later_fragment) = ((header[6], 40), false);
        while !later_fragment && matches!(upper.0, 0 | 43 | 44 | 51 | 60) {
            let extension = packet.get(upper.1..upper.1 + 8)?;
            let words = usize::from(extension[1]);
            let length = match upper.0 {
                44 => 8,
                51 => (words + 2) * 4,
                _ => (words + 1) * 8,
            };
            later_fragment =
                upper.0 == 44 && u16::from_be_bytes([extension[2], extension[3]]) >> 3 != 0;
            upper = (extension[0], upper.1 + length);
        }
        Some(Self {
            ether_type: 0x86dd,
            ends: (address(8)?, address(24)?),
            hops: header[7],
            later_fragment,
            upper,
        })
    }
}

/// Makes a packet of up to `most` bytes of payload. Where the input says so it lies about something.
pub(super) fn make(source: &mut Source<'_>, ends: &Ends<'_>, most: usize) -> Made {
    let protocol = source.pick(&[UDP, TCP, 1, 58, 47, 0, 255]);
    let upper = upper_layer(source, protocol, most);
    let mut made = if source.once_in(2) {
        ipv6(source, ends, protocol, &upper)
    } else {
        ipv4(source, ends, protocol, &upper)
    };
    fill_checksum(source, &mut made);
    if source.once_in(8) {
        for _ in 0..=source.below(3) {
            let at = source.below(made.bytes.len());
            made.bytes[at] = source.any();
        }
    }
    if source.once_in(16) {
        made.bytes.truncate(source.below(made.bytes.len() + 1));
    }
    made
}

fn upper_layer(source: &mut Source<'_>, protocol: u8, most: usize) -> Vec<u8> {
    let length = source.below(most + 1);
    let ports = [source.any::<u16>(), source.pick(&[5000, 80, 0, 6081])];
    let mut header = [ports[0].to_be_bytes(), ports[1].to_be_bytes()].concat();
    match protocol {
        TCP => {
            let words: u8 = source.pick(&[5, 8, 15, 6, 4, 0]);
            header.extend(source.array::<8>());
            header.extend([words << 4 | source.pick(&[0, 1]), source.any()]);
            header.resize(usize::from(words.max(5)) * 4, 0);
        }
        UDP => {
            let told = source.pick(&[length + 8, length + 7, 8, 0]);
            header.extend(u16::try_from(told).unwrap_or(u16::MAX).to_be_bytes());
            header.extend([0, 0]);
        }
        _ => header.truncate(source.pick(&[4, 0, 1])),
    }
    if source.once_in(16) {
        header.truncate(source.below(header.len()));
    }
    header.extend(source.pattern(length));
    header
}

fn ipv4(source: &mut Source<'_>, ends: &Ends<'_>, protocol: u8, upper: &[u8]) -> Made {
    let words: u8 = source.pick(&[5, 5, 6, 15]);
    let transport = usize::from(words) * 4;
    let mut bytes = vec![0; transport];
    bytes[0] = 0x40 | words;
    let length = u16::try_from(transport + upper.len()).unwrap_or(u16::MAX);
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    bytes[4..6].copy_from_slice(&source.any::<u16>().to_be_bytes());
    let fragment: u16 = source.pick(&[0, 0x4000, 0, 0, 0x2000, 0x0001, 0x3fff]);
    bytes[6..8].copy_from_slice(&fragment.to_be_bytes());
    bytes[8..10].copy_from_slice(&[64, protocol]);
    bytes[12..16].copy_from_slice(&source.pick(ends.v4.0));
    bytes[16..20].copy_from_slice(&source.pick(ends.v4.1));
    let sum = !ones_sum(&bytes);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(upper);
    Made {
        bytes,
        transport,
        protocol,
    }
}

fn ipv6(source: &mut Source<'_>, ends: &Ends<'_>, protocol: u8, upper: &[u8]) -> Made {
    let mut extensions = Vec::new();
    let mut next = protocol;
    for _ in 0..source.pick(&[0, 0, 0, 1, 2, 8, 9]) {
        let kind: u8 = source.pick(&[60, 0, 43, 44, 51]);
        let words: u8 = source.pick(&[0, 0, 1, 4]);
        let body = match kind {
            44 => source.pick(&[[0, 0, 0], [0, 0, 1], [0, 0, 8], [0, 0xff, 0xf9]]),
            _ => [words, 0, 0],
        };
        let length = match kind {
            44 => 8,
            51 => 8 + usize::from(words) * 4,
            _ => 8 + usize::from(words) * 8,
        };
        let mut extension = vec![next, body[0], body[1], body[2]];
        extension.resize(length, 0);
        extension.extend(extensions);
        extensions = extension;
        next = kind;
    }
    let mut bytes = vec![0x60, 0, 0, 0];
    let length = u16::try_from(extensions.len() + upper.len()).unwrap_or(u16::MAX);
    bytes.extend(length.to_be_bytes());
    bytes.extend([next, 64]);
    for of in [ends.v6.0, ends.v6.1] {
        let address: Ipv6Addr = source.pick(of).parse().expect("an address of the world");
        bytes.extend(address.octets());
    }
    let transport = bytes.len() + extensions.len();
    bytes.extend(extensions);
    bytes.extend(upper);
    Made {
        bytes,
        transport,
        protocol,
    }
}

/// As a kernel leaves it: the sum of the pseudo-header alone, or all of it.
fn fill_checksum(source: &mut Source<'_>, made: &mut Made) {
    let field = made.transport
        + match made.protocol {
            TCP => 16,
            UDP => 6,
            _ => return,
        };
    if field + 2 > made.bytes.len() || source.once_in(8) {
        return;
    }
    let partial = pseudo_sum(&made.bytes, made.transport, made.protocol);
    made.bytes[field..field + 2].copy_from_slice(&partial.to_be_bytes());
    if source.once_in(2) {
        let sum = !ones_sum(&made.bytes[made.transport..]);
        made.bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    }
}
