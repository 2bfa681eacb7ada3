//! What another cluster's CAs came to be, beside what was said of them here.

use crate::token::{Pin, pins};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What another cluster's CAs were found to be, beside what an operator, or joining, said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Followed {
    /// The keys of the CAs that were said.
    pub(crate) said: BTreeSet<Pin>,
    /// What that cluster made of them, in PEM.
    pub(crate) ca: String,
}

impl Followed {
    /// What counts, where this is said now. Another saying than the one that was followed counts by itself, unless it is
    /// one that the cluster came to.
    pub(crate) fn of(&self, said: &str) -> Option<&str> {
        let now = pins(said);
        let came_to = pins(&self.ca);
        (now == self.said || (!now.is_empty() && now.is_subset(&came_to))).then_some(&*self.ca)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{Ca, init};
    use std::time::SystemTime;

    #[test]
    fn what_an_operator_says_anew_counts() {
        let first = || init("set.example", "east", SystemTime::now()).unwrap();
        let (old, other) = (first(), first());
        let ca = Ca::from_pem(&old.certificate, &old.key).unwrap();
        let new = ca.successor(SystemTime::now()).unwrap();
        let followed = Followed {
            said: pins(&old.certificate),
            ca: new.ca.certificate.clone(),
        };
        let came_to = Some(&*new.ca.certificate);
        assert_eq!(followed.of(&old.certificate), came_to);
        assert_eq!(followed.of(&new.ca.certificate), came_to);
        assert_eq!(followed.of(&other.certificate), None);
        let both = format!("{}{}", other.certificate, old.certificate);
        assert_eq!(followed.of(&both), None);
        assert_eq!(followed.of(""), None);
    }
}
