//! The overlay packet: IPv4 and UDP around Geneve, as it stands inside a WireGuard message.
//!
//! ```text
//! IPv4 overlay source → destination │ UDP flow hash → 6081 │ Geneve 8 B │ option 12 B │ pod packet
//! ```

use crate::geneve::{self, Encoded};
use crate::ip::{checksum, protocol};
use crate::reject::Reject;
use std::net::Ipv4Addr;
use std::ops::Range;

/// Bytes of the IPv4 header; the overlay never has options.
pub const IPV4_LEN: usize = 20;

/// Bytes in front of a pod packet.
pub const LEN: usize = IPV4_LEN + 8 + geneve::HEADER_LEN + geneve::SOURCE_OPTION_LEN;

const _: () = assert!(
    LEN == crate::mtu::OVERLAY_OVERHEAD as usize,
    "the MTU table counts the same bytes"
);

/// Flows are spread over the upper quarter of the ports, as RFC 8926, section 3.3 advises.
const SOURCE_PORTS: u16 = 0xc000;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
const TTL: u8 = 64;

/// Both ends of an overlay packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The sending node's overlay address.
    pub source: Ipv4Addr,
    /// The receiving node's.
    pub destination: Ipv4Addr,
}

/// What an overlay packet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// A whole UDP datagram at this range of the packet.
    Whole(Span),
    /// A fragment of one.
    Fragment {
        /// The identification that both halves share.
        id: u16,
        /// Where the data belongs, in bytes.
        offset: usize,
        /// Whether it is the last.
        last: bool,
        /// Where the data is in the packet.
        data: Span,
    },
}

/// A range of bytes that can be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last.
    pub end: usize,
}

impl From<Span> for Range<usize> {
    fn from(range: Span) -> Self {
        range.start..range.end
    }
}

