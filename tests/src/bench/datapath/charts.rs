//! The plots: throughput, cost, round trip and rates of every variant.

use super::condition::BASE;
use super::measurement::{
    BOTH, GIGABITS, MEAN, PACKETS, TCP_1, TCP_4, TUNNEL_COST, UDP_64, UDP_512, UDP_1300,
};
use super::variant::{self, HAWSER, NULL_CIPHER, RAW};
use crate::bench::chart::{Bar, Chart};
use crate::bench::sample::Series;

/// Title and measurement of a group, and which value of it is drawn.
type Group = (&'static str, &'static str, &'static str);

/// A chart: file, title, unit, groups, and whether the bare network is drawn: where it is many times as fast, or free,
/// nothing else could be told apart.
type Plot = (
    &'static str,
    &'static str,
    &'static str,
    &'static [Group],
    bool,
);

const PLOTS: [Plot; 4] = [
    (
        "throughput",
        "TCP throughput",
        "Gbit/s",
        &[
            ("1 stream", TCP_1, GIGABITS),
            ("4 streams", TCP_4, GIGABITS),
            ("both directions at once, sum", BOTH, GIGABITS),
        ],
        false,
    ),
    (
        "cost",
        "Processor time of the tunnel's processes, both ends",
        "CPU-s/GB",
        &[
            ("1 stream", TCP_1, TUNNEL_COST),
            ("4 streams", TCP_4, TUNNEL_COST),
        ],
        false,
    ),
    (
        "loaded-round-trip",
        "Mean round trip during TCP with 1 stream",
        "ms",
        &[("TCP, 1 stream", TCP_1, MEAN)],
        false,
    ),
    (
        "datagrams",
        "UDP rate with at most 0.1 % loss",
        "1,000 packets/s",
        &[
            ("64 B", UDP_64, PACKETS),
            ("512 B", UDP_512, PACKETS),
            ("1300 B", UDP_1300, PACKETS),
        ],
        true,
    ),
];

/// Every chart with what was measured in the base condition.
pub(super) fn charts(series: &Series) -> Vec<Chart> {
    let charts = PLOTS.iter().map(|(file, title, unit, groups, with_raw)| {
        let mut chart = Chart {
            file,
            title,
            unit,
            groups: Vec::new(),
        };
        for (title, measurement, value) in *groups {
            let variants = variant::NAMES.into_iter();
            let variants = variants.filter(|variant| *variant != RAW || *with_raw);
            let bars = variants.filter_map(|variant| {
                let spread = series.spread((BASE, measurement, variant), value)?.ok()?;
                Some(Bar {
                    label: variant.to_owned(),
                    spread,
                    ours: [HAWSER, NULL_CIPHER].contains(&variant),
                })
            });
            chart.group(title, bars);
        }
        chart
    });
    charts.filter(|chart| !chart.groups.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::sample::tests::sample;

    #[test]
    fn only_what_was_measured_is_drawn_and_raw_only_where_it_tells_something() {
        let series = Series(vec![
            sample((BASE, TCP_1, RAW), 1, (GIGABITS, 30.0)),
            sample((BASE, TCP_1, HAWSER), 1, (GIGABITS, 4.0)),
            sample((BASE, UDP_64, RAW), 1, (PACKETS, 300.0)),
        ]);
        let charts = charts(&series);
        let drawn: Vec<(&str, &str)> = charts
            .iter()
            .flat_map(|chart| {
                chart
                    .groups
                    .iter()
                    .map(|(_, bars)| (chart.file, bars[0].label.as_str()))
            })
            .collect();
        assert_eq!(drawn, [("throughput", HAWSER), ("datagrams", RAW)]);
    }
}
