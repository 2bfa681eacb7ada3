//! The `lab` program's commands.

use std::io::{Write, stderr, stdout};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

use crate::demo;
use crate::io::on_interrupt;
use crate::lab::{self, Family, Lab, Topology};

mod impair;

/// The longest wait for the tunnels of a lab that is brought up by hand.
const READY: Duration = Duration::from_secs(60);

/// Set once a signal has asked this process to end.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Clusters out of network namespaces on this machine.
#[derive(Debug, Parser)]
#[command(name = "lab", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build the clusters of a topology file, start Hawser on every node, and leave it all standing
    Up {
        /// Topology in YAML: `clusters: [{name: east, id: 1, nodes: 2, pods: 2}]`
        file: PathBuf,
        /// Name for the other commands
        #[arg(long, default_value = "lab")]
        name: String,
        /// Build the network only: start no tunnel and no agent
        #[arg(long)]
        network_only: bool,
        /// Stay in the foreground, and remove the lab on Ctrl-C
        #[arg(long)]
        hold: bool,
    },
    /// Run a command inside a pod, a node or `router`
    Exec {
        /// Which lab; not needed while there is one
        #[arg(long)]
        name: Option<String>,
        /// Pod (`east-1-a`), node (`east-1`) or `router`
        pod: String,
        /// Program and its arguments
        #[arg(last = true, required = true)]
        program: Vec<String>,
    },
    /// List the labs of this machine
    List,
    /// Remove a lab
    Down {
        /// Which lab; not needed while there is one
        #[arg(long, conflicts_with = "all")]
        name: Option<String>,
        /// Every lab that no living process holds
        #[arg(long)]
        all: bool,
    },
    /// Make the wire of a node bad, or show how it is
    Impair(impair::Options),
    /// Two clusters of two nodes: who reaches whom, how fast, and what the wire shows
    Demo(demo::Options),
    /// Wait for the end of a lab's process, then remove what is left of the lab
    #[command(hide = true)]
    Janitor {
        /// The lab's id
        id: String,
    },
    /// Hold the wires of a lab
    #[command(hide = true)]
    Wire {
        /// The lab's id
        #[arg(long)]
        lab: String,
    },
}

/// Reads the arguments and runs the command.
#[must_use]
pub fn run() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let code = execute(command);
    if INTERRUPTED.load(Ordering::SeqCst) {
        wait_for_signal();
    }
    code
}

fn execute(command: Command) -> ExitCode {
    let result = match command {
        Command::Up {
            file,
            name,
            network_only,
            hold,
        } => interruptible().and_then(|()| up(&file, &name, network_only, hold)),
        Command::Exec { name, pod, program } => exec(name.as_deref(), &pod, &program),
        Command::List => list(),
        Command::Down { name, all } => down(name.as_deref(), all),
        Command::Demo(options) => {
            return match interruptible().and_then(|()| demo::run(&options, &mut stdout().lock())) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::FAILURE,
                Err(error) => fail(&error),
            };
        }
        Command::Impair(options) => impair::run(&options, &mut stdout().lock()),
        Command::Janitor { id } => lab::run_janitor(&id),
        Command::Wire { lab } => lab::run_wires(&lab),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    if !INTERRUPTED.load(Ordering::SeqCst) {
        let line = format!("{error:#}").replace('\n', "; ");
        writeln!(stderr(), "error: {line}").ok();
    }
    ExitCode::FAILURE
}

/// On Ctrl-C removes what this process has built before it ends.
fn interruptible() -> Result<()> {
    on_interrupt(|signal| {
        INTERRUPTED.store(true, Ordering::SeqCst);
        writeln!(stderr(), "\n{signal}: removing the lab").ok();
        lab::remove_live_labs();
        std::process::exit(128 + signal as i32);
    })
}

/// Waits for the thread that removes what was built and then ends the process with the signal's code.
fn wait_for_signal() -> ! {
    loop {
        thread::park();
    }
}

