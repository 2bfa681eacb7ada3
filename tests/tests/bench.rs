//! The bench in its shortest form: its machinery works, and leaves nothing behind. How fast anything is, is not judged.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hawser_tests::bench::{self, Options};
use hawser_tests::io::send_signal;
use hawser_tests::lab::{binary, records, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;

fn options(figures: &[&str]) -> Options {
    Options {
        name: "datapath".to_owned(),
        quick: false,
        json: None,
        write: false,
        only: vec!["raw".to_owned(), "hawser".to_owned()],
        figures: figures.iter().map(|name| (*name).to_owned()).collect(),
        conditions: vec!["base".to_owned()],
        rounds: Some(1),
        seconds: Some(1),
    }
}

#[test]
fn every_measurement_of_the_datapath_bench_gives_values() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("figures.json");
    let measurements = ["idle", "tcp1", "both", "udp512", "connections", "memory"];
    let options = Options {
        json: Some(file.clone()),
        ..options(&measurements)
    };
    let mut out = Vec::new();
    bench::run(&options, &mut out).with_context(|| String::from_utf8_lossy(&out).into_owned())?;
    let said = String::from_utf8_lossy(&out).into_owned();
    let report: Value = serde_json::from_slice(&fs::read(&file)?)?;
    let samples = report["samples"].as_array().context("no samples")?;
    for (measurement, value) in [
        ("idle", "round trip ms"),
        ("tcp1", "Gbit/s"),
        ("tcp1", "round trip p99 ms"),
        ("both", "Gbit/s"),
        ("udp512", "kpackets/s"),
        ("connections", "connections/s"),
        ("memory", "MiB"),
    ] {
        for variant in ["raw", "hawser"] {
            let kept: Vec<&Value> = samples
                .iter()
                .filter(|sample| {
                    sample["kept"] == true
                        && sample["measurement"] == measurement
                        && sample["variant"] == variant
                })
                .collect();
            // Raw has no processes, so no memory.
            let wanted = usize::from((measurement, variant) != ("memory", "raw"));
            ensure!(
                kept.len() == wanted,
                "{measurement} of {variant}: {kept:?}\n{said}"
            );
            for sample in kept {
                let number = sample["values"][value].as_f64();
                ensure!(
                    number.is_some_and(|number| number > 0.0),
                    "{measurement} of {variant}: {sample}"
                );
            }
        }
    }
    let tunnel = samples
        .iter()
        .find(|sample| sample["measurement"] == "tcp1" && sample["variant"] == "hawser");
    let cost = tunnel.and_then(|sample| sample["values"]["tunnel CPU-s/GB"].as_f64());
    ensure!(
        cost.is_some_and(|cost| cost > 0.0),
        "the tunnel costs nothing: {tunnel:?}"
    );
    ensure!(said.contains("not measured:"), "{said}");
    let own = i32::try_from(std::process::id())?;
    ensure!(
        records().iter().all(|record| record.owner != own),
        "a lab is left"
    );
    Ok(())
}

#[test]
fn the_bench_of_many_peers_gives_values() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("figures.json");
    let options = Options {
        name: "peers".to_owned(),
        only: Vec::new(),
        conditions: vec!["peers-100".to_owned()],
        json: Some(file.clone()),
        ..options(&["idle", "bursts", "packets", "memory"])
    };
    let mut out = Vec::new();
    bench::run(&options, &mut out).with_context(|| String::from_utf8_lossy(&out).into_owned())?;
    let report: Value = serde_json::from_slice(&fs::read(&file)?)?;
    let figures = report["figures"].as_array().context("no figures")?;
    for name in [
        "UDP in runs, 100 active peers to 1",
        "UDP one by one, 100 active peers to 1",
        "peak memory, 100 active peers",
    ] {
        let figure = figures.iter().find(|figure| figure["name"] == name);
        let median = figure.and_then(|figure| figure["spread"]["median"].as_f64());
        ensure!(
            median.is_some_and(|median| median > 0.0),
            "{name}: {figures:?}"
        );
    }
    Ok(())
}

#[test]
fn the_bench_of_state_gives_values() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("figures.json");
    let measurements = [
        "cold",
        "changes",
        "one-change",
        "churn",
        "slow",
        "flood",
        "memory",
        "replica",
    ];
    let options = Options {
        name: "sync".to_owned(),
        only: Vec::new(),
        conditions: vec!["clusters-10".to_owned()],
        json: Some(file.clone()),
        ..options(&measurements)
    };
    let mut out = Vec::new();
    bench::run(&options, &mut out).with_context(|| String::from_utf8_lossy(&out).into_owned())?;
    let report: Value = serde_json::from_slice(&fs::read(&file)?)?;
    let samples = report["samples"].as_array().context("no samples")?;
    for (measurement, value) in [
        ("cold", "s"),
        ("cold", "MiB on the wire"),
        ("changes", "changes/s"),
        ("changes", "p50 ms"),
        ("changes", "p99 ms"),
        ("changes", "agent cores"),
        ("changes", "hub cores"),
        ("one-change", "bytes"),
        ("churn", "pods"),
        ("slow", "p99 ms"),
        ("flood", "p99 to calm"),
        ("memory", "agent MiB"),
        ("memory", "hub MiB"),
        ("memory", "tunnel MiB"),
        ("replica", "s"),
        ("replica", "of a snapshot"),
    ] {
        let sample = samples
            .iter()
            .find(|sample| sample["kept"] == true && sample["measurement"] == measurement);
        let number = sample.and_then(|sample| sample["values"][value].as_f64());
        ensure!(
            number.is_some_and(|number| number > 0.0),
            "{measurement}, {value}: {samples:?}"
        );
    }
    // What is a rule and no speed holds in any size, on any machine.
    let churn = samples
        .iter()
        .find(|sample| sample["measurement"] == "churn");
    let bytes = churn.and_then(|sample| sample["values"]["bytes"].as_f64());
    ensure!(bytes == Some(0.0), "pods that concern nobody: {churn:?}");
    Ok(())
}

#[test]
fn an_interrupt_removes_the_labs_of_a_bench() -> Result<()> {
    let mut child = Command::new(binary("bench")?)
        .args([
            "datapath",
            "--only",
            "gotatun",
            "--figures",
            "idle,tcp1",
            "--conditions",
            "base",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let pid = i32::try_from(child.id())?;
    let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
    let is_measuring =
        |line: &std::io::Result<String>| line.as_ref().is_ok_and(|line| line.contains("idle"));
    ensure!(lines.any(|line| is_measuring(&line)), "it measured nothing");
    let lab = records().into_iter().find(|record| record.owner == pid);
    let id = lab.context("no lab of the bench")?.id;
    send_signal(pid, Signal::SIGINT)?;
    let status = child.wait()?;
    ensure!(status.code() == Some(130), "{status}");
    let sockets = fs::read_dir("/var/run/wireguard")?.filter_map(Result::ok);
    let of_lab = |name: String| name.starts_with(&format!("hw{id}"));
    let mut sockets = sockets.filter_map(|entry| entry.file_name().into_string().ok());
    ensure!(!sockets.any(of_lab), "a socket of lab {id} is left");
    wait_until("the lab is gone", Duration::from_secs(5), || {
        let left = fs::read_dir("/run/netns")?.filter_map(Result::ok);
        let mut left = left.filter_map(|entry| entry.file_name().into_string().ok());
        let prefix = format!("hw{id}-");
        Ok(!left.any(|name| name.starts_with(&prefix)) && records().iter().all(|r| r.id != id))
    })
}
