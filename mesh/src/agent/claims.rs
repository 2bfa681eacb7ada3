//! Who owns which prefixes: none of them overlap.

use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Disjoint prefixes, each with its owner.
#[derive(Clone, Debug)]
pub(crate) struct Claims<T>(BTreeMap<IpNet, T>);

impl<T> Default for Claims<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Copy> Claims<T> {
    /// Takes a prefix.
    ///
    /// # Errors
    /// It shares an address with one that is taken: that one, and its owner.
    pub(crate) fn claim(&mut self, prefix: IpNet, owner: T) -> Result<(), (IpNet, T)> {
        match self.overlap(prefix) {
            Some(taken) => Err(taken),
            None => {
                self.0.insert(prefix, owner);
                Ok(())
            }
        }
    }

    /// A prefix that shares an address with this one.
    pub(crate) fn overlap(&self, prefix: IpNet) -> Option<(IpNet, T)> {
        // Prefixes nest or are disjoint, and those here are disjoint: in order of address and length one that overlaps is
        // a neighbour.
        let before = self.0.range(..=prefix).next_back();
        let after = self.0.range(prefix..).next();
        let around = before.filter(|(taken, _)| taken.contains(&prefix));
        let within = after.filter(|(taken, _)| prefix.contains(*taken));
        around.or(within).map(|(&taken, &owner)| (taken, owner))
    }

    /// The prefix around an address.
    pub(crate) fn of_address(&self, address: IpAddr) -> Option<(IpNet, T)> {
        self.overlap(address.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn overlaps_are_those_that_a_look_at_all_finds(
            claims in proptest::collection::vec((any::<u8>(), 24..=32_u8), 1..40),
        ) {
            let mut fast = Claims::default();
            let mut slow: Vec<(IpNet, usize)> = Vec::new();
            for (at, (host, length)) in claims.into_iter().enumerate() {
                let prefix = IpNet::new_assert([10, 0, 0, host].into(), length).trunc();
                let overlaps = |(taken, _): &&(IpNet, usize)| taken.contains(&prefix) || prefix.contains(taken);
                let found: Vec<_> = slow.iter().filter(overlaps).copied().collect();
                match fast.claim(prefix, at) {
                    Ok(()) => {
                        prop_assert!(found.is_empty(), "{prefix}: {found:?}");
                        slow.push((prefix, at));
                    }
                    Err(taken) => prop_assert!(found.contains(&taken), "{prefix}: {taken:?} of {found:?}"),
                }
            }
        }
    }
}
