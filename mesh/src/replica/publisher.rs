//! The side of a session that shows its origins to a subscriber.

use super::channel::{Channel, Had, Owner, Step};
use super::digest::{Buckets, Digest};
use super::event::Event;
use super::filter::{Filter, MAX_PREFIX_BYTES, MAX_PREFIXES};
use super::reject::Reject;
use super::shelf::Shelf;
use super::{Audience, MAX_INCARNATION_STEP, SessionId, Stream};
use crate::record::{Key, Kind, LaneRecord, MAX_LANES, Prefix, Version};
use crate::wire::{Ack, Announce, Body, Digests, Have, Refused, Subscribe};
use bytes::Bytes;
use hawser_tunnel::node::ClusterId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

#[derive(Debug)]
pub(super) struct Publisher {
    session: SessionId,
    to: Audience,
    subscription: Option<Subscription>,
    channels: BTreeMap<ClusterId, Channel>,
    /// Channels that may have something to say.
    ready: BTreeSet<ClusterId>,
    /// Channels that wait for a stream.
    parked: [BTreeSet<ClusterId>; 2],
    pub(super) writable: [bool; 2],
    /// Whose turn was the last.
    turn: Option<ClusterId>,
    /// What was touched up to here was looked at.
    tick: u64,
}

#[derive(Debug)]
struct Subscription {
    number: u32,
    filter: Filter,
    /// None: all.
    origins: BTreeSet<ClusterId>,
}

impl Publisher {
    pub(super) fn new(session: SessionId, to: Audience) -> Self {
        Self {
            session,
            to,
            subscription: None,
            channels: BTreeMap::new(),
            ready: BTreeSet::new(),
            parked: Default::default(),
            writable: [true; 2],
            turn: None,
            tick: 0,
        }
    }

    pub(super) fn handle(&mut self, shelf: &mut Shelf, body: Body) -> Result<(), Reject> {
        match body {
            Body::Subscribe(subscribe) => self.subscribe(shelf, subscribe),
            Body::Digests(digests) => self.digests(shelf, digests),
            Body::Ack(ack) => self.ack(ack),
            Body::Refused(refused) => self.refused(shelf, refused),
            Body::Announce(announce) => self.announced(shelf, announce),
            Body::Hello(_)
            | Body::Compare(_)
            | Body::Snapshot(_)
            | Body::Delta(_)
            | Body::Summary(_)
            | Body::Gone(_) => Err(Reject::UnexpectedMessage),
        }
    }

    fn subscribe(&mut self, shelf: &mut Shelf, subscribe: Subscribe) -> Result<(), Reject> {
        let before = self.subscription.as_ref().map_or(0, |s| s.number);
        if subscribe.number <= before {
            return Err(Reject::SubscriptionOrder);
        }
        let filter = self.checked_filter(subscribe.prefixes)?;
        let limit = shelf.limits.origins;
        if subscribe.origins.len() > limit || subscribe.have.len() > limit {
            return Err(Reject::TooManyOrigins);
        }
        let origins = subscribe.origins.into_iter().map(parse_origin);
        let origins = origins.collect::<Result<BTreeSet<_>, _>>()?;
        if !origins.iter().all(|&origin| self.may_see(shelf, origin)) {
            return Err(Reject::OriginNotShown);
        }
        let subscription = Subscription {
            number: subscribe.number,
            filter,
            origins,
        };
        let mut channels = BTreeMap::new();
        for have in subscribe.have {
            let (origin, had) = checked_have(shelf, have)?;
            if subscription.wants(origin) && self.may_see(shelf, origin) {
                let mut channel = Channel::new(origin, had);
                if shelf.has_left(origin) {
                    channel.leave();
                }
                channels.insert(origin, channel);
            }
        }
        self.ready = channels.keys().copied().collect();
        self.parked = Default::default();
        self.channels = channels;
        self.subscription = Some(subscription);
        // All that is there is looked at again.
        self.tick = 0;
        Ok(())
    }

