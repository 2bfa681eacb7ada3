//! Nodes with several lanes: bytes, order, and what holds when the two ends do not have as many.

use anyhow::{Context as _, Result, ensure};
use hawser_tests::depth::rounds;
use hawser_tests::integrity::{Flow, run_flows};
use hawser_tests::lab::{Family, Lab, Topology, wait_until};
use hawser_tests::leak::Chance;
use hawser_tests::say;
use hawser_tests::traffic::{Connections, Iperf, LoadReport, LoadSpec, SequenceLoad};
use serde_json::Value;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
/// Packets a second of all pairs together.
const RATE: u32 = 20_000;

fn lab(lanes: &[u8]) -> Result<Lab> {
    Lab::running(Topology::two_by_two().with_lanes(lanes))
}

/// How many pairs of lanes of a node carried packets.
fn used(lab: &Lab, node: &str) -> Result<usize> {
    let status = lab.node(node).status()?;
    let peers = status["peers"].as_array().context("no peers")?;
    let lanes = peers
        .iter()
        .filter_map(|peer| peer["lanes"].as_array())
        .flatten();
    let carried = |lane: &&Value| lane["txPackets"].as_u64().is_some_and(|count| count > 0);
    Ok(lanes.filter(carried).count())
}

/// Numbered packets between all pods, until `count` have arrived.
fn load(lab: &Lab, count: u64) -> Result<LoadReport> {
    let load = SequenceLoad::start(lab, LoadSpec::all_pairs(lab, RATE))?;
    wait_until("packets to arrive", PATIENCE, || {
        Ok(load.received() >= count)
    })?;
    load.stop()
}

fn check(lab: &Lab, report: &LoadReport) -> Result<()> {
    report.check().with_context(|| lab.account())?;
    ensure!(report.reordered == 0, "{report}\n{}", lab.account());
    Ok(())
}

#[test]
fn sixteen_lanes_carry_every_byte_and_no_packet_overtakes_another_of_its_flow() -> Result<()> {
    let lab = lab(&[16])?;
    let sniffer = lab.sniffer()?;
    let mut chance = Chance::from_environment();
    for _ in 0..rounds(1, 20) {
        let seed = chance.below(u64::MAX);
        let flows = Flow::many(&lab, 32, 5 << 20, &mut chance);
        let report = run_flows(&lab, &flows, seed, PATIENCE)?;
        say(format_args!(
            "seed {seed}: {} flows, {} bytes in {} ms",
            report.flows,
            report.bytes,
            report.took.as_millis()
        ));
    }
    let report = load(&lab, u64::from(rounds(60_000, 2_000_000)))?;
    let used = used(&lab, "east-1")?;
    say(format_args!(
        "{report}; {used} pairs of lanes of one node carried some"
    ));
    ensure!(used > 16, "only {used} pairs of lanes carried packets");
    check(&lab, &report)?;
    sniffer.stop()?.check()
}

#[test]
fn nodes_with_different_numbers_of_lanes_understand_each_other() -> Result<()> {
    for lanes in [[4, 1], [3, 2]] {
        let lab = lab(&lanes)?;
        let report = load(&lab, 20_000)?;
        say(format_args!("{lanes:?} lanes: {report}"));
        check(&lab, &report)?;
        let used = used(&lab, "east-1")?;
        ensure!(used > 3, "only {used} pairs of lanes carried packets");
    }
    Ok(())
}

/// Has the west know one lane of each peer, whatever they have.
fn forget_lanes(lab: &Lab) -> Result<()> {
    for name in ["west-1", "west-2"] {
        lab.node(name).edit_config(|config| {
            for peer in &mut config.peers {
                peer.lanes.truncate(1);
            }
        })?;
    }
    wait_until("the west knows one lane of each peer", PATIENCE, || {
        let status = lab.node("west-1").status()?;
        let peers = status["peers"].as_array().context("no peers")?;
        let known = |peer: &Value| peer["lanes"].as_array().map(Vec::len) == Some(1);
        Ok(peers.iter().all(known))
    })
}

/// Control tells the two ends one after the other: who knows of a lane that the other does not know goes by another.
#[test]
fn a_lane_that_the_peer_does_not_know_yet_costs_no_packet() -> Result<()> {
    let lab = lab(&[4, 1])?;
    forget_lanes(&lab)?;
    let report = load(&lab, 60_000)?;
    say(format_args!("{report}"));
    report.check().with_context(|| lab.account())
}

/// The other way round: what one end gave up the other uses on, until the session of the lane wants to be renewed (in a
/// soak) and nobody answers.
#[test]
fn a_lane_that_the_peer_gave_up_in_use_costs_no_packet() -> Result<()> {
    let lab = lab(&[4, 1])?;
    let load = SequenceLoad::start(&lab, LoadSpec::all_pairs(&lab, 4_000))?;
    let on = |seconds: u32| {
        let goal = load.received() + u64::from(seconds) * 4_000;
        let time = Duration::from_secs(seconds.into()) + PATIENCE;
        wait_until("packets to go on", time, || Ok(load.received() >= goal))
    };
    on(1)?;
    forget_lanes(&lab)?;
    on(rounds(15, 200))?;
    let report = load.stop()?;
    say(format_args!("{report}"));
    report.check().with_context(|| lab.account())
}

