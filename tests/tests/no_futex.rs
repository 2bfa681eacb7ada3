//! While traffic flows, no thread that carries packets waits for another: no futex(2) on the path.

use anyhow::{Context as _, Result, bail, ensure};
use hawser_tests::depth::rounds;
use hawser_tests::io::send_signal;
use hawser_tests::lab::{Lab, Node, Topology, wait_until};
use hawser_tests::say;
use hawser_tests::traffic::Iperf;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
/// What the names of threads that carry packets begin with.
const CARRIERS: [&str; 2] = ["tap", "udp"];
/// System calls that a carrier makes at least while it is watched: it was on the path.
const BUSY: u64 = 200;

/// The threads of a process that carry packets, with their names.
fn carriers(pid: i32) -> Result<BTreeMap<i32, String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = entry?.path();
        let name = fs::read_to_string(path.join("comm"))?.trim().to_owned();
        if CARRIERS.iter().any(|prefix| name.starts_with(prefix)) {
            let id = path.file_name().and_then(|name| name.to_str());
            found.insert(id.context("a thread without a number")?.parse()?, name);
        }
    }
    Ok(found)
}

/// `strace` on one thread. Dropping it ends it, and the thread goes on.
struct Trace(Child);

impl Trace {
    fn start(thread: i32, file: &std::path::Path) -> Result<Self> {
        let mut command = Command::new("strace");
        command.args(["-qq", "-p", &thread.to_string(), "-o"]);
        let command = command.arg(file).stdin(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().context("failed to start strace")?;
        let mut trace = Self(child);
        let status = format!("/proc/{thread}/status");
        wait_until("strace to watch", PATIENCE, || {
            if let Some(status) = trace.0.try_wait()? {
                bail!("strace ended with {status}");
            }
            let text = fs::read_to_string(&status)?;
            let tracer = text
                .lines()
                .find_map(|line| line.strip_prefix("TracerPid:"));
            Ok(tracer.is_some_and(|pid| pid.trim() != "0"))
        })?;
        Ok(trace)
    }

    fn stop(mut self) -> Result<()> {
        send_signal(i32::try_from(self.0.id())?, Signal::SIGINT)?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }
}

/// System calls by name. A line is `name(arguments) = result`; a call that was under way at either end has no such form
/// and is counted by its beginning only.
fn calls(text: &str) -> BTreeMap<&str, u64> {
    let mut calls = BTreeMap::new();
    for line in text.lines() {
        let name = line.split_once('(').map(|(name, _)| name.trim());
        let plain = |name: &&str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if let Some(name) = name.filter(plain) {
            *calls.entry(name).or_default() += 1;
        }
    }
    calls
}

/// Watches every carrier of a node for a while; returns what each called.
fn watch(node: &Node, time: Duration) -> Result<BTreeMap<String, BTreeMap<String, u64>>> {
    let pid = node.data_plane_pid().context("no data plane")?;
    let threads = carriers(pid)?;
    for prefix in CARRIERS {
        ensure!(
            threads.values().any(|name| name.starts_with(prefix)),
            "no thread {prefix}: {threads:?}"
        );
    }
    let directory = tempfile::tempdir()?;
    let file = |thread: i32| directory.path().join(thread.to_string());
    let traces: Vec<Trace> = threads
        .keys()
        .map(|thread| Trace::start(*thread, &file(*thread)))
        .collect::<Result<_>>()?;
    let end = Instant::now() + time;
    wait_until("the time to pass", time + PATIENCE, || {
        Ok(Instant::now() >= end)
    })?;
    traces.into_iter().try_for_each(Trace::stop)?;
    threads
        .iter()
        .map(|(thread, name)| {
            let text = fs::read_to_string(file(*thread))?;
            let calls = calls(&text).into_iter();
            let calls = calls.map(|(name, count)| (name.to_owned(), count));
            Ok((format!("{} {name}", node.name()), calls.collect()))
        })
        .collect()
}

#[test]
fn threads_that_carry_packets_wait_for_no_other() -> Result<()> {
    let topology = Topology::parse(
        "clusters: [{name: east, id: 1, nodes: 1, pods: 1}, {name: west, id: 2, nodes: 1, pods: 1}]",
    )?;
    let lab = Lab::running(topology.direct())?;
    let (from, to) = (lab.pod("east-1-a"), lab.pod("west-1-a"));
    let seconds = rounds(3, 30);
    for (server, client) in [(to, from), (from, to)] {
        let mut run = Iperf::new(server.v4(), seconds + 8).start(server.netns(), client.netns())?;
        let received = || Ok::<_, anyhow::Error>(lab.node("west-1").counters()?.rx_packets);
        let before = received()?;
        wait_until("traffic", PATIENCE, || Ok(received()? > before + 1_000))?;
        let mut seen = BTreeMap::new();
        for node in lab.nodes() {
            seen.extend(watch(node, Duration::from_secs(seconds.into()) / 2)?);
        }
        ensure!(run.is_running(), "the traffic ended before the watch");
        drop(run);
        for (thread, calls) in &seen {
            say(format_args!("{thread}: {calls:?}"));
        }
        for (thread, calls) in &seen {
            let total: u64 = calls.values().sum();
            ensure!(total >= BUSY, "{thread} did nothing: {calls:?}");
            let futexes = calls.get("futex").copied().unwrap_or(0);
            ensure!(futexes == 0, "{thread}: {futexes} futex calls: {calls:?}");
        }
    }
    Ok(())
}
