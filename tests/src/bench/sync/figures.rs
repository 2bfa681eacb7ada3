//! What the rounds say of clusters that learn of each other, and what they have to.

use anyhow::Result;

use super::VARIANT;
use super::measurement::{
    AGENT_CORES, AGENT_PEAK, BYTES, CHANGES, CHURN, COLD, FLOOD, HUB_CORES, HUB_MORE, HUB_PEAK,
    MEDIAN, MEDIANS, MEMORY, ONE_CHANGE, REPLICA, SECONDS, SHARE, SLOW, SNAPSHOT, TAIL, TAILS,
    TUNNEL_CORES, TUNNEL_PEAK,
};
use super::size::{BOUNDS, CURVE, TEN};
use crate::bench::figure::{Bound, Figure};
use crate::bench::sample::Series;

/// A value: what it is called on the page, measurement, value, unit, bound.
type Value = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    Bound,
);

/// What is measured in every size; the bounds are of [`BOUNDS`] alone.
const VALUES: [Value; 21] = [
    (
        "cold start of an agent",
        COLD,
        SECONDS,
        "s",
        Bound::AtMost(5.0, 2.5),
    ),
    (
        "change to visible, p50",
        CHANGES,
        MEDIAN,
        "ms",
        Bound::AtMost(50.0, 25.0),
    ),
    (
        "change to visible, p99",
        CHANGES,
        TAIL,
        "ms",
        Bound::AtMost(250.0, 100.0),
    ),
    (
        "agent, 325 changes/s",
        CHANGES,
        AGENT_CORES,
        "cores",
        Bound::AtMost(0.5, 0.25),
    ),
    (
        "peak memory of the agent",
        MEMORY,
        AGENT_PEAK,
        "MiB",
        Bound::Never(200.0, 150.0),
    ),
    (
        "peak memory of the hub",
        MEMORY,
        HUB_PEAK,
        "MiB",
        Bound::Never(1536.0, 512.0),
    ),
    (
        "one endpoint of a large service",
        ONE_CHANGE,
        BYTES,
        "bytes",
        Bound::AtMost(300.0, 250.0),
    ),
    (
        "pods that concern nobody",
        CHURN,
        BYTES,
        "bytes",
        Bound::Never(0.0, 0.0),
    ),
    (
        "change to visible beside agents that do not read, p50",
        SLOW,
        MEDIAN,
        "ms",
        Bound::AtMost(50.0, 25.0),
    ),
    (
        "change to visible beside agents that do not read, p99",
        SLOW,
        TAIL,
        "ms",
        Bound::AtMost(250.0, 100.0),
    ),
    (
        "hub memory for agents that do not read",
        SLOW,
        HUB_MORE,
        "MiB",
        Bound::AtMost(32.0, 16.0),
    ),
    (
        "change to visible beside a flood to that without, p50",
        FLOOD,
        MEDIANS,
        "ratio",
        Bound::AtMost(2.0, 1.5),
    ),
    (
        "change to visible beside a flood to that without, p99",
        FLOOD,
        TAILS,
        "ratio",
        Bound::AtMost(2.0, 1.5),
    ),
    (
        "hub memory for a flood",
        FLOOD,
        HUB_MORE,
        "MiB",
        Bound::AtMost(32.0, 16.0),
    ),
    (
        "agent on another replica",
        REPLICA,
        SECONDS,
        "s",
        Bound::Never(2.0, 1.0),
    ),
    (
        "change of replica to a snapshot",
        REPLICA,
        SHARE,
        "ratio",
        Bound::Never(0.05, 0.02),
    ),
    ("snapshot", COLD, SNAPSHOT, "MiB", Bound::Nothing),
    (
        "hub, 325 changes/s",
        CHANGES,
        HUB_CORES,
        "cores",
        Bound::Nothing,
    ),
    (
        "data plane, 325 changes/s",
        CHANGES,
        TUNNEL_CORES,
        "cores",
        Bound::Nothing,
    ),
    (
        "peak memory of the data plane",
        MEMORY,
        TUNNEL_PEAK,
        "MiB",
        Bound::Nothing,
    ),
    (
        "change of replica",
        REPLICA,
        SNAPSHOT,
        "MiB",
        Bound::Nothing,
    ),
];

/// Every figure that the series has values for, those with bounds first.
pub(super) fn figures(series: &Series) -> Result<Vec<Figure>> {
    let (mut bounded, mut others) = (Vec::new(), Vec::new());
    for condition in [BOUNDS, CURVE, TEN] {
        for (name, measurement, value, unit, bound) in VALUES {
            let Some(spread) = series.spread((condition, measurement, VARIANT), value) else {
                continue;
            };
            let bound = if condition == BOUNDS {
                bound
            } else {
                Bound::Nothing
            };
            let figure = Figure {
                name: format!("{name}, {condition}"),
                unit,
                bound,
                spread: spread?,
            };
            if bound == Bound::Nothing {
                others.push(figure);
            } else {
                bounded.push(figure);
            }
        }
    }
    bounded.append(&mut others);
    Ok(bounded)
}

/// What must be shown and was not measured in this run.
pub(super) fn missing(series: &Series) -> Vec<&'static str> {
    let must = VALUES.iter().filter(|value| value.4 != Bound::Nothing);
    must.filter(|(_, measurement, value, ..)| {
        series
            .spread((BOUNDS, measurement, VARIANT), value)
            .is_none()
    })
    .map(|value| value.0)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::sample::tests::sample;

    /// A round in which everything is a little more than it may be, or not.
    fn series(condition: &'static str, more: f64) -> Series {
        let values = [
            (COLD, SECONDS, 5.0),
            (CHANGES, MEDIAN, 50.0),
            (CHANGES, TAIL, 250.0),
            (CHANGES, AGENT_CORES, 0.5),
            (MEMORY, AGENT_PEAK, 200.0),
            (MEMORY, HUB_PEAK, 1536.0),
            (ONE_CHANGE, BYTES, 300.0),
            (CHURN, BYTES, 0.0),
            (SLOW, MEDIAN, 50.0),
            (SLOW, TAIL, 250.0),
            (SLOW, HUB_MORE, 32.0),
            (FLOOD, MEDIANS, 2.0),
            (FLOOD, TAILS, 2.0),
            (FLOOD, HUB_MORE, 32.0),
            (REPLICA, SECONDS, 2.0),
            (REPLICA, SHARE, 0.05),
        ];
        let mut samples = Vec::new();
        for (measurement, value, most) in values {
            let source = (condition, measurement, VARIANT);
            samples.push(sample(source, 1, (value, most + more)));
        }
        Series(samples)
    }

    #[test]
    fn what_costs_too_much_is_short_by_name() {
        let short = |more| {
            let figures = figures(&series(BOUNDS, more)).unwrap();
            figures.iter().filter(|figure| figure.is_short()).count()
        };
        assert_eq!((short(0.0), short(0.01)), (0, 16));
        assert_eq!(missing(&series(BOUNDS, 0.0)), [""; 0]);
    }

    #[test]
    fn bounds_are_of_one_size() {
        let figures = figures(&series(CURVE, 1000.0)).unwrap();
        assert_eq!(figures.len(), 16);
        assert!(figures.iter().all(|figure| figure.bound == Bound::Nothing));
        assert_eq!(missing(&series(CURVE, 0.0)).len(), 16);
    }
}
