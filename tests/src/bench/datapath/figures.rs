//! What the rounds say, and what they have to.

use anyhow::Result;

use super::condition::{self, BASE};
use super::measurement::{
    BOTH, CONNECTIONS, GIGABITS, IDLE_RTT, LOST, MACHINE_COST, MAX, MEAN, MEMORY, P99, PACKETS,
    PEAK, RATE, RETRANSMITS, TCP_1, TCP_4, TUNNEL_COST, UDP_64, UDP_512, UDP_1300,
};
use super::variant::{self, BORINGTUN, HAWSER, NEWEST, NULL_CIPHER, RAW, SIXTEEN_LANES, TWO_LANES};
use crate::bench::figure::{Bound, Figure};
use crate::bench::sample::Series;

/// A ratio between variants in the base condition: name, measurement, value, which, to which, bound.
type Ratio = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    Bound,
);

/// What must be shown.
const RATIOS: [Ratio; 12] = [
    (
        "TCP, 1 stream, to newest wireguard-go",
        TCP_1,
        GIGABITS,
        HAWSER,
        NEWEST,
        Bound::AtLeast(2.1, 3.0),
    ),
    (
        "TCP, 4 streams, to newest wireguard-go",
        TCP_4,
        GIGABITS,
        HAWSER,
        NEWEST,
        Bound::AtLeast(2.0, 2.8),
    ),
    (
        "TCP, 1 stream, to boringtun-cli",
        TCP_1,
        GIGABITS,
        HAWSER,
        BORINGTUN,
        Bound::AtLeast(6.0, 9.0),
    ),
    (
        "TCP, 1 stream, null cipher to newest wireguard-go",
        TCP_1,
        GIGABITS,
        NULL_CIPHER,
        NEWEST,
        Bound::AtLeast(4.0, 5.5),
    ),
    (
        "TCP, 1 stream, share of our path with a null cipher",
        TCP_1,
        GIGABITS,
        HAWSER,
        NULL_CIPHER,
        Bound::AtLeast(0.42, 0.55),
    ),
    (
        "tunnel CPU-s/GB, 1 stream, to newest wireguard-go",
        TCP_1,
        TUNNEL_COST,
        HAWSER,
        NEWEST,
        Bound::AtMost(0.50, 0.35),
    ),
    (
        "UDP 64 B, to newest wireguard-go",
        UDP_64,
        PACKETS,
        HAWSER,
        NEWEST,
        Bound::AtLeast(1.7, 2.5),
    ),
    (
        "loaded round trip, to newest wireguard-go",
        TCP_1,
        MEAN,
        HAWSER,
        NEWEST,
        Bound::AtMost(0.40, 0.25),
    ),
    (
        "idle round trip, to newest wireguard-go",
        IDLE_RTT,
        MEAN,
        HAWSER,
        NEWEST,
        Bound::AtMost(0.7, 0.4),
    ),
    (
        "TCP, both directions, to newest wireguard-go",
        BOTH,
        GIGABITS,
        HAWSER,
        NEWEST,
        Bound::Nothing,
    ),
    (
        "new connections, to newest wireguard-go",
        CONNECTIONS,
        RATE,
        HAWSER,
        NEWEST,
        Bound::Nothing,
    ),
    (
        "TCP, 1 stream, to raw",
        TCP_1,
        GIGABITS,
        HAWSER,
        RAW,
        Bound::Nothing,
    ),
];

/// What more lanes than processors cost, measured between pairs of nodes of their own.
const LANES: (&str, Bound) = ("TCP, 4 streams, 16 lanes to 2", Bound::AtLeast(0.9, 0.97));

