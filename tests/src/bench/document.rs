//! docs/benchmarks.md: a section for each bench, with figures, how they were made, and every raw number.

use std::fmt::Write as _;

use anyhow::Result;

use super::figure::{Bound, COLUMNS};
use super::quiet::{QUIET, REPEATS};
use super::sample::{Series, Source};
use super::spread::number;
use super::{Chart, Report};

/// The top of the page.
const HEAD: &str = "# Benchmarks\n\nWritten by `make bench BENCH=\"NAME --write\"`; `make bench BENCH=NAME` measures \
                    without writing. Nothing on this page is edited by hand.\n";

/// What a section begins and ends with, so that it can be replaced alone.
fn marks(name: &str) -> [String; 2] {
    [
        format!("<!-- begin {name} -->"),
        format!("<!-- end {name} -->"),
    ]
}

/// The page with the section of `name` put in place of the one in `old`, if it had one. `names` are all benches, in the
/// order of their sections.
pub(super) fn page(old: &str, names: &[&str], name: &str, section: &str) -> String {
    let mut page = HEAD.to_owned();
    for other in names {
        let kept = section_of(old, other);
        let text = if *other == name { Some(section) } else { kept };
        if let Some(text) = text {
            let [begin, end] = marks(other);
            page.push_str(&format!("\n{begin}\n\n{}\n\n{end}\n", text.trim()));
        }
    }
    page
}

fn section_of<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    let [begin, end] = marks(name);
    let (_, rest) = page.split_once(&begin)?;
    let (section, _) = rest.split_once(&end)?;
    Some(section)
}

/// The section of a report. `notes` tells whether there is a page by hand, `benchmarks/NAME.md`, to point to.
pub(super) fn section(
    report: &Report,
    method: &str,
    charts: &[Chart],
    notes: bool,
) -> Result<String> {
    let (mut text, name) = (String::new(), report.name);
    writeln!(text, "## {name}\n")?;
    if notes {
        writeln!(
            text,
            "Where the time goes, and what bounds each figure: [benchmarks/{name}.md](benchmarks/{name}.md).\n"
        )?;
    }
    writeln!(text, "### What is measured\n\n{}\n", method.trim())?;
    writeln!(
        text,
        "- {} rounds of {} s for each measurement. In a round every variant is measured once, side by side with the \
         others; each round begins with another one. Ratios are made within a round.\n\
         - Noise: cores used by foreign processes, and steal, during each measurement. One with more than {QUIET:.2} \
         core of it is made again at once, at most {REPEATS} times; of those that stay loud the quietest counts. Kernel \
         threads are not counted as foreign.\n",
        report.plan.rounds, report.plan.seconds
    )?;
    figures(&mut text, report)?;
    writeln!(text, "Noise: {}.\n", report.noise())?;
    for chart in charts {
        let (title, file) = (chart.title, chart.file);
        writeln!(text, "![{title}](benchmarks/{name}-{file}.svg)\n")?;
    }
    values(&mut text, &report.samples, &report.plan.conditions)?;
    machine(&mut text, report)?;
    raw(&mut text, &report.samples)?;
    Ok(text)
}

/// Figures with bounds, and ratios.
fn figures(text: &mut String, report: &Report) -> Result<()> {
    writeln!(text, "### Figures\n")?;
    row(text, COLUMNS)?;
    row(text, ["---"; COLUMNS.len()])?;
    let shown = report.figures.iter();
    for figure in shown.filter(|figure| figure.bound != Bound::Nothing || figure.unit == "ratio") {
        row(text, figure.cells())?;
    }
    let short = report.short();
    let verdict = if short.is_empty() {
        "Every bound is met.".to_owned()
    } else {
        format!("**Short: {}.**", short.join("; "))
    };
    writeln!(
        text,
        "\n{verdict} Bounds are judged by the median of the rounds; those of memory and losses by the worst round.\n"
    )?;
    Ok(())
}

