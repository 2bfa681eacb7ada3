//! The other clusters, each with an ID and prefixes of its own: who came first, keeps them, also when it is cut off.

use super::manifest::{ClusterPeer, overlaps, own_cluster};
use crate::revocation::{Standing, Verdict};
use crate::token::pins;
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
    /// Whether it left because it was cut off.
    pub is_revoked: bool,
}

/// Which `ClusterPeer` objects count.
#[derive(Debug)]
pub struct Members {
    own: (ClusterId, String),
    accepted: BTreeMap<String, Arc<ClusterPeer>>,
    /// Those that are cut off, and why. What was theirs is nobody else's.
    revoked: BTreeMap<String, (Arc<ClusterPeer>, Verdict)>,
    standing: Standing,
    /// Those that take what another one or the own cluster has, and why.
    refused: BTreeMap<String, (Arc<ClusterPeer>, String)>,
}

impl Members {
    /// Nobody yet; never the own cluster, neither by its ID nor by its name.
    pub fn new(own: ClusterId, own_name: String) -> Self {
        Self {
            own: (own, own_name),
            accepted: BTreeMap::new(),
            revoked: BTreeMap::new(),
            standing: Standing::default(),
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

    /// Objects of clusters that are cut off, by name, with the reason. Nothing that they said stands.
    pub fn revoked(&self) -> impl Iterator<Item = (&str, &Verdict)> {
        let revoked = self.revoked.iter();
        revoked.map(|(name, (_, verdict))| (name.as_str(), verdict))
    }

    /// What an object says that does not count.
    pub fn wanted(&self, name: &str) -> Option<&Arc<ClusterPeer>> {
        let revoked = self.revoked.get(name).map(|(peer, _)| peer);
        revoked.or_else(|| Some(&self.refused.get(name)?.0))
    }

    /// Who is cut off, here and elsewhere.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Whether a cluster of this name, with these CAs in PEM, is cut off.
    pub fn judge(&self, name: &str, ca: &str) -> Option<Verdict> {
        if self.standing.is_empty() {
            return None;
        }
        // Who is no member any more was one when its list came.
        let counts = |issuer: &str| self.may_revoke(issuer).unwrap_or(true);
        self.standing.judge(name, &pins(ca), counts)
    }

    /// Whether whom this cluster revokes is cut off, by what its object says.
    fn may_revoke(&self, name: &str) -> Option<bool> {
        let peer = self.accepted.get(name).or_else(|| self.wanted(name));
        peer.map(|peer| peer.may_revoke)
    }

    /// Takes what was decided, here and elsewhere. Returns what follows from it, those that left first.
    pub fn set_standing(&mut self, standing: Standing) -> Vec<MemberChange> {
        self.standing = standing;
        let mut changes = Vec::new();
        self.judge_all(&mut changes);
        changes
    }

    /// Judges everybody once more. A member that is cut off may be one whose list counted, so it goes on until nothing
    /// changes any more.
    fn judge_all(&mut self, changes: &mut Vec<MemberChange>) {
        let names: Vec<String> = self.accepted.keys().cloned().collect();
        for name in names {
            let Some(peer) = self.accepted.get(&name).cloned() else {
                continue;
            };
            if let Some(verdict) = self.judge(&name, &peer.ca) {
                self.cut_off(&name, peer, verdict, changes);
            }
        }
        let names: Vec<String> = self.revoked.keys().cloned().collect();
        for name in names {
            // One at a time: whether one's list counts is looked up where it stands.
            if let Some((peer, _)) = self.revoked.remove(&name) {
                self.accept(&name, peer, changes);
            }
        }
        self.retry(changes);
    }

    fn cut_off(
        &mut self,
        name: &str,
        peer: Arc<ClusterPeer>,
        verdict: Verdict,
        changes: &mut Vec<MemberChange>,
    ) {
        if let Some(left) = self.leave(name) {
            changes.push(MemberChange {
                is_revoked: true,
                ..left
            });
        }
        self.revoked.insert(name.to_owned(), (peer, verdict));
    }

    /// What gave way may have room now.
    fn retry(&mut self, changes: &mut Vec<MemberChange>) {
        let names: Vec<String> = self.refused.keys().cloned().collect();
        for name in names {
            if let Some((peer, _)) = self.refused.remove(&name) {
                self.accept(&name, peer, changes);
            }
        }
    }

    /// Takes the newest state of an object; `None`: it is gone. Returns what follows from it, those that left first.
    pub fn set(&mut self, name: &str, peer: Option<Arc<ClusterPeer>>) -> Vec<MemberChange> {
        let mut changes = Vec::new();
        let could_revoke = self.may_revoke(name);
        self.refused.remove(name);
        self.revoked.remove(name);
        match peer {
            Some(peer) => self.accept(name, peer, &mut changes),
            None => changes.extend(self.leave(name)),
        }
        if self.may_revoke(name) == could_revoke {
            self.retry(&mut changes);
        } else {
            self.judge_all(&mut changes);
        }
        changes
    }

    fn leave(&mut self, name: &str) -> Option<MemberChange> {
        let old = self.accepted.remove(name)?;
        Some(MemberChange {
            id: old.id,
            name: name.to_owned(),
            peer: None,
            is_revoked: false,
        })
    }

    fn accept(&mut self, name: &str, peer: Arc<ClusterPeer>, changes: &mut Vec<MemberChange>) {
        if let Some(why) = self.conflict(name, &peer) {
            self.refused.insert(name.to_owned(), (peer, why));
            return;
        }
        if let Some(verdict) = self.judge(name, &peer.ca) {
            self.cut_off(name, peer, verdict, changes);
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
            is_revoked: false,
        });
    }

    fn conflict(&self, name: &str, peer: &ClusterPeer) -> Option<String> {
        let (own, own_name) = &self.own;
        if let Some(fault) = own_cluster(peer.id, name, *own, own_name) {
            return Some(fault.to_string());
        }
        let revoked = self.revoked.iter().map(|(other, (peer, _))| (other, peer));
        let others = self.accepted.iter().chain(revoked);
        let mut others = others.filter(|(other, _)| *other != name);
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
            may_revoke: false,
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

    fn known(id: u16, prefix: &str, name: &str, may_revoke: bool) -> Arc<ClusterPeer> {
        let ca = crate::ca::init("set.example", name, std::time::SystemTime::now());
        Arc::new(ClusterPeer {
            ca: ca.unwrap().certificate,
            may_revoke,
            ..(*peer(id, prefix)).clone()
        })
    }

    #[test]
    fn who_is_cut_off_is_no_member_and_what_was_its_own_is_nobody_elses() {
        let mut members = members();
        let west = known(2, "10.2.0.0/16", "west", false);
        members.set("west", Some(Arc::clone(&west)));
        members.set("north", Some(known(3, "10.2.8.0/24", "north", false)));
        let mut standing = Standing::default();
        standing.own.revoke_cluster("west", pins(&west.ca), 7);
        let changes = members.set_standing(standing.clone());
        assert_eq!(names(&changes), ["-west"]);
        assert!(changes[0].is_revoked);
        let revoked: Vec<_> = members
            .revoked()
            .map(|(name, why)| (name, why.to_string()))
            .collect();
        assert_eq!(revoked, [("west", "was revoked here, epoch 7".to_owned())]);
        assert!(members.wanted("west").is_some());
        let refused: Vec<_> = members.refused().map(|(name, _)| name).collect();
        assert_eq!(refused, ["north"], "its prefix is still west's");
        // Neither by another name, nor with another CA.
        let other = ClusterPeer {
            ca: west.ca.clone(),
            ..(*peer(5, "10.5.0.0/16")).clone()
        };
        let new = known(2, "10.2.0.0/16", "west", false);
        for (name, again) in [("other", Arc::new(other)), ("west", new)] {
            assert_eq!(names(&members.set(name, Some(again))), [""; 0], "{name}");
            assert!(members.revoked().any(|(revoked, _)| revoked == name));
        }
        members.set("other", None);
        members.set("west", Some(Arc::clone(&west)));
        standing.own.readmit_cluster("west", BTreeMap::new(), 8);
        assert_eq!(names(&members.set_standing(standing)), ["+west"]);
        assert_eq!(members.revoked().count(), 0);
    }

    #[test]
    fn whom_another_cluster_revoked_is_cut_off_where_its_grant_says_so() {
        let (west, north) = (
            known(2, "10.2.0.0/16", "west", true),
            known(3, "10.3.0.0/16", "north", false),
        );
        let says = |issuer: &str, of: &ClusterPeer, name: &str| {
            let mut heard = crate::revocation::Heard::default();
            let revoked = crate::revocation::Revoked {
                pins: pins(&of.ca),
                since: crate::revocation::Epoch(7),
            };
            heard.clusters.insert(name.to_owned(), revoked);
            (issuer.to_owned(), heard)
        };
        let mut members = members();
        members.set("west", Some(Arc::clone(&west)));
        members.set("north", Some(Arc::clone(&north)));
        // North may not say anything of west, and nobody of this cluster.
        let mut standing = Standing::default();
        standing
            .heard
            .extend([says("north", &west, "west"), says("west", &west, "east")]);
        assert!(members.set_standing(standing.clone()).is_empty());
        standing.heard.extend([says("west", &north, "north")]);
        assert_eq!(names(&members.set_standing(standing.clone())), ["-north"]);
        // Its own end does not undo it; another grant does.
        standing.own.revoke_cluster("west", pins(&west.ca), 9);
        assert_eq!(names(&members.set_standing(standing.clone())), ["-west"]);
        assert_eq!(members.revoked().count(), 2);
        standing.own = crate::revocation::Own::default();
        assert_eq!(names(&members.set_standing(standing)), ["+west"]);
        let changes = members.set("west", Some(known(2, "10.2.0.0/16", "west", false)));
        assert_eq!(names(&changes), ["+west", "+north"]);
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
