//! Late is not old: a message may be thousands behind the newest and is still taken, once (F30).

use anyhow::{Context as _, Result, ensure};
use hawser_tests::depth::rounds;
use hawser_tests::lab::{Family, Lab, Pair, Topology, wait_until};
use hawser_tests::say;
use hawser_tests::traffic::{LoadReport, LoadSpec, SequenceLoad};
use hawser_tests::wire::{Direction, Kind, Way};
use hawser_tunnel::reject::Reject;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
const SEED: u64 = 30;
/// Packets a second: 8,000 of them pass in less than a second, well within the hold.
const RATE: u32 = 12_000;
/// How far behind the newest a message may come.
const DEPTH: u32 = 8_000;

/// What a load came to while its link reordered.
struct Outcome {
    report: LoadReport,
    /// The most messages that overtook one.
    deepest: u32,
    /// Messages that were held back.
    held: usize,
    /// Messages that were refused as replays.
    refused: u64,
}

/// Sends from west-1 to east-1 for some seconds while east-1's wire reorders what comes in.
fn reordered(impairment: &str, seconds: u32) -> Result<Outcome> {
    let topology = Topology::parse(
        "clusters: [{name: east, id: 1, nodes: 1, pods: 1}, {name: west, id: 2, nodes: 1, pods: 1}]",
    )?;
    let lab = Lab::running(topology.wired(SEED))?;
    let wire = lab.wire("east-1")?;
    let refused = || lab.node("east-1").dropped(Reject::WgReplay);
    let before = refused()?;
    wire.impair(Direction::In, impairment)?;
    wire.rewind(None)?;
    let pair = Pair {
        from: "west-1-a".to_owned(),
        to: "east-1-a".to_owned(),
        family: Family::V4,
    };
    let spec = LoadSpec {
        pairs: vec![pair],
        rate: RATE,
        size: 200,
    };
    let load = SequenceLoad::start(&lab, spec)?;
    let end = Instant::now() + Duration::from_secs(seconds.into());
    wait_until("the time to pass", PATIENCE * 10, || {
        Ok(Instant::now() >= end)
    })?;
    let report = load.stop()?;
    let lines = wire.log()?;
    let held = lines.iter().filter(|line| {
        line.way == Way::In && line.kind == Kind::Data && line.fate.delayed_past.is_some()
    });
    let depths: Vec<u32> = held.filter_map(|line| line.fate.delayed_past).collect();
    let outcome = Outcome {
        report,
        deepest: depths.iter().copied().max().context("nothing was held")?,
        held: depths.len(),
        refused: refused()? - before,
    };
    say(format_args!(
        "{impairment}: {} sent, {} lost, {} doubled; {} held back, the deepest for {} others; {} refused as replays",
        outcome.report.sent,
        outcome.report.lost,
        outcome.report.duplicated,
        outcome.held,
        outcome.deepest,
        outcome.refused
    ));
    Ok(outcome)
}

#[test]
fn messages_that_thousands_have_overtaken_are_taken() -> Result<()> {
    let found = reordered(&format!("reorder 2% depth {DEPTH} hold 2s"), rounds(5, 60))?;
    ensure!(
        found.deepest >= DEPTH * 95 / 100,
        "the wire went only {} deep",
        found.deepest
    );
    ensure!(found.report.reordered > 0, "nothing was reordered");
    ensure!(
        found.refused == 0,
        "{} messages were taken for replays",
        found.refused
    );
    found.report.check()
}

/// The window ends somewhere, and the test above would notice: what comes later than it reaches is refused by name.
#[test]
fn what_comes_later_than_the_window_reaches_is_refused_as_a_replay() -> Result<()> {
    let found = reordered("reorder 2% depth 20000 hold 4s", 5)?;
    ensure!(found.refused > 0, "nothing was refused");
    ensure!(
        found.report.lost == found.refused + found.report.receiver_drops,
        "{} refused, but {:?}",
        found.refused,
        found.report
    );
    Ok(())
}
