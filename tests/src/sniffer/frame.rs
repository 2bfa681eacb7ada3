//! Takes a frame apart as far as the judge needs. Explicit offsets, no product code.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Extension headers that are skipped at most; a longer chain is left undecoded and so is foreign.
const MOST_EXTENSIONS: usize = 8;

/// What a frame says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Length of the whole frame on the wire; above the MTU for a super-frame that the network card would cut.
    pub length: usize,
    /// A VLAN tag was on it.
    pub tagged: bool,
    /// The type behind all VLAN tags.
    pub ether_type: u16,
    /// Source and destination address.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// Hop limit or time to live.
    pub hops: u8,
    /// It is a part of a packet, but not the first.
    pub later_fragment: bool,
    /// What it carries.
    pub transport: Transport,
    /// Source and destination that an ICMP error quotes, with what the quoted packet carries.
    pub quoted: Option<(IpAddr, IpAddr, Transport)>,
}

/// What an IP packet carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// UDP.
    Udp {
        /// Source port.
        from: u16,
        /// Destination port.
        to: u16,
        /// Length of the payload by the IP header.
        length: usize,
        /// What was captured of the payload's first 32 bytes.
        head: Vec<u8>,
    },
    /// TCP.
    Tcp {
        /// Source port.
        from: u16,
        /// Destination port.
        to: u16,
    },
    /// ICMP or ICMPv6.
    Icmp {
        /// Its type.
        kind: u8,
    },
    /// Another protocol.
    Other(u8),
    /// Not an IP packet, or one that was cut too short.
    #[default]
    None,
}

impl Decoded {
    /// Receiver index and counter, when it is a WireGuard data message.
    #[must_use]
    pub fn wireguard_data(&self) -> Option<(u32, u64)> {
        let Transport::Udp { head, .. } = &self.transport else {
            return None;
        };
        match head.as_slice() {
            [4, 0, 0, 0, a, b, c, d, counter @ ..] if counter.len() >= 8 => {
                let mut eight = [0; 8];
                eight.copy_from_slice(&counter[..8]);
                Some((
                    u32::from_le_bytes([*a, *b, *c, *d]),
                    u64::from_le_bytes(eight),
                ))
            }
            _ => None,
        }
    }

    /// One line for a reader.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = String::new();
        if self.tagged {
            text.push_str("VLAN-tagged ");
        }
        match self.addresses {
            Some((from, to)) => {
                let ports = match &self.transport {
                    Transport::Udp { from, to, .. } => format!("UDP {from} to {to}"),
                    Transport::Tcp { from, to } => format!("TCP {from} to {to}"),
                    Transport::Icmp { kind } => format!("ICMP type {kind}"),
                    Transport::Other(protocol) => format!("protocol {protocol}"),
                    Transport::None => "cut short".to_owned(),
                };
                write!(text, "{from} > {to} {ports}, {} bytes", self.length).ok();
            }
            None => {
                write!(
                    text,
                    "ether type 0x{:04x}, {} bytes",
                    self.ether_type, self.length
                )
                .ok();
            }
        }
        text
    }
}

/// Takes a frame apart. `length` is its length on the wire, `vlan` a tag that the kernel took out.
#[must_use]
pub fn decode(bytes: &[u8], length: usize, vlan: Option<u16>) -> Decoded {
    let mut decoded = Decoded {
        length,
        tagged: vlan.is_some(),
        ..Decoded::default()
    };
    let (mut offset, mut ether_type) = (14, word(bytes, 12));
    while matches!(ether_type, Some(0x8100 | 0x88a8 | 0x9100)) {
        decoded.tagged = true;
        ether_type = word(bytes, offset + 2);
        offset += 4;
    }
    decoded.ether_type = ether_type.unwrap_or_default();
    let packet = bytes.get(offset..).unwrap_or_default();
    let Some(ip) = (match decoded.ether_type {
        0x0800 => ipv4(packet),
        0x86dd => ipv6(packet),
        _ => None,
    }) else {
        return decoded;
    };
    decoded.addresses = Some((ip.from, ip.to));
    decoded.hops = ip.hops;
    decoded.later_fragment = ip.later_fragment;
    decoded.transport = transport(packet, &ip);
    if let Transport::Icmp { kind } = decoded.transport
        && is_icmp_error(&ip, kind)
    {
        let inner = packet.get(ip.payload + 8..).unwrap_or_default();
        let quoted = if ip.from.is_ipv4() {
            ipv4(inner)
        } else {
            ipv6(inner)
        };
        decoded.quoted = quoted.map(|quoted| (quoted.from, quoted.to, transport(inner, &quoted)));
    }
    decoded
}

