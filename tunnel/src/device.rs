//! The data plane of a node, without a clock, a socket or a device of its own.
//!
//! Frames and datagrams come in with `now`; frames, datagrams and counts come out. The threads that
//! call it share it: [`Device::handle_frame`] and [`Device::flush`] (outbound.rs) from the TAP's
//! thread, [`Device::handle_datagrams`] (inbound.rs) from the UDP socket's, [`Device::handle_timeout`]
//! from a timer, [`Device::handle_watch_timeout`] (device/watching.rs) from the thread that watches peers,
//! [`Device::apply`] from control. None of them waits for another longer than a lane
//! takes for one batch.

use crate::batch::{ByLane, Datagrams};
use crate::capture::Capture;
use crate::cookie::Cookies;
use crate::forwarding::{Forwarding, Pairs, Peer};
use crate::handover::{InUse, Inheritance};
use crate::handshake_limit::HandshakeLimits;
use crate::inbound::Inbound;
use crate::key::{PrivateKey, PublicKey};
use crate::lane::{Lane, LaneKeys, LaneNumber};
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
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

mod watching;
use watching::Watching;

/// How often [`Device::handle_timeout`] wants to be called: WireGuard's timers count in seconds, its
/// retransmissions have a jitter of 333 ms.
pub const TICK: Duration = Duration::from_millis(100);

/// With so many peers at most all are greeted when they become known; beyond, by the first packet for them.
const EAGER: usize = 1_000;

/// A pair is ended when the one that takes its place has carried packets for so long: none is under way by the old one any
/// more.
const GRACE: Duration = Duration::from_secs(10);

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

/// One of this node's lanes: its key, and what only depends on that.
#[derive(Debug)]
struct OwnLane {
    private: Arc<PrivateKey>,
    public: PublicKey,
    mac1: Mac1,
    cookies: Mutex<Cookies>,
    /// Pairs that a session came for while packets waited.
    released: Mutex<Vec<Arc<Lane>>>,
    has_released: AtomicBool,
}

impl OwnLane {
    fn new(private: PrivateKey) -> Self {
        let public = private.public();
        Self {
            mac1: Mac1::new(&public),
            cookies: Mutex::new(Cookies::new(&public)),
            released: Mutex::default(),
            has_released: AtomicBool::new(false),
            public,
            private: Arc::new(private),
        }
    }
}

