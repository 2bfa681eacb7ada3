//! The keeper's process: it opens what needs rights, holds it, and keeps a data plane running.
//!
//! It parses nothing that comes from the network. The guard is its first act and its last duty: it
//! is loaded from the kept state before the device exists, and loaded again whenever somebody
//! removed it.

use crate::io::nft::NftError;
use crate::io::process;
use crate::io::tap::{Tap, TapError};
use crate::io::udp::{self, UdpError};
use crate::io::{clock, key_file};
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;
use tracing::{error, info, warn};

mod client;
mod guarded;
pub use client::KeeperClient;
use guarded::Guarded;

/// The hidden command under which the keeper starts itself again as the data plane.
pub const DATA_PLANE_COMMAND: &str = "data-plane";

/// A data plane that lived shorter than this is started again only after [`SHORT_LIFE_PAUSE`].
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// Keeps a data plane that dies at once from using up the machine.
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
    /// The UDP port.
    pub port: u16,
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
    tap: Tap,
    udp4: OwnedFd,
    udp6: Option<OwnedFd>,
    control: UnixListener,
    options: Options,
    guarded: Arc<Guarded>,
    program: PathBuf,
}

/// Runs until SIGTERM or SIGINT. The device, its routes and the guard stay: closed, not open.
pub fn run(options: Options) -> Result<(), KeeperError> {
    if !process::may_configure_network() {
        return Err(KeeperError::NotPermitted);
    }
    process::abort_on_panic();
    // Before the first thread: all of them leave the signals to this one.
    let signals = signals().map_err(system("read signals"))?;
    let _lock = lock(&options.state_dir)?;
    key_file::load_or_make(&options.state_dir)?;
    let guarded = Arc::new(Guarded::default());
    // Fails by name where there is no `nft`: without it there would be no guard.
    guarded.check_nft()?;
    // What another instance may have comes first: one that cannot run writes no guard.
    let (udp4, udp6) = udp::bind(options.port)?;
    let control = listen(&options.socket)?;
    let _listening = SocketFile(options.socket.clone());
    guarded.restore(&options.state_dir)?;
    // Last, for it outlives this process: whoever fails before leaves nothing behind.
    let tap = Tap::open(&options.device)?;
    let watching = Arc::clone(&guarded);
    std::thread::Builder::new()
        .name("guard".to_owned())
        .spawn(move || watching.watch())
        .map_err(system("start a thread"))?;
    info!(device = options.device, port = options.port, socket = %options.socket.display(), "keeper runs");
    let program = std::env::current_exe().map_err(system("find its own program"))?;
    Held {
        tap,
        udp4,
        udp6,
        control,
        options,
        guarded,
        program,
    }
    .keep_running(&signals)
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

/// Listens at `path`; a socket that nobody answers on is an old one.
fn listen(path: &Path) -> Result<UnixListener, KeeperError> {
    let failed = |action| {
        move |source| KeeperError::Control {
            path: path.to_owned(),
            action,
            source,
        }
    };
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
    let listener = UnixListener::bind(path).map_err(failed("listen"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .map_err(failed("restrict it to root"))?;
    Ok(listener)
}

impl Held {
    /// Starts a data plane: by its path, so that a newer binary that was put there is the one.
    fn start(&self, program: &Path) -> io::Result<Child> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(program);
        let fd = |fd: &dyn AsRawFd| fd.as_raw_fd().to_string();
        command
            .arg0("hawser-tunnel")
            .arg(DATA_PLANE_COMMAND)
            .args(["--tap".to_owned(), self.tap.raw_fd().to_string()])
            .args(["--udp4".to_owned(), fd(&self.udp4)])
            .args(["--control".to_owned(), fd(&self.control)])
            .args(["--keeper".to_owned(), fd(&theirs)])
            .args(["--device".to_owned(), self.options.device.clone()])
            .args(["--port".to_owned(), self.options.port.to_string()])
            .arg("--state-dir")
            .arg(&self.options.state_dir);
        let mut fds = vec![
            self.tap.raw_fd(),
            self.udp4.as_raw_fd(),
            self.control.as_raw_fd(),
            theirs.as_raw_fd(),
        ];
        if let Some(udp6) = &self.udp6 {
            command.args(["--udp6".to_owned(), fd(udp6)]);
            fds.push(udp6.as_raw_fd());
        }
        process::inherit(&mut command, fds);
        let child = command.spawn()?;
        let guarded = Arc::clone(&self.guarded);
        std::thread::Builder::new()
            .name("asked".to_owned())
            .spawn(move || {
                // Ends with its data plane.
                let _ = guarded.serve(&ours);
            })?;
        Ok(child)
    }

    fn prepare_and_start(&mut self) -> Result<Child, KeeperError> {
        if !self.tap.is_attached() {
            warn!("the device was removed: made again");
            self.tap = Tap::open(&self.options.device)?;
        }
        self.start(&self.program)
            // The binary may just be written anew; the one that runs here is whole.
            .or_else(|_| self.start(Path::new("/proc/self/exe")))
            .map_err(system("start the data plane"))
    }

    fn keep_running(mut self, signals: &SignalFd) -> Result<(), KeeperError> {
        loop {
            let started = clock::now();
            let mut child = match self.prepare_and_start() {
                Ok(child) => child,
                // A binary that is being replaced, no memory: the keeper holds what it has, and
                // tries again.
                Err(error) => {
                    error!(%error, source = ?std::error::Error::source(&error), "data plane could not be started");
                    if pause(signals) {
                        return Ok(());
                    }
                    continue;
                }
            };
            info!(pid = child.id(), "data plane started");
            let asked_to_stop =
                wait(&mut child, signals).map_err(system("wait for the data plane"))?;
            if asked_to_stop {
                let _ = child.kill();
                let _ = child.wait();
                info!("stopped: device, routes and guard stay");
                return Ok(());
            }
            let lived = clock::now().saturating_duration_since(started);
            warn!(
                lived_ms = u64::try_from(lived.as_millis()).unwrap_or(u64::MAX),
                "data plane ended: started again"
            );
            if lived < SHORT_LIFE && pause(signals) {
                return Ok(());
            }
        }
    }
}

/// Blocks the signals that the keeper acts on, and reads them from a descriptor instead.
fn signals() -> io::Result<SignalFd> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block()?;
    Ok(SignalFd::with_flags(
        &signals,
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?)
}

/// Waits for the child's end (`false`) or for a signal to stop (`true`).
fn wait(child: &mut Child, signals: &SignalFd) -> io::Result<bool> {
    loop {
        if child.try_wait()?.is_some() {
            return Ok(false);
        }
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        if stop_asked(signals) {
            return Ok(true);
        }
    }
}

/// Reads all signals that wait; whether one of them asks to stop.
fn stop_asked(signals: &SignalFd) -> bool {
    let mut stop = false;
    while let Ok(Some(signal)) = signals.read_signal() {
        stop |=
            i32::try_from(signal.ssi_signo).is_ok_and(|number| number != Signal::SIGCHLD as i32);
    }
    stop
}

/// Waits a little; whether a signal asked to stop meanwhile.
fn pause(signals: &SignalFd) -> bool {
    let end = clock::now() + SHORT_LIFE_PAUSE;
    loop {
        let left = end.saturating_duration_since(clock::now());
        if left.is_zero() {
            return false;
        }
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let _ = poll(
            &mut fds,
            PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO),
        );
        if stop_asked(signals) {
            return true;
        }
    }
}
