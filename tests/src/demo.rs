//! `lab demo`: the product's main job on real packets, with the proof, in under a minute.
//!
//! Two clusters of two nodes with two pods each, and two hub replicas each, from which all nodes learn of each other. Everything that is printed was measured or captured in this very run.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::command::describe;
use crate::lab::{Lab, Topology};
use crate::sniffer::{Kind, Sniffer};

mod capture;
mod dissect;
mod figures;
mod follow;
mod prerequisites;
mod progress;
mod reach;
mod transfer;
mod wire;

pub use figures::{Alone, Figures, PacketFigures, Reach, Transfer};

use progress::Progress;

/// The longest wait for tunnels, here and after the agents' return.
const READY: Duration = Duration::from_secs(20);
/// The name under which the lab is kept.
const NAME: &str = "demo";

/// Options of `lab demo`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Leave the lab standing afterwards and say how to look around
    #[arg(long)]
    pub keep: bool,
    /// Write the figures to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Runs the demo and prints it to `out`; the last line is the verdict. Returns whether it passed.
///
/// # Errors
/// When nothing can be printed.
pub fn run(options: &Options, out: &mut impl Write) -> Result<bool> {
    let mut progress = Progress::new(out);
    let mut figures = Figures::default();
    if let Err(error) = play(options, &mut progress, &mut figures) {
        figures
            .problems
            .push(format!("{error:#}").replace('\n', "; "));
    }
    figures.seconds = progress.seconds();
    figures.passed = figures.problems.is_empty();
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&figures).context("failed to write the figures")?;
        if let Err(error) = std::fs::write(path, text + "\n") {
            figures.passed = false;
            figures
                .problems
                .push(format!("failed to write {}: {error}", path.display()));
        }
    }
    for problem in &figures.problems {
        progress.text(&format!("problem: {problem}"))?;
    }
    let verdict = match figures.problems.split_first() {
        None => "demo: PASS".to_owned(),
        Some((first, [])) => format!("demo: FAIL: {first}"),
        Some((first, rest)) => format!("demo: FAIL: {first} (and {} more, above)", rest.len()),
    };
    progress.text(&verdict)?;
    Ok(figures.passed)
}

fn play<W: Write>(
    options: &Options,
    progress: &mut Progress<'_, W>,
    figures: &mut Figures,
) -> Result<()> {
    prerequisites::check()?;
    if options.keep {
        crate::lab::check_name(NAME)?;
    }
    progress.step("building two clusters of two nodes with two pods each")?;
    let mut lab = Lab::new(Topology::two_by_two().with_hubs(2).joining())?;
    let sniffer = lab.sniffer()?;
    progress.step("a sniffer is on every underlay link; starting the hubs, each cluster with a CA of its own; west joins east by invitation")?;
    let shown = show(progress, figures, &mut lab, &sniffer);
    let problems = figures.problems.len() + usize::from(shown.is_err());
    if problems > 0 {
        last_words(progress, &lab)?;
    }
    if options.keep {
        lab.call(NAME)?;
        lab.keep()?;
        progress.text("")?;
        describe(&lab, NAME, progress.out())?;
        progress.text("")?;
    } else {
        progress.step("removing the lab")?;
        drop(sniffer);
        lab.remove()?;
    }
    shown
}

/// Everything between building and removing the lab.
fn show<W: Write>(
    progress: &mut Progress<'_, W>,
    figures: &mut Figures,
    lab: &mut Lab,
    sniffer: &Sniffer,
) -> Result<()> {
    lab.start_hubs()?;
    progress.step("starting hawser-tunnel and hawser agent on every node, which learn of each other from their hubs")?;
    lab.start_nodes()?;
    progress.step("waiting until every node has shaken hands with every other")?;
    lab.wait_ready(READY)?;

    progress.step("pinging between all pods of different nodes, IPv4 and IPv6")?;
    reach::pings(lab, figures);
    progress.step("fetching over HTTP between the clusters, IPv4 and IPv6")?;
    reach::fetches(lab, figures)?;
    progress.step("capturing one packet on the wire and inside")?;
    let packet = wire::one_packet(lab, sniffer);
    follow::pods(lab, progress, figures)?;
    transfer::run(lab, progress, figures)?;
    progress.step("asking the sniffers")?;
    figures.sniffers = sniffer.report()?;

    reach::print(progress, lab, figures)?;
    follow::print(progress, figures)?;
    transfer::print(progress, figures)?;
    figures.print_sniffers(progress)?;
    match packet {
        Ok(packet) => {
            packet.print(progress)?;
            figures.packet = Some(packet.figures());
        }
        Err(error) => figures
            .problems
            .push(format!("no packet to show: {error:#}")),
    }
    if let Err(error) = figures.sniffers.check() {
        figures.problems.push(error.to_string());
    }
    if figures.sniffers.of(Kind::WireGuardData) == 0 {
        figures
            .problems
            .push("the sniffers saw no WireGuard data at all".to_owned());
    }
    Ok(())
}

/// The end of each log, for whoever has to find out.
fn last_words<W: Write>(progress: &mut Progress<'_, W>, lab: &Lab) -> Result<()> {
    for node in lab.nodes() {
        for (program, log) in [("tunnel", node.keeper_log()), ("agent", node.agent_log())] {
            last_lines(progress, node.name(), program, &log)?;
        }
    }
    for hub in lab.hubs() {
        last_lines(progress, hub.node(), "hub", &hub.log())?;
    }
    Ok(())
}

fn last_lines<W: Write>(
    progress: &mut Progress<'_, W>,
    node: &str,
    program: &str,
    log: &str,
) -> Result<()> {
    let lines: Vec<&str> = log.lines().collect();
    for line in &lines[lines.len().saturating_sub(4)..] {
        progress.text(&format!("{node} {program}: {line}"))?;
    }
    Ok(())
}

/// The namespace of the first pod of a node.
fn first_pod<'a>(lab: &'a Lab, node: &str) -> Result<&'a crate::lab::Pod> {
    lab.nodes()
        .iter()
        .find(|found| found.name() == node)
        .and_then(|node| node.pods().first())
        .context("no such pod")
}

/// Runs `work` on every item, eight at a time, and returns the results in the items' order.
fn at_once<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let work = &work;
    let results: Vec<Vec<(usize, R)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|first| {
                let own = items.iter().enumerate().skip(first).step_by(8);
                scope.spawn(move || own.map(|(index, item)| (index, work(item))).collect())
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    let mut results: Vec<(usize, R)> = results.into_iter().flatten().collect();
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
