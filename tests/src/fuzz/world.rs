//! A data plane in mid-session with two real peers, and what they may say.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hawser_tunnel::batch::{Batch, Datagrams};
use hawser_tunnel::device::Device;
use hawser_tunnel::engine::{Engine as _, NoiseEngine, Opened};
use hawser_tunnel::inbound::Inbound;
use hawser_tunnel::node::NodeId;
use hawser_tunnel::state::State;

mod told;

pub(super) use told::{FOREIGN_IDENTITY, INBOUND, OUTBOUND, PUBLISHED, id, private_key, state};
use told::{address, mirrored};

/// How often a world is used again, and for how long: sessions are counted on, and they last 180 s.
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
    pub(super) engine: NoiseEngine,
    pub(super) at: SocketAddr,
    /// The initiation of its session.
    pub(super) greeting: Vec<u8>,
}

/// A device with a state, and the first message that it sent.
fn device(key: u8, state: State, now: Instant) -> (Device, Vec<u8>) {
    let device = Device::new(private_key(key), [key; 32]);
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

    fn age(&self) -> Duration {
        self.now.duration_since(self.born)
    }

    /// Runs a target in a world that was used before, for those that leave nothing behind in it but counts.
    pub(super) fn with_used(run: impl FnOnce(&mut Self)) {
        let used = USED.take();
        let mut world = used
            .filter(|world| world.uses < USES && world.age() < AGE)
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
        let peer = private_key(2).public();
        let mut speaker = Self {
            id: id(name),
            engine: NoiseEngine::new(&own, &peer, None, 0x00ab_cd00 | u32::from(key)),
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
