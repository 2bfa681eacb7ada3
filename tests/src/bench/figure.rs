//! One line of the result: what was measured, and whether that is enough.

use std::io::Write;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::spread::{Spread, number};

/// What a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Must {
    /// Reported only.
    Nothing,
    /// The median must reach this: one slow round is the machine's.
    AtLeast(f64),
    /// Not even the worst round may exceed this: a peak is a peak.
    AtMost(f64),
}

/// A figure with its range over the kept rounds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) must: Must,
    pub(super) spread: Spread,
}

impl Figure {
    /// Whether it misses its bound.
    pub(super) fn is_short(&self) -> bool {
        match self.must {
            Must::Nothing => false,
            Must::AtLeast(bound) => self.spread.median < bound,
            Must::AtMost(bound) => self.spread.max > bound,
        }
    }

    /// Its bound in words.
    pub(super) fn must(&self) -> String {
        match self.must {
            Must::Nothing => "-".to_owned(),
            Must::AtLeast(bound) => format!(">= {bound}"),
            Must::AtMost(bound) => format!("<= {bound}"),
        }
    }

    /// `ok`, `short`, or nothing to say.
    pub(super) fn verdict(&self) -> &'static str {
        match self.must {
            Must::Nothing => "-",
            Must::AtLeast(_) | Must::AtMost(_) if self.is_short() => "short",
            Must::AtLeast(_) | Must::AtMost(_) => "ok",
        }
    }

    /// Name, median, range, unit, bound, verdict.
    pub(super) fn cells(&self) -> [String; 6] {
        let Spread {
            median, min, max, ..
        } = self.spread;
        [
            self.name.to_owned(),
            number(median),
            format!("[{}..{}]", number(min), number(max)),
            self.unit.to_owned(),
            self.must(),
            self.verdict().to_owned(),
        ]
    }
}

/// What the columns of [`Figure::cells`] are called.
pub(super) const COLUMNS: [&str; 6] = ["figure", "median", "[min..max]", "unit", "must", "verdict"];

/// Prints the figures as a table in aligned columns.
pub(super) fn print(figures: &[Figure], out: &mut impl Write) -> Result<()> {
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

    fn figure(must: Must, values: &[f64]) -> Figure {
        Figure {
            name: "speed",
            unit: "ratio",
            must,
            spread: Spread::of(values.to_vec()).unwrap(),
        }
    }

    #[test]
    fn a_lower_bound_is_judged_by_the_median() {
        assert_eq!(
            figure(Must::AtLeast(0.02), &[0.01, 0.02, 0.05]).verdict(),
            "ok"
        );
        assert_eq!(
            figure(Must::AtLeast(0.02), &[0.01, 0.019, 0.05]).verdict(),
            "short"
        );
    }

    #[test]
    fn an_upper_bound_is_judged_by_the_worst_round() {
        assert_eq!(figure(Must::AtMost(8.0), &[3.0, 8.0]).verdict(), "ok");
        assert_eq!(
            figure(Must::AtMost(8.0), &[3.0, 3.0, 8.1]).verdict(),
            "short"
        );
        assert!(!figure(Must::Nothing, &[1e9]).is_short());
    }

    #[test]
    fn a_line_shows_everything() {
        let mut out = Vec::new();
        print(
            &[figure(Must::AtLeast(0.02), &[0.125, 0.25, 0.5])],
            &mut out,
        )
        .unwrap();
        let text = String::from_utf8(out).unwrap();
        let line = text.lines().find(|line| line.starts_with("speed")).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            words,
            [
                "speed",
                "0.250",
                "[0.125..0.500]",
                "ratio",
                ">=",
                "0.02",
                "ok"
            ]
        );
    }
}
