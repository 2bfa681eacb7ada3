//! Which packet continues a super-frame, and what the headers of the whole say.

use super::{MAX_PARTS, joined_header, pseudo_header};
use crate::ip::{Packet, checksum, protocol};
use crate::virtio::{Gso, Header};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const URG: u8 = 0x20;
const CWR: u8 = 0x80;

/// IPv4's identification is counted on between packets, unless it is fixed in those that must not be fragmented.
const DONT_FRAGMENT: u8 = 0x40;

/// A packet whose shape allows it to be joined: plain headers, some payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Bytes of all headers.
    pub(super) headers: usize,
    /// Bytes behind them.
    pub(super) payload: usize,
    /// TCP's flags; 0 of UDP.
    flags: u8,
    tcp: bool,
    six: bool,
}

/// What was joined so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Joined {
    /// How many packets.
    pub(super) packets: usize,
    /// Bytes of all payloads.
    pub(super) payload: usize,
    /// Bytes of each payload but the last.
    size: usize,
    /// PSH and FIN of the last one.
    ending: u8,
    /// The first one tells that a sender slowed down.
    congested: bool,
    /// The last payload was shorter, or told the receiver not to wait.
    closed: bool,
    /// The first one's checksum was found right.
    checked: bool,
    /// Every identification is the same.
    fixed_id: bool,
    tcp: bool,
    six: bool,
}

/// Whether two packets are of one flow. `ip` is what was read of `packet`; the other is of the kind that can be joined.
pub(super) fn is_same(head: &[u8], packet: &[u8], ip: &Packet) -> bool {
    let transport = ip.transport;
    let (addresses, next) = match packet[0] >> 4 {
        4 => (12..20, 9),
        _ => (8..40, 6),
    };
    // Both begin with their version; a flow that was opened has no options in front of its ports.
    head[0] >> 4 == packet[0] >> 4
        && head[addresses.clone()] == packet[addresses]
        && head[next] == ip.protocol
        && match packet.get(transport..transport + 4) {
            Some(ports) => {
                let head_transport = if head[0] >> 4 == 4 { 20 } else { 40 };
                head[head_transport..head_transport + 4] == *ports
            }
            None => false,
        }
}

impl Candidate {
    /// Reads a whole TCP or UDP packet; `None` where its shape does not allow joining.
    pub(super) fn read(packet: &[u8], ip: &Packet) -> Option<Self> {
        let six = packet[0] >> 4 == 6;
        // No options and no extension headers: they would have to be the same in each, and mean something.
        if ip.transport != if six { 40 } else { 20 } {
            return None;
        }
        if !six && checksum::fold(checksum::sum(&packet[..20])) != 0xffff {
            return None;
        }
        let tcp = ip.protocol == protocol::TCP;
        let transport = &packet[ip.transport..];
        let (headers, flags) = if tcp {
            let length = usize::from(transport.get(12)? >> 4) * 4;
            if length < 20 {
                return None;
            }
            (ip.transport + length, *transport.get(13)?)
        } else {
            let length = usize::from(u16::from_be_bytes([*transport.get(4)?, *transport.get(5)?]));
            // Without a checksum there is nothing that a super-frame could leave to be made.
            if length != transport.len() || transport.get(6..8)? == [0, 0] {
                return None;
            }
            (ip.transport + 8, 0)
        };
        let payload = packet.len().checked_sub(headers)?;
        let plain = flags & (SYN | RST | URG) == 0;
        (payload > 0 && plain).then_some(Self {
            headers,
            payload,
            flags,
            tcp,
            six,
        })
    }

    /// Whether others may follow it in its super-frame.
    pub(super) fn opens(&self) -> bool {
        self.flags & (FIN | PSH) == 0
    }
}

impl Joined {
    /// A super-frame of one packet.
    pub(super) fn new(first: &Candidate) -> Self {
        Self {
            packets: 1,
            payload: first.payload,
            size: first.payload,
            ending: 0,
            congested: first.flags & CWR != 0,
            closed: false,
            checked: false,
            fixed_id: false,
            tcp: first.tcp,
            six: first.six,
        }
    }

    /// Whether nothing can be joined to it any more.
    pub(super) fn is_full(&self) -> bool {
        self.closed || self.packets >= MAX_PARTS
    }

