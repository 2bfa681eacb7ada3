//! What the rounds say of many peers, and what they have to.

use anyhow::Result;

use super::measurement::{BURSTS, GIGABITS, IDLE, MEMORY, PACKETS, PEAK, TUNNEL};
use super::site::{HUNDRED, MANY};
use super::{ALL, ONE};
use crate::bench::figure::{Bound, Figure};
use crate::bench::sample::Series;

/// What 100 active peers carry, to what one does: name, measurement, bound.
const RATIOS: [(&str, &str, Bound); 2] = [
    (
        "UDP in runs, 100 active peers to 1",
        BURSTS,
        Bound::AtLeast(0.9, 0.97),
    ),
    (
        "UDP one by one, 100 active peers to 1",
        PACKETS,
        Bound::Nothing,
    ),
];

/// A single value: name, condition, measurement, variant, value, unit, bound.
type Single = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    Bound,
);

const VALUES: [Single; 8] = [
    (
        "peak memory, 100 active peers",
        HUNDRED,
        MEMORY,
        ALL,
        PEAK,
        "MiB",
        Bound::Never(24.0, 12.0),
    ),
    (
        "peak memory, 25,000 peers, 200 active",
        MANY,
        MEMORY,
        ALL,
        PEAK,
        "MiB",
        Bound::Never(96.0, 48.0),
    ),
    (
        "idle, 100 active peers",
        HUNDRED,
        IDLE,
        ALL,
        TUNNEL,
        "cores",
        Bound::Nothing,
    ),
    (
        "idle, 25,000 peers, 200 active",
        MANY,
        IDLE,
        ALL,
        TUNNEL,
        "cores",
        Bound::Nothing,
    ),
    (
        "UDP in runs, 1 active peer",
        HUNDRED,
        BURSTS,
        ONE,
        GIGABITS,
        "Gbit/s",
        Bound::Nothing,
    ),
    (
        "UDP in runs, 100 active peers",
        HUNDRED,
        BURSTS,
        ALL,
        GIGABITS,
        "Gbit/s",
        Bound::Nothing,
    ),
    (
        "UDP one by one, 1 active peer",
        HUNDRED,
        PACKETS,
        ONE,
        GIGABITS,
        "Gbit/s",
        Bound::Nothing,
    ),
    (
        "UDP one by one, 100 active peers",
        HUNDRED,
        PACKETS,
        ALL,
        GIGABITS,
        "Gbit/s",
        Bound::Nothing,
    ),
];

/// Every figure that the series has values for.
pub(super) fn figures(series: &Series) -> Result<Vec<Figure>> {
    let ratios = RATIOS.iter().map(|(name, measurement, bound)| {
        let (all, one) = ((HUNDRED, *measurement, ALL), (HUNDRED, *measurement, ONE));
        let spread = series.ratio(all, one, GIGABITS);
        (*name, "ratio", *bound, spread)
    });
    let values = VALUES.iter().map(
        |(name, condition, measurement, variant, value, unit, bound)| {
            let spread = series.spread((condition, measurement, variant), value);
            (*name, *unit, *bound, spread)
        },
    );
    let mut figures = Vec::new();
    for (name, unit, bound, spread) in ratios.chain(values) {
        if let Some(spread) = spread {
            figures.push(Figure {
                name: name.to_owned(),
                unit,
                bound,
                spread: spread?,
            });
        }
    }
    Ok(figures)
}

/// What must be shown and was not measured in this run.
pub(super) fn missing(series: &Series) -> Vec<&'static str> {
    let ratios = RATIOS.iter().filter(|(_, measurement, bound)| {
        let (all, one) = ((HUNDRED, *measurement, ALL), (HUNDRED, *measurement, ONE));
        *bound != Bound::Nothing && series.ratio(all, one, GIGABITS).is_none()
    });
    let values = VALUES
        .iter()
        .filter(|(_, condition, measurement, variant, value, _, bound)| {
            let source = (*condition, *measurement, *variant);
            *bound != Bound::Nothing && series.spread(source, value).is_none()
        });
    let names = ratios.map(|ratio| ratio.0);
    names.chain(values.map(|value| value.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::sample::tests::sample;

    fn short(series: &Series) -> Vec<String> {
        let figures = figures(series).unwrap();
        let short = figures.into_iter().filter(Figure::is_short);
        short.map(|figure| figure.name).collect()
    }

    #[test]
    fn a_crowd_that_costs_is_short_by_name() {
        let series = |share: f64, hundred: f64, many: f64| {
            Series(vec![
                sample((HUNDRED, BURSTS, ONE), 1, (GIGABITS, 10.0)),
                sample((HUNDRED, BURSTS, ALL), 1, (GIGABITS, 10.0 * share)),
                sample((HUNDRED, MEMORY, ALL), 1, (PEAK, hundred)),
                sample((MANY, MEMORY, ALL), 1, (PEAK, many)),
            ])
        };
        assert_eq!(short(&series(0.9, 24.0, 96.0)), [""; 0]);
        assert_eq!(short(&series(0.89, 24.1, 96.1)).len(), 3);
        assert_eq!(missing(&series(1.0, 1.0, 1.0)), [""; 0]);
        assert_eq!(missing(&Series::default()).len(), 3);
    }
}
