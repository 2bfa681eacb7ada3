//! The data plane of a node, without a clock, a socket or a device of its own.
//!
//! Frames and datagrams come in with `now`; frames, datagrams and counts come out. The threads that
//! call it share it: [`Device::handle_frame`] and [`Device::flush`] (outbound.rs) from the TAP's
//! thread, [`Device::handle_datagrams`] (inbound.rs) from the UDP socket's, [`Device::handle_timeout`]
//! from a timer, [`Device::handle_watch_timeout`] (device/watching.rs) from the thread that watches peers,
//! [`Device::apply`] from control. None of them waits for another longer than a lane
//! takes for one batch.

use crate::capture::Capture;
use crate::forwarding::Forwarding;
use crate::handover::Inheritance;
use crate::handshake_limit::HandshakeLimits;
use crate::inbound::Inbound;
use crate::key::{OwnKeys, PrivateKey, PublicKey};
use crate::lane::{Lane, LaneNumber};
use crate::node::NodeId;
use crate::outbound::Outbound;
use crate::outgoing::ByLane;
use crate::reject::Drops;
use crate::status::{Counters, LaneStatus, PeerStatus};
use arc_swap::ArcSwapOption;
use blake2::{Blake2s256, Digest as _};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

mod handshakes;
mod key_change;
mod own_lane;
mod renewal;
mod takeover;
mod watching;
pub use key_change::{KeyChangeError, OLD_KEY};
use own_lane::OwnLane;
pub use own_lane::Waker;
use watching::Watching;

/// How often [`Device::handle_timeout`] wants to be called: WireGuard's timers count in seconds, its
/// retransmissions have a jitter of 333 ms.
pub const TICK: Duration = Duration::from_millis(100);

/// The data plane of a node.
#[derive(Debug)]
pub struct Device {
    /// By the number of the lane; never empty.
    own: Vec<OwnLane>,
    table: ArcSwapOption<Forwarding>,
    control: Mutex<Control>,
    limits: Mutex<HandshakeLimits>,
    /// Who is told that a lane's thread has to send what waited; without it, whoever finds a session does.
    waker: OnceLock<Waker>,
    watching: Watching,
    drops: Drops,
    capture: Capture,
    totals: Totals,
}

/// What only a change of state touches.
#[derive(Debug)]
struct Control {
    seed: [u8; 32],
    indices: u64,
    inheritance: Inheritance,
    /// Since when keys of this node's own have been changing.
    changing: Option<Instant>,
}

#[derive(Debug, Default)]
struct Totals {
    tx_packets: AtomicU64,
    tx_bytes: AtomicU64,
    rx_packets: AtomicU64,
    rx_bytes: AtomicU64,
}

impl Device {
    /// A data plane with one lane and without a state. `seed` is 32 random bytes: session indices come from it.
    pub fn new(private: PrivateKey, seed: [u8; 32]) -> Self {
        Self::with_lanes(vec![private], seed)
    }

    /// The same with a lane for each key, of which [`LaneNumber::MAX`] count.
    ///
    /// # Panics
    /// Without a key.
    pub fn with_lanes(keys: Vec<PrivateKey>, seed: [u8; 32]) -> Self {
        Self::with_keys(keys.into_iter().map(OwnKeys::from).collect(), seed)
    }

    /// The same where a change of keys may be going on.
    ///
    /// # Panics
    /// Without a key.
    pub fn with_keys(keys: Vec<OwnKeys>, seed: [u8; 32]) -> Self {
        assert!(!keys.is_empty(), "a node has one lane at least");
        let keys = keys.into_iter().take(LaneNumber::MAX.into());
        Self {
            own: keys.map(OwnLane::new).collect(),
            table: ArcSwapOption::empty(),
            control: Mutex::new(Control {
                seed,
                indices: 0,
                inheritance: Inheritance::default(),
                changing: None,
            }),
            limits: Mutex::new(HandshakeLimits::default()),
            waker: OnceLock::new(),
            watching: Watching::default(),
            drops: Drops::default(),
            capture: Capture::default(),
            totals: Totals::default(),
        }
    }

    /// The key of this node's first lane.
    pub fn public_key(&self) -> PublicKey {
        self.own[0].keys().newest.public
    }

    /// The keys of all its lanes: the newest, which peers shall know.
    pub fn public_keys(&self) -> impl Iterator<Item = PublicKey> {
        self.own.iter().map(|own| own.keys().newest.public)
    }

    fn own(&self, lane: LaneNumber) -> &OwnLane {
        // Whoever has more numbers than there are lanes speaks for the first.
        self.own.get(lane.index()).unwrap_or(&self.own[0])
    }

    /// Drops by reason.
    pub fn drops(&self) -> &Drops {
        &self.drops
    }

    /// Who looks into the tunnel.
    pub fn capture(&self) -> &Capture {
        &self.capture
    }

    /// The table in force.
    pub fn table(&self) -> Option<Arc<Forwarding>> {
        self.table.load_full()
    }