    /// Whether `packet` continues what begins with `head`, and stays what it is when it is joined.
    pub(super) fn takes(
        &mut self,
        head: &[u8],
        packet: &[u8],
        ip: &Packet,
        candidate: &Candidate,
        checksum_left: bool,
    ) -> bool {
        let transport = ip.transport;
        let headers = candidate.headers;
        let same = |from: usize, to: usize| head[from..to] == packet[from..to];
        let network = if self.six {
            // Version, traffic class, flow label; hop limit.
            same(0, 4) && same(7, 8)
        } else {
            // Type of service; fragment flags and time to live.
            same(1, 2) && same(6, 9) && self.takes_id(head, packet)
        };
        if !network || candidate.payload > self.size {
            return false;
        }
        let (field, continues) = if self.tcp {
            let sequence = |bytes: &[u8]| {
                let field = &bytes[transport + 4..transport + 8];
                u32::from_be_bytes([field[0], field[1], field[2], field[3]])
            };
            let ahead = u32::try_from(self.payload).unwrap_or(u32::MAX);
            let differ = head[transport + 13] ^ packet[transport + 13];
            // Acknowledgement, data offset; window; urgent pointer; options.
            let continues = sequence(packet) == sequence(head).wrapping_add(ahead)
                && same(transport + 8, transport + 13)
                && candidate.flags & CWR == 0
                && differ & !(FIN | PSH | CWR) == 0
                && same(transport + 14, transport + 16)
                && same(transport + 18, headers);
            (transport + 16, continues)
        } else {
            (transport + 6, true)
        };
        continues && self.checksums_are_right(head, packet, ip, field, checksum_left)
    }

    fn takes_id(&mut self, head: &[u8], packet: &[u8]) -> bool {
        let id = |bytes: &[u8]| u16::from_be_bytes([bytes[4], bytes[5]]);
        let ahead = id(packet).wrapping_sub(id(head));
        if self.packets == 1 {
            self.fixed_id = head[6] & DONT_FRAGMENT != 0 && ahead == 0;
        }
        match self.fixed_id {
            true => ahead == 0,
            false => usize::from(ahead) == self.packets,
        }
    }

    /// The sums of a super-frame are made anew from its bytes: a wrong one would become right.
    fn checksums_are_right(
        &mut self,
        head: &[u8],
        packet: &[u8],
        ip: &Packet,
        field: usize,
        left: bool,
    ) -> bool {
        let is_right = |bytes: &[u8]| {
            let pseudo = Packet {
                length: bytes.len(),
                ..*ip
            }
            .pseudo_header_sum();
            if left {
                let stored = u16::from_be_bytes([bytes[field], bytes[field + 1]]);
                stored == checksum::fold(pseudo)
            } else {
                checksum::fold(pseudo + checksum::sum(&bytes[ip.transport..])) == 0xffff
            }
        };
        if !self.checked {
            if !is_right(head) {
                return false;
            }
            self.checked = true;
        }
        // Packets of one flow and one length have the same pseudo-header.
        let known = left
            && head.len() == packet.len()
            && head[field..field + 2] == packet[field..field + 2];
        known || is_right(packet)
    }

    /// Counts a packet in.
    pub(super) fn add(&mut self, candidate: &Candidate) {
        self.packets += 1;
        self.payload += candidate.payload;
        self.ending = candidate.flags & (FIN | PSH);
        self.closed = candidate.payload < self.size || self.ending != 0;
    }

    /// Writes what is different in the headers of the whole, and says what the kernel has to know of it.
    pub(super) fn finish(&self, headers: &mut [u8], ip: &Packet) -> Header {
        let length = headers.len() + self.payload;
        let word = |value: usize| u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes();
        if self.six {
            headers[4..6].copy_from_slice(&word(length - 40));
        } else {
            headers[2..4].copy_from_slice(&word(length));
            headers[10..12].fill(0);
            let sum = !checksum::fold(checksum::sum(&headers[..20]));
            headers[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let count = headers.len();
        let transport = &mut headers[ip.transport..];
        let pseudo = pseudo_header(ip, length).to_be_bytes();
        let gso = match (self.tcp, self.six) {
            (true, false) => Gso::TcpV4,
            (true, true) => Gso::TcpV6,
            (false, _) => Gso::UdpL4,
        };
        if self.tcp {
            transport[13] |= self.ending;
            transport[16..18].copy_from_slice(&pseudo);
        } else {
            transport[4..6].copy_from_slice(&word(length - ip.transport));
            transport[6..8].copy_from_slice(&pseudo);
        }
        joined_header(ip, gso, count, self.size, self.congested)
    }
}
