//! How old a state of an origin is.

use std::fmt;

/// How often an origin's source went back in time: bumped when it was restored from a backup. Of two states of an
/// origin the one with the greater incarnation is newer, whatever their revisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// Counts the changes of an origin: its source's own number (etcd's resourceVersion, or the counter of the state
/// directory). Grows with every change; numbers may be left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// A state of an origin. Later ones are greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Of the source.
    pub incarnation: Incarnation,
    /// Within the incarnation.
    pub revision: Revision,
}

impl Version {
    /// Before anything was heard. No origin has it: incarnations begin at 1.
    pub const NONE: Self = Self {
        incarnation: Incarnation(0),
        revision: Revision(0),
    };

    /// Made of two numbers, as on the wire.
    pub const fn new(incarnation: u64, revision: u64) -> Self {
        Self {
            incarnation: Incarnation(incarnation),
            revision: Revision(revision),
        }
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `INCARNATION.REVISION`, as in `1.2040`.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greater_incarnation_is_newer_whatever_the_revision() {
        assert!(Version::new(2, 1) > Version::new(1, 900));
        assert!(Version::new(1, 901) > Version::new(1, 900));
        assert!(Version::new(1, 0) > Version::NONE);
        assert_eq!(Version::new(1, 2040).to_string(), "1.2040");
    }
}
