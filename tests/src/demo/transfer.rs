//! iperf3 between the clusters while hubs and agents die and come back.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::figures::{Figures, Transfer};
use super::progress::Progress;
use super::{READY, first_pod, follow};
use crate::lab::{Family, Lab, Pair, wait_until};
use crate::traffic::{Iperf, IperfReport};

/// Seconds of each transfer.
const SECONDS: u32 = 4;
/// What the receiver must have counted before anything is done to hubs and agents.
const UNDER_WAY: u64 = 1_000_000;

/// Two transfers: one in which every hub and agent is killed, one that begins without them and sees them come back. In
/// between, packets are counted.
pub(super) fn run<W: Write>(
    lab: &mut Lab,
    progress: &mut Progress<'_, W>,
    figures: &mut Figures,
) -> Result<()> {
    progress
        .step("iperf3 from east-1 to west-1 by IPv4; every hub and every agent is killed by SIGKILL meanwhile")?;
    let during = "every hub and every agent killed by SIGKILL";
    let transfer = one(lab, Family::V4, during, |lab| {
        lab.hubs_mut().iter_mut().try_for_each(|hub| hub.kill())?;
        lab.nodes_mut().iter_mut().try_for_each(|n| n.kill_agent())
    });
    note(figures, transfer);
    let alive = lab
        .nodes()
        .iter()
        .filter(|node| node.agent_pid().is_some())
        .count();
    if alive > 0 {
        figures
            .problems
            .push(format!("{alive} agents were still alive after SIGKILL"));
    }

    follow::alone(lab, progress, figures)?;

    progress.step(
        "iperf3 from east-1 to west-1 by IPv6, begun without hubs and agents; they are started again meanwhile",
    )?;
    let during = "begun without hubs and agents, which were started again";
    let transfer = one(lab, Family::V6, during, |lab| {
        lab.hubs_mut().iter_mut().try_for_each(|hub| hub.start())?;
        lab.nodes_mut().iter_mut().try_for_each(|n| n.start_agent())
    });
    note(figures, transfer);
    lab.wait_ready(READY).context("after the agents came back")
}

fn note(figures: &mut Figures, transfer: Result<Transfer>) {
    match transfer {
        Ok(transfer) => {
            if transfer.slowest <= 0.0 {
                let Pair { family, .. } = &transfer.pair;
                figures.problems.push(format!(
                    "the {family} transfer stood still while {}",
                    transfer.during
                ));
            }
            figures.transfers.push(transfer);
        }
        Err(error) => figures.problems.push(format!("iperf3: {error:#}")),
    }
}

fn one(
    lab: &mut Lab,
    family: Family,
    during: &str,
    event: impl FnOnce(&mut Lab) -> Result<()>,
) -> Result<Transfer> {
    let (from, to) = (
        first_pod(lab, "east-1")?.clone(),
        first_pod(lab, "west-1")?.clone(),
    );
    let address = to.address(family).context("no address")?;
    let mut run = Iperf::new(address, SECONDS).start(to.netns(), from.netns())?;
    let before = received(&to)?;
    let wait = Duration::from_secs(5);
    wait_until("the transfer is under way", wait, || {
        Ok(received(&to)? > before + UNDER_WAY || !run.is_running())
    })?;
    let happened = event(lab);
    let report = run.finish()?;
    happened?;
    let pair = Pair {
        from: from.name().to_owned(),
        to: to.name().to_owned(),
        family,
    };
    Ok(Transfer {
        pair,
        during: during.to_owned(),
        bits_per_second: report.bits_per_second,
        retransmits: report.retransmits,
        slowest: slowest(&report),
    })
}

/// Bytes that have come to a pod's link.
fn received(pod: &crate::lab::Pod) -> Result<u64> {
    let text = pod
        .netns()
        .output("cat", &["/sys/class/net/eth0/statistics/rx_bytes"])?;
    text.trim()
        .parse()
        .context("the kernel's byte counter is no number")
}

/// The slowest interval of a report. An interval of iperf3 is a second; the last one may be a short rest.
fn slowest(report: &IperfReport) -> f64 {
    let intervals = report.json.get("intervals").and_then(Value::as_array);
    let rates = intervals.into_iter().flatten().filter_map(|interval| {
        let seconds = interval.pointer("/sum/seconds").and_then(Value::as_f64)?;
        let rate = interval
            .pointer("/sum/bits_per_second")
            .and_then(Value::as_f64)?;
        (seconds > 0.1).then_some(rate)
    });
    rates.min_by(f64::total_cmp).unwrap_or_default()
}

/// Prints the throughput.
pub(super) fn print<W: Write>(progress: &mut Progress<'_, W>, figures: &Figures) -> Result<()> {
    progress.text("\nThroughput (iperf3, one TCP stream, pod to pod across clusters, this machine's cores shared by all):")?;
    for Transfer {
        pair,
        during,
        bits_per_second,
        retransmits,
        slowest,
    } in &figures.transfers
    {
        progress.text(&format!(
            "  {} > {} {}: {:.2} Gbit/s, slowest interval {:.2} Gbit/s, {retransmits} retransmits ({during})",
            pair.from,
            pair.to,
            pair.family,
            bits_per_second / 1e9,
            slowest / 1e9
        ))?;
    }
    Ok(())
}
