//! Every byte right on underlays of odd MTUs and both families, whatever the devices on the way cut, join and sum.

use anyhow::{Context as _, Result};
use hawser_tests::depth::is_soak;
use hawser_tests::integrity::{
    Bursts, Datagrams, Flow, Offloads, PODS, Pace, VARIANTS, Variant, Writes, learn_path_mtu,
    one_by_one, path_mtu, run_flows,
};
use hawser_tests::lab::{Family, Lab};
use hawser_tests::leak::Chance;
use hawser_tests::say;
use std::time::{Duration, Instant};

/// How long a connection may stand still.
const PATIENCE: Duration = Duration::from_secs(10);
/// Smallest, odd, usual, just beside it, and large.
const MTUS: [u32; 8] = [1280, 1281, 1337, 1499, 1500, 2000, 8999, 9000];

/// Takes `count` of them by chance.
fn some<T: Copy>(all: &[T], count: usize, chance: &mut Chance) -> Result<Vec<T>> {
    let mut all = all.to_vec();
    let mut taken = Vec::new();
    while taken.len() < count && !all.is_empty() {
        let at = usize::try_from(chance.below(all.len().try_into()?))?;
        taken.push(all.swap_remove(at));
    }
    Ok(taken)
}

/// A little of everything, both families and ways.
fn mix(lab: &Lab, chance: &mut Chance) -> Result<()> {
    let seed = chance.below(u64::MAX);
    let flows = Flow::many(lab, 4, 2 << 20, chance);
    run_flows(lab, &flows, seed, PATIENCE)?;
    for family in Family::BOTH {
        let headers = if family == Family::V4 { 28 } else { 48 };
        let mtu = path_mtu(lab, family);
        let most = mtu - headers;
        let mut sizes = vec![1, 2, 3, most - 1, most, most + 1, 2 * most, 65_000];
        for _ in 0..30 {
            sizes.push(1 + usize::try_from(chance.below(65_000))?);
            sizes.push(1 + usize::try_from(chance.below(u64::try_from(2 * mtu)?))?);
        }
        let mut bursts = vec![1, 2, 3, most - 1, most];
        for _ in 0..8 {
            bursts.push(1 + usize::try_from(chance.below(u64::try_from(most)?))?);
        }
        for [from, to] in [PODS, [PODS[1], PODS[0]]] {
            let datagrams = Datagrams {
                lab,
                from,
                to,
                family,
                sizes: &sizes,
                seed,
                pace: Pace::Window(8),
            };
            datagrams.run()?;
            let bursts = Bursts {
                lab,
                from,
                to,
                family,
                sizes: &bursts,
                joined: chance.below(2) == 1,
                seed,
            };
            bursts.run()?;
        }
        let [from, to] = PODS;
        let writes = Writes {
            lab,
            from,
            to,
            family,
            sizes: &sizes,
            seed,
        };
        writes.run()?;
    }
    Ok(())
}

fn try_all(lab: &Lab, variants: &[Variant], chance: &mut Chance) -> Result<()> {
    let underlay = &lab.topology().underlay;
    let seed = chance.seed();
    for variant in variants {
        let what = || {
            let (family, mtu) = (underlay.family, underlay.mtu);
            format!("{variant}, underlay {family} of {mtu}, HAWSER_SEED={seed}")
        };
        let begin = Instant::now();
        let offloads = Offloads::apply(lab, variant).with_context(what)?;
        let changes = offloads.changes();
        mix(lab, chance).with_context(what)?;
        offloads.undo().with_context(what)?;
        say(format_args!(
            "{}: {changes} changes, {} ms",
            what(),
            begin.elapsed().as_millis()
        ));
    }
    Ok(())
}

#[test]
fn every_byte_is_right_whatever_the_devices_on_the_way_do() -> Result<()> {
    let mut chance = Chance::from_environment();
    let families: &[Family] = if is_soak() {
        &Family::BOTH
    } else {
        &[Family::V4]
    };
    for family in families {
        let lab = Lab::running(one_by_one().with_underlay(*family, 1500))?;
        learn_path_mtu(&lab, PODS)?;
        try_all(&lab, VARIANTS, &mut chance)?;
    }
    Ok(())
}

#[test]
fn every_byte_is_right_on_underlays_of_odd_mtus() -> Result<()> {
    let mut chance = Chance::from_environment();
    let all: Vec<(Family, u32)> = Family::BOTH
        .into_iter()
        .flat_map(|family| MTUS.map(|mtu| (family, mtu)))
        .collect();
    let (underlays, variants) = if is_soak() {
        (all.len(), VARIANTS.len())
    } else {
        (4, 2)
    };
    for (family, mtu) in some(&all, underlays, &mut chance)? {
        let lab = Lab::running(one_by_one().with_underlay(family, mtu))?;
        learn_path_mtu(&lab, PODS)?;
        let variants = some(VARIANTS, variants, &mut chance)?;
        try_all(&lab, &variants, &mut chance)?;
    }
    Ok(())
}
