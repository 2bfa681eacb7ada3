//! Members that come, change and leave.

use super::{Action, Core, Member};
use crate::hub::grants;
use crate::hub::manifest::ClusterPeer;
use crate::hub::members::MemberChange;
use crate::replica::SessionId;
use std::sync::Arc;
use std::time::Instant;

impl Core {
    /// Takes a member that came, changed or left.
    pub fn set_member(&mut self, change: MemberChange, now: Instant) {
        let MemberChange {
            id,
            name,
            peer,
            is_revoked,
        } = change;
        let old = match &peer {
            Some(peer) => {
                let quota = grants::quota(peer.quotas, self.quotas);
                self.replica.set_quota(id, quota);
                let (name, peer) = (name.clone(), Arc::clone(peer));
                self.members.insert(id, Member { name, peer })
            }
            None => self.members.remove(&id),
        };
        self.replica
            .set_members(self.members.keys().copied().collect());
        let same_grant = match (&old, &peer) {
            (Some(old), Some(peer)) => is_same_grant(&old.peer, peer),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        // All records are judged again: only where it can make a difference.
        if !same_grant {
            self.set_gate(self.own_things(), now);
        }
        if let Some(old) = &old
            && (peer.is_none() || old.name != name)
        {
            let reason = if is_revoked {
                "cluster_revoked"
            } else {
                "cluster_left"
            };
            self.close_all_of(&old.name, reason);
            self.refused_by_others.left(&old.name);
            let (name, ca) = (old.name.clone(), None);
            self.actions.push_back(Action::Trust { name, ca });
        }
        match peer {
            None => self.actions.push_back(Action::Hang { cluster: id }),
            Some(peer) => {
                let same = old.filter(|old| old.name == name);
                let same_hubs = same.as_ref().is_some_and(|old| old.peer.hubs == peer.hubs);
                if same.as_ref().is_none_or(|old| old.peer.ca != peer.ca) {
                    self.actions.push_back(Action::Trust {
                        name: name.clone(),
                        ca: Some(peer.ca.clone()),
                    });
                    if same_hubs {
                        self.actions.push_back(Action::Redial { cluster: id });
                    }
                }
                if !same_hubs {
                    self.actions.push_back(Action::Dial {
                        cluster: id,
                        name,
                        hubs: peer.hubs.clone(),
                    });
                }
            }
        }
        self.drain_events(Some(now));
    }

    fn close_all_of(&mut self, cluster: &str, reason: &'static str) {
        let sessions = self.sessions.iter();
        let of_cluster = sessions.filter(|(_, session)| session.peer.cluster == cluster);
        let of_cluster: Vec<SessionId> = of_cluster.map(|(id, _)| *id).collect();
        for session in of_cluster {
            self.close(session, reason);
        }
    }
}

/// Whether a member's records are judged alike by both.
fn is_same_grant(one: &ClusterPeer, other: &ClusterPeer) -> bool {
    // The CA vouches for revocations and for other CAs.
    one.pod_cidrs == other.pod_cidrs
        && one.namespaces == other.namespaces
        && one.may_revoke == other.may_revoke
        && one.ca == other.ca
}