struct Ip {
    from: IpAddr,
    to: IpAddr,
    hops: u8,
    protocol: u8,
    /// Where the transport header starts.
    payload: usize,
    /// Bytes from there to the packet's end, by its header.
    left: usize,
    later_fragment: bool,
}

fn ipv4(packet: &[u8]) -> Option<Ip> {
    let first = *packet.first()?;
    let header = usize::from(first & 0xf) * 4;
    if first >> 4 != 4 || header < 20 {
        return None;
    }
    let address = |at: usize| -> Option<Ipv4Addr> {
        let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(bytes))
    };
    Some(Ip {
        from: address(12)?.into(),
        to: address(16)?.into(),
        hops: *packet.get(8)?,
        protocol: *packet.get(9)?,
        payload: header,
        left: usize::from(word(packet, 2)?).saturating_sub(header),
        later_fragment: word(packet, 6)? & 0x1fff != 0,
    })
}

fn ipv6(packet: &[u8]) -> Option<Ip> {
    if *packet.first()? >> 4 != 6 {
        return None;
    }
    let address = |at: usize| -> Option<Ipv6Addr> {
        let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(bytes))
    };
    let end = 40 + usize::from(word(packet, 4)?);
    let (mut protocol, mut payload, mut later_fragment) = (*packet.get(6)?, 40, false);
    for _ in 0..MOST_EXTENSIONS {
        let length = match protocol {
            // Hop-by-hop options, routing, destination options.
            0 | 43 | 60 => (usize::from(*packet.get(payload + 1)?) + 1) * 8,
            44 => {
                later_fragment |= word(packet, payload + 2)? & 0xfff8 != 0;
                8
            }
            _ => break,
        };
        protocol = *packet.get(payload)?;
        payload += length;
    }
    Some(Ip {
        from: address(8)?.into(),
        to: address(24)?.into(),
        hops: *packet.get(7)?,
        protocol,
        payload,
        left: end.saturating_sub(payload),
        later_fragment,
    })
}

fn transport(packet: &[u8], ip: &Ip) -> Transport {
    let port = |at: usize| word(packet, ip.payload + at);
    if ip.later_fragment {
        return Transport::Other(ip.protocol);
    }
    match ip.protocol {
        17 => match (port(0), port(2)) {
            (Some(from), Some(to)) => {
                let payload = packet.get(ip.payload + 8..).unwrap_or_default();
                let length = ip.left.saturating_sub(8);
                let head = payload[..payload.len().min(32).min(length)].to_vec();
                Transport::Udp {
                    from,
                    to,
                    length,
                    head,
                }
            }
            _ => Transport::None,
        },
        6 => match (port(0), port(2)) {
            (Some(from), Some(to)) => Transport::Tcp { from, to },
            _ => Transport::None,
        },
        1 | 58 => packet
            .get(ip.payload)
            .map_or(Transport::None, |kind| Transport::Icmp { kind: *kind }),
        other => Transport::Other(other),
    }
}

const fn is_icmp_error(ip: &Ip, kind: u8) -> bool {
    match ip.protocol {
        1 => matches!(kind, 3 | 11 | 12),
        58 => kind < 128,
        _ => false,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let two: [u8; 2] = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_be_bytes(two))
}

/// Bytes as lines of sixteen, with offsets and readable characters.
#[must_use]
pub fn hexdump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (index, line) in bytes.chunks(16).enumerate() {
        write!(text, "{:04x} ", index * 16).ok();
        for column in 0..16 {
            let gap = if column == 8 { "  " } else { " " };
            match line.get(column) {
                Some(byte) => write!(text, "{gap}{byte:02x}").ok(),
                None => write!(text, "{gap}  ").ok(),
            };
        }
        let readable = line.iter().map(|byte| {
            if (32..127).contains(byte) {
                char::from(*byte)
            } else {
                '.'
            }
        });
        writeln!(text, "  {}", readable.collect::<String>()).ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_frame_however_short_can_hurt() {
        let mut seed = 1_u64;
        for length in 0..200 {
            for _ in 0..50 {
                let frame: Vec<u8> = (0..length)
                    .map(|index| {
                        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        match index {
                            12 => 0x86,
                            13 => 0xdd,
                            14 => 0x60,
                            20 => 44,
                            _ => seed.to_be_bytes()[0],
                        }
                    })
                    .collect();
                let _ = decode(&frame, length, None);
                if length > 14 {
                    let mut v4 = frame.clone();
                    v4[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
                    let _ = decode(&v4, length, None);
                }
            }
        }
    }

    #[test]
    fn a_hexdump_lines_up() {
        assert_eq!(
            hexdump(b"0123456789abcdefg"),
            "0000  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  0123456789abcdef\n\
             0010  67                                                g\n"
        );
    }
}
