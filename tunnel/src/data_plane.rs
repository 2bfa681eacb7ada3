//! The data plane's process: threads that carry packets between the kernel and [`Device`].
//!
//! | thread | waits for | does |
//! |---|---|---|
//! | `tap-N`, for each lane | frames of its queue of the TAP | seals, sends |
//! | `udp-N`, for each lane | data messages of its UDP sockets | opens, checks, writes to the TAP |
//! | `handshake` | all other datagrams | shakes hands; a flood of them is its affair alone |
//! | `timer` | time | WireGuard's timers |
//! | `liveness` | time, while peers are watched | probes them, and says who is dead |
//! | `balance`, with several lanes | time | opens and closes lanes by the load |
//! | `roam` | changes of this node's addresses | tells every peer with a session |
//! | `heir` | the keeper | hands over to a successor |
//! | main and `control` | the control socket | states, status, captures |
//!
//! It holds no capability: everything it uses was opened by its keeper.

use crate::aead::Cipher;
use crate::device::{Device, TICK};
use crate::io::address_watch::AddressWatch;
use crate::io::control_server;
use crate::io::state_file::StateFile;
use crate::io::{clock, offload_test, process, stack};
use crate::keeper::KeeperClient;
use crate::lane::LaneNumber;
use crate::offload::{Offloads, Standing, Without};
use crate::outgoing::PerLane;
use arc_swap::ArcSwapOption;
use gate::Gate;
pub use lane_io::InheritedLane;
use lane_io::LaneIo;
use nix::poll::{PollTimeout, poll};
use predecessor::Heir;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};
use tracing::{info, warn};

mod balancing;
mod carry;
mod control;
mod gate;
mod heard;
mod key_change;
mod lane_io;
mod predecessor;
mod successor;
mod watching;

/// How long the kernel is given to end a change of addresses that it told of. Who sends by IPv4 in the middle of one can
/// have it remember a wrong source address until the next.
const CHANGE_MS: u16 = 5;
/// Changes that are waited out one after the other.
const CHANGES: u32 = 20;

/// How long changes of addresses and routes take to settle, in milliseconds.
const SETTLE_MS: u16 = 100;

/// Ticks between two signs of life to all peers while one data plane takes over from another.
const ANNOUNCE: u32 = 3;

/// Ticks between two looks whether old keys of this node are still of use: a second.
const END_KEYS: u32 = 10;

/// Announcements a second of changed addresses; what comes on top is told when it is quiet.
const ANNOUNCEMENTS: u32 = 16;

/// What the keeper hands over.
#[derive(Debug)]
pub struct Inherited {
    /// What belongs to each lane; one at least.
    pub lanes: Vec<InheritedLane>,
    /// The listening control socket.
    pub control: OwnedFd,
    /// The way to ask the keeper.
    pub keeper: OwnedFd,
    /// Where the keeper passes on the connection of a successor.
    pub heir: OwnedFd,
    /// The connection to the data plane that runs already, if there is one.
    pub predecessor: Option<OwnedFd>,
}

/// What a data plane is told when it starts.
#[derive(Debug)]
pub struct Options {
    /// Where key and state are.
    pub state_dir: PathBuf,
    /// The name of the TAP.
    pub device: String,
    /// The UDP port of the first lane; the others have those behind it.
    pub port: u16,
    /// Lanes that stay open without load.
    pub open_lanes: u8,
    /// Offloads that are not wanted.
    pub without: Without,
}

struct DataPlane {
    device: Device,
    /// By their numbers; never empty.
    lanes: Vec<LaneIo>,
    /// How many of them get flows that begin.
    open_lanes: AtomicU8,
    offloads: Arc<Offloads>,
    options: Options,
    started: Instant,
    control: Mutex<control::Control>,
    handshakes_gate: Gate,
    /// Who gets the datagrams that are not for this data plane, while there is such a one.
    heir: ArcSwapOption<Heir>,
    /// While a predecessor still reads the sockets.
    taking_over: AtomicBool,
    /// The thread that watches peers.
    watcher: OnceLock<Thread>,
}

