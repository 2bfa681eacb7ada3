//! Invariant I1: nothing between pods of different nodes is on an underlay link in clear, whatever
//! starts, stops, dies, or is removed by hand.

use anyhow::{Context as _, Result, ensure};
use hawser_tests::lab::{Lab, Topology, wait_until};
use hawser_tests::sniffer::{Plant, Sniffer};
use hawser_tests::traffic::{LoadSpec, SequenceLoad};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// A lab whose pods talk all the time, under sniffers.
struct Watched {
    lab: Lab,
    sniffer: Sniffer,
    load: SequenceLoad,
}

impl Watched {
    /// The sniffers and the load are there before any process of ours.
    fn start() -> Result<Self> {
        let mut lab = Lab::new(Topology::two_by_two())?;
        let sniffer = lab.sniffer()?;
        let load = SequenceLoad::start(&lab, LoadSpec::all_pairs(&lab, 2_000))?;
        lab.start()?;
        lab.wait_ready(PATIENCE)?;
        let watched = Self { lab, sniffer, load };
        watched.flows("start")?;
        Ok(watched)
    }

    /// Waits until packets arrive again on the whole, as they do at 2,000 a second.
    fn flows(&self, after: &str) -> Result<()> {
        let before = self.load.received();
        wait_until(&format!("traffic after {after}"), PATIENCE, || {
            Ok(self.load.received() > before + 500)
        })
    }

    /// Waits until `count` more packets were offered, whether or not they arrive.
    fn offered(&self, count: u64) -> Result<()> {
        let before = self.load.sent();
        wait_until("more packets offered", PATIENCE, || {
            Ok(self.load.sent() > before + count)
        })
    }

    fn end(self) -> Result<()> {
        self.load.stop()?;
        self.sniffer.stop()?.check()
    }
}

/// What the guard of a node has dropped so far, as `nft` lists it.
fn guard_drops(lab: &Lab, node: &str) -> Result<u64> {
    let netns = lab.node(node).netns();
    let mut sum = 0;
    for family in ["inet", "netdev"] {
        let text = netns.output(
            "nft",
            &["list", "counters", "table", family, "hawser_guard"],
        )?;
        for line in text.lines().filter(|line| line.contains("packets")) {
            let mut words = line
                .split_whitespace()
                .skip_while(|word| *word != "packets");
            sum += words
                .nth(1)
                .context("a number follows `packets`")?
                .parse::<u64>()?;
        }
    }
    Ok(sum)
}

#[test]
fn killing_any_process_of_ours_in_any_order_shows_nothing() -> Result<()> {
    let mut watched = Watched::start()?;
    for node in ["east-1", "west-2"] {
        watched.lab.node_mut(node).kill_agent()?;
        watched.flows("the agent was killed")?;
        watched.lab.node(node).kill_data_plane()?;
        watched.flows("the data plane was killed with no agent")?;
        watched.lab.node_mut(node).kill_keeper()?;
        watched.offered(1_000)?;
        watched.lab.node_mut(node).start_keeper()?;
        watched.lab.node(node).wait_ready(3, PATIENCE)?;
        watched.flows("the keeper came back with no agent")?;
        watched.lab.node_mut(node).start_agent()?;
        watched.flows("the agent came back")?;
    }
    // All of it at once, then stopped in order, and nothing of ours runs while pods go on sending.
    for node in watched.lab.nodes_mut() {
        node.kill_agent()?;
        node.kill_keeper()?;
    }
    watched.offered(2_000)?;
    for node in watched.lab.nodes_mut() {
        node.start_keeper()?;
        node.start_agent()?;
    }
    watched.lab.wait_ready(PATIENCE)?;
    watched.flows("everything came back")?;
    for node in watched.lab.nodes_mut() {
        node.stop_agent()?;
        node.stop_keeper()?;
    }
    watched.offered(2_000)?;
    watched.end()
}

