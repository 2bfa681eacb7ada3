//! Joins neighbouring packets of one flow into the super-frames that the kernel takes in one piece: what
//! [`crate::segment`] splits, put together again.
//!
//! What may be joined is what Linux itself joins on receipt (`inet_gro_receive`, `tcp_gro_receive`,
//! `udp_gro_receive`): splitting a super-frame again gives back the packets that went into it, but for the
//! identification of IPv4 packets that must not be fragmented, which means nothing (RFC 6864, section 4.1). Payload
//! is never copied.

use crate::ip::{Fragment, Packet, checksum, protocol};
use crate::segment::ETHERNET_LEN;
use crate::virtio::{Gso, Header};
use std::ops::Range;

mod flow;
use flow::{Candidate, Joined};

/// Packets in one super-frame at most: what the kernel's own receive path joins at most (MAX_SKB_FRAGS and more
/// are refused by some drivers that the frame is forwarded to).
pub const MAX_PARTS: usize = 64;

/// Flows whose super-frames are held open at once; a batch holds few more.
const MAX_OPEN: usize = 16;

/// Bytes of an IP packet at most.
const MAX_PACKET: usize = 65_535;

/// Which packets are joined: what the device takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joins {
    /// TCP.
    pub tcp: bool,
    /// UDP.
    pub udp: bool,
}

impl Joins {
    /// Every packet is a frame of its own.
    pub const NONE: Self = Self {
        tcp: false,
        udp: false,
    };
    /// Whatever can be joined.
    pub const ALL: Self = Self {
        tcp: true,
        udp: true,
    };
}

impl Default for Joins {
    fn default() -> Self {
        Self::ALL
    }
}

/// A packet that passed every check, and where it is.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Where in the bytes that all pieces are part of.
    pub range: Range<usize>,
    /// What was read of it.
    pub ip: Packet,
    /// The Ethernet header in front. Packets with different ones (another identity, another family) are never joined.
    pub ethernet: [u8; ETHERNET_LEN],
    /// Whether the transport checksum holds only the sum of the pseudo-header.
    pub checksum_left: bool,
}

/// Frames in the making, of packets that stay where they were opened.
#[derive(Debug, Default)]
pub struct Merger {
    joins: Joins,
    frames: Vec<Super>,
    parts: Vec<Part>,
    /// Frames that may grow, by their place in `frames`.
    open: Vec<usize>,
}

/// One frame: a packet, and the payloads of those that were joined to it.
#[derive(Debug)]
struct Super {
    first: Piece,
    /// Of the first packet, with all headers; they stand for all.
    headers: usize,
    header: Header,
    joined: Joined,
    /// The chain of further payloads in `parts`.
    chain: Option<(usize, usize)>,
}

/// A payload, and the one behind it.
#[derive(Debug)]
struct Part {
    range: Range<usize>,
    next: Option<usize>,
}

/// A frame for the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    merger: &'a Merger,
    frame: &'a Super,
    bytes: &'a [u8],
}

impl Merger {
    /// Joins only what `joins` says.
    pub fn new(joins: Joins) -> Self {
        Self {
            joins,
            ..Self::default()
        }
    }

    /// Which packets are joined.
    pub fn joins(&self) -> Joins {
        self.joins
    }

    /// Joins other packets from now on.
    pub fn set_joins(&mut self, joins: Joins) {
        self.joins = joins;
    }

    /// Forgets all frames and keeps the room.
    pub fn clear(&mut self) {
        self.frames.clear();
        self.parts.clear();
        self.open.clear();
    }

    /// How many frames there are.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Takes the next packet: into the super-frame of its flow, or as a frame of its own. Packets of one flow stay in
    /// order.
    pub fn push(&mut self, bytes: &[u8], piece: Piece) {
        let packet = &bytes[piece.range.clone()];
        let candidate = self
            .may_join(&piece)
            .then(|| Candidate::read(packet, &piece.ip))
            .flatten();
        let found = self.open.iter().rposition(|&at| {
            let frame = &self.frames[at];
            frame.first.ethernet == piece.ethernet
                && flow::is_same(&bytes[frame.first.range.clone()], packet, &piece.ip)
        });
        if let Some(place) = found {
            let at = self.open[place];
            if let Some(candidate) = &candidate
                && self.join(bytes, at, &piece, candidate)
            {
                if self.frames[at].joined.is_full() {
                    self.open.remove(place);
                }
                return;
            }
            // Whatever did not fit comes behind, and so does all that follows it.
            self.open.remove(place);
        }
        let opens = candidate.as_ref().is_some_and(Candidate::opens);
        let (headers, joined) = match candidate {
            Some(candidate) => (candidate.headers, Joined::new(&candidate)),
            None => (packet.len(), Joined::default()),
        };
        if opens {
            if self.open.len() == MAX_OPEN {
                self.open.remove(0);
            }
            self.open.push(self.frames.len());
        }
        self.frames.push(Super {
            header: single(&piece),
            first: piece,
            headers,
            joined,
            chain: None,
        });
    }

    fn may_join(&self, piece: &Piece) -> bool {
        piece.ip.fragment == Fragment::Whole
            && match piece.ip.protocol {
                protocol::TCP => self.joins.tcp,
                protocol::UDP => self.joins.udp,
                _ => false,
            }
    }

