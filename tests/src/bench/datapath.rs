//! The data path: Hawser beside raw veth and other people's WireGuard, between the same two pods.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::Bench;
use super::chart::Chart;
use super::figure::Figure;
use super::machine::version;
use super::plan::{Plan, Scope};
use super::sample::Series;
use super::screen::Screen;
use super::taken::take;
use crate::lab::binary;
use crate::stock::Implementation;

mod charts;
mod condition;
mod connections;
mod datagrams;
mod echo;
mod figures;
mod measurement;
mod method;
mod search;
mod site;
mod transfer;
mod tunnel;
mod variant;

use condition::Condition;
use measurement::Measurement;
use site::Site;
use variant::Variant;

/// The bench of the data path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datapath;

/// What conditions other than the base one are measured by.
const ELSEWHERE: [&str; 2] = [measurement::TCP_1, measurement::TCP_4];

impl Bench for Datapath {
    fn name(&self) -> &'static str {
        "datapath"
    }

    fn scope(&self) -> Scope {
        Scope {
            variants: &variant::NAMES,
            conditions: &condition::NAMES,
            measurements: &measurement::NAMES,
            quick: [
                &[variant::NEWEST, variant::HAWSER],
                &[condition::BASE],
                &[
                    measurement::TCP_1,
                    measurement::TCP_4,
                    measurement::UDP_64,
                    measurement::MEMORY,
                ],
            ],
            lengths: [(5, 4), (4, 3)],
        }
    }

    fn versions(&self, plan: &Plan) -> Result<Vec<String>> {
        versions(plan)
    }

    fn measure(&self, plan: &Plan, screen: &mut Screen<'_>) -> Result<Series> {
        let mut series = Series::default();
        for condition in named(&plan.conditions, Condition::named) {
            let elsewhere = condition != Condition::Base;
            let of_lanes = condition == Condition::Lanes;
            let compared = |variant: &Variant| {
                variant.lanes().is_some() == of_lanes
                    && (of_lanes || !elsewhere || is_compared(*variant))
            };
            let variants = named(&plan.variants, Variant::named);
            let variants: Vec<Variant> = variants.into_iter().filter(compared).collect();
            let measurements = plan.measurements.iter().copied();
            let measurements = measurements.filter(|name| match elsewhere {
                false => true,
                true if condition.is_fallback() => *name == measurement::TCP_1,
                true => ELSEWHERE.contains(name),
            });
            let measurements: Vec<&str> = measurements.collect();
            if variants.is_empty() || measurements.is_empty() {
                continue;
            }
            let mut run = Run {
                plan,
                condition,
                variants,
                measurements: named(&measurements, Measurement::named),
                near: BTreeMap::new(),
            };
            run.measure(screen, &mut series)?;
        }
        Ok(series)
    }

    fn figures(&self, series: &Series) -> Result<Vec<Figure>> {
        figures::figures(series)
    }

    fn charts(&self, series: &Series) -> Vec<Chart> {
        charts::charts(series)
    }

    fn method(&self) -> String {
        method::text()
    }

    fn missing(&self, series: &Series) -> Vec<&'static str> {
        figures::missing(series)
    }
}

/// Those that other conditions are for.
fn is_compared(variant: Variant) -> bool {
    [variant::HAWSER, variant::NEWEST].contains(&variant.name())
}

fn named<T>(names: &[&str], named: impl Fn(&str) -> Option<T>) -> Vec<T> {
    names.iter().filter_map(|name| named(name)).collect()
}

/// All rounds under one condition.
struct Run<'a> {
    plan: &'a Plan,
    condition: Condition,
    variants: Vec<Variant>,
    measurements: Vec<Measurement>,
    /// What searches found in the last round.
    near: BTreeMap<(Measurement, Variant), f64>,
}