#[test]
fn removing_routes_rules_and_the_device_by_hand_shows_nothing() -> Result<()> {
    let mut watched = Watched::start()?;
    // The mesh route, with the agent there: repaired. Its loss would send packets out by eth0.
    let netns = watched.lab.node("east-1").netns().clone();
    netns.output("ip", &["route", "del", "10.2.1.0/24"])?;
    watched.flows("the mesh route was removed")?;
    wait_until("the route to be back", PATIENCE, || {
        Ok(netns
            .output("ip", &["route", "show", "10.2.1.0/24"])?
            .contains("hawser0"))
    })?;
    // The same with nobody to repair it, and without the unreachable routes under it: the guard holds.
    watched.lab.node_mut("east-1").kill_agent()?;
    let before = guard_drops(&watched.lab, "east-1")?;
    for (family, routes) in [
        ("-4", ["10.2.1.0/24", "10.2.2.0/24"]),
        ("-6", ["fd01:2:1::/64", "fd01:2:2::/64"]),
    ] {
        for route in routes {
            netns.output("ip", &[family, "route", "del", route, "dev", "hawser0"])?;
        }
        netns.output("ip", &[family, "route", "flush", "type", "unreachable"])?;
    }
    watched.offered(1_000)?;
    let dropped = guard_drops(&watched.lab, "east-1")? - before;
    ensure!(
        dropped > 100,
        "pods sent, no route led to the tunnel, and the guard dropped only {dropped}"
    );
    watched.lab.node_mut("east-1").start_agent()?;
    watched.flows("the agent came back")?;
    // The guard itself, with all ours there: repaired by the keeper, and the routes hold meanwhile.
    for node in ["east-1", "west-1"] {
        let netns = watched.lab.node(node).netns().clone();
        for round in 0..10 {
            netns.output("nft", &["flush", "ruleset"])?;
            wait_until("the guard to be back", PATIENCE, || {
                Ok(netns
                    .output("nft", &["list", "table", "netdev", "hawser_guard"])
                    .is_ok())
            })
            .with_context(|| format!("round {round}"))?;
        }
    }
    watched.flows("the ruleset was flushed")?;
    // The device, with all ours there: the keeper makes it again, the agent sets it up.
    let netns = watched.lab.node("west-1").netns().clone();
    netns.output("ip", &["link", "del", "hawser0"])?;
    watched.lab.wait_ready(PATIENCE)?;
    wait_until("the mesh routes to be back", PATIENCE, || {
        Ok(netns
            .output("ip", &["route", "show", "10.1.1.0/24"])?
            .contains("hawser0"))
    })?;
    watched.lab.node("west-1").route_pods()?;
    watched.flows("the device was removed")?;
    // With all ours dead, the routes alone.
    let node = watched.lab.node_mut("west-1");
    node.kill_agent()?;
    node.kill_keeper()?;
    node.netns().output("nft", &["flush", "ruleset"])?;
    watched.offered(1_000)?;
    // The device, with all ours dead: unreachable routes are under the mesh routes.
    let node = watched.lab.node_mut("west-1");
    node.netns().output("ip", &["link", "del", "hawser0"])?;
    watched.offered(1_000)?;
    let node = watched.lab.node_mut("west-1");
    node.start_keeper()?;
    node.start_agent()?;
    watched.lab.node("west-1").wait_ready(3, PATIENCE)?;
    watched.lab.node("west-1").route_pods()?;
    watched.flows("all came back")?;
    watched.end()
}

/// Planted leaks, so that a clean report means something.
#[test]
fn every_planted_leak_is_caught() -> Result<()> {
    let mut lab = Lab::new(Topology::two_by_two())?;
    lab.start()?;
    lab.wait_ready(PATIENCE)?;
    let nodes = ["east-1", "east-2", "west-1", "west-2"];
    let plants = Plant::ALL.into_iter().cycle();
    for (number, (plant, node)) in (1..=20).zip(plants.zip(nodes.into_iter().cycle())) {
        let sniffer = lab.sniffer()?;
        let load = SequenceLoad::start(&lab, LoadSpec::all_pairs(&lab, 1_000))?;
        sniffer.plant(&lab, node, plant)?;
        wait_until("some traffic beside it", PATIENCE, || {
            Ok(load.received() > 100)
        })?;
        load.stop()?;
        let report = sniffer.stop()?;
        ensure!(
            report.check().is_err(),
            "leak {number} of 20, {plant:?} on {node}, was not caught: {report:?}"
        );
        ensure!(
            report.leaks.iter().any(|leak| leak.link == node),
            "leak {number} of 20, {plant:?}, was not seen on {node}: {:?}",
            report.leaks
        );
    }
    Ok(())
}
