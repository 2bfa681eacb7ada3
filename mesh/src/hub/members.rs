//! The other clusters, each with an ID and prefixes of its own: who came first, keeps them.

use super::manifest::{ClusterPeer, overlaps, own_cluster};
use hawser_tunnel::node::ClusterId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A member that came, changed or left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberChange {
    /// The cluster.
    pub id: ClusterId,
    /// Its name.
    pub name: String,
    /// `None`: it left.
    pub peer: Option<Arc<ClusterPeer>>,
}

/// Which `ClusterPeer` objects count.
#[derive(Debug)]
pub struct Members {
    own: (ClusterId, String),
    accepted: BTreeMap<String, Arc<ClusterPeer>>,
    /// Those that take what another one or the own cluster has, and why.
    refused: BTreeMap<String, (Arc<ClusterPeer>, String)>,
}

impl Members {
    /// Nobody yet; never the own cluster, neither by its ID nor by its name.
    pub fn new(own: ClusterId, own_name: String) -> Self {
        Self {
            own: (own, own_name),
            accepted: BTreeMap::new(),
            refused: BTreeMap::new(),
        }
    }

    /// The members, by name.
    pub fn accepted(&self) -> &BTreeMap<String, Arc<ClusterPeer>> {
        &self.accepted
    }

    /// Objects that do not count, by name, with the reason. What they said before, stands.
    pub fn refused(&self) -> impl Iterator<Item = (&str, &str)> {
        let refused = self.refused.iter();
        refused.map(|(name, (_, why))| (name.as_str(), why.as_str()))
    }

    /// What an object says that does not count.
    pub fn wanted(&self, name: &str) -> Option<&Arc<ClusterPeer>> {
        Some(&self.refused.get(name)?.0)
    }

    /// Takes the newest state of an object; `None`: it is gone. Returns what follows from it, those that left first.
    pub fn set(&mut self, name: &str, peer: Option<Arc<ClusterPeer>>) -> Vec<MemberChange> {
        let mut changes = Vec::new();
        self.refused.remove(name);
        match peer {
            Some(peer) => self.accept(name, peer, &mut changes),
            None => changes.extend(self.leave(name)),
        }
        // What gave way may have room now.
        for (name, (peer, _)) in std::mem::take(&mut self.refused) {
            self.accept(&name, peer, &mut changes);
        }
        changes
    }

    fn leave(&mut self, name: &str) -> Option<MemberChange> {
        let old = self.accepted.remove(name)?;
        Some(MemberChange {
            id: old.id,
            name: name.to_owned(),
            peer: None,
        })
    }

    fn accept(&mut self, name: &str, peer: Arc<ClusterPeer>, changes: &mut Vec<MemberChange>) {
        if let Some(why) = self.conflict(name, &peer) {
            self.refused.insert(name.to_owned(), (peer, why));
            return;
        }
        match self.accepted.get(name) {
            Some(old) if *old == peer => return,
            Some(old) if old.id != peer.id => changes.extend(self.leave(name)),
            Some(_) | None => {}
        }
        self.accepted.insert(name.to_owned(), Arc::clone(&peer));
        changes.push(MemberChange {
            id: peer.id,
            name: name.to_owned(),
            peer: Some(peer),
        });
    }

