//! Who reaches whom: pings between all pods of different nodes, HTTP between the clusters.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use super::at_once;
use super::figures::{Figures, Reach};
use super::progress::Progress;
use crate::lab::{Family, Lab, Pair};
use crate::traffic::{HttpServer, Ping, http};

/// Where the web servers listen.
const PORT: u16 = 80;
/// Times the canary stands in a web page: a good 1 MiB.
const PAGE: usize = 65_536;
/// The longest wait for a page.
const FETCH: Duration = Duration::from_secs(5);

/// Pings all pairs, several at once.
pub(super) fn pings(lab: &Lab, figures: &mut Figures) {
    let pairs = lab.cross_pairs(None);
    figures.pings = at_once(&pairs, |pair| {
        let (from, to) = (lab.pod(&pair.from), lab.pod(&pair.to));
        let ping = to
            .address(pair.family)
            .context("no address")
            .and_then(|address| {
                let report = Ping::new(address)
                    .count(2)
                    .canary(lab.canary())
                    .run(from.netns())?;
                let average = report.average.filter(|_| report.is_complete());
                average.ok_or_else(|| {
                    anyhow!("{} of {} pings came back", report.received, report.sent)
                })
            });
        reach(pair, ping)
    });
    figures.problems.extend(problem(&figures.pings, "pings"));
}

/// Fetches a page from every pod of the other cluster.
pub(super) fn fetches(lab: &Lab, figures: &mut Figures) -> Result<()> {
    let page = lab.canary().repeat(PAGE);
    let servers = lab
        .pods()
        .map(|pod| HttpServer::start(pod.netns(), PORT, page.clone()));
    let servers = servers.collect::<Result<Vec<_>>>()?;
    let mut pairs = lab.cross_pairs(None);
    pairs.retain(|pair| lab.pod(&pair.from).cluster() != lab.pod(&pair.to).cluster());
    figures.fetches = at_once(&pairs, |pair| {
        let (from, to) = (lab.pod(&pair.from), lab.pod(&pair.to));
        let fetch = to
            .address(pair.family)
            .context("no address")
            .and_then(|address| {
                let response =
                    http::fetch(from.netns(), SocketAddr::new(address, PORT), "/", FETCH)?;
                let same = response.status == 200 && response.body == page;
                same.then_some(response.took)
                    .ok_or_else(|| anyhow!("the page came back changed"))
            });
        reach(pair, fetch)
    });
    drop(servers);
    figures
        .problems
        .extend(problem(&figures.fetches, "HTTP fetches"));
    Ok(())
}

fn reach(pair: &Pair, took: Result<Duration>) -> Reach {
    let (milliseconds, error) = match took {
        Ok(took) => (Some(took.as_secs_f64() * 1000.0), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    Reach {
        pair: pair.clone(),
        milliseconds,
        error,
    }
}

/// One line when some of `reaches` failed.
fn problem(reaches: &[Reach], what: &str) -> Option<String> {
    let failed: Vec<&Reach> = reaches
        .iter()
        .filter(|reach| reach.error.is_some())
        .collect();
    let first = match failed.first() {
        Some(first) => first,
        None if reaches.is_empty() => return Some(format!("no {what} was tried")),
        None => return None,
    };
    let Pair { from, to, family } = &first.pair;
    let error = first.error.as_deref().unwrap_or_default();
    let (failed, all) = (failed.len(), reaches.len());
    Some(format!(
        "{failed} of {all} {what} failed, the first from {from} to {to} ({family}): {error}"
    ))
}

/// Prints the matrix.
pub(super) fn print<W: Write>(
    progress: &mut Progress<'_, W>,
    lab: &Lab,
    figures: &Figures,
) -> Result<()> {
    progress.text(
        "\nWho reached whom (ping by 4 and 6; '.' is the pod's own node, which needs no tunnel):",
    )?;
    let names: Vec<&str> = lab.pods().map(crate::lab::Pod::name).collect();
    let width = names
        .iter()
        .map(|name| name.len())
        .max()
        .unwrap_or_default()
        + 2;
    let head: String = names.iter().map(|name| format!("{name:>width$}")).collect();
    progress.text(&format!("  {:>width$}{head}", "from \\ to"))?;
    for from in &names {
        let cells = names.iter().map(|to| {
            let answered = |family| {
                let pair = |reach: &&Reach| {
                    reach.pair.from == *from && reach.pair.to == *to && reach.pair.family == family
                };
                figures
                    .pings
                    .iter()
                    .find(pair)
                    .map(|reach| reach.error.is_none())
            };
            let cell = match (answered(Family::V4), answered(Family::V6)) {
                (None, None) => ".",
                (Some(true), Some(true)) => "46",
                (Some(true), _) => "4-",
                (_, Some(true)) => "-6",
                (_, _) => "--",
            };
            format!("{cell:>width$}")
        });
        progress.text(&format!("  {from:>width$}{}", cells.collect::<String>()))?;
    }
    for (what, reaches) in [
        ("pings", &figures.pings),
        ("HTTP fetches of 1 MiB", &figures.fetches),
    ] {
        let mut times: Vec<f64> = reaches
            .iter()
            .filter_map(|reach| reach.milliseconds)
            .collect();
        times.sort_by(f64::total_cmp);
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        progress.text(&format!(
            "  {} of {} {what} answered, median {median:.2} ms",
            times.len(),
            reaches.len()
        ))?;
    }
    Ok(())
}
