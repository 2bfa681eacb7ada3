//! Measures again what others disturbed.

use super::meter::Usage;
use super::sample::Values;

/// Cores that others may use during a measurement that counts.
pub(super) const QUIET: f64 = 0.10;
/// How often a measurement is made again because others were too loud.
pub(super) const REPEATS: u32 = 3;

/// One attempt at a measurement.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) values: Values,
    pub(super) usage: Usage,
    pub(super) kept: bool,
}

/// Measures until it is quiet, at most [`REPEATS`] times again, and marks the attempt that counts: the quiet one, else
/// the quietest. Chosen by noise alone, never by what was measured.
pub(super) fn until_quiet<E>(
    mut measure: impl FnMut(u32) -> Result<(Values, Usage), E>,
) -> Result<Vec<Attempt>, E> {
    let mut attempts: Vec<Attempt> = Vec::new();
    for attempt in 1..=1 + REPEATS {
        let (values, usage) = measure(attempt)?;
        attempts.push(Attempt {
            values,
            usage,
            kept: false,
        });
        if usage.noise() <= QUIET {
            break;
        }
    }
    let by_noise = |a: &&mut Attempt, b: &&mut Attempt| a.usage.noise().total_cmp(&b.usage.noise());
    if let Some(quietest) = attempts.iter_mut().min_by(by_noise) {
        quietest.kept = true;
    }
    Ok(attempts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(noises: &[f64]) -> Vec<bool> {
        let mut noises = noises.iter();
        let attempts = until_quiet(|_| {
            let usage = Usage {
                foreign: *noises.next().ok_or("measured once too often")?,
                ..Usage::default()
            };
            Ok::<_, &str>((Values::new(), usage))
        });
        attempts
            .unwrap()
            .iter()
            .map(|attempt| attempt.kept)
            .collect()
    }

    #[test]
    fn what_was_quiet_is_measured_once() {
        assert_eq!(attempts(&[0.10]), [true]);
    }

    #[test]
    fn what_was_loud_is_measured_again_until_it_is_quiet() {
        assert_eq!(attempts(&[0.5, 0.11, 0.02]), [false, false, true]);
    }

    #[test]
    fn a_machine_that_stays_loud_gives_the_quietest_of_four() {
        assert_eq!(attempts(&[0.5, 0.2, 0.9, 0.4]), [false, true, false, false]);
    }
}
