//! Super-frames and the packets that they stand for.

use hawser_tunnel::ip::{Fragment, Packet};
use hawser_tunnel::segment::{Segments, fill_checksum};
use hawser_tunnel::virtio::Header;

use super::frames::offload;
use super::packet::{Shape, TCP, UDP, checksum_is_right, make, ones_sum};
use super::source::Source;
use super::world::OUTBOUND;

/// More segments show nothing new and take long.
const MOST_SEGMENTS: usize = 300;

/// Target: splits a frame; the parts hold every byte of the whole once, under headers that are right.
pub(super) fn super_frame(input: &[u8]) {
    let mut source = Source::new(input);
    let (header, packet) = match source.once_in(8) {
        true => (Header::parse(&source.array()), source.rest().to_vec()),
        false => {
            let most = source.pick(&[200, 1500, 3600]);
            let made = make(&mut source, &OUTBOUND, most);
            (offload(&mut source, &made), made.bytes)
        }
    };
    let Ok(ip) = Packet::parse(&packet) else {
        return;
    };
    let Ok(segments) = Segments::new(header, &packet, ip) else {
        return;
    };
    let count = segments.count();
    assert!(count > 0 && segments.largest() <= packet.len());
    match header.gso_type & 0x7f {
        0 => whole(&segments, header, &packet, &ip),
        _ if count <= MOST_SEGMENTS => split(&segments, header, &packet, &ip),
        _ => {}
    }
}

fn written(segments: &Segments<'_>, at: usize, fill: bool) -> Vec<u8> {
    let mut out = vec![0xee; segments.length(at)];
    segments.write(at, fill, &mut out);
    out
}

fn whole(segments: &Segments<'_>, header: Header, packet: &[u8], ip: &Packet) {
    assert_eq!((segments.count(), segments.length(0)), (1, packet.len()));
    for fill in [false, true] {
        let out = written(segments, 0, fill);
        let field = usize::from(header.csum_start) + usize::from(header.csum_offset);
        let touched = match header.needs_checksum() {
            true => field - 14..field - 12,
            false => 0..0,
        };
        for (at, (before, after)) in packet.iter().zip(&out).enumerate() {
            assert!(
                before == after || touched.contains(&at),
                "byte {at} was changed"
            );
        }
        if fill && segments.leaves_checksum() {
            // The field came with the sum of the pseudo-header, or garbage: the sum over the rest says which.
            let seeded = ones_sum(&packet[ip.transport..]);
            let made = u16::from_be_bytes([out[touched.start], out[touched.start + 1]]);
            assert!(made == !seeded || made == 0xffff && !seeded == 0 && ip.protocol == UDP);
        }
    }
}

fn split(segments: &Segments<'_>, header: Header, packet: &[u8], ip: &Packet) {
    assert_eq!(ip.fragment, Fragment::Whole);
    let minimum = if ip.protocol == TCP { 20 } else { 8 };
    let headers = match ip.protocol {
        TCP => ip.transport + usize::from(packet[ip.transport + 12] >> 4) * 4,
        _ => ip.transport + 8,
    };
    assert!(headers >= ip.transport + minimum && headers <= packet.len());
    let mut payload = Vec::new();
    let count = segments.count();
    for at in 0..count {
        let out = written(segments, at, true);
        assert!(out.len() <= segments.largest());
        let parsed = Packet::parse(&out).expect("a segment is a packet");
        assert_eq!(
            (parsed.source, parsed.destination),
            (ip.source, ip.destination)
        );
        assert_eq!(
            (parsed.protocol, parsed.transport),
            (ip.protocol, ip.transport)
        );
        let ends = |bytes: &[u8]| Shape::of(bytes).expect("a packet").ends;
        assert_eq!(ends(&out), ends(packet));
        assert!(
            checksum_is_right(&out, ip.transport, ip.protocol),
            "segment {at}: transport checksum"
        );
        if packet[0] >> 4 == 4 {
            assert_eq!(
                ones_sum(&out[..usize::from(out[0] & 15) * 4]),
                0xffff,
                "segment {at}: header checksum"
            );
        }
        let data = &out[headers..];
        let full = usize::from(header.gso_size);
        assert!(data.len() == full || at + 1 == count && data.len() <= full);
        transport(at, count, payload.len(), packet, &out, ip);
        payload.extend_from_slice(data);
        let mut left = written(segments, at, false);
        let pseudo = left.clone();
        assert!(fill_checksum(&mut left, &parsed));
        assert_eq!(
            left, out,
            "segment {at}: made here or by the receiver's kernel"
        );
        let field = ip.transport + if ip.protocol == TCP { 16 } else { 6 };
        let sum = super::packet::pseudo_sum(&out, ip.transport, ip.protocol);
        assert_eq!(
            pseudo[field..field + 2],
            sum.to_be_bytes(),
            "the pseudo-header's sum is left"
        );
    }
    assert_eq!(payload, packet[headers..], "the parts are the whole");
}

/// Sequence numbers, flags and lengths as RFC 9293 and RFC 768 want them of each part.
fn transport(at: usize, count: usize, before: usize, packet: &[u8], out: &[u8], ip: &Packet) {
    let (whole, part) = (&packet[ip.transport..], &out[ip.transport..]);
    if ip.protocol == UDP {
        assert_eq!(
            usize::from(u16::from_be_bytes([part[4], part[5]])),
            part.len()
        );
        return;
    }
    let number = |bytes: &[u8]| u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    let ahead = u32::try_from(before).expect("a frame is below 64 KiB");
    assert_eq!(
        number(part),
        number(whole).wrapping_add(ahead),
        "sequence number"
    );
    let last = if at + 1 == count { 0xff } else { !0x09 };
    let first = if at == 0 { 0xff } else { !0x80 };
    assert_eq!(
        part[13],
        whole[13] & last & first,
        "FIN and PSH on the last, CWR on the first"
    );
}
