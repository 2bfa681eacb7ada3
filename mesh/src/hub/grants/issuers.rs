//! Whose revocations a hub takes: the issuer's own, signed by its CA, allowed by its grant, and not older than what is
//! known already, in whatever incarnation of its state they come.

use crate::hub::manifest::ClusterPeer;
use crate::revocation::{Epoch, Signed};
use hawser_tunnel::node::ClusterId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The names of members, and the newest epoch of each. Clones share the epochs: a new gate does not forget them.
#[derive(Clone, Debug, Default)]
pub struct Issuers {
    clusterset: String,
    names: BTreeMap<ClusterId, String>,
    epochs: Arc<Mutex<BTreeMap<String, Epoch>>>,
}

impl Issuers {
    /// Nobody's yet.
    pub fn new(clusterset: String) -> Self {
        Self {
            clusterset,
            ..Self::default()
        }
    }

    /// The same epochs with other members.
    #[must_use]
    pub fn of(&self, names: BTreeMap<ClusterId, String>) -> Self {
        Self {
            clusterset: self.clusterset.clone(),
            names,
            epochs: Arc::clone(&self.epochs),
        }
    }

    /// A cluster has made a list of this epoch: from now on none that is older is taken.
    pub fn raise(&self, issuer: &str, epoch: Epoch) {
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        match epochs.get_mut(issuer) {
            Some(known) => *known = epoch.max(*known),
            None => {
                epochs.insert(issuer.to_owned(), epoch);
            }
        }
    }

    pub(super) fn judge(
        &self,
        origin: ClusterId,
        peer: &ClusterPeer,
        signed: &Signed,
    ) -> Result<(), &'static str> {
        let list = signed.list();
        if self.names.get(&origin) != Some(&list.issuer) || list.clusterset != self.clusterset {
            return Err("revocation_issuer");
        }
        if !peer.may_revoke {
            return Err("revocation_not_granted");
        }
        let epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        if epochs
            .get(&list.issuer)
            .is_some_and(|known| list.epoch < *known)
        {
            return Err("revocation_epoch_older");
        }
        drop(epochs);
        if !signed.is_by(&peer.ca) {
            return Err("revocation_signature");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{Ca, Issued, init};
    use crate::hub::manifest::QuotaLimits;
    use crate::revocation::List;
    use std::time::SystemTime;

    fn ca(cluster: &str) -> Issued {
        init("set.example", cluster, SystemTime::now()).unwrap()
    }

    fn peer(ca: &Issued, may_revoke: bool) -> ClusterPeer {
        ClusterPeer {
            id: ClusterId::new(2).unwrap(),
            pod_cidrs: vec!["10.2.0.0/16".parse().unwrap()],
            service_cidrs: Vec::new(),
            namespaces: None,
            hubs: Vec::new(),
            ca: ca.certificate.clone(),
            quotas: QuotaLimits::default(),
            may_revoke,
        }
    }

    fn signed(by: &Issued, issuer: &str, clusterset: &str, epoch: u64) -> Signed {
        let list = List {
            clusterset: clusterset.to_owned(),
            issuer: issuer.to_owned(),
            epoch: Epoch(epoch),
            clusters: BTreeMap::new(),
        };
        Signed::new(list, &Ca::from_pem(&by.certificate, &by.key).unwrap()).unwrap()
    }

    #[test]
    fn only_the_members_own_list_counts_where_its_grant_allows_it_and_never_an_older_one() {
        let (west, other) = (ca("west"), ca("west"));
        let id = ClusterId::new(2).unwrap();
        let none = Issuers::new("set.example".to_owned());
        let issuers = none.of(BTreeMap::from([(id, "west".to_owned())]));
        let judge = |may, signed: &Signed| issuers.judge(id, &peer(&west, may), signed);
        let right = signed(&west, "west", "set.example", 7);
        assert_eq!(judge(true, &right), Ok(()));
        assert_eq!(judge(false, &right), Err("revocation_not_granted"));
        for (wrong, reason) in [
            (
                signed(&other, "west", "set.example", 7),
                "revocation_signature",
            ),
            (signed(&west, "east", "set.example", 7), "revocation_issuer"),
            (
                signed(&west, "west", "other.example", 7),
                "revocation_issuer",
            ),
        ] {
            assert_eq!(judge(true, &wrong), Err(reason));
        }
        let stranger = none.judge(id, &peer(&west, true), &right);
        assert_eq!(stranger, Err("revocation_issuer"), "it is no member");
        // A new gate, as after each change of members, knows what the one before knew.
        issuers.raise("west", Epoch(8));
        issuers.raise("west", Epoch(3));
        let later = issuers.of(issuers.names.clone());
        let judge = |epoch| {
            later.judge(
                id,
                &peer(&west, true),
                &signed(&west, "west", "set.example", epoch),
            )
        };
        assert_eq!(judge(7), Err("revocation_epoch_older"));
        assert_eq!(judge(8), Ok(()));
        assert_eq!(judge(9), Ok(()));
    }
}