fn write_ipv4(header: &mut [u8], ends: Ends, length: usize, id: u16, fragment: u16) {
    let length = u16::try_from(length).expect("the MTU keeps overlay packets below 64 KiB");
    header[..IPV4_LEN].fill(0);
    header[0] = 0x45;
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header[4..6].copy_from_slice(&id.to_be_bytes());
    header[6..8].copy_from_slice(&fragment.to_be_bytes());
    header[8] = TTL;
    header[9] = protocol::UDP;
    header[12..16].copy_from_slice(&ends.source.octets());
    header[16..20].copy_from_slice(&ends.destination.octets());
    let sum = !checksum::fold(checksum::sum(&header[..IPV4_LEN]));
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The [`LEN`] bytes in front of pod packets of one flow, made once for all of one length.
#[derive(Clone, Debug)]
pub struct Template {
    ends: Ends,
    flow: u32,
    geneve: Encoded,
    inner: usize,
    bytes: [u8; LEN],
}

impl Template {
    /// For the packets of a flow.
    pub fn new(ends: Ends, flow: u32, geneve: Encoded) -> Self {
        let mut bytes = [0; LEN];
        write(&mut bytes, ends, flow, &geneve, 0);
        Self {
            ends,
            flow,
            geneve,
            inner: 0,
            bytes,
        }
    }

    /// Writes the bytes in front of a packet of `inner` bytes.
    pub fn write(&mut self, header: &mut [u8], inner: usize) {
        if inner != self.inner {
            self.inner = inner;
            write(&mut self.bytes, self.ends, self.flow, &self.geneve, inner);
        }
        header[..LEN].copy_from_slice(&self.bytes);
    }

    /// Splits a packet that is too large for one message; see [`write_fragments`].
    pub fn write_fragments(
        &self,
        out: &mut [u8],
        inner: &[u8],
        id: u16,
        plaintext: usize,
    ) -> Option<[usize; 2]> {
        write_fragments(
            out,
            self.ends,
            self.flow,
            &self.geneve,
            inner,
            id,
            plaintext,
        )
    }
}

/// Writes the [`LEN`] bytes in front of a pod packet of `inner` bytes.
pub fn write(header: &mut [u8], ends: Ends, flow: u32, geneve: &Encoded, inner: usize) {
    write_ipv4(header, ends, LEN + inner, 0, DONT_FRAGMENT);
    write_udp(&mut header[IPV4_LEN..], flow, geneve, inner);
}

fn write_udp(udp: &mut [u8], flow: u32, geneve: &Encoded, inner: usize) {
    let source = SOURCE_PORTS | (u16::try_from(flow >> 16).unwrap_or_default() & !SOURCE_PORTS);
    let length =
        u16::try_from(LEN - IPV4_LEN + inner).expect("the MTU keeps overlay packets below 64 KiB");
    udp[..2].copy_from_slice(&source.to_be_bytes());
    udp[2..4].copy_from_slice(&geneve::PORT.to_be_bytes());
    udp[4..6].copy_from_slice(&length.to_be_bytes());
    udp[6..8].fill(0); // No checksum: the AEAD covers it.
    udp[8..8 + geneve.len()].copy_from_slice(geneve);
}

/// Splits a pod packet that is too large for one message into two overlay fragments, each of
/// `plaintext` bytes at most. Returns how long each is; `out` holds them one after the other.
pub fn write_fragments(
    out: &mut [u8],
    ends: Ends,
    flow: u32,
    geneve: &Encoded,
    inner: &[u8],
    id: u16,
    plaintext: usize,
) -> Option<[usize; 2]> {
    let datagram = LEN - IPV4_LEN + inner.len();
    // Offsets count in units of eight bytes, so the first half is a multiple of that.
    let first = (plaintext.checked_sub(IPV4_LEN)? / 8 * 8).min(datagram / 2 / 8 * 8 + 8);
    let second = datagram.checked_sub(first)?;
    let head = LEN - IPV4_LEN;
    // The first half holds all headers, so that they are read before anything waits for the second.
    if first < head || second == 0 || IPV4_LEN + second > plaintext {
        return None;
    }
    let (one, two) = out.split_at_mut_checked(IPV4_LEN + first)?;
    write_ipv4(one, ends, IPV4_LEN + first, id, MORE_FRAGMENTS);
    write_udp(&mut one[IPV4_LEN..], flow, geneve, inner.len());
    one[LEN..].copy_from_slice(&inner[..first - head]);
    let offset = u16::try_from(first / 8).ok()?;
    write_ipv4(two, ends, IPV4_LEN + second, id, offset);
    two.get_mut(IPV4_LEN..IPV4_LEN + second)?
        .copy_from_slice(&inner[first - head..]);
    Some([IPV4_LEN + first, IPV4_LEN + second])
}

/// Reads the IPv4 header of an overlay packet.
pub fn parse(packet: &[u8]) -> Result<(Ends, Body), Reject> {
    let header = packet
        .first_chunk::<IPV4_LEN>()
        .ok_or(Reject::OverlayMalformed)?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] != 0x45 || length != packet.len() {
        return Err(Reject::OverlayMalformed);
    }
    let ends = Ends {
        source: Ipv4Addr::new(header[12], header[13], header[14], header[15]),
        destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]),
    };
    if header[9] != protocol::UDP {
        return Err(Reject::OverlayNotGeneve);
    }
    let data = Span {
        start: IPV4_LEN,
        end: length,
    };
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    if fragment & (MORE_FRAGMENTS | OFFSET) == 0 {
        return Ok((ends, Body::Whole(data)));
    }
    Ok((
        ends,
        Body::Fragment {
            id: u16::from_be_bytes([header[4], header[5]]),
            offset: usize::from(fragment & OFFSET) * 8,
            last: fragment & MORE_FRAGMENTS == 0,
            data,
        },
    ))
}

