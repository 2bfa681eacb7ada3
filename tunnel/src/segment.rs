//! Splits the kernel's super-frames into the packets that they stand for.

use crate::ip::{Fragment, Packet, checksum, protocol};
use crate::reject::Reject;
use crate::virtio::{Gso, Header};

/// Bytes of an Ethernet header, which `csum_start` counts and an IP packet does not have.
pub const ETHERNET_LEN: usize = 14;

/// Packets in a super-frame at most: 64 KiB with TCP's least segment size, and some more. A pod with a packet socket
/// would have a thread cut frames into single bytes.
const MAX_SEGMENTS: usize = 2_048;

/// Bytes of both ports at the start of an upper-layer header.
const PORTS_LEN: usize = 4;

const TCP_FIN_PSH: u8 = 0x01 | 0x08;
const TCP_CWR: u8 = 0x80;

/// A frame from the kernel, seen as one or more packets.
#[derive(Clone, Copy, Debug)]
pub struct Segments<'a> {
    /// The packet, or the beginning of it with all headers.
    packet: &'a [u8],
    ip: Packet,
    /// Bytes of all headers, which every segment repeats.
    headers: usize,
    /// Bytes of payload in each but the last.
    size: usize,
    checksum: Checksum,
    /// Sums that all segments share: of the IPv4 header without length and identification, and of the pseudo-header
    /// without the length.
    sums: Sums,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    network: u32,
    pseudo: u32,
}

/// What is to be done about the transport checksum of each packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// It is complete.
    Filled,
    /// It holds the sum of the pseudo-header alone; it stands at this offset of the packet.
    NotFilled(usize),
    /// The kernel left a sum to be made from `start`, stored at `at`, that is not the transport's
    /// own (a tunnel inside a pod): it is filled here.
    Inner {
        /// First byte of the sum.
        start: usize,
        /// Where it is stored.
        at: usize,
    },
}

impl<'a> Segments<'a> {
    /// Reads what the kernel said of a frame; `packet` is the frame without its Ethernet header. It may end behind the
    /// headers where the payload is in its place already: then only [`Self::complete`] may be called.
    pub fn new(header: Header, packet: &'a [u8], ip: Packet) -> Result<Self, Reject> {
        let gso = header.gso().ok_or(Reject::FrameMalformed)?;
        let checksum = if header.needs_checksum() {
            let start = usize::from(header.csum_start)
                .checked_sub(ETHERNET_LEN)
                .ok_or(Reject::FrameMalformed)?;
            let at = start + usize::from(header.csum_offset);
            // A pod with a packet socket says what it likes here. Addresses and ports were judged: no sum is
            // written over them.
            if at + 2 > ip.length || start < ip.transport || at < ip.transport + PORTS_LEN {
                return Err(Reject::FrameMalformed);
            }
            match ip.checksum_offset() {
                Some(offset) if start == ip.transport && at == ip.transport + offset => {
                    Checksum::NotFilled(at)
                }
                _ => Checksum::Inner { start, at },
            }
        } else {
            Checksum::Filled
        };
        let (headers, size) = match gso {
            Gso::None => (ip.length, 0),
            Gso::TcpV4 | Gso::TcpV6 if ip.protocol == protocol::TCP => {
                let offset = packet
                    .get(ip.transport + 12)
                    .ok_or(Reject::FrameMalformed)?;
                (
                    ip.transport + usize::from(offset >> 4) * 4,
                    usize::from(header.gso_size),
                )
            }
            Gso::UdpL4 if ip.protocol == protocol::UDP => {
                (ip.transport + 8, usize::from(header.gso_size))
            }
            Gso::TcpV4 | Gso::TcpV6 | Gso::UdpL4 => return Err(Reject::FrameMalformed),
        };
        let split = gso != Gso::None;
        // A super-frame always leaves its checksums to be made, and is never a fragment.
        let unfit = !matches!(checksum, Checksum::NotFilled(_))
            || size == 0
            || ip.fragment != Fragment::Whole;
        let minimum = if ip.protocol == protocol::TCP { 20 } else { 8 };
        if split
            && (unfit || size == 0 || headers < ip.transport + minimum || headers > packet.len())
        {
            return Err(Reject::FrameMalformed);
        }
        if split && (ip.length - headers).div_ceil(size) > MAX_SEGMENTS {
            return Err(Reject::FrameMalformed);
        }
        let mut segments = Self {
            packet,
            ip,
            headers,
            size,
            checksum,
            sums: Sums::default(),
        };
        if split {
            segments.sums = segments.shared_sums();
        }
        Ok(segments)
    }

    fn shared_sums(&self) -> Sums {
        let without_length = Packet {
            length: self.ip.transport,
            ..self.ip
        };
        let mut network = 0;
        if self.ip.source.is_ipv4() {
            let ihl = usize::from(self.packet[0] & 0x0f) * 4;
            let fixed = [0..2, 6..10, 12..ihl];
            network = fixed
                .map(|range| checksum::sum(&self.packet[range]))
                .iter()
                .sum();
        }
        Sums {
            network,
            pseudo: without_length.pseudo_header_sum(),
        }
    }

    /// Bytes of the headers that every segment repeats; of one packet, all of it.
    pub fn headers(&self) -> usize {
        self.headers
    }

