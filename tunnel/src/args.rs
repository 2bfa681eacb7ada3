//! The command line of `hawser-tunnel`.

use clap::{Parser, Subcommand};
use hawser_tunnel::data_plane::{self, Inherited, InheritedLane};
use hawser_tunnel::engine::NULL_CIPHER;
use hawser_tunnel::io::{key_file, nft::Nft, process, tap::Tap, udp::Sockets};
use hawser_tunnel::keeper::{self, KeeperError};
use hawser_tunnel::lane::LaneNumber;
use hawser_tunnel::offload::Offload;
use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
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
        /// The UDP port of the first lane; further lanes have the ports behind it.
        #[arg(long, default_value_t = 51820, value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
        /// Lanes, 1 to 16: each has a WireGuard key, a UDP port and a thread for each direction. Peers must know the keys
        /// of all (`hawser-tunnel key --lanes N`).
        #[arg(long, default_value_t = 1, value_parser = lanes())]
        lanes: u8,
        /// Lanes that stay open without load, 1 to 16. The others open while those that are open have no time left, and
        /// not more of them than there are processors.
        #[arg(long, default_value_t = 1, value_parser = lanes(), value_name = "LANES")]
        open_lanes: u8,
        /// Offloads not to use, where a device does them wrongly: tap-checksum, tap-tcp, tap-udp, join-tcp, join-udp,
        /// udp-gso, udp-gro.
        #[arg(long, value_delimiter = ',', value_name = "OFFLOADS")]
        without: Vec<Offload>,
    },
    /// Makes the node's WireGuard keys where there are none, and prints their public halves: a line for each lane.
    Key {
        /// Where the keys are kept.
        #[arg(long, default_value = "/var/lib/hawser/tunnel", value_name = "DIR")]
        state_dir: PathBuf,
        /// Lanes, 1 to 16.
        #[arg(long, default_value_t = 1, value_parser = lanes())]
        lanes: u8,
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
        /// Once for each lane: TAP, UDP of IPv4 for data and for handshakes, and the same two of IPv6.
        #[arg(long = "lane", required = true)]
        lanes: Vec<LaneFds>,
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
        #[arg(long)]
        open_lanes: u8,
        #[arg(long, value_delimiter = ',')]
        without: Vec<Offload>,
    },
}

fn lanes() -> clap::builder::RangedI64ValueParser<u8> {
    clap::value_parser!(u8).range(1..=i64::from(LaneNumber::MAX))
}

/// The descriptors of one lane: three, or five where there is IPv6.
#[derive(Clone, Debug)]
struct LaneFds {
    tap: RawFd,
    v4: [RawFd; 2],
    v6: Option<[RawFd; 2]>,
}

impl FromStr for LaneFds {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fds: Option<Vec<RawFd>> = text.split(',').map(|fd| fd.parse().ok()).collect();
        match fds.as_deref() {
            Some(&[tap, data4, handshakes4]) => Ok(Self {
                tap,
                v4: [data4, handshakes4],
                v6: None,
            }),
            Some(&[tap, data4, handshakes4, data6, handshakes6]) => Ok(Self {
                tap,
                v4: [data4, handshakes4],
                v6: Some([data6, handshakes6]),
            }),
            _ => Err("must be three or five descriptors"),
        }
    }
}

impl LaneFds {
    fn take(self) -> std::io::Result<InheritedLane> {
        let v6 = self.v6.map(|v6| v6.map(process::take_inherited));
        let [data6, handshakes6] = v6.map_or([None, None], |v6| v6.map(Some));
        let [data4, handshakes4] = self.v4.map(process::take_inherited);
        Ok(InheritedLane {
            tap: process::take_inherited(self.tap)?,
            udp: Sockets {
                v4: data4?,
                v6: data6.transpose()?,
            },
            handshakes: Sockets {
                v4: handshakes4?,
                v6: handshakes6.transpose()?,
            },
        })
    }
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
                lanes,
                open_lanes,
                without,
            } => {
                if open_lanes > lanes {
                    let fault = format!(
                        "--open-lanes {open_lanes}: must not be more than --lanes, which is {lanes}"
                    );
                    return Err(fault.into());
                }
                Ok(keeper::run(keeper::Options {
                    state_dir,
                    socket,
                    device,
                    port,
                    lanes,
                    open_lanes,
                    without: without.into_iter().collect(),
                })?)
            }
            Command::Key { state_dir, lanes } => {
                for lane in LaneNumber::first(lanes.into()) {
                    let key = key_file::load_or_make(&state_dir, lane)?;
                    writeln!(std::io::stdout(), "{}", key.public())?;
                }
                Ok(())
            }
            Command::Remove { device } => {
                if !process::may_configure_network() {
                    return Err(KeeperError::NotPermitted.into());
                }
                Tap::remove(&device)?;
                Ok(Nft::default().remove_guard()?)
            }
            Command::DataPlane {
                lanes,
                control,
                keeper,
                heir,
                predecessor,
                state_dir,
                device,
                port,
                open_lanes,
                without,
            } => {
                let lanes = lanes.into_iter().map(LaneFds::take);
                let inherited = Inherited {
                    lanes: lanes.collect::<Result<_, _>>()?,
                    control: process::take_inherited(control)?,
                    keeper: process::take_inherited(keeper)?,
                    heir: process::take_inherited(heir)?,
                    predecessor: predecessor.map(process::take_inherited).transpose()?,
                };
                let options = data_plane::Options {
                    state_dir,
                    device,
                    port,
                    open_lanes,
                    without: without.into_iter().collect(),
                };
                data_plane::run(inherited, options).map_err(|error| Failure { code: 1, error })
            }
        }
    }
}
