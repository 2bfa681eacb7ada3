//! Numbers of nodes and identities: each is an object of its own, named by the number, and made by who comes first.
//!
//! [`Ledger`] says which number to try; that it was free is decided where the object is made, and nowhere else. A number
//! that is given back rests before anybody else gets it, so that nobody takes the next bearer for the last one.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

/// What the object of a number says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// What has the number, as text.
    pub claim: String,
    /// When it was given back, in seconds since 1970; `None`: it is in use.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub released: Option<u64>,
}

/// What to do for a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It has this number.
    Has(u32),
    /// It had this number, which rests: write its object again, without the time.
    Revive(u32),
    /// Make the object of this number, if there is none, and tell [`Ledger::note`] what it says.
    Create(u32),
}

/// All numbers of a kind are in use or at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all numbers are in use or at rest")]
pub struct Exhausted;

/// The numbers of a kind.
#[derive(Clone, Debug)]
pub struct Ledger {
    range: RangeInclusive<u32>,
    rest: Duration,
    /// `None`: its object cannot be read, so it is somebody's.
    numbers: BTreeMap<u32, Option<Allocation>>,
    by_claim: BTreeMap<String, u32>,
}

impl Ledger {
    /// Without any number given. A number rests for `rest`.
    pub fn new(range: RangeInclusive<u32>, rest: Duration) -> Self {
        Self {
            range,
            rest,
            numbers: BTreeMap::new(),
            by_claim: BTreeMap::new(),
        }
    }

    /// Takes what the object of a number says; `None`: it cannot be read. `now` in seconds since 1970.
    pub fn note(&mut self, number: u32, allocation: Option<Allocation>, now: u64) {
        self.forget(number);
        let allocation = allocation.map(|mut allocation| {
            // A clock that went back must not make a rest of years.
            allocation.released = allocation.released.map(|at| at.min(now));
            allocation
        });
        if let Some(allocation) = &allocation {
            let first = self
                .by_claim
                .entry(allocation.claim.clone())
                .or_insert(number);
            *first = (*first).min(number);
        }
        self.numbers.insert(number, allocation);
    }

    /// What to do so that a claim has a number.
    ///
    /// # Errors
    /// There is none left.
    pub fn claim(&self, claim: &str) -> Result<Step, Exhausted> {
        if let Some(number) = self.by_claim.get(claim) {
            let rests = self.numbers.get(number).and_then(Option::as_ref);
            return Ok(if rests.is_some_and(|known| known.released.is_some()) {
                Step::Revive(*number)
            } else {
                Step::Has(*number)
            });
        }
        self.free().map(Step::Create).ok_or(Exhausted)
    }

    /// The number whose object must say from now on that it rests.
    pub fn release(&self, claim: &str) -> Option<u32> {
        let number = *self.by_claim.get(claim)?;
        let known = self.numbers.get(&number)?.as_ref()?;
        known.released.is_none().then_some(number)
    }

    /// Numbers that rested long enough: remove their objects, then tell [`Self::forget`].
    pub fn rested(&self, now: u64) -> Vec<u32> {
        let rested = |allocation: &Option<Allocation>| {
            let released = allocation.as_ref().and_then(|known| known.released);
            released.is_some_and(|at| now.saturating_sub(at) >= self.rest.as_secs())
        };
        let numbers = self.numbers.iter().filter(|(_, known)| rested(known));
        numbers.map(|(number, _)| *number).collect()
    }

    /// Numbers that were given back and did not go yet.
    pub fn at_rest(&self) -> impl Iterator<Item = u32> {
        self.numbers.iter().filter_map(|(number, known)| {
            let released = known.as_ref().and_then(|known| known.released);
            released.map(|_| *number)
        })
    }

    /// What has a number, or had it last.
    pub fn claim_of(&self, number: u32) -> Option<&str> {
        let known = self.numbers.get(&number)?.as_ref()?;
        Some(&known.claim)
    }

