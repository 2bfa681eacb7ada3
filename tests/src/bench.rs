//! Speed, cost and memory, measured in the lab and judged by bounds.
//!
//! Absolute figures of a shared machine move from minute to minute. So every variant is measured once in each round,
//! ratios are made within a round, and a measurement during which somebody else used the processors is made again.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde::Serialize;

mod chart;
mod datapath;
mod document;
mod figure;
mod machine;
mod meter;
mod peers;
mod plan;
mod quiet;
mod sample;
mod screen;
mod spread;
mod sync;
mod taken;

use chart::Chart;
use figure::Figure;
use machine::Machine;
use plan::{Plan, Scope};
use sample::Series;
use screen::Screen;

/// What the page must stand on.
const LEAST_ROUNDS: u32 = 4;

/// Every bench there is.
const BENCHES: [&dyn Bench; 3] = [&datapath::Datapath, &peers::Peers, &sync::Sync];

/// One bench: what it can measure, how, and what must come out.
trait Bench {
    /// By which it is asked for.
    fn name(&self) -> &'static str;
    /// What it can measure.
    fn scope(&self) -> Scope;
    /// What each program that is part of it says of its version.
    fn versions(&self, plan: &Plan) -> Result<Vec<String>>;
    /// Measures, and removes all that it made.
    fn measure(&self, plan: &Plan, screen: &mut Screen<'_>) -> Result<Series>;
    /// Every figure that was measured, those with bounds first.
    fn figures(&self, series: &Series) -> Result<Vec<Figure>>;
    /// Plots for the page.
    fn charts(&self, series: &Series) -> Vec<Chart>;
    /// How it is measured, for the page, as Markdown.
    fn method(&self) -> String;
    /// Figures with bounds that the run left out.
    fn missing(&self, series: &Series) -> Vec<&'static str>;
}

/// What `bench` is asked for.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Which bench: `datapath` (throughput, round trip, rates, processor time and memory of the tunnel), `peers` (what
    /// many peers cost) or `sync` (how clusters learn of each other)
    pub name: String,
    /// The base condition, and only what is compared most, in two minutes
    #[arg(long)]
    pub quick: bool,
    /// Write figures and raw numbers to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write docs/benchmarks.md and its plots
    #[arg(long, conflicts_with_all = ["quick", "only", "figures", "conditions"])]
    pub write: bool,
    /// Only these variants, with commas between them
    #[arg(long, value_name = "VARIANTS", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Only these measurements, with commas between them
    #[arg(long, value_name = "FIGURES", value_delimiter = ',')]
    pub figures: Vec<String>,
    /// Only these conditions, with commas between them
    #[arg(long, value_name = "CONDITIONS", value_delimiter = ',')]
    pub conditions: Vec<String>,
    /// How many rounds
    #[arg(long, value_name = "NUMBER")]
    pub rounds: Option<u32>,
    /// How long a measurement takes
    #[arg(long, value_name = "NUMBER")]
    pub seconds: Option<u32>,
}

/// Everything that a bench found out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    name: &'static str,
    plan: Plan,
    machine: Machine,
    figures: Vec<Figure>,
    /// Every sample, those that were taken again included.
    samples: Series,
}

impl Report {
    /// Names of the figures that fall short.
    fn short(&self) -> Vec<&str> {
        let short = self.figures.iter().filter(|figure| figure.is_short());
        short.map(|figure| figure.name.as_str()).collect()
    }

    /// What a reader must know about the machine's quiet, in one sentence.
    fn noise(&self) -> String {
        let (loudest, limit) = (self.samples.loudest(), quiet::QUIET);
        let trust = if loudest > limit {
            "; that is too much to trust the figures: stop what else runs and measure again"
        } else {
            ""
        };
        format!(
            "others (foreign processes and steal) used at most {loudest:.3} core during a measurement that counts, \
             {limit:.2} is the limit; measurements given up and made again: {}{trust}",
            self.samples.repeated()
        )
    }
}

/// Runs one bench, shows progress and figures on `out`, and returns whether every bound was met.
///
/// # Errors
/// When there is no such bench, when it could not measure, or when a file cannot be written.
pub fn run(options: &Options, out: &mut impl Write) -> Result<bool> {
    let Some(bench) = BENCHES.iter().find(|bench| bench.name() == options.name) else {
        let names: Vec<&str> = BENCHES.iter().map(|bench| bench.name()).collect();
        bail!(
            "NAME: no bench is called {:?}; there is {}",
            options.name,
            names.join(", ")
        );
    };
    let plan = Plan::new(&bench.scope(), options)?;
    ensure!(
        !options.write || plan.rounds >= LEAST_ROUNDS,
        "--rounds: {}: must be {LEAST_ROUNDS} or more with --write: fewer say too little for the page",
        plan.rounds
    );
    let machine = Machine::describe(bench.versions(&plan)?)?;
    let samples = bench.measure(&plan, &mut Screen::new(out))?;
    let missing = bench.missing(&samples);
    let report = Report {
        name: bench.name(),
        plan,
        machine,
        figures: bench.figures(&samples)?,
        samples,
    };

    figure::print(&report.figures, out)?;
    writeln!(out, "noise: {}", report.noise())?;
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report).context("failed to write the figures")?;
        save(path, &text)?;
    }
    if options.write {
        write(*bench, &report)?;
        writeln!(out, "written: docs/benchmarks.md")?;
    }
    if !missing.is_empty() {
        writeln!(out, "not measured: {}", missing.join("; "))?;
    }
    let (name, short) = (report.name, report.short());
    if short.is_empty() {
        writeln!(out, "bench {name}: ok")?;
    } else {
        writeln!(out, "bench {name}: short: {}", short.join("; "))?;
    }
    Ok(short.is_empty())
}

/// Puts the report's section into docs/benchmarks.md, and its plots beside it.
fn write(bench: &dyn Bench, report: &Report) -> Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let charts = bench.charts(&report.samples);
    for chart in &charts {
        let file = format!("benchmarks/{}-{}.svg", report.name, chart.file);
        save(&docs.join(file), &chart.svg())?;
    }
    let notes = docs.join(format!("benchmarks/{}.md", report.name));
    let section = document::section(report, &bench.method(), &charts, notes.is_file())?;
    let path = docs.join("benchmarks.md");
    let old = fs::read_to_string(&path).unwrap_or_default();
    let names = BENCHES.map(Bench::name);
    save(&path, &document::page(&old, &names, report.name, &section))
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
        let mut out = Vec::new();
        let error = run(&plan::tests::options("warp"), &mut out).unwrap_err();
        assert_eq!(
            error.to_string(),
            "NAME: no bench is called \"warp\"; there is datapath, peers, sync"
        );
        assert!(out.is_empty());
    }

    #[test]
    fn a_page_is_not_written_from_few_rounds() {
        let options = Options {
            write: true,
            rounds: Some(3),
            ..plan::tests::options("datapath")
        };
        let mut out = Vec::new();
        let text = run(&options, &mut out).unwrap_err().to_string();
        assert!(text.starts_with("--rounds: 3: must be 4 or more"), "{text}");
        assert!(out.is_empty());
    }
}
