//! Every byte right on wires that lose, reorder, double and corrupt.

use anyhow::{Context as _, Result, ensure};
use hawser_tests::depth::rounds;
use hawser_tests::integrity::{Datagrams, Flow, PODS, Pace, learn_path_mtu, one_by_one, run_flows};
use hawser_tests::lab::{Family, Lab};
use hawser_tests::leak::Chance;
use hawser_tests::say;
use hawser_tests::wire::{Direction, Tally};
use std::thread;
use std::time::Duration;

/// How long a connection may stand still: some retransmissions of the same segment.
const PATIENCE: Duration = Duration::from_secs(30);

/// TCP while datagrams run beside it, with this impairment on the wires of both nodes.
fn impaired(impairment: &str, did: impl Fn(&Tally) -> bool) -> Result<()> {
    let mut chance = Chance::from_environment();
    let lab = Lab::running(one_by_one().wired(chance.seed()))?;
    learn_path_mtu(&lab, PODS)?;
    for wire in lab.wires() {
        wire.impair(Direction::Both, impairment)?;
        wire.rewind(None)?;
    }
    let count = 2_000 * rounds(1, 50);
    let sizes = (0..count).map(|_| 8 + usize::try_from(chance.below(4_000)).unwrap_or(0));
    let sizes: Vec<usize> = sizes.collect();
    let seed = chance.below(u64::MAX >> 1);
    let flows: Vec<Flow> = (0..rounds(3, 60))
        .flat_map(|_| Flow::many(&lab, 8, 8 << 20, &mut chance))
        .zip(0..)
        .map(|(flow, number)| Flow { number, ..flow })
        .collect();
    let what = || format!("{impairment}, HAWSER_SEED={}", chance.seed());
    let (bytes, took, sent, received) = thread::scope(|scope| {
        let ways = Family::BOTH.map(|family| {
            let (lab, sizes) = (&lab, &sizes);
            let [from, to] = if family == Family::V4 {
                PODS
            } else {
                [PODS[1], PODS[0]]
            };
            scope.spawn(move || {
                let datagrams = Datagrams {
                    lab,
                    from,
                    to,
                    family,
                    sizes,
                    seed,
                    pace: Pace::Every(Duration::from_millis(1)),
                };
                datagrams.run()
            })
        });
        let report = flows
            .chunks(8)
            .map(|flows| run_flows(&lab, flows, seed, PATIENCE))
            .try_fold((0, Duration::ZERO), |(bytes, took), report| {
                let report = report?;
                anyhow::Ok((bytes + report.bytes, took + report.took))
            });
        let mut counts = (0, 0);
        for way in ways {
            let report = way.join().expect("no panic").with_context(what)?;
            counts = (counts.0 + report.sent, counts.1 + report.received);
        }
        let (bytes, took) = report.with_context(what)?;
        anyhow::Ok((bytes, took, counts.0, counts.1))
    })?;
    let mut done = Tally::default();
    for wire in lab.wires() {
        done += wire.counts()?.of(Direction::Both);
    }
    say(format_args!(
        "{}: {bytes} bytes of TCP in {} ms, {received} of {sent} datagrams; of {} frames {} lost, {} delayed, {} doubled, {} corrupted",
        what(),
        took.as_millis(),
        done.frames,
        done.lost,
        done.delayed,
        done.duplicated,
        done.corrupted
    ));
    ensure!(did(&done), "{}: the wires did nothing: {done:?}", what());
    ensure!(received > 0, "{}: no datagram arrived", what());
    // Only what loses frames may cost a datagram.
    let harmless = done.lost + done.corrupted + done.queue_full == 0;
    ensure!(
        !harmless || received == sent,
        "{}: {received} of {sent} datagrams arrived, and no wire lost one",
        what()
    );
    Ok(())
}

#[test]
fn loss_changes_no_byte() -> Result<()> {
    impaired("loss 1%", |done| done.lost > 0)
}

#[test]
fn reordering_changes_no_byte_and_loses_nothing() -> Result<()> {
    impaired("reorder 5% depth 10", |done| done.delayed > 0)
}

#[test]
fn duplication_changes_no_byte_and_delivers_nothing_twice() -> Result<()> {
    impaired("duplicate 5%", |done| done.duplicated > 0)
}

#[test]
fn corruption_changes_no_byte() -> Result<()> {
    impaired("corrupt 1%", |done| done.corrupted > 0)
}

#[test]
fn all_of_it_together_changes_no_byte() -> Result<()> {
    impaired("loss 0.5% duplicate 2% reorder 2% corrupt 0.5%", |done| {
        done.lost > 0 && done.delayed > 0 && done.duplicated > 0 && done.corrupted > 0
    })
}
