//! The wire of a node, as tests and `lab impair` hold it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::process::Process;
use super::record::Record;
use super::wait::wait_until;
use crate::io::Netns;
use crate::wire::{
    self, Answer, Counts, Direction, Impairment, Log, LogLine, Request, Schedule, WireState,
};

/// How long the process of the wires may take until it answers.
const START: Duration = Duration::from_secs(10);
/// How long it may take for one request: it reads at most two full queues before.
const PATIENCE: Duration = Duration::from_secs(10);

/// A node's link to the underlay that can be made bad. What it does to frames is in [`Impairment`].
///
/// It starts clean. Sniffers are at the router's end: they see what a node sends after the wire, and what a node gets
/// before it. So a frame that is corrupted on its way `Out` looks foreign to them, one on its way `In` does not.
#[derive(Clone, Debug)]
pub struct Wire {
    node: String,
    lab: PathBuf,
}

impl Wire {
    pub(super) fn new(node: &str, lab: &Path) -> Self {
        Self {
            node: node.to_owned(),
            lab: lab.to_owned(),
        }
    }

    /// Whose it is.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Puts an impairment in force for a direction, and ends the schedule. Frames that were sent before the call meet
    /// what was in force then, later ones the new.
    ///
    /// # Errors
    /// When the wires' process is gone.
    pub fn set(&self, direction: Direction, impairment: &Impairment) -> Result<()> {
        let node = self.node.clone();
        self.ask(&Request::Set(node, direction, *impairment))?;
        Ok(())
    }

    /// [`Self::set`] with the impairment as text: `loss 5% delay 20ms`.
    ///
    /// # Errors
    /// When the text is wrong, or the wires' process is gone.
    pub fn impair(&self, direction: Direction, impairment: &str) -> Result<()> {
        self.set(direction, &impairment.parse()?)
    }

    /// Lets nothing pass in a direction.
    ///
    /// # Errors
    /// When the wires' process is gone.
    pub fn cut(&self, direction: Direction) -> Result<()> {
        self.set(direction, &Impairment::cut())
    }

    /// Makes both directions clean.
    ///
    /// # Errors
    /// When the wires' process is gone.
    pub fn clean(&self) -> Result<()> {
        self.set(Direction::Both, &Impairment::default())
    }

    /// Starts a schedule in place of the one before.
    ///
    /// # Errors
    /// When it makes no sense, or the wires' process is gone.
    pub fn schedule(&self, schedule: &Schedule) -> Result<()> {
        schedule.check()?;
        self.ask(&Request::Schedule(self.node.clone(), schedule.clone()))?;
        Ok(())
    }

    /// Numbers frames from 0 again, empties counts and log, ends the schedule, and takes another seed if one is given.
    ///
    /// # Errors
    /// When the wires' process is gone.
    pub fn rewind(&self, seed: Option<u64>) -> Result<()> {
        self.ask(&Request::Rewind(self.node.clone(), seed))?;
        Ok(())
    }

    /// What is in force, and what happened so far.
    ///
    /// # Errors
    /// When the wires' process is gone.
    pub fn state(&self) -> Result<WireState> {
        self.ask(&Request::Tell(self.node.clone()))
    }

    /// How many frames met which fate, since the lab began or the last [`Self::rewind`].
    ///
    /// # Errors
    /// When the wires' process is gone.
    pub fn counts(&self) -> Result<Counts> {
        Ok(self.state()?.counts)
    }

    /// The fate of every frame, since the lab began or the last [`Self::rewind`].
    ///
    /// # Errors
    /// When the log was full and lines are missing, or the wires' process is gone.
    pub fn log(&self) -> Result<Vec<LogLine>> {
        let state = self.ask(&Request::Flush(self.node.clone()))?;
        ensure!(
            state.unlogged == 0,
            "node {}: {} frames are missing in the full fate log: rewind the wire before, or use its counts",
            self.node,
            state.unlogged
        );
        Log::read(&self.log_path())
    }

    /// The file of [`Self::log`], which is complete after that call.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        wire::fate_log(&self.lab, &self.node)
    }

    pub(super) fn ask(&self, request: &Request) -> Result<WireState> {
        let failed = || {
            format!(
                "node {}: the process of the wires does not answer",
                self.node
            )
        };
        let ask = || -> Result<Answer> {
            let mut stream = UnixStream::connect(wire::socket(&self.lab))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let text = serde_json::to_string(request)?;
            stream.write_all(format!("{text}\n").as_bytes())?;
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer)?;
            Ok(serde_json::from_str(&answer)?)
        };
        match ask().with_context(failed)? {
            Answer::State(state) => Ok(*state),
            Answer::Error(text) => bail!("{text}"),
        }
    }
}

/// Starts the process that holds the wires of a lab, and waits until it listens.
pub(super) fn start_process(id: &str) -> Result<Process> {
    let directory = Record::directory_of(id);
    let mut command = Command::new(super::binary("lab")?);
    command
        .args(["wire", "--lab", id])
        .current_dir("/")
        .env(Netns::MARK, id);
    let mut process = Process::new(&directory, "wire");
    process.start(command)?;
    let socket = wire::socket(&directory);
    let mut ended = None;
    wait_until("the process of the wires answers", START, || {
        ended = process.check().err();
        Ok(ended.is_some() || UnixStream::connect(&socket).is_ok())
    })?;
    ended.map_or(Ok(process), Err)
}

/// The life of the process that holds the wires of lab `id`.
///
/// # Errors
/// When its socket cannot be made.
pub fn run_wires(id: &str) -> Result<()> {
    wire::run(&Record::directory_of(id))
}
