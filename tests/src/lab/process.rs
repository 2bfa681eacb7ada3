//! One long-running program of a node.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use super::wait::wait_until;
use crate::io::{is_alive, send_signal};

/// How long a program may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(10);

/// One program with its log and its process id on disk, so that `lab down` and a later `lab exec` find it again.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    log: PathBuf,
    pid_file: PathBuf,
    child: Option<Child>,
    pid: Option<i32>,
}

impl Process {
    /// A program that is not started yet, or was started by an earlier holder of the lab.
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        let pid_file = directory.join(format!("{name}.pid"));
        let pid = fs::read_to_string(&pid_file)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        Self {
            name: name.to_owned(),
            log: directory.join(format!("{name}.log")),
            pid_file,
            child: None,
            pid,
        }
    }

    pub(crate) fn start(&mut self, mut command: Command) -> Result<()> {
        if let Some(pid) = self.pid() {
            bail!("{} runs already as process {pid}", self.name);
        }
        let log: File = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("failed to open {}", self.log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("failed to share the log")?)
            .stderr(log)
            // A group of its own: Ctrl-C at the terminal is for the lab, which then removes everything in order.
            .process_group(0);
        let child = command
            .spawn()
            .with_context(|| format!("failed to start {}", self.name))?;
        let pid = i32::try_from(child.id()).context("process id does not fit")?;
        fs::write(&self.pid_file, pid.to_string()).context("failed to write the process id")?;
        (self.pid, self.child) = (Some(pid), Some(child));
        Ok(())
    }

    /// Its process id while it lives. Reaps it when it is dead.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.pid.filter(|pid| is_alive(*pid))
    }

    /// Fails with its last words if it was started and is dead.
    pub(crate) fn check(&self) -> Result<()> {
        if self.pid.is_some() && self.pid().is_none() {
            let log = self.log_text();
            let last = log
                .lines()
                .rev()
                .find(|line| !line.trim().is_empty())
                .unwrap_or("nothing in its log");
            bail!("{} ended by itself: {last}", self.name);
        }
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self
            .pid()
            .with_context(|| format!("{} is not running", self.name))?;
        send_signal(pid, signal)
    }

    /// Sends `signal` and waits for the end. A program that is not running is no error.
    pub(crate) fn end(&mut self, signal: Signal) -> Result<()> {
        if let Some(pid) = self.pid() {
            send_signal(pid, signal)?;
            wait_until(
                &format!("{} (process {pid}) has ended", self.name),
                STOP,
                || Ok(!is_alive(pid)),
            )?;
        }
        if let Some(mut child) = self.child.take() {
            child
                .wait()
                .with_context(|| format!("failed to wait for {}", self.name))?;
        }
        self.pid = None;
        fs::remove_file(&self.pid_file).ok();
        Ok(())
    }

    pub(crate) fn log_text(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Only collects one that is dead; the janitor or a kept lab decides about the living.
        if let Some(child) = &mut self.child {
            child.try_wait().ok();
        }
    }
}
