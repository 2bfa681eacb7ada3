//! Cuts off clusters and nodes, and lets them in again: what was decided here, and what members' lists say.

use super::{Report, Scribe};
use crate::hub::joining::{Cut, Refusal};
use crate::hub::manifest::{Object, ObjectKey, ObjectKind};
use crate::hub::tokens::seconds;
use crate::revocation::{Heard, Kind, Own, Signed};
use crate::token::{Pin, Purpose, pins};
use std::collections::BTreeSet;
use std::time::SystemTime;

impl Scribe {
    /// Looks at the folder of revocations.
    pub(super) fn look_at_revoked(&mut self) {
        match self.revoked.look() {
            Ok(true) => self.take_standing(),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%error, "revocations cannot be read; what stood before, stands");
            }
        }
    }

    /// Lets what the folder says count.
    pub(super) fn take_standing(&mut self) {
        let standing = self.revoked.standing().clone();
        self.report(Report::Epochs(standing.epochs()));
        let names = |own: &Own| own.nodes.keys().cloned().collect::<BTreeSet<String>>();
        let (before, after) = (names(&self.members.standing().own), names(&standing.own));
        let changes = self.members.set_standing(standing);
        self.tell_members(changes);
        let nodes = before.symmetric_difference(&after).map(|name| {
            let key = node_key(name);
            let object = self.catalog.get(&key).cloned();
            (key, object)
        });
        self.apply(nodes.collect());
        self.publish_revocations();
        self.report_source();
    }

    /// Tells others what this cluster decided, if this replica is the one that writes.
    pub(super) fn publish_revocations(&mut self) {
        if let Some(writing) = &mut self.writing {
            // Whoever broke the file is told of by who reads it.
            let signed = self.members.standing().own.signed().ok().flatten();
            writing.writer.set_revocations(signed);
            writing.dirty = true;
        }
    }

    /// An object as it counts: a node that is cut off has none.
    pub(super) fn counting<'a>(
        &self,
        key: &ObjectKey,
        object: Option<&'a Object>,
    ) -> Option<&'a Object> {
        let nodes = &self.members.standing().own.nodes;
        let is_revoked = key.kind == ObjectKind::Node && nodes.contains_key(&key.name);
        object.filter(|_| !is_revoked)
    }

    /// A member's list of revocations, which the gate let in.
    pub(super) fn hear_revocations(&mut self, signed: &Signed) {
        let list = signed.list();
        let alone = self.alone();
        let heard = &self.revoked.standing().heard;
        if heard
            .get(&list.issuer)
            .is_some_and(|known| known.epoch >= list.epoch)
        {
            // Another replica heard it before, or this one before it ended.
            return;
        }
        let kept = match alone {
            Ok(_lock) => self.revoked.put_heard(&list.issuer, &Heard::from(list)),
            Err(refusal) => Err(std::io::Error::other(refusal.to_string())),
        };
        if let Err(error) = kept {
            tracing::error!(by = list.issuer, epoch = %list.epoch, %error, "revocations cannot be kept; trying again");
            self.unkept_lists.push(signed.clone());
            return;
        }
        let clusters: Vec<&str> = list.clusters.keys().map(String::as_str).collect();
        tracing::warn!(by = list.issuer, epoch = %list.epoch, ?clusters, "revocations taken");
        self.look_at_revoked();
    }

    /// Cuts off a member, or a node of this cluster.
    pub(super) fn revoke(
        &mut self,
        name: &str,
        kind: Option<Kind>,
        now: SystemTime,
    ) -> Result<Cut, Refusal> {
        let _lock = self.alone()?;
        let kind = self.kind_of(name, kind)?;
        let mut own = self.members.standing().own.clone();
        let now = seconds(now);
        let since = match kind {
            Kind::Cluster => {
                let since = own.revoke_cluster(name, self.pins_of(name), now);
                since.ok_or(Refusal::TooManyRevoked)?.0
            }
            Kind::Node => own.revoke_node(name, now),
        };
        let cut = self.decide(name, kind, since, own)?;
        let purpose = match kind {
            Kind::Cluster => Purpose::Cluster,
            Kind::Node => Purpose::Node,
        };
        self.tokens.revoke(purpose, name)?;
        tracing::warn!(name, %kind, since, published = cut.is_published, "revoked");
        Ok(cut)
    }

    /// Lets in again what was cut off, here or by others.
    pub(super) fn readmit(
        &mut self,
        name: &str,
        kind: Option<Kind>,
        now: SystemTime,
    ) -> Result<Cut, Refusal> {
        let _lock = self.alone()?;
        let standing = self.members.standing();
        let mut own = standing.own.clone();
        let issuers = standing.issuers(name, &self.pins_of(name));
        let is = |of: Kind| kind.is_none_or(|kind| kind == of);
        let is_cluster = own.clusters.contains_key(name) || !issuers.is_empty();
        let is_node = own.nodes.contains_key(name);
        let now = seconds(now);
        let kind = match (is(Kind::Cluster) && is_cluster, is(Kind::Node) && is_node) {
            (true, true) => return Err(Refusal::Ambiguous(name.to_owned())),
            (true, false) => {
                own.readmit_cluster(name, issuers, now);
                Kind::Cluster
            }
            (false, true) => {
                own.readmit_node(name);
                Kind::Node
            }
            (false, false) => return Err(Refusal::NotRevoked(name.to_owned())),
        };
        let cut = self.decide(name, kind, now, own)?;
        tracing::warn!(name, %kind, "let in again");
        Ok(cut)
    }

    /// By which keys of CAs a cluster is known here.
    fn pins_of(&self, name: &str) -> BTreeSet<Pin> {
        let peer = self.members.accepted().get(name);
        let peer = peer.or_else(|| self.members.wanted(name));
        peer.map(|peer| pins(&peer.ca)).unwrap_or_default()
    }

    /// Keeps a decision, and lets it count.
    fn decide(&mut self, name: &str, kind: Kind, since: u64, mut own: Own) -> Result<Cut, Refusal> {
        if let Some(ca) = &self.own_ca {
            let (clusterset, cluster) = (&self.config.clusterset, &self.config.cluster.name);
            own.sign(clusterset, cluster, &ca.ca)?;
        }
        self.revoked.put_own(&own)?;
        self.look_at_revoked();
        Ok(Cut {
            name: name.to_owned(),
            kind,
            since,
            epoch: own.epoch.0,
            is_published: self.own_ca.is_some(),
        })
    }

    /// Which of both is meant. What nobody knows can be cut off before it comes, if it is said what it is.
    fn kind_of(&self, name: &str, kind: Option<Kind>) -> Result<Kind, Refusal> {
        let is_cluster =
            self.members.accepted().contains_key(name) || self.members.wanted(name).is_some();
        let is_node = self.catalog.get(&node_key(name)).is_some();
        match (kind, is_cluster, is_node) {
            (Some(Kind::Cluster), ..) => {
                let rule = crate::record::check_label(name);
                rule.map_err(|rule| Refusal::name_is_none(name, rule))?;
                if name == self.config.cluster.name {
                    return Err(Refusal::Itself(name.to_owned()));
                }
                Ok(Kind::Cluster)
            }
            (Some(Kind::Node), ..) => {
                let rule = crate::record::check_name(name);
                rule.map_err(|rule| Refusal::name_is_none(name, rule))?;
                Ok(Kind::Node)
            }
            (None, true, false) => Ok(Kind::Cluster),
            (None, false, true) => Ok(Kind::Node),
            (None, true, true) => Err(Refusal::Ambiguous(name.to_owned())),
            (None, false, false) => Err(Refusal::NobodyOfThatName(name.to_owned())),
        }
    }

    /// What an operator should know: who is cut off, and files that cannot be read.
    pub(super) fn revoked_lines(&self) -> impl Iterator<Item = String> {
        let nodes = self.members.standing().own.nodes.keys();
        let there = nodes.filter(|name| self.catalog.get(&node_key(name)).is_some());
        let nodes = there.map(|name| {
            format!("Node {name}: was revoked here; remove it, or let it in again: `hawser readmit {name}`")
        });
        let clusters = self.members.revoked().map(|(name, verdict)| {
            format!("ClusterPeer {name}: {verdict}; remove it, or let it in again: `hawser readmit {name}`")
        });
        self.revoked.complaints().chain(nodes).chain(clusters)
    }
}

fn node_key(name: &str) -> ObjectKey {
    ObjectKey {
        kind: ObjectKind::Node,
        namespace: String::new(),
        name: name.to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests;
