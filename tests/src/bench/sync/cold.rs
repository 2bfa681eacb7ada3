//! How long an agent takes that has kept nothing.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::measurement::{SECONDS, SNAPSHOT};
use super::site::Site;
use crate::bench::meter::{Meter, Usage};
use crate::bench::sample::Values;

/// Longer than anybody waits.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of a MiB.
pub(super) const MEBIBYTE: f64 = 1_048_576.0;

pub(super) fn measure(site: &mut Site) -> Result<(Values, Usage)> {
    site.forget()?;
    let before = site.bytes()?;
    let (took, usage) = Meter::new(Vec::new()).measure(|| {
        let start = Instant::now();
        site.start_agent()?;
        site.wait_complete(PATIENCE)?;
        Ok(start.elapsed())
    })?;
    site.snapshot = site.bytes()? - before;
    let values = [
        (SECONDS, took.as_secs_f64()),
        (SNAPSHOT, site.snapshot as f64 / MEBIBYTE),
    ];
    Ok((values.into(), usage))
}
