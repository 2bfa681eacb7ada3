//! The one place where time reaches boringtun, which reads its own clock.

use std::time::Instant;

/// Whether this build's sessions live on time that tests drive. The binaries refuse to start then.
pub const SIMULATED_CLOCK: bool = cfg!(feature = "sim");

/// Tells the engine's clock what time the caller says it is.
#[cfg(not(feature = "sim"))]
pub(crate) fn observe(_now: Instant) {}

/// Tells the engine's clock what time the caller says it is. All nodes of a simulated world live on
/// one thread and so share the clock.
#[cfg(feature = "sim")]
pub(crate) fn observe(now: Instant) {
    thread_local!(static EPOCH: std::cell::OnceCell<Instant> = const { std::cell::OnceCell::new() });
    let since = EPOCH.with(|epoch| now.saturating_duration_since(*epoch.get_or_init(|| now)));
    mock_instant::MockClock::set_time(since);
}
