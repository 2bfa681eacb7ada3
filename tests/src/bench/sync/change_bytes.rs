//! What one change of a large service costs on the wire.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::measurement::{BYTES, GROSS};
use super::site::{LOST, Site};
use crate::bench::meter::{Meter, Usage};
use crate::bench::sample::Values;

/// Changes a second: each has long been acknowledged before the next.
pub(super) const RATE: u32 = 2;
/// Nothing that a measurement began is still to come.
const SETTLED: Duration = Duration::from_secs(6);

pub(super) fn measure(site: &mut Site, seconds: u32) -> Result<(Values, Usage)> {
    ensure!(site.size().backends() > 0, "no large service");
    let count = RATE * seconds;
    let changes: Vec<_> = (0..count)
        .map(|_| site.next_backend())
        .collect::<Result<_>>()?;
    let watch = site.watch()?;
    let time = Duration::from_secs(seconds.into());
    settle(site)?;
    let ((idle, busy), usage) = Meter::new(Vec::new()).measure(|| {
        let start = site.bytes()?;
        thread::sleep(time);
        let middle = site.bytes()?;
        let begun = Instant::now();
        for (number, change) in (0..).zip(changes) {
            let due = begun + Duration::from_secs(1) * number / RATE;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let written = site.far().write(0, vec![change])?;
            watch.wait_for(&written, LOST)?;
        }
        thread::sleep((begun + time).saturating_duration_since(Instant::now()));
        let end = site.bytes()?;
        Ok((middle - start, end - middle))
    })?;
    let (idle, busy, count) = (idle as f64, busy as f64, f64::from(count));
    let values = [(BYTES, (busy - idle) / count), (GROSS, busy / count)];
    Ok((values.into(), usage))
}

/// Waits until the two sides have said what they say some seconds after a change.
fn settle(site: &Site) -> Result<()> {
    site.settle()?;
    thread::sleep(SETTLED);
    Ok(())
}