impl Run<'_> {
    fn measure(&mut self, screen: &mut Screen<'_>, series: &mut Series) -> Result<()> {
        let name = self.condition.name();
        let names: Vec<&str> = self.variants.iter().map(|variant| variant.name()).collect();
        screen.say(&format!("{name}: building {}", names.join(", ")))?;
        let (apart, others): (Vec<_>, Vec<_>) = self
            .variants
            .iter()
            .copied()
            .partition(|variant| variant.is_apart());
        let apart = apart.into_iter().map(|variant| vec![variant]);
        let mut sites = Vec::new();
        for variants in std::iter::once(others)
            .chain(apart)
            .filter(|variants| !variants.is_empty())
        {
            sites.push((Site::build(self.condition, &variants)?, variants));
        }
        for round in 1..=self.plan.rounds {
            screen.say(&format!("{name}: round {round} of {}", self.plan.rounds))?;
            for measurement in self.measurements.clone() {
                for variant in Plan::order(round - 1, &self.variants) {
                    let site = sites.iter().find(|(_, built)| built.contains(&variant));
                    let (site, _) = site.context("a variant without a site")?;
                    if measurement.applies(variant) {
                        self.one(site, (measurement, variant), round, screen, series)?;
                    }
                }
            }
        }
        screen.say(&format!("{name}: removing the lab"))?;
        sites.into_iter().try_for_each(|(site, _)| site.remove())
    }

    /// One measurement of one variant, again until it is quiet.
    fn one(
        &mut self,
        site: &Site,
        (measurement, variant): (Measurement, Variant),
        round: u32,
        screen: &mut Screen<'_>,
        series: &mut Series,
    ) -> Result<()> {
        let name = format!("{:<11} {:<19}", measurement.name(), variant.name());
        let near = self.near.get(&(measurement, variant)).copied();
        let source = (self.condition.name(), measurement.name(), variant.name());
        let counts = take(source, round, &name, screen, series, || {
            let before = site.carried()?;
            let outcome = measurement.run(site, variant, self.plan.seconds, near)?;
            site::check_passage(variant, outcome.bytes, &before, &site.carried()?)?;
            Ok((outcome.values, outcome.usage))
        })?;
        if let Some(near) = measurement.near(&counts) {
            self.near.insert((measurement, variant), near);
        }
        Ok(())
    }
}

/// What each program that is measured, or measures, says of its version.
fn versions(plan: &Plan) -> Result<Vec<String>> {
    let mut versions = Vec::new();
    let variants = named(&plan.variants, Variant::named);
    if variants.iter().any(|variant| variant.is_ours()) {
        versions.push(version(
            &binary("hawser-tunnel")?,
            "--version",
            "hawser-tunnel",
        )?);
        versions.push(version(&binary("hawser")?, "--version", "hawser")?);
    }
    for variant in variants {
        if let Variant::Stock(implementation) = variant {
            versions.push(stock_version(implementation)?);
        }
    }
    versions.push(version("iperf3".as_ref(), "--version", "iperf3")?);
    versions.push(version("ping".as_ref(), "-V", "iputils-ping")?);
    Ok(versions)
}

/// The module of the newest wireguard-go.
const MODULE: &str = "golang.zx2c4.com/wireguard";

/// What a stock program says, and for a Go module the version that its maker pinned: the program itself names an older.
fn stock_version(implementation: Implementation) -> Result<String> {
    let program = implementation.program()?;
    let said = version(&program, "--version", implementation.name())?;
    if implementation != Implementation::WireguardGoNewest {
        return Ok(said);
    }
    let bytes =
        std::fs::read(&program).with_context(|| format!("failed to read {}", program.display()))?;
    let pinned = module_version(&bytes, MODULE);
    let pinned = pinned.with_context(|| format!("{} carries no {MODULE}", program.display()))?;
    Ok(format!("{said} ({MODULE} {pinned})"))
}

/// The version in the line `mod<TAB>MODULE<TAB>VERSION<TAB>` that Go writes into its programs.
fn module_version(program: &[u8], module: &str) -> Option<String> {
    let line = format!("mod\t{module}\t");
    let at = program
        .windows(line.len())
        .position(|window| window == line.as_bytes())?;
    let version = program[at + line.len()..]
        .split(|byte| *byte == b'\t')
        .next()?;
    String::from_utf8(version.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_version_of_a_go_program_is_found() {
        let program = b"\x00\xffpath\tx\nmod\tgolang.zx2c4.com/wireguard\tv0.1\th1:abc=\ndep\tx";
        assert_eq!(module_version(program, MODULE).as_deref(), Some("v0.1"));
        assert_eq!(module_version(b"mod\tother\tv1\t", MODULE), None);
    }
}
