//! Changes of a wire over time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Direction, Impairment, Way};

/// When a change comes into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum At {
    /// So long after the schedule was installed.
    Elapsed(Duration),
    /// With this frame (from 0) of each direction that changes.
    Frame(u64),
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// When.
    pub at: At,
    /// For which frames.
    pub direction: Direction,
    /// What is in force from then on.
    pub impairment: Impairment,
}

/// Changes of a wire over time. Between them things stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    steps: Vec<Step>,
    /// After so long the steps that go by time begin again, and again.
    period: Option<Duration>,
}

impl Schedule {
    /// Changes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// So long after the schedule is installed, `impairment` comes into force.
    #[must_use]
    pub fn after(mut self, time: Duration, direction: Direction, impairment: Impairment) -> Self {
        let at = At::Elapsed(time);
        self.steps.push(Step {
            at,
            direction,
            impairment,
        });
        self
    }

    /// From frame `ordinal` (from 0) of each direction on, `impairment` is in force.
    #[must_use]
    pub fn at_frame(mut self, ordinal: u64, direction: Direction, impairment: Impairment) -> Self {
        let at = At::Frame(ordinal);
        self.steps.push(Step {
            at,
            direction,
            impairment,
        });
        self
    }

    /// Begins anew after `period`, without end.
    #[must_use]
    pub const fn repeating(mut self, period: Duration) -> Self {
        self.period = Some(period);
        self
    }

    /// A link that flaps without end: `up` long clean, then `down` long cut.
    #[must_use]
    pub fn flapping(up: Duration, down: Duration, direction: Direction) -> Self {
        Self::new()
            .after(Duration::ZERO, direction, Impairment::default())
            .after(up, direction, Impairment::cut())
            .repeating(up + down)
    }

    /// Its steps.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Checks that a period has room for the steps that it repeats.
    ///
    /// # Errors
    /// One line that names the field, the value and the rule.
    pub fn check(&self) -> Result<()> {
        let Some(period) = self.period else {
            return Ok(());
        };
        let times = self.steps.iter().filter_map(|step| match step.at {
            At::Elapsed(time) => Some(time),
            At::Frame(_) => None,
        });
        let last = times.max().unwrap_or_default();
        ensure!(
            period > last && period >= SHORTEST,
            "period: {period:?}: must be 1 ms at least and longer than the time of the last step, {last:?}"
        );
        Ok(())
    }
}

/// A shorter period would change nothing that a single frame could meet.
const SHORTEST: Duration = Duration::from_millis(1);

/// A schedule under way.
#[derive(Debug)]
pub(super) struct Course {
    /// Steps by time, sorted.
    timed: Vec<(Duration, Direction, Impairment)>,
    next: usize,
    /// When the first of them counts from; moves on with each period.
    start: Instant,
    period: Option<Duration>,
    /// Steps by frame, sorted, of each direction.
    counted: [VecDeque<(u64, Impairment)>; 2],
}

impl Course {
    pub(super) fn new(schedule: &Schedule, now: Instant) -> Self {
        let (mut timed, mut counted) = (Vec::new(), [Vec::new(), Vec::new()]);
        for step in &schedule.steps {
            match step.at {
                At::Elapsed(time) => timed.push((time, step.direction, step.impairment)),
                At::Frame(ordinal) => {
                    for way in step.direction.ways() {
                        counted[way.index()].push((ordinal, step.impairment));
                    }
                }
            }
        }
        // Both sorts are stable: of steps at the same time the later written is in force.
        timed.sort_by_key(|(time, _, _)| *time);
        for steps in &mut counted {
            steps.sort_by_key(|(ordinal, _)| *ordinal);
        }
        Self {
            timed,
            next: 0,
            start: now,
            period: schedule.period,
            counted: counted.map(VecDeque::from),
        }
    }

    /// The next change by time that is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<(Direction, Impairment)> {
        if self.next == self.timed.len() {
            let period = self.period.filter(|_| !self.timed.is_empty())?;
            if self.start + period > now {
                return None;
            }
            self.start += period;
            self.next = 0;
        }
        let (time, direction, impairment) = *self.timed.get(self.next)?;
        if self.start + time > now {
            return None;
        }
        self.next += 1;
        Some((direction, impairment))
    }

    /// What comes into force with frame `ordinal` at the latest.
    pub(super) fn due_at_frame(&mut self, way: Way, ordinal: u64) -> Option<Impairment> {
        let steps = &mut self.counted[way.index()];
        let mut found = None;
        while steps.front().is_some_and(|(at, _)| *at <= ordinal) {
            found = steps.pop_front().map(|(_, impairment)| impairment);
        }
        found
    }
}
