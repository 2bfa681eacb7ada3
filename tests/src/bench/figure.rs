//! One line of the result: what was measured, what it must be, and whether it is.

use std::io::Write;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::spread::{Spread, number};

/// What a figure has to be, and what it should be one day.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Bound {
    /// Reported only.
    Nothing,
    /// The median must reach the first and aims at the second.
    AtLeast(f64, f64),
    /// The median must not exceed the first and aims at the second.
    AtMost(f64, f64),
    /// Not even the worst round may exceed the first: a peak is a peak.
    Never(f64, f64),
}

/// A figure with its range over the rounds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) unit: &'static str,
    pub(super) bound: Bound,
    pub(super) spread: Spread,
}

impl Figure {
    /// Whether it misses what it must be.
    pub(super) fn is_short(&self) -> bool {
        self.misses(|must, _| must)
    }

    fn misses(&self, choose: fn(f64, f64) -> f64) -> bool {
        match self.bound {
            Bound::Nothing => false,
            Bound::AtLeast(must, aim) => self.spread.median < choose(must, aim),
            Bound::AtMost(must, aim) => self.spread.median > choose(must, aim),
            Bound::Never(must, aim) => self.spread.max > choose(must, aim),
        }
    }

    /// What it must be and aims at, in words.
    fn bounds(&self) -> [String; 2] {
        match self.bound {
            Bound::Nothing => ["-".to_owned(), "-".to_owned()],
            Bound::AtLeast(must, aim) => [format!(">= {must}"), format!(">= {aim}")],
            Bound::AtMost(must, aim) | Bound::Never(must, aim) => {
                [format!("<= {must}"), format!("<= {aim}")]
            }
        }
    }

    /// `short`, `met`, `aim met`, or nothing to say.
    pub(super) fn verdict(&self) -> &'static str {
        match self.bound {
            Bound::Nothing => "-",
            Bound::AtLeast(..) | Bound::AtMost(..) | Bound::Never(..) => {
                if self.is_short() {
                    "short"
                } else if self.misses(|_, aim| aim) {
                    "met"
                } else {
                    "aim met"
                }
            }
        }
    }

    /// Name, median, range, unit, bounds, verdict.
    pub(super) fn cells(&self) -> [String; 7] {
        let Spread {
            median, min, max, ..
        } = self.spread;
        let [must, aim] = self.bounds();
        [
            self.name.clone(),
            number(median),
            format!("[{}..{}]", number(min), number(max)),
            self.unit.to_owned(),
            must,
            aim,
            self.verdict().to_owned(),
        ]
    }
}

/// What the columns of [`Figure::cells`] are called.
pub(super) const COLUMNS: [&str; 7] = [
    "figure",
    "median",
    "[min..max]",
    "unit",
    "must",
    "aim",
    "verdict",
];

/// Prints the figures as a table in aligned columns.
pub(super) fn print(figures: &[Figure], out: &mut dyn Write) -> Result<()> {
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    rows.extend(figures.iter().map(Figure::cells));
    let mut text = String::from("\n");
    for row in &rows {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = rows.iter().map(|row| row[column].len()).max();
            format!("{cell:width$}", width = width.unwrap_or_default())
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .context("failed to print")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(bound: Bound, values: &[f64]) -> Figure {
        Figure {
            name: "speed".to_owned(),
            unit: "ratio",
            bound,
            spread: Spread::of(values.to_vec()).unwrap(),
        }
    }

    #[test]
    fn bounds_are_judged_by_the_median() {
        for (bound, values, verdict) in [
            (Bound::AtLeast(2.0, 3.0), [1.0, 1.9, 5.0], "short"),
            (Bound::AtLeast(2.0, 3.0), [1.0, 2.0, 5.0], "met"),
            (Bound::AtLeast(2.0, 3.0), [1.0, 3.0, 5.0], "aim met"),
            (Bound::AtMost(0.6, 0.4), [0.1, 0.61, 0.9], "short"),
            (Bound::AtMost(0.6, 0.4), [0.1, 0.6, 0.9], "met"),
            (Bound::AtMost(0.6, 0.4), [0.1, 0.4, 0.9], "aim met"),
        ] {
            assert_eq!(
                figure(bound, &values).verdict(),
                verdict,
                "{bound:?} {values:?}"
            );
        }
        assert!(!figure(Bound::Nothing, &[1e9]).is_short());
    }

    #[test]
    fn a_peak_is_judged_by_the_worst_round() {
        assert_eq!(figure(Bound::Never(8.0, 4.0), &[3.0, 8.0]).verdict(), "met");
        assert_eq!(
            figure(Bound::Never(8.0, 4.0), &[3.0, 3.0, 8.1]).verdict(),
            "short"
        );
        assert_eq!(
            figure(Bound::Never(8.0, 4.0), &[3.0, 3.9]).verdict(),
            "aim met"
        );
    }

    #[test]
    fn a_line_shows_everything() {
        let mut out = Vec::new();
        print(
            &[figure(Bound::AtLeast(0.02, 0.5), &[0.125, 0.25, 0.5])],
            &mut out,
        )
        .unwrap();
        let text = String::from_utf8(out).unwrap();
        let line = text.lines().find(|line| line.starts_with("speed")).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let wanted = [
            "speed",
            "0.250",
            "[0.125..0.500]",
            "ratio",
            ">=",
            "0.02",
            ">=",
            "0.5",
            "met",
        ];
        assert_eq!(words, wanted);
    }
}
