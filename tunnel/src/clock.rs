//! The one place where time reaches boringtun, which reads its own clock, and stamps, which are of the world's.

use std::time::{Duration, Instant};

/// Whether this build's sessions live on time that tests drive. The binaries refuse to start then.
pub const SIMULATED_CLOCK: bool = cfg!(feature = "sim");

/// Tells the engine's clock what time the caller says it is.
#[cfg(not(feature = "sim"))]
pub(crate) fn observe(_now: Instant) {}

/// Tells the engine's clock what time the caller says it is. All nodes of a simulated world live on
/// one thread and so share the clock.
#[cfg(feature = "sim")]
pub(crate) fn observe(now: Instant) {
    mock_instant::MockClock::set_time(since_start(now));
}

/// Simulated time that has passed on this thread.
#[cfg(feature = "sim")]
fn since_start(now: Instant) -> Duration {
    thread_local!(static EPOCH: std::cell::OnceCell<Instant> = const { std::cell::OnceCell::new() });
    EPOCH.with(|epoch| now.saturating_duration_since(*epoch.get_or_init(|| now)))
}

/// The time since 1970, for the stamps by which a peer tells a new handshake from an old one: also after a restart, when
/// there is nothing to compare with but the world's clock.
#[cfg(not(feature = "sim"))]
pub(crate) fn since_epoch(_now: Instant) -> Duration {
    crate::io::clock::since_epoch()
}

/// The same by simulated time; it grows with each question, as nodes are restarted in no time.
#[cfg(feature = "sim")]
pub(crate) fn since_epoch(now: Instant) -> Duration {
    use std::cell::Cell;
    thread_local!(static LAST: Cell<Duration> = const { Cell::new(Duration::ZERO) });
    let last = LAST.get() + Duration::from_nanos(1);
    LAST.set(last.max(since_start(now)));
    LAST.get()
}
