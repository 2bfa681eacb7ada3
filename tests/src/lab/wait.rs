//! Waiting for a condition, never for a time.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `condition` holds. Errors of the condition count as "not yet"; the last one is told at the end.
///
/// # Errors
/// When `timeout` passes first: says `what` was waited for, and why it did not hold.
pub fn wait_until(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let end = Instant::now() + timeout;
    loop {
        let outcome = condition();
        if matches!(outcome, Ok(true)) {
            return Ok(());
        }
        if Instant::now() >= end {
            match outcome {
                Ok(_) => bail!("waited {timeout:?} until {what}: it did not come"),
                Err(error) => bail!("waited {timeout:?} until {what}: {error:#}"),
            }
        }
        thread::sleep(INTERVAL);
    }
}
