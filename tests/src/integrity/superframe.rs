//! Frames as the kernel carries them inside: perhaps many packets in one, perhaps without their checksums. They are
//! taken apart into the packets that they stand for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, bail, ensure};

use super::segment::{TCP, UDP, fill_header_sum, pseudo, transport_sum};
use crate::sniffer::checksum;

/// Bytes of the virtio-net header in front of a frame, in the machine's byte order.
pub(super) const HEADER: usize = 10;
const ETHERNET: usize = 14;
const NEEDS_CHECKSUM: u8 = 1;
/// The segments carry CWR in the first.
const ECN: u8 = 0x80;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// A frame and what the kernel says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superframe {
    /// The IP packet.
    pub packet: Vec<u8>,
    /// Bytes of data in each packet that it stands for; 0 where it is one.
    pub size: usize,
    /// Whether the transport checksum holds the sum of the pseudo header alone.
    pub partial: bool,
}

/// Where things are in a packet.
struct Layout {
    ends: (IpAddr, IpAddr),
    transport: usize,
    protocol: u8,
}

impl Superframe {
    /// One packet that is complete.
    #[must_use]
    pub const fn complete(packet: Vec<u8>) -> Self {
        Self {
            packet,
            size: 0,
            partial: false,
        }
    }

    /// A packet of TCP or UDP as many, cut after each `size` bytes of data. Its checksum is left to be made, as the
    /// kernel wants it.
    ///
    /// # Errors
    /// When it is of another protocol.
    pub fn of(mut packet: Vec<u8>, size: usize) -> Result<Self> {
        let layout = Layout::of(&packet)?;
        let at = layout.checksum()?;
        let sum = layout.pseudo_sum(packet.len());
        packet[at..at + 2].copy_from_slice(&sum);
        Ok(Self {
            packet,
            size,
            partial: true,
        })
    }

    /// Reads what a packet socket got.
    ///
    /// # Errors
    /// When it is no frame of IP, or of a kind that is not known.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let (header, frame) = bytes.split_first_chunk::<HEADER>().context("no header")?;
        let packet = frame.get(ETHERNET..).context("no Ethernet header")?;
        let word = |at: usize| usize::from(u16::from_ne_bytes([header[at], header[at + 1]]));
        let (partial, size) = (header[0] & NEEDS_CHECKSUM != 0, word(4));
        let layout = Layout::of(packet)?;
        match (header[1] & !ECN, packet[0] >> 4, layout.protocol) {
            (0, ..) => {}
            (1, 4, TCP) | (4, 6, TCP) | (5, _, UDP) => ensure!(size > 0 && partial, "{header:?}"),
            (kind, version, protocol) => {
                bail!("super-frame of kind {kind} over IPv{version} protocol {protocol}")
            }
        }
        if partial {
            let at = layout.checksum()?;
            let (start, offset) = (word(6), word(8));
            ensure!(
                start == ETHERNET + layout.transport && start + offset == ETHERNET + at,
                "a checksum from {start} to be stored {offset} later"
            );
        }
        let size = if header[1] & !ECN == 0 { 0 } else { size };
        // Ethernet frames are at least 60 bytes; what is behind the packet is not its.
        let length = layout.length(packet).min(packet.len());
        Ok(Self {
            packet: packet[..length].to_vec(),
            size,
            partial,
        })
    }

    /// The header for a packet socket.
    ///
    /// # Errors
    /// When it is of a protocol that cannot be cut.
    pub(super) fn header(&self) -> Result<[u8; HEADER]> {
        let mut header = [0; HEADER];
        if !self.partial {
            return Ok(header);
        }
        let layout = Layout::of(&self.packet)?;
        let at = layout.checksum()?;
        let mut put = |place: usize, value: usize| -> Result<()> {
            header[place..place + 2].copy_from_slice(&u16::try_from(value)?.to_ne_bytes());
            Ok(())
        };
        put(2, ETHERNET + layout.headers(&self.packet))?;
        put(4, self.size)?;
        put(6, ETHERNET + layout.transport)?;
        put(8, at - layout.transport)?;
        header[0] = NEEDS_CHECKSUM;
        header[1] = match (self.size, layout.protocol, layout.ends.0) {
            (0, ..) => 0,
            (_, TCP, IpAddr::V4(_)) => 1,
            (_, TCP, IpAddr::V6(_)) => 4,
            _ => 5,
        };
        let cwr = layout.protocol == TCP && self.packet[layout.transport + 13] & CWR != 0;
        if cwr && self.size > 0 {
            header[1] |= ECN;
        }
        Ok(header)
    }

    /// The packets that it stands for, each complete.
    ///
    /// # Errors
    /// When a checksum that is left to be made is not prepared as the kernel wants it.
    pub fn packets(&self) -> Result<Vec<Vec<u8>>> {
        if !self.partial {
            return Ok(vec![self.packet.clone()]);
        }
        let layout = Layout::of(&self.packet)?;
        let field = layout.checksum()?;
        let prepared = &self.packet[field..field + 2];
        let right = layout.pseudo_sum(self.packet.len());
        ensure!(
            prepared == right,
            "the sum of the pseudo header is {right:02x?} and not {prepared:02x?}"
        );
        let headers = layout.headers(&self.packet);
        let data = self.packet.get(headers..).context("headers are cut off")?;
        let size = if self.size == 0 {
            data.len().max(1)
        } else {
            self.size
        };
        let count = data.len().div_ceil(size).max(1);
        let piece = |at: usize| {
            let data = &data[(at * size).min(data.len())..((at + 1) * size).min(data.len())];
            let mut packet = [&self.packet[..headers], data].concat();
            layout.renumber(&mut packet, at, at + 1 == count, size);
            packet
        };
        Ok((0..count).map(piece).collect())
    }
}

