//! A node that loses power comes back by itself, with nobody to ask, and never in clear (F16, I1).

use anyhow::{Result, ensure};
use hawser_tests::depth::rounds;
use hawser_tests::lab::{Family, Lab, Pair, Topology, wait_until};
use hawser_tests::say;
use hawser_tests::traffic::{LoadSpec, SequenceLoad};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
/// Back within this time of its start.
const BACK: Duration = Duration::from_secs(2);
const RATE: u32 = 1_000;

#[test]
fn a_node_that_lost_power_is_back_within_two_seconds_of_its_start() -> Result<()> {
    let mut lab = Lab::running(Topology::two_by_two())?;
    // Everything else that could help is away: the others' agents too. Their data planes carry on.
    for node in ["east-2", "west-1", "west-2"] {
        lab.node_mut(node).kill_agent()?;
    }
    let pair = |from: &str, to: &str| Pair {
        from: from.to_owned(),
        to: to.to_owned(),
        family: Family::V4,
    };
    for round in 1..=rounds(3, 20) {
        lab.reboot("east-1")?;
        let sniffer = lab.sniffer()?;
        // Its pods and the others' send from the first moment, with nothing there to protect them but
        // what the others' guards do.
        let load = |pairs| {
            let spec = LoadSpec {
                pairs,
                rate: RATE,
                size: 200,
            };
            SequenceLoad::start(&lab, spec)
        };
        let inward = load(vec![pair("west-1-a", "east-1-a")])?;
        let start = Instant::now();
        let node = lab.node_mut("east-1");
        node.start_keeper()?;
        node.start_agent()?;
        wait_until("packets from afar", PATIENCE, || Ok(inward.received() > 0))?;
        let inward_back = start.elapsed();
        let outward = load_both(&lab)?;
        wait_until("packets both ways", PATIENCE, || {
            Ok(outward.received() > 100)
        })?;
        let all_back = start.elapsed();
        lab.node("east-1").wait_ready(3, PATIENCE)?;
        outward.stop()?;
        let report = inward.stop()?;
        say(format_args!(
            "reboot {round}: first packet from afar after {} ms, both ways after {} ms; longest gap afterwards {} ms",
            inward_back.as_millis(),
            all_back.as_millis(),
            report.longest_gap.as_millis()
        ));
        ensure!(
            inward_back <= BACK,
            "round {round}: {} ms",
            inward_back.as_millis()
        );
        ensure!(
            all_back <= BACK,
            "round {round}: {} ms",
            all_back.as_millis()
        );
        sniffer.stop()?.check()?;
    }
    Ok(())
}

fn load_both(lab: &Lab) -> Result<SequenceLoad> {
    let pairs = lab.cross_pairs(None).into_iter();
    let pairs =
        pairs.filter(|pair| pair.from.starts_with("east-1") || pair.to.starts_with("east-1"));
    let pairs = pairs.filter(|pair| pair.to != "east-1-a");
    let spec = LoadSpec {
        pairs: pairs.collect(),
        rate: RATE,
        size: 200,
    };
    SequenceLoad::start(lab, spec)
}
