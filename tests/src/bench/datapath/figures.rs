//! What the rounds of the datapath bench say, and what they have to.

use anyhow::{Result, ensure};

use crate::bench::figure::{Figure, Must};
use crate::bench::round::Round;
use crate::bench::spread::Spread;

/// Below this fraction of the bare network something is broken, whatever the machine.
const LEAST_RATIO: f64 = 0.02;
/// What a data plane with few peers may take, in MiB.
const MOST_MEMORY: f64 = 8.0;

/// Every figure of the rounds that count.
pub(in super::super) fn figures(rounds: &[Round]) -> Result<Vec<Figure>> {
    let kept: Vec<&Round> = rounds.iter().filter(|round| round.kept).collect();
    ensure!(!kept.is_empty(), "no round was kept");
    let spread = |value: fn(&Round) -> f64| Spread::of(kept.iter().map(|r| value(r)).collect());
    let raw = spread(|round| round.raw.gigabits)?;
    let one = spread(|round| round.one.gigabits)?;
    let many = spread(|round| round.many.gigabits)?;
    let ratio = Must::AtLeast(LEAST_RATIO);
    let none = Must::Nothing;
    let rows = [
        (
            "Hawser TCP, 1 stream, to raw",
            "ratio",
            ratio,
            one.ratio(&raw)?,
        ),
        (
            "Hawser TCP, 4 streams, to raw 1 stream",
            "ratio",
            ratio,
            many.ratio(&raw)?,
        ),
        ("raw TCP, 1 stream", "Gbit/s", none, raw),
        ("Hawser TCP, 1 stream", "Gbit/s", none, one),
        ("Hawser TCP, 4 streams", "Gbit/s", none, many),
        (
            "raw TCP, 1 stream, retransmits",
            "segments",
            none,
            spread(|r| r.raw.retransmits as f64)?,
        ),
        (
            "Hawser TCP, 1 stream, retransmits",
            "segments",
            none,
            spread(|r| r.one.retransmits as f64)?,
        ),
        (
            "Hawser TCP, 4 streams, retransmits",
            "segments",
            none,
            spread(|r| r.many.retransmits as f64)?,
        ),
        (
            "raw round trip, idle",
            "ms",
            none,
            spread(|r| r.raw_echo.milliseconds)?,
        ),
        (
            "Hawser round trip, idle",
            "ms",
            none,
            spread(|r| r.echo.milliseconds)?,
        ),
        (
            "Hawser pings lost, idle",
            "packets",
            Must::AtMost(0.0),
            spread(|r| f64::from(r.echo.lost))?,
        ),
        (
            "tunnel processor time, 1 stream",
            "CPU-s/GB",
            none,
            spread(|r| r.one.tunnel_cost())?,
        ),
        (
            "tunnel processor time, 4 streams",
            "CPU-s/GB",
            none,
            spread(|r| r.many.tunnel_cost())?,
        ),
        (
            "machine processor time, raw",
            "CPU-s/GB",
            none,
            spread(|r| r.raw.machine_cost())?,
        ),
        (
            "machine processor time, Hawser 1 stream",
            "CPU-s/GB",
            none,
            spread(|r| r.one.machine_cost())?,
        ),
        (
            "machine processor time, Hawser 4 streams",
            "CPU-s/GB",
            none,
            spread(|r| r.many.machine_cost())?,
        ),
        (
            "data plane peak memory",
            "MiB",
            Must::AtMost(MOST_MEMORY),
            spread(|r| r.peak_memory)?,
        ),
        ("noise of others", "cores", none, spread(Round::noise)?),
    ];
    let figure = |(name, unit, must, spread)| Figure {
        name,
        unit,
        must,
        spread,
    };
    Ok(rows.map(figure).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::round::tests::round;

    fn figure<'a>(figures: &'a [Figure], name: &str) -> &'a Figure {
        figures.iter().find(|figure| figure.name == name).unwrap()
    }

    #[test]
    fn figures_are_made_of_the_kept_rounds_only() {
        let mut rounds = [round(1, 0.9, 30.0), round(1, 0.0, 3.0), round(2, 0.0, 6.0)];
        assert!(figures(&rounds).is_err(), "nothing was kept");
        rounds[1].kept = true;
        rounds[2].kept = true;
        let figures = figures(&rounds).unwrap();
        let ratio = &figure(&figures, "Hawser TCP, 1 stream, to raw").spread;
        assert_eq!(ratio.values, [0.1, 0.2]);
        assert!((ratio.median - 0.15).abs() < 1e-9);
        assert_eq!(figure(&figures, "Hawser TCP, 4 streams").spread.max, 12.0);
        assert!(figures.iter().all(|figure| !figure.is_short()));
    }

    #[test]
    fn slow_lossy_and_fat_falls_short_by_name() {
        let mut rounds = [round(1, 0.0, 0.25), round(2, 0.0, 0.25)];
        for round in &mut rounds {
            round.kept = true;
        }
        rounds[0].echo.lost = 1;
        rounds[1].peak_memory = 8.5;
        let figures = figures(&rounds).unwrap();
        let short: Vec<&str> = figures
            .iter()
            .filter(|figure| figure.is_short())
            .map(|figure| figure.name)
            .collect();
        let wanted = [
            "Hawser TCP, 1 stream, to raw",
            "Hawser TCP, 4 streams, to raw 1 stream",
            "Hawser pings lost, idle",
            "data plane peak memory",
        ];
        // 0.5 of 30 Gbit/s with four streams is below the bound as well: 0.0167.
        assert_eq!(short, wanted);
    }
}
