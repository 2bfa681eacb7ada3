//! All keys of all nodes change, over and over, and nobody loses a packet (F27).

use anyhow::{Result, ensure};
use hawser_tests::depth::rounds;
use hawser_tests::lab::{Lab, Node, Topology, wait_until};
use hawser_tests::say;
use hawser_tests::traffic::{LoadSpec, SequenceLoad};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
/// How long old keys are kept at least: until the new ones are 10 s old and the old ones have been quiet for as long.
const OVER: Duration = Duration::from_secs(60);
/// Packets a second, all pairs together.
const RATE: u32 = 20_000;

/// The pre-shared keys' epochs with each peer.
fn epochs(node: &Node) -> Result<Vec<u64>> {
    let keys = node.keys()?;
    let epochs = keys.values().map(|peer| peer["epoch"].as_u64());
    Ok(epochs.map(Option::unwrap_or_default).collect())
}

fn rotate(node: &Node) -> Result<()> {
    let mut command = node.hawser(&["rotate", "--socket"])?;
    let output = command.arg(node.tunnel_socket()).output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {complaint}", node.name());
    Ok(())
}

#[test]
fn all_keys_of_all_nodes_change_under_load_and_no_packet_is_lost() -> Result<()> {
    let lab = Lab::running(Topology::two_by_two().with_hubs(1).joining())?;
    wait_until("pre-shared keys between all nodes", PATIENCE, || {
        let mut nodes = lab.nodes().iter();
        Ok(nodes.all(|node| node.is_keyed(3).unwrap_or(false)))
    })?;
    let load = SequenceLoad::start(&lab, LoadSpec::all_pairs(&lab, RATE))?;
    let count = rounds(2, 50);
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let start = Instant::now();
    for round in 1..=count {
        let mut before = Vec::new();
        for node in lab.nodes() {
            let keys = node.public_keys()?;
            seen.extend(keys.iter().cloned());
            before.push((keys, epochs(node)?));
        }
        // All at once, which the hourly changes never are.
        for node in lab.nodes() {
            rotate(node)?;
        }
        wait_until("every node has other keys of its own", PATIENCE, || {
            let mut nodes = lab.nodes().iter().zip(&before);
            nodes.try_fold(true, |all, (node, (keys, _))| {
                Ok(all && node.public_keys()? != *keys)
            })
        })?;
        wait_until("and the old ones are forgotten", OVER, || {
            let mut nodes = lab.nodes().iter();
            nodes.try_fold(true, |all, node| {
                Ok(all && node.status()?["keyChange"].is_null())
            })
        })?;
        wait_until("pre-shared keys are bound to the new ones", OVER, || {
            let mut nodes = lab.nodes().iter().zip(&before);
            nodes.try_fold(true, |all, (node, (_, before))| {
                let now = epochs(node)?;
                let newer = now.iter().zip(before).all(|(now, before)| now > before);
                Ok(all && newer && node.is_keyed(3)?)
            })
        })?;
        for node in lab.nodes() {
            let keys = node.public_keys()?;
            ensure!(
                keys.iter().all(|key| !seen.contains(key)),
                "{} has a key of before in round {round}",
                node.name()
            );
        }
    }
    let report = load.stop()?;
    say(format_args!(
        "{count} rotations of all keys of 4 nodes in {:.0?}: {report}",
        start.elapsed()
    ));
    report.check()
}
