//! The data plane of a node, without a clock, a socket or a device of its own.
//!
//! Frames and datagrams come in with `now`; frames, datagrams and counts come out. The threads that
//! call it share it: [`Device::handle_frame`] and [`Device::flush`] (outbound.rs) from the TAP's
//! thread, [`Device::handle_datagrams`] (inbound.rs) from the UDP socket's, [`Device::handle_timeout`]
//! from a timer, [`Device::apply`] from control. None of them waits for another longer than a lane
//! takes for one batch.

use crate::batch::Datagrams;
use crate::capture::Capture;
use crate::cookie::Cookies;
use crate::forwarding::Forwarding;
use crate::handover::Inheritance;
use crate::handshake_limit::HandshakeLimits;
use crate::inbound::Inbound;
use crate::key::{PrivateKey, PublicKey};
use crate::lane::{Lane, LaneKeys};
use crate::node::NodeId;
use crate::outbound::Outbound;
use crate::reject::{Drops, Reject};
use crate::state::Checked;
use crate::status::{Counters, LaneStatus, PeerStatus};
use crate::wireguard::{Mac1, Message};
use arc_swap::ArcSwapOption;
use blake2::{Blake2s256, Digest as _};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often [`Device::handle_timeout`] wants to be called: WireGuard's timers count in seconds, its
/// retransmissions have a jitter of 333 ms.
pub const TICK: Duration = Duration::from_millis(100);

/// With so many lanes at most, new ones begin at once: a peer that only sends learns so of a node that
/// lost its sessions. With more, each waits for its first packet, and nobody is met by thousands.
const EAGER: usize = 256;

/// The data plane of a node.
#[derive(Debug)]
pub struct Device {
    private: Arc<PrivateKey>,
    public: PublicKey,
    table: ArcSwapOption<Forwarding>,
    control: Mutex<Control>,
    mac1: Mac1,
    limits: Mutex<HandshakeLimits>,
    cookies: Mutex<Cookies>,
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
}

#[derive(Debug, Default)]
struct Totals {
    tx_packets: AtomicU64,
    tx_bytes: AtomicU64,
    rx_packets: AtomicU64,
    rx_bytes: AtomicU64,
}

impl Device {
    /// A data plane without a state. `seed` is 32 random bytes: session indices come from it.
    pub fn new(private: PrivateKey, seed: [u8; 32]) -> Self {
        let public = private.public();
        Self {
            public,
            table: ArcSwapOption::empty(),
            control: Mutex::new(Control {
                seed,
                indices: 0,
                inheritance: Inheritance::default(),
            }),
            mac1: Mac1::new(&public),
            limits: Mutex::new(HandshakeLimits::default()),
            cookies: Mutex::new(Cookies::new(&public)),
            drops: Drops::default(),
            capture: Capture::default(),
            totals: Totals::default(),
            private: Arc::new(private),
        }
    }

