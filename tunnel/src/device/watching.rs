//! Peers that are watched: requests to them, replies of them, and what became of both.
//!
//! A probe goes the way of a pod packet and is none: it counts in the totals of its lane, not in those of the node, and
//! never comes to the TAP.

use super::Device;
use crate::batch::{Batch, Datagrams};
use crate::capture::Direction;
use crate::forwarding::{Forwarding, Peer};
use crate::lane::{Lane, LaneNumber};
use crate::liveness::{Event, Watch};
use crate::node::NodeId;
use crate::outgoing::ByLane;
use crate::overlay::{self, Body, Ends};
use crate::probe::{self, Probe};
use crate::reject::Reject;
use crate::state::PeerKind;
use crate::status::{LivenessStatus, PeerLiveness};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What the device knows of watched peers.
#[derive(Debug, Default)]
pub(super) struct Watching {
    /// While somebody is watched.
    watch: Mutex<Option<Watch>>,
    /// Events so far.
    changes: AtomicU64,
}

impl Watching {
    fn lock(&self) -> MutexGuard<'_, Option<Watch>> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device {
    /// Watches the peers that a state wants watched. `seed` is for those whose watch begins.
    pub(super) fn set_watched(&self, table: &Forwarding, seed: u64, now: Instant) {
        let peers = table.state.peers.iter();
        let watched: Vec<NodeId> = peers
            .filter_map(|(&id, peer)| peer.watched.then_some(id))
            .collect();
        let mut watch = self.watching.lock();
        if watched.is_empty() {
            *watch = None;
        } else {
            watch
                .get_or_insert_with(|| Watch::new(now, seed))
                .set_watched(watched, now);
        }
    }

    /// When [`Self::handle_watch_timeout`] wants to be called; `None` while nobody is watched.
    pub fn watch_timeout(&self) -> Option<Instant> {
        self.watching.lock().as_ref()?.poll_timeout()
    }

    /// Gives verdicts and asks watched peers. All that came to this node's sockets before `heard` was handed to
    /// [`Self::handle_datagrams`]: later silence is not counted yet.
    pub fn handle_watch_timeout(&self, heard: Instant, now: Instant, out: &mut impl ByLane) {
        let Some(table) = self.table() else {
            return;
        };
        let requests: Vec<(NodeId, Probe)> = match self.watching.lock().as_mut() {
            None => return,
            Some(watch) => {
                watch.handle_timeout(heard);
                std::iter::from_fn(|| watch.poll_transmit()).collect()
            }
        };
        for (id, request) in requests {
            if let Some(peer) = table.peer(id) {
                let lane = peer.lane(LaneNumber::default(), 0);
                self.send_probe(&table, (peer, lane), request, now, out.of(lane.own()));
            }
        }
    }

    /// Returns which peer died or is alive again, if any.
    ///
    /// A session of ours may have died with the peer's process. With one that is dead a new one is tried for, or its next
    /// process might be noticed only when WireGuard's own timers doubt the old one.
    pub fn poll_liveness(&self, now: Instant, out: &mut impl ByLane) -> Option<(NodeId, Event)> {
        let (id, event) = self.watching.lock().as_mut()?.poll_event()?;
        self.watching.changes.fetch_add(1, Ordering::Relaxed);
        if let Event::Dead { .. } = event
            && let Some(table) = self.table()
            && let Some(peer) = table.peer(id)
        {
            let lane = peer.lane(LaneNumber::default(), 0);
            lane.initiate(now, out.of(lane.own()));
        }
        Some((id, event))
    }

    /// What is thought of the watched peers.
    pub fn liveness(&self, now: Instant) -> LivenessStatus {
        let peers = match (self.watching.lock().as_ref(), self.table()) {
            (Some(watch), Some(table)) => {
                let known = |peer: &Peer| Some((peer.id, watch.report(peer.id, now)?.into()));
                table.peers().filter_map(|peer| known(peer)).collect()
            }
            _ => Default::default(),
        };
        LivenessStatus {
            changes: self.watching.changes.load(Ordering::Relaxed),
            peers,
        }
    }

    pub(super) fn peer_liveness(&self, peer: NodeId, now: Instant) -> Option<PeerLiveness> {
        Some(self.watching.lock().as_ref()?.report(peer, now)?.into())
    }

    /// Takes a plaintext of a peer that holds a control packet, after its overlay addresses were checked. A request is
    /// answered by the pair of lanes that it came by.
    pub(crate) fn handle_control(
        &self,
        table: &Forwarding,
        (peer, lane): (&Peer, &Lane),
        plaintext: &[u8],
        now: Instant,
        out: &mut Datagrams,
    ) -> Result<(), Reject> {
        if let PeerKind::Foreign { .. } = peer.kind {
            return Err(Reject::GeneveControl);
        }
        let (_, Body::Whole(data)) = overlay::parse(plaintext)? else {
            return Err(Reject::GeneveControl);
        };
        let geneve = overlay::parse_udp(&plaintext[Range::from(data)])?;
        let probe = probe::parse(geneve, table.vni, peer.id.cluster)?;
        match probe.reply() {
            Some(reply) => {
                self.send_probe(table, (peer, lane), reply, now, out);
                Ok(())
            }
            None => match self.watching.lock().as_mut() {
                Some(watch) => watch.handle_reply(peer.id, probe, now),
                None => Err(Reject::ProbeStale),
            },
        }
    }

    fn send_probe(
        &self,
        table: &Forwarding,
        (peer, lane): (&Peer, &Lane),
        probe: Probe,
        now: Instant,
        out: &mut Datagrams,
    ) {
        let mut plaintexts = Batch::default();
        // Without a session there is nothing to send: that one is wanted is enough. Probes that waited would say
        // something about the past.
        if lane.is_proven() {
            let ends = Ends {
                source: table.overlay,
                destination: peer.overlay,
            };
            let plaintext = probe::encode(ends, table.vni, table.node.cluster, probe);
            plaintexts.push(&plaintext, ());
        }
        let sealed = lane.send(&plaintexts, now, self.drops(), out);
        // What waited was sealed before it.
        if sealed
            && self.capture().is_on()
            && let Some((plaintext, ())) = plaintexts.iter().next()
            && let Some((message, _)) = out.iter().last()
        {
            self.capture_plaintext(Direction::Sent, peer, message, plaintext);
        }
    }
}
