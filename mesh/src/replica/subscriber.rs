//! The side of a session that takes origins from a publisher.

use super::digest::{BucketSet, Buckets};
use super::event::Event;
use super::feed::{Feed, Fill, State};
use super::filter::Filter;
use super::intake::Intake;
use super::part::{check_changes, check_range, check_version};
use super::publisher::{next_after, parse_origin};
use super::quota::Rate;
use super::reject::Reject;
use super::shelf::Shelf;
use super::store::Store;
use super::tally::View;
use super::{SessionId, Stream, Wanted};
use crate::record::{LaneRecord, Revision, Version};
use crate::wire::{
    Ack, Announce, Body, Delta, Digests, Gone, Have, Refused, Snapshot, Subscribe, Summary,
};
use bytes::Bytes;
use hawser_tunnel::node::ClusterId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// Refusals that wait to be told; more are only counted.
const MAX_REFUSED: usize = 16;

/// How often a refusal is told in the long run.
const REFUSED_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Subscriber {
    session: SessionId,
    pub(super) wanted: Wanted,
    filter: Filter,
    number: u32,
    subscribes: bool,
    announces: Option<Vec<LaneRecord>>,
    feeds: BTreeMap<ClusterId, Feed>,
    /// Feeds that may have something to say.
    ready: BTreeSet<ClusterId>,
    turn: Option<ClusterId>,
    refused: VecDeque<(ClusterId, Refused)>,
    refused_rate: Rate,
    pub(super) writable: bool,
}

impl Subscriber {
    pub(super) fn new(session: SessionId, wanted: Wanted) -> Self {
        Self {
            session,
            wanted,
            filter: Filter::default(),
            number: 0,
            subscribes: false,
            announces: None,
            feeds: BTreeMap::new(),
            ready: BTreeSet::new(),
            turn: None,
            refused: VecDeque::new(),
            refused_rate: Rate::new(1, 10),
            writable: true,
        }
    }

    /// The filter that was subscribed with.
    pub(super) fn filter(&self) -> &Filter {
        &self.filter
    }

    pub(super) fn announce(&mut self, lanes: Vec<LaneRecord>) {
        self.announces = Some(lanes);
    }

    /// Subscribes anew. What the filter does not cover is taken out of the stores.
    pub(super) fn subscribe(&mut self, shelf: &mut Shelf, filter: Filter) {
        self.filter = filter;
        self.number += 1;
        self.subscribes = true;
        for feed in self.feeds.values_mut() {
            feed.restart();
        }
        self.ready.clear();
        for origin in self.scope(shelf) {
            Intake::of(shelf, origin).narrow(&self.filter);
        }
    }

    /// The origins that there is something of, and that this session feeds.
    fn scope(&self, shelf: &Shelf) -> Vec<ClusterId> {
        let fed = |origin: &&ClusterId| {
            self.wants(**origin)
                && shelf.own != Some(**origin)
                && shelf.feeders.of(**origin) == Some(self.session)
        };
        shelf.stores.keys().filter(fed).copied().collect()
    }

    fn wants(&self, origin: ClusterId) -> bool {
        match self.wanted {
            Wanted::All => true,
            Wanted::One(one) => one == origin,
        }
    }

