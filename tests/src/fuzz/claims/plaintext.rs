//! What a peer may put into a message: honest, or false in any place.

use crate::fuzz::packet::{make, ones_sum};
use crate::fuzz::source::Source;
use crate::fuzz::world::INBOUND;

/// Longer pod packets reach no other state.
const MOST_PAYLOAD: usize = 1300;

/// UDP and Geneve around a pod packet; all zeros make an honest one of 1/1.
pub(super) fn datagram(source: &mut Source<'_>) -> Vec<u8> {
    let made = make(source, &INBOUND, MOST_PAYLOAD);
    let mut options = Vec::new();
    for _ in 0..source.pick(&[0, 0, 0, 0, 1, 3]) {
        let words: u8 = source.pick(&[1, 0, 2, 31]);
        options.extend(source.pick(&[[0x01, 0x02, 0x01], [0xff, 0x48, 0x02], [0x01, 0x02, 0x81]]));
        options.push(words);
        options.resize(options.len() + usize::from(words) * 4, 0);
    }
    for _ in 0..source.pick(&[1, 1, 1, 1, 1, 1, 0, 2]) {
        options.extend([0xff, 0x48, 0x01, source.pick(&[2, 2, 2, 2, 2, 1])]);
        options.extend(source.pick(&[1_u16, 1, 1, 1, 0, 2, 3, 0x801]).to_be_bytes());
        options.extend(source.pick(&[0_u16, 1, 2, 0xffff]).to_be_bytes());
        options.extend(
            source
                .pick(&[1000_u32, 1, 1001, 2, 0, 255, 2000, 0x0fff_ffff, 0x1000_03e8])
                .to_be_bytes(),
        );
    }
    let version: u16 = if made.bytes.first().is_some_and(|byte| byte >> 4 == 6) {
        0x86dd
    } else {
        0x0800
    };
    let words = u8::try_from(options.len() / 4).unwrap_or(u8::MAX);
    let words = source.pick(&[words, words, words, words, words, words, words, 63, 0]);
    let mut geneve = vec![
        source.pick(&[0, 0, 0, 0, 0, 0x40]) | words & 0x3f,
        source.pick(&[0, 0, 0, 0x40, 0x80]),
    ];
    geneve.extend(
        source
            .pick(&[version, version, version, version, 0x0800, 0x6558])
            .to_be_bytes(),
    );
    geneve.extend(source.pick(&[[0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 2], [1, 0, 1]]));
    geneve.push(source.pick(&[0, 0, 1]));
    geneve.extend(options);
    geneve.extend(made.bytes);
    let length = u16::try_from(geneve.len() + 8).unwrap_or(u16::MAX);
    let mut datagram = source.any::<u16>().to_be_bytes().to_vec();
    datagram.extend(
        source
            .pick(&[6081_u16, 6081, 6081, 6081, 6081, 6080])
            .to_be_bytes(),
    );
    datagram.extend(
        source
            .pick(&[length, length, length, length, length.wrapping_sub(1), 0])
            .to_be_bytes(),
    );
    datagram.extend(source.array::<2>());
    datagram.extend(geneve);
    datagram
}

/// The overlay packets of one datagram: whole, two halves in either order, one of them, or nothing of the kind.
pub(super) fn plaintexts(source: &mut Source<'_>) -> Vec<Vec<u8>> {
    let kind = source.pick(&[0, 0, 1, 2, 3, 4, 5]);
    if kind == 5 {
        return vec![source.bytes(200).to_vec()];
    }
    let ends = [
        source.pick(&[
            [240, 1, 0, 1],
            [240, 1, 0, 1],
            [240, 3, 0, 1],
            [240, 3, 0, 1],
            [240, 1, 0, 2],
            [10, 1, 1, 1],
        ]),
        source.pick(&[
            [240, 2, 0, 1],
            [240, 2, 0, 1],
            [240, 2, 0, 1],
            [240, 2, 0, 1],
            [240, 2, 0, 2],
        ]),
    ];
    let datagram = datagram(source);
    let id = source.pick(&[7_u16, 8, 9]);
    if kind == 0 {
        return vec![overlay(
            source,
            ends,
            id,
            fragment_field(0, false),
            &datagram,
        )];
    }
    let cut = source
        .pick(&[datagram.len() / 16 * 8, 8, 1224, 1232])
        .min(datagram.len() / 8 * 8);
    let shift = source.pick(&[0, 0, 0, 0, 8, 1]);
    let (one, two) = datagram.split_at(cut);
    let one = overlay(source, ends, id, fragment_field(0, true), one);
    let last = source.pick(&[false, false, false, true]);
    let two = overlay(source, ends, id, fragment_field(cut / 8 + shift, last), two);
    match kind {
        1 => vec![one, two],
        2 => vec![two, one],
        3 => vec![one],
        _ => vec![two],
    }
}

fn fragment_field(offset: usize, more: bool) -> u16 {
    u16::try_from(offset & 0x1fff).unwrap_or_default() | u16::from(more) << 13
}

fn overlay(
    source: &mut Source<'_>,
    ends: [[u8; 4]; 2],
    id: u16,
    fragment: u16,
    data: &[u8],
) -> Vec<u8> {
    let length = u16::try_from(data.len() + 20).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend(id.to_be_bytes());
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, source.pick(&[17, 17, 17, 17, 17, 6])]);
    packet.extend([0, 0]);
    packet.extend(ends.concat());
    let sum = !ones_sum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(data);
    // Padding as any sender may add it, cut or extended.
    let padded = packet.len().next_multiple_of(source.pick(&[16, 1, 64]));
    packet.resize(padded, 0);
    if source.once_in(16) {
        let at = source.below(packet.len());
        packet[at] = source.any();
    }
    packet
}
