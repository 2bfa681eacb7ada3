//! The leak hunt: every way of the library shows its teeth, and Hawser holds.

use std::io::Write as _;

use anyhow::{Result, bail};
use hawser_tests::depth::rounds;
use hawser_tests::leak::{GROUPS, Hunt, LIMITS, Outcome, Way, table};

/// Tries every way of a group, as often as the depth says; a failed one gets a new lab for those after it.
fn hunt(name: &str) -> Result<()> {
    let group = GROUPS.iter().find(|group| group.name == name);
    let Some(group) = group else {
        bail!("no group {name}");
    };
    let (mut outcomes, mut failures): (Vec<Outcome>, Vec<String>) = (Vec::new(), Vec::new());
    let mut lab = Hunt::start()?;
    let seed = lab.seed();
    for round in 0..rounds(1, 20) {
        for way in group.ways {
            match lab.run(way) {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => {
                    failures.push(said(way, round, &error));
                    lab = Hunt::start()?;
                }
            }
        }
    }
    writeln!(std::io::stdout(), "{}", table(name, &outcomes))?;
    if !failures.is_empty() {
        bail!(
            "{} failed (HAWSER_SEED={seed}):\n{}",
            failures.len(),
            failures.join("\n")
        );
    }
    Ok(())
}

fn said(way: &Way, round: u32, error: &anyhow::Error) -> String {
    format!("round {round}: {} ({}): {error:#}", way.name, way.mistake)
}

#[test]
fn routes_that_lead_around_the_tunnel_show_nothing() -> Result<()> {
    hunt("routes")
}

#[test]
fn rules_that_lead_around_the_tunnel_show_nothing() -> Result<()> {
    hunt("rules")
}

#[test]
fn addresses_removed_or_misplaced_show_nothing() -> Result<()> {
    hunt("addresses")
}

#[test]
fn devices_that_come_go_and_change_show_nothing() -> Result<()> {
    hunt("devices")
}

#[test]
fn devices_on_top_of_devices_show_nothing() -> Result<()> {
    hunt("masters")
}

#[test]
fn copies_and_shortcuts_of_nftables_show_nothing() -> Result<()> {
    hunt("mirrors")
}

#[test]
fn one_translated_address_shows_nothing() -> Result<()> {
    hunt("translation")
}

#[test]
fn a_guard_that_is_removed_or_disarmed_shows_nothing() -> Result<()> {
    hunt("tables")
}

#[test]
fn programs_on_the_node_show_nothing() -> Result<()> {
    hunt("sockets")
}

#[test]
fn odd_packets_show_nothing() -> Result<()> {
    hunt("packets")
}

#[test]
fn processes_that_die_or_start_in_an_odd_order_show_nothing() -> Result<()> {
    hunt("processes")
}

#[test]
fn clusters_and_nodes_that_leave_show_nothing() -> Result<()> {
    hunt("configuration")
}

/// What `docs/security.md` calls out of reach is so: when one of them stops to leak, the text must change.
#[test]
fn the_limits_that_are_documented_are_still_limits() -> Result<()> {
    let mut lab = Hunt::start()?;
    for way in LIMITS {
        match lab.pass(way) {
            Ok(frames) => writeln!(std::io::stdout(), "{}: {frames} clear frames", way.name)?,
            Err(error) => bail!("{}", said(way, 0, &error)),
        }
    }
    Ok(())
}
