//! What was heard of every origin, kept on disk, so that whoever restarts begins with what it knew.
//!
//! It is a cache of records, never their truth: what is lost here is asked for again. It is written behind, in batches,
//! each of which takes the file from one consistent state to the next. A crash costs the last second; a file that is
//! damaged costs its content, and is told by name ([`Damage`]).

use crate::record::{Key, Revision, Version};
use bytes::Bytes;
use hawser_tunnel::node::ClusterId;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use crate::io::kept::Kept;

/// A lone change is written this long after it came: those that belong together mostly come together.
pub const SETTLE: Duration = Duration::from_millis(200);
/// Batches begin at least this far apart. Each of them waits for the disk.
pub const BETWEEN: Duration = Duration::from_secs(1);
/// After a failure the file is tried again this much later.
pub const RETRY: Duration = Duration::from_secs(10);

/// What a file held.
#[derive(Debug, Default)]
pub struct Loaded {
    /// By origin.
    pub origins: BTreeMap<ClusterId, KeptOrigin>,
    /// What they are a part of: as it was noted last.
    pub scope: Bytes,
    /// Why it may hold less than was kept.
    pub damage: Option<Damage>,
}

/// What was kept of an origin.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KeptOrigin {
    /// Of the newest state that was ever complete.
    pub version: Version,
    /// Whether the records are that state.
    pub complete: bool,
    /// Sorted by key.
    pub records: Vec<(Revision, Key, Bytes)>,
}

/// Why a file was put aside. An empty one took its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// It is no file of ours, or not all of it, or was changed by something else.
    #[error("file is torn or foreign: {0}")]
    Torn(String),
    /// Another version of this program wrote it in another form.
    #[error("file has format {0}, which this version does not read")]
    Format(u32),
    /// It is whole, but says what we never write.
    #[error("file holds what is no record")]
    Content,
}

impl Damage {
    /// Its name in metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Torn(_) => "kept_torn",
            Self::Format(_) => "kept_format",
            Self::Content => "kept_content",
        }
    }
}

/// Why nothing can be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeptError {
    /// Another process has the file.
    #[error("{}: is open in another process; stop it, or give each its own state directory", .0.display())]
    Held(PathBuf),
    /// The folder or the file could not be made or moved.
    #[error("failed to make {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file could not be read or written.
    #[error("failed to {what}")]
    Storage {
        /// What was being done.
        what: &'static str,
        /// What the storage said.
        #[source]
        source: Box<redb::Error>,
    },
    /// It could not be written now; it will be tried again.
    #[error("what was noted is not on disk yet")]
    NotYet,
    /// The file is gone for good, since it was damaged while it was in use.
    #[error("the file was damaged while it was in use")]
    Lost,
}

/// Counted since the file was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptStats {
    /// Batches written.
    pub batches: u64,
    /// Records written or removed.
    pub records: u64,
    /// Batches that failed and were tried again.
    pub failures: u64,
}

/// A record as it shall be on disk; `None`: not at all.
pub(crate) type Content = Option<(Revision, Bytes)>;

/// What is to be written of an origin.
#[derive(Debug, Default)]
pub(crate) struct OriginBatch {
    /// What is there already goes first.
    pub(crate) forget: bool,
    /// Its version then, and whether it is complete.
    pub(crate) head: Option<(Version, bool)>,
    /// The newest state of each key that changed.
    pub(crate) records: BTreeMap<Key, Content>,
}

/// What is to be written next. It holds each key once, however often it changes.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) origins: BTreeMap<ClusterId, OriginBatch>,
    pub(crate) scope: Option<Bytes>,
}

impl Batch {
    /// Adds changes of an origin that lead to this version.
    pub(crate) fn note(
        &mut self,
        origin: ClusterId,
        version: Version,
        complete: bool,
        changes: impl IntoIterator<Item = (Key, Content)>,
    ) {
        let batch = self.origins.entry(origin).or_default();
        batch.head = Some((version, complete));
        batch.records.extend(changes);
    }

    /// Nothing of the origin stays.
    pub(crate) fn forget(&mut self, origin: ClusterId) {
        let forgotten = OriginBatch {
            forget: true,
            ..OriginBatch::default()
        };
        self.origins.insert(origin, forgotten);
    }

    /// Puts back a batch that was not written, beneath what came since.
    pub(crate) fn put_back(&mut self, older: Self) {
        self.scope = self.scope.take().or(older.scope);
        for (origin, mut older) in older.origins {
            let Some(newer) = self.origins.get_mut(&origin) else {
                self.origins.insert(origin, older);
                continue;
            };
            if newer.forget {
                continue;
            }
            older.head = newer.head.or(older.head);
            older.records.append(&mut newer.records);
            *newer = older;
        }
    }

    /// How many records it writes or removes.
    pub(crate) fn len(&self) -> usize {
        self.origins.values().map(|batch| batch.records.len()).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.origins.is_empty() && self.scope.is_none()
    }
}

/// When a batch is written whose first change came at `since`.
pub(crate) fn due(since: Instant, last: Option<Instant>, failed: bool) -> Instant {
    let between = if failed { RETRY } else { BETWEEN };
    let settled = since + SETTLE;
    last.map_or(settled, |last| settled.max(last + between))
}

#[cfg(test)]
mod tests;
