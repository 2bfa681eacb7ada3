//! Every offload can be missing: what the kernel does not do is done here, and every byte is right.

use anyhow::{Context as _, Result, ensure};
use hawser_tests::integrity::{Bursts, Flow, PODS, learn_path_mtu, one_by_one, run_flows};
use hawser_tests::lab::{Family, Lab};
use hawser_tests::leak::Chance;
use hawser_tests::say;
use hawser_tunnel::offload::Offload;
use std::time::Duration;

/// How long a connection may stand still.
const PATIENCE: Duration = Duration::from_secs(10);
const READY: Duration = Duration::from_secs(20);

/// Starts every tunnel anew without these offloads, and looks at what its status says.
fn do_without(lab: &mut Lab, offloads: &[Offload]) -> Result<()> {
    for node in lab.nodes_mut() {
        node.set_without(offloads);
        node.restart_keeper()?;
    }
    lab.wait_ready(READY)?;
    for node in lab.nodes() {
        let status = node.status()?;
        for offload in Offload::ALL {
            let standing = &status["offloads"][offload.name()];
            // A super-frame always leaves its checksums to be made.
            let needs_sums = matches!(offload, Offload::TapTcp | Offload::TapUdp);
            let off = offloads.contains(&offload)
                || needs_sums && offloads.contains(&Offload::TapChecksum);
            let expected = if off { "switched-off" } else { "used" };
            ensure!(
                standing == expected,
                "{}: {offload} is {standing} and not {expected}",
                node.name()
            );
        }
    }
    Ok(())
}

/// Whole connections both ways, and bursts of datagrams that kernels may cut and join.
fn every_byte_is_right(lab: &Lab, chance: &mut Chance) -> Result<u64> {
    let seed = chance.below(u64::MAX);
    let flows = Flow::many(lab, 6, 8 << 20, chance);
    let report = run_flows(lab, &flows, seed, PATIENCE)?;
    let [from, to] = PODS;
    for family in Family::BOTH {
        let bursts = Bursts {
            lab,
            from,
            to,
            family,
            sizes: &[1, 100, 999, 1200],
            joined: true,
            seed,
        };
        bursts.run()?;
    }
    Ok(report.bytes)
}

#[test]
fn without_any_offload_and_without_each_every_byte_is_right() -> Result<()> {
    let mut lab = Lab::running(one_by_one())?;
    learn_path_mtu(&lab, PODS)?;
    let mut chance = Chance::from_environment();
    let mut sets: Vec<Vec<Offload>> = Offload::ALL.iter().map(|&one| vec![one]).collect();
    sets.push(Offload::ALL.to_vec());
    for without in sets {
        let names: Vec<&str> = without.iter().map(|offload| offload.name()).collect();
        let names = names.join(", ");
        do_without(&mut lab, &without).with_context(|| format!("without {names}"))?;
        let bytes =
            every_byte_is_right(&lab, &mut chance).with_context(|| format!("without {names}"))?;
        say(format_args!("without {names}: {bytes} bytes"));
    }
    Ok(())
}

#[test]
fn with_checksums_filled_in_before_they_are_sealed_every_byte_is_right() -> Result<()> {
    let mut lab = Lab::new(one_by_one())?;
    lab.configure()?;
    for node in lab.nodes_mut() {
        node.edit_config(|config| config.tunnel.checksums = Some("filled".to_owned()))?;
        node.start_keeper()?;
        node.start_agent()?;
    }
    lab.wait_ready(READY)?;
    learn_path_mtu(&lab, PODS)?;
    let bytes = every_byte_is_right(&lab, &mut Chance::from_environment())?;
    say(format_args!("checksums filled in: {bytes} bytes"));
    Ok(())
}
