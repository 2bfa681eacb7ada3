//! Every byte right: many TCP connections at once, and all sizes of writes, datagrams and bursts of datagrams.

use anyhow::{Result, ensure};
use hawser_tests::depth::is_soak;
use hawser_tests::integrity::{
    Bursts, Datagrams, Flow, PODS, Pace, Writes, learn_path_mtu, one_by_one, path_mtu, run_flows,
};
use hawser_tests::lab::{Family, Lab, Topology};
use hawser_tests::leak::Chance;
use hawser_tests::say;
use std::thread;
use std::time::Duration;

/// How long a connection may stand still.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest write and datagram.
const MOST: usize = 65_000;
/// Both ways, the way back with other bytes.
const WAYS: [([&str; 2], u64); 2] = [(PODS, 0), ([PODS[1], PODS[0]], 1 << 32)];

/// All sizes in a soak, otherwise one of 97, which is prime to all that sizes are multiples of, and the ends.
fn sizes() -> Vec<usize> {
    let step = if is_soak() { 1 } else { 97 };
    (1..=MOST).step_by(step).chain([2, 3, MOST]).collect()
}

#[test]
fn many_flows_both_ways_at_once_have_the_digests_of_what_was_sent() -> Result<()> {
    let lab = Lab::running(Topology::two_by_two())?;
    let mut chance = Chance::from_environment();
    let rounds = if is_soak() { 50 } else { 2 };
    for _ in 0..rounds {
        let seed = chance.below(u64::MAX);
        let flows = Flow::many(&lab, 16, 20 << 20, &mut chance);
        let report = run_flows(&lab, &flows, seed, PATIENCE)?;
        say(format_args!(
            "seed {seed}: {} flows, {} bytes in {} ms",
            report.flows,
            report.bytes,
            report.took.as_millis()
        ));
    }
    Ok(())
}

#[test]
fn every_size_of_a_write_comes_as_it_was_sent_and_at_once() -> Result<()> {
    let lab = Lab::running(one_by_one())?;
    learn_path_mtu(&lab, PODS)?;
    let [from, to] = PODS;
    let seed = Chance::from_environment().seed();
    for family in Family::BOTH {
        let writes = |sizes: &[usize]| {
            let writes = Writes {
                lab: &lab,
                from,
                to,
                family,
                sizes,
                seed,
            };
            writes.run()
        };
        let all = writes(&sizes())?;
        let small = writes(&[1; 300])?;
        say(format_args!(
            "{family}: {} sizes, median {} us, longest {} ms; 1 byte: median {} us, longest {} ms",
            all.writes,
            all.median.as_micros(),
            all.longest.as_millis(),
            small.median.as_micros(),
            small.longest.as_millis()
        ));
        // A push that is held back for more to come, or until an acknowledgement (40 ms), takes far longer.
        ensure!(
            small.median < Duration::from_millis(5),
            "a write of 1 byte takes {:?} at the median",
            small.median
        );
    }
    Ok(())
}

#[test]
fn every_size_of_a_datagram_comes_once_and_as_it_was_sent() -> Result<()> {
    let lab = Lab::running(one_by_one())?;
    learn_path_mtu(&lab, PODS)?;
    let (lab, sizes, seed) = (&lab, &sizes(), Chance::from_environment().seed());
    for family in Family::BOTH {
        thread::scope(|scope| {
            let ways = WAYS.map(|([from, to], other)| {
                scope.spawn(move || {
                    let datagrams = Datagrams {
                        lab,
                        from,
                        to,
                        family,
                        sizes,
                        seed: seed + other,
                        pace: Pace::Window(8),
                    };
                    datagrams.run()
                })
            });
            for way in ways {
                let report = way.join().expect("no panic")?;
                say(format_args!("{family}: {report:?}"));
            }
            anyhow::Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn bursts_of_datagrams_keep_their_bounds_whoever_cuts_and_joins_them() -> Result<()> {
    let lab = Lab::running(one_by_one())?;
    learn_path_mtu(&lab, PODS)?;
    let seed = Chance::from_environment().seed();
    for family in Family::BOTH {
        let headers = if family == Family::V4 { 28 } else { 48 };
        let most = path_mtu(&lab, family) - headers;
        let step = if is_soak() { 1 } else { 37 };
        let sizes: Vec<usize> = [1, 2, 3, 5, 7, 8, 15, 16, 17, most - 1, most]
            .into_iter()
            .chain((9..most).step_by(step))
            .collect();
        for joined in [false, true] {
            for ([from, to], other) in WAYS {
                let bursts = Bursts {
                    lab: &lab,
                    from,
                    to,
                    family,
                    sizes: &sizes,
                    joined,
                    seed: seed + other,
                };
                let report = bursts.run()?;
                ensure!(
                    joined || report.joined == 0,
                    "joined for one who did not ask"
                );
                say(format_args!(
                    "{family} from {from}, GRO {joined}: {} datagrams in {} writes, {} reads gave several",
                    report.datagrams,
                    sizes.len(),
                    report.joined
                ));
            }
        }
    }
    Ok(())
}
