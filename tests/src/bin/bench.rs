//! `bench`: measures Hawser on this machine and judges every figure by its bound.

use std::io::{Write as _, stderr, stdout};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use clap::Parser;
use hawser_tests::bench::{self, Options};
use hawser_tests::io::on_interrupt;
use hawser_tests::lab;

/// Set once a signal has asked this process to end.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Measures Hawser on this machine; exits with 1 when a figure falls short of its bound.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let Arguments { options } = Arguments::parse();
    let result = on_interrupt(|signal| {
        INTERRUPTED.store(true, Ordering::SeqCst);
        writeln!(stderr(), "\n{signal}: removing the lab").ok();
        lab::remove_live_labs();
        std::process::exit(128 + signal as i32);
    })
    .and_then(|()| bench::run(&options, &mut stdout().lock()));
    // The lab is being taken away under the bench: what it says of that is no result.
    while INTERRUPTED.load(Ordering::SeqCst) {
        thread::park();
    }
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let line = format!("{error:#}").replace('\n', "; ");
            writeln!(stderr(), "error: {line}").ok();
            ExitCode::FAILURE
        }
    }
}
