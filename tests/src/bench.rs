//! Speed, cost and memory of Hawser, measured in the lab and judged by bounds.
//!
//! Absolute figures of a shared machine move from minute to minute. So every variant is measured once in each round,
//! ratios are made within a round, and a round in which somebody else used the processors is measured again.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Serialize;

mod datapath;
mod document;
mod figure;
mod machine;
mod meter;
mod round;
mod spread;
mod transfer;

use figure::Figure;
use machine::Machine;
use round::Round;

/// Every bench there is.
const NAMES: [&str; 1] = ["datapath"];

/// What `bench` is asked for.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Which bench: `datapath` (throughput, round trip, processor time and memory of the tunnel)
    pub name: String,
    /// Two short rounds in place of four: shows that everything works, not how fast it is
    #[arg(long)]
    pub quick: bool,
    /// Write figures and raw numbers to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write docs/benchmarks.md
    #[arg(long, conflicts_with = "quick")]
    pub write: bool,
}

/// Everything that a bench found out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    name: &'static str,
    plan: round::Plan,
    machine: Machine,
    figures: Vec<Figure>,
    /// Every round that was measured, those that were measured again included.
    rounds: Vec<Round>,
}

impl Report {
    /// Names of the figures that fall short.
    fn short(&self) -> Vec<&str> {
        let short = self.figures.iter().filter(|figure| figure.is_short());
        short.map(|figure| figure.name).collect()
    }

    /// What a reader must know about the machine's quiet, in one sentence.
    fn noise(&self) -> String {
        let repeated = self.rounds.iter().filter(|round| !round.kept).count();
        let loudest = self.rounds.iter().filter(|round| round.kept);
        let loudest = loudest.map(Round::noise).fold(0.0, f64::max);
        let trust = if loudest > round::QUIET {
            "; that is too much to trust the figures: stop what else runs and measure again"
        } else {
            ""
        };
        format!(
            "others (foreign processes and steal) used at most {loudest:.3} core during a kept measurement, \
             {:.2} is the limit; rounds given up and measured again: {repeated}{trust}",
            round::QUIET
        )
    }
}

/// Runs one bench, shows progress and figures on `out`, and returns whether every bound was met.
///
/// # Errors
/// When there is no such bench, when it could not measure, or when a file cannot be written.
pub fn run(options: &Options, out: &mut impl Write) -> Result<bool> {
    let Some(name) = NAMES.into_iter().find(|name| *name == options.name) else {
        bail!(
            "NAME: no bench is called {:?}; there is {}",
            options.name,
            NAMES.join(", ")
        );
    };
    let machine = Machine::describe()?;
    let plan = round::Plan::new(options.quick);
    let rounds = datapath::measure(&plan, out)?;
    let figures = datapath::figures(&rounds)?;
    let report = Report {
        name,
        plan,
        machine,
        figures,
        rounds,
    };

    figure::print(&report.figures, out)?;
    writeln!(out, "noise: {}", report.noise())?;
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report).context("failed to write the figures")?;
        save(path, &text)?;
    }
    if options.write {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks.md");
        save(&path, &document::markdown(&report)?)?;
        writeln!(out, "written: docs/benchmarks.md")?;
    }
    let short = report.short();
    if short.is_empty() {
        writeln!(out, "bench {name}: ok")?;
    } else {
        writeln!(out, "bench {name}: short: {}", short.join(", "))?;
    }
    Ok(short.is_empty())
}

fn save(path: &Path, text: &str) -> Result<()> {
    if let Some(directory) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        fs::create_dir_all(directory)
            .with_context(|| format!("failed to make {}", directory.display()))?;
    }
    fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_bench_is_refused_in_one_line_and_measures_nothing() {
        let options = Options {
            name: "warp".to_owned(),
            quick: true,
            json: None,
            write: false,
        };
        let mut out = Vec::new();
        let error = run(&options, &mut out).unwrap_err().to_string();
        assert_eq!(
            error,
            "NAME: no bench is called \"warp\"; there is datapath"
        );
        assert!(out.is_empty());
    }
}
