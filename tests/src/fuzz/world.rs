//! A data plane in mid-session with two real peers, and what they may say.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hawser_tunnel::batch::{Batch, Datagrams};
use hawser_tunnel::device::Device;
use hawser_tunnel::engine::{BoringtunEngine, Engine as _, Opened};
use hawser_tunnel::guard::Guard;
use hawser_tunnel::identity::Identity;
use hawser_tunnel::inbound::Inbound;
use hawser_tunnel::key::PrivateKey;
use hawser_tunnel::node::NodeId;
use hawser_tunnel::state::{Cluster, Lane, Peer, PeerKind, State};

use super::packet::Ends;

/// How often a world is used again. Sessions are counted on, and they last 180 s by a clock that is not ours.
const USES: u32 = 2_000;
const AGE: Duration = Duration::from_secs(60);

/// Node 2/1 with two peers: 1/1, a node of ours, and 3/1, a stock WireGuard peer on a path of 1,280 bytes. It knows
/// of 1/2 as well, which owns a part of what 1/1 owns and never said where it is.
pub(super) struct World {
    pub(super) device: Device,
    pub(super) native: Speaker,
    pub(super) foreign: Speaker,
    /// The handshake that the device started with 1/1, and that was never answered.
    pub(super) asked: Vec<u8>,
    pub(super) now: Instant,
    born: Instant,
    uses: u32,
}

/// A peer of the device that says what it wants.
pub(super) struct Speaker {
    pub(super) id: NodeId,
    pub(super) engine: BoringtunEngine,
    pub(super) at: SocketAddr,
    /// The initiation of its session.
    pub(super) greeting: Vec<u8>,
}

/// Sources and destinations of packets that come in: honest ones first.
pub(super) const INBOUND: Ends<'_> = Ends {
    v4: (
        &[
            [10, 1, 1, 10],
            [10, 3, 1, 10],
            [10, 1, 2, 10],
            [10, 2, 1, 10],
            [8, 8, 8, 8],
        ],
        &[
            [10, 2, 1, 10],
            [10, 2, 1, 1],
            [10, 2, 2, 1],
            [10, 1, 1, 10],
            [224, 0, 0, 1],
        ],
    ),
    v6: (
        &[
            "fd01:1:1::10",
            "fd01:3:1::10",
            "fd01:1:2::10",
            "fd01:2:1::10",
            "2001:db8::1",
        ],
        &[
            "fd01:2:1::10",
            "fd01:2:1::1",
            "fd01:2:2::1",
            "fd01:1:1::10",
            "ff02::1",
        ],
    ),
};

/// Of packets that go out.
pub(super) const OUTBOUND: Ends<'_> = Ends {
    v4: (
        &[
            [10, 2, 1, 10],
            [10, 2, 1, 1],
            [10, 2, 1, 99],
            [10, 1, 1, 10],
        ],
        &[
            [10, 1, 1, 10],
            [10, 3, 1, 10],
            [10, 1, 2, 10],
            [8, 8, 8, 8],
            [224, 0, 0, 1],
        ],
    ),
    v6: (
        &[
            "fd01:2:1::10",
            "fd01:2:1::1",
            "fd01:2:1::99",
            "fd01:1:1::10",
        ],
        &[
            "fd01:1:1::10",
            "fd01:3:1::10",
            "fd01:1:2::10",
            "2001:db8::1",
            "fe80::1",
        ],
    ),
};

/// Identities that cluster 1 published, and the one that a foreign peer speaks with.
pub(super) const PUBLISHED: [u32; 3] = [1000, 1001, Identity::MAX];
pub(super) const FOREIGN_IDENTITY: u32 = 3000;

pub(super) fn private_key(number: u8) -> PrivateKey {
    PrivateKey::from_random([number; 32])
}

pub(super) fn id(text: &str) -> NodeId {
    text.parse().expect("a node of the world")
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 51820))
}

fn nets<T: FromIterator<ipnet::IpNet>>(texts: &[&str]) -> T {
    texts
        .iter()
        .map(|text| text.parse().expect("a prefix of the world"))
        .collect()
}

