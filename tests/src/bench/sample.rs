//! What was measured, and how the rounds of it come together.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use super::meter::Usage;
use super::spread::Spread;

/// Values of one measurement by what they are called, unit included: `Gbit/s`.
pub(super) type Values = BTreeMap<&'static str, f64>;

/// One measurement of one variant under one condition.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sample {
    pub(super) condition: &'static str,
    pub(super) measurement: &'static str,
    pub(super) variant: &'static str,
    /// From 1.
    pub(super) round: u32,
    /// From 1; more when others were too loud before.
    pub(super) attempt: u32,
    /// Whether figures are made of it.
    pub(super) kept: bool,
    pub(super) values: Values,
    pub(super) usage: Usage,
}

/// Every sample of a run, in the order in which it was taken.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Series(pub(super) Vec<Sample>);

/// Whose values: condition, measurement, variant.
pub(super) type Source = (&'static str, &'static str, &'static str);

impl Series {
    /// The kept value of each round, in their order; `None` when it was not measured.
    pub(super) fn spread(&self, source: Source, value: &str) -> Option<Result<Spread>> {
        let values: Vec<f64> = self
            .kept(source)
            .filter_map(|sample| sample.values.get(value).copied())
            .collect();
        (!values.is_empty()).then(|| Spread::of(values))
    }

    /// `source / base`, round by round; `None` when either was not measured.
    pub(super) fn ratio(
        &self,
        source: Source,
        base: Source,
        value: &str,
    ) -> Option<Result<Spread>> {
        let (of, to) = (self.spread(source, value)?, self.spread(base, value)?);
        Some(of.and_then(|of| of.ratio(&to?)))
    }

    fn kept(&self, (condition, measurement, variant): Source) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |sample| {
            sample.kept
                && sample.condition == condition
                && sample.measurement == measurement
                && sample.variant == variant
        })
    }

    /// Every source that there is, in the order of its first sample.
    pub(super) fn sources(&self) -> Vec<Source> {
        let mut sources: Vec<Source> = Vec::new();
        for sample in &self.0 {
            let source = (sample.condition, sample.measurement, sample.variant);
            if !sources.contains(&source) {
                sources.push(source);
            }
        }
        sources
    }

    /// What the values of a source are called.
    pub(super) fn values_of(&self, source: Source) -> Vec<&'static str> {
        let first = self.kept(source).next();
        first.map_or_else(Vec::new, |sample| sample.values.keys().copied().collect())
    }

    /// Measurements that were given up because others were too loud.
    pub(super) fn repeated(&self) -> usize {
        self.0.iter().filter(|sample| !sample.kept).count()
    }

    /// Cores that others had during the loudest measurement that counts.
    pub(super) fn loudest(&self) -> f64 {
        let kept = self.0.iter().filter(|sample| sample.kept);
        kept.map(|sample| sample.usage.noise()).fold(0.0, f64::max)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A kept sample of one value that was taken in quiet.
    pub(in super::super) fn sample(
        source: Source,
        round: u32,
        value: (&'static str, f64),
    ) -> Sample {
        let (condition, measurement, variant) = source;
        Sample {
            condition,
            measurement,
            variant,
            round,
            attempt: 1,
            kept: true,
            values: Values::from([value]),
            usage: Usage::default(),
        }
    }

    const ONE: Source = ("base", "speed", "one");
    const OTHER: Source = ("base", "speed", "other");

    fn series(values: &[(Source, f64)]) -> Series {
        let samples = values.iter().zip(1..);
        let samples =
            samples.map(|((source, value), round)| sample(*source, round, ("m/s", *value)));
        Series(samples.collect())
    }

    #[test]
    fn rounds_are_put_together_from_what_counts_only() {
        let mut series = series(&[
            (ONE, 9.0),
            (ONE, 1.0),
            (OTHER, 2.0),
            (ONE, 3.0),
            (OTHER, 3.0),
        ]);
        series.0[0].kept = false;
        series.0[0].usage.foreign = 0.5;
        series.0[1].usage.steal = 0.25;
        assert_eq!(
            series.spread(ONE, "m/s").unwrap().unwrap().values,
            [1.0, 3.0]
        );
        let ratio = series.ratio(ONE, OTHER, "m/s").unwrap().unwrap();
        assert_eq!(ratio.values, [0.5, 1.0]);
        assert_eq!((series.repeated(), series.loudest()), (1, 0.25));
        assert_eq!(series.sources(), [ONE, OTHER]);
        assert_eq!(series.values_of(OTHER), ["m/s"]);
    }

    #[test]
    fn what_was_not_measured_is_absent_and_no_zero() {
        let series = series(&[(ONE, 1.0)]);
        assert!(series.spread(ONE, "km/h").is_none());
        assert!(series.ratio(ONE, OTHER, "m/s").is_none());
    }

    #[test]
    fn rounds_that_do_not_match_make_no_ratio() {
        let series = series(&[(ONE, 1.0), (OTHER, 1.0), (OTHER, 1.0)]);
        assert!(series.ratio(ONE, OTHER, "m/s").unwrap().is_err());
    }
}
