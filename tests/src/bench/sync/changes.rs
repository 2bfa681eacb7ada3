//! How soon a change is visible far away while many change, and what that costs.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::far::Written;
use super::measurement::{AGENT_CORES, CHANGED, HUB_CORES, MEDIAN, TAIL, TUNNEL_CORES};
use super::site::{LOST, Site};
use crate::bench::meter::{Meter, Usage, processor_time};
use crate::bench::sample::Values;

/// Changes a second, of all clusters together.
pub(super) const RATE: u32 = 325;

pub(super) fn measure(site: &mut Site, seconds: u32) -> Result<(Values, Usage)> {
    site.settle()?;
    measure_busy(site, seconds)
}

/// The same while the agent has something else to do.
pub(super) fn measure_busy(site: &mut Site, seconds: u32) -> Result<(Values, Usage)> {
    let turns = site.next_turns(RATE * seconds)?;
    let processes = [site.agent()?, site.hub()?, site.tunnel()?];
    let watch = site.watch()?;
    let spent = || -> Result<Vec<f64>> { processes.into_iter().map(processor_time).collect() };
    let ((written, costs), usage) = Meter::new(Vec::new()).measure(|| {
        let (tell, told) = mpsc::channel();
        let (before, start) = (spent()?, Instant::now());
        for (number, (cluster, change)) in (0..).zip(turns) {
            let due = start + Duration::from_secs(1) * number / RATE;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            site.far().order(cluster, vec![change], &tell)?;
        }
        drop(tell);
        let written: Vec<Written> = told.into_iter().collect();
        let (after, took) = (spent()?, start.elapsed().as_secs_f64());
        let costs = before.iter().zip(after);
        let costs: Vec<f64> = costs
            .map(|(before, after)| (after - before) / took)
            .collect();
        Ok((written, costs))
    })?;
    let mut latencies = Vec::new();
    for change in &written {
        let seen = watch.wait_for(change, LOST)?;
        latencies.push(seen.saturating_duration_since(change.at).as_secs_f64() * 1e3);
    }
    latencies.sort_by(f64::total_cmp);
    ensure!(!latencies.is_empty(), "nothing changed");
    let (first, last) = (written.first(), written.last());
    let span = first.zip(last).context("nothing changed")?;
    let rate = written.len() as f64 / (span.1.at - span.0.at).as_secs_f64();
    let [agent, hub, tunnel] = costs.try_into().ok().context("not three processes")?;
    let values = [
        (CHANGED, rate),
        (MEDIAN, quantile(&latencies, 50)),
        (TAIL, quantile(&latencies, 99)),
        (AGENT_CORES, agent),
        (HUB_CORES, hub),
        (TUNNEL_CORES, tunnel),
    ];
    Ok((values.into(), usage))
}

/// The least value that so many of a hundred do not exceed.
fn quantile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_value_that_was_measured() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(quantile(&values, 50), 100.0);
        assert_eq!(quantile(&values, 99), 198.0);
        assert_eq!(quantile(&[7.0], 99), 7.0);
    }
}
