//! One measurement, as every bench makes it: until it is quiet, told on the screen, every attempt kept as a sample.

use anyhow::{Context as _, Result};

use super::meter::Usage;
use super::quiet::{QUIET, until_quiet};
use super::sample::{Sample, Series, Source, Values};
use super::screen::Screen;
use super::spread::number;

/// Measures what `source` names in this round; `told` is its name on the screen. Returns the values that count.
pub(super) fn take(
    (condition, measurement, variant): Source,
    round: u32,
    told: &str,
    screen: &mut Screen<'_>,
    series: &mut Series,
    mut measure: impl FnMut() -> Result<(Values, Usage)>,
) -> Result<Values> {
    let attempts = until_quiet(|_| {
        let (values, usage) = measure()?;
        let noise = usage.noise();
        let loud = if noise > QUIET {
            format!("; others used {noise:.2} core, more than {QUIET:.2}")
        } else {
            String::new()
        };
        let shown: Vec<String> = values
            .iter()
            .map(|(name, value)| format!("{} {name}", number(*value)))
            .collect();
        screen.say(&format!("  {told} {}{loud}", shown.join(", ")))?;
        anyhow::Ok((values, usage))
    });
    let attempts = attempts.with_context(|| format!("{told} round {round}"))?;
    let mut counts = Values::new();
    for (attempt, taken) in (1..).zip(attempts) {
        if taken.kept {
            counts.clone_from(&taken.values);
        }
        series.0.push(Sample {
            condition,
            measurement,
            variant,
            round,
            attempt,
            kept: taken.kept,
            values: taken.values,
            usage: taken.usage,
        });
    }
    Ok(counts)
}
