//! The data plane's process: threads that carry packets between the kernel and [`Device`].
//!
//! | thread | waits for | does |
//! |---|---|---|
//! | `tap` | frames of the TAP | seals, sends |
//! | `udp` | data messages of the UDP sockets | opens, checks, writes to the TAP |
//! | `handshake` | all other datagrams | shakes hands; a flood of them is its affair alone |
//! | `timer` | time | WireGuard's timers |
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
use crate::io::tap::Tap;
use crate::io::udp::{Sockets, UdpSockets};
use crate::io::{clock, key_file, offload_test, process};
use crate::keeper::KeeperClient;
use crate::offload::{Offloads, Standing, Without};
use crate::outbound::Outbound;
use arc_swap::ArcSwapOption;
use gate::Gate;
use nix::poll::{PollTimeout, poll};
use predecessor::Heir;
use std::io::{self};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tracing::{info, warn};

mod carry;
mod control;
mod gate;
mod predecessor;
mod successor;

/// How long the kernel is given to end a change of addresses that it told of. Who sends by IPv4 in the middle of one can
/// have it remember a wrong source address until the next.
const CHANGE_MS: u16 = 5;
/// Changes that are waited out one after the other.
const CHANGES: u32 = 20;

/// How long changes of addresses and routes take to settle, in milliseconds.
const SETTLE_MS: u16 = 100;

/// Ticks between two signs of life to all peers while one data plane takes over from another.
const ANNOUNCE: u32 = 3;

/// Announcements a second of changed addresses; what comes on top is told when it is quiet.
const ANNOUNCEMENTS: u32 = 16;

/// What the keeper hands over.
#[derive(Debug)]
pub struct Inherited {
    /// The TAP.
    pub tap: OwnedFd,
    /// The UDP sockets of data messages.
    pub udp: Sockets,
    /// The UDP sockets of all else.
    pub handshakes: Sockets,
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
    /// The UDP port.
    pub port: u16,
    /// Offloads that are not wanted.
    pub without: Without,
}

struct DataPlane {
    device: Device,
    tap: Tap,
    udp: UdpSockets,
    handshakes: UdpSockets,
    offloads: Arc<Offloads>,
    options: Options,
    started: Instant,
    control: Mutex<control::Control>,
    tap_gate: Gate,
    udp_gate: Gate,
    handshakes_gate: Gate,
    /// Who gets the datagrams that are not for this data plane, while there is such a one.
    heir: ArcSwapOption<Heir>,
    /// While a predecessor still reads the sockets.
    taking_over: AtomicBool,
}

/// Runs the data plane for ever.
pub fn run(inherited: Inherited, options: Options) -> Result<(), Box<dyn std::error::Error>> {
    process::abort_on_panic();
    let key = key_file::load_or_make(&options.state_dir)?;
    process::drop_privileges()?;
    let tap = Tap::inherit(inherited.tap);
    let offloads = Arc::new(Offloads::new(&options.without));
    offload_test::run(&tap, &offloads);
    let udp = UdpSockets::inherit(inherited.udp, Arc::clone(&offloads))?;
    let handshakes = UdpSockets::inherit(inherited.handshakes, Arc::clone(&offloads))?;
    let now = clock::now();
    let plane = Arc::new(DataPlane {
        device: Device::new(key, clock::random()?),
        tap,
        udp,
        handshakes,
        offloads,
        control: Mutex::new(control::Control::new(
            StateFile::new(&options.state_dir),
            KeeperClient::new(inherited.keeper),
            inherited.predecessor.is_some(),
        )),
        options,
        started: now,
        tap_gate: Gate::new(false)?,
        udp_gate: Gate::new(false)?,
        // A predecessor reads these sockets as well, and passes on what is not its own.
        handshakes_gate: Gate::new(inherited.predecessor.is_some())?,
        heir: ArcSwapOption::empty(),
        taking_over: AtomicBool::new(false),
    });
    let predecessor = inherited.predecessor.map(UnixStream::from);
    let predecessor = predecessor.map(|stream| plane.greet(stream)).transpose()?;
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
    match takeover {
        Some(takeover) => plane.take_over(&takeover)?,
        None => spawn("udp", &plane, DataPlane::carry_in)?,
    }
    spawn("handshake", &plane, DataPlane::answer_handshakes)?;
    spawn("tap", &plane, DataPlane::carry_out)?;
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
                let mut out = Outbound::default();
                self.device.announce(now, &mut out.datagrams);
                self.udp.send(&out.datagrams, self.device.drops());
                settling = changed;
            } else {
                // Not told yet: it is, once this second has passed and it is quiet.
                settling |= changed;
            }
        }
    }

    fn tick(&self) -> io::Result<()> {
        let mut out = Outbound::default();
        for round in 0_u32.. {
            // The process has nothing else to wait for here: time itself is the event.
            let timeout = PollTimeout::try_from(TICK).map_err(io::Error::other)?;
            let _ = poll(&mut [], timeout);
            let now = clock::now();
            if self.heir.load().is_none() {
                self.device.handle_timeout(now, &mut out.datagrams);
            }
            if self.taking_over.load(Ordering::Relaxed) && round % ANNOUNCE == 0 {
                // Whoever only sends learns of the new session by what comes over it; one of these
                // may be lost.
                self.device.announce(now, &mut out.datagrams);
            }
            self.udp.send(&out.datagrams, self.device.drops());
            out.clear();
        }
        Ok(())
    }
}
