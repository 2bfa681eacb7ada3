//! Every byte right of packets that pods' kernels would never send, or hide when they come: TCP segments with all flags
//! and options, UDP datagrams, super-frames, wrong checksums. Whatever is joined on the way must be what a network
//! card may join: taken apart again it is the same list.

use anyhow::{Context as _, Result};
use hawser_tests::depth::rounds;
use hawser_tests::integrity::{
    Datagram, PODS, Raw, Segment, Stream, Superframe, ip_packet, one_by_one, path_mtu,
};
use hawser_tests::lab::{Family, Lab};
use hawser_tests::leak::Chance;
use hawser_tests::say;
use std::net::IpAddr;

/// Frames that are sent at once: more than a data plane takes in one go.
const AT_ONCE: u64 = 150;
const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 4];
/// One block.
const SACK: [u8; 12] = [1, 1, 5, 10, 0, 0, 1, 0, 0, 0, 2, 0];

/// Whether it happens this time.
fn one_in(chance: &mut Chance, many: u64) -> bool {
    chance.below(many) == 0
}

fn pick(some: &[u8; 6], chance: &mut Chance) -> u8 {
    some[usize::try_from(chance.below(6)).unwrap_or_default()]
}

fn byte(chance: &mut Chance) -> u8 {
    u8::try_from(chance.below(256)).unwrap_or_default()
}

fn word(chance: &mut Chance) -> u16 {
    u16::try_from(chance.below(65_536)).unwrap_or_default()
}

/// The next segment of a flow, most often as a bulk transfer's next one, so that there is much to join; and now and
/// then with one or two things other than expected, each of which must not be joined over, or must survive it.
fn next(before: &Segment, size: usize, seed: u64, chance: &mut Chance) -> Segment {
    let mut segment = before.clone();
    let length = u32::try_from(before.payload.len()).unwrap_or_default();
    segment.sequence = before.sequence.wrapping_add(length);
    segment.id = before.id.wrapping_add(u16::from(before.ends.0.is_ipv4()));
    segment.flags = 0x10;
    segment.checksum_error = 0;
    segment.urgent = 0;
    let mut length = size;
    for _ in 0..chance.below(10).saturating_sub(7) {
        match chance.below(16) {
            0 => segment.flags |= 0x08,
            1 => segment.flags = byte(chance) & !0x02,
            2 => segment.flags |= pick(&[0x01, 0x04, 0x20, 0x40, 0x80, 0xc0], chance),
            3 => segment.acknowledged = segment.acknowledged.wrapping_add(1_000),
            4 => segment.window = word(chance),
            5 => (segment.urgent, segment.flags) = (word(chance), 0x30),
            6 => segment.options = TIMESTAMPS.to_vec(),
            7 => segment.options = [&TIMESTAMPS[..11], &[byte(chance)]].concat(),
            8 => segment.options = SACK.to_vec(),
            9 => segment.options = Vec::new(),
            10 => segment.class = byte(chance),
            11 => segment.hops = 3 + byte(chance) % 250,
            12 if one_in(chance, 2) => segment.id = before.id,
            12 => segment.id = word(chance),
            13 => segment.whole = !segment.whole,
            14 => segment.sequence = segment.sequence.wrapping_add(u32::from(word(chance))),
            _ => segment.checksum_error = 1 + word(chance) % 0xfffe,
        }
    }
    if one_in(chance, 8) {
        length = usize::from(word(chance)) % (size + 1);
    }
    if one_in(chance, 20) {
        length = 0;
    }
    segment.payload = vec![0; length.min(size - segment.options.len())];
    Stream::new(seed, u64::from(segment.sequence)).fill(&mut segment.payload);
    segment
}

fn segments(ends: (IpAddr, IpAddr), mtu: usize, chance: &mut Chance) -> Vec<Superframe> {
    let size = mtu - if ends.0.is_ipv4() { 40 } else { 60 };
    let seed = chance.below(u64::MAX);
    let mut flows: Vec<Segment> = (0..3)
        .map(|flow| {
            let sequence = u32::try_from(chance.below(1 << 32)).unwrap_or_default();
            let size = [size, 1_000, 100][flow];
            let port = u16::try_from(flow).unwrap_or_default();
            Segment::new(ends, (5_000 + port, 80), sequence, &vec![0; size])
        })
        .collect();
    let mut frames = Vec::new();
    let mut flow = 0;
    for _ in 0..AT_ONCE {
        if one_in(chance, 6) {
            flow = usize::try_from(chance.below(3)).unwrap_or_default();
        }
        flows[flow] = next(&flows[flow], [size, 1_000, 100][flow], seed, chance);
        frames.push(Superframe::complete(flows[flow].packet()));
    }
    frames
}

