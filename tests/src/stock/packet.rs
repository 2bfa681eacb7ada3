//! Pod packets that a stock peer's owner would make, and parsers that check every byte of those that come.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result, bail, ensure};

use crate::sniffer::checksum;

/// IPv4 and UDP headers, in bytes.
pub const UDP4: usize = 28;
/// IPv6 and UDP headers, in bytes.
pub const UDP6: usize = 48;

const ICMP: u8 = 1;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// A packet whose lengths and checksums are right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Where it came from.
    pub from: IpAddr,
    /// Where it goes.
    pub to: IpAddr,
    /// Time to live or hop limit.
    pub hops: u8,
    /// What it carries.
    pub body: Body,
}

/// What a packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A UDP datagram.
    Udp {
        /// Source port.
        from: u16,
        /// Destination port.
        to: u16,
        /// What is in it.
        payload: Vec<u8>,
    },
    /// An ICMP or ICMPv6 echo.
    Echo {
        /// A reply, not a request.
        reply: bool,
        /// Whose.
        id: u16,
        /// Which.
        sequence: u16,
        /// What is in it.
        payload: Vec<u8>,
    },
}

/// An IPv4 or IPv6 packet with a UDP datagram; both ends are of one family.
#[must_use]
pub fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    checksum::udp(from.ip(), to.ip(), (from.port(), to.port()), payload)
}