    pub(super) fn handle(
        &mut self,
        shelf: &mut Shelf,
        body: Body,
        now: Instant,
    ) -> Result<(), Reject> {
        let (number, origin) = match &body {
            Body::Compare(compare) => (compare.number, compare.origin),
            Body::Snapshot(snapshot) => (snapshot.number, snapshot.origin),
            Body::Delta(delta) => (delta.number, delta.origin),
            Body::Summary(summary) => (summary.number, summary.origin),
            Body::Gone(gone) => (gone.number, gone.origin),
            Body::Hello(_)
            | Body::Subscribe(_)
            | Body::Digests(_)
            | Body::Ack(_)
            | Body::Refused(_)
            | Body::Announce(_) => return Err(Reject::UnexpectedMessage),
        };
        if number > self.number || number == self.number && self.subscribes {
            return Err(Reject::SubscriptionUnknown);
        }
        let origin = parse_origin(origin)?;
        if shelf.own == Some(origin) {
            return Err(Reject::OriginIsOwn);
        }
        if !self.wants(origin) {
            return Err(Reject::OriginNotSubscribed);
        }
        if number < self.number || shelf.feeders.of(origin) != Some(self.session) {
            shelf.stats.skipped += 1;
            return Ok(());
        }
        // Those of sessions before count too, as they are told in the next subscription.
        let known = shelf.stores.contains_key(&origin);
        if !known && shelf.stores.len() >= shelf.limits.origins {
            return Err(Reject::TooManyOrigins);
        }
        if !self.feeds.contains_key(&origin) {
            // What is gone has a feed still, for as long as the session lasts.
            if self.feeds.len() / 2 >= shelf.limits.origins {
                return Err(Reject::TooManyOrigins);
            }
            self.feeds.insert(origin, Feed::new(shelf.quota(origin)));
        }
        match body {
            Body::Compare(compare) => {
                self.feed(origin).round = compare.round;
                self.ask(shelf, origin, now);
                Ok(())
            }
            Body::Snapshot(snapshot) => self.snapshot(shelf, origin, snapshot, now),
            Body::Delta(delta) => self.delta(shelf, origin, delta, now),
            Body::Summary(summary) => self.summary(shelf, origin, &summary, now),
            Body::Gone(gone) => self.gone(shelf, origin, &gone, now),
            Body::Hello(_)
            | Body::Subscribe(_)
            | Body::Digests(_)
            | Body::Ack(_)
            | Body::Refused(_)
            | Body::Announce(_) => Err(Reject::UnexpectedMessage),
        }
    }

    fn snapshot(
        &mut self,
        shelf: &mut Shelf,
        origin: ClusterId,
        part: Snapshot,
        now: Instant,
    ) -> Result<(), Reject> {
        let version = Version::new(part.incarnation, part.revision);
        let buckets = BucketSet::parse(&part.buckets).ok_or(Reject::BucketsLength)?;
        let buckets = (!part.all).then_some(buckets);
        check_range(&part, &self.filter, buckets.as_ref())?;
        let filter = self.filter.clone();
        let feed = self.feed(origin);
        feed.take(part.sequence)?;
        let mut fill = match &feed.state {
            State::Following { .. } => return Err(Reject::SnapshotUnasked),
            State::Filling(fill) => {
                if !fill.is_continued_by(version, buckets.as_ref(), &part.start) {
                    return Err(Reject::SnapshotRange);
                }
                fill.clone()
            }
            State::Fresh | State::Awaiting => {
                if !part.start.is_empty() {
                    return Err(Reject::SnapshotRange);
                }
                let had = shelf.stores.get(&origin).map(Store::version);
                check_version(had.unwrap_or(Version::NONE), version)?;
                feed.digests_at = None;
                Fill {
                    version,
                    buckets,
                    end: Bytes::new(),
                    short: false,
                }
            }
        };
        // It is kept while the snapshot lasts; the message is not.
        fill.end = Bytes::copy_from_slice(&part.end);
        let mut intake = Intake::of(shelf, origin);
        if part.start.is_empty() {
            intake.begin(version, &filter);
        }
        let changed = intake.replace(&part, &fill, &filter);
        fill.short |= intake.is_short();
        if part.last {
            intake.finish(version, fill.short);
        } else {
            intake.pause();
        }
        let refused = intake.refused();
        shelf.touched.touch(origin);
        let feed = self.feed(origin);
        feed.state = if part.last {
            State::Following { at: version }
        } else {
            State::Filling(fill)
        };
        self.tell_refused(origin, refused);
        self.acknowledge(shelf, origin, changed, now);
        self.hurry(origin, now);
        if part.last {
            self.synced(shelf, origin);
        }
        Ok(())
    }

