//! `hawser hub`: runs the hub of a cluster.

use super::{HubArgs, Outcome, log};
use crate::config::hub_yaml::HubConfig;
use crate::hub::run;

/// Runs it in the foreground, or only checks its file.
pub(super) fn run(args: &HubArgs, format: log::LogFormat) -> Outcome {
    let config = HubConfig::load(&args.config, args.source.as_deref())?;
    if args.check {
        run::check(&config)?;
        return Ok(());
    }
    log::start(format)?;
    // Two threads: one decides, the other encrypts.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let done = runtime.block_on(run::run(config));
    runtime.shutdown_background();
    Ok(done?)
}
