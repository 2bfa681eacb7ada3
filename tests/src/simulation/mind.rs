//! What a process thinks with: the product's state machines, a hub's or an agent's.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use hawser_mesh::hub::bump::Claim;
use hawser_mesh::hub::core::{Action, Core};
use hawser_mesh::record::{Incarnation, Key, Revision, Version};
use hawser_mesh::replica::{Event, Replica, SessionId, Stats, Store, Stream, Transmit};
use hawser_tunnel::node::ClusterId;

/// A hub's or an agent's.
#[derive(Debug)]
pub(super) enum Mind {
    Hub(Box<Core>),
    /// With what it is about to give up.
    Agent(Box<Replica>, VecDeque<Told>),
}

/// What a process tells its owner.
#[derive(Debug)]
pub(super) enum Told {
    /// A record is as it says; `None`: gone.
    Record(ClusterId, Key, Option<Bytes>),
    /// The first state of an origin begins, or is complete.
    Init(ClusterId),
    InitRecord(ClusterId, Key, Bytes),
    InitDone(ClusterId),
    /// What is to be kept of an origin.
    Keep(Keep),
    Forget(ClusterId),
    Close(SessionId, &'static str),
    Bump(Incarnation),
    Ahead(Vec<Claim>),
    /// Somebody refused a record of ours, by this name.
    Refused(Key, String),
}

/// What is to be kept of an origin.
#[derive(Debug)]
pub(super) struct Keep {
    pub(super) origin: ClusterId,
    pub(super) version: Version,
    pub(super) complete: bool,
    pub(super) changes: Vec<(Key, Option<(Revision, Bytes)>)>,
}

impl Mind {
    pub(super) fn store(&self, origin: ClusterId) -> Option<&Store> {
        match self {
            Self::Hub(core) => core.store(origin),
            Self::Agent(replica, _) => replica.store(origin),
        }
    }

    pub(super) fn stats(&self) -> &Stats {
        match self {
            Self::Hub(core) => core.stats(),
            Self::Agent(replica, _) => replica.stats(),
        }
    }

    pub(super) fn handle_message(
        &mut self,
        session: SessionId,
        stream: Stream,
        bytes: Bytes,
        now: Instant,
    ) {
        match self {
            Self::Hub(core) => core.handle_message(session, stream, bytes, now),
            Self::Agent(replica, told) => {
                if let Err(reject) = replica.handle_message(session, stream, bytes, now) {
                    replica.close(session);
                    told.push_back(Told::Close(session, reject.name()));
                }
            }
        }
    }

    pub(super) fn close(&mut self, session: SessionId) {
        match self {
            Self::Hub(core) => core.closed(session),
            Self::Agent(replica, _) => replica.close(session),
        }
    }

    pub(super) fn set_writable(&mut self, session: SessionId, stream: Stream, writable: bool) {
        match self {
            Self::Hub(core) => core.set_writable(session, stream, writable),
            Self::Agent(replica, _) => replica.set_writable(session, stream, writable),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Hub(core) => core.handle_timeout(now),
            Self::Agent(replica, _) => replica.handle_timeout(now),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Hub(core) => core.poll_timeout(),
            Self::Agent(replica, _) => replica.poll_timeout(),
        }
    }

    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        match self {
            Self::Hub(core) => core.poll_transmit(now),
            Self::Agent(replica, _) => replica.poll_transmit(now),
        }
    }

    /// The next thing that it tells.
    pub(super) fn poll_told(&mut self) -> Option<Told> {
        match self {
            Self::Hub(core) => loop {
                if let Some(told) = told_by_hub(core.poll_action()?) {
                    return Some(told);
                }
            },
            Self::Agent(replica, told) => loop {
                if let Some(told) = told.pop_front() {
                    return Some(told);
                }
                if let Some(told) = told_by_agent(replica.poll_event()?) {
                    return Some(told);
                }
            },
        }
    }
}

fn told_by_hub(action: Action) -> Option<Told> {
    match action {
        Action::Keep {
            origin,
            version,
            complete,
            changes,
        } => Some(Told::Keep(Keep {
            origin,
            version,
            complete,
            changes,
        })),
        Action::Forget { origin } => Some(Told::Forget(origin)),
        Action::Close { session, reason } => Some(Told::Close(session, reason)),
        Action::Bump { to } => Some(Told::Bump(to)),
        Action::Ahead { claims } => Some(Told::Ahead(claims)),
        Action::Refused { key, reason, .. } => Some(Told::Refused(key, reason)),
        // Whom to dial and to trust, everybody knows here.
        Action::Dial { .. }
        | Action::Hang { .. }
        | Action::Trust { .. }
        | Action::Redial { .. }
        | Action::Authorities { .. }
        | Action::Announced { .. }
        | Action::Revocations { .. }
        | Action::Synced { .. } => None,
    }
}

fn told_by_agent(event: Event) -> Option<Told> {
    match event {
        Event::Init { origin } => Some(Told::Init(origin)),
        Event::InitApply { origin, key, value } => Some(Told::InitRecord(origin, key, value)),
        Event::InitDone { origin } => Some(Told::InitDone(origin)),
        Event::Apply { origin, key, value } => Some(Told::Record(origin, key, Some(value))),
        Event::Delete { origin, key } => Some(Told::Record(origin, key, None)),
        Event::Forgotten { origin } => Some(Told::Forget(origin)),
        Event::Reached { .. }
        | Event::Ahead { .. }
        | Event::Announced { .. }
        | Event::Refused { .. }
        | Event::Synced { .. } => None,
    }
}