    /// This node's key.
    pub fn public_key(&self) -> PublicKey {
        self.public
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

    /// Puts a state in force. Lanes that it keeps keep their sessions; new ones of a small mesh start
    /// a handshake, whose messages are left in `out`.
    pub fn apply(&self, state: Checked, now: Instant, out: &mut Datagrams) {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.table();
        let mut indices: BTreeSet<u32> = lanes(old.as_deref()).map(|lane| lane.index()).collect();
        indices.extend(&control.inheritance.indices);
        let mut fresh = Vec::new();
        let table = Forwarding::new(state, &mut |peer, desired| {
            let kept = old.as_deref().and_then(|old| {
                let (_, lane) = old.lane_by_key(&desired.public_key)?;
                lane.serves(peer, desired).then(|| Arc::clone(lane))
            });
            if let Some(lane) = kept {
                let before = old
                    .as_deref()
                    .and_then(|old| desired_endpoint(old, peer, &desired.public_key));
                if before != desired.endpoint {
                    lane.set_endpoint(desired.endpoint);
                }
                return lane;
            }
            let index = control.index(&mut indices);
            let keys = LaneKeys {
                private: &self.private,
                index,
            };
            let lane = Arc::new(Lane::new(peer, desired, &keys));
            // What is heard counts until the first state of our own; later ones know better.
            let heard = control.inheritance.in_use.get(&desired.public_key);
            if let (None, Some(&heard)) = (&old, heard) {
                lane.set_endpoint(Some(heard));
            }
            fresh.push(Arc::clone(&lane));
            lane
        });
        let removed: Vec<_> = lanes(old.as_deref())
            .filter(|lane| {
                let kept = table.lane_by_key(&lane.public_key());
                !kept.is_some_and(|(_, kept)| Arc::ptr_eq(kept, lane))
            })
            .cloned()
            .collect();
        let table = Arc::new(table);
        self.table.store(Some(Arc::clone(&table)));
        for lane in removed {
            let waited = lane.close();
            match table.peer(lane.peer()) {
                // A new key of the same peer: its lane takes over what waited for the old one.
                Some(peer) if !waited.is_empty() => {
                    peer.lane(0).send(&waited, now, &self.drops, out);
                }
                Some(_) => {}
                None => self.drops.add(Reject::PeerRemoved, waited.len() as u64),
            }
        }
        drop(control);
        if lanes(self.table().as_deref()).take(EAGER + 1).count() <= EAGER {
            fresh.iter().for_each(|lane| lane.initiate(now, out));
        }
    }

    /// Starts a new handshake at once with one peer, or with all. The sessions in use go on until
    /// the new ones are proven. Returns how many lanes that are.
    pub fn rekey(&self, peer: Option<NodeId>, now: Instant, out: &mut Datagrams) -> usize {
        let table = self.table();
        lanes(table.as_deref())
            .filter(|lane| peer.is_none_or(|peer| lane.peer() == peer))
            .map(|lane| lane.initiate(now, out))
            .count()
    }

    /// Shows every peer with a session from where this node sends now: its own addresses changed,
    /// and peers that only send would go on to the old one.
    pub fn announce(&self, now: Instant, out: &mut Datagrams) {
        let table = self.table();
        lanes(table.as_deref()).for_each(|lane| lane.announce(now, out));
    }

    /// What a successor has to know of the lanes.
    pub fn inheritance(&self, now: Instant) -> Inheritance {
        let table = self.table();
        let in_use =
            lanes(table.as_deref()).filter_map(|lane| Some((lane.public_key(), lane.in_use(now)?)));
        Inheritance {
            in_use: in_use.collect(),
            indices: lanes(table.as_deref()).map(|lane| lane.index()).collect(),
        }
    }

    /// Takes over from another data plane of this node; before the first [`Self::apply`].
    pub fn inherit(&self, inheritance: Inheritance) {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        control.inheritance = inheritance;
    }

    /// Whether the data plane that this one takes over from had peers.
    pub fn has_inherited_lanes(&self) -> bool {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        !control.inheritance.indices.is_empty()
    }

    /// Lanes that had a session when this data plane took over, and have none here yet. With `press`
    /// they try again now: a message may be lost, and there is no time for WireGuard's own pace.
    pub fn missing(&self, press: bool, now: Instant, out: &mut Datagrams) -> usize {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.table();
        let lane_of = |key| table.as_ref()?.lane_by_key(key).map(|(_, lane)| lane);
        let inherited = control.inheritance.in_use.keys().filter_map(lane_of);
        inherited
            .filter(|lane| lane.in_use(now).is_none())
            .inspect(|lane| {
                if press {
                    lane.initiate(now, out);
                }
            })
            .count()
    }

    /// Starts new handshakes on the lanes that have a session.
    pub fn rekey_in_use(&self, now: Instant, out: &mut Datagrams) {
        let table = self.table();
        lanes(table.as_deref())
            .filter(|lane| lane.in_use(now).is_some())
            .for_each(|lane| lane.initiate(now, out));
    }

    /// Whether a datagram is this data plane's affair while another takes over: it belongs to one of
    /// its sessions, or is of no use to anybody. Handshakes and answers to them are not: a session
    /// that is made now would end with this process.
    pub fn keeps(&self, datagram: &[u8]) -> bool {
        match Message::parse(datagram) {
            Ok(Message::Data { receiver }) => self
                .table()
                .is_some_and(|table| table.lane_by_index(receiver).is_some()),
            Ok(Message::Initiation | Message::Response { .. }) => !self.mac1.verify(datagram),
            Ok(Message::Cookie { .. }) => false,
            Err(_) => true,
        }
    }

    /// Counts what waits for handshakes that will not come any more.
    pub fn give_up_waiting(&self) {
        let table = self.table();
        for lane in lanes(table.as_deref()) {
            self.drops
                .add(Reject::QueueExpired, lane.close().len() as u64);
        }
    }

    /// Goes on counting where another data plane stopped.
    pub fn add_counters(&self, counters: &Counters) {
        let add = |total: &AtomicU64, count: u64| total.fetch_add(count, Ordering::Relaxed);
        add(&self.totals.tx_packets, counters.tx_packets);
        add(&self.totals.tx_bytes, counters.tx_bytes);
        add(&self.totals.rx_packets, counters.rx_packets);
        add(&self.totals.rx_bytes, counters.rx_bytes);
        for &reason in Reject::ALL {
            let count = counters.drops.get(reason.name()).copied();
            self.drops.add(reason, count.unwrap_or_default());
        }
    }

    /// Advances all timers; messages that are due are left in `out`.
    pub fn handle_timeout(&self, now: Instant, out: &mut Datagrams) {
        let table = self.table();
        lanes(table.as_deref()).for_each(|lane| lane.handle_timeout(now, &self.drops, out));
    }

    /// Whether an initiation whose first MAC is right may be looked at.
    ///
    /// Its source is not proven, so a source that has used up its share is not refused: it is asked
    /// for a cookie, or somebody could use up another's share in its name. Who comes with the cookie
    /// has a share of its own.
    fn admit(
        &self,
        message: &[u8],
        from: SocketAddr,
        now: Instant,
        out: &mut Datagrams,
    ) -> Result<(), Reject> {
        let Some(refusal) = self.limits().claimed(from.ip(), now) else {
            return Ok(());
        };
        let mut cookies = self.cookies.lock().unwrap_or_else(PoisonError::into_inner);
        if cookies.verify(message, from, now) {
            return match self.limits().proven(from.ip(), now) {
                true => Ok(()),
                false => Err(Reject::WgSourceLimit),
            };
        }
        // Without random bytes nobody is given a cookie that could be guessed.
        let random = crate::io::clock::random().ok();
        let reply = random.and_then(|random| cookies.reply(message, from, now, random));
        if let Some(reply) = reply {
            out.push(&reply, from);
        }
        Err(refusal)
    }

    fn limits(&self) -> MutexGuard<'_, HandshakeLimits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn handle_handshake(
        &self,
        table: &Forwarding,
        kind: Message,
        message: &[u8],
        from: SocketAddr,
        now: Instant,
        out: &mut Datagrams,
    ) -> Result<(), Reject> {
        let lane_of = |receiver| table.lane_by_index(receiver).map(|(_, lane)| lane);
        let lane = match kind {
            Message::Initiation => {
                self.verify_mac1(message)?;
                self.admit(message, from, now, out)?;
                let key = crate::engine::initiator(&self.private, &self.public, message)?;
                &table.lane_by_key(&key).ok_or(Reject::WgUnknownPeer)?.1
            }
            // An answer names an index that only our initiation carried: whoever does not know one
            // is done with before any limit, and uses up nobody's share.
            Message::Response { receiver } => {
                let lane = lane_of(receiver).ok_or(Reject::WgUnknownIndex)?;
                self.verify_mac1(message)?;
                lane
            }
            Message::Cookie { receiver } => lane_of(receiver).ok_or(Reject::WgUnknownIndex)?,
            Message::Data { .. } => return Err(Reject::WgMalformed),
        };
        lane.handle_handshake(message, from, now, out)
    }

    fn verify_mac1(&self, message: &[u8]) -> Result<(), Reject> {
        if self.mac1.verify(message) {
            Ok(())
        } else {
            Err(Reject::WgMac1)
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
                lanes: peer
                    .lanes
                    .iter()
                    .map(|lane| lane_status(lane, now))
                    .collect(),
            })
            .collect()
    }
}

fn lanes(table: Option<&Forwarding>) -> impl Iterator<Item = &Arc<Lane>> {
    table
        .into_iter()
        .flat_map(Forwarding::peers)
        .flat_map(|peer| &peer.lanes)
}

fn desired_endpoint(table: &Forwarding, peer: NodeId, key: &PublicKey) -> Option<SocketAddr> {
    table
        .state
        .peers
        .get(&peer)?
        .lanes
        .iter()
        .find(|lane| lane.public_key == *key)?
        .endpoint
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
