//! The data plane restarts, by crash and by plan, while everybody sends: nobody notices (F3, F4, F5).

use anyhow::{Context as _, Result, ensure};
use hawser_tests::depth::rounds;
use hawser_tests::lab::{Family, Lab, Pair, Topology, wait_until};
use hawser_tests::say;
use hawser_tests::traffic::{Connections, LoadReport, LoadSpec, SequenceLoad};
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
/// No packet for so long is the most that a restart may cost.
const LONGEST_GAP: Duration = Duration::from_millis(300);
/// The same when the keeper is killed as well and has to be started again.
const LONGEST_KEEPER_GAP: Duration = Duration::from_secs(1);
/// Packets a second, each way.
const RATE: u32 = 1_000;
const CONNECTIONS: usize = 200;
/// After a restart the load goes on, so that a gap has an end.
const AFTER: Duration = Duration::from_millis(1_500);

fn pair(from: &str, to: &str) -> Pair {
    Pair {
        from: from.to_owned(),
        to: to.to_owned(),
        family: Family::V4,
    }
}

fn both_ways() -> Vec<Pair> {
    vec![pair("east-1-a", "west-1-a"), pair("west-1-a", "east-1-a")]
}

/// Runs a load around `fault`; returns what became of it.
fn under_load(
    lab: &mut Lab,
    pairs: Vec<Pair>,
    fault: impl FnOnce(&mut Lab) -> Result<()>,
) -> Result<LoadReport> {
    let rate = RATE * u32::try_from(pairs.len())?;
    let spec = LoadSpec {
        pairs,
        rate,
        size: 200,
    };
    let load = SequenceLoad::start(lab, spec)?;
    let flowing = u64::from(rate) / 4;
    wait_until("the load to flow", PATIENCE, || {
        Ok(load.received() >= flowing)
    })?;
    fault(lab)?;
    let sent = load.sent() + u64::try_from(AFTER.as_millis())? * u64::from(rate) / 1_000;
    wait_until("the load to go on", PATIENCE, || Ok(load.sent() >= sent))?;
    load.stop()
}

fn crash(lab: &Lab, node: &str) -> Result<()> {
    let old = lab.node(node).data_plane_pid().context("no data plane")?;
    lab.node(node).kill_data_plane()?;
    wait_until("another data plane", PATIENCE, || {
        let pid = lab.node(node).data_plane_pid();
        Ok(pid.is_some_and(|pid| pid != old))
    })
}

/// An upgrade to a new program file.
fn upgrade(lab: &Lab, node: &str) -> Result<()> {
    let program = lab.node(node).upgrade_tunnel()?;
    lab.node(node).renew_data_plane()?;
    let pid = lab.node(node).data_plane_pid().context("no data plane")?;
    let (runs, file) = (
        std::fs::metadata(format!("/proc/{pid}/exe"))?.ino(),
        std::fs::metadata(&program)?.ino(),
    );
    ensure!(
        runs == file,
        "the data plane runs another program than {}",
        program.display()
    );
    Ok(())
}

/// One line a round, for whoever reads the figures.
fn figures(what: &str, round: u32, report: &LoadReport) {
    let LoadReport {
        sent,
        lost,
        duplicated,
        reordered,
        longest_gap,
        latency,
        ..
    } = report;
    say(format_args!(
        "{what} {round}: longest gap {} ms, of {sent} sent {lost} lost, {duplicated} twice, {reordered} reordered, p99 {} us",
        longest_gap.as_millis(),
        latency.p99.as_micros()
    ));
}

fn lab_that_is_upgraded_in_place() -> Result<Lab> {
    let mut lab = Lab::new(Topology::two_by_two())?;
    for node in lab.nodes() {
        // A program file of its own, so that a test can put another in its place.
        node.upgrade_tunnel()?;
    }
    lab.start()?;
    lab.wait_ready(PATIENCE)?;
    Ok(lab)
}

#[test]
fn fifty_restarts_under_load_reset_nothing_and_are_short() -> Result<()> {
    let mut lab = lab_that_is_upgraded_in_place()?;
    let every = Duration::from_secs(1);
    let connections = Connections::open(&lab, &both_ways(), CONNECTIONS, every)?;
    let mut worst = Duration::ZERO;
    let nodes = ["east-1", "west-1"].into_iter().cycle();
    for (round, node) in (1..=rounds(3, 25)).zip(nodes) {
        let report = under_load(&mut lab, both_ways(), |lab| crash(lab, node))?;
        figures("crash", round, &report);
        ensure!(
            report.longest_gap <= LONGEST_GAP,
            "crash {round} of {node}: {report:?}"
        );
        worst = worst.max(report.longest_gap);

        let report = under_load(&mut lab, both_ways(), |lab| upgrade(lab, node))?;
        figures("upgrade", round, &report);
        ensure!(
            report.longest_gap <= LONGEST_GAP,
            "upgrade {round} of {node}: {report:?}"
        );
        report
            .check()
            .with_context(|| format!("upgrade {round} of {node}"))?;
        worst = worst.max(report.longest_gap);
    }
    let report = connections.close()?;
    say(format_args!(
        "worst gap {} ms; {report:?}",
        worst.as_millis()
    ));
    report.check()
}

