//! How many lanes are open: more while those that are open have no time left, fewer when they have it again.
//!
//! A lane that is open gets flows that begin; a flow stays where it is while it carries (see [`crate::steering`]). An
//! open lane that is not needed costs wake-ups and batches that are half as long, so nodes with little to carry use few.
//! Lanes open fast, for packets are waiting, and close slowly: load that pauses comes back.

use std::num::NonZero;
use std::time::Duration;

/// An open lane that is busy for more than this, in percent, has no time left ...
const FULL: u32 = 80;

/// ... and one more helps if all that are open are busy for more than this on average. A single flow fills its lane, and
/// would fill no other.
const SHARED: u32 = 60;

/// How long that must last: two samples, so that a burst opens nothing.
const OPEN_AFTER: Duration = Duration::from_millis(150);

/// The load would leave one lane fewer busy for less than this, in percent. Far enough from [`SHARED`] for a lane that
/// was closed not to open again.
const SLACK: u32 = 50;

/// How long that must last.
const CLOSE_AFTER: Duration = Duration::from_secs(10);

/// Waiting counts as much as so many times the running: who waits longer than that for a little work suffers from others
/// on its processor, and would from them on another.
const WAITING: u32 = 3;

/// What the processors did for a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// It ran for so long.
    pub ran: Duration,
    /// It had work for so long and no processor.
    pub waited: Duration,
}

impl Usage {
    /// What was added to an earlier reading of the same thread.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            ran: self.ran.saturating_sub(earlier.ran),
            waited: self.waited.saturating_sub(earlier.waited),
        }
    }

    /// How long it had work. Where processors are short, a thread has no time left though it hardly runs.
    #[must_use]
    pub fn busy(self) -> Duration {
        self.ran + self.waited.min(self.ran * WAITING)
    }
}

/// The number of open lanes.
#[derive(Clone, Copy, Debug)]
pub struct Balance {
    least: u8,
    most: u8,
    open: u8,
    /// For how long those that are open have had no time left.
    full: Duration,
    /// For how long one fewer would have done.
    slack: Duration,
}

impl Balance {
    /// For a node with `lanes` lanes, `least` of which are always open; they are at first. More lanes than processors
    /// would take time from each other.
    #[must_use]
    pub fn new(least: u8, lanes: u8, processors: NonZero<usize>) -> Self {
        let least = least.clamp(1, lanes.max(1));
        let processors = u8::try_from(processors.get()).unwrap_or(u8::MAX);
        Self {
            least,
            most: lanes.min(processors).max(least),
            open: least,
            full: Duration::ZERO,
            slack: Duration::ZERO,
        }
    }

    /// How many lanes are open.
    #[must_use]
    pub fn open(&self) -> u8 {
        self.open
    }

    /// How many may be.
    #[must_use]
    pub fn most(&self) -> u8 {
        self.most
    }

    /// Hears for how long each lane was busy within `elapsed`. The new number of open lanes, if it changes.
    pub fn handle_sample(&mut self, busy: &[Duration], elapsed: Duration) -> Option<u8> {
        let open = u32::from(self.open);
        let lanes = busy.iter().map(|busy| (*busy).min(elapsed));
        let among_open = || lanes.clone().take(usize::from(self.open));
        let fullest = among_open().max().unwrap_or_default();
        let is_full = fullest * 100 > elapsed * FULL
            && among_open().sum::<Duration>() * 100 > elapsed * SHARED * open;
        // Flows that began in a lane which was closed since are load as well.
        let load: Duration = lanes.sum();
        let has_slack = load * 100 < elapsed * SLACK * (open - 1);
        let lasts = |so_far: Duration, holds| match holds {
            true => so_far + elapsed,
            false => Duration::ZERO,
        };
        self.full = lasts(self.full, is_full && self.open < self.most);
        self.slack = lasts(self.slack, has_slack && self.open > self.least);
        if self.full >= OPEN_AFTER {
            self.open += 1;
        } else if self.slack >= CLOSE_AFTER {
            self.open -= 1;
        } else {
            return None;
        }
        (self.full, self.slack) = (Duration::ZERO, Duration::ZERO);
        Some(self.open)
    }
}

#[cfg(test)]
mod tests;
