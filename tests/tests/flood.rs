//! A flood of handshakes: whoever is there stays there, and an honest newcomer gets in (T3, F33, F35).

use anyhow::{Context as _, Result, ensure};
use hawser_tests::depth::rounds;
use hawser_tests::lab::{Lab, Topology, wait_until};
use hawser_tests::say;
use hawser_tests::traffic::{Flood, FloodKind, FloodSpec, LoadSpec, SequenceLoad};
use hawser_tunnel::reject::Reject;
use std::fs;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
/// Handshakes a second.
const RATE: u32 = 50_000;
const SOURCES: u32 = 100_000;
/// Packets a second of the pods that are there already, all pairs together.
const LOAD: u32 = 2_000;
/// An honest newcomer is in within this time.
const NEWCOMER: Duration = Duration::from_secs(2);
/// What a flood may cost in memory, in KiB (F33).
const MEMORY: u64 = 4 << 10;

/// Resident memory of the data plane, in KiB.
fn memory(lab: &Lab, node: &str) -> Result<u64> {
    let pid = lab.node(node).data_plane_pid().context("no data plane")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(number.context("no VmRSS")?.parse()?)
}

fn flood(kind: FloodKind, refused: Reject) -> Result<()> {
    let mut lab = Lab::running(Topology::two_by_two())?;
    // The newcomer, later.
    let newcomer = lab.node_mut("west-2");
    newcomer.stop_agent()?;
    newcomer.stop_keeper()?;
    let pairs = lab.cross_pairs(None);
    let pairs = pairs
        .into_iter()
        .filter(|pair| {
            ["east-1", "west-1"]
                .iter()
                .any(|node| pair.from.starts_with(node))
        })
        .filter(|pair| {
            ["east-1", "west-1"]
                .iter()
                .any(|node| pair.to.starts_with(node))
        });
    let spec = LoadSpec {
        pairs: pairs.collect(),
        rate: LOAD,
        size: 200,
    };
    let load = SequenceLoad::start(&lab, spec)?;
    wait_until("the load to flow", PATIENCE, || Ok(load.received() > 1_000))?;
    let (before, unread, bytes) = (
        lab.node("east-1").dropped(refused)?,
        lab.node("east-1").unread()?,
        memory(&lab, "east-1")?,
    );
    let spec = FloodSpec {
        kind,
        rate: RATE,
        sources: SOURCES,
        seed: 1,
    };
    let start = Instant::now();
    let flood = Flood::start(&lab, "east-1", spec)?;
    let on = u64::from(RATE) * u64::from(rounds(2, 20));
    wait_until(
        "the flood to be on",
        4 * PATIENCE,
        || Ok(flood.sent() >= on),
    )?;

    // Counted from when it can send: starting a process on a busy machine is not what this is about.
    lab.node_mut("west-2").start_keeper()?;
    let started = Instant::now();
    let peer = lab.node("west-2").public_key()?;
    wait_until("the newcomer to be in", PATIENCE, || {
        let status = lab.node("east-1").status()?;
        let peers = status["peers"].as_array().context("no peers")?;
        let mut lanes = peers
            .iter()
            .flat_map(|peer| peer["lanes"].as_array())
            .flatten();
        let lane = lanes.find(|lane| lane["publicKey"].as_str() == Some(&peer));
        Ok(!lane.context("no such peer")?["handshakeAgeMs"].is_null())
    })?;
    let took = started.elapsed();
    lab.node_mut("west-2").start_agent()?;
    wait_until("some more flood", 4 * PATIENCE, || {
        Ok(flood.sent() >= on + u64::from(RATE))
    })?;
    let rate = flood.sent() as f64 / start.elapsed().as_secs_f64();
    let sent = flood.stop()?;
    let report = load.stop()?;
    let dropped = lab.node("east-1").dropped(refused)? - before;
    let unread = lab.node("east-1").unread()? - unread;
    let grown = memory(&lab, "east-1")?.saturating_sub(bytes);
    say(format_args!(
        "{sent} of {kind:?} at {rate:.0}/s: {dropped} {refused}, {unread} not read; newcomer in after {} ms; load {} of {} lost, p99 {} us; {grown} KiB more",
        took.as_millis(),
        report.lost,
        report.sent,
        report.latency.p99.as_micros()
    ));
    say(format_args!("{:?}", lab.node("east-1").counters()?.drops));
    ensure!(
        rate >= f64::from(RATE) * 0.9,
        "the flood was only {rate:.0} a second"
    );
    ensure!(
        took <= NEWCOMER,
        "the newcomer was in after {} ms",
        took.as_millis()
    );
    ensure!(
        report.lost * 1_000 <= report.sent,
        "more than 0.1 % lost: {report:?}"
    );
    // On a machine that is slow the kernel throws some away before anybody has looked at them.
    let read = sent.saturating_sub(unread);
    ensure!(
        dropped * 2 >= read,
        "of {sent}, of which {read} were read, only {dropped} were refused as {refused}"
    );
    ensure!(grown <= MEMORY, "the data plane grew by {grown} KiB");
    Ok(())
}

#[test]
fn initiations_from_everywhere_disturb_nobody() -> Result<()> {
    flood(FloodKind::Initiations, Reject::WgUnderLoad)
}

#[test]
fn garbage_from_everywhere_disturbs_nobody() -> Result<()> {
    flood(FloodKind::Garbage, Reject::WgMac1)
}
