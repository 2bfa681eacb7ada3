//! What a run measures: which variants, under which conditions, how often and how long.

use anyhow::{Result, bail, ensure};
use serde::Serialize;

use super::Options;

/// Everything that a bench can measure, and how much of it in which form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope {
    /// Every variant.
    pub(super) variants: &'static [&'static str],
    /// Every condition.
    pub(super) conditions: &'static [&'static str],
    /// Every measurement.
    pub(super) measurements: &'static [&'static str],
    /// The variants, conditions and measurements of the quick form.
    pub(super) quick: [&'static [&'static str]; 3],
    /// Rounds and seconds of a measurement, in full and quick.
    pub(super) lengths: [(u32, u32); 2],
}

/// What one run measures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Plan {
    pub(super) rounds: u32,
    /// Seconds of one measurement.
    pub(super) seconds: u32,
    pub(super) variants: Vec<&'static str>,
    pub(super) conditions: Vec<&'static str>,
    pub(super) measurements: Vec<&'static str>,
}

/// The most rounds and seconds that a run may be asked for: an hour of a single variant.
const MOST: u32 = 60;

impl Plan {
    /// What the options ask for out of what there is.
    pub(super) fn new(scope: &Scope, options: &Options) -> Result<Self> {
        let [variants, conditions, measurements] = if options.quick {
            scope.quick
        } else {
            [scope.variants, scope.conditions, scope.measurements]
        };
        let (rounds, seconds) = scope.lengths[usize::from(options.quick)];
        let (rounds, seconds) = (
            options.rounds.unwrap_or(rounds),
            options.seconds.unwrap_or(seconds),
        );
        for (option, number) in [("rounds", rounds), ("seconds", seconds)] {
            ensure!(
                (1..=MOST).contains(&number),
                "--{option}: {number}: must be 1 to {MOST}"
            );
        }
        Ok(Self {
            rounds,
            seconds,
            variants: chosen("only", &options.only, scope.variants, variants)?,
            conditions: chosen(
                "conditions",
                &options.conditions,
                scope.conditions,
                conditions,
            )?,
            measurements: chosen(
                "figures",
                &options.figures,
                scope.measurements,
                measurements,
            )?,
        })
    }

    /// The variants in the order of a round: each round begins with another one, so that none always comes first.
    pub(super) fn order<T: Copy>(round: u32, all: &[T]) -> Vec<T> {
        let mut order = all.to_vec();
        if let Some(first) = usize::try_from(round)
            .ok()
            .and_then(|round| round.checked_rem(all.len()))
        {
            order.rotate_left(first);
        }
        order
    }
}

/// The named ones in the order of `all`, or `usual` when none is named.
fn chosen(
    option: &str,
    named: &[String],
    all: &[&'static str],
    usual: &[&'static str],
) -> Result<Vec<&'static str>> {
    if let Some(unknown) = named.iter().find(|name| !all.contains(&name.as_str())) {
        bail!("--{option}: {unknown}: must be of {}", all.join(", "));
    }
    if named.is_empty() {
        return Ok(usual.to_vec());
    }
    let is_named = |name: &&&'static str| named.iter().any(|other| other == **name);
    Ok(all.iter().filter(is_named).copied().collect())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const SCOPE: Scope = Scope {
        variants: &["a", "b", "c"],
        conditions: &["base", "bad"],
        measurements: &["speed", "cost"],
        quick: [&["a", "b"], &["base"], &["speed"]],
        lengths: [(5, 4), (2, 1)],
    };

    /// Options of a run of everything.
    pub(in super::super) fn options(name: &str) -> Options {
        Options {
            name: name.to_owned(),
            quick: false,
            json: None,
            write: false,
            only: Vec::new(),
            figures: Vec::new(),
            conditions: Vec::new(),
            rounds: None,
            seconds: None,
        }
    }

    #[test]
    fn the_whole_is_everything_and_quick_is_a_part() {
        let mut options = options("x");
        let plan = Plan::new(&SCOPE, &options).unwrap();
        assert_eq!((plan.rounds, plan.seconds), (5, 4));
        assert_eq!(plan.variants, ["a", "b", "c"]);
        options.quick = true;
        let plan = Plan::new(&SCOPE, &options).unwrap();
        assert_eq!((plan.rounds, plan.seconds), (2, 1));
        assert_eq!(
            (plan.variants, plan.measurements),
            (vec!["a", "b"], vec!["speed"])
        );
    }

    #[test]
    fn what_is_named_is_measured_in_the_usual_order() {
        let mut options = options("x");
        (options.quick, options.only) = (true, vec!["c".to_owned(), "a".to_owned()]);
        (options.figures, options.rounds) = (vec!["cost".to_owned()], Some(9));
        let plan = Plan::new(&SCOPE, &options).unwrap();
        assert_eq!(plan.variants, ["a", "c"]);
        assert_eq!((plan.measurements, plan.rounds), (vec!["cost"], 9));
    }

    #[test]
    fn unknown_names_and_lengths_are_refused_in_one_line() {
        let mut unknown = options("x");
        unknown.only = vec!["d".to_owned()];
        let text = Plan::new(&SCOPE, &unknown).unwrap_err().to_string();
        assert_eq!(text, "--only: d: must be of a, b, c");
        let mut endless = options("x");
        endless.seconds = Some(61);
        let text = Plan::new(&SCOPE, &endless).unwrap_err().to_string();
        assert_eq!(text, "--seconds: 61: must be 1 to 60");
    }

    #[test]
    fn each_round_begins_with_another() {
        assert_eq!(Plan::order(0, &[1, 2, 3]), [1, 2, 3]);
        assert_eq!(Plan::order(4, &[1, 2, 3]), [2, 3, 1]);
        assert_eq!(Plan::order(4, &[] as &[u8]), [0_u8; 0]);
    }
}
