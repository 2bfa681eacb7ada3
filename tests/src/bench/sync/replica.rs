//! What it takes an agent to go on with another replica of its hub.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::cold::MEBIBYTE;
use super::measurement::{SECONDS, SHARE, SNAPSHOT};
use super::site::Site;
use crate::bench::meter::{Meter, Usage};
use crate::bench::sample::Values;
use crate::lab::wait_until;

/// Longer than anybody waits.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn measure(site: &mut Site) -> Result<(Values, Usage)> {
    if site.snapshot == 0 {
        // Nothing to compare with yet.
        super::cold::measure(site)?;
    }
    site.start_hub(site.other())?;
    let (watch, socket) = (site.watch()?, site.socket());
    let serving = site.serving_address();
    ensure!(
        socket.status()?.follows(serving),
        "the agent does not follow {serving}"
    );
    let before = site.bytes()?;
    let (took, usage) = Meter::new(Vec::new()).measure(|| {
        let start = Instant::now();
        site.kill_hub()?;
        let (other, wanted) = (site.serving_address(), site.far().versions()?);
        wait_until("the agent follows the other hub", PATIENCE, || {
            let status = socket.status()?;
            Ok(status.follows(other) && status.has(&wanted)?)
        })?;
        Ok(start.elapsed())
    })?;
    site.turn_one(&watch)?;
    let bytes = site.bytes()? - before;
    let values = [
        (SECONDS, took.as_secs_f64()),
        (SNAPSHOT, bytes as f64 / MEBIBYTE),
        (SHARE, bytes as f64 / site.snapshot as f64),
    ];
    Ok((values.into(), usage))
}
