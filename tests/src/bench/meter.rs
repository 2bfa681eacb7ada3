//! Who used the processors during a measurement: the watched processes, the whole machine, and who does not belong here.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::io::process_ids;

/// Ticks per second of the times in /proc: USER_HZ, which Linux shows as 100 on every architecture we build for.
const TICKS: f64 = 100.0;
/// PF_KTHREAD in the flags of a process.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Processor time between two moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Usage {
    /// Seconds between the moments.
    pub(super) seconds: f64,
    /// CPU-seconds of the watched processes, what the kernel did on their behalf included.
    pub(super) watched: f64,
    /// CPU-seconds of everybody and the kernel.
    pub(super) machine: f64,
    /// Cores used by processes that are not of this bench. Kernel threads are not counted: they may work for us.
    pub(super) foreign: f64,
    /// Cores that the hypervisor kept from this machine.
    pub(super) steal: f64,
}

impl Usage {
    /// Cores that others had.
    pub(super) fn noise(&self) -> f64 {
        self.foreign + self.steal
    }
}

/// Watches some processes beside the whole machine.
#[derive(Debug)]
pub(super) struct Meter {
    watched: Vec<i32>,
}

impl Meter {
    /// For the processes with these ids.
    pub(super) fn new(watched: Vec<i32>) -> Self {
        Self { watched }
    }

    /// Does `work` and says what it cost.
    pub(super) fn measure<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Usage)> {
        let before = self.snapshot()?;
        let result = work()?;
        let after = self.snapshot()?;
        Ok((result, after.since(&before)))
    }

    fn snapshot(&self) -> Result<Snapshot> {
        let (at, text) = (Instant::now(), read("/proc/stat")?);
        let (busy, steal) = parse_machine(&text).context("/proc/stat is not as expected")?;
        // A process that ends while we look is no error; its parent has its times then.
        let processes: BTreeMap<i32, Process> = process_ids()
            .into_iter()
            .filter_map(|pid| {
                let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
                Some((pid, parse_process(&text)?))
            })
            .collect();
        let watched = self.watched.iter().try_fold(0, |sum, pid| {
            let process = processes.get(pid);
            let process =
                process.with_context(|| format!("process {pid}, which is measured, has died"))?;
            anyhow::Ok(sum + process.own)
        })?;
        let own = i32::try_from(std::process::id()).context("process id does not fit")?;
        Ok(Snapshot {
            at,
            watched,
            busy,
            steal,
            foreign: foreign(&processes, own),
        })
    }
}

/// Ticks since the start of the machine.
#[derive(Debug)]
struct Snapshot {
    at: Instant,
    watched: u64,
    busy: u64,
    steal: u64,
    foreign: u64,
}

impl Snapshot {
    fn since(&self, before: &Self) -> Usage {
        let seconds = (self.at - before.at).as_secs_f64();
        let spent = |after: u64, before: u64| after.saturating_sub(before) as f64 / TICKS;
        Usage {
            seconds,
            watched: spent(self.watched, before.watched),
            machine: spent(self.busy, before.busy),
            foreign: spent(self.foreign, before.foreign) / seconds,
            steal: spent(self.steal, before.steal) / seconds,
        }
    }
}

/// What /proc says of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    parent: i32,
    kernel: bool,
    /// Ticks in its own code and in the kernel.
    own: u64,
    /// The same of its children that have ended.
    ended: u64,
}

/// Busy and stolen ticks of the whole machine: all but idle and waiting for disks. Guests are part of user time.
fn parse_machine(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Option<Vec<u64>> = line.split_whitespace().map(|t| t.parse().ok()).collect();
    let ticks = ticks?;
    let [user, nice, system, _idle, _wait, hard, soft, steal, ..] = ticks.as_slice() else {
        return None;
    };
    Some((user + nice + system + hard + soft, *steal))
}

/// A line of /proc/PID/stat. The name is in brackets and may hold anything, brackets too.
fn parse_process(text: &str) -> Option<Process> {
    let (_, rest) = text.rsplit_once(')')?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |index: usize| words.get(index)?.parse::<u64>().ok();
    Some(Process {
        parent: words.get(1)?.parse().ok()?,
        kernel: ticks(6)? & KERNEL_THREAD != 0,
        own: ticks(11)? + ticks(12)?,
        ended: ticks(13)? + ticks(14)?,
    })
}

/// Ticks of all processes that do not descend from `own`. Ended children are counted with their parents, or compilers
/// that come and go would not be seen.
fn foreign(processes: &BTreeMap<i32, Process>, own: i32) -> u64 {
    let is_ours = |pid: i32| {
        // As many steps as there are processes: a table read while it changed could hold a circle.
        let mut at = Some(pid);
        for _ in 0..=processes.len() {
            match at {
                Some(pid) if pid == own => return true,
                Some(pid) => at = processes.get(&pid).map(|process| process.parent),
                None => return false,
            }
        }
        false
    };
    let others = processes
        .iter()
        .filter(|(pid, process)| !process.kernel && !is_ours(**pid));
    others.map(|(_, process)| process.own + process.ended).sum()
}

/// Processor time of a process since its start, in seconds, what the kernel did on its behalf included.
pub(super) fn processor_time(pid: i32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let process =
        parse_process(&read(&path)?).with_context(|| format!("{path} is not as expected"))?;
    Ok(process.own as f64 / TICKS)
}

/// The most memory that a process ever had resident, in MiB.
pub(super) fn peak_memory(pid: i32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    parse_peak(&read(&path)?).with_context(|| format!("{path} has no VmHWM"))
}

/// The memory that a process has resident now, in MiB.
pub(super) fn resident_memory(pid: i32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    parse_memory(&read(&path)?, "VmRSS:").with_context(|| format!("{path} has no VmRSS"))
}

fn parse_peak(text: &str) -> Option<f64> {
    parse_memory(text, "VmHWM:")
}

fn parse_memory(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes / 1024.0)
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("failed to read {path}"))
}

#[cfg(test)]
mod tests;