    fn conflict(&self, name: &str, peer: &ClusterPeer) -> Option<String> {
        let (own, own_name) = &self.own;
        if let Some(fault) = own_cluster(peer.id, name, *own, own_name) {
            return Some(fault.to_string());
        }
        let mut others = self.accepted.iter().filter(|(other, _)| *other != name);
        others.find_map(|(other, known)| {
            if known.id == peer.id {
                return Some(format!(
                    "spec.clusterId: {}: is also the id of cluster {other}; give each its own",
                    peer.id
                ));
            }
            let had = known.pod_cidrs.iter().chain(&known.service_cidrs);
            let pods = peer
                .pod_cidrs
                .iter()
                .map(|prefix| ("spec.podCidrs", prefix));
            let services = peer.service_cidrs.iter();
            let services = services.map(|prefix| ("spec.serviceCidrs", prefix));
            let mut pairs = pods
                .chain(services)
                .flat_map(|(field, prefix)| had.clone().map(move |had| (field, *prefix, *had)));
            let (field, prefix, had) = pairs.find(|(_, prefix, had)| overlaps(*had, *prefix))?;
            Some(format!(
                "{field}: {prefix}: overlaps {had} of cluster {other}; give each its own"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::manifest::QuotaLimits;

    fn peer(id: u16, prefix: &str) -> Arc<ClusterPeer> {
        Arc::new(ClusterPeer {
            id: ClusterId::new(id).unwrap(),
            pod_cidrs: vec![prefix.parse().unwrap()],
            service_cidrs: Vec::new(),
            namespaces: None,
            hubs: Vec::new(),
            ca: String::new(),
            quotas: QuotaLimits::default(),
        })
    }

    fn names(changes: &[MemberChange]) -> Vec<String> {
        let sign = |change: &MemberChange| if change.peer.is_some() { '+' } else { '-' };
        let name = |change| format!("{}{}", sign(change), change.name);
        changes.iter().map(name).collect()
    }

    fn members() -> Members {
        Members::new(ClusterId::new(1).unwrap(), "east".to_owned())
    }

    #[test]
    fn the_own_cluster_is_no_member_by_id_or_by_name() {
        let mut members = members();
        assert!(
            members
                .set("alien", Some(peer(1, "10.9.0.0/16")))
                .is_empty()
        );
        assert!(members.set("east", Some(peer(9, "10.9.0.0/16"))).is_empty());
        let refused: Vec<_> = members.refused().collect();
        let why = "is this cluster itself; remove the ClusterPeer or correct it";
        let by_id = format!("spec.clusterId: 1: {why}");
        let by_name = format!("metadata.name: east: {why}");
        assert_eq!(refused, [("alien", &*by_id), ("east", &*by_name)]);
        // A member that turns into one stays what it was.
        members.set("west", Some(peer(2, "10.2.0.0/16")));
        assert!(members.set("west", Some(peer(1, "10.2.0.0/16"))).is_empty());
        assert_eq!(members.accepted()["west"].id, ClusterId::new(2).unwrap());
        assert_eq!(members.accepted().len(), 1);
    }

    #[test]
    fn who_came_first_keeps_its_id_and_prefixes() {
        let mut members = members();
        assert_eq!(
            names(&members.set("west", Some(peer(2, "10.2.0.0/16")))),
            ["+west"]
        );
        assert!(
            members
                .set("alien", Some(peer(2, "10.3.0.0/16")))
                .is_empty()
        );
        assert!(members.set("b", Some(peer(3, "10.2.8.0/24"))).is_empty());
        let refused: Vec<_> = members.refused().map(|(name, _)| name).collect();
        assert_eq!(refused, ["alien", "b"]);
        let changes = members.set("west", None);
        assert_eq!(names(&changes), ["-west", "+alien", "+b"]);
        assert_eq!(members.refused().count(), 0);
    }

    #[test]
    fn pods_and_services_of_two_clusters_share_no_address_and_the_field_is_named() {
        let mut members = members();
        let with_services = |id: u16, pods: &str, services: &str| {
            let service_cidrs = vec![services.parse().unwrap()];
            Arc::new(ClusterPeer {
                service_cidrs,
                ..(*peer(id, pods)).clone()
            })
        };
        members.set(
            "west",
            Some(with_services(2, "10.2.0.0/16", "10.96.0.0/16")),
        );
        for (pods, services, told) in [
            (
                "10.2.1.9/32",
                "10.97.0.0/16",
                "spec.podCidrs: 10.2.1.9/32: overlaps 10.2.0.0/16",
            ),
            (
                "10.0.0.0/14",
                "10.97.0.0/16",
                "spec.podCidrs: 10.0.0.0/14: overlaps 10.2.0.0/16",
            ),
            (
                "10.96.4.0/24",
                "10.97.0.0/16",
                "spec.podCidrs: 10.96.4.0/24: overlaps 10.96.0.0/16",
            ),
            (
                "10.3.0.0/16",
                "10.2.1.0/24",
                "spec.serviceCidrs: 10.2.1.0/24: overlaps 10.2.0.0/16",
            ),
            (
                "10.3.0.0/16",
                "10.96.0.0/12",
                "spec.serviceCidrs: 10.96.0.0/12: overlaps 10.96.0.0/16",
            ),
        ] {
            assert_eq!(
                names(&members.set("alien", Some(with_services(3, pods, services)))),
                [""; 0]
            );
            let refused: Vec<_> = members.refused().collect();
            let told = format!("{told} of cluster west; give each its own");
            assert_eq!(refused, [("alien", &*told)]);
        }
        let right = with_services(3, "10.3.0.0/16", "10.97.0.0/16");
        assert_eq!(names(&members.set("alien", Some(right))), ["+alien"]);
    }

    #[test]
    fn a_changed_id_is_another_member() {
        let mut members = members();
        members.set("west", Some(peer(2, "10.2.0.0/16")));
        let changes = members.set("west", Some(peer(4, "10.2.0.0/16")));
        assert_eq!(names(&changes), ["-west", "+west"]);
        assert!(members.set("west", Some(peer(4, "10.2.0.0/16"))).is_empty());
    }
}