    fn checked_filter(&self, prefixes: Vec<Bytes>) -> Result<Filter, Reject> {
        let bytes: usize = prefixes.iter().map(Bytes::len).sum();
        if prefixes.len() > MAX_PREFIXES || bytes > MAX_PREFIX_BYTES {
            return Err(Reject::TooManyPrefixes);
        }
        // They are kept for as long as the session lasts; the message is not.
        let parsed = prefixes
            .iter()
            .map(|p| Prefix::parse(Bytes::copy_from_slice(p)));
        let parsed = parsed.collect::<Result<Vec<_>, _>>();
        let parsed = parsed.map_err(|_| Reject::PrefixMalformed)?;
        if parsed.iter().any(|prefix| !self.may_ask_for(prefix)) {
            return Err(Reject::PrefixPrivate);
        }
        let filter = Filter::new(parsed);
        if filter.to_wire() != prefixes {
            return Err(Reject::PrefixOrder);
        }
        Ok(filter)
    }

    fn may_ask_for(&self, prefix: &Prefix) -> bool {
        match self.to {
            Audience::OtherHub { .. } => !prefix.is_private(),
            // A node's credential reads the pods of that node alone.
            Audience::OwnAgent { node } => {
                prefix.as_bytes()[0] != Kind::Pod as u8
                    || prefix
                        .as_bytes()
                        .starts_with(Prefix::pods_of(node).as_bytes())
            }
        }
    }

    /// Whether other origins than our own are shown.
    pub(super) fn reads_others(&self) -> bool {
        matches!(self.to, Audience::OwnAgent { .. })
    }

    fn may_see(&self, shelf: &Shelf, origin: ClusterId) -> bool {
        self.reads_others() || shelf.own == Some(origin)
    }

    fn digests(&mut self, shelf: &mut Shelf, digests: Digests) -> Result<(), Reject> {
        let Some(subscription) = self.current(digests.number)? else {
            shelf.stats.skipped += 1;
            return Ok(());
        };
        let origin = parse_origin(digests.origin)?;
        let buckets = Buckets::parse(&digests.buckets).ok_or(Reject::DigestsLength)?;
        let filter = subscription.filter.clone();
        let channel = self.channels.get_mut(&origin);
        if let (Some(channel), Some(store)) = (channel, shelf.stores.get(&origin)) {
            channel.compare(store, &filter, &buckets, digests.round);
            self.ready.insert(origin);
        }
        Ok(())
    }

    fn ack(&mut self, ack: Ack) -> Result<(), Reject> {
        if self.current(ack.number)?.is_none() {
            return Ok(());
        }
        let origin = parse_origin(ack.origin)?;
        let channel = self.channels.get_mut(&origin);
        let channel = channel.filter(|channel| channel.has_sent(ack.sequence));
        channel
            .ok_or(Reject::AckOfUnsent)?
            .acknowledge(ack.sequence);
        self.ready.insert(origin);
        Ok(())
    }

    fn refused(&self, shelf: &mut Shelf, refused: Refused) -> Result<(), Reject> {
        let origin = parse_origin(refused.origin)?;
        // Only what could be the name of a refusal is passed on; it is written to a log.
        let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let fits = refused.reason.len() <= 64 && refused.reason.bytes().all(is_name);
        match Key::parse(Bytes::copy_from_slice(&refused.key)) {
            Ok(key) if fits => shelf.events.push_back(Event::Refused {
                session: self.session,
                origin,
                key,
                reason: refused.reason,
            }),
            _ => shelf.stats.skipped += 1,
        }
        Ok(())
    }

    fn announced(&self, shelf: &mut Shelf, announce: Announce) -> Result<(), Reject> {
        if matches!(self.to, Audience::OtherHub { .. }) {
            return Err(Reject::UnexpectedMessage);
        }
        if announce.lanes.len() > MAX_LANES {
            return Err(Reject::AnnounceMalformed);
        }
        let lanes = announce.lanes.iter().map(LaneRecord::try_from);
        let lanes = lanes.collect::<Result<_, _>>();
        shelf.events.push_back(Event::Announced {
            session: self.session,
            lanes: lanes.map_err(|_| Reject::AnnounceMalformed)?,
        });
        Ok(())
    }

