//! One-way delays, kept in little memory however long a load runs.

use std::time::Duration;

use serde::Serialize;

/// Steps within each power of two: an answer is at most 3 % too high.
const STEPS: usize = 32;
/// Bits of [`STEPS`].
const STEP_BITS: usize = 5;

/// Delays that half, 90 % and 99 % of all packets stayed below, and the longest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Half stayed below.
    pub p50: Duration,
    /// 90 % stayed below.
    pub p90: Duration,
    /// 99 % stayed below.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

/// Counts delays in steps that grow with the delay.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; STEPS * 64],
            total: 0,
            max: 0,
        }
    }
}

impl Histogram {
    /// Adds a delay in microseconds.
    pub(super) fn add(&mut self, micros: u64) {
        self.counts[slot(micros)] += 1;
        self.total += 1;
        self.max = self.max.max(micros);
    }

    pub(super) fn latency(&self) -> Latency {
        let below = |percent: u64| {
            let wanted = (self.total * percent).div_ceil(100);
            let mut seen = 0;
            for (slot, count) in self.counts.iter().enumerate() {
                seen += count;
                if seen >= wanted && seen > 0 {
                    return Duration::from_micros(end_of(slot).min(self.max));
                }
            }
            Duration::ZERO
        };
        Latency {
            p50: below(50),
            p90: below(90),
            p99: below(99),
            max: Duration::from_micros(self.max),
        }
    }
}

fn slot(micros: u64) -> usize {
    let Ok(value) = usize::try_from(micros) else {
        return STEPS * 64 - 1;
    };
    if value < STEPS {
        return value;
    }
    let power = usize::BITS as usize - 1 - value.leading_zeros() as usize;
    (power - STEP_BITS + 1) * STEPS + (value >> (power - STEP_BITS)) % STEPS
}

/// The longest delay that falls into a slot.
fn end_of(slot: usize) -> u64 {
    let (power, step) = (slot / STEPS, slot % STEPS);
    let end = if power == 0 {
        step
    } else {
        ((STEPS + step + 1) << (power - 1)) - 1
    };
    u64::try_from(end).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_slot_and_slots_are_narrow() {
        for value in (0..5000).chain([65_535, 65_536, 1_000_000, 3_600_000_000]) {
            let end = end_of(slot(value));
            assert!(end >= value && end <= value + value / 16, "{value} {end}");
            assert!(
                slot(value) == 0 || end_of(slot(value) - 1) < value,
                "{value}"
            );
        }
    }

    #[test]
    fn percentiles_of_a_hundred_values() {
        let mut histogram = Histogram::default();
        for value in 1..=100 {
            histogram.add(value * 10);
        }
        let latency = histogram.latency();
        assert!(
            (500..=516).contains(&latency.p50.as_micros()),
            "{latency:?}"
        );
        assert!(
            (990..=1000).contains(&latency.p99.as_micros()),
            "{latency:?}"
        );
        assert_eq!(latency.max, Duration::from_millis(1));
    }
}
