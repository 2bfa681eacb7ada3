//! Pod packets: what the tunnel must know of an IPv4 or IPv6 packet, and nothing more.

use crate::geneve;
use crate::reject::Reject;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Transport protocols that the tunnel tells apart.
pub mod protocol {
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
}

/// Extension headers that are walked before a packet is refused (RFC 8200 recommends one of each).
const MAX_EXTENSION_HEADERS: usize = 8;

/// A pod packet whose headers were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// The upper-layer protocol, behind all extension headers.
    pub protocol: u8,
    /// Where the upper-layer header starts, in bytes.
    pub transport: usize,
    /// Bytes of the whole packet.
    pub length: usize,
    /// Whether it is a fragment.
    pub fragment: Fragment,
}

/// Which part of a datagram a packet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// The part with the transport header.
    First,
    /// A part without it.
    Later,
}

impl Packet {
    /// Reads the headers of a packet that must be exactly as long as it says.
    pub fn parse(bytes: &[u8]) -> Result<Self, Reject> {
        Self::parse_headers(bytes, bytes.len())
    }

    /// Reads the headers of a packet of `length` bytes of which at least the headers are in `bytes`.
    pub fn parse_headers(bytes: &[u8], length: usize) -> Result<Self, Reject> {
        let packet = match bytes.first().map(|byte| byte >> 4) {
            Some(4) => parse_ipv4(bytes, length),
            Some(6) => parse_ipv6(bytes, length),
            _ => None,
        }
        .ok_or(Reject::InnerMalformed)?;
        packet.check_transport(bytes)?;
        Ok(packet)
    }

    /// The ports, where the packet shows them.
    pub fn ports(&self, bytes: &[u8]) -> Option<(u16, u16)> {
        if self.fragment == Fragment::Later
            || !matches!(self.protocol, protocol::TCP | protocol::UDP)
        {
            return None;
        }
        let &[s0, s1, d0, d1] = bytes.get(self.transport..self.transport + 4)? else {
            return None;
        };
        Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
    }

    /// A hash that is equal for all packets of a flow. Fragments have no ports, so that all parts
    /// of a datagram stay together.
    pub fn flow_hash(&self, bytes: &[u8]) -> u32 {
        let mut hasher = FlowHasher::default();
        (self.source, self.destination, self.protocol).hash(&mut hasher);
        if self.fragment == Fragment::Whole {
            self.ports(bytes).hash(&mut hasher);
        }
        let hash = hasher.finish();
        u32::try_from(hash >> 32).unwrap_or_default()
    }

    /// Where the transport checksum is, counted from the transport header; `None` where there is
    /// none to fill in.
    pub fn checksum_offset(&self) -> Option<usize> {
        if self.fragment != Fragment::Whole {
            return None;
        }
        let (offset, header) = match self.protocol {
            protocol::TCP => (16, 20),
            protocol::UDP => (6, 8),
            _ => return None,
        };
        (self.transport + header <= self.length).then_some(offset)
    }

    /// The sum over the pseudo-header (RFC 9293, section 3.1; RFC 8200, section 8.1), not folded.
    pub fn pseudo_header_sum(&self) -> u32 {
        let length = u32::try_from(self.length - self.transport).unwrap_or(u32::MAX);
        let addresses = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                checksum::sum(&source.octets()) + checksum::sum(&destination.octets())
            }
            (source, destination) => sum_v6(source) + sum_v6(destination),
        };
        addresses + u32::from(self.protocol) + (length >> 16) + (length & 0xffff)
    }

    fn check_transport(&self, bytes: &[u8]) -> Result<(), Reject> {
        if self.fragment == Fragment::Later {
            return Ok(());
        }
        let Some((_, destination)) = self.ports(bytes) else {
            // Ports that a filter cannot see must not be put together behind it (RFC 1858).
            return match self.protocol {
                protocol::TCP | protocol::UDP => Err(Reject::InnerTinyFragment),
                _ => Ok(()),
            };
        };
        if self.protocol == protocol::UDP && destination == geneve::PORT {
            return Err(Reject::NestedGeneve);
        }
        Ok(())
    }
}

