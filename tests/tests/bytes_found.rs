//! The other tests of bytes find what they look for: something on the way changes, loses or doubles packets, and each
//! of them says so.

use anyhow::{Context as _, Result, ensure};
use hawser_tests::integrity::{
    Bursts, Datagrams, Flow, PODS, Pace, Raw, Segment, Superframe, Writes, learn_path_mtu,
    one_by_one, run_flows,
};
use hawser_tests::lab::{Family, Lab};
use hawser_tests::say;
use std::time::Duration;

/// How long a connection may stand still.
const PATIENCE: Duration = Duration::from_secs(2);

type Check = fn(&Lab) -> Result<()>;

/// What the sender's node does to packets on their way to the tunnel, what must find it, and what it then says.
const WRONGS: [(&str, Check, &str); 12] = [
    (
        "meta l4proto tcp meta length > 200 @th,512,8 set 0x55",
        flows,
        "is wrong",
    ),
    (
        "meta l4proto tcp meta length > 200 @th,512,8 set 0x55",
        writes,
        "is wrong",
    ),
    (
        "meta l4proto udp meta length > 200 @th,512,8 set 0x55",
        datagrams,
        "is wrong",
    ),
    (
        "meta l4proto udp meta length > 200 @th,72,8 set 0x55",
        datagrams,
        "bytes that say",
    ),
    (
        "meta l4proto udp numgen inc mod 20 == 19 drop",
        datagrams,
        "95 of 100 arrived",
    ),
    (
        "meta l4proto udp numgen inc mod 20 == 19 dup to 10.2.1.10 device hawser0",
        datagrams,
        "came twice",
    ),
    (
        "meta l4proto udp meta length > 200 @th,512,8 set 0x55",
        bursts,
        "is wrong",
    ),
    (
        "meta l4proto udp numgen inc mod 5 == 4 drop",
        bursts,
        "after",
    ),
    ("ip ecn set ce", segments, "differs at byte Some(1)"),
    ("tcp window set 77", segments, "differs at byte Some(34)"),
    (
        "tcp flags & psh == psh tcp flags set ack",
        segments,
        "differs at byte Some(33)",
    ),
    (
        "tcp dport 80 tcp sequence set 0x05000000",
        segments,
        "differs at byte Some(24)",
    ),
];

fn flows(lab: &Lab) -> Result<()> {
    let flow = Flow {
        number: 0,
        from: PODS[0].to_owned(),
        to: PODS[1].to_owned(),
        family: Family::V4,
        there: 100_000,
        back: 100_000,
    };
    run_flows(lab, &[flow], 1, PATIENCE).map(|_| ())
}

fn writes(lab: &Lab) -> Result<()> {
    let writes = Writes {
        lab,
        from: PODS[0],
        to: PODS[1],
        family: Family::V4,
        sizes: &[1, 1_000, 3_000],
        seed: 1,
    };
    writes.run().map(|_| ())
}

fn datagrams(lab: &Lab) -> Result<()> {
    let datagrams = Datagrams {
        lab,
        from: PODS[0],
        to: PODS[1],
        family: Family::V4,
        sizes: &[300; 100],
        seed: 1,
        pace: Pace::Window(8),
    };
    datagrams.run().map(|_| ())
}

fn bursts(lab: &Lab) -> Result<()> {
    let bursts = Bursts {
        lab,
        from: PODS[0],
        to: PODS[1],
        family: Family::V4,
        sizes: &[300; 20],
        joined: true,
        seed: 1,
    };
    bursts.run().map(|_| ())
}

fn segments(lab: &Lab) -> Result<()> {
    let raw = Raw::open(lab, PODS[0], PODS[1])?;
    let ends = raw.ends(Family::V4)?;
    let segment = |number: u16| Segment {
        id: 100 + number,
        flags: 0x18,
        ..Segment::new(ends, (5_000, 80), u32::from(number) * 100, &[9; 100])
    };
    let frames = (0..10).map(|number| Superframe::complete(segment(number).packet()));
    raw.check(&frames.collect::<Vec<_>>()).map(|_| ())
}

#[test]
fn what_is_changed_lost_or_doubled_on_the_way_is_found() -> Result<()> {
    let lab = Lab::running(one_by_one())?;
    learn_path_mtu(&lab, PODS)?;
    let pod = lab.pod(PODS[0]);
    let node = lab.node(pod.node()).netns();
    for (rule, check, expected) in WRONGS {
        check(&lab).with_context(|| format!("before {rule}"))?;
        let table = format!(
            "add table ip wrong\n\
             add chain ip wrong forward {{ type filter hook forward priority -140; }}\n\
             add rule ip wrong forward oifname hawser0 ip daddr {} {rule}",
            lab.pod(PODS[1]).v4()
        );
        node.output("nft", &[&table])?;
        let outcome = check(&lab);
        node.output("nft", &["delete table ip wrong"])?;
        let said = match outcome {
            Ok(()) => String::new(),
            Err(error) => format!("{error:#}")
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
        };
        ensure!(
            said.contains(expected),
            "{rule}: found {said:?} and not {expected:?}"
        );
        say(format_args!(
            "{rule}: {}",
            said.chars().take(150).collect::<String>()
        ));
        // A pod that was made deaf hears again.
        let other = lab.pod(PODS[1]).netns();
        other.output("nft", &["add table inet deaf; delete table inet deaf"])?;
    }
    Ok(())
}
