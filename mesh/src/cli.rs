//! The command line: `hawser agent`, `hawser hub`, `hawser status`, `hawser capture`, `hawser rekey`,
//! `hawser rotate`, `hawser new-key`, `hawser ca`, `hawser node-token`, `hawser invite`, `hawser join`, `hawser leave`, `hawser revoke`,
//! `hawser readmit`, `hawser clusters`, `hawser version`.

mod agent_socket;
mod ca;
mod capture;
mod clusters;
mod hub;
mod hub_socket;
mod invite;
mod join;
mod log;
mod new_key;
mod node_token;
mod rekey;
mod revoke;
mod status;
mod ttl;

use crate::agent::{self, AgentError};
use crate::chain::one_line;
use crate::config::{DEFAULT_SOCKET, NodeConfig};
use crate::io::arena;
use clap::{Args, Parser, Subcommand, ValueEnum};
use log::LogFormat;
use std::error::Error;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed or bad input (one line on stderr), 2 wrong usage, \
                          3 another agent runs on this node";

/// Ties Kubernetes clusters together over encrypted tunnels.
#[derive(Debug, Parser)]
#[command(name = "hawser", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How log lines are written to stderr. HAWSER_LOG sets what is logged, as in `debug`.
    #[arg(long, value_enum, default_value = "text", global = true)]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the agent of this node in the foreground.
    #[command(after_help = EXIT_CODES)]
    Agent(AgentArgs),
    /// Runs the hub of a cluster in the foreground. Hubs that share a state directory are replicas: one writes, the
    /// others follow.
    #[command(after_help = EXIT_CODES)]
    Hub(HubArgs),
    /// Shows peers, handshakes, traffic, MTU and drops by reason.
    #[command(after_help = EXIT_CODES)]
    Status(StatusArgs),
    /// Writes what is inside the tunnel to a pcapng file. Only for root.
    #[command(after_help = EXIT_CODES)]
    Capture(CaptureArgs),
    /// Starts new handshakes at once; traffic goes on under the old keys until the new ones are proven. With `--keys` the
    /// agent derives other pre-shared keys with all peers instead, which leads to new handshakes too.
    #[command(after_help = EXIT_CODES)]
    Rekey(RekeyArgs),
    /// Changes all keys of this node now, as its agent does hourly: its own, of which the hub tells the others, and the
    /// pre-shared ones. No packet is lost.
    #[command(after_help = EXIT_CODES)]
    Rotate(RotateArgs),
    /// Changes this node's own WireGuard keys, and prints the public halves of the new ones for its peers: a line for each
    /// lane. The old ones stay until all peers use the new.
    #[command(after_help = EXIT_CODES)]
    NewKey(NewKeyArgs),
    /// Makes the certificates by which hubs and agents know each other, and rolls the CA of a hub that has one.
    #[command(after_help = EXIT_CODES, subcommand)]
    Ca(ca::CaCommand),
    /// Prints a token by which one node gets its certificate from the hub, once.
    #[command(after_help = EXIT_CODES)]
    NodeToken(node_token::NodeTokenArgs),
    /// Prints a token by which another cluster joins this one. It is good once, for 15 minutes at most.
    #[command(after_help = EXIT_CODES)]
    Invite(invite::InviteArgs),
    /// Joins the cluster whose hub made the token: shows what both sides let each other do, and asks.
    #[command(after_help = EXIT_CODES)]
    Join(join::JoinArgs),
    /// Makes this cluster forget one that joined it. That one forgets this cluster when its operator says so too.
    #[command(after_help = EXIT_CODES)]
    Leave(clusters::LeaveArgs),
    /// Cuts off a member, or a node of this cluster: tunnels, state and names, here and wherever this cluster may revoke.
    #[command(after_help = EXIT_CODES)]
    Revoke(revoke::RevokeArgs),
    /// Lets in again what was revoked.
    #[command(after_help = EXIT_CODES)]
    Readmit(revoke::RevokeArgs),
    /// Shows the other clusters as a hub knows them.
    #[command(after_help = EXIT_CODES, subcommand)]
    Clusters(clusters::ClustersCommand),
    /// Prints the version.
    Version,
}

