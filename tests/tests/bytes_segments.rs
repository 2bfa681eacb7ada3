//! Every byte right of packets that pods' kernels would never send, or hide when they come: TCP segments with all flags
//! and options, super-frames, wrong checksums, other protocols. Whatever is joined on the way must be what a network
//! card may join: taken apart again it is the same list.

use anyhow::{Context as _, Result, ensure};
use hawser_tests::depth::rounds;
use hawser_tests::integrity::{
    PODS, Raw, Segment, Stream, Superframe, ip_packet, learn_path_mtu, one_by_one, path_mtu,
};
use hawser_tests::lab::{Family, Lab};
use hawser_tests::leak::Chance;
use hawser_tests::say;
use hawser_tests::traffic::Ping;
use std::net::IpAddr;
use std::time::Duration;

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

#[test]
fn segments_of_all_kinds_come_as_the_same_list() -> Result<()> {
    let lab = Lab::running(one_by_one())?;
    let raw = Raw::open(&lab, PODS[0], PODS[1])?;
    let mut chance = Chance::from_environment();
    for family in Family::BOTH {
        let (mut packets, mut frames) = (0, 0);
        for round in 0..rounds(20, 2_000) {
            let sent = segments(raw.ends(family)?, path_mtu(&lab, family), &mut chance);
            let arrived = raw.check(&sent);
            let seed = chance.seed();
            let arrived =
                arrived.with_context(|| format!("{family}, round {round}, HAWSER_SEED={seed}"))?;
            packets += arrived.packets.len();
            frames += arrived.frames;
        }
        say(format_args!(
            "{family}: {packets} segments in {frames} frames"
        ));
    }
    Ok(())
}

#[test]
fn superframes_come_as_the_packets_that_they_stand_for() -> Result<()> {
    let lab = Lab::running(one_by_one())?;
    let raw = Raw::open(&lab, PODS[0], PODS[1])?;
    let mut chance = Chance::from_environment();
    for family in Family::BOTH {
        let (mut packets, mut frames) = (0, 0);
        for round in 0..rounds(20, 2_000) {
            let sent = superframes(raw.ends(family)?, path_mtu(&lab, family), &mut chance)?;
            let arrived = raw.check(&sent);
            let seed = chance.seed();
            let arrived =
                arrived.with_context(|| format!("{family}, round {round}, HAWSER_SEED={seed}"))?;
            packets += arrived.packets.len();
            frames += arrived.frames;
        }
        say(format_args!(
            "{family}: {packets} packets in {frames} frames"
        ));
    }
    Ok(())
}

