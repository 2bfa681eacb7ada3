//! What a cluster costs others that changes far more than its quota allows: their time, and their hub's memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use super::changes;
use super::far::Flood;
use super::measurement::{CHANGED, HUB_MORE, MEDIAN, MEDIANS, TAIL, TAILS};
use super::site::Site;
use crate::bench::meter::{Usage, resident_memory};
use crate::bench::sample::Values;

/// Changes a second of that cluster alone.
pub(super) const RATE: u32 = 50_000;
/// How many of them are one revision.
const AT_ONCE: u32 = 100;
/// Longer than it takes to use up what a quota allows at once.
const BURST: Duration = Duration::from_secs(1);
/// How many revisions may be ordered and not written yet.
const AHEAD: u32 = 50;

pub(super) fn measure(site: &mut Site, seconds: u32) -> Result<(Values, Usage)> {
    let (calm, _) = changes::measure(site, seconds)?;
    let before = resident_memory(site.hub()?)?;
    let source = site.flood()?;
    let stop = AtomicBool::new(false);
    let (flooded, measured) = thread::scope(|scope| {
        let flood = scope.spawn(|| flood(source, &stop));
        thread::sleep(BURST);
        let measured = changes::measure_busy(site, seconds);
        stop.store(true, Ordering::Relaxed);
        (flood.join(), measured)
    });
    let rate = flooded.map_err(|_| anyhow!("the flood panicked"))??;
    let (stormy, usage) = measured?;
    let after = resident_memory(site.hub()?)?;
    let ratio = |name| -> Result<f64> {
        let of = |values: &Values| values.get(name).copied().context("not measured");
        Ok(of(&stormy)? / of(&calm)?)
    };
    let mut values = Values::from([
        (MEDIANS, ratio(MEDIAN)?),
        (TAILS, ratio(TAIL)?),
        (HUB_MORE, (after - before).max(0.0)),
        (CHANGED, rate),
    ]);
    for name in [MEDIAN, TAIL] {
        values.extend(stormy.get(name).map(|value| (name, *value)));
    }
    // What is still under way is not the next measurement's.
    site.wait_calm()?;
    Ok((values, usage))
}

/// Writes until it is told to stop. Returns how many changes a second were written.
fn flood(mut source: Flood, stop: &AtomicBool) -> Result<f64> {
    let (tell, told) = mpsc::channel();
    let (start, mut ordered, mut written) = (Instant::now(), 0, 0);
    while !stop.load(Ordering::Relaxed) {
        let due = start + Duration::from_secs(1) * AT_ONCE * ordered / RATE;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        written += u32::try_from(told.try_iter().count())?;
        if ordered - written < AHEAD {
            source.write(AT_ONCE, &tell)?;
            ordered += 1;
        }
    }
    Ok(f64::from(AT_ONCE * written) / start.elapsed().as_secs_f64())
}
