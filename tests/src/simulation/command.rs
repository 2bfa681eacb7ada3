//! The command line of `simulate`.

use std::io::{Write as _, stderr, stdout};
use std::ops::Range;
use std::panic;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;

use super::{Outcome, Story, explain, run, run_seeds};

/// Plays worlds of clusters on virtual time; exits with 1 when an invariant breaks.
#[derive(Debug, Parser)]
#[command(name = "simulate", version)]
pub struct Arguments {
    /// Plays this seed.
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Plays these seeds, the last one left out.
    #[arg(long, value_name = "A..B", default_value = "0..1000")]
    seeds: Seeds,
    /// Prints the story of the seed as it is, even when nothing breaks.
    #[arg(long, requires = "seed")]
    story: bool,
    /// Leaves a failing story as long as it is.
    #[arg(long)]
    whole: bool,
    /// How many threads play.
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
}

#[derive(Clone, Debug)]
struct Seeds(Range<u64>);

impl FromStr for Seeds {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (from, to) = text
            .split_once("..")
            .ok_or_else(|| anyhow::anyhow!("must be two numbers with .. between them"))?;
        Ok(Self(from.parse()?..to.parse()?))
    }
}

/// Reads the command line and plays.
#[must_use]
pub fn main() -> ExitCode {
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
        let seed = match self.seed {
            Some(seed) => {
                if self.story {
                    write!(stdout(), "{}", Story::of(seed))?;
                }
                seed
            }
            None => {
                // A panic is an end of a story like others, and told at the end.
                panic::set_hook(Box::new(|_| {}));
                let begin = Instant::now();
                match run_seeds(self.seeds.0.clone(), self.threads, progress) {
                    Ok(number) => {
                        let seconds = begin.elapsed().as_secs_f64();
                        writeln!(
                            stdout(),
                            "{number} seeds in {seconds:.1} s, every invariant held"
                        )?;
                        return Ok(true);
                    }
                    Err((seed, broken)) => {
                        writeln!(stdout(), "seed {seed} broke {}", broken.name())?;
                        seed
                    }
                }
            }
        };
        match run(&Story::of(seed)) {
            Outcome::Held(report) => {
                writeln!(stdout(), "seed {seed}: every invariant held; {report:?}")?;
                return Ok(true);
            }
            Outcome::Broken(broken) if self.whole => {
                writeln!(stdout(), "seed {seed}\n{broken}")?;
                return Ok(false);
            }
            Outcome::Broken(_) => {}
        }
        panic::set_hook(Box::new(|_| {}));
        match explain(seed) {
            Some(failure) => writeln!(stdout(), "{failure}")?,
            None => writeln!(stdout(), "seed {seed}: held when it was played again")?,
        }
        Ok(false)
    }
}

fn progress(begun: u64) {
    // Whoever does not listen misses nothing.
    writeln!(stderr(), "{begun} seeds").ok();
}
