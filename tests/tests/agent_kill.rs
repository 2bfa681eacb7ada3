//! Invariant I4: the agent is killed over and over, and no packet is lost; where nothing changed, its
//! successor writes nothing to the kernel.

use anyhow::{Result, ensure};
use hawser_tests::lab::{Lab, Topology, wait_until};
use hawser_tests::traffic::{LoadSpec, SequenceLoad};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
const ROUNDS: usize = 20;
const RATE: u32 = 10_000;
/// Changed so that the monitors have something to hear; nothing of ours has these names.
const ROUTE: &str = "198.51.100.1";
const TABLE: &str = "probe";

/// Everything that the kernel says was changed in a namespace, by whomever.
struct Writes {
    monitors: Vec<Monitor>,
}

/// A program that listens, and the file that it writes.
struct Monitor {
    program: &'static str,
    child: Child,
    file: PathBuf,
    /// Stands in what it hears of the change that is made to see that it listens.
    probe: &'static str,
}

impl Monitor {
    fn text(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.file)?)
    }
}

impl Writes {
    /// Returns once both monitors have heard a change that was made for them.
    fn watch(lab: &Lab, node: &str) -> Result<Self> {
        let netns = lab.node(node).netns();
        let start = |program: &'static str, arguments: &[&str], probe| -> Result<Monitor> {
            let file = lab.dir().join(format!("{program}.monitor"));
            let mut command = netns.command(program);
            command.args(arguments).stderr(Stdio::null());
            let child = command.stdout(fs::File::create(&file)?).spawn()?;
            Ok(Monitor {
                program,
                child,
                file,
                probe,
            })
        };
        let kinds = ["monitor", "link", "address", "route", "rule", "neigh"];
        let monitors = vec![
            start("ip", &kinds, ROUTE)?,
            start("nft", &["monitor"], TABLE)?,
        ];
        wait_until("the monitors to listen", PATIENCE, || {
            netns.output("ip", &["route", "add", "blackhole", ROUTE])?;
            netns.output("ip", &["route", "del", "blackhole", ROUTE])?;
            netns.output("nft", &["add", "table", "inet", TABLE])?;
            netns.output("nft", &["delete", "table", "inet", TABLE])?;
            monitors.iter().try_fold(true, |all, monitor| {
                Ok(all && monitor.text()?.contains(monitor.probe))
            })
        })?;
        Ok(Self { monitors })
    }

    /// What was heard, without neighbours of other devices, which come and go by themselves.
    fn heard(self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for mut monitor in self.monitors {
            monitor.child.kill()?;
            monitor.child.wait()?;
            let probe = monitor.probe;
            let ours = |line: &&str| {
                let probing = line.contains(probe) || line.starts_with("# new generation");
                let other_neighbour = line.contains("lladdr") && !line.contains("dev hawser0");
                let gone = line.contains("FAILED") || line.contains("INCOMPLETE");
                !line.trim().is_empty() && !probing && !other_neighbour && !gone
            };
            let text = monitor.text()?;
            lines.extend(
                text.lines()
                    .filter(ours)
                    .map(|line| format!("{}: {line}", monitor.program)),
            );
        }
        Ok(lines)
    }
}

#[test]
fn the_agent_is_killed_twenty_times_at_ten_thousand_packets_a_second() -> Result<()> {
    let mut lab = Lab::running(Topology::two_by_two())?;
    let load = SequenceLoad::start(&lab, LoadSpec::all_pairs(&lab, RATE))?;
    let nodes = ["east-1", "west-1", "east-2", "west-2"];
    for (round, node) in (0..ROUNDS).zip(nodes.into_iter().cycle()) {
        let changed = round % 2 == 1;
        let before = load.received();
        lab.node_mut(node).kill_agent()?;
        wait_until("a thousand packets without the agent", PATIENCE, || {
            Ok(load.received() > before + 1_000)
        })?;
        if changed {
            // Another pod, an identity, and a peer's new prefix: all parts of the state move.
            lab.node(node).edit_config(|config| {
                let prefix = config.pods[0].cidr.to_string();
                let network = prefix
                    .rsplit_once('.')
                    .map_or("", |(network, _)| network)
                    .to_owned();
                let mut endpoint = config.endpoints[0].clone();
                endpoint.name = format!("default/round-{round}");
                endpoint.addresses = vec![
                    format!("{network}.{}", 100 + round)
                        .parse()
                        .expect("an address"),
                ];
                config.endpoints.push(endpoint);
                let far = config.clusters.len() - 1;
                config.clusters[far]
                    .identities
                    .push(90_000 + u32::try_from(round).expect("20 rounds"));
            })?;
        }
        let monitor = Writes::watch(&lab, node)?;
        let revision = lab.node(node).status()?["revision"]["number"].as_u64();
        lab.node_mut(node).start_agent()?;
        wait_until("the new agent to be connected and done", PATIENCE, || {
            let status = lab.node(node).status()?;
            let moved = status["revision"]["number"].as_u64() > revision;
            Ok(status["agentConnected"] == true && (moved || !changed))
        })?;
        // Its first look at everything is behind it when a second one, asked for, has been answered.
        let settled = load.received();
        wait_until("five thousand packets with the new agent", PATIENCE, || {
            Ok(load.received() > settled + 5_000)
        })?;
        let heard = monitor.heard()?;
        if !changed {
            ensure!(
                heard.is_empty(),
                "round {round}: an agent with the same configuration wrote: {heard:#?}"
            );
            ensure!(
                lab.node(node).status()?["revision"]["number"].as_u64() == revision,
                "round {round}: same state, new revision"
            );
        }
    }
    let report = load.stop()?;
    report.check()?;
    ensure!(
        report.reordered == 0,
        "{} packets were reordered",
        report.reordered
    );
    Ok(())
}