fn up(file: &Path, name: &str, network_only: bool, hold: bool) -> Result<()> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("failed to read {}", file.display()))?;
    let topology = Topology::parse(&text).with_context(|| file.display().to_string())?;
    lab::check_name(name)?;
    let mut lab = Lab::new(topology)?;
    lab.call(name)?;
    if !network_only {
        lab.start()?;
        lab.wait_ready(READY)?;
    }
    if !hold {
        lab.keep()?;
    }
    describe(&lab, name, &mut stdout().lock())?;
    if hold {
        wait_for_signal();
    }
    Ok(())
}

/// Says what a lab has and how to look around in it.
///
/// # Errors
/// When `out` cannot be written to.
pub fn describe(lab: &Lab, name: &str, out: &mut impl Write) -> Result<()> {
    writeln!(
        out,
        "lab {name} is up; its files are in {}",
        lab.dir().display()
    )?;
    for node in lab.nodes() {
        let (underlay, family) = (lab.topology().underlay.family, node.endpoint());
        writeln!(
            out,
            "  node {:<12} {family} ({underlay} underlay)",
            node.name()
        )?;
        for pod in node.pods() {
            let addresses: Vec<String> = pod.addresses().iter().map(ToString::to_string).collect();
            writeln!(out, "    pod {:<12} {}", pod.name(), addresses.join("  "))?;
        }
    }
    let (first, last) = (lab.pods().next(), lab.pods().last());
    if let (Some(first), Some(last)) = (first, last)
        && let Some(address) = Family::BOTH
            .into_iter()
            .find_map(|family| last.address(family))
    {
        let node = lab.node(first.node());
        let own = std::env::args().next().unwrap_or_else(|| "lab".to_owned());
        writeln!(out, "look around:")?;
        writeln!(
            out,
            "  {own} exec --name {name} {} -- ping {address}",
            first.name()
        )?;
        writeln!(
            out,
            "  {own} exec --name {name} {} -- tcpdump -ni eth0        # the underlay, as an eavesdropper",
            node.name()
        )?;
        writeln!(
            out,
            "  {own} exec --name {name} {} -- {} status --socket {}",
            node.name(),
            lab::binary("hawser")
                .map_or_else(|_| "hawser".to_owned(), |path| path.display().to_string()),
            node.tunnel_socket().display()
        )?;
        if let Some(wire) = lab.wires().first() {
            writeln!(
                out,
                "  {own} impair --name {name} {} loss 5% delay 20ms        # `clean` ends it",
                wire.node()
            )?;
        }
        writeln!(out, "  {own} down --name {name}")?;
    }
    Ok(())
}

fn exec(name: Option<&str>, pod: &str, program: &[String]) -> Result<()> {
    let lab = Lab::open(name)?;
    let (first, rest) = program.split_first().context("no program")?;
    let mut command = lab.find(pod)?.command(first);
    // Becomes the program, so that its exit code and signals are its own. Returns only when that failed.
    let error = command.args(rest).exec();
    Err(error).context("failed to start ip (install iproute2)")
}

fn list() -> Result<()> {
    let mut out = stdout().lock();
    for record in lab::records() {
        let name = record.name.as_deref().unwrap_or("(no name)");
        let state = match (record.kept, lab::is_held(&record)) {
            (true, _) => "up".to_owned(),
            (false, true) => format!("held by process {}", record.owner),
            (false, false) => "left over; `lab down --all` removes it".to_owned(),
        };
        let clusters: Vec<String> = record
            .topology
            .clusters
            .iter()
            .map(|cluster| {
                format!(
                    "{} ({} nodes, {} pods each)",
                    cluster.name, cluster.nodes, cluster.pods
                )
            })
            .collect();
        writeln!(
            out,
            "{}  {name}  {state}  {}",
            record.id,
            clusters.join(", ")
        )
        .context("failed to write")?;
    }
    Ok(())
}

fn down(name: Option<&str>, all: bool) -> Result<()> {
    if !all {
        return Lab::open(name)?.remove();
    }
    let mut problems = Vec::new();
    for record in lab::records().iter().filter(|record| !lab::is_held(record)) {
        if let Err(error) = lab::remove_everything_of(&record.id) {
            problems.push(format!("{error:#}"));
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        bail!("{}", problems.join("; "))
    }
}