/// Wakes the sending thread of a lane.
pub struct Waker(Box<dyn Fn(LaneNumber) + Send + Sync>);

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waker")
    }
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
    /// A data plane with one lane and without a state. `seed` is 32 random bytes: session indices come from it.
    pub fn new(private: PrivateKey, seed: [u8; 32]) -> Self {
        Self::with_lanes(vec![private], seed)
    }

    /// The same with a lane for each key, of which [`LaneNumber::MAX`] count.
    ///
    /// # Panics
    /// Without a key.
    pub fn with_lanes(keys: Vec<PrivateKey>, seed: [u8; 32]) -> Self {
        assert!(!keys.is_empty(), "a node has one lane at least");
        let keys = keys.into_iter().take(LaneNumber::MAX.into());
        Self {
            own: keys.map(OwnLane::new).collect(),
            table: ArcSwapOption::empty(),
            control: Mutex::new(Control {
                seed,
                indices: 0,
                inheritance: Inheritance::default(),
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
        self.own[0].public
    }

    /// The keys of all its lanes.
    pub fn public_keys(&self) -> impl Iterator<Item = PublicKey> {
        self.own.iter().map(|own| own.public)
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

    /// Puts a state in force. Pairs of lanes that it keeps keep their sessions; those that another key takes the place of
    /// carry packets until the new ones are proven. Handshakes that start are left in `out`.
    pub fn apply(&self, state: Checked, now: Instant, out: &mut impl ByLane) {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.table();
        let mut indices: BTreeSet<u32> = lanes(old.as_deref()).map(|lane| lane.index()).collect();
        indices.extend(&control.inheritance.indices);
        let mut renewal = Renewal {
            device: self,
            control: &mut control,
            old: old.as_deref(),
            indices,
            is_small: state.peers.len() <= EAGER,
            are_few: state.peers.len() * self.own.len() <= EAGER,
            fresh: Vec::new(),
            now,
        };
        let table = Forwarding::new(state, self.own.len(), &mut renewal);
        let fresh = renewal.fresh;
        let removed: Vec<_> = lanes(old.as_deref())
            .filter(|lane| {
                let kept = table.lanes_by_key(lane.own(), &lane.public_key());
                !kept.iter().any(|kept| Arc::ptr_eq(kept, lane))
            })
            .cloned()
            .collect();
        let table = Arc::new(table);
        self.table.store(Some(Arc::clone(&table)));
        self.set_watched(&table, control.watch_seed(), now);
        for lane in removed {
            let waited = lane.close();
            match table.peer(lane.peer()) {
                // A new key of the same peer: its lane takes over what waited for the old one.
                Some(peer) if !waited.is_empty() => {
                    let heir = peer.lane(lane.own(), 0);
                    heir.send(&waited, now, &self.drops, out.of(heir.own()));
                }
                Some(_) => {}
                None => self.drops.add(Reject::PeerRemoved, waited.len() as u64),
            }
        }
        drop(control);
        for lane in &fresh {
            lane.initiate(now, out.of(lane.own()));
        }
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

    /// What a successor has to know of the lanes.
    pub fn inheritance(&self, now: Instant) -> Inheritance {
        let table = self.table();
        let in_use = lanes(table.as_deref()).filter_map(|lane| {
            Some(InUse {
                own: lane.own(),
                public_key: lane.public_key(),
                endpoint: lane.in_use(now)?,
            })
        });
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
    pub fn missing(&self, press: bool, now: Instant, out: &mut impl ByLane) -> usize {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(table) = self.table() else {
            return 0;
        };
        let mut count = 0;
        for in_use in &control.inheritance.in_use {
            let lanes = table.lanes_by_key(in_use.own, &in_use.public_key);
            if let Some(lane) = lanes.first()
                && lane.in_use(now).is_none()
            {
                count += 1;
                if press {
                    lane.initiate(now, out.of(lane.own()));
                }
            }
        }
        count
    }

    /// Starts new handshakes on the lanes that have a session.
    pub fn rekey_in_use(&self, now: Instant, out: &mut impl ByLane) {
        let table = self.table();
        lanes(table.as_deref())
            .filter(|lane| lane.in_use(now).is_some())
            .for_each(|lane| lane.initiate(now, out.of(lane.own())));
    }

    /// Whether a datagram that came to lane `own` is this data plane's affair while another takes over: it belongs to one
    /// of its sessions, or is of no use to anybody. Handshakes and answers to them are not: a session
    /// that is made now would end with this process.
    pub fn keeps(&self, own: LaneNumber, datagram: &[u8]) -> bool {
        match Message::parse(datagram) {
            Ok(Message::Data { receiver }) => self
                .table()
                .is_some_and(|table| table.lane_by_index(receiver).is_some()),
            Ok(Message::Initiation | Message::Response { .. }) => {
                !self.own(own).mac1.verify(datagram)
            }
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
    pub fn handle_timeout(&self, now: Instant, out: &mut impl ByLane) {
        let Some(table) = self.table() else {
            return;
        };
        for peer in table.peers() {
            for lane in peer.all_lanes() {
                lane.handle_timeout(now, &self.drops, out.of(lane.own()));
                self.note_released(lane);
                self.send_instead(peer, lane, now, out);
            }
            for lane in &peer.older {
                self.retire(peer, lane, now, out);
            }
        }
    }

    /// What waits for a pair that nobody answers on goes by another that works.
    fn send_instead(&self, peer: &Peer, lane: &Arc<Lane>, now: Instant, out: &mut impl ByLane) {
        if !lane.is_silent() {
            return;
        }
        let other = peer.lane(lane.own(), 0);
        if other.is_proven() && !Arc::ptr_eq(other, lane) {
            let waited = lane.take_waiting();
            if !waited.is_empty() {
                other.send(&waited, now, &self.drops, out.of(other.own()));
            }
        }
    }

    /// Ends a pair whose place another has taken: once that one has carried packets for long enough that none is under way
    /// by the old one any more, or when the old one has no session left.
    fn retire(&self, peer: &Peer, lane: &Lane, now: Instant, out: &mut impl ByLane) {
        let mut heirs = peer.lanes.iter().filter(|heir| heir.own() == lane.own());
        let is_replaced = heirs.any(|heir| {
            let age = heir.snapshot(now).handshake_age;
            age.is_some_and(|age| age >= GRACE)
        });
        if !is_replaced && lane.is_alive(now) {
            return;
        }
        let waited = lane.close();
        if !waited.is_empty() {
            let heir = peer.lane(lane.own(), 0);
            heir.send(&waited, now, &self.drops, out.of(heir.own()));
        }
    }

    /// Whether an initiation whose first MAC is right may be looked at.
    ///
    /// Its source is not proven, so a source that has used up its share is not refused: it is asked
    /// for a cookie, or somebody could use up another's share in its name. Who comes with the cookie
    /// has a share of its own.
    fn admit(
        &self,
        own: &OwnLane,
        message: &[u8],
        from: SocketAddr,
        now: Instant,
        out: &mut Datagrams,
    ) -> Result<(), Reject> {
        let Some(refusal) = self.limits().claimed(from.ip(), now) else {
            return Ok(());
        };
        let mut cookies = own.cookies.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Has `wake` called for a lane when there is a session for packets that waited: its sending thread then calls
    /// [`Self::send_released`]. Without this, whoever finds the session leaves them in its own output, which is in order
    /// where one thread does everything. To be called once, before the first [`Self::apply`].
    pub fn wake_by(&self, wake: impl Fn(LaneNumber) + Send + Sync + 'static) {
        // The first one stays.
        let _ = self.waker.set(Waker(Box::new(wake)));
    }

    /// Notices that a session came for what waited on a lane.
    pub(crate) fn note_released(&self, lane: &Arc<Lane>) {
        if !lane.is_released() {
            return;
        }
        if let Some(Waker(wake)) = self.waker.get() {
            let own = self.own(lane.own());
            let mut released = own.released.lock().unwrap_or_else(PoisonError::into_inner);
            released.push(Arc::clone(lane));
            own.has_released.store(true, Ordering::Release);
            wake(lane.own());
        }
    }

    /// Seals what waited for sessions that have come since, in the thread that sends over lane `own`.
    pub fn send_released(&self, own: LaneNumber, now: Instant, out: &mut impl ByLane) {
        let own = self.own(own);
        if !own.has_released.load(Ordering::Acquire) {
            return;
        }
        let mut released = own.released.lock().unwrap_or_else(PoisonError::into_inner);
        own.has_released.store(false, Ordering::Release);
        for lane in released.drain(..) {
            lane.send_released(now, out.of(lane.own()));
        }
    }

    /// Takes a handshake message that came to our lane `own`.
    pub(crate) fn handle_handshake(
        &self,
        table: &Forwarding,
        own: LaneNumber,
        message: &[u8],
        from: SocketAddr,
        now: Instant,
        out: &mut impl ByLane,
    ) -> Result<(), Reject> {
        let lane_of = |receiver| table.lane_by_index(receiver).map(|(_, lane)| lane);
        let number = own;
        let own = self.own(number);
        let lane = match Message::parse(message)? {
            Message::Initiation => {
                verify_mac1(&own.mac1, message)?;
                self.admit(own, message, from, now, out.of(number))?;
                let key = crate::engine::initiator(&own.private, &own.public, message)?;
                let lanes = table.lanes_by_key(number, &key);
                let done = answer(lanes, message, from, now, out);
                lanes.iter().for_each(|lane| self.note_released(lane));
                return done;
            }
            // An answer names an index that only our initiation carried: whoever does not know one
            // is done with before any limit, and uses up nobody's share.
            Message::Response { receiver } => {
                let lane = lane_of(receiver).ok_or(Reject::WgUnknownIndex)?;
                verify_mac1(&self.own(lane.own()).mac1, message)?;
                lane
            }
            Message::Cookie { receiver } => lane_of(receiver).ok_or(Reject::WgUnknownIndex)?,
            Message::Data { .. } => return Err(Reject::WgMalformed),
        };
        let done = lane.handle_handshake(message, from, now, out.of(lane.own()));
        self.note_released(lane);
        done
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

/// Answers an initiation for every pair that it may be for. It does not tell which pre-shared key its sender has: while one
/// is changed there are two, each side may be late, and the sender takes the answer that is right.
fn answer(
    lanes: &[Arc<Lane>],
    message: &[u8],
    from: SocketAddr,
    now: Instant,
    out: &mut impl ByLane,
) -> Result<(), Reject> {
    let mut outcome = Err(Reject::WgUnknownPeer);
    for lane in lanes {
        let done = lane.handle_handshake(message, from, now, out.of(lane.own()));
        outcome = match outcome {
            Ok(()) => Ok(()),
            Err(_) => done,
        };
    }
    outcome
}

fn verify_mac1(mac1: &Mac1, message: &[u8]) -> Result<(), Reject> {
    match mac1.verify(message) {
        true => Ok(()),
        false => Err(Reject::WgMac1),
    }
}

fn lanes(table: Option<&Forwarding>) -> impl Iterator<Item = &Arc<Lane>> {
    table.into_iter().flat_map(Forwarding::lanes)
}

/// What a new table takes over from the one before, and what it needs anew.
struct Renewal<'a> {
    device: &'a Device,
    control: &'a mut Control,
    old: Option<&'a Forwarding>,
    /// Session indices that are taken.
    indices: BTreeSet<u32>,
    /// There are so few peers that all are greeted at once.
    is_small: bool,
    /// There are so few pairs that all of them are, in the beginning.
    are_few: bool,
    /// Pairs whose handshake starts at once.
    fresh: Vec<Arc<Lane>>,
    now: Instant,
}

impl Pairs for Renewal<'_> {
    fn pair(
        &mut self,
        peer: NodeId,
        own: LaneNumber,
        desired: &crate::state::Lane,
        first: bool,
    ) -> Arc<Lane> {
        let kept = self.old.and_then(|old| {
            let lanes = old.lanes_by_key(own, &desired.public_key);
            lanes.iter().find(|lane| lane.serves(peer, own, desired))
        });
        if let Some(lane) = kept {
            let before = self
                .old
                .and_then(|old| desired_endpoint(old, peer, &desired.public_key));
            if before != desired.endpoint {
                lane.set_endpoint(desired.endpoint);
            }
            return Arc::clone(lane);
        }
        let replaces = self.old.and_then(|old| old.peer(peer)).is_some_and(|peer| {
            let mut lanes = peer.all_lanes().filter(|lane| lane.own() == own);
            lanes.any(|lane| lane.is_alive(self.now))
        });
        let inherited = &self.control.inheritance.in_use;
        // What is heard counts until the first state of our own; later ones know better.
        let heard = inherited.iter().find(|in_use| {
            self.old.is_none() && (in_use.own, in_use.public_key) == (own, desired.public_key)
        });
        let heard = heard.map(|in_use| in_use.endpoint);
        // Nobody knows which pairs were in use before a crash: a peer that only sends goes on to a session that is lost
        // until it hears of another.
        let greets = self.is_small && (first || (self.old.is_none() && self.are_few));
        let eager = replaces || heard.is_some() || greets;
        let keys = LaneKeys {
            own,
            private: &self.device.own(own).private,
            index: self.control.index(&mut self.indices),
            ordered: self.device.waker.get().is_some(),
        };
        let lane = Arc::new(Lane::new(peer, desired, &keys));
        if heard.is_some() {
            lane.set_endpoint(heard);
        }
        if eager {
            self.fresh.push(Arc::clone(&lane));
        }
        lane
    }

    fn older(&mut self, peer: NodeId, lanes: &[Arc<Lane>]) -> Vec<Arc<Lane>> {
        let Some(before) = self.old.and_then(|old| old.peer(peer)) else {
            return Vec::new();
        };
        let is_kept = |lane: &Arc<Lane>| lanes.iter().any(|kept| Arc::ptr_eq(kept, lane));
        let older = before.all_lanes().filter(|lane| !is_kept(lane));
        older
            .filter(|lane| lane.in_use(self.now).is_some())
            .cloned()
            .collect()
    }
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
