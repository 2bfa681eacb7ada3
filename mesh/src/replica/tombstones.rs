//! Records that are gone, by the revision at which they went: so that whoever has an older state learns of it.

use crate::record::Revision;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Removed keys, the newest ones only.
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    by_key: BTreeMap<Arc<[u8]>, Revision>,
    by_revision: BTreeSet<(Revision, Arc<[u8]>)>,
    /// The greatest revision of those that were dropped. Whoever is older cannot learn all removals from here.
    pub(super) horizon: Revision,
    /// Kept however few records there are.
    least: usize,
}

impl Tombstones {
    pub(super) fn new(least: usize) -> Self {
        Self {
            least,
            ..Self::default()
        }
    }

    pub(super) fn insert(&mut self, revision: Revision, key: Arc<[u8]>) {
        self.remove(&key);
        self.by_revision.insert((revision, Arc::clone(&key)));
        self.by_key.insert(key, revision);
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        if let Some((key, revision)) = self.by_key.remove_entry(key) {
            self.by_revision.remove(&(revision, key));
        }
    }

    /// Drops the oldest, so that there are not many more than a quarter of `records`.
    pub(super) fn trim(&mut self, records: usize) {
        let most = self.least.max(records / 4);
        while self.by_key.len() > most {
            let Some((revision, key)) = self.by_revision.pop_first() else {
                return;
            };
            self.by_key.remove(&key);
            self.horizon = self.horizon.max(revision);
        }
    }

    pub(super) fn clear(&mut self) {
        self.by_key.clear();
        self.by_revision.clear();
    }

    pub(super) fn after(
        &self,
        from: (Revision, Arc<[u8]>),
    ) -> impl Iterator<Item = &(Revision, Arc<[u8]>)> {
        self.by_revision.range(from..)
    }
}