    /// The subscription, if this is its number; `None`: it is that of an older one.
    fn current(&self, number: u32) -> Result<Option<&Subscription>, Reject> {
        let newest = self.subscription.as_ref();
        match newest.map_or(0, |s| s.number) {
            newest if number > newest => Err(Reject::SubscriptionUnknown),
            current => Ok(newest.filter(|_| number == current)),
        }
    }

    /// An origin left.
    pub(super) fn leave(&mut self, origin: ClusterId) {
        if let Some(channel) = self.channels.get_mut(&origin) {
            channel.leave();
            self.ready.insert(origin);
        }
    }

    pub(super) fn look_at(&mut self, origin: ClusterId) {
        if self.channels.contains_key(&origin) {
            self.ready.insert(origin);
        }
    }

    pub(super) fn set_writable(&mut self, stream: Stream, writable: bool) {
        self.writable[stream.index()] = writable;
        if writable {
            self.ready.append(&mut self.parked[stream.index()]);
        }
    }

    pub(super) fn poll(&mut self, shelf: &mut Shelf, now: Instant) -> Option<(Stream, Body)> {
        self.look_at_touched(shelf);
        let subscription = self.subscription.as_ref()?;
        loop {
            let origin = next_after(&self.ready, self.turn)?;
            let owner = Owner {
                session: self.session,
                number: subscription.number,
                filter: &subscription.filter,
                writable: self.writable,
                serves: !self.reads_others(),
            };
            let channel = self.channels.get_mut(&origin);
            let step = channel.map_or(Step::Idle, |channel| channel.next(shelf, owner, now));
            match step {
                Step::Send(stream, body) => {
                    self.turn = Some(origin);
                    return Some((stream, body));
                }
                Step::Blocked(stream) => {
                    self.ready.remove(&origin);
                    self.parked[stream.index()].insert(origin);
                }
                Step::Idle => {
                    self.ready.remove(&origin);
                }
            }
        }
    }

    fn look_at_touched(&mut self, shelf: &Shelf) {
        let Some(subscription) = &self.subscription else {
            return;
        };
        let touched = shelf.touched.since(self.tick);
        for origin in touched.filter(|&origin| subscription.wants(origin)) {
            if self.channels.contains_key(&origin) {
                self.ready.insert(origin);
            } else if shelf.stores.contains_key(&origin) && self.may_see(shelf, origin) {
                self.ready.insert(origin);
                self.channels
                    .insert(origin, Channel::new(origin, Had::default()));
            }
        }
        self.tick = shelf.touched.tick();
    }
}

impl Subscription {
    fn wants(&self, origin: ClusterId) -> bool {
        self.origins.is_empty() || self.origins.contains(&origin)
    }
}

/// The next one in a circle.
pub(super) fn next_after<T: Ord + Copy>(set: &BTreeSet<T>, last: Option<T>) -> Option<T> {
    let behind = last.and_then(|last| {
        let range = (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
        set.range(range).next()
    });
    behind.or_else(|| set.first()).copied()
}

pub(super) fn parse_origin(number: u32) -> Result<ClusterId, Reject> {
    let number = u16::try_from(number).ok();
    let origin = number.and_then(|number| ClusterId::new(number).ok());
    origin.ok_or(Reject::OriginMalformed)
}

fn checked_have(shelf: &Shelf, have: Have) -> Result<(ClusterId, Had), Reject> {
    let origin = parse_origin(have.origin)?;
    let version = Version::new(have.incarnation, have.revision);
    if shelf.own == Some(origin) {
        let ours = shelf
            .stores
            .get(&origin)
            .map_or(0, |s| s.version().incarnation.0);
        if have.incarnation > ours.saturating_add(MAX_INCARNATION_STEP) {
            return Err(Reject::IncarnationImplausible);
        }
    }
    let sum = match &have.digest[..] {
        [] if have.count == 0 => 0,
        digest => u128::from_be_bytes(digest.try_into().map_err(|_| Reject::DigestsLength)?),
    };
    let digest = Digest {
        sum,
        count: have.count,
    };
    let had = Had {
        version,
        complete: have.complete,
        digest,
    };
    Ok((origin, had))
}
