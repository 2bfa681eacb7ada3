//! Removes a lab when it ends, however it ends.
//!
//! The janitor is a process of its own (`lab janitor`). It holds the reading end of a pipe whose writing end only the
//! lab's process has: end of file means that the lab is over, by its own will, by a panic or by SIGKILL. The word
//! "keep" means that the lab stays.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};

use super::record::Record;
use crate::io::{
    Netns, children_of, describe_process, has_environment, ip_batch, process_ids, send_signal,
};

/// What the lab says to its janitor to leave everything standing.
const KEEP: &str = "keep";

/// How long processes are asked to end by SIGTERM before they are killed.
const ASKED: Duration = Duration::from_millis(500);
/// How long processes may take to die after SIGKILL.
const PATIENCE: Duration = Duration::from_secs(10);

/// After this time a lab whose process is gone makes nothing new.
const SETTLE: Duration = Duration::from_millis(50);

/// The lab's end of the pipe. Shared with [`LIVE`], so that an interrupt can remove what a busy thread holds.
#[derive(Clone, Debug)]
pub(crate) struct Janitor(Arc<Mutex<Option<(Child, ChildStdin)>>>);

static LIVE: Mutex<Vec<Janitor>> = Mutex::new(Vec::new());

impl Janitor {
    /// Starts the janitor of lab `id`, before anything else of the lab exists.
    pub(crate) fn hire(id: &str) -> Result<Self> {
        let mut child = Command::new(super::binary("lab")?)
            .args(["janitor", id])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Not the lab's group: Ctrl-C and `kill -9 -GROUP` must not reach it.
            .process_group(0)
            .spawn()
            .context("failed to start the lab's janitor")?;
        let input = child.stdin.take().context("the janitor has no stdin")?;
        let janitor = Self(Arc::new(Mutex::new(Some((child, input)))));
        let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|other| other.0.lock().is_ok_and(|pipe| pipe.is_some()));
        live.push(janitor.clone());
        Ok(janitor)
    }

    /// Has the lab removed and waits for it. A second call does nothing.
    pub(crate) fn remove(&self) -> Result<()> {
        let Some((mut child, input)) = self.take() else {
            return Ok(());
        };
        drop(input);
        let status = child
            .wait()
            .context("failed to wait for the lab's janitor")?;
        if !status.success() {
            bail!("the lab's janitor could not remove everything; `lab down --all` tries again");
        }
        Ok(())
    }

    /// Sends the janitor home; the lab stays.
    pub(crate) fn dismiss(&self) -> Result<()> {
        let (mut child, mut input) = self
            .take()
            .context("interrupted: the lab is being removed")?;
        input
            .write_all(KEEP.as_bytes())
            .context("failed to tell the janitor to keep the lab")?;
        drop(input);
        child
            .wait()
            .context("failed to wait for the lab's janitor")?;
        Ok(())
    }

    fn take(&self) -> Option<(Child, ChildStdin)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Removes every lab that this process holds: for an interrupt handler, which then ends the process.
pub fn remove_live_labs() {
    let live: Vec<Janitor> = LIVE
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .drain(..)
        .collect();
    for janitor in live {
        janitor.remove().ok();
    }
}

/// The janitor's whole life: wait for the end of the lab, then remove it.
///
/// # Errors
/// When something could not be removed.
pub fn run_janitor(id: &str) -> Result<()> {
    let mut said = String::new();
    std::io::stdin().read_to_string(&mut said).ok();
    if said == KEEP {
        Ok(())
    } else {
        remove_everything_of(id)
    }
}

/// Kills every process of lab `id`, then removes its namespaces and files. Goes on after errors.
///
/// # Errors
/// What could not be removed.
pub fn remove_everything_of(id: &str) -> Result<()> {
    if id.is_empty() || !id.chars().all(|character| character.is_ascii_hexdigit()) {
        bail!("{id:?} is not the id of a lab");
    }
    let mut problems = remove_namespaces(id);
    // An interrupted lab may have had an `ip` under way that made one more.
    thread::sleep(SETTLE);
    if !namespaces_of(id).is_empty() {
        problems.extend(remove_namespaces(id));
    }
    remove_sockets(id);
    let directory = Record::directory_of(id);
    if directory.exists()
        && let Err(error) = fs::remove_dir_all(&directory)
    {
        problems.push(format!("{}: {error}", directory.display()));
    }
    if let Some(base) = directory.parent() {
        // Succeeds only for the last lab, when the directory is empty.
        fs::remove_dir(base).ok();
    }
    if problems.is_empty() {
        Ok(())
    } else {
        bail!("lab {id}: not removed: {}", problems.join("; "))
    }
}

/// Where stock WireGuard programs put their sockets, outside of every namespace, by the name of the device.
const SOCKETS: &str = "/var/run/wireguard";

/// Removes the sockets of the lab's stock WireGuard devices: a program that was killed leaves its own behind.
fn remove_sockets(id: &str) {
    let entries = fs::read_dir(SOCKETS).into_iter().flatten();
    let prefix = format!("hw{id}");
    for entry in entries.filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            fs::remove_file(entry.path()).ok();
        }
    }
}

/// Removes the lab's namespaces and kills what lives in them; returns what did not work.
fn remove_namespaces(id: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let names = namespaces_of(id);
    let namespaces: Vec<Netns> = names
        .iter()
        .filter_map(|name| Netns::open(name).ok())
        .collect();
    // The names go first: whoever is still at work in the lab's own process can start nothing more inside.
    let commands: String = names
        .iter()
        .map(|name| format!("netns del {name}\n"))
        .collect();
    if let Err(error) = ip_batch(None, &commands) {
        problems.push(format!("{error:#}"));
    }
    let end = Instant::now() + PATIENCE;
    let asked = Instant::now() + ASKED;
    loop {
        let members = members_of(id, &namespaces);
        if members.is_empty() {
            break;
        }
        if Instant::now() >= end {
            let told: Vec<String> = members.into_iter().map(describe_process).collect();
            problems.push(format!("{} did not die", told.join(", ")));
            break;
        }
        // Asked first: a parent that ends in order takes its children along, and nobody is left to be reaped.
        let signal = if Instant::now() < asked {
            Signal::SIGTERM
        } else {
            Signal::SIGKILL
        };
        for pid in members {
            send_signal(pid, signal).ok();
        }
        thread::sleep(Duration::from_millis(10));
    }
    problems
}

fn namespaces_of(id: &str) -> Vec<String> {
    let prefix = format!("hw{id}-");
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&prefix)).collect()
}

/// Every process of the lab: those inside its namespaces, those that carry its mark, and their descendants (the data
/// plane may live in a namespace of its own with an empty environment).
fn members_of(id: &str, namespaces: &[Netns]) -> BTreeSet<i32> {
    let mut members: BTreeSet<i32> = BTreeSet::new();
    for namespace in namespaces {
        members.extend(namespace.pids().unwrap_or_default());
    }
    members.extend(
        process_ids()
            .into_iter()
            .filter(|pid| has_environment(*pid, Netns::MARK, id)),
    );
    let mut unseen: Vec<i32> = members.iter().copied().collect();
    while let Some(pid) = unseen.pop() {
        for child in children_of(pid) {
            if members.insert(child) {
                unseen.push(child);
            }
        }
    }
    let (own, parent): (Pid, Pid) = (getpid(), getppid());
    members.remove(&own.as_raw());
    members.remove(&parent.as_raw());
    members
}
