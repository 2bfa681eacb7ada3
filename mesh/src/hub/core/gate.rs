//! What records of others are held against: their grants, and what is our own.

use super::Core;
use crate::hub::grants::{Grants, Own};
use crate::record::Key;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

impl Core {
    /// A node of ours is reached elsewhere. Only what somebody could call a pod's is worth another look at all records.
    pub(super) fn note_underlay(&mut self, before: Option<&BTreeSet<IpAddr>>, key: &Key) {
        let after = self.underlay.get(key);
        if before == after {
            return;
        }
        let mut touched = before.into_iter().chain(after).flatten();
        let members = &self.members;
        let granted = |address: &IpAddr| {
            let mut cidrs = members.values().flat_map(|member| &member.peer.pod_cidrs);
            cidrs.any(|cidr| cidr.contains(address))
        };
        self.own_changed |= touched.any(granted);
    }

    /// What is ours and nobody else's to announce; of our nodes those that somebody was granted to.
    pub(super) fn own_things(&self) -> Own {
        let theirs = self.members.values();
        let theirs: Vec<IpNet> = theirs
            .flat_map(|member| &member.peer.pod_cidrs)
            .copied()
            .collect();
        let nodes = self.underlay.values().flatten().copied();
        Own {
            prefixes: self.own.prefixes.clone(),
            nodes: nodes
                .filter(|address| theirs.iter().any(|cidr| cidr.contains(address)))
                .collect(),
            protected: self.protected.clone(),
        }
    }

    pub(super) fn set_gate(&mut self, own: Own, now: Instant) {
        self.own_changed = false;
        let peers = self.members.iter();
        let peers = peers.map(|(id, member)| (*id, Arc::clone(&member.peer)));
        let names = self.members.iter();
        let names = names.map(|(id, member)| (*id, member.name.clone()));
        self.grants =
            Grants::new(own, peers.collect()).with_issuers(self.issuers.of(names.collect()));
        self.replica.set_gate(Box::new(self.grants.clone()), now);
    }

    /// Judges all records again if what is our own changed in a way that can make a difference.
    pub(super) fn look_at_own(&mut self, now: Instant) {
        if std::mem::take(&mut self.own_changed) {
            let own = self.own_things();
            if own != *self.grants.own() {
                self.set_gate(own, now);
                self.drain_events(Some(now));
            }
        }
    }
}
