//! Every byte right of other protocols than TCP and UDP, and of what TCP's first segment says.

use anyhow::{Context as _, Result, ensure};
use hawser_tests::integrity::{
    PODS, Raw, Segment, Stream, Superframe, ip_packet, learn_path_mtu, one_by_one, path_mtu,
};
use hawser_tests::lab::{Family, Lab};
use hawser_tests::leak::Chance;
use hawser_tests::say;
use hawser_tests::traffic::Ping;
use std::time::Duration;

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
