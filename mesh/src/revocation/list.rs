//! The list that a cluster publishes.

use crate::record::{check_label, check_name};
use crate::token::Pin;
use bytes::Bytes;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The most clusters in a list.
pub const MAX_REVOKED: usize = 512;
/// The most CAs of one of them.
pub const MAX_PINS: usize = crate::trust::MAX_CAS;

/// Orders the lists of one cluster: the greater, the newer. It is the time at which the list was made, in seconds since
/// 1970, or one more than the last, so that a cluster that came back from a backup makes a greater one than before.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The next one; `now` in seconds since 1970.
    #[must_use]
    pub fn next(self, now: u64) -> Self {
        Self(now.max(self.0.saturating_add(1)))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A cluster that is cut off: known by its name, and by the keys of the CAs that it had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Revoked {
    /// It may not come back under another name with one of these.
    pub pins: BTreeSet<Pin>,
    /// The first list that has it.
    pub since: Epoch,
}

/// Whom a cluster has cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// The clusterset: a list counts in no other.
    pub clusterset: String,
    /// The cluster whose list it is.
    pub issuer: String,
    /// Which of its lists.
    pub epoch: Epoch,
    /// By name.
    pub clusters: BTreeMap<String, Revoked>,
}

/// Why bytes are no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// It is no protobuf.
    #[error("malformed list of revocations")]
    Malformed,
    /// A name in it is none, or comes twice.
    #[error("list of revocations: a name is none, or comes twice")]
    Name,
    /// A pin has another length than SHA-256.
    #[error("list of revocations: a pin has not 32 bytes")]
    Pin,
    /// An entry is newer than its list, or the epoch is 0.
    #[error("list of revocations: an epoch is 0, or newer than the list's")]
    Epoch,
    /// See [`MAX_REVOKED`] and [`MAX_PINS`].
    #[error("list of revocations: too many entries")]
    TooMany,
    /// See [`super::MAX_SIGNATURE`].
    #[error("list of revocations: the signature is empty or too long")]
    Signature,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireList {
    #[prost(string, tag = "1")]
    clusterset: String,
    #[prost(string, tag = "2")]
    issuer: String,
    #[prost(uint64, tag = "3")]
    epoch: u64,
    #[prost(message, repeated, tag = "4")]
    clusters: Vec<WireRevoked>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireRevoked {
    #[prost(string, tag = "1")]
    name: String,
    /// 32 bytes each.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pins: Vec<Bytes>,
    #[prost(uint64, tag = "3")]
    since: u64,
}

impl List {
    /// Its bytes: what is signed.
    pub fn encode(&self) -> Bytes {
        let clusters = self.clusters.iter().map(|(name, revoked)| WireRevoked {
            name: name.clone(),
            pins: revoked
                .pins
                .iter()
                .map(|pin| Bytes::copy_from_slice(pin.as_bytes()))
                .collect(),
            since: revoked.since.0,
        });
        let wire = WireList {
            clusterset: self.clusterset.clone(),
            issuer: self.issuer.clone(),
            epoch: self.epoch.0,
            clusters: clusters.collect(),
        };
        wire.encode_to_vec().into()
    }

    /// Reads a list. Whether it is its issuer's own, [`super::Signed::is_by`] says.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(bytes: &Bytes) -> Result<Self, ListError> {
        let wire = WireList::decode(bytes.clone()).map_err(|_| ListError::Malformed)?;
        check_name(&wire.clusterset).map_err(|_| ListError::Name)?;
        check_label(&wire.issuer).map_err(|_| ListError::Name)?;
        if wire.clusters.len() > MAX_REVOKED {
            return Err(ListError::TooMany);
        }
        let epoch = Epoch(wire.epoch);
        if epoch == Epoch::default() {
            return Err(ListError::Epoch);
        }
        let mut clusters = BTreeMap::new();
        for entry in wire.clusters {
            check_label(&entry.name).map_err(|_| ListError::Name)?;
            if entry.pins.len() > MAX_PINS {
                return Err(ListError::TooMany);
            }
            let pins = entry.pins.iter().map(|pin| Pin::from_slice(pin));
            let pins: Option<BTreeSet<Pin>> = pins.collect();
            let revoked = Revoked {
                pins: pins.ok_or(ListError::Pin)?,
                since: Epoch(entry.since),
            };
            if revoked.since == Epoch::default() || revoked.since > epoch {
                return Err(ListError::Epoch);
            }
            if clusters.insert(entry.name, revoked).is_some() {
                return Err(ListError::Name);
            }
        }
        Ok(Self {
            clusterset: wire.clusterset,
            issuer: wire.issuer,
            epoch,
            clusters,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A list of `set.example` with these clusters, each with a pin of its own.
    pub(crate) fn list(issuer: &str, epoch: u64, names: &[&str]) -> List {
        let revoked = |name: &str| Revoked {
            pins: BTreeSet::from([Pin::of_public_key(name.as_bytes())]),
            since: Epoch(epoch),
        };
        List {
            clusterset: "set.example".to_owned(),
            issuer: issuer.to_owned(),
            epoch: Epoch(epoch),
            clusters: names
                .iter()
                .map(|name| ((*name).to_owned(), revoked(name)))
                .collect(),
        }
    }

    #[test]
    fn epochs_grow_whatever_the_clock_says() {
        assert_eq!(Epoch::default().next(1_800_000_000), Epoch(1_800_000_000));
        assert_eq!(Epoch(1_800_000_000).next(7), Epoch(1_800_000_001));
        assert_eq!(Epoch(u64::MAX).next(7), Epoch(u64::MAX));
    }

    #[test]
    fn what_is_written_is_read() {
        for names in [&[][..], &["west"], &["north", "south", "west"]] {
            let list = list("east", 9, names);
            assert_eq!(List::decode(&list.encode()), Ok(list));
        }
        let names: Vec<String> = (0..MAX_REVOKED).map(|n| format!("c{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let longest = list("east", 9, &names).encode();
        assert!(longest.len() < crate::replica::MAX_VALUE);
    }

    #[test]
    fn what_breaks_a_rule_is_no_list() {
        type Spoil = fn(&mut WireList);
        let cases: [(Spoil, ListError); 9] = [
            (|list| list.clusterset = "Set".to_owned(), ListError::Name),
            (|list| list.issuer = String::new(), ListError::Name),
            (|list| list.epoch = 0, ListError::Epoch),
            (|list| list.epoch = 8, ListError::Epoch),
            (|list| list.clusters[0].since = 0, ListError::Epoch),
            (
                |list| list.clusters[0].name = "a/b".to_owned(),
                ListError::Name,
            ),
            (
                |list| list.clusters[0].name = "west".to_owned(),
                ListError::Name,
            ),
            (
                |list| list.clusters[0].pins = vec![Bytes::from_static(&[7; 31])],
                ListError::Pin,
            ),
            (
                |list| list.clusters[0].pins = vec![Bytes::from_static(&[7; 32]); 5],
                ListError::TooMany,
            ),
        ];
        let right = WireList::decode(list("east", 9, &["north", "west"]).encode()).unwrap();
        for (spoil, error) in cases {
            let mut wire = right.clone();
            spoil(&mut wire);
            assert_eq!(List::decode(&wire.encode_to_vec().into()), Err(error));
        }
        let mut wire = right;
        wire.clusters = vec![wire.clusters[0].clone(); MAX_REVOKED + 1];
        let many = List::decode(&wire.encode_to_vec().into());
        assert_eq!(many, Err(ListError::TooMany));
        assert_eq!(
            List::decode(&Bytes::from_static(b"\x0a\xff")),
            Err(ListError::Malformed)
        );
    }
}
