//! The command line of `hawser-tunnel`.

use clap::{Parser, Subcommand};
use hawser_tunnel::data_plane::{self, Inherited};
use hawser_tunnel::engine::NULL_CIPHER;
use hawser_tunnel::io::{key_file, nft::Nft, process, tap::Tap, udp::Sockets};
use hawser_tunnel::keeper::{self, KeeperError};
use hawser_tunnel::offload::Offload;
use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Geneve over WireGuard between the nodes of a mesh.
///
/// Exit codes: 0 done, 1 failed, 2 wrong flags, 3 a second instance.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the tunnel in the foreground.
    Run {
        /// Where the key and the last state are kept.
        #[arg(long, default_value = "/var/lib/hawser/tunnel", value_name = "DIR")]
        state_dir: PathBuf,
        /// The control socket.
        #[arg(long, default_value = "/run/hawser/tunnel.sock", value_name = "PATH")]
        socket: PathBuf,
        /// The name of the TAP.
        #[arg(long, default_value = "hawser0", value_name = "NAME")]
        device: String,
        /// The UDP port.
        #[arg(long, default_value_t = 51820, value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
        /// Offloads not to use, where a device does them wrongly: tap-checksum, tap-tcp, tap-udp, join-tcp, join-udp,
        /// udp-gso, udp-gro.
        #[arg(long, value_delimiter = ',', value_name = "OFFLOADS")]
        without: Vec<Offload>,
    },
    /// Makes the node's WireGuard key if there is none, and prints its public half.
    Key {
        /// Where the key is kept.
        #[arg(long, default_value = "/var/lib/hawser/tunnel", value_name = "DIR")]
        state_dir: PathBuf,
    },
    /// Removes the TAP and the guard. From then on nothing keeps pod packets off the underlay.
    Remove {
        /// The name of the TAP.
        #[arg(long, default_value = "hawser0", value_name = "NAME")]
        device: String,
    },
    /// Carries packets; started by the keeper alone.
    #[command(hide = true)]
    DataPlane {
        #[arg(long)]
        tap: RawFd,
        #[arg(long)]
        udp4: RawFd,
        #[arg(long)]
        udp6: Option<RawFd>,
        #[arg(long)]
        handshakes4: RawFd,
        #[arg(long)]
        handshakes6: Option<RawFd>,
        #[arg(long)]
        control: RawFd,
        #[arg(long)]
        keeper: RawFd,
        #[arg(long)]
        heir: RawFd,
        #[arg(long)]
        predecessor: Option<RawFd>,
        #[arg(long)]
        state_dir: PathBuf,
        #[arg(long)]
        device: String,
        #[arg(long)]
        port: u16,
        #[arg(long, value_delimiter = ',')]
        without: Vec<Offload>,
    },
}

/// Why the program ends, and with which code.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    error: Box<dyn Error>,
}

impl Failure {
    /// Prints the one line.
    pub(crate) fn report(&self) -> ExitCode {
        let mut line = format!("error: {}", self.error);
        let mut cause = self.error.source();
        while let Some(error) = cause {
            let _ = write!(line, ": {error}");
            cause = error.source();
        }
        let _ = writeln!(std::io::stderr(), "{line}");
        ExitCode::from(self.code)
    }
}

impl<E: Into<Box<dyn Error>>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let second = matches!(error.downcast_ref(), Some(KeeperError::SecondInstance(_)));
        Self {
            code: if second { 3 } else { 1 },
            error,
        }
    }
}

/// `HAWSER_LOG`, or what an operator wants to read.
pub(crate) fn log_filter() -> EnvFilter {
    EnvFilter::try_from_env("HAWSER_LOG").unwrap_or_else(|_| EnvFilter::new("info"))
}

impl Args {
    pub(crate) fn run(self) -> Result<(), Failure> {
        if NULL_CIPHER && std::env::var_os("HAWSER_LAB").is_none() {
            return Err("this build has a null cipher, for benches: it runs in a lab alone".into());
        }
        match self.command {
            Command::Run {
                state_dir,
                socket,
                device,
                port,
                without,
            } => Ok(keeper::run(keeper::Options {
                state_dir,
                socket,
                device,
                port,
                without: without.into_iter().collect(),
            })?),
            Command::Key { state_dir } => {
                let key = key_file::load_or_make(&state_dir)?;
                Ok(writeln!(std::io::stdout(), "{}", key.public())?)
            }
            Command::Remove { device } => {
                if !process::may_configure_network() {
                    return Err(KeeperError::NotPermitted.into());
                }
                Tap::remove(&device)?;
                Ok(Nft::default().remove_guard()?)
            }
            Command::DataPlane {
                tap,
                udp4,
                udp6,
                handshakes4,
                handshakes6,
                control,
                keeper,
                heir,
                predecessor,
                state_dir,
                device,
                port,
                without,
            } => {
                let inherited = Inherited {
                    tap: process::take_inherited(tap)?,
                    udp: Sockets {
                        v4: process::take_inherited(udp4)?,
                        v6: udp6.map(process::take_inherited).transpose()?,
                    },
                    handshakes: Sockets {
                        v4: process::take_inherited(handshakes4)?,
                        v6: handshakes6.map(process::take_inherited).transpose()?,
                    },
                    control: process::take_inherited(control)?,
                    keeper: process::take_inherited(keeper)?,
                    heir: process::take_inherited(heir)?,
                    predecessor: predecessor.map(process::take_inherited).transpose()?,
                };
                let options = data_plane::Options {
                    state_dir,
                    device,
                    port,
                    without: without.into_iter().collect(),
                };
                data_plane::run(inherited, options).map_err(|error| Failure { code: 1, error })
            }
        }
    }
}
