//! New keys are made while the old ones serve: nothing is lost beyond what the link loses (F27, F29).

use anyhow::{Context as _, Result, ensure};
use hawser_tests::depth::{is_soak, rounds};
use hawser_tests::lab::{Family, Lab, Pair, Topology, wait_until};
use hawser_tests::say;
use hawser_tests::traffic::{LoadReport, LoadSpec, SequenceLoad};
use hawser_tests::wire::{Direction, Kind, Tally};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
const SEED: u64 = 3;
/// Packets a second, both ways together: enough that a fifth of a percent of a run is many.
const RATE: u32 = 6_000;
/// Between two rekeys. An attempt whose messages are lost is repeated after five seconds, or by the
/// next rekey.
const PAUSE: Duration = Duration::from_millis(250);
/// Twice WireGuard's REKEY_AFTER_TIME and some.
const TWO_REKEYS: Duration = Duration::from_secs(250);

fn both_ways() -> Vec<Pair> {
    let pair = |from: &str, to: &str| Pair {
        from: from.to_owned(),
        to: to.to_owned(),
        family: Family::V4,
    };
    vec![pair("east-1-a", "west-1-a"), pair("west-1-a", "east-1-a")]
}

/// What became of the data messages of a lossy link, both ways together.
fn data(lab: &Lab) -> Result<Tally> {
    Ok(lab
        .wire("east-1")?
        .counts()?
        .kind(Direction::Both, Kind::Data))
}

/// Every packet that was lost is one that the wire lost.
fn check(report: &LoadReport, wire: &Tally) -> Result<()> {
    let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64 * 100.0;
    let (lost, link) = (
        share(report.lost, report.sent),
        share(wire.lost, wire.frames),
    );
    say(format_args!(
        "sent {}, lost {} ({lost:.2} %); the wire lost {} of {} ({link:.2} %); longest gap {} ms",
        report.sent,
        report.lost,
        wire.lost,
        wire.frames,
        report.longest_gap.as_millis()
    ));
    ensure!(
        report.lost <= wire.lost,
        "{} lost beyond the link: {report:?}",
        report.lost - wire.lost
    );
    ensure!(
        (lost - link).abs() <= 0.2,
        "the link lost {link:.2} %, the load {lost:.2} %"
    );
    ensure!(
        (link - 5.0).abs() <= 0.5,
        "the link was to lose 5 % and lost {link:.2} %"
    );
    ensure!(
        report.duplicated == 0 && report.corrupted == 0,
        "{report:?}"
    );
    Ok(())
}

fn lossy_lab() -> Result<Lab> {
    let lab = Lab::running(Topology::two_by_two().wired(SEED))?;
    lab.wire("east-1")?.impair(Direction::Both, "loss 5%")?;
    lab.wire("east-1")?.rewind(None)?;
    Ok(lab)
}

#[test]
fn forced_rekeys_on_a_lossy_link_lose_nothing_beyond_its_loss() -> Result<()> {
    let lab = lossy_lab()?;
    let (east, west) = (lab.node("east-1"), lab.node("west-1"));
    let before = east.handshakes()?;
    let spec = LoadSpec {
        pairs: both_ways(),
        rate: RATE,
        size: 200,
    };
    let load = SequenceLoad::start(&lab, spec)?;
    let count = rounds(30, 100);
    for round in 0..count {
        // From one side, from the other, and from both at once.
        if round % 3 != 1 {
            east.rekey()?;
        }
        if round % 3 != 0 {
            west.rekey()?;
        }
        let due = Instant::now() + PAUSE;
        wait_until("the pause to pass", PATIENCE, || Ok(Instant::now() >= due))?;
    }
    let report = load.stop()?;
    let made = east.handshakes()? - before;
    say(format_args!(
        "{count} rounds, {made} handshakes of east-1 with its peers"
    ));
    ensure!(
        made >= u64::from(count),
        "only {made} new sessions in {count} rounds"
    );
    check(&report, &data(&lab)?)
}

/// By WireGuard's own clock. In a soak only: simulated time shows the same every day
/// (tunnel/tests/sim_day.rs), and stock peers go through it in every run (stock_rekey.rs).
#[test]
fn rekeys_by_time_on_a_lossy_link_lose_nothing_beyond_its_loss() -> Result<()> {
    let lab = lossy_lab()?;
    let spec = LoadSpec {
        pairs: both_ways(),
        rate: RATE,
        size: 200,
    };
    let load = SequenceLoad::start(&lab, spec)?;
    let lasts = if is_soak() {
        TWO_REKEYS
    } else {
        Duration::from_secs(5)
    };
    let end = Instant::now() + lasts;
    let before = lab.node("east-1").handshakes()?;
    wait_until("the time to pass", lasts + PATIENCE, || {
        Ok(Instant::now() >= end)
    })?;
    let report = load.stop()?;
    let made = lab
        .node("east-1")
        .handshakes()?
        .checked_sub(before)
        .context("counts only grow")?;
    ensure!(
        !is_soak() || made >= 2,
        "{made} handshakes in {} s",
        lasts.as_secs()
    );
    check(&report, &data(&lab)?)
}