#[test]
fn a_restart_without_an_agent_is_as_short() -> Result<()> {
    let mut lab = lab_that_is_upgraded_in_place()?;
    let every = Duration::from_secs(1);
    let connections = Connections::open(&lab, &both_ways(), CONNECTIONS, every)?;
    lab.node_mut("east-1").kill_agent()?;
    for round in 1..=rounds(2, 10) {
        let report = under_load(&mut lab, both_ways(), |lab| crash(lab, "east-1"))?;
        figures("crash without agent", round, &report);
        ensure!(
            report.longest_gap <= LONGEST_GAP,
            "round {round}: {report:?}"
        );
        let report = under_load(&mut lab, both_ways(), |lab| upgrade(lab, "east-1"))?;
        figures("upgrade without agent", round, &report);
        report.check()?;
    }
    connections.close()?.check()
}

#[test]
fn a_restart_while_only_the_far_side_sends_is_as_short() -> Result<()> {
    let mut lab = lab_that_is_upgraded_in_place()?;
    let far = || vec![pair("west-1-a", "east-1-a")];
    for round in 1..=rounds(2, 10) {
        let report = under_load(&mut lab, far(), |lab| crash(lab, "east-1"))?;
        figures("crash of a listener", round, &report);
        ensure!(
            report.longest_gap <= LONGEST_GAP,
            "round {round}: {report:?}"
        );
        let report = under_load(&mut lab, far(), |lab| upgrade(lab, "east-1"))?;
        figures("upgrade of a listener", round, &report);
        report.check()?;
    }
    Ok(())
}

#[test]
fn keeper_and_data_plane_killed_together_are_back_within_a_second() -> Result<()> {
    let mut lab = Lab::running(Topology::two_by_two())?;
    let every = Duration::from_secs(1);
    let connections = Connections::open(&lab, &both_ways(), CONNECTIONS, every)?;
    for round in 1..=rounds(2, 20) {
        let node = if round % 2 == 0 { "east-1" } else { "west-1" };
        let report = under_load(&mut lab, both_ways(), |lab| {
            let node = lab.node_mut(node);
            node.kill_data_plane()?;
            node.kill_keeper()?;
            node.start_keeper()
        })?;
        figures("keeper and data plane", round, &report);
        ensure!(
            report.longest_gap <= LONGEST_KEEPER_GAP,
            "round {round}: {report:?}"
        );
    }
    connections.close()?.check()
}

/// A session that is made during a handover must be the successor's, or it ends with its maker.
#[test]
fn an_upgrade_while_everybody_rekeys_loses_nothing() -> Result<()> {
    let lab = lab_that_is_upgraded_in_place()?;
    for round in 1..=rounds(2, 20) {
        let spec = LoadSpec {
            pairs: both_ways(),
            rate: 2 * RATE,
            size: 200,
        };
        let load = SequenceLoad::start(&lab, spec)?;
        let flowing = u64::from(RATE) / 2;
        wait_until("the load to flow", PATIENCE, || {
            Ok(load.received() >= flowing)
        })?;
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| -> Result<()> {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // While one hands over it hangs up on whoever wants new keys.
                    lab.node("east-1").rekey().ok();
                    lab.node("west-1").rekey().ok();
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
            let upgraded = upgrade(&lab, "east-1");
            done.store(true, Ordering::Relaxed);
            upgraded
        })?;
        let sent = load.sent() + u64::from(2 * RATE);
        wait_until("the load to go on", PATIENCE, || Ok(load.sent() >= sent))?;
        let report = load.stop()?;
        figures("upgrade among rekeys", round, &report);
        report.check().with_context(|| format!("round {round}"))?;
    }
    Ok(())
}

/// Whatever becomes of the successor, the data plane that runs goes on.
#[test]
fn a_broken_upgrade_leaves_the_old_data_plane_at_work() -> Result<()> {
    let mut lab = lab_that_is_upgraded_in_place()?;
    let program = lab.node("east-1").upgrade_tunnel()?;
    let old = lab.node("east-1").data_plane_pid();
    for (what, bytes) in [
        ("a program that ends at once", &b"#!/bin/false\n"[..]),
        ("no program at all", &b"\x7fELF and nothing"[..]),
    ] {
        let report = under_load(&mut lab, both_ways(), |lab| {
            let draft = program.with_extension("draft");
            std::fs::copy(&program, &draft)?;
            std::fs::write(&draft, bytes)?;
            std::fs::rename(&draft, &program)?;
            let before = lab.node("east-1").keeper_log().lines().count();
            let keeper = lab.node("east-1").keeper_pid().context("no keeper")?;
            hawser_tests::io::send_signal(keeper, nix::sys::signal::Signal::SIGHUP)?;
            wait_until(
                "the keeper to say that the old one goes on",
                PATIENCE,
                || {
                    let log = lab.node("east-1").keeper_log();
                    let said = |line: &str| line.contains("data plane goes on");
                    Ok(log.lines().skip(before).any(said))
                },
            )
        })?;
        figures(what, 1, &report);
        report.check().context(what)?;
        ensure!(
            lab.node("east-1").data_plane_pid() == old,
            "{what}: another data plane runs"
        );
    }
    // The next one is good: the same keeper upgrades as ever.
    std::fs::copy(hawser_tests::lab::binary("hawser-tunnel")?, &program)?;
    let start = Instant::now();
    let report = under_load(&mut lab, both_ways(), |lab| {
        lab.node("east-1").renew_data_plane()
    })?;
    say(format_args!(
        "handed over after {} ms",
        start.elapsed().as_millis()
    ));
    report.check()
}