    fn delta(
        &mut self,
        shelf: &mut Shelf,
        origin: ClusterId,
        delta: Delta,
        now: Instant,
    ) -> Result<(), Reject> {
        check_changes(&delta, &self.filter)?;
        let feed = self.feed(origin);
        feed.take(delta.sequence)?;
        let from = Version::new(delta.incarnation, delta.from);
        let store = shelf
            .stores
            .get(&origin)
            .filter(|store| store.is_resumable());
        let at = match &feed.state {
            State::Filling(_) => return Err(Reject::UnexpectedMessage),
            State::Awaiting => {
                self.acknowledge(shelf, origin, 1, now);
                self.hurry(origin, now);
                return Ok(());
            }
            State::Fresh => store.map(Store::version),
            State::Following { at } => store.map(|_| *at),
        };
        if at != Some(from) {
            shelf.stats.delta_gap += 1;
            self.acknowledge(shelf, origin, 1, now);
            self.ask(shelf, origin, now);
            return Ok(());
        }
        let count = delta.changes.len();
        let to = Version::new(delta.incarnation, delta.to);
        feed.state = State::Following { at: to };
        let mut intake = Intake::of(shelf, origin);
        for change in &delta.changes {
            intake.take(
                Revision(change.revision),
                &change.key,
                change.value.as_ref(),
            );
        }
        intake.reach(to, Revision(delta.newest));
        let refused = intake.refused();
        shelf.touched.touch(origin);
        self.tell_refused(origin, refused);
        self.acknowledge(shelf, origin, count, now);
        Ok(())
    }

    fn summary(
        &mut self,
        shelf: &mut Shelf,
        origin: ClusterId,
        summary: &Summary,
        now: Instant,
    ) -> Result<(), Reject> {
        let digest = summary.digest[..].try_into();
        let sum = u128::from_be_bytes(digest.map_err(|_| Reject::DigestsLength)?);
        let version = Version::new(summary.incarnation, summary.revision);
        let most = u64::try_from(shelf.quota(origin).records).unwrap_or(u64::MAX);
        let filter = self.filter.clone();
        // It comes seldom enough to be answered.
        self.hurry(origin, now);
        let feed = self.feed(origin);
        let Some(store) = shelf.stores.get_mut(&origin) else {
            return Ok(());
        };
        let at = match &feed.state {
            State::Filling(_) | State::Awaiting => return Ok(()),
            State::Fresh => store.version(),
            State::Following { at } => *at,
        };
        if !store.is_resumable() || at != version {
            return Ok(());
        }
        feed.state = State::Following { at };
        let ours = store.digest_under(&filter, View::Whole);
        let agrees = ours.sum == sum && ours.count == summary.count;
        // An origin that does not fit differs, and goes on to.
        let is_short = store.over_quota;
        let waits = is_short && (summary.count > most || !feed.may_retry(now));
        if agrees {
            store.over_quota = false;
            if !store.is_complete() {
                Intake::of(shelf, origin).settle(version);
                shelf.touched.touch(origin);
            }
        } else if !waits {
            shelf.stats.mismatches += 1;
            self.ask(shelf, origin, now);
            return Ok(());
        } else if summary.count <= most
            && let Some(at) = feed.retry_later()
        {
            shelf.timers.set(at, self.session, origin);
        }
        self.synced(shelf, origin);
        Ok(())
    }

    fn gone(
        &mut self,
        shelf: &mut Shelf,
        origin: ClusterId,
        gone: &Gone,
        now: Instant,
    ) -> Result<(), Reject> {
        if self.wanted != Wanted::All {
            return Err(Reject::UnexpectedMessage);
        }
        let feed = self.feed(origin);
        feed.take(gone.sequence)?;
        feed.state = State::Fresh;
        feed.digests_at = None;
        feed.synced = false;
        if shelf.stores.remove(&origin).is_some() {
            shelf.events.push_back(Event::Forgotten { origin });
        }
        self.acknowledge(shelf, origin, 1, now);
        self.hurry(origin, now);
        Ok(())
    }

    /// Compares an origin that this session feeds.
    pub(super) fn ask(&mut self, shelf: &mut Shelf, origin: ClusterId, now: Instant) {
        if let Some(at) = self.feed(origin).ask(now) {
            shelf.timers.set(at, self.session, origin);
        }
        self.ready.insert(origin);
    }

    fn acknowledge(&mut self, shelf: &mut Shelf, origin: ClusterId, changes: usize, now: Instant) {
        let (later, held) = self.feed(origin).acknowledge(changes, now);
        shelf.stats.delayed_acks += u64::from(held);
        match later {
            Some(at) => shelf.timers.set(at, self.session, origin),
            None => _ = self.ready.insert(origin),
        }
    }

    /// The publisher may wait until all of this is acknowledged.
    fn hurry(&mut self, origin: ClusterId, now: Instant) {
        self.feed(origin).hurry(now);
        self.ready.insert(origin);
    }

