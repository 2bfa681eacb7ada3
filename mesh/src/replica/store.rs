//! All that is known of one origin.

use super::digest::{BucketSet, Buckets, Digest, bucket_of, record_hash};
use super::filter::Filter;
use super::tally::{Tallies, Tally, View};
use super::tombstones::Tombstones;
use crate::record::{Key, Prefix, Revision, Version};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// The records of one origin, and how new they are.
///
/// Keys and values are kept as plain bytes of their own size: a slice of a message would keep the whole message.
#[derive(Debug)]
pub struct Store {
    /// The newest state that was ever complete here.
    version: Version,
    content: Exactness,
    /// How new a record may be: only when the version is as new, it tells all.
    newest: Revision,
    /// Whether some state was complete ever: then changes are told one by one.
    pub(super) begun: bool,
    pub(super) initialised: bool,
    /// Counts how often something changed at a revision that may have been read already. Who reads by revision
    /// compares anew.
    epoch: u64,
    /// History is known from here on: states between the one before and this one were skipped.
    known_from: Revision,
    records: BTreeMap<Arc<[u8]>, Entry>,
    index: BTreeSet<(Revision, Arc<[u8]>)>,
    tombstones: Tombstones,
    tallies: Tallies,
    refused: usize,
    bytes: usize,
    /// What our own subscription covers; `None`: not known.
    pub(super) filter: Option<Filter>,
    pub(super) over_quota: bool,
}

/// How the records relate to the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exactness {
    /// They are that state.
    Exact,
    /// Each is as in that state, or newer. Deltas go on from it; nobody reads it.
    Newer,
    /// They are a mix of states.
    Mixed,
}

#[derive(Debug)]
struct Entry {
    hash: u128,
    revision: Revision,
    /// `None`: refused. Its hash is kept so that digests agree.
    value: Option<Box<[u8]>>,
    bucket: u8,
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content<'a> {
    /// It has this record.
    Value(&'a [u8]),
    /// It has a record that we do not take.
    Refused(&'a [u8]),
    /// It has none.
    Gone,
}

/// What was different for who looks at the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    None,
    Applied,
    Deleted,
}

/// A change as a reader by revision sees it.
pub(super) type Changed<'a> = (Revision, &'a Arc<[u8]>, Option<&'a [u8]>);

impl Store {
    pub(super) fn new(least_tombstones: usize) -> Self {
        Self {
            version: Version::NONE,
            content: Exactness::Mixed,
            newest: Revision(0),
            begun: false,
            initialised: false,
            epoch: 0,
            known_from: Revision(0),
            records: BTreeMap::new(),
            index: BTreeSet::new(),
            tombstones: Tombstones::new(least_tombstones),
            tallies: Tallies::default(),
            refused: 0,
            bytes: 0,
            filter: None,
            over_quota: false,
        }
    }

    /// Takes what was kept on disk.
    pub(super) fn loaded(
        least_tombstones: usize,
        version: Version,
        complete: bool,
        records: impl IntoIterator<Item = (Revision, Key, Bytes)>,
    ) -> Self {
        let mut store = Self::new(least_tombstones);
        let mut index = Vec::new();
        let entries = records.into_iter().map(|(revision, key, value)| {
            let key: Arc<[u8]> = key.as_bytes()[..].into();
            index.push((revision, Arc::clone(&key)));
            let entry = Entry {
                hash: record_hash(&key, &value),
                revision,
                value: Some(value[..].into()),
                bucket: bucket_of(&key),
            };
            (key, entry)
        });
        store.records = entries.collect();
        if store.records.len() < index.len() {
            // A key came twice: the last one holds.
            let records = &store.records;
            index.retain(|(revision, key)| records[key].revision == *revision);
        }
        store.index = index.into_iter().collect();
        let size = |(key, entry): (&Arc<[u8]>, &Entry)| key.len() + entry.length();
        store.bytes = store.records.iter().map(size).sum();
        store.version = version;
        if complete {
            store.content = Exactness::Exact;
        }
        store.begun = true;
        store.initialised = true;
        store.known_from = version.revision;
        store
    }

