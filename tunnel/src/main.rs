//! `hawser-tunnel`: the keeper, and under it the data plane.

use clap::Parser as _;
use std::process::ExitCode;

mod args;

fn main() -> ExitCode {
    let args = args::Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(args::log_filter())
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    match args.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