    fn join(&mut self, bytes: &[u8], at: usize, piece: &Piece, candidate: &Candidate) -> bool {
        let frame = &mut self.frames[at];
        let head = &bytes[frame.first.range.clone()];
        let packet = &bytes[piece.range.clone()];
        let length = frame.headers + frame.joined.payload + candidate.payload;
        let fits = length <= MAX_PACKET
            && frame.first.checksum_left == piece.checksum_left
            && frame
                .joined
                .takes(head, packet, &piece.ip, candidate, piece.checksum_left);
        if !fits {
            return false;
        }
        frame.joined.add(candidate);
        let part = self.parts.len();
        self.parts.push(Part {
            range: piece.range.start + candidate.headers..piece.range.end,
            next: None,
        });
        frame.chain = Some(match frame.chain {
            None => (part, part),
            Some((first, last)) => {
                self.parts[last].next = Some(part);
                (first, part)
            }
        });
        true
    }

    /// Makes the headers of super-frames right, where their first packets stand. After the last [`Self::push`].
    pub fn finish(&mut self, bytes: &mut [u8]) {
        self.open.clear();
        for frame in self.frames.iter_mut().filter(|frame| frame.chain.is_some()) {
            let headers = &mut bytes[frame.first.range.clone()][..frame.headers];
            frame.header = frame.joined.finish(headers, &frame.first.ip);
        }
    }

    /// The frames, in the order of their first packets. `bytes` are those of all pieces, after [`Self::finish`].
    pub fn frames<'a>(&'a self, bytes: &'a [u8]) -> impl ExactSizeIterator<Item = Frame<'a>> {
        self.frames.iter().map(move |frame| Frame {
            merger: self,
            frame,
            bytes,
        })
    }
}

impl<'a> Frame<'a> {
    /// What the kernel has to know of it.
    pub fn header(&self) -> Header {
        self.frame.header
    }

    /// How many packets are in it.
    pub fn packets(&self) -> usize {
        self.frame.joined.packets.max(1)
    }

    /// Its bytes in pieces: Ethernet header, first packet, payloads of the others.
    pub fn parts(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let Self {
            merger,
            frame,
            bytes,
        } = *self;
        let mut next = frame.chain.map(|(first, _)| first);
        let payloads = std::iter::from_fn(move || {
            let part = &merger.parts[next?];
            next = part.next;
            Some(&bytes[part.range.clone()])
        });
        [&frame.first.ethernet[..], &bytes[frame.first.range.clone()]]
            .into_iter()
            .chain(payloads)
    }

    /// The packets that were joined to the first, each as a frame of its own.
    pub fn split(&self) -> Vec<(Header, Vec<u8>)> {
        let whole = self.to_vec();
        let packet = &whole[ETHERNET_LEN..];
        let parsed = Packet::parse(packet)
            .and_then(|ip| crate::segment::Segments::new(self.header(), packet, ip));
        let Ok(segments) = parsed else {
            return vec![(self.header(), whole)];
        };
        (0..segments.count())
            .map(|at| {
                let mut out = whole[..ETHERNET_LEN].to_vec();
                out.resize(ETHERNET_LEN + segments.length(at), 0);
                segments.write(at, false, &mut out[ETHERNET_LEN..]);
                let header = Header {
                    gso_type: 0,
                    gso_size: 0,
                    ..self.header()
                };
                (header, out)
            })
            .collect()
    }

    /// Its bytes in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        self.parts().flatten().copied().collect()
    }
}

/// What the kernel has to know of one packet.
fn single(piece: &Piece) -> Header {
    let offset = piece.ip.checksum_offset().filter(|_| piece.checksum_left);
    let words = offset.and_then(|offset| {
        let start = u16::try_from(ETHERNET_LEN + piece.ip.transport).ok()?;
        Some((start, u16::try_from(offset).ok()?))
    });
    match words {
        None => Header::COMPLETE,
        Some((csum_start, csum_offset)) => Header {
            flags: Header::NEEDS_CSUM,
            csum_start,
            csum_offset,
            ..Header::COMPLETE
        },
    }
}

/// The offload header of `packets` joined ones.
fn joined_header(ip: &Packet, gso: Gso, headers: usize, size: usize, congested: bool) -> Header {
    let word = |value: usize| u16::try_from(value).unwrap_or(u16::MAX);
    let gso_type: u8 = match gso {
        Gso::None => 0,
        Gso::TcpV4 => 1,
        Gso::TcpV6 => 4,
        Gso::UdpL4 => 5,
    };
    Header {
        flags: Header::NEEDS_CSUM,
        gso_type: gso_type | if congested { Header::GSO_ECN } else { 0 },
        hdr_len: word(ETHERNET_LEN + headers),
        gso_size: word(size),
        csum_start: word(ETHERNET_LEN + ip.transport),
        csum_offset: if ip.protocol == protocol::TCP { 16 } else { 6 },
    }
}

/// Folds the sum over a pseudo-header for a packet of another length than it has.
fn pseudo_header(ip: &Packet, length: usize) -> u16 {
    checksum::fold(Packet { length, ..*ip }.pseudo_header_sum())
}

#[cfg(test)]
mod tests;