/// A table for each condition: a row for each value, a column for each variant.
fn values(text: &mut String, samples: &Series, conditions: &[&'static str]) -> Result<()> {
    for condition in conditions {
        let sources = samples.sources();
        let sources: Vec<Source> = sources.into_iter().filter(|s| s.0 == *condition).collect();
        let (mut measurements, mut variants) = (Vec::new(), Vec::new());
        for (_, measurement, variant) in &sources {
            if !measurements.contains(measurement) {
                measurements.push(*measurement);
            }
            if !variants.contains(variant) {
                variants.push(*variant);
            }
        }
        if sources.is_empty() {
            continue;
        }
        variants.sort_unstable();
        writeln!(
            text,
            "### Values: {condition}\n\nMedian, least and most of the rounds.\n"
        )?;
        row(
            text,
            ["measurement", "value"]
                .into_iter()
                .chain(variants.iter().copied()),
        )?;
        row(text, vec!["---"; variants.len() + 2])?;
        for measurement in measurements {
            let of = |variant: &&'static str| (*condition, measurement, *variant);
            let mut names: Vec<&str> = Vec::new();
            for name in variants
                .iter()
                .flat_map(|variant| samples.values_of(of(variant)))
            {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            for name in names {
                let cells = variants.iter().map(|variant| {
                    let spread = samples.spread(of(variant), name)?.ok()?;
                    let [median, min, max] = [spread.median, spread.min, spread.max].map(number);
                    Some(format!("{median} [{min}..{max}]"))
                });
                let cells = cells.map(|cell| cell.unwrap_or_else(|| "-".to_owned()));
                let first = [measurement.to_owned(), name.to_owned()];
                row(text, first.into_iter().chain(cells))?;
            }
        }
        writeln!(text)?;
    }
    Ok(())
}

fn machine(text: &mut String, report: &Report) -> Result<()> {
    let machine = &report.machine;
    writeln!(text, "### Machine and versions\n")?;
    writeln!(
        text,
        "- Processor: {}, {} cores\n- Memory: {:.1} GiB\n- Kernel: {}\n- System: {}",
        machine.processor, machine.cores, machine.memory, machine.kernel, machine.system
    )?;
    for version in &machine.versions {
        writeln!(text, "- {version}")?;
    }
    writeln!(text)?;
    Ok(())
}

/// Every value of every sample: those that count in a line, those that were given up one by one.
fn raw(text: &mut String, samples: &Series) -> Result<()> {
    writeln!(
        text,
        "### Raw data\n\n<details>\n<summary>Every value of every round</summary>\n\n\
         `condition,measurement,variant,value,rounds...`; `others` are the cores that others used meanwhile.\n\n```csv"
    )?;
    for source in samples.sources() {
        let (condition, measurement, variant) = source;
        for name in samples.values_of(source) {
            if let Some(spread) = samples.spread(source, name) {
                let rounds: Vec<String> =
                    spread?.values.iter().map(|value| plain(*value)).collect();
                let rounds = rounds.join(",");
                writeln!(text, "{condition},{measurement},{variant},{name},{rounds}")?;
            }
        }
        let others = samples.0.iter().filter(|sample| {
            sample.kept && (sample.condition, sample.measurement, sample.variant) == source
        });
        let others: Vec<String> = others.map(|sample| plain(sample.usage.noise())).collect();
        let others = others.join(",");
        writeln!(text, "{condition},{measurement},{variant},others,{others}")?;
    }
    writeln!(
        text,
        "```\n\n</details>\n\n<details>\n<summary>Measurements that were given up as too loud: {}</summary>\n",
        samples.repeated()
    )?;
    writeln!(
        text,
        "`condition,measurement,variant,round,attempt,others,value=...`\n\n```csv"
    )?;
    for sample in samples.0.iter().filter(|sample| !sample.kept) {
        let values = sample
            .values
            .iter()
            .map(|(name, value)| format!("{name}={}", plain(*value)));
        writeln!(
            text,
            "{},{},{},{},{},{},{}",
            sample.condition,
            sample.measurement,
            sample.variant,
            sample.round,
            sample.attempt,
            plain(sample.usage.noise()),
            values.collect::<Vec<_>>().join(",")
        )?;
    }
    writeln!(text, "```\n\n</details>")?;
    Ok(())
}

/// A number with at most four digits behind the point.
fn plain(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn row(text: &mut String, cells: impl IntoIterator<Item = impl AsRef<str>>) -> Result<()> {
    for cell in cells {
        write!(text, "| {} ", cell.as_ref())?;
    }
    writeln!(text, "|")?;
    Ok(())
}

#[cfg(test)]
mod tests;
