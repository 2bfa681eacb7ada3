//! Which of a hub's addresses is tried when. It knows neither sockets nor names; it says what to do, and is told how it
//! went.
//!
//! All addresses are tried, each a little after the one before, and the first that answers is taken (RFC 8305). When
//! none does, all are tried again after a while that grows and is drawn by lot, so that a thousand agents do not come at
//! the same moment. After a loss the first attempt is at once, and at another address than the one that was lost.

mod backoff;
mod target;

pub use backoff::{Backoff, LONGEST};
pub use target::{Host, Target, TargetError};

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// From one attempt to the next.
pub const STAGGER: Duration = Duration::from_millis(50);
/// The most addresses that are tried; what a name has more is left out.
pub const MAX_ADDRESSES: usize = 32;
/// Addresses of a name are used for at least and at most so long, whatever it says.
pub const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// A connection that held so long was a good one: the next attempt after it is at once.
pub const GOOD: Duration = Duration::from_secs(2);

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask for the addresses of this name: [`Dial::handle_resolved`] or [`Dial::handle_unresolved`].
    Resolve(String),
    /// Try this address: [`Dial::handle_connected`] or [`Dial::handle_failed`].
    Connect(SocketAddr),
}

/// Dials the hubs of a cluster until one answers.
#[derive(Debug)]
pub struct Dial {
    targets: Vec<Target>,
    names: BTreeMap<String, Name>,
    backoff: Backoff,
    /// Tried in this round.
    tried: BTreeSet<SocketAddr>,
    /// Tried, and no answer yet.
    pending: BTreeSet<SocketAddr>,
    state: State,
    lost: Option<SocketAddr>,
}

#[derive(Debug, Default)]
struct Name {
    addresses: Vec<IpAddr>,
    /// When to ask, if nobody is asking.
    ask_at: Option<Instant>,
    asking: bool,
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing is wanted.
    Idle,
    /// The next attempt may be made from then on.
    Trying(Instant),
    /// All failed; all over again from then on.
    Waiting(Instant),
    Connected {
        to: SocketAddr,
        since: Instant,
    },
}

impl Dial {
    /// Dials these; `seed` is drawn by lot.
    pub fn new(targets: Vec<Target>, seed: u64) -> Self {
        let mut dial = Self {
            targets: Vec::new(),
            names: BTreeMap::new(),
            backoff: Backoff::new(seed),
            tried: BTreeSet::new(),
            pending: BTreeSet::new(),
            state: State::Idle,
            lost: None,
        };
        dial.set_targets(targets);
        dial
    }

    /// Dials others from now on. What is known of names that stay is kept.
    pub fn set_targets(&mut self, targets: Vec<Target>) {
        let named = |target: &Target| match &target.host {
            Host::Name(name) => Some(name.clone()),
            Host::Address(_) => None,
        };
        let wanted: BTreeSet<_> = targets.iter().filter_map(named).collect();
        self.names.retain(|name, _| wanted.contains(name));
        for name in wanted {
            self.names.entry(name).or_default();
        }
        self.targets = targets;
    }

    /// Wants a connection. What was going on is forgotten; a connection that there was is lost.
    pub fn handle_start(&mut self, now: Instant) {
        self.pending.clear();
        self.tried.clear();
        for name in self.names.values_mut() {
            name.asking = false;
            name.ask_at = name.ask_at.or(Some(now));
        }
        self.state = match self.state {
            State::Idle => State::Trying(now),
            State::Connected { to, since } => {
                self.lost = Some(to);
                if now.saturating_duration_since(since) >= GOOD {
                    self.backoff.reset();
                    State::Trying(now)
                } else {
                    // It answers and hangs up: as good as no answer.
                    State::Waiting(now + self.backoff.draw_next())
                }
            }
            State::Trying(_) | State::Waiting(_) => self.state,
        };
    }

