//! What the source says, and who is a member by it.

use super::{Report, Scribe, ScribeError};
use crate::hub::derive::unfit;
use crate::hub::manifest::{ClusterPeer, Content, News, Object, ObjectKey, ObjectKind};
use crate::hub::members::MemberChange;
use crate::io::folder::MANIFESTS;
use crate::record::{Kind, Record};
use crate::wire::decode_record;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

impl Scribe {
    /// Takes what stood when the process before ended. Who held an ID then, holds it now.
    pub(super) fn recall(&mut self) -> Result<(), ScribeError> {
        let look = self.accepted.look(MANIFESTS)?;
        let texts = look
            .files
            .into_iter()
            .filter_map(|(name, content)| match content {
                Content::Text(text) => Some((name, text)),
                Content::Unchanged | Content::Unreadable(_) => None,
            });
        let mut changes = self.catalog.load(texts.collect());
        for name in self.peers.look()? {
            let key = peer_key(&name);
            if self.catalog.get(&key).is_none() {
                changes.push((key, None));
            }
        }
        let mut holders = self.holders();
        // What was theirs is nobody else's.
        let standing = self.members.standing();
        let heard = standing
            .heard
            .values()
            .flat_map(|heard| heard.clusters.keys());
        holders.extend(standing.own.clusters.keys().chain(heard).cloned());
        changes.sort_by_key(|(key, _)| !holders.contains(&key.name));
        self.apply(changes);
        Ok(())
    }

    fn holders(&self) -> BTreeSet<String> {
        let members = self.live.records.iter();
        let members = members.filter(|(key, _)| key.kind() == Some(Kind::Cluster));
        let names = members.filter_map(|(key, (_, value))| {
            let Ok(Record::Cluster(cluster)) = decode_record(key, value) else {
                return None;
            };
            Some(cluster.name)
        });
        names.collect()
    }

    pub(super) fn look(&mut self) {
        let look = match self.source.look(MANIFESTS) {
            Ok(look) => {
                self.source_missing = false;
                look
            }
            Err(error) => {
                if !self.source_missing {
                    let folder = self.source.path().display();
                    tracing::warn!(%folder, %error, "source_unreadable: what stood before, stands");
                }
                self.source_missing = true;
                return;
            }
        };
        let News {
            changes,
            complaints,
            accepted,
        } = self.catalog.handle_look(look, Instant::now());
        for complaint in &complaints {
            tracing::warn!(%complaint, "manifest refused");
        }
        let silent = changes.is_empty() && complaints.is_empty() && accepted.is_empty();
        self.unkept.extend(accepted);
        self.apply(changes);
        if !silent {
            self.report_source();
        }
    }

    pub(super) fn report_source(&self) {
        let complaints = self.catalog.complaints().map(ToString::to_string);
        let refused = self.members.refused().map(|(name, why)| {
            let key = peer_key(name);
            match self.catalog.place(&key) {
                Some(place) => format!("{}: line {}: {why}", place.file, place.line),
                None => format!("{key}: {why}"),
            }
        });
        let crowded = self
            .writing
            .iter()
            .flat_map(|writing| writing.writer.crowded());
        let crowded = crowded.map(|node| {
            format!(
                "Node {node}: spec.podCIDRs: overlaps a prefix of another node; give each its own"
            )
        });
        let joined = self.peers.complaints(|name| self.declares(name));
        let writing = self.writing.iter();
        let unfit = writing.flat_map(|writing| writing.writer.complaints());
        let lines = complaints.chain(joined).chain(refused).chain(crowded);
        let lines = lines.chain(self.followed.complaints());
        let lines = lines.chain(self.revoked_lines());
        let lines = lines.chain(unfit::lines(unfit)).collect();
        self.report(Report::Source(self.catalog.len(), lines));
    }

    pub(super) fn apply(&mut self, changes: Vec<(ObjectKey, Option<Arc<Object>>)>) {
        for (key, object) in changes {
            if key.kind == ObjectKind::ClusterPeer {
                self.set_member(&key.name);
                continue;
            }
            let object = self.counting(&key, object.as_deref());
            if let Some(writing) = &mut self.writing {
                writing.writer.apply(&key, object);
                writing.dirty = true;
            }
        }
    }

    /// Takes a member as the source says, else as it joined.
    pub(super) fn set_member(&mut self, name: &str) {
        let peer = self.given(name);
        let peer = peer.map(|peer| self.with_followed(name, peer));
        let before: BTreeSet<String> = self.refused_names();
        let changes = self.members.set(name, peer);
        self.tell_members(changes);
        for (name, why) in self.members.refused() {
            if !before.contains(name) {
                tracing::warn!(cluster = name, why, "ClusterPeer refused");
            }
        }
    }

    /// A member as an operator, or joining, said.
    pub(super) fn given(&self, name: &str) -> Option<Arc<ClusterPeer>> {
        let declared = self.catalog.get(&peer_key(name));
        let declared = declared.and_then(|object| object.as_cluster_peer());
        let peer = declared.map(|peer| Arc::new(peer.clone()));
        peer.or_else(|| self.peers.get(name).cloned())
    }

    /// Tells everybody who is a member by now.
    pub(super) fn tell_members(&mut self, changes: Vec<MemberChange>) {
        for change in changes {
            if let Some(writing) = &mut self.writing {
                let peer = change.peer.as_deref();
                writing.writer.set_member(change.id, &change.name, peer);
                writing.dirty = true;
            }
            self.report(Report::Member(change));
        }
    }

    /// Whether the source has a `ClusterPeer` of that name.
    pub(super) fn declares(&self, name: &str) -> bool {
        self.catalog.get(&peer_key(name)).is_some()
    }

    fn refused_names(&self) -> BTreeSet<String> {
        self.members
            .refused()
            .map(|(name, _)| name.to_owned())
            .collect()
    }
}

fn peer_key(name: &str) -> ObjectKey {
    ObjectKey {
        kind: ObjectKind::ClusterPeer,
        namespace: String::new(),
        name: name.to_owned(),
    }
}