    /// The newest state that was ever complete here.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether the records are those of [`Self::version`]; else they are a mix of states.
    pub fn is_complete(&self) -> bool {
        self.content == Exactness::Exact
    }

    /// Whether deltas can go on from [`Self::version`].
    pub(super) fn is_resumable(&self) -> bool {
        self.content != Exactness::Mixed
    }

    /// How many records there are, without refused ones.
    pub fn len(&self) -> usize {
        self.records.len() - self.refused
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many records are refused.
    pub fn refused(&self) -> usize {
        self.refused
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the origin has more than its quota, so that some records are missing here.
    pub fn is_over_quota(&self) -> bool {
        self.over_quota
    }

    /// The record with this key.
    pub fn get(&self, key: &Key) -> Option<Bytes> {
        let value = self.records.get(&key.as_bytes()[..])?.value.as_deref()?;
        Some(Bytes::copy_from_slice(value))
    }

    /// All records, sorted by key.
    pub fn records(&self) -> impl Iterator<Item = (Revision, Key, Bytes)> {
        self.records.iter().filter_map(copied)
    }

    /// The records under a prefix, sorted by key.
    pub fn under<'a>(
        &'a self,
        prefix: &'a Prefix,
    ) -> impl Iterator<Item = (Revision, Key, Bytes)> + use<'a> {
        self.scan(prefix.as_bytes(), &[]).filter_map(copied)
    }