/// Reads the UDP header of a whole datagram and returns the Geneve packet behind it.
pub fn parse_udp(datagram: &[u8]) -> Result<&[u8], Reject> {
    let (header, geneve) = datagram
        .split_first_chunk::<8>()
        .ok_or(Reject::OverlayNotGeneve)?;
    let destination = u16::from_be_bytes([header[2], header[3]]);
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if destination != geneve::PORT || length != datagram.len() {
        return Err(Reject::OverlayNotGeneve);
    }
    Ok(geneve)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geneve::{Protocol, SourceOption, encode};
    use crate::vni::Vni;
    use hex_literal::hex;

    const ENDS: Ends = Ends {
        source: Ipv4Addr::new(240, 1, 0, 1),
        destination: Ipv4Addr::new(240, 2, 0, 7),
    };

    fn geneve() -> Encoded {
        encode(
            Vni::DEFAULT,
            Protocol::Ipv4,
            SourceOption {
                cluster: 1,
                flags: 0,
                identity: 256,
            },
        )
    }

    #[test]
    fn golden_bytes() {
        let mut packet = [0xee; LEN + 4];
        write(&mut packet, ENDS, 0x1234_5678, &geneve(), 4);
        let golden = hex!(
            "45 00 0034 0000 4000 40 11 5aad f0010001 f0020007"
            "d234 17c1 0020 0000"
            "03 00 0800 000001 00 ff48 01 02 0001 0000 00000100 eeeeeeee"
        );
        assert_eq!(packet, golden);
        let (ends, body) = parse(&packet).unwrap();
        assert_eq!(
            (ends, body),
            (
                ENDS,
                Body::Whole(Span {
                    start: 20,
                    end: packet.len()
                })
            )
        );
        assert_eq!(parse_udp(&packet[20..]), Ok(&packet[28..]));
    }

    #[test]
    fn malformed_overlay_headers() {
        let mut good = [0; LEN + 4];
        write(&mut good, ENDS, 0, &geneve(), 4);
        let with = |at: usize, value: u8| {
            let mut packet = good;
            packet[at] = value;
            parse(&packet).map(|_| ())
        };
        for short in 0..good.len() {
            assert_eq!(parse(&good[..short]), Err(Reject::OverlayMalformed));
        }
        assert_eq!(with(0, 0x46), Err(Reject::OverlayMalformed), "options");
        assert_eq!(with(0, 0x65), Err(Reject::OverlayMalformed), "IPv6");
        assert_eq!(with(3, 0x35), Err(Reject::OverlayMalformed), "length");
        assert_eq!(with(9, 6), Err(Reject::OverlayNotGeneve), "TCP");
        let udp = |at: usize, value: u8| {
            let mut packet = good;
            packet[20 + at] = value;
            parse_udp(&packet[20..]).map(|_| ())
        };
        assert_eq!(udp(3, 0xc2), Err(Reject::OverlayNotGeneve), "port");
        assert_eq!(udp(5, 0x1f), Err(Reject::OverlayNotGeneve), "length");
        assert_eq!(parse_udp(&good[20..27]), Err(Reject::OverlayNotGeneve));
    }

    #[test]
    fn two_fragments_hold_every_byte_once() {
        for inner in [1169_usize, 1200, 1273, 1280] {
            let packet: Vec<u8> = (0..inner)
                .map(|at| u8::try_from(at % 251).unwrap())
                .collect();
            let mut out = vec![0; 4096];
            let lengths = write_fragments(&mut out, ENDS, 9, &geneve(), &packet, 77, 1216).unwrap();
            let mut whole = vec![0; LEN - IPV4_LEN + inner];
            let mut at = 0;
            for (half, length) in lengths.into_iter().enumerate() {
                assert!(length <= 1216);
                let (_, body) = parse(&out[at..at + length]).unwrap();
                let Body::Fragment {
                    id: 77,
                    offset,
                    last,
                    data,
                } = body
                else {
                    panic!("{body:?}")
                };
                assert_eq!(last, half == 1);
                whole[offset..offset + data.end - data.start]
                    .copy_from_slice(&out[at..][Range::from(data)]);
                at += length;
            }
            assert!(parse_udp(&whole).unwrap().ends_with(&packet));
        }
        assert_eq!(
            write_fragments(&mut [0; 4096], ENDS, 9, &geneve(), &[0; 1400], 7, 600),
            None
        );
    }

    /// Found by fuzzing: a path too narrow for the headers in one piece was written past the first half.
    #[test]
    fn a_path_too_narrow_for_the_headers_is_refused_and_not_written_past() {
        for plaintext in 0..200 {
            for inner in 0..200 {
                let mut out = [0; 512];
                let lengths =
                    write_fragments(&mut out, ENDS, 9, &geneve(), &vec![7; inner], 7, plaintext);
                if let Some([first, second]) = lengths {
                    assert!(LEN <= first && first <= plaintext && second <= plaintext);
                    assert_eq!(first + second, LEN + IPV4_LEN + inner);
                }
            }
        }
    }
}
