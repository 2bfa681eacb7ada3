//! The keeper's process: it opens what needs rights, holds it, and keeps a data plane running.
//!
//! It parses nothing that comes from the network. The guard is its first act and its last duty: it
//! is loaded from the kept state before the device exists, and loaded again whenever somebody
//! removed it.

use crate::guard::Guard;
use crate::io::message;
use crate::io::netlink_watch::{Change, NetlinkWatch};
use crate::io::nft::{Ensured, Nft, NftError};
use crate::io::process;
use crate::io::state_file::{Found, StateFile};
use crate::io::tap::{Tap, TapError};
use crate::io::udp::{self, UdpError};
use crate::io::{clock, key_file};
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing::{error, info, warn};

/// The hidden command under which the keeper starts itself again as the data plane.
pub const DATA_PLANE_COMMAND: &str = "data-plane";

/// A data plane that lived shorter than this is started again only after [`SHORT_LIFE_PAUSE`].
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// Keeps a data plane that dies at once from using up the machine.
const SHORT_LIFE_PAUSE: Duration = Duration::from_millis(200);

/// How often the guard is looked at with nobody having said anything.
const GUARD_CHECK: Duration = Duration::from_secs(30);

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

/// What the data plane asks of its keeper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Ask {
    Guard(Guard),
    GuardDrops,
}

/// What it is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Told {
    Done,
    Drops(BTreeMap<String, u64>),
    Failed(String),
}

/// The data plane's side of the way to its keeper.
#[derive(Debug)]
pub struct KeeperClient {
    socket: UnixStream,
}

impl KeeperClient {
    /// Over the descriptor that was inherited.
    pub fn new(fd: OwnedFd) -> Self {
        Self {
            socket: UnixStream::from(fd),
        }
    }

    fn ask(&self, ask: &Ask) -> io::Result<Told> {
        message::write(&self.socket, ask)?;
        message::read(&self.socket)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Puts a guard in force; returns when it stands.
    pub fn guard(&self, guard: &Guard) -> io::Result<()> {
        match self.ask(&Ask::Guard(guard.clone()))? {
            Told::Done => Ok(()),
            Told::Failed(why) => Err(io::Error::other(why)),
            Told::Drops(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// What the guard dropped so far, by its counters.
    pub fn guard_drops(&self) -> io::Result<BTreeMap<String, u64>> {
        match self.ask(&Ask::GuardDrops)? {
            Told::Drops(drops) => Ok(drops),
            Told::Failed(why) => Err(io::Error::other(why)),
            Told::Done => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The guard in force, shared by who sets it and who watches it.
#[derive(Debug, Default)]
struct Guarded {
    nft: Nft,
    guard: Mutex<Option<Guard>>,
}

impl Guarded {
    fn set(&self, guard: Guard) -> Result<Ensured, NftError> {
        let mut current = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        let ensured = self.nft.ensure_guard(&guard)?;
        *current = Some(guard);
        Ok(ensured)
    }

    fn repair(&self) {
        let current = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(guard) = current.as_ref() else {
            return;
        };
        match self.nft.ensure_guard(guard) {
            Ok(Ensured::Unchanged) => {}
            Ok(Ensured::Written) => warn!("guard was changed by somebody else: loaded again"),
            Err(error) => error!(%error, "guard could not be loaded"),
        }
    }

    /// Loads the guard of the kept state: what may be in clear is decided before anything runs.
    fn restore(&self, state_dir: &Path) -> Result<(), KeeperError> {
        // The data plane, which judges the file in full, sets a bad one aside.
        match StateFile::new(state_dir).load() {
            Ok(Found::State(kept)) => {
                self.set(kept.state.guard)?;
            }
            Ok(Found::Nothing) => {}
            Ok(Found::SetAside { path, reason }) => {
                warn!(path = %path.display(), reason, "kept state was set aside: the guard in the kernel stays as it is");
            }
            Err(source) => {
                return Err(KeeperError::System {
                    action: "read the kept state",
                    source,
                });
            }
        }
        Ok(())
    }

    fn watch(&self) {
        loop {
            let watched = NetlinkWatch::open().and_then(|mut watch| {
                self.repair();
                loop {
                    match watch.wait(GUARD_CHECK)? {
                        None | Some(Change::Guard | Change::Link) => self.repair(),
                    }
                }
            });
            let error: Result<(), io::Error> = watched;
            warn!(?error, "watch over the guard broke: opened again");
            let _ = poll(&mut [], PollTimeout::from(200_u16));
        }
    }

    fn serve(&self, socket: &UnixStream) -> io::Result<()> {
        while let Some(ask) = message::read(socket)? {
            let told = match ask {
                Ask::Guard(guard) => match self.set(guard) {
                    Ok(_) => Told::Done,
                    Err(error) => Told::Failed(error.to_string()),
                },
                Ask::GuardDrops => match self.nft.guard_drops() {
                    Ok(drops) => Told::Drops(drops),
                    Err(error) => Told::Failed(error.to_string()),
                },
            };
            message::write(socket, &told)?;
        }
        Ok(())
    }
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
    // Before the first thread: all of them leave the signals to this one.
    let signals = signals().map_err(system("read signals"))?;
    let _lock = lock(&options.state_dir)?;
    key_file::load_or_make(&options.state_dir)?;
    let guarded = Arc::new(Guarded::default());
    // Fails by name where there is no `nft`: without it there would be no guard.
    guarded.nft.read("inet")?;
    guarded.restore(&options.state_dir)?;
    let (udp4, udp6) = udp::bind(options.port)?;
    let control = listen(&options.socket)?;
    let _listening = SocketFile(options.socket.clone());
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
    key_file::make_directory(state_dir).map_err(|source| {
        KeeperError::Key(key_file::KeyFileError::File {
            path: state_dir.to_owned(),
            action: "make the directory",
            source,
        })
    })?;
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
    fn start(&self) -> io::Result<Child> {
        let (ours, theirs) = UnixStream::pair()?;
        // By its path, so that a newer binary that was put there is the one that starts.
        let program = if self.program.exists() {
            &self.program
        } else {
            Path::new("/proc/self/exe")
        };
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

    fn keep_running(self, signals: &SignalFd) -> Result<(), KeeperError> {
        loop {
            let started = clock::now();
            let mut child = self.start().map_err(system("start the data plane"))?;
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
