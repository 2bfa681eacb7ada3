//! What a cluster decided itself.

use super::list::{Epoch, List, ListError, MAX_REVOKED, Revoked};
use super::signed::Signed;
use crate::ca::{Ca, IssueError};
use crate::token::Pin;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Another cluster, with all that it has.
    Cluster,
    /// A node of the own cluster.
    Node,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "cluster",
            Self::Node => "node",
        })
    }
}

/// What a cluster decided itself, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Own {
    /// Of the newest list.
    pub epoch: Epoch,
    /// Other clusters that are cut off.
    pub clusters: BTreeMap<String, Revoked>,
    /// Own nodes that are cut off, and when, in seconds since 1970.
    pub nodes: BTreeMap<String, u64>,
    /// Whose revocation by which issuers does not count here, up to which of their entries.
    pub readmitted: BTreeMap<String, BTreeMap<String, Epoch>>,
    /// The list and its signature, in base64; nothing, if this cluster has no CA of its own to sign with.
    signed: Option<[String; 2]>,
}

impl Own {
    /// Cuts a cluster off. Returns since which list it is; `None`: there are too many.
    pub fn revoke_cluster(&mut self, name: &str, pins: BTreeSet<Pin>, now: u64) -> Option<Epoch> {
        self.readmitted.remove(name);
        if let Some(known) = self.clusters.get_mut(name)
            && pins.is_subset(&known.pins)
        {
            return Some(known.since);
        }
        if self.clusters.len() >= MAX_REVOKED {
            return None;
        }
        self.epoch = self.epoch.next(now);
        let since = self.epoch;
        let known = self.clusters.entry(name.to_owned()).or_default();
        known.pins.extend(pins);
        known.since = since;
        Some(since)
    }

    /// Lets a cluster in again, whoever of `issuers` says what since when. Returns whether anything changed.
    pub fn readmit_cluster(
        &mut self,
        name: &str,
        issuers: BTreeMap<String, Epoch>,
        now: u64,
    ) -> bool {
        let was = self.clusters.remove(name).is_some();
        if was {
            self.epoch = self.epoch.next(now);
        }
        let told = !issuers.is_empty();
        if told {
            self.readmitted.insert(name.to_owned(), issuers);
        }
        was || told
    }

    /// Cuts a node off. Returns since when, in seconds since 1970.
    pub fn revoke_node(&mut self, name: &str, now: u64) -> u64 {
        *self.nodes.entry(name.to_owned()).or_insert(now)
    }

    /// Lets a node in again. Returns whether it was cut off.
    pub fn readmit_node(&mut self, name: &str) -> bool {
        self.nodes.remove(name).is_some()
    }

    /// The list is to be signed again, by another CA.
    pub fn forget_signature(&mut self) {
        self.signed = None;
    }

    /// Makes the list that others are told, where the epoch has changed. Call it after each change.
    ///
    /// # Errors
    /// The CA cannot sign.
    pub fn sign(&mut self, clusterset: &str, issuer: &str, ca: &Ca) -> Result<(), IssueError> {
        let is_current = |signed: &Signed| signed.list().epoch == self.epoch;
        if self.epoch == Epoch::default()
            || self.signed().ok().flatten().is_some_and(|s| is_current(&s))
        {
            return Ok(());
        }
        let list = List {
            clusterset: clusterset.to_owned(),
            issuer: issuer.to_owned(),
            epoch: self.epoch,
            clusters: self.clusters.clone(),
        };
        let signed = Signed::new(list, ca)?;
        self.signed =
            Some([signed.bytes(), signed.signature()].map(|bytes| STANDARD.encode(bytes)));
        Ok(())
    }

    /// The list that others are told.
    ///
    /// # Errors
    /// Somebody changed the file.
    pub fn signed(&self) -> Result<Option<Signed>, ListError> {
        let Some([bytes, signature]) = &self.signed else {
            return Ok(None);
        };
        let read = |text: &str| STANDARD.decode(text).map_err(|_| ListError::Malformed);
        Signed::parse(read(bytes)?.into(), read(signature)?.into()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::init;
    use std::time::SystemTime;

    fn pins(name: &str) -> BTreeSet<Pin> {
        BTreeSet::from([Pin::of_public_key(name.as_bytes())])
    }

    #[test]
    fn each_change_of_clusters_is_another_epoch_and_the_list_says_it() {
        let made = init("set.example", "east", SystemTime::now()).unwrap();
        let ca = Ca::from_pem(&made.certificate, &made.key).unwrap();
        let mut own = Own::default();
        own.sign("set.example", "east", &ca).unwrap();
        assert_eq!(own.signed(), Ok(None), "nothing was ever revoked");
        assert_eq!(
            own.revoke_cluster("west", pins("west"), 100),
            Some(Epoch(100))
        );
        own.sign("set.example", "east", &ca).unwrap();
        let first = own.signed().unwrap().unwrap();
        assert!(first.is_by(&made.certificate));
        assert_eq!(first.list().clusters, own.clusters);
        // Once more is no news, and signs nothing anew.
        assert_eq!(
            own.revoke_cluster("west", pins("west"), 101),
            Some(Epoch(100))
        );
        own.sign("set.example", "east", &ca).unwrap();
        assert_eq!(own.signed().unwrap().unwrap(), first);
        // A CA that it got since.
        assert_eq!(
            own.revoke_cluster("west", pins("new"), 99),
            Some(Epoch(101))
        );
        assert_eq!(own.clusters["west"].pins.len(), 2);
        assert!(own.readmit_cluster("west", BTreeMap::new(), 102));
        assert!(!own.readmit_cluster("west", BTreeMap::new(), 103));
        own.sign("set.example", "east", &ca).unwrap();
        let last = own.signed().unwrap().unwrap();
        assert_eq!(
            (last.list().epoch, last.list().clusters.len()),
            (Epoch(102), 0)
        );
    }

    #[test]
    fn what_is_kept_is_read() {
        let made = init("set.example", "east", SystemTime::now()).unwrap();
        let mut own = Own::default();
        own.revoke_cluster("west", pins("west"), 100);
        own.revoke_node("worker-1", 200);
        own.readmit_cluster(
            "north",
            BTreeMap::from([("west".to_owned(), Epoch(7))]),
            300,
        );
        own.sign(
            "set.example",
            "east",
            &Ca::from_pem(&made.certificate, &made.key).unwrap(),
        )
        .unwrap();
        let text = serde_json::to_string(&own).unwrap();
        assert_eq!(serde_json::from_str::<Own>(&text).unwrap(), own);
        for wrong in ["{\"epoch\": -1}", "{\"node\": {}}", "{\"signed\": [\"0\"]}"] {
            assert!(serde_json::from_str::<Own>(wrong).is_err(), "{wrong}");
        }
        let spoilt = text.replacen("\"signed\":[\"", "\"signed\":[\"-", 1);
        let spoilt: Own = serde_json::from_str(&spoilt).unwrap();
        assert_eq!(spoilt.signed(), Err(ListError::Malformed));
    }

    #[test]
    fn there_is_an_end_of_what_a_list_has() {
        let mut own = Own::default();
        for number in 0..MAX_REVOKED {
            assert!(
                own.revoke_cluster(&format!("c{number}"), BTreeSet::new(), 1)
                    .is_some()
            );
        }
        assert_eq!(own.revoke_cluster("one-more", BTreeSet::new(), 1), None);
        assert!(own.revoke_cluster("c7", BTreeSet::new(), 1).is_some());
    }
}