/// An ICMP or ICMPv6 echo.
///
/// # Panics
/// When the ends are of two families, or the payload does not fit into a packet.
#[must_use]
pub fn echo(
    reply: bool,
    (from, to): (IpAddr, IpAddr),
    (id, sequence): (u16, u16),
    payload: &[u8],
) -> Vec<u8> {
    let kind = match (from, reply) {
        (IpAddr::V4(_), false) => 8,
        (IpAddr::V4(_), true) => 0,
        (IpAddr::V6(_), false) => 128,
        (IpAddr::V6(_), true) => 129,
    };
    let mut message = vec![kind, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.extend(payload);
    let length = u16::try_from(message.len()).expect("a payload of a packet");
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let sum = checksum::internet(&[&message]);
            message[2..4].copy_from_slice(&sum);
            let mut header = vec![0x45, 0];
            header.extend((length + 20).to_be_bytes());
            header.extend([0, 1, 0x40, 0, 64, ICMP, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = checksum::internet(&[&header]);
            header[10..12].copy_from_slice(&sum);
            [header, message].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let sum = checksum::internet(&[&pseudo_v6(from, to, ICMPV6, length), &message]);
            message[2..4].copy_from_slice(&sum);
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([ICMPV6, 64]);
            header.extend(from.octets());
            header.extend(to.octets());
            [header, message].concat()
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            panic!("{from} and {to} are of two families")
        }
    }
}

/// Takes a packet apart, and fails for any byte that should be another.
///
/// # Errors
/// What is wrong with it.
pub fn parse(packet: &[u8]) -> Result<Parsed> {
    let version = packet.first().context("an empty packet")? >> 4;
    let (from, to, hops, protocol, pseudo, data): (IpAddr, IpAddr, u8, u8, Vec<u8>, &[u8]) =
        match version {
            4 => {
                ensure!(packet.len() >= 20, "IPv4 header of {} bytes", packet.len());
                ensure!(packet[0] == 0x45, "IPv4 options");
                let length = usize::from(word(packet, 2));
                ensure!(
                    length == packet.len(),
                    "IPv4 length {length} in {} bytes",
                    packet.len()
                );
                ensure!(word(packet, 6) & 0x3fff == 0, "an IPv4 fragment");
                let sum = checksum::internet(&[&packet[..20]]);
                ensure!(sum == [0, 0], "IPv4 header checksum is off by {sum:?}");
                let [from, to] = [12, 16].map(|at| Ipv4Addr::from(array::<4>(packet, at)));
                let data = &packet[20..];
                let length = u16::try_from(data.len()).context("length")?;
                let pseudo = [
                    &from.octets()[..],
                    &to.octets(),
                    &[0, packet[9]],
                    &length.to_be_bytes(),
                ]
                .concat();
                (from.into(), to.into(), packet[8], packet[9], pseudo, data)
            }
            6 => {
                ensure!(packet.len() >= 40, "IPv6 header of {} bytes", packet.len());
                let length = usize::from(word(packet, 4));
                ensure!(
                    length + 40 == packet.len(),
                    "IPv6 length {length} in {} bytes",
                    packet.len()
                );
                let [from, to] = [8, 24].map(|at| Ipv6Addr::from(array::<16>(packet, at)));
                let data = &packet[40..];
                let pseudo = pseudo_v6(from, to, packet[6], u16::try_from(length)?);
                (from.into(), to.into(), packet[7], packet[6], pseudo, data)
            }
            _ => bail!("IP version {version}"),
        };
    ensure!(data.len() >= 8, "{} bytes behind the IP header", data.len());
    let summed = match protocol {
        ICMP => checksum::internet(&[data]),
        _ => checksum::internet(&[&pseudo, data]),
    };
    ensure!(
        summed == [0, 0],
        "checksum of protocol {protocol} from {from} is off by {summed:?}"
    );
    let body = match (protocol, data[0], from) {
        (UDP, ..) => {
            let length = usize::from(word(data, 4));
            ensure!(
                length == data.len(),
                "UDP length {length} in {} bytes",
                data.len()
            );
            Body::Udp {
                from: word(data, 0),
                to: word(data, 2),
                payload: data[8..].to_vec(),
            }
        }
        (ICMP, kind @ (0 | 8), IpAddr::V4(_)) | (ICMPV6, kind @ (128 | 129), IpAddr::V6(_)) => {
            ensure!(data[1] == 0, "echo with code {}", data[1]);
            Body::Echo {
                reply: matches!(kind, 0 | 129),
                id: word(data, 4),
                sequence: word(data, 6),
                payload: data[8..].to_vec(),
            }
        }
        (_, kind, _) => bail!("protocol {protocol}, first byte {kind}"),
    };
    Ok(Parsed {
        from,
        to,
        hops,
        body,
    })
}

fn pseudo_v6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, length: u16) -> Vec<u8> {
    [
        &from.octets()[..],
        &to.octets(),
        &u32::from(length).to_be_bytes(),
        &[0, 0, 0, protocol],
    ]
    .concat()
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn array<const LENGTH: usize>(bytes: &[u8], at: usize) -> [u8; LENGTH] {
    let mut array = [0; LENGTH];
    array.copy_from_slice(&bytes[at..at + LENGTH]);
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: [(&str, &str); 2] = [
        ("10.2.11.10", "10.1.1.10"),
        ("fd01:2:b::10", "fd01:1:1::10"),
    ];

    #[test]
    fn what_is_made_is_parsed_and_no_changed_byte_passes() {
        for (from, to) in ENDS {
            let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let packets = [
                udp(SocketAddr::new(from, 7), SocketAddr::new(to, 9), b"odd"),
                echo(false, (from, to), (5, 6), b"even"),
                echo(true, (from, to), (5, 6), b""),
            ];
            for packet in packets {
                let parsed = parse(&packet).unwrap();
                assert_eq!((parsed.from, parsed.to, parsed.hops), (from, to, 64));
                for at in 0..packet.len() {
                    let mut changed = packet.clone();
                    changed[at] ^= 0x41;
                    // Class, flow label and hop limit are in no checksum of IPv6.
                    let free = from.is_ipv6() && (at < 4 || at == 7);
                    assert!(
                        parse(&changed).is_err() || (free && at > 0),
                        "{packet:02x?} with byte {at} changed"
                    );
                }
                assert!(parse(&packet[..packet.len() - 1]).is_err());
            }
        }
    }
}
