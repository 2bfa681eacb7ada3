//! Bars with ranges, as SVG.

use std::fmt::Write as _;

use super::spread::{Spread, number};

/// One bar: the median, and from the least to the most as a line over it.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) spread: Spread,
    /// Drawn in another colour: what the chart is about.
    pub(super) ours: bool,
}

/// Bars in groups, all to the same scale.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    /// File name without ending.
    pub(super) file: &'static str,
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    /// Title of a group, and its bars.
    pub(super) groups: Vec<(String, Vec<Bar>)>,
}

// In pixels.
const WIDTH: f64 = 760.0;
const MARGIN: f64 = 16.0;
const LABELS: f64 = 170.0;
const NUMBERS: f64 = 150.0;
const ROW: f64 = 22.0;
const BAR: f64 = 14.0;
const TITLE: f64 = 30.0;

const OURS: &str = "#1f6feb";
const OTHERS: &str = "#9aa4b2";
const RANGE: &str = "#24292f";

impl Chart {
    /// Adds a group of those bars that there are; none at all is no group.
    pub(super) fn group(&mut self, title: &str, bars: impl IntoIterator<Item = Bar>) {
        let bars: Vec<Bar> = bars.into_iter().collect();
        if !bars.is_empty() {
            self.groups.push((title.to_owned(), bars));
        }
    }

    /// The picture.
    pub(super) fn svg(&self) -> String {
        let rows: usize = self.groups.iter().map(|(_, bars)| bars.len() + 1).sum();
        let height = TITLE + ROW * rows as f64 + 2.0 * MARGIN;
        let bars = self.groups.iter().flat_map(|(_, bars)| bars);
        let most = bars.map(|bar| bar.spread.max).fold(0.0, f64::max);
        // Nothing but zeros has no scale; every bar is empty then.
        let scale = if most > 0.0 {
            (WIDTH - 2.0 * MARGIN - LABELS - NUMBERS) / most
        } else {
            0.0
        };
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\" role=\"img\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
        );
        let title = format!("{} ({})", self.title, self.unit);
        let mut y = MARGIN + BAR;
        text(
            &mut svg,
            MARGIN,
            y,
            "font-size=\"16\" font-weight=\"bold\"",
            &title,
        );
        y += TITLE - BAR;
        for (title, bars) in &self.groups {
            y += ROW;
            text(&mut svg, MARGIN, y - 6.0, "font-weight=\"bold\"", title);
            for bar in bars {
                draw(&mut svg, bar, y, scale);
                y += ROW;
            }
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// A bar with its label, range and number, below `y`.
fn draw(svg: &mut String, bar: &Bar, y: f64, scale: f64) {
    let Spread {
        median, min, max, ..
    } = bar.spread;
    let (left, middle) = (MARGIN + LABELS, y + BAR / 2.0 + 2.0);
    text(svg, MARGIN + 8.0, middle + 4.0, "", &bar.label);
    let (fill, width) = (if bar.ours { OURS } else { OTHERS }, median * scale);
    shape(
        svg,
        &format!(
            "rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"{fill}\"",
            y + 2.0
        ),
    );
    let (from, to) = (left + min * scale, left + max * scale);
    shape(
        svg,
        &format!(
            "path d=\"M{from:.1} {:.1}v8M{from:.1} {middle:.1}H{to:.1}M{to:.1} {:.1}v8\" stroke=\"{RANGE}\" fill=\"none\"",
            middle - 4.0,
            middle - 4.0
        ),
    );
    let numbers = format!("{} [{}..{}]", number(median), number(min), number(max));
    text(svg, to + 8.0, middle + 4.0, "", &numbers);
}

fn shape(svg: &mut String, element: &str) {
    writeln!(svg, "<{element}/>").ok();
}

fn text(svg: &mut String, x: f64, y: f64, style: &str, text: &str) {
    let text = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{text}</text>").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(label: &str, values: &[f64], ours: bool) -> Bar {
        Bar {
            label: label.to_owned(),
            spread: Spread::of(values.to_vec()).unwrap(),
            ours,
        }
    }

    fn chart(bars: Vec<Bar>) -> Chart {
        let mut chart = Chart {
            file: "speed",
            title: "Speed",
            unit: "m/s",
            groups: Vec::new(),
        };
        chart.group("a < b & c", bars);
        chart.group("nothing", Vec::new());
        chart
    }

    #[test]
    fn bars_are_as_long_as_their_values_and_text_is_escaped() {
        let svg = chart(vec![
            bar("ours", &[8.0, 5.0, 10.0], true),
            bar("theirs", &[4.0, 4.0, 4.0], false),
        ])
        .svg();
        let room = WIDTH - 2.0 * MARGIN - LABELS - NUMBERS;
        for wanted in [
            "Speed (m/s)".to_owned(),
            "a &lt; b &amp; c".to_owned(),
            format!("width=\"{:.1}\" height=\"14\" fill=\"{OURS}\"", room * 0.8),
            format!(
                "width=\"{:.1}\" height=\"14\" fill=\"{OTHERS}\"",
                room * 0.4
            ),
            ">8 [5..10]</text>".to_owned(),
        ] {
            assert!(svg.contains(&wanted), "{wanted}\nis not in\n{svg}");
        }
        assert!(!svg.contains("nothing"), "a group without bars");
        // Each element is closed, and nothing is drawn outside of the picture.
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        assert!(svg.trim_end().ends_with("</svg>"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn zeros_are_no_division_by_zero() {
        let svg = chart(vec![bar("still", &[0.0], true)]).svg();
        assert!(
            svg.contains("width=\"0.0\"") && !svg.contains("NaN"),
            "{svg}"
        );
    }
}