    /// What to do now, until there is nothing.
    pub fn poll_action(&mut self, now: Instant) -> Option<Action> {
        if let State::Idle | State::Connected { .. } = self.state {
            return None;
        }
        let due = |name: &Name| !name.asking && name.ask_at.is_some_and(|at| at <= now);
        if let Some((name, known)) = self.names.iter_mut().find(|(_, name)| due(name)) {
            known.asking = true;
            return Some(Action::Resolve(name.clone()));
        }
        let (State::Trying(at) | State::Waiting(at)) = self.state else {
            return None;
        };
        if at > now {
            return None;
        }
        if let State::Waiting(_) = self.state {
            self.tried.clear();
            self.state = State::Trying(now);
        }
        let address = self.next_address()?;
        self.tried.insert(address);
        self.pending.insert(address);
        self.state = State::Trying(now + STAGGER);
        Some(Action::Connect(address))
    }

    /// Addresses of a name, and until when they hold.
    pub fn handle_resolved(
        &mut self,
        name: &str,
        addresses: Vec<IpAddr>,
        valid: Instant,
        now: Instant,
    ) {
        let Some(known) = self.names.get_mut(name) else {
            return;
        };
        known.asking = false;
        known.failures = 0;
        known.addresses = addresses;
        known.ask_at = Some(valid.clamp(now + TTL.0, now + TTL.1));
        self.settle(now);
    }

    /// A name could not be resolved; what is known of it is used on.
    pub fn handle_unresolved(&mut self, name: &str, now: Instant) {
        let delay = self.backoff.of_name();
        let Some(known) = self.names.get_mut(name) else {
            return;
        };
        known.asking = false;
        known.failures = known.failures.saturating_add(1);
        known.ask_at = Some(now + delay);
        self.settle(now);
    }

    /// An address does not answer, or not as it should.
    pub fn handle_failed(&mut self, address: SocketAddr, now: Instant) {
        self.pending.remove(&address);
        if let State::Trying(at) = self.state {
            // No reason to wait for this one any longer.
            self.state = State::Trying(at.min(now));
        }
        self.settle(now);
    }

    /// An address answers. The other attempts are over; whoever makes them ends them.
    pub fn handle_connected(&mut self, address: SocketAddr, now: Instant) {
        self.pending.clear();
        self.tried.clear();
        self.lost = None;
        self.state = State::Connected {
            to: address,
            since: now,
        };
    }

    /// When [`Self::poll_action`] has something to do, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let attempt = match self.state {
            State::Idle | State::Connected { .. } => return None,
            State::Trying(at) => self.next_address().map(|_| at),
            State::Waiting(at) => Some(at),
        };
        let asking = self.names.values().filter(|name| !name.asking);
        asking.filter_map(|name| name.ask_at).chain(attempt).min()
    }

    /// The round is over when every address was tried, none may still answer, and no more addresses come soon.
    fn settle(&mut self, now: Instant) {
        let coming = self
            .names
            .values()
            .any(|name| name.asking && name.addresses.is_empty());
        let trying = matches!(self.state, State::Trying(_));
        if trying && self.pending.is_empty() && !coming && self.next_address().is_none() {
            self.lost = None;
            self.state = State::Waiting(now + self.backoff.draw_next());
        }
    }

    /// The one to try next: the one that was lost is the last. Targets take turns, so that a name with many addresses
    /// does not keep the others waiting.
    fn next_address(&self) -> Option<SocketAddr> {
        if self.tried.len() >= MAX_ADDRESSES {
            return None;
        }
        let deepest = self
            .targets
            .iter()
            .map(|target| self.of(target).len())
            .max()?;
        let turns = (0..deepest).flat_map(|at| {
            let nth = move |target: &Target| self.of(target).get(at).copied();
            self.targets.iter().filter_map(nth)
        });
        let mut untried = turns.filter(|address| !self.tried.contains(address));
        let first = untried.next()?;
        if Some(first) == self.lost {
            return untried.find(|other| *other != first).or(Some(first));
        }
        Some(first)
    }

    fn of(&self, target: &Target) -> Vec<SocketAddr> {
        let at = |ip: &IpAddr| SocketAddr::new(*ip, target.port);
        match &target.host {
            Host::Address(ip) => vec![at(ip)],
            Host::Name(name) => {
                let known = self.names.get(name);
                known.map_or_else(Vec::new, |name| name.addresses.iter().map(at).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests;
