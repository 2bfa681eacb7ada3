//! What a process keeps of other origins: what it noted, and which part of that is on the disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hawser_mesh::kept::KeptOrigin;
use hawser_mesh::record::{Key, Revision, Version};
use hawser_mesh::replica::Filter;
use hawser_tunnel::node::ClusterId;

use super::mind::Keep;

/// The notes of one process.
#[derive(Debug, Default)]
pub(super) struct Disk {
    noted: BTreeMap<ClusterId, Arc<Origin>>,
    written: BTreeMap<ClusterId, Arc<Origin>>,
    /// What was subscribed to as that was written.
    subscribed: Filter,
}

#[derive(Clone, Debug, Default)]
struct Origin {
    version: Version,
    complete: bool,
    records: BTreeMap<Key, (Revision, Bytes)>,
}

impl Disk {
    /// Changes are to be written.
    pub(super) fn note(&mut self, keep: Keep) {
        let origin = Arc::make_mut(self.noted.entry(keep.origin).or_default());
        origin.version = keep.version;
        origin.complete = keep.complete;
        for (key, record) in keep.changes {
            match record {
                Some(record) => origin.records.insert(key, record),
                None => origin.records.remove(&key),
            };
        }
    }

    /// All of an origin is to be written.
    pub(super) fn set(&mut self, id: ClusterId, kept: KeptOrigin) {
        let records = kept.records.into_iter();
        let records = records.map(|(revision, key, value)| (key, (revision, value)));
        let (version, complete) = (kept.version, kept.complete);
        self.noted.insert(
            id,
            Arc::new(Origin {
                version,
                complete,
                records: records.collect(),
            }),
        );
    }

    pub(super) fn forget(&mut self, id: ClusterId) {
        self.noted.remove(&id);
    }

    /// What was noted is written.
    pub(super) fn flush(&mut self, subscribed: &Filter) {
        self.written = self.noted.clone();
        self.subscribed = subscribed.clone();
    }

    /// What was noted and not written is lost.
    pub(super) fn crash(&mut self) {
        self.noted = self.written.clone();
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Under which filter all of it was taken.
    pub(super) fn subscribed(&self) -> &Filter {
        &self.subscribed
    }

    /// What is there for a process that starts, and will subscribe to this.
    pub(super) fn read(&self, wanted: &Filter) -> Vec<(ClusterId, KeptOrigin)> {
        let same = self.subscribed == *wanted;
        let all = self.written.iter();
        all.map(|(id, origin)| {
            let records = origin.records.iter();
            let records =
                records.map(|(key, (revision, value))| (*revision, key.clone(), value.clone()));
            let kept = KeptOrigin {
                version: origin.version,
                complete: origin.complete && same,
                records: records.collect(),
            };
            (*id, kept)
        })
        .collect()
    }
}