    /// The object of a number is gone.
    pub fn forget(&mut self, number: u32) {
        let Some(Some(old)) = self.numbers.remove(&number) else {
            return;
        };
        if self.by_claim.get(&old.claim) == Some(&number) {
            self.by_claim.remove(&old.claim);
        }
    }

    /// Each claim with a number in use.
    pub fn in_use(&self) -> impl Iterator<Item = (&str, u32)> {
        self.numbers.iter().filter_map(|(number, known)| {
            let known = known.as_ref().filter(|known| known.released.is_none())?;
            Some((known.claim.as_str(), *number))
        })
    }

    /// The number after the greatest one, so that a number is used again as late as can be; else the first gap.
    fn free(&self) -> Option<u32> {
        let last = self.numbers.keys().next_back();
        let next = last.map_or(0, |last| last.saturating_add(1));
        let next = next.max(*self.range.start());
        if self.range.contains(&next) {
            return Some(next);
        }
        let mut gap = *self.range.start();
        for number in self.numbers.keys() {
            if *number == gap {
                gap += 1;
            }
        }
        self.range.contains(&gap).then_some(gap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn used(claim: &str) -> Allocation {
        Allocation {
            claim: claim.to_owned(),
            released: None,
        }
    }

    fn rests(claim: &str, since: u64) -> Allocation {
        Allocation {
            claim: claim.to_owned(),
            released: Some(since),
        }
    }

    fn ledger(last: u32) -> Ledger {
        Ledger::new(256..=last, Duration::from_secs(600))
    }

    #[test]
    fn a_number_rests_before_somebody_else_gets_it() {
        let mut ledger = ledger(257);
        assert_eq!(ledger.claim("a"), Ok(Step::Create(256)));
        ledger.note(256, Some(used("a")), NOW);
        ledger.note(257, Some(used("b")), NOW);
        assert_eq!(ledger.claim("a"), Ok(Step::Has(256)));
        assert_eq!(ledger.claim("c"), Err(Exhausted));
        assert_eq!(ledger.release("a"), Some(256));
        ledger.note(256, Some(rests("a", NOW)), NOW);
        assert_eq!(ledger.release("a"), None);
        assert!(ledger.rested(NOW + 599).is_empty());
        assert_eq!(ledger.claim("c"), Err(Exhausted));
        assert_eq!(
            ledger.claim("a"),
            Ok(Step::Revive(256)),
            "its own comes back"
        );
        assert_eq!(ledger.rested(NOW + 600), [256]);
        ledger.forget(256);
        assert_eq!(ledger.claim("c"), Ok(Step::Create(256)));
    }

    #[test]
    fn who_lost_the_race_for_a_number_takes_the_next() {
        let mut ledger = ledger(300);
        assert_eq!(ledger.claim("a"), Ok(Step::Create(256)));
        ledger.note(256, Some(used("b")), NOW);
        assert_eq!(ledger.claim("a"), Ok(Step::Create(257)));
        assert_eq!(ledger.claim("b"), Ok(Step::Has(256)));
    }

    #[test]
    fn what_cannot_be_read_is_somebodys() {
        let mut ledger = ledger(256);
        ledger.note(256, None, NOW);
        assert_eq!(ledger.claim("a"), Err(Exhausted));
        assert!(ledger.rested(NOW * 2).is_empty());
    }

    #[test]
    fn a_clock_that_went_back_prolongs_a_rest_once_at_most() {
        let mut ledger = ledger(300);
        ledger.note(256, Some(rests("a", NOW + 1_000_000)), NOW);
        assert_eq!(ledger.rested(NOW + 600), [256]);
    }

    #[test]
    fn a_gap_is_used_when_the_end_is_reached() {
        let mut ledger = ledger(258);
        for number in [256, 258] {
            ledger.note(number, Some(used(&number.to_string())), NOW);
        }
        assert_eq!(ledger.claim("a"), Ok(Step::Create(257)));
    }
}
