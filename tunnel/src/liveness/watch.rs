//! All watched peers. Thousands may be configured; only those in use are here.

use super::awake::Awake;
use super::jitter::Jitter;
use super::{Event, Liveness, Report};
use crate::node::NodeId;
use crate::probe::Probe;
use crate::reject::Reject;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// The watched peers.
///
/// The caller owes two things. It calls [`Self::handle_timeout`] when [`Self::poll_timeout`] says, so
/// that what passes beyond is known as time in which this process did not run. And before each such
/// call it has handed every reply that waited in its sockets to [`Self::handle_reply`]: a reply that
/// lies in a queue of our own is not silence of the peer. Where it cannot say that the queues were
/// empty (another thread reads them and does not get to run) it does not call, and that time does not
/// count either.
#[derive(Debug)]
pub struct Watch {
    awake: Awake,
    seeds: Jitter,
    peers: BTreeMap<NodeId, Peer>,
    /// Who is due when, by the clock of `awake`.
    due: BTreeSet<(Instant, NodeId)>,
    /// Who has a request.
    asking: BTreeSet<NodeId>,
    /// Who has an event.
    changed: BTreeSet<NodeId>,
}

#[derive(Debug)]
struct Peer {
    liveness: Liveness,
    due: Instant,
}

impl Watch {
    /// Nobody is watched yet. `seed` is random, so that no two runs have the same cookies.
    pub fn new(now: Instant, seed: u64) -> Self {
        Self {
            awake: Awake::new(now),
            seeds: Jitter::new(seed),
            peers: BTreeMap::new(),
            due: BTreeSet::new(),
            asking: BTreeSet::new(),
            changed: BTreeSet::new(),
        }
    }

    /// Watches exactly these peers. Those that stay keep what is known of them; those that go are
    /// forgotten without an event.
    pub fn set_watched(&mut self, watched: impl IntoIterator<Item = NodeId>, now: Instant) {
        let watched: BTreeSet<NodeId> = watched.into_iter().collect();
        self.peers.retain(|id, peer| {
            let stays = watched.contains(id);
            if !stays {
                self.due.remove(&(peer.due, *id));
                self.asking.remove(id);
                self.changed.remove(id);
            }
            stays
        });
        let now = self.awake.at(now);
        for id in watched {
            self.peers.entry(id).or_insert_with(|| {
                self.due.insert((now, id));
                Peer {
                    liveness: Liveness::new(now, self.seeds.draw()),
                    due: now,
                }
            });
        }
    }

    /// Advances every timer that is due at `now`. See what the caller owes.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.awake.advance(now);
        while let Some(&(due, id)) = self.due.first()
            && due <= now
        {
            let Some(peer) = self.peers.get_mut(&id) else {
                self.due.pop_first();
                continue;
            };
            peer.liveness.handle_timeout(now);
            self.settle(id, now);
        }
    }

    /// Takes a reply of a peer. Refused if the peer is not watched or the reply proves nothing.
    pub fn handle_reply(&mut self, id: NodeId, reply: Probe, now: Instant) -> Result<(), Reject> {
        let now = self.awake.at(now);
        let peer = self.peers.get_mut(&id).ok_or(Reject::ProbeStale)?;
        peer.liveness.handle_reply(reply, now)?;
        self.settle(id, now);
        Ok(())
    }

    /// Returns the next request to send, and to whom.
    pub fn poll_transmit(&mut self) -> Option<(NodeId, Probe)> {
        let id = self.asking.pop_first()?;
        let request = self.peers.get_mut(&id)?.liveness.poll_transmit()?;
        Some((id, request))
    }

    /// Returns what changed, and with whom. Who asks late hears of the last change of each peer.
    pub fn poll_event(&mut self) -> Option<(NodeId, Event)> {
        let id = self.changed.pop_first()?;
        let event = self.peers.get_mut(&id)?.liveness.poll_event()?;
        Some((id, event))
    }

    /// Returns when [`Self::handle_timeout`] wants to be called next; `None` while nobody is watched.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let (due, _) = self.due.first()?;
        Some(self.awake.until(*due))
    }

    /// What `status` says of a peer; `None` if it is not watched.
    pub fn report(&self, id: NodeId, now: Instant) -> Option<Report> {
        let peer = self.peers.get(&id)?;
        Some(peer.liveness.report(self.awake.at(now)))
    }

    /// How many are watched.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Notes what a peer wants now.
    fn settle(&mut self, id: NodeId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.liveness.request.is_some() {
            self.asking.insert(id);
        }
        if peer.liveness.event.is_some() {
            self.changed.insert(id);
        }
        self.due.remove(&(peer.due, id));
        peer.due = peer.liveness.poll_timeout().unwrap_or(now);
        self.due.insert((peer.due, id));
    }
}
