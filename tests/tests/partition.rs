//! Links that are cut, half cut, or bad: what comes through is right, and what healed flows again (F21-F23, F26, F30).

use anyhow::{Result, ensure};
use hawser_tests::depth::{is_soak, rounds};
use hawser_tests::lab::{Family, Lab, Pair, Topology, wait_until};
use hawser_tests::say;
use hawser_tests::traffic::{LoadReport, LoadSpec, SequenceLoad};
use hawser_tests::wire::{Counts, Direction, Kind, Schedule};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
const RATE: u32 = 1_000;
/// A session outlives a cut of less than REJECT_AFTER_TIME (180 s): packets flow as soon as they can.
const BACK: Duration = Duration::from_secs(1);
/// A longer one has to wait for the next attempt, of which there is one in REKEY_TIMEOUT and its jitter.
const BACK_WITHOUT_SESSION: Duration = Duration::from_millis(6_500);

fn both_ways() -> Vec<Pair> {
    let pair = |from: &str, to: &str| Pair {
        from: from.to_owned(),
        to: to.to_owned(),
        family: Family::V4,
    };
    vec![pair("east-1-a", "west-1-a"), pair("west-1-a", "east-1-a")]
}

fn load(lab: &Lab) -> Result<SequenceLoad> {
    let spec = LoadSpec {
        pairs: both_ways(),
        rate: 2 * RATE,
        size: 200,
    };
    let load = SequenceLoad::start(lab, spec)?;
    let flowing = u64::from(RATE) / 2;
    wait_until("the load to flow", PATIENCE, || {
        Ok(load.received() > flowing)
    })?;
    Ok(load)
}

fn pass(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    wait_until("the time to pass", time + PATIENCE, || {
        Ok(Instant::now() >= end)
    })
}

/// Cuts a direction of east-1's wire for a while, under load; returns how long packets took to flow again.
fn cut(lab: &Lab, direction: Direction, lasts: Duration) -> Result<Duration> {
    let wire = lab.wire("east-1")?;
    let load = load(lab)?;
    wire.cut(direction)?;
    pass(lasts)?;
    wire.clean()?;
    let healed = Instant::now();
    // Both ways at their full rate, which one way alone does not reach.
    let mut seen = (healed, load.received());
    wait_until("packets both ways", PATIENCE, || {
        let (since, before) = seen;
        let took = since.elapsed();
        if took < Duration::from_millis(100) {
            return Ok(false);
        }
        let received = load.received() - before;
        let full = u128::from(2 * RATE) * took.as_millis() / 1_000;
        seen = (Instant::now(), load.received());
        Ok(u128::from(received) * 10 >= full * 9)
    })?;
    let back = healed.elapsed();
    let report = load.stop()?;
    say(format_args!(
        "cut {direction:?} for {} s: flows again {} ms after it healed, {} of {} lost",
        lasts.as_secs(),
        back.as_millis(),
        report.lost,
        report.sent
    ));
    ensure!(report.duplicated + report.corrupted == 0, "{report:?}");
    Ok(back)
}

#[test]
fn what_was_cut_flows_again_as_soon_as_it_heals() -> Result<()> {
    let lab = Lab::running(Topology::two_by_two().wired(1))?;
    let lasts = Duration::from_secs(u64::from(rounds(4, 60)));
    for direction in [Direction::Both, Direction::Out, Direction::In] {
        let back = cut(&lab, direction, lasts)?;
        ensure!(back <= BACK, "{direction:?}: {} ms", back.as_millis());
    }
    if is_soak() {
        // Longer than attempts go on (90 s), than a session lives (180 s), than keys are kept (540 s).
        for seconds in [100, 200, 600] {
            let back = cut(&lab, Direction::Both, Duration::from_secs(seconds))?;
            ensure!(
                back <= BACK_WITHOUT_SESSION,
                "{seconds} s: {} ms",
                back.as_millis()
            );
        }
    }
    Ok(())
}

#[test]
fn a_flapping_link_makes_no_storm_of_handshakes() -> Result<()> {
    let lab = Lab::running(Topology::two_by_two().wired(1))?;
    let wire = lab.wire("east-1")?;
    let load = load(&lab)?;
    wire.rewind(None)?;
    let second = Duration::from_secs(1);
    wire.schedule(&Schedule::flapping(second, second, Direction::Both))?;
    let lasts = rounds(10, 300);
    pass(Duration::from_secs(u64::from(lasts)))?;
    let counts = wire.counts()?;
    wire.clean()?;
    let healed = load.received();
    wait_until("packets", PATIENCE, || {
        Ok(load.received() > healed + u64::from(RATE))
    })?;
    let report = load.stop()?;
    let handshakes = counts.kind(Direction::Both, Kind::Initiation).frames;
    say(format_args!(
        "{lasts} s of flapping: {handshakes} initiations, {} of {} packets came through",
        report.received, report.sent
    ));
    let peers = 3;
    ensure!(
        handshakes <= u64::from(2 * lasts) * peers,
        "{handshakes} initiations in {lasts} s with {peers} peers"
    );
    Ok(())
}

/// Every packet that came in whole and once comes out whole and once.
fn bad(impairment: &str, check: impl FnOnce(&LoadReport, &Counts) -> Result<()>) -> Result<()> {
    let lab = Lab::running(Topology::two_by_two().wired(1))?;
    let wire = lab.wire("east-1")?;
    wire.impair(Direction::Both, impairment)?;
    wire.rewind(None)?;
    let load = load(&lab)?;
    pass(Duration::from_secs(u64::from(rounds(3, 60))))?;
    let report = load.stop()?;
    let counts = wire.counts()?;
    let data = counts.kind(Direction::Both, Kind::Data);
    say(format_args!(
        "{impairment}: of {} sent {} lost, {} reordered, p99 {} ms; the wire lost {}, flipped a bit of {}, doubled {}, delayed {} of {}",
        report.sent,
        report.lost,
        report.reordered,
        report.latency.p99.as_millis(),
        data.lost,
        data.corrupted,
        data.duplicated,
        data.delayed,
        data.frames
    ));
    ensure!(
        report.duplicated == 0 && report.corrupted == 0,
        "{impairment}: {report:?}"
    );
    ensure!(
        report.lost <= data.lost + data.corrupted + data.queue_full,
        "{impairment}: more was lost than the wire lost: {report:?} {data:?}"
    );
    check(&report, &counts)
}

#[test]
fn doubled_and_reordered_packets_come_out_once_each() -> Result<()> {
    bad("duplicate 5% reorder 10% delay 5ms", |report, counts| {
        let data = counts.kind(Direction::Both, Kind::Data);
        ensure!(
            data.duplicated > 0 && data.delayed > 0,
            "the wire did nothing: {data:?}"
        );
        ensure!(
            report.lost == 0,
            "reordered packets were taken for replays: {report:?}"
        );
        Ok(())
    })
}

#[test]
fn flipped_bits_are_never_delivered() -> Result<()> {
    bad("corrupt 5%", |report, counts| {
        let data = counts.kind(Direction::Both, Kind::Data);
        ensure!(data.corrupted > 0, "the wire did nothing: {data:?}");
        // A bit of the outer headers may be flipped without harm to what is inside.
        ensure!(report.lost * 10 >= data.corrupted * 8, "{report:?}");
        Ok(())
    })
}

#[test]
fn heavy_loss_and_jitter_lose_no_more_than_the_link() -> Result<()> {
    bad("loss 20% delay 30ms jitter 20ms", |report, _| {
        ensure!(
            report.reordered == 0,
            "jitter alone does not reorder: {report:?}"
        );
        Ok(())
    })
}
