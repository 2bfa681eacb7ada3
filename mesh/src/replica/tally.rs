//! Digests under prefixes that somebody subscribes to, kept up to date by each change.

use super::digest::Digest;
use std::collections::BTreeMap;

/// The most prefixes that are followed; beyond them all are counted anew.
const MAX_FOLLOWED: usize = 4096;

/// What a digest is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// All that the origin has, refused records too: what our publisher compares with.
    Whole,
    /// What was taken: what we show.
    Shown,
}

/// The digests under one prefix.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) shown: Digest,
    pub(super) refused: Digest,
}

impl Tally {
    pub(super) fn of(&self, view: View) -> Digest {
        match view {
            View::Whole => self.shown.plus(self.refused),
            View::Shown => self.shown,
        }
    }

    pub(super) fn part(&mut self, refused: bool) -> &mut Digest {
        if refused {
            &mut self.refused
        } else {
            &mut self.shown
        }
    }
}

/// The tallies of all prefixes that were asked for.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    followed: BTreeMap<Box<[u8]>, Tally>,
    /// How many prefixes there are of each length: most keys have few prefixes that are followed.
    lengths: BTreeMap<usize, usize>,
}

impl Tallies {
    pub(super) fn get(&self, prefix: &[u8]) -> Option<Tally> {
        self.followed.get(prefix).copied()
    }

    pub(super) fn follow(&mut self, prefix: &[u8], tally: Tally) {
        if self.followed.len() >= MAX_FOLLOWED {
            self.clear();
        }
        if self.followed.insert(prefix.into(), tally).is_none() {
            *self.lengths.entry(prefix.len()).or_default() += 1;
        }
    }

    pub(super) fn change(&mut self, key: &[u8], change: impl Fn(&mut Tally)) {
        for length in self
            .lengths
            .keys()
            .take_while(|&&length| length <= key.len())
        {
            if let Some(tally) = self.followed.get_mut(&key[..*length]) {
                change(tally);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.followed.clear();
        self.lengths.clear();
    }
}