fn identities<T: FromIterator<Identity>>(numbers: &[u32]) -> T {
    numbers
        .iter()
        .map(|&number| Identity::new(number).expect("an identity of the world"))
        .collect()
}

fn peer(name: &str, key: u8, kind: PeerKind, prefixes: &[&str]) -> Peer {
    Peer {
        name: name.to_owned(),
        kind,
        prefixes: nets(prefixes),
        lanes: vec![Lane {
            public_key: private_key(key).public(),
            endpoint: (name != "silent").then(|| address(key)),
            preshared_key: None,
        }],
        path_mtu: if kind == PeerKind::Native { 1500 } else { 1280 },
    }
}

/// What node 2/1 is told.
pub(super) fn state() -> State {
    let cluster = |name: &str, prefixes: &[&str], published: &[u32]| Cluster {
        name: name.to_owned(),
        prefixes: nets(prefixes),
        identities: identities(published),
    };
    let own = ["10.2.1.0/24", "fd01:2:1::/64"];
    let foreign = PeerKind::Foreign {
        identity: Identity::new(FOREIGN_IDENTITY).expect("28 bits"),
    };
    let pods = identities::<Vec<_>>(&[2000, 1]);
    let address = |text: &str| text.parse::<IpAddr>().expect("an address of the world");
    State {
        vni: Default::default(),
        node: id("2/1"),
        prefixes: nets(&own),
        endpoints: BTreeMap::from([
            (address("10.2.1.10"), pods[0]),
            (address("10.2.1.1"), pods[1]),
            (address("fd01:2:1::10"), pods[0]),
            (address("fd01:2:1::1"), pods[1]),
        ]),
        clusters: BTreeMap::from([
            (
                id("1/1").cluster,
                cluster("one", &["10.1.0.0/16", "fd01:1::/32"], &PUBLISHED),
            ),
            (
                id("2/1").cluster,
                cluster("two", &["10.2.0.0/16", "fd01:2::/32"], &[2000]),
            ),
            (
                id("3/1").cluster,
                cluster(
                    "three",
                    &["10.3.0.0/16", "fd01:3::/32"],
                    &[FOREIGN_IDENTITY],
                ),
            ),
        ]),
        peers: BTreeMap::from([
            (
                id("1/1"),
                peer(
                    "native",
                    1,
                    PeerKind::Native,
                    &["10.1.0.0/16", "fd01:1:1::/64"],
                ),
            ),
            (
                id("1/2"),
                peer(
                    "silent",
                    4,
                    PeerKind::Native,
                    &["10.1.2.0/24", "fd01:1:2::/64"],
                ),
            ),
            (
                id("3/1"),
                peer("foreign", 3, foreign, &["10.3.1.0/24", "fd01:3:1::/64"]),
            ),
        ]),
        guard: Guard {
            device: "hawser0".to_owned(),
            mesh: nets(&["10.0.0.0/8", "fd01::/16"]),
            local: nets(&own),
            ..Guard::default()
        },
    }
}

/// What node 1/1 is told: it takes what node 2/1 sends.
fn mirrored() -> State {
    let own = ["10.1.0.0/16", "fd01:1:1::/64"];
    let mut state = state();
    state.node = id("1/1");
    state.prefixes = nets(&own);
    state.guard.local = nets(&own);
    state.endpoints.clear();
    state.peers = BTreeMap::from([
        (
            id("1/2"),
            peer(
                "silent",
                4,
                PeerKind::Native,
                &["10.1.2.0/24", "fd01:1:2::/64"],
            ),
        ),
        (
            id("2/1"),
            peer(
                "native",
                2,
                PeerKind::Native,
                &["10.2.1.0/24", "fd01:2:1::/64"],
            ),
        ),
    ]);
    state
}

/// A device with a state, and the first message that it sent.
fn device(key: u8, state: State, now: Instant) -> (Device, Vec<u8>) {
    let device = Device::new(private_key(key), [key; 32], now);
    let checked = state.check().expect("the world keeps every rule");
    let mut out = Datagrams::default();
    device.apply(checked, now, &mut out);
    let asked = out.iter().next().map(|(message, _)| message.to_vec());
    (device, asked.unwrap_or_default())
}

