//! Records of another origin on their way into its store: checked, counted, told.

use super::event::Event;
use super::feed::Fill;
use super::filter::Filter;
use super::quota::Quota;
use super::refusal::{MAX_VALUE, Refusal};
use super::shelf::Shelf;
use super::store::{Content, Difference, Store, owned_key};
use crate::record::{Key, MAX_KEY, Revision, Version};
use crate::wire::Snapshot;
use bytes::Bytes;
use hawser_tunnel::node::ClusterId;
use std::collections::BTreeSet;

/// Refusals of one message that are told by key; more are only counted.
const MAX_TOLD: usize = 4;

pub(super) struct Intake<'a> {
    shelf: &'a mut Shelf,
    origin: ClusterId,
    quota: Quota,
    /// The newest complete state before.
    former: Version,
    short: bool,
    refused: Vec<(Bytes, &'static str)>,
}

impl<'a> Intake<'a> {
    pub(super) fn of(shelf: &'a mut Shelf, origin: ClusterId) -> Self {
        let quota = shelf.quota(origin);
        let former = shelf.store_mut(origin).version();
        Self {
            shelf,
            origin,
            quota,
            former,
            short: false,
            refused: Vec::new(),
        }
    }

    /// Whether some record did not fit in the quota.
    pub(super) fn is_short(&self) -> bool {
        self.short
    }

    /// What was refused, as it is told.
    pub(super) fn refused(self) -> Vec<(Bytes, &'static str)> {
        self.refused
    }

    /// A new filter: takes out what it does not cover.
    pub(super) fn narrow(mut self, filter: &Filter) {
        let store = self.store();
        if store.filter.as_ref() == Some(filter) {
            return;
        }
        let widens = store
            .filter
            .as_ref()
            .is_some_and(|before| !before.includes(filter));
        store.filter = Some(filter.clone());
        let gone = store.narrow(filter);
        if !gone.is_empty() {
            store.break_history();
        }
        if widens {
            store.leave();
        }
        let origin = self.origin;
        let events = gone.into_iter().map(|key| Event::Delete { origin, key });
        self.shelf.events.extend(events);
        self.tell_reached();
        self.shelf.touched.touch(origin);
    }

    /// A snapshot begins.
    pub(super) fn begin(&mut self, version: Version, filter: &Filter) {
        let (origin, former) = (self.origin, self.former);
        let store = self.store();
        store.begin();
        store.filter = Some(filter.clone());
        if version.incarnation != former.incarnation {
            store.break_history();
        }
        if !std::mem::replace(&mut store.begun, true) {
            self.tell(Event::Init { origin });
        }
    }

    /// Makes the subscribed keys in a part's range and buckets what the part says. Returns how much that counts as.
    pub(super) fn replace(&mut self, part: &Snapshot, fill: &Fill, filter: &Filter) -> usize {
        let buckets = fill.buckets.as_ref();
        if buckets.is_some_and(|set| set.is_empty()) {
            return 1;
        }
        let store = self.store();
        store.expect(Revision(part.newest));
        let first = !store.initialised;
        let there = store.keys_in(filter, buckets, &part.start, &part.end);
        let mut missing: BTreeSet<&[u8]> = there.iter().map(|key| &key[..]).collect();
        for record in &part.records {
            missing.remove(&record.key[..]);
        }
        let mut changed = 0;
        // First of all, or what comes would not fit beside what goes.
        for key in missing {
            changed += self.change(fill.version.revision, key, Content::Gone);
        }
        for record in &part.records {
            changed += self.take(
                Revision(record.revision),
                &record.key,
                record.value.as_ref(),
            );
        }
        // We asked for it: the first one is free, and later ones are cheap.
        if first { 1 } else { 1 + changed / 8 }
    }

    /// Between two parts of a snapshot the records are a mix.
    pub(super) fn pause(&mut self) {
        let store = self.store();
        if store.is_resumable() {
            store.leave();
            self.tell_reached();
        }
    }

    /// A snapshot is complete.
    pub(super) fn finish(&mut self, version: Version, short: bool) {
        let origin = self.origin;
        let store = self.store();
        store.jump(version);
        store.over_quota = short;
        if !std::mem::replace(&mut store.initialised, true) {
            self.tell(Event::InitDone { origin });
        }
        self.tell_reached();
    }

    /// A delta was taken, made by a publisher at `newest`.
    pub(super) fn reach(&mut self, version: Version, newest: Revision) {
        let short = self.short;
        let store = self.store();
        store.expect(newest);
        store.reach(version);
        store.over_quota |= short;
        self.tell_reached();
    }

    /// What there is was compared with what the publisher has at this version, and is the same.
    pub(super) fn settle(&mut self, version: Version) {
        let store = self.store();
        if !store.is_complete() {
            store.settle(version);
            self.tell_reached();
        }
    }