    /// The digest of all records, without refused ones. Reads all of them.
    pub fn digest(&self) -> Digest {
        let mut digest = Digest::default();
        let shown = self.records.values().filter(|entry| entry.value.is_some());
        shown.for_each(|entry| digest.add(entry.hash));
        digest
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Readers by revision compare anew.
    pub(super) fn break_history(&mut self) {
        self.epoch += 1;
    }

    /// This store takes the place of another one.
    pub(super) fn break_history_of(&mut self, before: &Self) {
        self.epoch = before.epoch + 1;
    }

    /// The oldest state from which a reader that comes can go on.
    pub(super) fn resumable_from(&self) -> Revision {
        self.known_from.max(self.tombstones.horizon)
    }

    /// The oldest state from which a reader that is there can go on.
    pub(super) fn horizon(&self) -> Revision {
        self.tombstones.horizon
    }

    /// Sets what a key has, as of a revision.
    pub(super) fn set(
        &mut self,
        revision: Revision,
        key: &[u8],
        content: Content<'_>,
    ) -> Difference {
        let (value, refused) = match content {
            Content::Value(value) => (value, false),
            Content::Refused(value) => (value, true),
            Content::Gone => return self.remove(revision, key),
        };
        let hash = record_hash(key, value);
        if let Some(entry) = self.records.get_mut(key)
            && entry.hash == hash
            && entry.value.is_none() == refused
        {
            let before = entry.revision;
            entry.revision = revision;
            self.move_in_index(before, revision, key);
            return Difference::None;
        }
        let was_shown = self.take_out(key);
        let value: Option<Box<[u8]>> = (!refused).then(|| value.into());
        let key: Arc<[u8]> = key.into();
        self.tombstones.remove(&key);
        self.tallies
            .change(&key, |tally| tally.part(refused).add(hash));
        self.refused += usize::from(refused);
        let entry = Entry {
            hash,
            revision,
            value,
            bucket: bucket_of(&key),
        };
        self.bytes += key.len() + entry.length();
        self.index.insert((revision, Arc::clone(&key)));
        self.records.insert(key, entry);
        match (was_shown, refused) {
            (_, false) => Difference::Applied,
            (true, true) => Difference::Deleted,
            (false, true) => Difference::None,
        }
    }

    fn remove(&mut self, revision: Revision, key: &[u8]) -> Difference {
        let was_shown = self.take_out(key);
        self.tombstones.insert(revision, key.into());
        self.tombstones.trim(self.records.len());
        if was_shown {
            Difference::Deleted
        } else {
            Difference::None
        }
    }

    /// Takes a key out without a trace. Returns whether it was shown.
    fn take_out(&mut self, key: &[u8]) -> bool {
        let Some((key, entry)) = self.records.remove_entry(key) else {
            return false;
        };
        let refused = entry.value.is_none();
        self.tallies
            .change(&key, |tally| tally.part(refused).take(entry.hash));
        self.refused -= usize::from(refused);
        self.bytes -= key.len() + entry.length();
        self.index.remove(&(entry.revision, key));
        !refused
    }

    fn move_in_index(&mut self, from: Revision, to: Revision, key: &[u8]) {
        if from != to {
            let key: Arc<[u8]> = key.into();
            self.index.remove(&(from, Arc::clone(&key)));
            self.index.insert((to, key));
        }
    }

    /// All changes up to a state were taken. If some record may be newer, the version stays what it was.
    pub(super) fn reach(&mut self, version: Version) {
        if version.revision >= self.newest {
            self.version = version;
            self.content = Exactness::Exact;
        } else {
            self.content = Exactness::Newer;
        }
    }

    /// A state is complete, but not by each change that led to it; some record may be newer.
    pub(super) fn jump(&mut self, version: Version) {
        if version.incarnation != self.version.incarnation {
            self.clamp(version.revision);
        }
        self.known_from = version.revision;
        self.version = version;
        self.reach(version);
    }

    /// Some record may be as new as this.
    pub(super) fn expect(&mut self, newest: Revision) {
        self.newest = self.newest.max(newest);
    }

    /// The records were compared with an exact state, and are the same.
    pub(super) fn settle(&mut self, version: Version) {
        self.newest = Revision(0);
        self.reach(version);
    }

    /// The records will all be replaced, or compared with the state that replaces them.
    pub(super) fn begin(&mut self) {
        self.newest = Revision(0);
    }

    /// From here on the records are a mix.
    pub(super) fn leave(&mut self) {
        self.content = Exactness::Mixed;
    }

    /// Revisions of an incarnation before mean nothing in this one.
    fn clamp(&mut self, revision: Revision) {
        self.tombstones.clear();
        self.tombstones.horizon = revision;
        let behind = Revision(revision.0.saturating_add(1));
        let late = self.index.split_off(&(behind, Arc::from(&[][..])));
        for (_, key) in late {
            if let Some(entry) = self.records.get_mut(&key) {
                entry.revision = revision;
            }
            self.index.insert((revision, key));
        }
    }

    /// Takes out what a filter does not cover; returns the keys of what was shown.
    pub(super) fn narrow(&mut self, filter: &Filter) -> Vec<Key> {
        let outside = self.records.keys().filter(|key| !filter.covers_bytes(key));
        let outside: Vec<_> = outside.map(Arc::clone).collect();
        let shown = outside.iter().filter(|key| self.take_out(key));
        shown.map(|key| owned_key(key)).collect()
    }

    /// Forgets that records were refused: they are missing now, and a comparison brings them again.
    pub(super) fn forget_refused(&mut self) {
        let refused = self
            .records
            .iter()
            .filter(|(_, entry)| entry.value.is_none());
        let refused: Vec<_> = refused.map(|(key, _)| Arc::clone(key)).collect();
        for key in refused {
            self.take_out(&key);
        }
    }

    /// How large a store would be with this record: records and bytes.
    pub(super) fn size_with(&self, key: &[u8], value: usize) -> (usize, usize) {
        match self.records.get(key) {
            Some(entry) => (self.records.len(), self.bytes - entry.length() + value),
            None => (self.records.len() + 1, self.bytes + key.len() + value),
        }
    }

    /// Whether the key has some record, taken or refused.
    pub(super) fn knows(&self, key: &[u8]) -> bool {
        self.records.contains_key(key)
    }

    /// Whether the key has this very record already, taken or refused.
    pub(super) fn has(&self, key: &[u8], value: &[u8]) -> Option<bool> {
        let entry = self.records.get(key)?;
        (entry.hash == record_hash(key, value)).then_some(entry.value.is_some())
    }

    /// The digest of what a filter covers. Cheap from the second time on.
    pub(super) fn digest_under(&mut self, filter: &Filter, view: View) -> Digest {
        let mut digest = Digest::default();
        for prefix in filter.prefixes() {
            let prefix = prefix.as_bytes();
            let tally = self.tallies.get(prefix).unwrap_or_else(|| {
                let mut tally = Tally::default();
                for (_, entry) in self.scan(prefix, &[]) {
                    tally.part(entry.value.is_none()).add(entry.hash);
                }
                self.tallies.follow(prefix, tally);
                tally
            });
            digest = digest.plus(tally.of(view));
        }
        digest
    }

    /// The sum of each bucket, of what a filter covers.
    pub(super) fn buckets_under(&self, filter: &Filter, view: View) -> Buckets {
        let mut buckets = Buckets::new();
        for (_, entry) in self.covered(filter, &[]) {
            if view == View::Whole || entry.value.is_some() {
                buckets.add(entry.bucket, entry.hash);
            }
        }
        buckets
    }

    /// What a filter and these buckets cover, from a key on: what is shown.
    pub(super) fn shown<'a>(
        &'a self,
        filter: &'a Filter,
        buckets: Option<&'a BucketSet>,
        start: &'a [u8],
    ) -> impl Iterator<Item = (Revision, &'a Arc<[u8]>, &'a [u8])> {
        self.covered(filter, start)
            .filter(move |(_, entry)| buckets.is_none_or(|set| set.contains(entry.bucket)))
            .filter_map(|(key, entry)| Some((entry.revision, key, entry.value.as_deref()?)))
    }

