//! What of all that is heard is to be kept on disk, and when it is whole.

use crate::kept::Kept;
use crate::record::{Key, Prefix, Revision, Version};
use crate::replica::{Filter, Store};
use bytes::{BufMut as _, Bytes, BytesMut};
use hawser_tunnel::node::ClusterId;
use std::collections::{BTreeMap, BTreeSet};

/// Something to be written to disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// An origin moved on.
    Changes {
        /// Whose.
        origin: ClusterId,
        /// The newest state that was ever complete.
        version: Version,
        /// Whether the records are that state.
        complete: bool,
        /// What changed since the last time; `None`: gone.
        changes: Vec<(Key, Option<(Revision, Bytes)>)>,
    },
    /// An origin left.
    Forget {
        /// Whose.
        origin: ClusterId,
    },
    /// Of what all of it is a part.
    Scope(Bytes),
}

impl Keep {
    /// Hands it over.
    pub fn note(self, kept: &Kept) {
        match self {
            Self::Changes {
                origin,
                version,
                complete,
                changes,
            } => kept.note(origin, version, complete, changes),
            Self::Forget { origin } => kept.forget(origin),
            Self::Scope(scope) => kept.note_scope(scope),
        }
    }
}

/// Records that changed since their origin's last complete step.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    changed: BTreeMap<ClusterId, BTreeSet<Key>>,
    scope: Bytes,
}

impl Keeping {
    pub(super) fn note(&mut self, origin: ClusterId, key: Key) {
        self.changed.entry(origin).or_default().insert(key);
    }

    pub(super) fn forget(&mut self, origin: ClusterId) -> Keep {
        self.changed.remove(&origin);
        Keep::Forget { origin }
    }

    pub(super) fn reach(
        &mut self,
        origin: ClusterId,
        version: Version,
        complete: bool,
        store: &Store,
    ) -> Keep {
        let changed = self.changed.remove(&origin).unwrap_or_default();
        let newest = |key: Key| {
            let prefix = Prefix::parse(key.as_bytes().clone()).ok();
            let mut under = prefix.iter().flat_map(|prefix| store.under(prefix));
            // The first under a key is the key's own, if it is there at all.
            let found = under.next().filter(|(_, first, _)| *first == key);
            let found = found.map(|(revision, _, value)| (revision, value));
            (key, found)
        };
        Keep::Changes {
            origin,
            version,
            complete,
            changes: changed.into_iter().map(newest).collect(),
        }
    }

    /// The scope, where it is another than the last time.
    pub(super) fn scope(&mut self, filter: &Filter) -> Option<Keep> {
        let scope = scope(filter);
        if scope == self.scope {
            return None;
        }
        self.scope.clone_from(&scope);
        Some(Keep::Scope(scope))
    }
}

/// A filter as bytes: each prefix behind its length.
pub(super) fn scope(filter: &Filter) -> Bytes {
    let mut bytes = BytesMut::new();
    for prefix in filter.prefixes() {
        let prefix = prefix.as_bytes();
        bytes.put_u16(u16::try_from(prefix.len()).unwrap_or(u16::MAX));
        bytes.extend_from_slice(prefix);
    }
    bytes.freeze()
}