/// Node 1/1's own data plane, without a session: it judges what was sent to it.
pub(super) fn receiver() -> Device {
    device(1, mirrored(), Instant::now()).0
}

impl World {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let (device, asked) = device(2, state(), now);
        let native = Speaker::meet(&device, "1/1", 1, now);
        let foreign = Speaker::meet(&device, "3/1", 3, now);
        Self {
            device,
            native,
            foreign,
            asked,
            now,
            born: now,
            uses: 0,
        }
    }

    /// Runs a target in a world that was used before, for those that leave nothing behind in it but counts.
    pub(super) fn with_used(run: impl FnOnce(&mut Self)) {
        let used = USED.take();
        let mut world = used
            .filter(|world| world.uses < USES && world.born.elapsed() < AGE)
            .unwrap_or_else(Self::new);
        world.uses += 1;
        run(&mut world);
        USED.set(Some(world));
    }
}

thread_local!(static USED: Cell<Option<World>> = const { Cell::new(None) });
thread_local!(static REACHED: RefCell<BTreeMap<String, u64>> = const { RefCell::new(BTreeMap::new()) });

/// Why packets were dropped by the data planes that the targets on this thread made, and how often.
pub(super) fn reached() -> BTreeMap<String, u64> {
    drop(USED.take());
    REACHED.take()
}

impl Drop for World {
    fn drop(&mut self) {
        // At the end of its thread there is nobody left to tell.
        let _ = REACHED.try_with(|reached| {
            for (reason, count) in self.device.drops().by_name() {
                *reached.borrow_mut().entry(reason).or_default() += count;
            }
        });
    }
}

impl Speaker {
    fn meet(device: &Device, name: &str, key: u8, now: Instant) -> Self {
        let own = private_key(key);
        let unlimited = BoringtunEngine::unlimited(&own.public());
        let peer = private_key(2).public();
        let mut speaker = Self {
            id: id(name),
            engine: BoringtunEngine::new(
                &own,
                &peer,
                None,
                0x00ab_cd00 | u32::from(key),
                unlimited,
                now,
            ),
            at: address(key),
            greeting: Vec::new(),
        };
        let mut inbound = Inbound::default();
        let mut message = Vec::new();
        assert!(speaker.engine.initiate(false, now, &mut message));
        speaker.tell(device, &mut inbound, &message, now);
        speaker.greeting.clone_from(&message);
        let (reply, _) = inbound.datagrams.iter().next().expect("an answer");
        let answered = speaker.engine.handle_handshake(reply, now, &mut message);
        answered.expect("the answer verifies");
        inbound.clear();
        speaker.tell(device, &mut inbound, &message, now);
        speaker
    }

    /// Sends one datagram to the device, from where the peer is.
    pub(super) fn tell(
        &self,
        device: &Device,
        inbound: &mut Inbound,
        message: &[u8],
        now: Instant,
    ) {
        let datagrams = [(0..message.len(), self.at)].into_iter();
        device.handle_datagrams(inbound, message, datagrams, now);
    }

    /// Seals a plaintext for the device.
    pub(super) fn seal(&mut self, plaintext: &[u8], now: Instant) -> Vec<u8> {
        let mut batch = Batch::default();
        batch.push(plaintext, ());
        let mut sealed = Datagrams::default();
        self.engine.seal(&batch, self.at, now, &mut sealed);
        let (message, _) = sealed.iter().next().expect("a session");
        message.to_vec()
    }

    /// Opens a message of the device.
    pub(super) fn open(&mut self, message: &[u8], now: Instant) -> Vec<u8> {
        let mut opened = Batch::default();
        self.engine.open(std::iter::once(message), now, &mut opened);
        let (plaintext, result) = opened.iter().next().expect("one result for one message");
        assert_eq!(
            *result,
            Opened::Packet,
            "the peer cannot open what was sent to it"
        );
        plaintext.to_vec()
    }
}