/// Values of single variants: name, measurement, value, unit.
const VALUES: [(&str, &str, &str, &str); 19] = [
    ("TCP, 1 stream", TCP_1, GIGABITS, "Gbit/s"),
    ("TCP, 4 streams", TCP_4, GIGABITS, "Gbit/s"),
    ("TCP, both directions", BOTH, GIGABITS, "Gbit/s"),
    ("UDP 64 B", UDP_64, PACKETS, "kpackets/s"),
    ("UDP 512 B", UDP_512, PACKETS, "kpackets/s"),
    ("UDP 1300 B", UDP_1300, PACKETS, "kpackets/s"),
    ("new connections", CONNECTIONS, RATE, "1/s"),
    ("idle round trip", IDLE_RTT, MEAN, "ms"),
    ("idle pings lost", IDLE_RTT, LOST, "packets"),
    ("loaded round trip", TCP_1, MEAN, "ms"),
    ("loaded round trip, 99 %", TCP_1, P99, "ms"),
    ("loaded round trip, longest", TCP_1, MAX, "ms"),
    ("tunnel CPU, 1 stream", TCP_1, TUNNEL_COST, "CPU-s/GB"),
    ("tunnel CPU, 4 streams", TCP_4, TUNNEL_COST, "CPU-s/GB"),
    ("machine CPU, 1 stream", TCP_1, MACHINE_COST, "CPU-s/GB"),
    ("machine CPU, 4 streams", TCP_4, MACHINE_COST, "CPU-s/GB"),
    ("retransmits, 1 stream", TCP_1, RETRANSMITS, "segments"),
    ("retransmits, 4 streams", TCP_4, RETRANSMITS, "segments"),
    ("peak memory", MEMORY, PEAK, "MiB"),
];

/// What is compared with newest wireguard-go under the other conditions.
const ELSEWHERE: [(&str, &str, &str); 4] = [
    ("TCP, 1 stream", TCP_1, GIGABITS),
    ("TCP, 4 streams", TCP_4, GIGABITS),
    ("loaded round trip", TCP_1, MEAN),
    ("tunnel CPU-s/GB", TCP_1, TUNNEL_COST),
];

/// The bound of a single variant's value.
fn bound(variant: &str, measurement: &str, value: &str) -> Bound {
    match (variant, measurement, value) {
        (HAWSER, MEMORY, PEAK) => Bound::Never(8.0, 4.0),
        (HAWSER, IDLE_RTT, LOST) => Bound::Never(0.0, 0.0),
        _ => Bound::Nothing,
    }
}

/// Every figure that the series has values for.
pub(super) fn figures(series: &Series) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut add = |name: String, unit, bound, spread: Option<Result<_>>| -> Result<()> {
        if let Some(spread) = spread {
            figures.push(Figure {
                name,
                unit,
                bound,
                spread: spread?,
            });
        }
        Ok(())
    };
    for (name, measurement, value, own, base, bound) in RATIOS {
        let (own, base) = ((BASE, measurement, own), (BASE, measurement, base));
        add(
            name.to_owned(),
            "ratio",
            bound,
            series.ratio(own, base, value),
        )?;
    }
    let lanes = |variant| (condition::LANES, TCP_4, variant);
    let (sixteen, two) = (lanes(SIXTEEN_LANES), lanes(TWO_LANES));
    add(
        LANES.0.to_owned(),
        "ratio",
        LANES.1,
        series.ratio(sixteen, two, GIGABITS),
    )?;
    for condition in condition::NAMES.into_iter().filter(|name| *name != BASE) {
        for (name, measurement, value) in ELSEWHERE {
            let (own, base) = (
                (condition, measurement, HAWSER),
                (condition, measurement, NEWEST),
            );
            let name = format!("{name}, to newest wireguard-go: {condition}");
            add(
                name,
                "ratio",
                Bound::Nothing,
                series.ratio(own, base, value),
            )?;
        }
    }
    for (name, measurement, value, unit) in VALUES {
        for variant in variant::NAMES {
            let spread = series.spread((BASE, measurement, variant), value);
            let bound = bound(variant, measurement, value);
            add(format!("{name}: {variant}"), unit, bound, spread)?;
        }
    }
    for condition in condition::NAMES.into_iter().filter(|name| *name != BASE) {
        for (name, measurement, value) in ELSEWHERE {
            for variant in [NEWEST, HAWSER, TWO_LANES, SIXTEEN_LANES] {
                let spread = series.spread((condition, measurement, variant), value);
                let unit = match value {
                    MEAN => "ms",
                    TUNNEL_COST => "CPU-s/GB",
                    _ => "Gbit/s",
                };
                add(
                    format!("{name}: {variant}: {condition}"),
                    unit,
                    Bound::Nothing,
                    spread,
                )?;
            }
        }
    }
    Ok(figures)
}

