//! What one subscriber has of one origin, as its publisher sees it: a place in the order of revisions, not a queue.

use super::digest::{BucketSet, Buckets, Digest};
use super::event::Event;
use super::filter::Filter;
use super::shelf::Shelf;
use super::store::Store;
use super::tally::View;
use super::{SessionId, Stream, WINDOW};
use crate::record::{Revision, Version};
use crate::wire::{Body, Change, Compare, Delta, Gone, Snapshot, Summary};
use bytes::Bytes;
use hawser_tunnel::node::ClusterId;
use std::time::{Duration, Instant};

/// The length at which a delta is closed, in bytes: about a hundred records, so that others have their turn.
const DELTA_BYTES: usize = 16 << 10;

/// The same where origins share a stream: all parts of one that are on their way are what a change of another waits for.
const SHARED_DELTA_BYTES: usize = 4 << 10;

/// Changes of one revision are never parted. If there are more bytes of them, the states are compared instead.
const MAX_GROUP_BYTES: usize = 512 << 10;

/// The length at which a part of a snapshot is closed, in bytes.
const SNAPSHOT_BYTES: usize = 256 << 10;

/// What surrounds a key and a value in a message, in bytes, at most.
const CHANGE_OVERHEAD: usize = 32;

/// How often a summary is told while things change.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(5);

/// How long we may be behind a subscriber before somebody is told: another replica's journal is followed in less.
const AHEAD_AFTER: Duration = Duration::from_secs(3);

/// How often it is told then.
const AHEAD_INTERVAL: Duration = Duration::from_secs(10);

/// What a subscriber said that it has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Had {
    pub(super) version: Version,
    pub(super) complete: bool,
    pub(super) digest: Digest,
}

#[derive(Debug)]
pub(super) struct Channel {
    origin: ClusterId,
    phase: Phase,
    /// The store's, when we last looked.
    epoch: u64,
    /// Number of the last part.
    sent: u64,
    acked: u64,
    /// Where the unacknowledged parts are. Parts of both streams are never on their way together, so that they arrive
    /// in order.
    stream: Stream,
    round: u32,
    /// How new the state may be that was told in part. A delta must reach it, even if nothing else is to be told.
    owed: Revision,
    summary_at: Option<Instant>,
    ahead_at: Option<Instant>,
}

#[derive(Debug)]
enum Phase {
    /// Nothing was said yet about what the subscriber has.
    Fresh(Had),
    /// Digests must be asked for.
    Ask,
    /// They were asked for.
    Asked,
    /// A snapshot goes out.
    Filling(Filling),
    /// The subscriber follows.
    Live {
        /// The state that it was told.
        told: Revision,
        /// The state up to which nothing is to be told.
        scanned: Revision,
    },
    /// The origin left, which is still to be told.
    Leaving,
    /// It was told.
    Gone,
}

#[derive(Debug)]
struct Filling {
    base: Version,
    /// `None`: all.
    buckets: Option<BucketSet>,
    next: Bytes,
}

/// What a channel does next.
#[derive(Debug)]
pub(super) enum Step {
    Send(Stream, Body),
    /// That stream takes nothing now.
    Blocked(Stream),
    Idle,
}

/// Whom a channel belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) session: SessionId,
    pub(super) number: u32,
    pub(super) filter: &'a Filter,
    pub(super) writable: [bool; 2],
    /// It serves others itself, so it must know how new its state is, even if nothing that happened is for it: who heard
    /// of a newer version elsewhere would wait for it otherwise.
    pub(super) serves: bool,
}

impl Owner<'_> {
    fn can_write(&self, stream: Stream) -> bool {
        self.writable[stream.index()]
    }
}

impl Channel {
    pub(super) fn new(origin: ClusterId, had: Had) -> Self {
        Self {
            origin,
            phase: Phase::Fresh(had),
            epoch: 0,
            sent: 0,
            acked: 0,
            stream: Stream::Changes,
            round: 0,
            owed: Revision(0),
            summary_at: None,
            ahead_at: None,
        }
    }

    /// The origin left.
    pub(super) fn leave(&mut self) {
        self.phase = Phase::Leaving;
    }

    /// Whether a part with this number was sent.
    pub(super) fn has_sent(&self, sequence: u64) -> bool {
        sequence <= self.sent
    }