#[test]
fn an_upgrade_with_several_lanes_loses_nothing() -> Result<()> {
    let mut lab = lab(&[4])?;
    let load = SequenceLoad::start(&lab, LoadSpec::all_pairs(&lab, 4_000))?;
    let on = |load: &SequenceLoad| {
        let goal = load.received() + 2_000;
        wait_until("packets go on", PATIENCE, || Ok(load.received() >= goal))
    };
    on(&load)?;
    for _ in 0..rounds(2, 25) {
        for name in ["east-1", "west-2"] {
            lab.node_mut(name).upgrade_tunnel()?;
            lab.node(name).renew_data_plane()?;
            on(&load)?;
        }
    }
    let report = load.stop()?;
    say(format_args!("{report}"));
    report.check().with_context(|| lab.account())
}

/// Packets that a node has sent by each of its lanes to the only peer.
fn sent(lab: &Lab, node: &str) -> Result<Vec<u64>> {
    let status = lab.node(node).status()?;
    let pairs = status["peers"][0]["lanes"].as_array();
    let packets = |pair: &Value| pair["txPackets"].as_u64().context("no count");
    pairs.context("no lanes")?.iter().map(packets).collect()
}

fn open_lanes(lab: &Lab, node: &str) -> Result<u64> {
    let lanes = &lab.node(node).status()?["lanes"];
    ensure!(lanes["all"] == 4, "{lanes}");
    lanes["open"].as_u64().context("no number of open lanes")
}

#[test]
fn lanes_open_under_load_and_close_without() -> Result<()> {
    let clusters = "{name: east, id: 1, nodes: 1, pods: 1, lanes: 4}, {name: west, id: 2, nodes: 1, pods: 1, lanes: 4}";
    let mut lab = Lab::new(Topology::parse(&format!("clusters: [{clusters}]"))?)?;
    for node in lab.nodes_mut() {
        node.set_open_lanes(1);
    }
    lab.start()?;
    lab.wait_ready(PATIENCE)?;
    let most = u64::try_from(std::thread::available_parallelism()?.get())?.min(4);
    ensure!(most > 1, "with one processor there is nothing to open");

    // Every flow of these pauses between two requests, and might change its lane there.
    let connections =
        Connections::open(&lab, &lab.cross_pairs(None), 64, Duration::from_millis(100))?;
    let answered = |count: u64| {
        let goal = connections.answers() + count;
        wait_until("requests are answered", PATIENCE, || {
            Ok(connections.answers() >= goal)
        })
    };
    answered(2_000)?;
    for name in ["east-1", "west-1"] {
        let (open, sent) = (open_lanes(&lab, name)?, sent(&lab, name)?);
        ensure!(open == 1, "{name}: {open} lanes are open without load");
        ensure!(
            sent[0] > 0 && sent[1..].iter().all(|count| *count == 0),
            "{name}: {sent:?} by lane with one open"
        );
    }

    let pods = ["east-1-a", "west-1-a"].map(|name| lab.pod(name));
    let to = pods[1].address(Family::V4).context("no address")?;
    let iperf = |port| {
        let iperf = Iperf::new(to, 6).port(port).streams(8);
        iperf.start(pods[1].netns(), pods[0].netns())
    };
    let first = iperf(5201)?;
    let begun = Instant::now();
    wait_until("lanes open under load", Duration::from_secs(5), || {
        Ok(open_lanes(&lab, "east-1")? == most)
    })?;
    let opened = begun.elapsed();
    // Flows that carry stay where they are; these begin now.
    let second = iperf(5202)?;
    let bulk = 20_000;
    wait_until("packets go by every open lane", PATIENCE, || {
        let sent = sent(&lab, "east-1")?;
        Ok(sent.iter().filter(|count| **count > bulk).count() as u64 >= most)
    })?;
    // Connections that were reset make these fail.
    for report in [first.finish()?, second.finish()?] {
        say(format_args!("{:.1} Mbit/s", report.bits_per_second / 1e6));
    }
    let ended = Instant::now();
    wait_until("lanes close without load", Duration::from_secs(60), || {
        Ok(open_lanes(&lab, "east-1")? == 1)
    })?;
    let closed = ended.elapsed();

    answered(1_000)?;
    let before = sent(&lab, "east-1")?;
    answered(2_000)?;
    let after = sent(&lab, "east-1")?;
    ensure!(
        after[0] > before[0] && after[1..] == before[1..],
        "{before:?} by lane, then {after:?}, with one open"
    );
    connections.close()?.check()?;
    say(format_args!(
        "{most} lanes open after {} ms of load, 1 after {} ms without; {after:?} packets by lane",
        opened.as_millis(),
        closed.as_millis()
    ));
    Ok(())
}
