//! The keeper's process: it opens what needs rights, holds it, and keeps a data plane running.
//!
//! It parses nothing that comes from the network. The guard is its first act and its last duty: it
//! is loaded from the kept state before the device exists, and loaded again whenever somebody
//! removed it.

use crate::io::nft::NftError;
use crate::io::process;
use crate::io::steering::Steering;
use crate::io::tap::{Tap, TapError};
use crate::io::udp::{self, Sockets, UdpError};
use crate::io::{clock, key_file};
use crate::lane::LaneNumber;
use crate::offload::Without;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tracing::{error, info, warn};

mod client;
mod guarded;
mod signals;
mod succession;
pub use client::{Ask, KeeperClient, Told};
use guarded::Guarded;
use signals::{Event, pause, wait};
use succession::Running;

/// The hidden command under which the keeper starts itself again as the data plane.
pub const DATA_PLANE_COMMAND: &str = "data-plane";

/// A data plane that lived shorter than this was short-lived.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// So many short lives in a row are bad luck; after more the next waits [`SHORT_LIFE_PAUSE`].
const SHORT_LIVES: u32 = 3;

/// Keeps a data plane that dies at once, again and again, from using up the machine.
const SHORT_LIFE_PAUSE: Duration = Duration::from_millis(200);

/// What `hawser-tunnel run` was told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where key and state are.
    pub state_dir: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// The name of the TAP.
    pub device: String,
    /// The UDP port of the first lane; the others have those behind it.
    pub port: u16,
    /// How many lanes.
    pub lanes: u8,
    /// Lanes that stay open without load.
    pub open_lanes: u8,
    /// Offloads that the data plane does without.
    pub without: Without,
}