    /// The keys that a filter and these buckets cover in a range, shown or refused. No end: to the last one.
    pub(super) fn keys_in(
        &self,
        filter: &Filter,
        buckets: Option<&BucketSet>,
        start: &[u8],
        end: &[u8],
    ) -> Vec<Arc<[u8]>> {
        self.covered(filter, start)
            .take_while(|(key, _)| end.is_empty() || &key[..] < end)
            .filter(|(_, entry)| buckets.is_none_or(|set| set.contains(entry.bucket)))
            .map(|(key, _)| Arc::clone(key))
            .collect()
    }

    /// Changes after a revision up to that of the newest complete state, sorted by revision, each key once.
    pub(super) fn changes(&self, after: Revision) -> impl Iterator<Item = Changed<'_>> {
        let from = (Revision(after.0.saturating_add(1)), Arc::from(&[][..]));
        let upto = self.version.revision;
        let mut gone = self.tombstones.after(from.clone()).peekable();
        let mut there = self.index.range(from..).peekable();
        std::iter::from_fn(move || {
            let next = match (there.peek(), gone.peek()) {
                (Some(a), Some(b)) if a <= b => there.next(),
                (Some(_), None) => there.next(),
                (_, Some(_)) => gone.next(),
                (None, None) => None,
            };
            let (revision, key) = next?;
            let entry = self.records.get(key);
            Some((*revision, key, entry.and_then(|e| e.value.as_deref())))
        })
        .take_while(move |(revision, _, _)| *revision > after && *revision <= upto)
    }

    fn covered<'a>(
        &'a self,
        filter: &'a Filter,
        start: &'a [u8],
    ) -> impl Iterator<Item = (&'a Arc<[u8]>, &'a Entry)> {
        let prefixes = filter.prefixes().iter();
        prefixes.flat_map(move |prefix| self.scan(prefix.as_bytes(), start))
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a [u8],
        start: &'a [u8],
    ) -> impl Iterator<Item = (&'a Arc<[u8]>, &'a Entry)> {
        let from = prefix.max(start);
        self.records
            .range::<[u8], _>((Bound::Included(from), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }
}

impl Entry {
    fn length(&self) -> usize {
        self.value.as_ref().map_or(0, |value| value.len())
    }
}

/// A key of its own.
pub(super) fn owned_key(bytes: &[u8]) -> Key {
    Key::parse(Bytes::copy_from_slice(bytes)).expect("only keys are stored")
}

fn copied((key, entry): (&Arc<[u8]>, &Entry)) -> Option<(Revision, Key, Bytes)> {
    let value = Bytes::copy_from_slice(entry.value.as_deref()?);
    Some((entry.revision, owned_key(key), value))
}