/// What must be shown and was not measured in this run.
pub(super) fn missing(series: &Series) -> Vec<&'static str> {
    let missing = RATIOS
        .iter()
        .filter(|(_, measurement, value, own, base, bound)| {
            let (own, base) = ((BASE, *measurement, *own), (BASE, *measurement, *base));
            *bound != Bound::Nothing && series.ratio(own, base, value).is_none()
        });
    let mut missing: Vec<&str> = missing.map(|ratio| ratio.0).collect();
    if series.spread((BASE, MEMORY, HAWSER), PEAK).is_none() {
        missing.push("peak memory: hawser");
    }
    let lanes = |variant| (condition::LANES, TCP_4, variant);
    if series
        .ratio(lanes(SIXTEEN_LANES), lanes(TWO_LANES), GIGABITS)
        .is_none()
    {
        missing.push(LANES.0);
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::super::measurement;
    use super::*;
    use crate::bench::sample::tests::sample;

    /// Two rounds in which Hawser is as good as this compared with all others, and takes this much memory.
    fn series(factor: f64, memory: f64) -> Series {
        let mut samples = Vec::new();
        for round in [1, 2] {
            for (_, measurement, value, own, base, _) in RATIOS {
                for (variant, number) in [(own, factor), (base, 1.0)] {
                    let source = (BASE, measurement, variant);
                    let is_there = |other: &crate::bench::sample::Sample| {
                        (other.measurement, other.variant, other.round)
                            == (measurement, variant, round)
                            && other.values.contains_key(value)
                    };
                    if !samples.iter().any(is_there) {
                        samples.push(sample(source, round, (value, number)));
                    }
                }
            }
            samples.push(sample((BASE, MEMORY, HAWSER), round, (PEAK, memory)));
            for variant in [SIXTEEN_LANES, TWO_LANES] {
                let source = (condition::LANES, TCP_4, variant);
                samples.push(sample(source, round, (GIGABITS, 1.0)));
            }
        }
        Series(samples)
    }

    fn short(series: &Series) -> Vec<String> {
        let figures = figures(series).unwrap();
        let short = figures.into_iter().filter(Figure::is_short);
        short.map(|figure| figure.name).collect()
    }

    #[test]
    fn slow_is_short_by_name_in_rates_and_cheap_is_not() {
        let rates = [
            "TCP, 1 stream, to newest wireguard-go",
            "TCP, 4 streams, to newest wireguard-go",
            "TCP, 1 stream, to boringtun-cli",
            "TCP, 1 stream, null cipher to newest wireguard-go",
            "UDP 64 B, to newest wireguard-go",
        ];
        assert_eq!(short(&series(0.3, 3.0)), rates);
        let costs = [
            "tunnel CPU-s/GB, 1 stream, to newest wireguard-go",
            "loaded round trip, to newest wireguard-go",
            "idle round trip, to newest wireguard-go",
            "peak memory: hawser",
        ];
        assert_eq!(short(&series(9.0, 8.5)), costs);
    }

    #[test]
    fn a_cipher_that_takes_most_of_the_path_is_short() {
        let mut series = series(3.0, 3.0);
        for sample in &mut series.0 {
            let is_ours = (sample.measurement, sample.variant) == (TCP_1, HAWSER);
            if is_ours && let Some(gigabits) = sample.values.get_mut(GIGABITS) {
                *gigabits = 1.2;
            }
        }
        let share = "TCP, 1 stream, share of our path with a null cipher";
        assert!(short(&series).contains(&share.to_owned()));
    }

    #[test]
    fn what_must_be_shown_is_missed_when_it_was_not_measured() {
        assert_eq!(missing(&series(1.0, 3.0)), [""; 0]);
        assert_eq!(missing(&Series::default()).len(), 11);
    }

    #[test]
    fn a_lost_ping_is_short() {
        let mut series = series(1.0, 3.0);
        series
            .0
            .push(sample((BASE, IDLE_RTT, HAWSER), 1, (LOST, 1.0)));
        assert!(short(&series).contains(&"idle pings lost: hawser".to_owned()));
    }

    #[test]
    fn figures_name_measurements_that_there_are() {
        let named = RATIOS.iter().map(|ratio| ratio.1);
        let named = named.chain(VALUES.iter().map(|value| value.1));
        let mut named = named.chain(ELSEWHERE.iter().map(|value| value.1));
        assert!(named.all(|name| measurement::NAMES.contains(&name)));
    }
}