#[test]
fn packets_of_other_protocols_come_as_they_were_sent() -> Result<()> {
    let lab = Lab::running(one_by_one())?;
    learn_path_mtu(&lab, PODS)?;
    for (family, headers) in [(Family::V4, 28), (Family::V6, 48)] {
        let [from, to] = PODS.map(|name| lab.pod(name));
        let to = to.address(family).context("no such address")?;
        for size in [path_mtu(&lab, family) - headers, 10_000, 60_000] {
            let ping = Ping::new(to)
                .size(size)
                .count(3)
                .deadline(Duration::from_secs(3));
            let report = ping.run(from.netns())?;
            let whole = report.is_complete() && !report.output.contains("wrong data");
            ensure!(whole, "ping of {size} bytes to {to}: {}", report.output);
        }
    }
    let raw = Raw::open(&lab, PODS[0], PODS[1])?;
    let seed = Chance::from_environment().seed();
    for family in Family::BOTH {
        let ends = raw.ends(family)?;
        let headers = if family == Family::V4 { 20 } else { 40 };
        let most = path_mtu(&lab, family) - headers;
        let mut frames = Vec::new();
        let mut bodies = 0;
        let mut body = |length: usize| {
            bodies += 1;
            let mut body = vec![0; length];
            Stream::new(seed, bodies).fill(&mut body);
            body
        };
        // IP in IP, IPv6 in IP, GRE, ESP, OSPF, SCTP, UDP-Lite, and one for experiments (RFC 3692). Their checksums,
        // where they have any, are by chance.
        for protocol in [4, 41, 47, 50, 89, 132, 136, 253] {
            for length in [8, 9, 64, 1_001, most - 1, most] {
                frames.push(ip_packet(ends, protocol, &[], &body(length)));
            }
        }
        // An authentication header is one of IPv6's chain, whose lengths are checked: 12 bytes and 4 of what is inside.
        frames.push(ip_packet(
            ends,
            51,
            &[],
            &[&[253, 1][..], &body(14)].concat(),
        ));
        let echo = [
            &[if family == Family::V4 { 8 } else { 128 }, 0][..],
            &body(most - 2),
        ]
        .concat();
        frames.push(ip_packet(
            ends,
            if family == Family::V4 { 1 } else { 58 },
            &[],
            &echo,
        ));
        // UDP with a wrong checksum, and without one: 0 stays 0.
        for sum in [[0x12, 0x34], [0, 0], [0xff, 0xff]] {
            for length in [0_u16, 1, 100, 1_000] {
                let total = (length + 8).to_be_bytes();
                let header = [0x10, 0x01, 0x10, 0x02, total[0], total[1], sum[0], sum[1]];
                let datagram = [&header[..], &body(length.into())].concat();
                frames.push(ip_packet(ends, 17, &[], &datagram));
            }
        }
        if family == Family::V4 {
            // Options that change nothing.
            frames.push(ip_packet(ends, 253, &[1, 1, 1, 0], &body(300)));
            let tcp = Segment::new(ends, (1, 2), 3, b"data").packet();
            frames.push(ip_packet(ends, 6, &[1, 1, 1, 1, 1, 1, 1, 0], &tcp[20..]));
        } else {
            // Destination options: padding; a later fragment.
            let padding = [59, 0, 1, 4, 0, 0, 0, 0];
            frames.push(ip_packet(
                ends,
                60,
                &[],
                &[&padding[..], &body(99)].concat(),
            ));
            let fragment = [253, 0, 0x10, 0x00, 1, 2, 3, 4];
            frames.push(ip_packet(
                ends,
                44,
                &[],
                &[&fragment[..], &body(99)].concat(),
            ));
        }
        let frames: Vec<Superframe> = frames.into_iter().map(Superframe::complete).collect();
        let arrived = raw
            .check(&frames)
            .with_context(|| format!("{family}, seed {seed}"))?;
        say(format_args!(
            "{family}: {} packets of other protocols",
            arrived.packets.len()
        ));
    }
    Ok(())
}

#[test]
fn a_syn_is_told_the_largest_segment_that_fits_and_keeps_all_else() -> Result<()> {
    let lab = Lab::running(one_by_one())?;
    let raw = Raw::open(&lab, PODS[0], PODS[1])?;
    for family in Family::BOTH {
        let ends = raw.ends(family)?;
        let headers = if family == Family::V4 { 40 } else { 60 };
        let most = u16::try_from(path_mtu(&lab, family) - headers)?;
        let syn = |number: u16, size: u16| {
            let [high, low] = size.to_be_bytes();
            // With SACK permitted, timestamps and window scaling, as kernels send it.
            let options = [
                2, 4, high, low, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7,
            ];
            Segment {
                flags: 0x02,
                options: options.to_vec(),
                ..Segment::new(ends, (9_000 + number, 80), 1, b"")
            }
        };
        for (number, size) in (0..).zip([536, most - 1, most, most + 1, 1_460, 8_960, 65_495]) {
            let arrived = raw.send(&[Superframe::complete(syn(number, size).packet())])?;
            let expected = Segment {
                hops: 62,
                ..syn(number, size.min(most))
            };
            ensure!(
                arrived.packets == [expected.packet()],
                "{family}, {size}: {:02x?} and not {:02x?}",
                arrived.packets,
                expected.packet()
            );
        }
    }
    Ok(())
}