    fn tell_reached(&mut self) {
        let origin = self.origin;
        let store = self.store();
        let (version, complete) = (store.version(), store.is_complete());
        self.tell(Event::Reached {
            origin,
            version,
            complete,
        });
    }

    /// Takes one record, or its removal. Returns 1 if something changed.
    pub(super) fn take(&mut self, revision: Revision, key: &Bytes, value: Option<&Bytes>) -> usize {
        if key.is_empty() || key.len() > MAX_KEY {
            self.refuse(&Bytes::new(), &Refusal::KeyMalformed);
            return 0;
        }
        let Some(value) = value else {
            return self.change(revision, key, Content::Gone);
        };
        let content = match self.store().has(key, value) {
            Some(true) => Content::Value(value),
            Some(false) => Content::Refused(value),
            None => match self.judge(key, value) {
                Ok(()) => Content::Value(value),
                Err(refusal) => {
                    self.refuse(key, &refusal);
                    if matches!(refusal, Refusal::QuotaRecords | Refusal::QuotaBytes) {
                        // Nothing is kept of what does not fit, not even its hash.
                        self.short = true;
                        if !self.store().knows(key) {
                            return 0;
                        }
                        Content::Gone
                    } else {
                        Content::Refused(value)
                    }
                }
            },
        };
        self.change(revision, key, content)
    }

    fn judge(&mut self, key: &Bytes, value: &Bytes) -> Result<(), Refusal> {
        let quota = self.quota;
        let (records, bytes) = self.store().size_with(key, value.len());
        if records > quota.records {
            return Err(Refusal::QuotaRecords);
        }
        if bytes > quota.bytes {
            return Err(Refusal::QuotaBytes);
        }
        if value.len() > MAX_VALUE {
            return Err(Refusal::ValueTooLong);
        }
        let key = Key::parse(key.clone()).map_err(|_| Refusal::KeyMalformed)?;
        self.shelf.gate.admit(self.origin, &key, value)
    }

    fn refuse(&mut self, key: &Bytes, refusal: &Refusal) {
        self.shelf.stats.refused(self.origin, refusal);
        if self.refused.len() < MAX_TOLD && !key.is_empty() {
            self.refused
                .push((Bytes::copy_from_slice(key), refusal.name()));
        }
    }

    fn change(&mut self, revision: Revision, key: &[u8], content: Content<'_>) -> usize {
        let (origin, former) = (self.origin, self.former);
        let store = self.store();
        let first = !store.initialised;
        let difference = store.set(revision, key, content);
        if difference == Difference::None {
            return 0;
        }
        if revision <= former.revision {
            store.break_history();
        }
        let key = owned_key(key);
        self.tell(match content {
            Content::Value(value) => {
                let value = Bytes::copy_from_slice(value);
                if first {
                    Event::InitApply { origin, key, value }
                } else {
                    Event::Apply { origin, key, value }
                }
            }
            Content::Refused(_) | Content::Gone => Event::Delete { origin, key },
        });
        1
    }

    fn tell(&mut self, event: Event) {
        self.shelf.events.push_back(event);
    }

    fn store(&mut self) -> &mut Store {
        self.shelf.store_mut(self.origin)
    }
}

/// What came of judging again.
#[derive(Debug, Default)]
pub(super) struct JudgedAgain {
    /// Whether something was refused before, which is forgotten now: it must be asked for again.
    pub(super) had_refused: bool,
    /// What is refused from now on, as it is told.
    pub(super) refused: Vec<(Bytes, &'static str)>,
}

/// Judges what an origin has again.
pub(super) fn judge_again(shelf: &mut Shelf, origin: ClusterId) -> JudgedAgain {
    let store = shelf.store_mut(origin);
    let mut again = JudgedAgain {
        had_refused: store.refused() > 0,
        refused: Vec::new(),
    };
    store.forget_refused();
    let Some(store) = shelf.stores.get(&origin) else {
        return again;
    };
    let judged = store.records().filter_map(|(revision, key, value)| {
        let refusal = shelf.gate.admit(origin, &key, &value).err()?;
        Some((revision, key, value, refusal))
    });
    for (revision, key, value, refusal) in judged.collect::<Vec<_>>() {
        shelf.stats.refused(origin, &refusal);
        if again.refused.len() < MAX_TOLD {
            again.refused.push((key.as_bytes().clone(), refusal.name()));
        }
        let store = shelf.store_mut(origin);
        store.set(revision, key.as_bytes(), Content::Refused(&value));
        store.break_history();
        shelf.events.push_back(Event::Delete { origin, key });
    }
    shelf.touched.touch(origin);
    again
}