/// Why the keeper did not start, or ended. One line each.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeeperError {
    /// No right to configure the network.
    #[error("not permitted to configure the network: run as root with CAP_NET_ADMIN")]
    NotPermitted,
    /// Another keeper has the state directory.
    #[error("state directory {}: in use by another hawser-tunnel: stop it, or choose another by --state-dir", .0.display())]
    SecondInstance(PathBuf),
    /// The key.
    #[error(transparent)]
    Key(#[from] key_file::KeyFileError),
    /// The device.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The sockets.
    #[error(transparent)]
    Udp(#[from] UdpError),
    /// There are fewer ports than lanes behind the first.
    #[error(
        "port {0}/udp: {1} lanes need as many ports from here, and the last is 65535: choose a lower --port"
    )]
    Ports(u16, u8),
    /// The guard.
    #[error(transparent)]
    Guard(#[from] NftError),
    /// The control socket.
    #[error("control socket {}: failed to {action}", path.display())]
    Control {
        /// Where.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Something else.
    #[error("failed to {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

fn system(action: &'static str) -> impl FnOnce(io::Error) -> KeeperError {
    move |source| KeeperError::System { action, source }
}

/// Everything that outlives a data plane.
#[derive(Debug)]
struct Held {
    /// The queues of the TAP, one for each lane.
    taps: Vec<Tap>,
    /// The sockets of each lane: for data messages, and for all else.
    sockets: Vec<(Sockets, Sockets)>,
    control: UnixListener,
    options: Options,
    guarded: Arc<Guarded>,
    program: PathBuf,
}

/// Runs until SIGTERM or SIGINT; on SIGHUP a new data plane takes over from the one that runs, by
/// the binary that is at this one's path now. The device, its routes and the guard stay: closed, not open.
pub fn run(options: Options) -> Result<(), KeeperError> {
    if !process::may_configure_network() {
        return Err(KeeperError::NotPermitted);
    }
    process::abort_on_panic();
    // Before the first thread: all of them leave the signals to this one.
    let signals = signals::signals().map_err(system("read signals"))?;
    let _lock = lock(&options.state_dir)?;
    for lane in LaneNumber::first(options.lanes.into()) {
        key_file::load_or_make(&options.state_dir, lane)?;
    }
    let guarded = Arc::new(Guarded::default());
    // Fails by name where there is no `nft`: without it there would be no guard.
    guarded.check_nft()?;
    // What another instance may have comes first: one that cannot run writes no guard.
    let sockets = (0..u16::from(options.lanes))
        .map(|lane| match options.port.checked_add(lane) {
            Some(port) => Ok(udp::bind(port)?),
            None => Err(KeeperError::Ports(options.port, options.lanes)),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let control = reserve(&options.socket)?;
    let _listening = SocketFile(options.socket.clone());
    guarded.restore(&options.state_dir)?;
    // Whoever is let in here may rely on the guard.
    let control = listen(control, &options.socket)?;
    // Last, for it outlives this process: whoever fails before leaves nothing behind.
    let taps = open_taps(&options, &guarded)?;
    let watching = Arc::clone(&guarded);
    std::thread::Builder::new()
        .name("guard".to_owned())
        .spawn(move || watching.watch())
        .map_err(system("start a thread"))?;
    info!(device = options.device, port = options.port, socket = %options.socket.display(), "keeper runs");
    let program = std::env::current_exe().map_err(system("find its own program"))?;
    Held {
        taps,
        sockets,
        control,
        options,
        guarded,
        program,
    }
    .keep_running(&signals)
}

/// Makes the TAP with a queue for each lane, and has flows keep to their queues.
fn open_taps(options: &Options, guarded: &Guarded) -> Result<Vec<Tap>, KeeperError> {
    let taps = Tap::open(&options.device, options.lanes)?;
    if let Some(first) = taps.first().filter(|_| options.lanes > 1) {
        match Steering::load(first, options.open_lanes) {
            Ok(steering) => guarded.steer(steering),
            // The kernel then parts flows by itself; one that is answered may change its queue once.
            Err(error) => {
                warn!(%error, "flows could not be bound to lanes: all are open, as the kernel parts them");
            }
        }
    }
    Ok(taps)
}

/// The control socket's name, gone when the keeper is.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn lock(state_dir: &Path) -> Result<Flock<File>, KeeperError> {
    key_file::make_directory(state_dir)?;
    let file = File::create(state_dir.join("lock")).map_err(system("open the lock file"))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| KeeperError::SecondInstance(state_dir.to_owned()))
}

fn control(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> KeeperError {
    let path = path.to_owned();
    move |source| KeeperError::Control {
        path,
        action,
        source,
    }
}

/// Takes `path` without letting anybody in yet; a socket that nobody answers on is an old one.
fn reserve(path: &Path) -> Result<OwnedFd, KeeperError> {
    let failed = |action| control(path, action);
    if UnixStream::connect(path).is_ok() {
        let source = io::Error::from(io::ErrorKind::AddrInUse);
        return Err(KeeperError::Control {
            path: path.to_owned(),
            action: "listen: another hawser-tunnel does",
            source,
        });
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed("make its directory"))?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove the old one")(error));
        }
        _ => {}
    }
    let bound = || -> io::Result<OwnedFd> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        socket::bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(fd)
    };
    let fd = bound().map_err(failed("listen"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .map_err(failed("restrict it to root"))?;
    Ok(fd)
}

/// Lets clients in.
fn listen(fd: OwnedFd, path: &Path) -> Result<UnixListener, KeeperError> {
    socket::listen(&fd, Backlog::MAXCONN).map_err(|error| control(path, "listen")(error.into()))?;
    Ok(fd.into())
}

impl Held {
    /// Starts a data plane: by its path, so that a newer binary that was put there is the one.
    fn start(&self, program: &Path, predecessor: Option<&UnixStream>) -> io::Result<Running> {
        let (ours, theirs) = UnixStream::pair()?;
        let (heir, told) = UnixStream::pair()?;
        let mut command = Command::new(program);
        command
            .arg0("hawser-tunnel")
            .arg(DATA_PLANE_COMMAND)
            .args(["--device".to_owned(), self.options.device.clone()])
            .args(["--port".to_owned(), self.options.port.to_string()])
            .args([
                "--open-lanes".to_owned(),
                self.options.open_lanes.to_string(),
            ])
            .arg("--state-dir")
            .arg(&self.options.state_dir);
        for offload in self.options.without.iter() {
            command.args(["--without", offload.name()]);
        }
        let mut fds = Vec::new();
        let mut hand = |option: &str, own: &[i32]| {
            let numbers: Vec<String> = own.iter().map(i32::to_string).collect();
            command.args([option.to_owned(), numbers.join(",")]);
            fds.extend_from_slice(own);
        };
        for (tap, (udp, handshakes)) in self.taps.iter().zip(&self.sockets) {
            let mut lane = vec![tap.raw_fd(), udp.v4.as_raw_fd(), handshakes.v4.as_raw_fd()];
            if let (Some(udp6), Some(handshakes6)) = (&udp.v6, &handshakes.v6) {
                lane.extend([udp6.as_raw_fd(), handshakes6.as_raw_fd()]);
            }
            hand("--lane", &lane);
        }
        hand("--control", &[self.control.as_raw_fd()]);
        hand("--keeper", &[theirs.as_raw_fd()]);
        hand("--heir", &[told.as_raw_fd()]);
        if let Some(predecessor) = predecessor {
            hand("--predecessor", &[predecessor.as_raw_fd()]);
        }
        process::inherit(&mut command, fds);
        let guarded = Arc::clone(&self.guarded);
        // Before the child: one that ran with nobody knowing of it would carry packets for ever.
        std::thread::Builder::new()
            .name("asked".to_owned())
            .spawn(move || {
                // Ends with its data plane.
                let _ = guarded.serve(&ours);
            })?;
        let child = command.spawn()?;
        info!(pid = child.id(), "data plane started");
        Ok(Running {
            child,
            heir,
            started: clock::now(),
        })
    }

    fn is_attached(&self) -> bool {
        self.taps.iter().all(Tap::is_attached)
    }

    fn prepare_and_start(&mut self) -> Result<Running, KeeperError> {
        if !self.is_attached() {
            warn!("the device was removed: made again");
            // Those that are left hold a queue of a device that is no more.
            self.taps.clear();
            self.taps = open_taps(&self.options, &self.guarded)?;
        }
        self.start(&self.program, None)
            // The binary may just be written anew; the one that runs here is whole.
            .or_else(|_| self.start(Path::new("/proc/self/exe"), None))
            .map_err(system("start the data plane"))
    }

    fn keep_running(mut self, signals: &SignalFd) -> Result<(), KeeperError> {
        let mut short_lives = 0;
        loop {
            let mut running = match self.prepare_and_start() {
                Ok(running) => running,
                // A binary that is being replaced, no memory: the keeper holds what it has, and
                // tries again.
                Err(error) => {
                    error!(%error, source = ?std::error::Error::source(&error), "data plane could not be started");
                    if pause(signals, SHORT_LIFE_PAUSE) {
                        return Ok(());
                    }
                    continue;
                }
            };
            loop {
                let event = wait(&mut running.child, signals, None);
                match event.map_err(system("wait for the data plane"))? {
                    Event::Stop => {
                        running.kill();
                        info!("stopped: device, routes and guard stay");
                        return Ok(());
                    }
                    Event::Renew if self.is_attached() => {
                        let handed = self.hand_over(running, signals);
                        match handed.map_err(system("hand over to another data plane"))? {
                            Some(next) => running = next,
                            None => return Ok(()),
                        }
                    }
                    // Its device is gone: there is nothing to hand over.
                    Event::Renew => running.kill(),
                    Event::Ended => break,
                    Event::Nothing => {}
                }
            }
            let lived = clock::now().saturating_duration_since(running.started);
            warn!(
                lived_ms = u64::try_from(lived.as_millis()).unwrap_or(u64::MAX),
                "data plane ended: started again"
            );
            short_lives = if lived < SHORT_LIFE {
                short_lives + 1
            } else {
                0
            };
            if short_lives > SHORT_LIVES && pause(signals, SHORT_LIFE_PAUSE) {
                return Ok(());
            }
        }
    }
}
