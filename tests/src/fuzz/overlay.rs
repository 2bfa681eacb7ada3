//! The overlay packet around Geneve, and its two halves.

use std::net::Ipv4Addr;
use std::ops::Range;

use hawser_tunnel::geneve::{self, Protocol, SourceOption};
use hawser_tunnel::overlay::{self, Body, Ends, IPV4_LEN, LEN};
use hawser_tunnel::reassembly::{Piece, Reassembly};
use hawser_tunnel::reject::Reject;
use hawser_tunnel::vni::Vni;

use super::packet::ones_sum;
use super::source::Source;

/// Target: any bytes as an overlay packet; what is written is read as it was, whole or in halves.
pub(super) fn packet(input: &[u8]) {
    match overlay::parse(input) {
        Ok((_, Body::Whole(data) | Body::Fragment { data, .. })) => {
            assert_eq!(
                Range::from(data),
                IPV4_LEN..input.len(),
                "the data is the rest"
            );
        }
        Err(reason) => assert!(matches!(
            reason,
            Reject::OverlayMalformed | Reject::OverlayNotGeneve
        )),
    }
    match overlay::parse_udp(input) {
        Ok(rest) => assert_eq!(rest, &input[8..]),
        Err(reason) => assert_eq!(reason, Reject::OverlayNotGeneve),
    }
    let mut source = Source::new(input);
    let ends = Ends {
        source: Ipv4Addr::from(source.array::<4>()),
        destination: Ipv4Addr::from(source.array::<4>()),
    };
    let option = SourceOption {
        cluster: source.any(),
        flags: source.any(),
        identity: source.any(),
    };
    let header = geneve::encode(Vni::DEFAULT, Protocol::Ipv6, option);
    let (flow, id) = (source.any(), source.any());
    let plaintext = source.pick(&[1200, 1216, 1440, 64, 48, 20, 0]) + source.below(64);
    let length = source.pick(&[1169, 1280, 0, 20]) + source.below(128);
    let inner = source.pattern(length);
    whole(ends, flow, &header, &inner);
    halves(ends, flow, &header, &inner, id, plaintext);
}

fn whole(ends: Ends, flow: u32, header: &geneve::Encoded, inner: &[u8]) {
    let mut packet = vec![0xee; LEN];
    overlay::write(&mut packet, ends, flow, header, inner.len());
    packet.extend_from_slice(inner);
    assert_eq!(
        ones_sum(&packet[..IPV4_LEN]),
        0xffff,
        "the header's checksum"
    );
    let (read, body) = overlay::parse(&packet).expect("what was written is read");
    assert_eq!(read, ends);
    let Body::Whole(data) = body else {
        panic!("a whole packet became {body:?}");
    };
    let geneve = overlay::parse_udp(&packet[Range::from(data)]).expect("a datagram");
    assert_eq!(geneve, [header, inner].concat());
}

fn halves(
    ends: Ends,
    flow: u32,
    header: &geneve::Encoded,
    inner: &[u8],
    id: u16,
    plaintext: usize,
) {
    let mut room = vec![0xee; LEN + IPV4_LEN + inner.len()];
    let Some([first, second]) =
        overlay::write_fragments(&mut room, ends, flow, header, inner, id, plaintext)
    else {
        return;
    };
    assert!(
        first <= plaintext && second <= plaintext,
        "a half is larger than the path carries"
    );
    let now = std::time::Instant::now();
    let mut reassembly = Reassembly::default();
    let mut datagram = None;
    for half in [&room[..first], &room[first..first + second]] {
        assert_eq!(ones_sum(&half[..IPV4_LEN]), 0xffff, "the header's checksum");
        let (read, body) = overlay::parse(half).expect("a half is an overlay packet");
        assert_eq!(read, ends);
        let Body::Fragment {
            id: read,
            offset,
            last,
            data,
        } = body
        else {
            panic!("a half became {body:?}");
        };
        assert_eq!(read, id);
        let piece = Piece {
            id,
            offset,
            last,
            data: &half[Range::from(data)],
        };
        // Pod packets of more than 1,280 bytes are never sent so, and are not taken so.
        if inner.len() <= 1280 {
            let taken = reassembly.handle_fragment(piece, now, &mut || panic!("nothing expires"));
            datagram = taken.expect("what we send we take");
        }
    }
    if inner.len() <= 1280 {
        let datagram = datagram.expect("two halves are a whole");
        assert_eq!(
            overlay::parse_udp(&datagram),
            Ok(&[header, inner].concat()[..])
        );
    }
}
