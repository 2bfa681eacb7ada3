//! Whether a cluster is cut off here, and by whom.

use super::list::{Epoch, List, Revoked};
use super::own::Own;
use crate::token::Pin;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What another cluster's newest list said, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Heard {
    /// Of that list. No older one counts.
    pub epoch: Epoch,
    /// Whom it has.
    pub clusters: BTreeMap<String, Revoked>,
}

impl From<&List> for Heard {
    fn from(list: &List) -> Self {
        Self {
            epoch: list.epoch,
            clusters: list.clusters.clone(),
        }
    }
}

/// All that was decided, here and elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Here.
    pub own: Own,
    /// Elsewhere, by the name of the cluster.
    pub heard: BTreeMap<String, Heard>,
}

/// Why a cluster is cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Who decided it; `None`: this cluster.
    pub by: Option<String>,
    /// The first list that has it.
    pub since: Epoch,
    /// The name in that list, if it is another.
    pub also: Option<String>,
}

impl Standing {
    /// Whether nobody is cut off by anybody.
    pub fn is_empty(&self) -> bool {
        self.own.clusters.is_empty() && self.heard.values().all(|heard| heard.clusters.is_empty())
    }

    /// Whether a cluster with this name and these keys of CAs is cut off. `counts`: whether what another cluster decided
    /// counts here.
    pub fn judge(
        &self,
        name: &str,
        pins: &BTreeSet<Pin>,
        counts: impl Fn(&str) -> bool,
    ) -> Option<Verdict> {
        if let Some((entry, revoked)) = find(&self.own.clusters, name, pins).next() {
            return Some(verdict(None, entry, revoked, name));
        }
        let others = self.heard.iter();
        let others = others.filter(|(issuer, _)| *issuer != name && counts(issuer));
        let mut found = others.flat_map(|(issuer, heard)| {
            let entries = find(&heard.clusters, name, pins);
            let left = entries.filter(|(_, revoked)| !self.is_readmitted(name, issuer, revoked));
            left.map(|(entry, revoked)| verdict(Some(issuer), entry, revoked, name))
        });
        found.next()
    }

    /// Which other clusters' entries cut a cluster off, whether they count here or not: the newest of each.
    pub fn issuers(&self, name: &str, pins: &BTreeSet<Pin>) -> BTreeMap<String, Epoch> {
        let issuers = self.heard.iter().filter_map(|(issuer, heard)| {
            let since = find(&heard.clusters, name, pins).map(|(_, revoked)| revoked.since);
            Some((issuer.clone(), since.max()?))
        });
        issuers.collect()
    }

    /// The newest list of each other cluster.
    pub fn epochs(&self) -> BTreeMap<String, Epoch> {
        let heard = self.heard.iter();
        heard
            .map(|(issuer, heard)| (issuer.clone(), heard.epoch))
            .collect()
    }

    fn is_readmitted(&self, name: &str, issuer: &str, revoked: &Revoked) -> bool {
        let issuers = self.own.readmitted.get(name);
        let until = issuers.and_then(|issuers| issuers.get(issuer));
        until.is_some_and(|until| revoked.since <= *until)
    }
}

fn find<'a>(
    clusters: &'a BTreeMap<String, Revoked>,
    name: &'a str,
    pins: &'a BTreeSet<Pin>,
) -> impl Iterator<Item = (&'a str, &'a Revoked)> {
    let is = move |(entry, revoked): &(&String, &Revoked)| {
        *entry == name || !revoked.pins.is_disjoint(pins)
    };
    let found = clusters.iter().filter(is);
    found.map(|(entry, revoked)| (entry.as_str(), revoked))
}

fn verdict(by: Option<&String>, entry: &str, revoked: &Revoked, name: &str) -> Verdict {
    Verdict {
        by: by.cloned(),
        since: revoked.since,
        also: (entry != name).then(|| entry.to_owned()),
    }
}

/// As a reason: `was revoked by east, epoch 7`.
impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.by {
            Some(by) => write!(f, "was revoked by {by}")?,
            None => f.write_str("was revoked here")?,
        }
        if let Some(also) = &self.also {
            write!(f, " as {also}")?;
        }
        write!(f, ", epoch {}", self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::super::list::tests::list;
    use super::*;

    fn pins(name: &str) -> BTreeSet<Pin> {
        BTreeSet::from([Pin::of_public_key(name.as_bytes())])
    }

    fn told(standing: &Standing, name: &str, ca: &str) -> Option<String> {
        let verdict = standing.judge(name, &pins(ca), |issuer| issuer != "liar");
        verdict.map(|verdict| verdict.to_string())
    }

    #[test]
    fn a_cluster_is_known_by_its_name_and_by_the_keys_of_its_cas() {
        let mut standing = Standing::default();
        standing.own.revoke_cluster("west", pins("west"), 7);
        let here = Some("was revoked here, epoch 7".to_owned());
        assert_eq!(told(&standing, "west", "west"), here);
        assert_eq!(told(&standing, "west", "new"), here, "with another CA");
        let other = told(&standing, "other", "west").unwrap();
        assert_eq!(other, "was revoked here as west, epoch 7");
        assert_eq!(told(&standing, "north", "north"), None);
    }

    #[test]
    fn what_others_decided_counts_where_it_may_and_until_it_was_overruled() {
        let mut standing = Standing::default();
        for (issuer, epoch) in [("liar", 5), ("north", 7)] {
            let heard = Heard::from(&list(issuer, epoch, &["west"]));
            standing.heard.insert(issuer.to_owned(), heard);
        }
        assert_eq!(
            told(&standing, "west", "west").unwrap(),
            "was revoked by north, epoch 7"
        );
        let issuers = standing.issuers("west", &pins("west"));
        assert_eq!(issuers.len(), 2);
        assert!(standing.own.readmit_cluster("west", issuers, 9));
        assert_eq!(told(&standing, "west", "west"), None);
        // A later list that still has it says nothing new; one that has it anew does.
        let mut later = list("north", 8, &["south", "west"]);
        later.clusters.get_mut("west").unwrap().since = Epoch(7);
        standing
            .heard
            .insert("north".to_owned(), Heard::from(&later));
        assert_eq!(told(&standing, "west", "west"), None);
        assert!(told(&standing, "south", "south").is_some());
        let anew = Heard::from(&list("north", 9, &["west"]));
        standing.heard.insert("north".to_owned(), anew);
        assert_eq!(
            told(&standing, "west", "west").unwrap(),
            "was revoked by north, epoch 9"
        );
        assert_eq!(standing.epochs()["north"], Epoch(9));
    }
}
