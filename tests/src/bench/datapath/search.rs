//! Finds the highest rate that still fits, in few trials.

/// The search ends when what fits and what does not are this close.
const CLOSE: f64 = 1.03;
/// Step while nothing is known of the capacity, and while an earlier search says about where it is.
const STEPS: [f64; 2] = [1.6, 1.12];
/// What of the datagrams may be lost.
const LOSS: f64 = 0.001;
/// Up to this loss it may have been a hiccup of the machine: the rate is tried once more.
const DOUBT: f64 = 0.03;
/// A sender that falls short so often can do no more; once may be a hiccup of the machine.
const SHORT: u32 = 3;

/// What a trial at some rate came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Trial {
    /// What was really offered; less than was asked for when the sender could do no more.
    pub(super) offered: f64,
    /// Which part of it was lost.
    pub(super) lost: f64,
}

/// A search between the highest rate that fitted and the lowest that did not.
#[derive(Clone, Debug)]
pub(super) struct Search {
    first: f64,
    step: f64,
    trials: u32,
    fits: Option<f64>,
    exceeds: Option<f64>,
    /// A rate at which so little was lost that it is tried once more.
    doubt: Option<f64>,
    /// How often the sender could offer no more than what fitted.
    short: u32,
    /// What fitted once did not another time: this is the edge.
    unsteady: bool,
}

impl Search {
    /// Begins at `near`, the result of an earlier search, or else at `guess`; ends after `trials`.
    pub(super) fn new(near: Option<f64>, guess: f64, trials: u32) -> Self {
        Self {
            first: near.unwrap_or(guess),
            step: STEPS[usize::from(near.is_some())],
            trials,
            fits: None,
            exceeds: None,
            doubt: None,
            short: 0,
            unsteady: false,
        }
    }

    /// The rate to try next; `None` when the search has ended.
    pub(super) fn next(&self) -> Option<f64> {
        if self.trials == 0 || self.short >= SHORT || self.unsteady {
            return None;
        }
        if let Some(rate) = self.doubt {
            return Some(rate);
        }
        match (self.fits, self.exceeds) {
            (None, None) => Some(self.first),
            (Some(fits), None) => Some(fits * self.step),
            (None, Some(exceeds)) => Some(exceeds / self.step),
            (Some(fits), Some(exceeds)) => {
                (exceeds / fits > CLOSE).then(|| (fits * exceeds).sqrt())
            }
        }
    }

    /// Notes what came of a trial at `rate`.
    pub(super) fn note(&mut self, rate: f64, trial: Trial) {
        self.trials = self.trials.saturating_sub(1);
        let doubted = self.doubt.take().is_some();
        if trial.lost <= LOSS {
            self.fits = Some(self.fits.unwrap_or_default().max(trial.offered));
            self.short += u32::from(trial.offered < rate * 0.97);
        } else if trial.lost <= DOUBT && !doubted {
            self.doubt = Some(rate);
        } else {
            // A sender that could not keep up has exceeded with less than was asked for.
            let rate = trial.offered.min(rate);
            let lowest = self.exceeds.map_or(rate, |lowest| lowest.min(rate));
            self.exceeds = Some(lowest);
            if self.fits.is_none() {
                // Ever further down, or a guess that was far too high would use up all trials.
                self.step *= self.step.sqrt();
            }
            if self.fits.is_some_and(|fits| fits >= lowest) {
                self.unsteady = true;
            }
        }
    }

    /// The highest rate that fitted.
    pub(super) fn result(&self) -> Option<f64> {
        match (self.fits, self.exceeds) {
            (Some(fits), Some(exceeds)) => Some(fits.min(exceeds)),
            (fits, _) => fits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIALS: u32 = 10;

    /// Searches a path of this capacity with a sender of that one; returns the result and the number of trials.
    fn found(capacity: f64, most: f64, near: Option<f64>) -> (f64, u32) {
        let mut search = Search::new(near, 40_000.0, TRIALS);
        let mut trials = 0;
        while let Some(rate) = search.next() {
            trials += 1;
            let offered = rate.min(most);
            let lost = (1.0 - capacity / offered).max(0.0);
            search.note(rate, Trial { offered, lost });
        }
        (search.result().unwrap(), trials)
    }

    #[test]
    fn the_capacity_is_found_from_afar() {
        for capacity in [5_000.0, 21_000.0, 48_000.0, 119_000.0, 299_000.0] {
            let (rate, trials) = found(capacity, 1e9, None);
            assert!(
                rate <= capacity * 1.001 && rate > capacity * 0.92 && trials <= TRIALS,
                "{capacity}: {rate} after {trials}"
            );
        }
    }

    #[test]
    fn an_earlier_result_makes_it_shorter() {
        for (capacity, near) in [
            (50_000.0, 49_000.0),
            (50_000.0, 52_000.0),
            (50_000.0, 44_000.0),
        ] {
            let (rate, trials) = found(capacity, 1e9, Some(near));
            assert!(
                rate <= capacity * 1.001 && rate > capacity * 0.95 && trials <= 8,
                "{near}: {rate} after {trials}"
            );
        }
    }

    #[test]
    fn a_sender_that_can_do_no_more_ends_the_search_at_what_it_did() {
        let (rate, _) = found(1e9, 280_000.0, None);
        assert_eq!(rate, 280_000.0);
    }

    #[test]
    fn a_hiccup_costs_a_trial_and_not_the_result() {
        let mut search = Search::new(Some(50_000.0), 40_000.0, TRIALS);
        let mut trials = 0;
        while let Some(rate) = search.next() {
            trials += 1;
            // The machine was busy with something else for a moment of the first trial.
            let lost = f64::from(u8::from(trials == 1)) * 0.01;
            let lost = lost.max(1.0 - 60_000.0 / rate).max(0.0);
            search.note(
                rate,
                Trial {
                    offered: rate,
                    lost,
                },
            );
        }
        let rate = search.result().unwrap();
        assert!(rate > 57_000.0 && rate <= 60_060.0, "{rate} after {trials}");
    }

    #[test]
    fn nothing_that_fits_is_no_result() {
        let mut search = Search::new(None, 40_000.0, 4);
        while let Some(rate) = search.next() {
            search.note(
                rate,
                Trial {
                    offered: rate,
                    lost: 0.5,
                },
            );
        }
        assert_eq!(search.result(), None);
    }
}