    pub(super) fn acknowledge(&mut self, sequence: u64) {
        self.acked = self.acked.max(sequence);
    }

    /// The subscriber's digests arrived.
    pub(super) fn compare(
        &mut self,
        store: &Store,
        filter: &Filter,
        buckets: &Buckets,
        round: u32,
    ) {
        // Digests from before our last question were made of a state that may have changed since.
        let waits = matches!(self.phase, Phase::Ask | Phase::Asked | Phase::Live { .. });
        if !waits || round != self.round {
            return;
        }
        if !store.is_complete() {
            self.phase = Phase::Ask;
            return;
        }
        self.epoch = store.epoch();
        self.owed = Revision(0);
        let differing = store.buckets_under(filter, View::Shown).differing(buckets);
        self.phase = Phase::Filling(Filling::new(store.version(), Some(differing)));
    }

    pub(super) fn next(&mut self, shelf: &mut Shelf, owner: Owner<'_>, now: Instant) -> Step {
        loop {
            if matches!(self.phase, Phase::Leaving) {
                return self.say_gone(owner);
            }
            let is_own = shelf.own == Some(self.origin);
            let Some(store) = shelf.stores.get_mut(&self.origin) else {
                return Step::Idle;
            };
            if !store.is_complete() {
                return Step::Idle;
            }
            if self.epoch != store.epoch() {
                self.epoch = store.epoch();
                if matches!(self.phase, Phase::Filling(_) | Phase::Live { .. }) {
                    self.phase = Phase::Ask;
                }
            }
            match &mut self.phase {
                Phase::Leaving | Phase::Asked => return Step::Idle,
                Phase::Gone => self.phase = Phase::Fresh(Had::default()),
                Phase::Fresh(had) if had.version > store.version() => {
                    if is_own {
                        let seen = had.version;
                        self.tell_ahead(shelf, owner, seen, now);
                    }
                    return Step::Idle;
                }
                Phase::Fresh(had) => {
                    let had = *had;
                    self.begin(store, owner.filter, had, now);
                }
                Phase::Ask => {
                    if self.could_overtake() {
                        return Step::Idle;
                    }
                    if !owner.can_write(Stream::Changes) {
                        return Step::Blocked(Stream::Changes);
                    }
                    self.phase = Phase::Asked;
                    self.round += 1;
                    shelf.stats.compares_out += 1;
                    let compare = Compare {
                        number: owner.number,
                        origin: u16::from(self.origin).into(),
                        round: self.round,
                    };
                    return Step::Send(Stream::Changes, Body::Compare(compare));
                }
                Phase::Filling(filling) if store.horizon() > filling.base.revision => {
                    self.phase = Phase::Ask;
                }
                Phase::Filling(_) => return self.fill(shelf, owner, now),
                Phase::Live { scanned, .. } if store.horizon() > *scanned => {
                    self.phase = Phase::Ask;
                }
                Phase::Live { .. } => {
                    if let Some(step) = self.follow(shelf, owner, now) {
                        return step;
                    }
                }
            }
        }
    }

    /// Decides how to go on from what the subscriber has, which is not newer than what we have.
    fn begin(&mut self, store: &mut Store, filter: &Filter, had: Had, now: Instant) {
        self.owed = Revision(0);
        let ours = store.version();
        let digest = store.digest_under(filter, View::Shown);
        let resumes = had.complete
            && had.version.incarnation == ours.incarnation
            && had.version.revision >= store.resumable_from();
        self.phase = if resumes && (had.version != ours || had.digest == digest) {
            // The first summary comes at once, so that the subscriber knows where it is.
            self.summary_at = Some(now);
            Phase::Live {
                told: had.version.revision,
                scanned: had.version.revision,
            }
        } else if had.digest == digest {
            Phase::Filling(Filling::new(ours, Some(BucketSet::default())))
        } else if had.digest.count == 0 {
            Phase::Filling(Filling::new(ours, None))
        } else {
            Phase::Ask
        };
    }

    fn tell_ahead(&mut self, shelf: &mut Shelf, owner: Owner<'_>, seen: Version, now: Instant) {
        let wait = match self.ahead_at {
            None => AHEAD_AFTER,
            Some(at) if at <= now => {
                shelf.events.push_back(Event::Ahead {
                    origin: self.origin,
                    seen,
                    session: owner.session,
                });
                AHEAD_INTERVAL
            }
            Some(_) => return,
        };
        self.ahead_at = Some(now + wait);
        shelf.timers.set(now + wait, owner.session, self.origin);
    }

