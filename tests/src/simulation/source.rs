//! What each cluster's source said: the truth that everybody else's state is held against.

use std::collections::BTreeMap;

use bytes::Bytes;
use hawser_mesh::hub::journal::Frame;
use hawser_mesh::record::{Incarnation, Key, Revision, Version};

/// A cluster's source, with everything that it ever said.
#[derive(Debug)]
pub(super) struct Source {
    /// What replicas follow, of the branch that is alive.
    log: Vec<Logged>,
    /// What is there now.
    state: BTreeMap<Key, (Revision, Bytes)>,
    version: Version,
    /// Of every key all that was ever written, in order.
    history: BTreeMap<Key, Vec<Written>>,
    ordinal: u64,
    restores: Vec<Restore>,
    /// It was restored, and not everybody may know.
    pub(super) unsettled: bool,
    /// It has exceeded its quota, and not everybody may have what it says now.
    pub(super) excessive: bool,
}

/// A step of the log: a frame, as in a hub's journal.
#[derive(Clone, Debug)]
pub(super) struct Logged {
    pub(super) frame: Frame,
    /// Of the last change up to here.
    ordinal: u64,
}

/// A state of a key.
#[derive(Clone, Debug)]
pub(super) struct Written {
    /// Counts all that the source ever wrote.
    pub(super) ordinal: u64,
    pub(super) value: Option<Bytes>,
    /// Whether other clusters may take it.
    pub(super) granted: bool,
    /// A restoration lost it: which.
    lost: Option<usize>,
}

#[derive(Debug)]
struct Restore {
    /// The first incarnation after it.
    healed: Option<Incarnation>,
}

impl Source {
    pub(super) fn new() -> Self {
        Self {
            log: Vec::new(),
            state: BTreeMap::new(),
            version: Version::new(1, 0),
            history: BTreeMap::new(),
            ordinal: 0,
            restores: Vec::new(),
            unsettled: false,
            excessive: false,
        }
    }

    /// The next change's number.
    pub(super) fn next_ordinal(&self) -> u64 {
        self.ordinal + 1
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn steps(&self) -> &[Logged] {
        &self.log
    }

    pub(super) fn state(&self) -> &BTreeMap<Key, (Revision, Bytes)> {
        &self.state
    }

    /// Whether others may have what is there under a key now.
    pub(super) fn is_granted(&self, key: &Key) -> bool {
        let last = self.history.get(key).and_then(|all| {
            all.iter()
                .rev()
                .find(|written| written.lost.is_none() && written.value.is_some())
        });
        last.is_some_and(|written| written.granted)
    }

    /// Whether it ever said what it was not granted.
    pub(super) fn overreached(&self) -> bool {
        let mut all = self.history.values().flatten();
        all.any(|written| !written.granted)
    }

    /// Says changes, in one revision.
    pub(super) fn commit(&mut self, skip: u64, granted: bool, changes: Vec<(Key, Option<Bytes>)>) {
        let revision = Revision(self.version.revision.0 + 1 + skip);
        for (key, value) in &changes {
            self.ordinal += 1;
            self.history.entry(key.clone()).or_default().push(Written {
                ordinal: self.ordinal,
                value: value.clone(),
                granted,
                lost: None,
            });
        }
        let version = Version {
            revision,
            ..self.version
        };
        self.log(Frame { version, changes });
    }

    /// The writer begins another incarnation.
    pub(super) fn bump(&mut self, to: Incarnation) {
        let version = Version {
            incarnation: to,
            revision: Revision(self.version.revision.0 + 1),
        };
        let changes = Vec::new();
        self.log(Frame { version, changes });
        for restore in &mut self.restores {
            restore.healed.get_or_insert(to);
        }
    }

    /// Forgets the last changes, as a backup does that was made before them.
    pub(super) fn restore(&mut self, lacks: usize) {
        // What was there in the beginning is in every backup.
        let left = self.log.len().saturating_sub(lacks).max(1);
        self.log.truncate(left);
        let survives = self.log.last().map_or(0, |logged| logged.ordinal);
        let number = self.restores.len();
        self.restores.push(Restore { healed: None });
        self.unsettled = true;
        for written in self.history.values_mut().flatten() {
            if written.ordinal > survives {
                written.lost.get_or_insert(number);
            }
        }
        self.state.clear();
        self.version = Version::new(1, 0);
        for logged in std::mem::take(&mut self.log) {
            self.take(&logged.frame);
            self.log.push(logged);
        }
    }

    fn log(&mut self, frame: Frame) {
        self.take(&frame);
        let ordinal = self.ordinal;
        self.log.push(Logged { frame, ordinal });
    }

    /// The state of a key that has this value.
    pub(super) fn written(&self, key: &Key, value: &Bytes) -> Option<&Written> {
        let all = self.history.get(key)?;
        all.iter()
            .rev()
            .find(|written| written.value.as_ref() == Some(value))
    }

    /// The first removal of a key after one of its states; or what a restoration made of it.
    pub(super) fn removal_after(&self, key: &Key, ordinal: u64) -> Option<u64> {
        let all = self.history.get(key)?;
        let gone = all
            .iter()
            .find(|written| written.ordinal > ordinal && written.value.is_none());
        let lost = || {
            let state = all.iter().find(|written| written.ordinal == ordinal)?;
            state.lost.map(|_| ordinal)
        };
        gone.map(|written| written.ordinal).or_else(lost)
    }

    /// Whether somebody at `incarnation` may go from a state of a key to an earlier one.
    pub(super) fn may_go_back(
        &self,
        key: &Key,
        from: u64,
        to: u64,
        incarnation: Incarnation,
    ) -> bool {
        let lost = |ordinal: u64| {
            let all = self.history.get(key)?;
            all.iter()
                .find(|written| written.ordinal == ordinal)
                .and_then(|written| written.lost)
        };
        // What was seen is no more.
        if lost(from).is_some() {
            return true;
        }
        // Two branches have the same incarnation, until the writer hears of it.
        lost(to).is_some_and(|restore| {
            self.restores[restore]
                .healed
                .is_none_or(|healed| incarnation < healed)
        })
    }

    fn take(&mut self, frame: &Frame) {
        self.version = frame.version;
        let revision = frame.version.revision;
        for (key, value) in &frame.changes {
            match value {
                Some(value) => {
                    self.state.insert(key.clone(), (revision, value.clone()));
                }
                None => {
                    self.state.remove(key);
                }
            }
        }
    }
}
