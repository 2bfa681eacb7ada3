//! What several rounds say together.

use anyhow::{Result, ensure};
use serde::Serialize;

/// The value of each round, and what they say together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
    /// One for each round, in the order of the rounds.
    pub(super) values: Vec<f64>,
}

impl Spread {
    /// Takes one value for each round. Refuses none at all and what is no number: a median of those would be invented.
    pub(super) fn of(values: Vec<f64>) -> Result<Self> {
        ensure!(!values.is_empty(), "no round has a value");
        ensure!(
            values.iter().all(|value| value.is_finite()),
            "a round has a value that is no number: {values:?}"
        );
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let half = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[half]
        } else {
            f64::midpoint(sorted[half - 1], sorted[half])
        };
        Ok(Self {
            median,
            min: sorted[0],
            max: sorted[sorted.len() - 1],
            values,
        })
    }

    /// `self / base`, round by round: what slows a whole round cancels out. Both must be of the same rounds.
    pub(super) fn ratio(&self, base: &Self) -> Result<Self> {
        ensure!(
            self.values.len() == base.values.len(),
            "a ratio of {} rounds to {}",
            self.values.len(),
            base.values.len()
        );
        let pairs = self.values.iter().zip(&base.values);
        Self::of(pairs.map(|(value, base)| value / base).collect())
    }
}

/// A value with about three digits that say something.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size.fract() == 0.0 || size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middle_ones() {
        let odd = Spread::of(vec![9.0, 1.0, 2.0]).unwrap();
        assert_eq!((odd.median, odd.min, odd.max), (2.0, 1.0, 9.0));
        assert_eq!(odd.values, [9.0, 1.0, 2.0]);
        let even = Spread::of(vec![4.0, 1.0, 100.0, 2.0]).unwrap();
        assert_eq!((even.median, even.min, even.max), (3.0, 1.0, 100.0));
        assert_eq!(Spread::of(vec![7.0]).unwrap().median, 7.0);
    }

    #[test]
    fn nothing_is_invented_from_nothing() {
        assert!(Spread::of(Vec::new()).is_err());
        assert!(Spread::of(vec![1.0, f64::NAN]).is_err());
        let (one, none) = (
            Spread::of(vec![1.0]).unwrap(),
            Spread::of(vec![0.0]).unwrap(),
        );
        assert!(one.ratio(&none).is_err());
        assert!(
            one.ratio(&Spread::of(vec![1.0, 2.0]).unwrap()).is_err(),
            "rounds of different number"
        );
    }

    #[test]
    fn ratios_are_made_within_a_round() {
        // The machine was four times as fast in the second round: the ratio does not see it.
        let hawser = Spread::of(vec![1.0, 4.0, 3.0]).unwrap();
        let raw = Spread::of(vec![10.0, 40.0, 10.0]).unwrap();
        let ratio = hawser.ratio(&raw).unwrap();
        assert_eq!(ratio.values, [0.1, 0.1, 0.3]);
        assert_eq!(ratio.median, 0.1);
    }

    #[test]
    fn numbers_have_three_digits_that_say_something() {
        let shown: Vec<String> = [0.0, 0.0421, 3.456, 31.49, 796.0, 1234.5]
            .map(number)
            .to_vec();
        assert_eq!(shown, ["0", "0.042", "3.46", "31.5", "796", "1234"]);
    }
}