fn sum_v6(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => checksum::sum(&address.octets()),
        IpAddr::V6(address) => checksum::sum(&address.octets()),
    }
}

fn parse_ipv4(bytes: &[u8], whole: usize) -> Option<Packet> {
    let header = bytes.first_chunk::<20>()?;
    let transport = usize::from(header[0] & 0x0f) * 4;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if transport < 20 || length < transport || length != whole {
        return None;
    }
    let flags = u16::from_be_bytes([header[6], header[7]]);
    let fragment = match (flags & 0x1fff, flags & 0x2000) {
        (0, 0) => Fragment::Whole,
        (0, _) => Fragment::First,
        _ => Fragment::Later,
    };
    let address = |at: usize| {
        IpAddr::V4(Ipv4Addr::new(
            header[at],
            header[at + 1],
            header[at + 2],
            header[at + 3],
        ))
    };
    Some(Packet {
        source: address(12),
        destination: address(16),
        protocol: header[9],
        transport,
        length,
        fragment,
    })
}

fn parse_ipv6(bytes: &[u8], whole: usize) -> Option<Packet> {
    let header = bytes.first_chunk::<40>()?;
    let length = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if length != whole {
        return None;
    }
    let address = |at: usize| {
        let octets: [u8; 16] = header[at..at + 16].try_into().expect("16 of the 40 bytes");
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let mut packet = Packet {
        source: address(8),
        destination: address(24),
        protocol: header[6],
        transport: 40,
        length,
        fragment: Fragment::Whole,
    };
    for _ in 0..=MAX_EXTENSION_HEADERS {
        let extension = |count: usize| bytes.get(packet.transport..packet.transport + count);
        match packet.protocol {
            // Hop-by-hop, routing, destination options: length in units of 8, the first not counted.
            0 | 43 | 60 => {
                let next = extension(8)?;
                packet.protocol = next[0];
                packet.transport += 8 + usize::from(next[1]) * 8;
            }
            // Authentication header: length in units of 4, the first two not counted (RFC 4302).
            51 => {
                let next = extension(8)?;
                packet.protocol = next[0];
                packet.transport += 8 + usize::from(next[1]) * 4;
            }
            44 => {
                let next = extension(8)?;
                packet.protocol = next[0];
                packet.transport += 8;
                let offset = u16::from_be_bytes([next[2], next[3]]);
                if offset & 0xfff8 != 0 {
                    packet.fragment = Fragment::Later;
                    return Some(packet);
                }
                if offset & 1 != 0 {
                    packet.fragment = Fragment::First;
                }
            }
            _ => return (packet.transport <= length).then_some(packet),
        }
    }
    None
}

/// The Internet checksum (RFC 1071).
pub mod checksum {
    /// Sums 16-bit words, not folded; an odd last byte counts as the high one.
    pub fn sum(bytes: &[u8]) -> u32 {
        let (words, rest) = bytes.as_chunks::<2>();
        let sum: u32 = words
            .iter()
            .map(|&word| u32::from(u16::from_be_bytes(word)))
            .sum();
        sum + rest.first().map_or(0, |&byte| u32::from(byte) << 8)
    }

    /// Folds a sum to 16 bits, carries added.
    pub fn fold(mut sum: u32) -> u16 {
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        u16::try_from(sum).unwrap_or(u16::MAX)
    }
}

/// FxHash's mixing: fast, and good enough to spread flows; it guards nothing.
#[derive(Default)]
struct FlowHasher(u64);

impl Hasher for FlowHasher {
    fn finish(&self) -> u64 {
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(word))
                .wrapping_mul(0x51_7c_c1_b7_27_22_0a_95);
        }
    }
}

#[cfg(test)]
mod tests;