impl Layout {
    fn of(packet: &[u8]) -> Result<Self> {
        let octets4 = |at: usize| {
            packet
                .get(at..at + 4)
                .and_then(|octets| octets.first_chunk::<4>())
        };
        let octets16 = |at: usize| {
            packet
                .get(at..at + 16)
                .and_then(|octets| octets.first_chunk::<16>())
        };
        match packet.first().context("no packet")? >> 4 {
            4 => {
                let from = octets4(12).context("a short IPv4 header")?;
                let to = octets4(16).context("a short IPv4 header")?;
                Ok(Self {
                    ends: (Ipv4Addr::from(*from).into(), Ipv4Addr::from(*to).into()),
                    transport: usize::from(packet[0] & 0x0f) * 4,
                    protocol: packet[9],
                })
            }
            6 => {
                let from = octets16(8).context("a short IPv6 header")?;
                let to = octets16(24).context("a short IPv6 header")?;
                Ok(Self {
                    ends: (Ipv6Addr::from(*from).into(), Ipv6Addr::from(*to).into()),
                    transport: 40,
                    protocol: packet[6],
                })
            }
            version => bail!("IP version {version}"),
        }
    }

    fn length(&self, packet: &[u8]) -> usize {
        match self.ends.0 {
            IpAddr::V4(_) => usize::from(u16::from_be_bytes([packet[2], packet[3]])),
            IpAddr::V6(_) => 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]])),
        }
    }

    fn checksum(&self) -> Result<usize> {
        match self.protocol {
            TCP => Ok(self.transport + 16),
            UDP => Ok(self.transport + 6),
            protocol => bail!("protocol {protocol} leaves no checksum to be made"),
        }
    }

    fn headers(&self, packet: &[u8]) -> usize {
        let tcp = || {
            packet
                .get(self.transport + 12)
                .map_or(20, |words| usize::from(words >> 4) * 4)
        };
        self.transport + if self.protocol == TCP { tcp() } else { 8 }
    }

    /// What stands in the checksum field until the sum is made.
    fn pseudo_sum(&self, length: usize) -> [u8; 2] {
        let sum = checksum::internet(&[&pseudo(self.ends, self.protocol, length - self.transport)]);
        sum.map(|byte| !byte)
    }

    /// Makes lengths, numbers, flags and checksums those of packet `at` (RFC 9293; Linux' segmentation).
    fn renumber(&self, packet: &mut [u8], at: usize, last: bool, size: usize) {
        let word = |value: usize| u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes();
        let length = packet.len();
        let begin = self.transport;
        if self.ends.0.is_ipv4() {
            packet[2..4].copy_from_slice(&word(length));
            let id = u16::from_be_bytes([packet[4], packet[5]]);
            let id = id.wrapping_add(u16::try_from(at).unwrap_or_default());
            packet[4..6].copy_from_slice(&id.to_be_bytes());
            fill_header_sum(packet);
        } else {
            packet[4..6].copy_from_slice(&word(length - 40));
        }
        if self.protocol == TCP {
            let sequence = &mut packet[begin + 4..begin + 8];
            let ahead = u32::try_from(at * size).unwrap_or_default();
            let number = sequence
                .iter()
                .fold(0, |sum, byte| (sum << 8) | u32::from(*byte));
            sequence.copy_from_slice(&number.wrapping_add(ahead).to_be_bytes());
            let flags = &mut packet[begin + 13];
            if !last {
                *flags &= !(FIN | PSH);
            }
            if at > 0 {
                *flags &= !CWR;
            }
        } else {
            packet[begin + 4..begin + 6].copy_from_slice(&word(length - begin));
        }
        let field = begin + if self.protocol == TCP { 16 } else { 6 };
        packet[field..field + 2].fill(0);
        let mut sum = transport_sum(self.ends, self.protocol, &packet[begin..]);
        if self.protocol == UDP && sum == [0, 0] {
            // Zero would say that there is none (RFC 768).
            sum = [0xff, 0xff];
        }
        packet[field..field + 2].copy_from_slice(&sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::integrity::Segment;

    const ENDS: [(&str, &str); 2] = [("10.1.1.10", "10.2.1.10"), ("fd01:1::a", "fd01:2::a")];

    #[test]
    fn a_superframe_stands_for_the_segments_that_were_made_one_by_one() {
        for (from, to) in ENDS {
            let ends = (from.parse().unwrap(), to.parse().unwrap());
            let data: Vec<u8> = (0..=255).cycle().take(2_500).collect();
            let whole = Segment {
                flags: 0x10 | FIN | PSH | CWR,
                id: if from.contains(':') { 7 } else { 0xffff },
                options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
                ..Segment::new(ends, (1, 2), u32::MAX - 999, &data)
            };
            let frame = Superframe::of(whole.packet(), 1_000).unwrap();
            let expected: Vec<Vec<u8>> = [
                (0, 0x90, 0..1_000),
                (1, 0x10, 1_000..2_000),
                (2, 0x19, 2_000..2_500),
            ]
            .into_iter()
            .map(|(at, flags, range)| {
                let sequence = whole.sequence.wrapping_add(at * 1_000);
                Segment {
                    flags,
                    // A flow label does not count up.
                    id: if ends.0 == whole.ends.0 && from.contains(':') {
                        7
                    } else {
                        0xffff_u16.wrapping_add(u16::try_from(at).unwrap())
                    },
                    sequence,
                    payload: data[range].to_vec(),
                    ..whole.clone()
                }
                .packet()
            })
            .collect();
            assert_eq!(frame.packets().unwrap(), expected);
            let sent = [&frame.header().unwrap()[..], &[0; ETHERNET], &frame.packet].concat();
            assert_eq!(Superframe::parse(&sent).unwrap(), frame);
        }
    }

    #[test]
    fn what_is_complete_stays_as_it_is_wrong_sums_too() {
        let ends = (ENDS[0].0.parse().unwrap(), ENDS[0].1.parse().unwrap());
        let wrong = Segment {
            checksum_error: 1,
            ..Segment::new(ends, (1, 2), 3, b"data")
        };
        let frame = Superframe::complete(wrong.packet());
        assert_eq!(frame.packets().unwrap(), [wrong.packet()]);
        let mut unprepared = Superframe::of(wrong.packet(), 0).unwrap();
        unprepared.packet[36] ^= 1;
        assert!(unprepared.packets().is_err());
    }
}