/// Runs the data plane for ever.
pub fn run(inherited: Inherited, options: Options) -> Result<(), Box<dyn std::error::Error>> {
    process::abort_on_panic();
    let numbers: Vec<LaneNumber> = LaneNumber::first(inherited.lanes.len()).collect();
    let keys = key_change::load(&options.state_dir, &numbers)?;
    process::drop_privileges()?;
    let taking_over = inherited.predecessor.is_some();
    let offloads = Arc::new(Offloads::new(&options.without));
    let lanes = numbers.iter().zip(inherited.lanes);
    let lanes = lanes
        .map(|(number, lane)| LaneIo::new(*number, lane, &offloads, taking_over))
        .collect::<io::Result<Vec<_>>>()?;
    let first = lanes.first().ok_or("no lane was handed on")?;
    offload_test::run(&first.tap, &offloads);
    let now = clock::now();
    // As long as nobody says so otherwise: the kernel may part flows by itself.
    let open_lanes = u8::try_from(lanes.len())?;
    let plane = Arc::new(DataPlane {
        device: Device::with_keys(keys, clock::random()?),
        lanes,
        open_lanes: AtomicU8::new(open_lanes),
        offloads,
        control: Mutex::new(control::Control::new(
            StateFile::new(&options.state_dir),
            KeeperClient::new(inherited.keeper),
            taking_over,
        )),
        options,
        started: now,
        // A predecessor reads these sockets as well, and passes on what is not its own.
        handshakes_gate: Gate::new(taking_over)?,
        heir: ArcSwapOption::empty(),
        taking_over: AtomicBool::new(false),
        watcher: OnceLock::new(),
    });
    let gates: Weak<DataPlane> = Arc::downgrade(&plane);
    plane.device.wake_by(move |lane| {
        if let Some(plane) = gates.upgrade()
            && let Some(lane) = plane.lanes.get(lane.index())
        {
            lane.tap_gate.nudge();
        }
    });
    // The keys were here.
    stack::wipe();
    let predecessor = inherited.predecessor.map(UnixStream::from);
    let predecessor = predecessor.map(|stream| plane.greet(stream)).transpose()?;
    if predecessor.is_some() {
        // It may have begun a change of keys until then; from now on it begins none.
        let keys = key_change::load(&plane.options.state_dir, &numbers)?;
        plane.device.take_keys(keys);
        stack::wipe();
    }
    let takeover = predecessor
        .map(|stream| plane.listen_to(stream))
        .transpose()?;
    plane.restore();
    info!(public_key = %plane.device.public_key(), cipher = Cipher::chosen().name(), "data plane runs");
    for (offload, standing) in plane.offloads.standings() {
        if standing != Standing::Used {
            info!(%offload, %standing, "goes on without an offload");
        }
    }
    spawn("timer", &plane, DataPlane::tick)?;
    spawn("liveness", &plane, DataPlane::watch_peers)?;
    for (at, lane) in plane.lanes.iter().enumerate() {
        spawn(&lane.thread("udp"), &plane, move |plane| {
            plane.carry_in(&plane.lanes[at])
        })?;
    }
    if let Some(takeover) = takeover {
        plane.take_over(&takeover)?;
    }
    spawn("handshake", &plane, DataPlane::answer_handshakes)?;
    for (at, lane) in plane.lanes.iter().enumerate() {
        spawn(&lane.thread("tap"), &plane, move |plane| {
            plane.carry_out(&plane.lanes[at])
        })?;
    }
    plane.start_balancing()?;
    spawn("roam", &plane, DataPlane::announce_addresses)?;
    let keeper = UnixStream::from(inherited.heir);
    spawn("heir", &plane, move |plane| plane.await_heirs(&keeper))?;
    control_server::serve(&UnixListener::from(inherited.control), &plane)
}

/// A thread that carries packets must not end; if its kernel side breaks, the process does, and the
/// keeper starts another.
fn spawn(
    name: &str,
    plane: &Arc<DataPlane>,
    run: impl FnOnce(&DataPlane) -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    let plane = Arc::clone(plane);
    let named = name.to_owned();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let ended = run(&plane);
            tracing::error!(thread = named, error = ?ended.err(), "thread ended");
            std::process::abort();
        })?;
    Ok(())
}

impl DataPlane {
    /// Sends messages, each by its lane.
    fn transmit(&self, out: &PerLane) {
        for (number, datagrams) in out.lanes() {
            // There is no lane beyond those that the device has keys for.
            if let Some(lane) = self.lanes.get(number.index()) {
                lane.udp.send(datagrams, self.device.drops());
            }
        }
    }

    /// Peers follow this node to a new address when they hear from it, and it may have nothing to
    /// say: without this, whoever only sends goes on to the old one.
    fn announce_addresses(&self) -> io::Result<()> {
        loop {
            if let Err(error) = self.watch_addresses() {
                warn!(%error, "watch over this node's addresses broke: opened again");
            }
            let _ = poll(&mut [], PollTimeout::from(1_000_u16));
        }
    }

    fn watch_addresses(&self) -> io::Result<()> {
        let mut watch = AddressWatch::open(&self.options.device)?;
        let (mut settling, mut second, mut told) = (false, clock::now(), 0);
        loop {
            // They come in bunches, the old one goes after the new one came, and routes follow: each
            // is told as soon as it is done, and what it led to when it is quiet.
            let timeout = if settling {
                PollTimeout::from(SETTLE_MS)
            } else {
                PollTimeout::NONE
            };
            let changed = watch.wait(timeout)?;
            if changed {
                // The kernel tells of a change before it is through with it.
                for _ in 0..CHANGES {
                    if !watch.wait(PollTimeout::from(CHANGE_MS))? {
                        break;
                    }
                }
            }
            let now = clock::now();
            if now.saturating_duration_since(second) >= Duration::from_secs(1) {
                (second, told) = (now, 0);
            }
            if (changed || settling) && told < ANNOUNCEMENTS {
                told += 1;
                let mut out = PerLane::default();
                self.device.announce(now, &mut out);
                self.transmit(&out);
                settling = changed;
            } else {
                // Not told yet: it is, once this second has passed and it is quiet.
                settling |= changed;
            }
        }
    }

    fn tick(&self) -> io::Result<()> {
        let mut out = PerLane::default();
        for round in 0_u32.. {
            // The process has nothing else to wait for here: time itself is the event.
            let timeout = PollTimeout::try_from(TICK).map_err(io::Error::other)?;
            let _ = poll(&mut [], timeout);
            let now = clock::now();
            if self.heir.load().is_none() {
                self.device.handle_timeout(now, &mut out);
            }
            if self.taking_over.load(Ordering::Relaxed) && round % ANNOUNCE == 0 {
                // Whoever only sends learns of the new session by what comes over it; one of these
                // may be lost.
                self.device.announce(now, &mut out);
            }
            self.transmit(&out);
            out.clear();
            if round % END_KEYS == 0 {
                self.end_key_change();
            }
            stack::wipe();
        }
        Ok(())
    }
}