/// Datagrams of a few flows, most often of one size, and now and then with something other than expected.
fn datagrams(ends: (IpAddr, IpAddr), mtu: usize, chance: &mut Chance) -> Vec<Superframe> {
    let most = mtu - if ends.0.is_ipv4() { 28 } else { 48 };
    let seed = chance.below(u64::MAX);
    let mut flows = [0_u16, 1, 2].map(|flow| {
        (
            Datagram::new(ends, (5_000 + flow, 53), b""),
            [most, 500, 16],
        )
    });
    let mut flow = 0;
    let made = (0..AT_ONCE).map(|number| {
        if one_in(chance, 6) {
            flow = usize::try_from(chance.below(3)).unwrap_or_default();
        }
        let (before, sizes) = &mut flows[flow];
        let mut datagram = before.clone();
        datagram.id = before.id.wrapping_add(u16::from(ends.0.is_ipv4()));
        datagram.checksum_error = 0;
        let mut length = sizes[flow];
        for _ in 0..chance.below(10).saturating_sub(7) {
            match chance.below(9) {
                0 => datagram.id = before.id,
                1 => datagram.id = word(chance),
                2 => datagram.whole = !datagram.whole,
                3 => datagram.class = byte(chance),
                4 => datagram.hops = 3 + byte(chance) % 250,
                5 => length = usize::from(word(chance)) % (most + 1),
                6 => length = 0,
                // UDP without a checksum is only legal over IPv4 (RFC 8200), which concerns the ends alone.
                7 => datagram.has_checksum = !datagram.has_checksum,
                _ => datagram.checksum_error = 1 + word(chance) % 0xfffe,
            }
        }
        datagram.payload = vec![0; length];
        Stream::new(seed, number).fill(&mut datagram.payload);
        *before = datagram;
        Superframe::complete(before.packet())
    });
    made.collect()
}

/// Super-frames of TCP and UDP, and packets without a checksum.
fn superframes(ends: (IpAddr, IpAddr), mtu: usize, chance: &mut Chance) -> Result<Vec<Superframe>> {
    let headers = if ends.0.is_ipv4() { 20 } else { 40 };
    let seed = chance.below(u64::MAX);
    let mut frames = Vec::new();
    for number in 0..AT_ONCE / 10 {
        let mut data = vec![0; 1 + usize::from(word(chance)) % 60_000];
        Stream::new(seed, number).fill(&mut data);
        let most = mtu - headers - 20;
        let size = if one_in(chance, 2) {
            most
        } else {
            600 + usize::from(word(chance)) % (most - 599)
        };
        if one_in(chance, 4) {
            let (from, to) = (6_000_u16, 53_u16);
            let length = u16::try_from(data.len() + 8)?.to_be_bytes();
            let datagram = [
                &from.to_be_bytes()[..],
                &to.to_be_bytes(),
                &length,
                &[0, 0],
                &data,
            ];
            let packet = ip_packet(ends, 17, &[], &datagram.concat());
            // A kernel takes at most 64 datagrams.
            frames.push(Superframe::of(packet, size.max(data.len().div_ceil(60)))?);
            continue;
        }
        let flags = pick(&[0x10, 0x18, 0x19, 0x90, 0xd8, 0x50], chance);
        let port = 7_000 + u16::try_from(number % 3)?;
        let sequence = u32::try_from(chance.below(1 << 32))?;
        let segment = Segment {
            flags,
            id: word(chance),
            class: byte(chance),
            window: word(chance),
            options: if one_in(chance, 2) {
                TIMESTAMPS.to_vec()
            } else {
                Vec::new()
            },
            ..Segment::new(ends, (port, 80), sequence, &data)
        };
        let size = size - segment.options.len();
        let single = data.len() <= size;
        frames.push(Superframe::of(
            segment.packet(),
            if single { 0 } else { size },
        )?);
    }
    Ok(frames)
}

/// Sends many lists, and fails for the first packet that is not as it was sent.
fn rounds_of(
    what: &str,
    make: impl Fn((IpAddr, IpAddr), usize, &mut Chance) -> Result<Vec<Superframe>>,
) -> Result<()> {
    let lab = Lab::running(one_by_one())?;
    let raw = Raw::open(&lab, PODS[0], PODS[1])?;
    let mut chance = Chance::from_environment();
    for family in Family::BOTH {
        let (mut packets, mut frames) = (0, 0);
        for round in 0..rounds(20, 2_000) {
            let sent = make(raw.ends(family)?, path_mtu(&lab, family), &mut chance)?;
            let arrived = raw.check(&sent);
            let seed = chance.seed();
            let arrived =
                arrived.with_context(|| format!("{family}, round {round}, HAWSER_SEED={seed}"))?;
            packets += arrived.packets.len();
            frames += arrived.frames;
        }
        say(format_args!(
            "{family}: {packets} {what} in {frames} frames"
        ));
    }
    Ok(())
}

#[test]
fn segments_of_all_kinds_come_as_the_same_list() -> Result<()> {
    rounds_of("segments", |ends, mtu, chance| {
        Ok(segments(ends, mtu, chance))
    })
}

#[test]
fn datagrams_of_all_kinds_come_as_the_same_list() -> Result<()> {
    rounds_of("datagrams", |ends, mtu, chance| {
        Ok(datagrams(ends, mtu, chance))
    })
}

#[test]
fn superframes_come_as_the_packets_that_they_stand_for() -> Result<()> {
    rounds_of("packets of super-frames", superframes)
}