    /// Starts a new handshake at once with one peer, or with all. The sessions in use go on until
    /// the new ones are proven. Returns how many lanes that are.
    pub fn rekey(&self, peer: Option<NodeId>, now: Instant, out: &mut impl ByLane) -> usize {
        let table = self.table();
        let peers = table.iter().flat_map(|table| table.peers());
        let mut count = 0;
        for peer in peers.filter(|one| peer.is_none_or(|peer| one.id == peer)) {
            for (at, lane) in peer.lanes.iter().enumerate() {
                // Those that were never used wait for their first packet.
                if at == 0 || lane.is_alive(now) {
                    lane.initiate(now, out.of(lane.own()));
                    count += 1;
                }
            }
        }
        count
    }

    /// Shows every peer with a session from where this node sends now: its own addresses changed,
    /// and peers that only send would go on to the old one.
    pub fn announce(&self, now: Instant, out: &mut impl ByLane) {
        let table = self.table();
        lanes(table.as_deref()).for_each(|lane| lane.announce(now, out.of(lane.own())));
    }

    /// Advances all timers; messages that are due are left in `out`.
    pub fn handle_timeout(&self, now: Instant, out: &mut impl ByLane) {
        let Some(table) = self.table() else {
            return;
        };
        let is_small = table.state.peers.len() <= renewal::EAGER;
        for peer in table.peers() {
            for lane in peer.all_lanes() {
                lane.handle_timeout(now, &self.drops, out.of(lane.own()));
                self.note_released(lane);
                self.send_instead(peer, lane, now, out);
            }
            for lane in &peer.older {
                self.retire(peer, lane, now, out);
                self.look_for_heir(peer, lane, is_small, now, out);
            }
        }
    }

    /// Adds what a batch did to the totals.
    pub fn count(&self, outbound: Option<&mut Outbound>, inbound: Option<&mut Inbound>) {
        let add = |total: &AtomicU64, count: u64| total.fetch_add(count, Ordering::Relaxed);
        if let Some((packets, bytes)) = outbound.map(Outbound::take_counts) {
            add(&self.totals.tx_packets, packets);
            add(&self.totals.tx_bytes, bytes);
        }
        if let Some((packets, bytes)) = inbound.map(Inbound::take_counts) {
            add(&self.totals.rx_packets, packets);
            add(&self.totals.rx_bytes, bytes);
        }
    }

    /// Packets, bytes and drops so far. The guard's part is not known here.
    pub fn counters(&self) -> Counters {
        let of = |total: &AtomicU64| total.load(Ordering::Relaxed);
        Counters {
            tx_packets: of(&self.totals.tx_packets),
            rx_packets: of(&self.totals.rx_packets),
            tx_bytes: of(&self.totals.tx_bytes),
            rx_bytes: of(&self.totals.rx_bytes),
            drops: self.drops.by_name(),
            guard: BTreeMap::new(),
        }
    }

    /// The peers as an operator sees them.
    pub fn peer_status(&self, now: Instant) -> Vec<PeerStatus> {
        let table = self.table();
        let peers = table.iter().flat_map(|table| table.peers());
        peers
            .map(|peer| PeerStatus {
                id: peer.id,
                name: peer.name.clone(),
                foreign: matches!(peer.kind, crate::state::PeerKind::Foreign { .. }),
                pod_mtu: peer.pod_mtu(peer.lanes.first().map(|lane| lane.family())),
                liveness: self.peer_liveness(peer.id, now),
                lanes: peer
                    .lanes
                    .iter()
                    .map(|lane| lane_status(lane, now))
                    .collect(),
            })
            .collect()
    }
}

impl Device {
    /// The peers with a lane that has a session or wants one. Asks no lane for its lock.
    pub fn in_demand(&self) -> Vec<NodeId> {
        let table = self.table();
        let peers = table.iter().flat_map(|table| table.peers());
        let awake = peers.filter(|peer| peer.all_lanes().any(|lane| lane.is_awake()));
        awake.map(|peer| peer.id).collect()
    }
}

fn lanes(table: Option<&Forwarding>) -> impl Iterator<Item = &Arc<Lane>> {
    table.into_iter().flat_map(Forwarding::lanes)
}

fn lane_status(lane: &Lane, now: Instant) -> LaneStatus {
    let snapshot = lane.snapshot(now);
    let milliseconds = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    LaneStatus {
        public_key: lane.public_key().to_string(),
        endpoint: snapshot.endpoint,
        handshake_age_ms: snapshot.handshake_age.map(milliseconds),
        handshakes: snapshot.totals.handshakes,
        tx_bytes: snapshot.totals.tx_bytes,
        rx_bytes: snapshot.totals.rx_bytes,
        tx_packets: snapshot.totals.tx_packets,
        rx_packets: snapshot.totals.rx_packets,
        preshared_key: lane.has_preshared_key(),
    }
}

impl Control {
    /// What cookies of probes come from. They are on the wire, so it tells nothing of the seed.
    fn watch_seed(&self) -> u64 {
        let hash = Blake2s256::new()
            .chain_update(self.seed)
            .chain_update("watch")
            .finalize();
        hash.first_chunk().copied().map_or(0, u64::from_be_bytes)
    }

    /// A session index nobody else has: 24 bits that tell an observer nothing.
    fn index(&mut self, taken: &mut BTreeSet<u32>) -> u32 {
        loop {
            let hash = Blake2s256::new()
                .chain_update(self.seed)
                .chain_update(self.indices.to_le_bytes())
                .finalize();
            self.indices += 1;
            let index = u32::from_be_bytes([0, hash[0], hash[1], hash[2]]);
            if taken.insert(index) {
                return index;
            }
        }
    }
}