    fn say_gone(&mut self, owner: Owner<'_>) -> Step {
        if self.could_overtake() {
            return Step::Idle;
        }
        if !owner.can_write(Stream::Changes) {
            return Step::Blocked(Stream::Changes);
        }
        self.phase = Phase::Gone;
        self.summary_at = None;
        // It is acknowledged, so that no snapshot of the next cluster with this ID overtakes it.
        self.stream = Stream::Changes;
        self.sent += 1;
        let gone = Gone {
            number: owner.number,
            origin: u16::from(self.origin).into(),
            sequence: self.sent,
        };
        Step::Send(Stream::Changes, Body::Gone(gone))
    }

    /// The next part of a snapshot.
    fn fill(&mut self, shelf: &mut Shelf, owner: Owner<'_>, now: Instant) -> Step {
        if let Some(step) = self.wait_for(owner, Stream::Bulk) {
            return step;
        }
        let store = shelf.store_mut(self.origin);
        let Phase::Filling(filling) = &mut self.phase else {
            return Step::Idle;
        };
        let (mut records, mut size, mut end) = (Vec::new(), 0, Bytes::new());
        if filling.buckets.as_ref().is_none_or(|set| !set.is_empty()) {
            for (revision, key, value) in
                store.shown(owner.filter, filling.buckets.as_ref(), &filling.next)
            {
                if size >= SNAPSHOT_BYTES {
                    end = Bytes::copy_from_slice(key);
                    break;
                }
                size += key.len() + value.len() + CHANGE_OVERHEAD;
                records.push(change(revision, key, Some(value)));
            }
        }
        let last = end.is_empty();
        let base = filling.base;
        let newest = store.version().revision;
        self.owed = self.owed.max(newest);
        self.sent += 1;
        let snapshot = Snapshot {
            number: owner.number,
            origin: u16::from(self.origin).into(),
            incarnation: base.incarnation.0,
            revision: base.revision.0,
            sequence: self.sent,
            all: filling.buckets.is_none(),
            buckets: filling
                .buckets
                .as_ref()
                .map_or_else(Bytes::new, BucketSet::to_bytes),
            start: std::mem::replace(&mut filling.next, end.clone()),
            end,
            records,
            last,
            count: if last {
                store.digest_under(owner.filter, View::Shown).count
            } else {
                0
            },
            newest: newer_than(base.revision, newest),
        };
        if last {
            self.phase = Phase::Live {
                told: base.revision,
                scanned: base.revision,
            };
            self.summarise_later(shelf, owner, now);
        }
        shelf.stats.snapshot_parts_out += 1;
        Step::Send(Stream::Bulk, Body::Snapshot(snapshot))
    }

    /// The next delta, or a summary; `None`: the phase changed.
    fn follow(&mut self, shelf: &mut Shelf, owner: Owner<'_>, now: Instant) -> Option<Step> {
        let store = shelf.store_mut(self.origin);
        let Phase::Live { told, scanned } = &mut self.phase else {
            return None;
        };
        let version = store.version();
        if *scanned < version.revision {
            let (from, after) = (*told, *scanned);
            if let Some(step) = self.wait_for(owner, Stream::Changes) {
                return Some(step);
            }
            let most = if owner.serves {
                DELTA_BYTES
            } else {
                SHARED_DELTA_BYTES
            };
            let Some((changes, to)) = gather(store, owner.filter, after, most) else {
                self.phase = Phase::Ask;
                return None;
            };
            // Who was told a part is told when it has all.
            let is_silent = changes.is_empty() && self.owed <= from;
            let told = if is_silent { from } else { to };
            self.phase = Phase::Live { told, scanned: to };
            if is_silent {
                if owner.serves {
                    self.summarise_later(shelf, owner, now);
                }
                return None;
            }
            self.owed = self.owed.max(version.revision);
            self.sent += 1;
            let delta = Delta {
                number: owner.number,
                origin: u16::from(self.origin).into(),
                incarnation: version.incarnation.0,
                from: from.0,
                to: to.0,
                sequence: self.sent,
                changes,
                newest: newer_than(to, version.revision),
            };
            self.summarise_later(shelf, owner, now);
            shelf.stats.deltas_out += 1;
            return Some(Step::Send(Stream::Changes, Body::Delta(delta)));
        }
        let told = *told;
        if self.could_overtake() || self.summary_at.is_none_or(|at| at > now) {
            return Some(Step::Idle);
        }
        if owner.serves && told < version.revision {
            if let Some(step) = self.wait_for(owner, Stream::Changes) {
                return Some(step);
            }
            return Some(self.say_version(owner, told, version));
        }
        if !owner.can_write(Stream::Changes) {
            return Some(Step::Blocked(Stream::Changes));
        }
        self.summary_at = None;
        let digest = store.digest_under(owner.filter, View::Shown);
        let summary = Summary {
            number: owner.number,
            origin: u16::from(self.origin).into(),
            incarnation: version.incarnation.0,
            revision: told.0,
            digest: digest.to_bytes(),
            count: digest.count,
        };
        Some(Step::Send(Stream::Changes, Body::Summary(summary)))
    }