    fn synced(&mut self, shelf: &mut Shelf, origin: ClusterId) {
        let session = self.session;
        if !std::mem::replace(&mut self.feed(origin).synced, true) {
            shelf.events.push_back(Event::Synced { session, origin });
        }
    }

    /// Tells the origin of records that are not taken: the first few, and no more than one a second in the long run.
    pub(super) fn tell_refused(&mut self, origin: ClusterId, refused: Vec<(Bytes, &'static str)>) {
        for (key, reason) in refused {
            if self.refused.len() < MAX_REFUSED {
                let refused = Refused {
                    origin: u16::from(origin).into(),
                    key,
                    reason: reason.to_owned(),
                };
                self.refused.push_back((origin, refused));
            }
        }
    }

    fn feed(&mut self, origin: ClusterId) -> &mut Feed {
        self.feeds
            .get_mut(&origin)
            .expect("made as the first message of the origin came")
    }

    /// Whether deltas of an origin go on from what there is. Only then may we compare out of turn.
    pub(super) fn follows(&self, origin: ClusterId) -> bool {
        let feed = self.feeds.get(&origin);
        feed.is_some_and(|feed| matches!(feed.state, State::Following { .. }))
    }

    /// Whether this is what was subscribed to.
    pub(super) fn has_subscribed(&self, filter: &Filter) -> bool {
        self.number > 0 && self.filter == *filter
    }

    pub(super) fn look_at(&mut self, origin: ClusterId) {
        if self.feeds.contains_key(&origin) {
            self.ready.insert(origin);
        }
    }

    pub(super) fn poll(&mut self, shelf: &mut Shelf, now: Instant) -> Option<(Stream, Body)> {
        if !self.writable {
            return None;
        }
        let body = self.next_body(shelf, now)?;
        Some((Stream::Changes, body))
    }

    fn next_body(&mut self, shelf: &mut Shelf, now: Instant) -> Option<Body> {
        if let Some(lanes) = self.announces.take() {
            let lanes = lanes.iter().map(Into::into).collect();
            return Some(Body::Announce(Announce { lanes }));
        }
        if std::mem::take(&mut self.subscribes) {
            return Some(Body::Subscribe(self.subscription(shelf)));
        }
        while let Some(origin) = next_after(&self.ready, self.turn) {
            let (number, filter) = (self.number, self.filter.clone());
            if self.feed(origin).due_retry(now) {
                self.ask(shelf, origin, now);
            }
            let feed = self.feed(origin);
            let round = feed.round;
            let wire_origin = u16::from(origin).into();
            let body = if let Some((sequence, next)) = feed.due_ack(now) {
                if let Some(at) = next {
                    shelf.timers.set(at, self.session, origin);
                }
                Some(Body::Ack(Ack {
                    number,
                    origin: wire_origin,
                    sequence,
                }))
            } else if feed.due_digests(now) {
                let store = shelf.stores.get(&origin);
                let buckets = store.map(|store| store.buckets_under(&filter, View::Whole));
                Some(Body::Digests(Digests {
                    number,
                    origin: wire_origin,
                    buckets: buckets.unwrap_or_else(Buckets::new).to_bytes(),
                    round,
                }))
            } else {
                None
            };
            if body.is_some() {
                self.turn = Some(origin);
                return body;
            }
            self.ready.remove(&origin);
        }
        let (origin, _) = self.refused.front()?;
        if !self.refused_rate.try_take(now) {
            shelf
                .timers
                .set(now + REFUSED_INTERVAL, self.session, *origin);
            return None;
        }
        let (_, refused) = self.refused.pop_front()?;
        Some(Body::Refused(refused))
    }

    fn subscription(&self, shelf: &mut Shelf) -> Subscribe {
        let mut have = Vec::new();
        for origin in self.scope(shelf) {
            let store = shelf.store_mut(origin);
            let digest = store.digest_under(&self.filter, View::Whole);
            have.push(Have {
                origin: u16::from(origin).into(),
                incarnation: store.version().incarnation.0,
                revision: store.version().revision.0,
                complete: store.is_resumable(),
                digest: digest.to_bytes(),
                count: digest.count,
            });
        }
        Subscribe {
            number: self.number,
            prefixes: self.filter.to_wire(),
            origins: match self.wanted {
                Wanted::All => Vec::new(),
                Wanted::One(origin) => vec![u16::from(origin).into()],
            },
            have,
        }
    }
}