#[derive(Debug, Args)]
struct AgentArgs {
    /// The node's configuration. It is read again when it changes and on SIGHUP.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only checks the file.
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Args)]
struct HubArgs {
    /// The hub's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where the cluster's manifests are, in place of the file's `source`: `dir:PATH`.
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    /// Only checks the file and the certificates.
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// Where hawser-tunnel listens.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// The form of the answer.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Args)]
struct CaptureArgs {
    /// Where hawser-tunnel listens.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Which packets: with overlay and Geneve headers, as pods see them, or both.
    #[arg(long, value_enum, default_value = "both")]
    stage: capture::Stage,
    /// Only packets to and from this peer, as CLUSTER/INDEX.
    #[arg(long, value_name = "ID")]
    peer: Option<hawser_tunnel::node::NodeId>,
    /// Ends after this many packets.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Ends after this many seconds.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Bytes kept of each packet.
    #[arg(long, value_name = "BYTES", default_value_t = 65535, value_parser = clap::value_parser!(u16).range(64..))]
    snap_length: u16,
    /// The file to write; `-` for standard output.
    #[arg(short, long, value_name = "FILE")]
    write: PathBuf,
}

#[derive(Debug, Args)]
struct RekeyArgs {
    /// Where hawser-tunnel listens.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Only with this peer, as CLUSTER/INDEX; with all of them otherwise.
    #[arg(long, value_name = "ID")]
    peer: Option<hawser_tunnel::node::NodeId>,
    /// Has the agent derive other pre-shared keys.
    #[arg(long, conflicts_with = "peer")]
    keys: bool,
}

#[derive(Debug, Args)]
struct RotateArgs {
    /// Where hawser-tunnel listens; the agent's socket is beside it.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

#[derive(Debug, Args)]
struct NewKeyArgs {
    /// Where hawser-tunnel listens.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Makes no new keys; ends a change that is going on. Peers that do not know the new keys yet are cut off until they
    /// do.
    #[arg(long)]
    forget_old: bool,
}

/// Reads the command line, does what it says, and tells how it went.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        Command::Agent(args) => run_agent(args, cli.log_format),
        Command::Hub(args) => hub::run(args, cli.log_format),
        Command::Status(args) => status::run(&args.socket, args.output),
        Command::Capture(args) => capture::run(args),
        Command::Rekey(args) if args.keys => rekey::renew_keys(&args.socket),
        Command::Rotate(args) => rekey::rotate(&args.socket),
        Command::Rekey(args) => rekey::run(&args.socket, args.peer),
        Command::NewKey(args) => new_key::run(&args.socket, args.forget_old),
        Command::Ca(command) => ca::run(command),
        Command::NodeToken(args) => node_token::run(args),
        Command::Invite(args) => invite::run(args),
        Command::Join(args) => join::run(args),
        Command::Leave(args) => clusters::leave(args),
        Command::Revoke(args) => revoke::revoke(args),
        Command::Readmit(args) => revoke::readmit(args),
        Command::Clusters(command) => clusters::run(command),
        Command::Version => print(&format!("hawser {}\n", env!("CARGO_PKG_VERSION"))),
    };
    let Err(error) = done else {
        return ExitCode::SUCCESS;
    };
    if is_broken_pipe(&*error) {
        return ExitCode::SUCCESS;
    }
    let _ = writeln!(io::stderr(), "error: {}", one_line(&*error));
    let second = matches!(
        error.downcast_ref(),
        Some(AgentError::SecondInstance { .. })
    );
    ExitCode::from(if second { 3 } else { 1 })
}

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

fn run_agent(args: &AgentArgs, format: LogFormat) -> Outcome {
    if args.check {
        NodeConfig::load(&args.config)?;
        return Ok(());
    }
    arena::share_one();
    log::start(format)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(agent::run(&args.config));
    // A thread may still wait for the data plane's answer; nothing depends on it.
    runtime.shutdown_background();
    Ok(done?)
}

/// Writes to standard output. `println!` would panic when nobody reads.
fn print(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// The reader went away, as `head` does: it has seen what it wanted.
fn is_broken_pipe(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