    /// Nothing changed for the subscriber, and the state is newer all the same.
    fn say_version(&mut self, owner: Owner<'_>, told: Revision, version: Version) -> Step {
        self.phase = Phase::Live {
            told: version.revision,
            scanned: version.revision,
        };
        self.sent += 1;
        let delta = Delta {
            number: owner.number,
            origin: u16::from(self.origin).into(),
            incarnation: version.incarnation.0,
            from: told.0,
            to: version.revision.0,
            sequence: self.sent,
            changes: Vec::new(),
            newest: 0,
        };
        Step::Send(Stream::Changes, Body::Delta(delta))
    }

    /// What keeps a part from going out on a stream, if anything.
    fn wait_for(&mut self, owner: Owner<'_>, stream: Stream) -> Option<Step> {
        let outstanding = self.outstanding();
        if outstanding >= WINDOW || outstanding > 0 && self.stream != stream {
            return Some(Step::Idle);
        }
        if !owner.can_write(stream) {
            return Some(Step::Blocked(stream));
        }
        self.stream = stream;
        None
    }

    fn summarise_later(&mut self, shelf: &mut Shelf, owner: Owner<'_>, now: Instant) {
        if self.summary_at.is_none() {
            let at = now + SUMMARY_INTERVAL;
            self.summary_at = Some(at);
            shelf.timers.set(at, owner.session, self.origin);
        }
    }

    /// Whether what is said now could arrive before a part that was sent before.
    fn could_overtake(&self) -> bool {
        self.outstanding() > 0 && self.stream == Stream::Bulk
    }

    fn outstanding(&self) -> u64 {
        self.sent - self.acked
    }
}

impl Filling {
    fn new(base: Version, buckets: Option<BucketSet>) -> Self {
        Self {
            base,
            buckets,
            next: Bytes::new(),
        }
    }
}

/// Changes for one delta, which is closed at `most` bytes, and the revision that they lead to; `None`: those of one
/// revision are too many.
fn gather(
    store: &Store,
    filter: &Filter,
    after: Revision,
    most: usize,
) -> Option<(Vec<Change>, Revision)> {
    let (mut changes, mut size) = (Vec::new(), 0);
    // Where the group of the newest revision begins: changes, bytes.
    let mut group = (0, 0, after);
    for (revision, key, value) in store.changes(after) {
        if revision != group.2 {
            if size >= most {
                return Some((changes, group.2));
            }
            group = (changes.len(), size, revision);
        }
        if !filter.covers_bytes(key) {
            continue;
        }
        size += key.len() + value.map_or(0, <[u8]>::len) + CHANGE_OVERHEAD;
        changes.push(change(revision, key, value));
        if size - group.1 > MAX_GROUP_BYTES {
            if group.0 == 0 {
                return None;
            }
            // What came before the group goes out first.
            changes.truncate(group.0);
            let to = changes.last().map_or(after.0, |change| change.revision);
            return Some((changes, Revision(to)));
        }
    }
    Some((changes, store.version().revision))
}

/// As on the wire: nothing if it is not newer.
fn newer_than(state: Revision, newest: Revision) -> u64 {
    if newest > state { newest.0 } else { 0 }
}

fn change(revision: Revision, key: &[u8], value: Option<&[u8]>) -> Change {
    Change {
        revision: revision.0,
        key: Bytes::copy_from_slice(key),
        value: value.map(Bytes::copy_from_slice),
    }
}
