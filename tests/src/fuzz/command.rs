//! The command line of `fuzz`.

use std::fs;
use std::io::{Write as _, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;

use super::driver::{Plan, attempt, drive};
use super::{Corpus, TARGETS, Target, target};

/// Runs of a target where neither a number nor a time is given.
const RUNS: u64 = 100_000;

/// Runs fuzz targets over their corpus and mutations of it; exits with 1 when a promise is broken.
#[derive(Debug, Parser)]
#[command(name = "fuzz", version)]
pub struct Arguments {
    /// A target, `all`, or `list` for the names of the targets.
    target: String,
    /// Inputs for each target; 100,000 where no time is given.
    #[arg(long, value_name = "N")]
    runs: Option<u64>,
    /// Time for each target, in seconds.
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
    /// Another seed gives other inputs, the same one the same.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Runs this one input and nothing else.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["runs", "seconds"])]
    input: Option<PathBuf>,
}

/// Reads the command line and runs.
#[must_use]
pub fn run() -> ExitCode {
    match Arguments::parse().run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            writeln!(stderr(), "error: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}

impl Arguments {
    fn run(&self) -> Result<bool> {
        if self.target == "list" {
            for (name, _) in TARGETS {
                writeln!(stdout(), "{name}")?;
            }
            return Ok(true);
        }
        let targets: Vec<_> = match self.target.as_str() {
            "all" => TARGETS.to_vec(),
            name => {
                let Some(target) = target(name) else {
                    bail!("target {name}: there is none of this name; `fuzz list` prints them");
                };
                vec![(name, target)]
            }
        };
        for (name, target) in targets {
            let kept = match &self.input {
                Some(file) => replay(name, target, file)?,
                None => self.drive(name, target)?,
            };
            if !kept {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn drive(&self, name: &str, target: Target) -> Result<bool> {
        let corpus = Corpus::load(name)?;
        let unless_said = match self.seconds {
            Some(_) => u64::MAX,
            None => RUNS,
        };
        let plan = Plan {
            seed: self.seed,
            runs: self.runs.unwrap_or(unless_said),
            time: self.seconds.map(Duration::from_secs),
        };
        let mut progress = |runs| {
            writeln!(stderr(), "{name}: {runs} inputs").ok();
        };
        match drive(name, &target, &corpus, &plan, &mut progress) {
            Ok(runs) => {
                writeln!(stdout(), "{name}: {runs} inputs, every promise kept")?;
                Ok(true)
            }
            Err(crash) => {
                writeln!(stdout(), "{crash}")?;
                Ok(false)
            }
        }
    }
}

fn replay(name: &str, target: Target, file: &PathBuf) -> Result<bool> {
    let input =
        fs::read(file).with_context(|| format!("{}: failed to read the input", file.display()))?;
    let outcome = attempt(&target, &input);
    match &outcome {
        Ok(()) => writeln!(stdout(), "{name}: every promise kept")?,
        Err(message) => writeln!(stdout(), "target {name} broke: {message}")?,
    }
    Ok(outcome.is_ok())
}
