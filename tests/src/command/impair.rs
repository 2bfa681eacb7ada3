//! `lab impair`: what a node's wire does to frames, and did so far.

use std::io::Write;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::lab::{Lab, Wire};
use crate::wire::{Direction, Impairment, Tally};

/// Which wires, and what they shall do.
#[derive(Debug, Args)]
#[command(
    after_help = "Words: loss 5%  duplicate 1%  reorder 1% [depth 3] [hold 100ms]  corrupt 0.1%  delay 20ms  \
    jitter 5ms\n       rate 100mbit [queue 256kib]  mtu 1400  cut  clean\n\n\
    What is said replaces what was in force. Links are wires where the topology says `underlay: {wired: all}`."
)]
pub(super) struct Options {
    /// Which lab; not needed while there is one
    #[arg(long)]
    name: Option<String>,
    /// Node (`east-1`), or `all`
    node: String,
    /// `out` (from the node) or `in` for one direction only, then what the wire shall do; nothing shows how it is
    #[arg(trailing_var_arg = true, value_name = "[out|in] IMPAIRMENT")]
    words: Vec<String>,
}

/// Sets or shows.
pub(super) fn run(options: &Options, out: &mut impl Write) -> Result<()> {
    let (direction, impairment) = parse(&options.words)?;
    let lab = Lab::open(options.name.as_deref())?;
    let wires = if options.node == "all" {
        let wires = lab.wires();
        ensure!(
            !wires.is_empty(),
            "no link of this lab is a wire: name nodes in underlay.wired"
        );
        wires
    } else {
        vec![lab.wire(&options.node)?]
    };
    if let Some(impairment) = impairment {
        for wire in &wires {
            wire.set(direction, &impairment)?;
        }
        return Ok(());
    }
    for wire in &wires {
        show(wire, direction, out).context("failed to write")?;
    }
    Ok(())
}

/// The words behind the node, of which some may have been quoted together.
fn parse(words: &[String]) -> Result<(Direction, Option<Impairment>)> {
    let text = words.join(" ");
    let text = text.trim();
    let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
    let (direction, rest) = match first {
        "out" => (Direction::Out, rest),
        "in" => (Direction::In, rest),
        _ => (Direction::Both, text),
    };
    let impairment = (!rest.is_empty()).then(|| rest.parse()).transpose()?;
    Ok((direction, impairment))
}

fn show(wire: &Wire, direction: Direction, out: &mut impl Write) -> Result<()> {
    let state = wire.state()?;
    writeln!(out, "{}", wire.node())?;
    for way in direction.ways() {
        let impairment = match Direction::from(*way) {
            Direction::Out => state.out,
            Direction::In | Direction::Both => state.inward,
        };
        let tally = state.counts.of((*way).into());
        let name = way.to_string();
        writeln!(out, "  {name:<4}{impairment}")?;
        writeln!(out, "      {}", describe(&tally))?;
        let overruns = state.counts.overruns((*way).into());
        if overruns > 0 {
            writeln!(out, "      {overruns} more found the device's queue full")?;
        }
    }
    Ok(())
}

/// `12 frames: 10 passed, 2 lost`.
fn describe(tally: &Tally) -> String {
    let parts = [
        (tally.passed, "passed"),
        (tally.lost, "lost"),
        (tally.cut, "cut"),
        (tally.oversize, "oversize"),
        (tally.queue_full, "found the queue full"),
        (tally.corrupted, "corrupted"),
        (tally.duplicated, "duplicated"),
        (tally.delayed, "delayed past others"),
        (tally.refused, "refused by the device at the end"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    if parts.is_empty() {
        return "no frames".to_owned();
    }
    format!("{} frames: {}", tally.frames, parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<(Direction, Option<Impairment>)> {
        parse(
            &words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn words_may_be_quoted_together_or_not() {
        let expected = (Direction::Out, Some("loss 5% delay 20ms".parse().unwrap()));
        assert_eq!(parsed(&["out", "loss 5% delay 20ms"]).unwrap(), expected);
        assert_eq!(
            parsed(&["out", "loss", "5%", "delay", "20ms"]).unwrap(),
            expected
        );
        assert_eq!(parsed(&["out loss 5% delay 20ms"]).unwrap(), expected);
        let clean = (Direction::Both, Some(Impairment::default()));
        assert_eq!(parsed(&["clean"]).unwrap(), clean);
        assert_eq!(parsed(&["in"]).unwrap(), (Direction::In, None));
        assert_eq!(parsed(&[]).unwrap(), (Direction::Both, None));
        let text = parsed(&["both", "cut"]).unwrap_err().to_string();
        assert!(
            text.starts_with("impairment: \"both\": must be loss,"),
            "{text}"
        );
    }
}
