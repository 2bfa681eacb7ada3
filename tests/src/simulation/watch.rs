//! Follows what one process is told of one origin, event by event, and holds it against the source.

use std::collections::BTreeMap;

use bytes::Bytes;
use hawser_mesh::record::{Incarnation, Key, Version};

use super::source::Source;
use super::violation::Violation;

/// What a process has seen of an origin.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: BTreeMap<Key, Seen>,
    /// Between `Init` and `InitDone`: what has come.
    fresh: Option<BTreeMap<Key, Bytes>>,
    /// The newest version.
    pub(super) version: Version,
    /// Hostile hands were on the way to it: what it has may be old, until everybody agrees again.
    pub(super) tainted: bool,
}

/// A key's newest state that was seen.
#[derive(Debug)]
struct Seen {
    ordinal: u64,
    /// `None`: it is gone.
    value: Option<Bytes>,
}

/// Who watches, and whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) source: &'a Source,
    pub(super) origin: usize,
    /// Whether it is the process's own cluster.
    pub(super) own: bool,
    /// Of the process's state.
    pub(super) incarnation: Incarnation,
}

impl Watch {
    /// A new life begins.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// What was there at the beginning of a life, of which no event tells.
    pub(super) fn begin(&mut self, view: View<'_>, key: Key, value: Bytes) {
        let ordinal = view
            .source
            .written(&key, &value)
            .map_or(0, |written| written.ordinal);
        let value = Some(value);
        self.seen.insert(key, Seen { ordinal, value });
    }

    /// A record is dropped because nobody wants it any more.
    pub(super) fn unwanted(&mut self, origin: usize, key: &Key) -> Result<(), Violation> {
        match self.seen.remove(key) {
            Some(Seen { value: Some(_), .. }) => Ok(()),
            _ => Err(Violation::Idle {
                origin,
                key: key.clone(),
            }),
        }
    }

    pub(super) fn init(&mut self) {
        self.fresh = Some(BTreeMap::new());
    }

    pub(super) fn init_apply(&mut self, key: Key, value: Bytes) {
        if let Some(fresh) = &mut self.fresh {
            fresh.insert(key, value);
        }
    }

    pub(super) fn init_done(&mut self, view: View<'_>) -> Result<(), Violation> {
        let fresh = self.fresh.take().unwrap_or_default();
        let present = self.seen.iter().filter(|(_, seen)| seen.value.is_some());
        let gone: Vec<_> = present
            .filter(|(key, _)| !fresh.contains_key(*key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.delete(view, key)?;
        }
        for (key, value) in fresh {
            if self.value(&key) != Some(&value) {
                self.apply(view, key, value)?;
            }
        }
        Ok(())
    }

    pub(super) fn apply(
        &mut self,
        view: View<'_>,
        key: Key,
        value: Bytes,
    ) -> Result<(), Violation> {
        let origin = view.origin;
        if !view.own && key.is_private() {
            return Err(Violation::PrivateTold { origin, key });
        }
        let Some(written) = view.source.written(&key, &value) else {
            return Err(Violation::NeverWritten { origin, key });
        };
        if !view.own && !written.granted {
            return Err(Violation::NotGranted { origin, key });
        }
        let ordinal = written.ordinal;
        match self.seen.get_mut(&key) {
            None => {
                let value = Some(value);
                self.seen.insert(key, Seen { ordinal, value });
            }
            Some(seen) => {
                if seen.value.as_ref() == Some(&value) {
                    return Err(Violation::Idle { origin, key });
                }
                let back = ordinal <= seen.ordinal && !self.tainted && !view.source.excessive;
                if back
                    && !view
                        .source
                        .may_go_back(&key, seen.ordinal, ordinal, view.incarnation)
                {
                    return Err(match seen.value {
                        Some(_) => Violation::OlderState { origin, key },
                        None => Violation::CameBack { origin, key },
                    });
                }
                seen.ordinal = ordinal;
                seen.value = Some(value);
            }
        }
        Ok(())
    }

    pub(super) fn delete(&mut self, view: View<'_>, key: Key) -> Result<(), Violation> {
        let origin = view.origin;
        let Some(seen) = self.seen.get_mut(&key) else {
            return Err(Violation::Idle { origin, key });
        };
        if seen.value.take().is_none() {
            return Err(Violation::Idle { origin, key });
        }
        match view.source.removal_after(&key, seen.ordinal) {
            Some(ordinal) => seen.ordinal = ordinal,
            // What does not fit in a quota is missing somewhere, and not the same everywhere.
            None if self.tainted || view.source.excessive => {}
            None => return Err(Violation::Vanished { origin, key }),
        }
        Ok(())
    }

    /// What events add up to.
    pub(super) fn content(&self) -> impl Iterator<Item = (&Key, &Bytes)> {
        self.seen
            .iter()
            .filter_map(|(key, seen)| seen.value.as_ref().map(|value| (key, value)))
    }

    /// What it has seen last.
    pub(super) fn value(&self, key: &Key) -> Option<&Bytes> {
        self.seen.get(key)?.value.as_ref()
    }
}