    /// Bytes of payload in each segment but the last; 0 of one packet.
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many packets there are.
    pub fn count(&self) -> usize {
        if self.size == 0 {
            1
        } else {
            (self.ip.length - self.headers).div_ceil(self.size).max(1)
        }
    }

    /// Bytes of the largest packet.
    pub fn largest(&self) -> usize {
        if self.size == 0 {
            self.ip.length
        } else {
            self.ip.length.min(self.headers + self.size)
        }
    }

    /// Bytes of packet `at`.
    pub fn length(&self, at: usize) -> usize {
        if self.size == 0 {
            return self.ip.length;
        }
        let payload = self.ip.length - self.headers;
        self.headers + (payload - at * self.size).min(self.size)
    }

    /// Whether packets are left with only the pseudo-header's sum.
    pub fn leaves_checksum(&self) -> bool {
        matches!(self.checksum, Checksum::NotFilled(_))
    }

    /// Writes packet `at` into `out`, which is [`Self::length`] long. Checksums that the kernel left
    /// to be made are made where `fill` says so.
    pub fn write(&self, at: usize, fill: bool, out: &mut [u8]) {
        if self.size == 0 {
            out.copy_from_slice(self.packet);
        } else {
            let start = self.headers + at * self.size;
            let data = &mut out[self.headers..];
            data.copy_from_slice(&self.packet[start..start + data.len()]);
        }
        self.complete(at, fill, out);
    }

    /// Writes the headers and checksums of packet `at` into `out`, where its payload is already; of one packet all bytes
    /// are.
    pub fn complete(&self, at: usize, fill: bool, out: &mut [u8]) {
        if self.size > 0 {
            self.write_headers(at, out);
        }
        match self.checksum {
            Checksum::Filled => {}
            // One packet as it came: the field holds the pseudo-header's sum, which only the kernel
            // knows for sure (a routing header names another destination).
            Checksum::NotFilled(_) if self.size == 0 && !fill => {}
            Checksum::NotFilled(field) if self.size == 0 => {
                let sum = !checksum::fold(checksum::sum(&out[self.ip.transport..]));
                let sum = not_zero(sum, self.ip.protocol);
                out[field..field + 2].copy_from_slice(&sum.to_be_bytes());
            }
            Checksum::NotFilled(field) => {
                let mut sum = self.sums.pseudo + u32::from(low_bits(out.len() - self.ip.transport));
                if fill {
                    out[field..field + 2].fill(0);
                    sum += checksum::sum(&out[self.ip.transport..]);
                }
                let sum = checksum::fold(sum);
                let sum = if fill {
                    not_zero(!sum, self.ip.protocol)
                } else {
                    sum
                };
                out[field..field + 2].copy_from_slice(&sum.to_be_bytes());
            }
            Checksum::Inner { start, at } => {
                let sum = !checksum::fold(checksum::sum(&out[start..]));
                out[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            }
        }
    }

    fn write_headers(&self, at: usize, out: &mut [u8]) {
        let total = out.len();
        let headers = &mut out[..self.headers];
        headers.copy_from_slice(&self.packet[..self.headers]);
        if self.ip.source.is_ipv4() {
            let id = u16::from_be_bytes([headers[4], headers[5]]).wrapping_add(low_bits(at));
            let length = low_bits(total);
            let sum = self.sums.network + u32::from(id) + u32::from(length);
            headers[2..4].copy_from_slice(&length.to_be_bytes());
            headers[4..6].copy_from_slice(&id.to_be_bytes());
            headers[10..12].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
        } else {
            headers[4..6].copy_from_slice(&low_bits(total - 40).to_be_bytes());
        }
        let transport = &mut headers[self.ip.transport..];
        if self.ip.protocol == protocol::TCP {
            let sequence =
                u32::from_be_bytes([transport[4], transport[5], transport[6], transport[7]]);
            let ahead = u32::try_from(at * self.size).unwrap_or_default();
            transport[4..8].copy_from_slice(&sequence.wrapping_add(ahead).to_be_bytes());
            if at > 0 {
                transport[13] &= !TCP_CWR;
            }
            if at + 1 < self.count() {
                transport[13] &= !TCP_FIN_PSH;
            }
        } else {
            transport[4..6].copy_from_slice(&low_bits(total - self.ip.transport).to_be_bytes());
        }
    }
}

/// A UDP checksum of zero would mean that there is none (RFC 768).
fn not_zero(sum: u16, protocol: u8) -> u16 {
    if sum == 0 && protocol == protocol::UDP {
        0xffff
    } else {
        sum
    }
}

/// The low 16 bits of a length or a count; a frame of the TAP is below 64 KiB.
fn low_bits(value: usize) -> u16 {
    u16::try_from(value & 0xffff).unwrap_or_default()
}

/// Makes the transport checksum of a whole packet, as a receiver's kernel would. For packets that
/// came with only the pseudo-header's sum.
pub fn fill_checksum(packet: &mut [u8], ip: &Packet) -> bool {
    let Some(offset) = ip.checksum_offset() else {
        return false;
    };
    let field = ip.transport + offset;
    packet[field..field + 2].fill(0);
    let sum = !checksum::fold(ip.pseudo_header_sum() + checksum::sum(&packet[ip.transport..]));
    packet[field..field + 2].copy_from_slice(&not_zero(sum, ip.protocol).to_be_bytes());
    true
}

#[cfg(test)]
mod tests;
