//! A machine that stands still for a moment: what came meanwhile is handled in one batch, and all of it arrives (F10).

use anyhow::{Context as _, Result, ensure};
use hawser_tests::depth::rounds;
use hawser_tests::io::send_signal;
use hawser_tests::lab::{Family, Lab, Node, Topology, wait_until};
use hawser_tests::say;
use hawser_tests::stock::{self, Implementation, Meeting, StockLoad, StockPeer, StockSpec};
use hawser_tests::traffic::{LoadSpec, SequenceLoad};
use nix::sys::signal::Signal;
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
/// How long the data plane stands still: some packets of each flow come meanwhile, and no buffer is full.
const STALL: Duration = Duration::from_millis(150);
/// Packets that go on between two stalls.
const BETWEEN: u64 = 300;
/// Packets a second, each way, of each stock peer.
const RATE: u32 = 100;

/// Stops the data plane of a node for a moment.
fn stall(node: &Node) -> Result<()> {
    let pid = node.data_plane_pid().context("no data plane")?;
    send_signal(pid, Signal::SIGSTOP)?;
    thread::sleep(STALL);
    send_signal(pid, Signal::SIGCONT)
}

#[test]
fn packets_of_our_own_nodes_all_arrive_after_a_stall() -> Result<()> {
    let lab = Lab::running(Topology::two_by_two())?;
    let load = SequenceLoad::start(&lab, LoadSpec::all_pairs(&lab, 8_000))?;
    for _ in 0..rounds(10, 200) {
        for node in ["east-1", "west-1"] {
            stall(lab.node(node))?;
            let goal = load.received() + BETWEEN;
            wait_until("packets go on", PATIENCE, || Ok(load.received() >= goal))?;
        }
    }
    let report = load.stop()?;
    say(format_args!("{report}"));
    report.check().with_context(|| lab.account())?;
    ensure!(report.reordered == 0, "{report}\n{}", lab.account());
    Ok(())
}

#[test]
fn packets_of_stock_peers_all_arrive_after_a_stall() -> Result<()> {
    let mut lab = stock::lab(1500)?;
    let mut peers = Vec::new();
    for (index, implementation) in (11..).zip(Implementation::TESTED) {
        let spec = StockSpec {
            implementation,
            cluster: stock::CLUSTER,
            index,
            family: Family::V4,
            preshared: false,
        };
        let mut peer = StockPeer::start(&mut lab, spec)?;
        let meeting = Meeting {
            endpoint: true,
            keepalive: None,
        };
        peer.meet(lab.node("east-1"), meeting)?;
        peers.push(peer);
    }
    let node = lab.node("east-1");
    let declared: Vec<_> = peers.iter().map(|peer| peer.declaration(true)).collect();
    stock::declare(node, &declared)?;
    wait_until("every peer has shaken hands", PATIENCE, || {
        for peer in &peers {
            ensure!(peer.latest_handshake()?.is_some(), "{}", peer.name());
        }
        Ok(true)
    })?;
    let all: Vec<&StockPeer> = peers.iter().collect();
    let load = StockLoad::start(&lab, node.pod("a"), &all, RATE)?;
    for _ in 0..rounds(10, 200) {
        let goal = load.received() + BETWEEN;
        wait_until("packets go on", PATIENCE, || Ok(load.received() >= goal))?;
        stall(node)?;
    }
    let report = load.stop()?;
    let sum = |of: fn(&hawser_tests::traffic::PairReport) -> u64| {
        report.flows.iter().map(|(_, flow)| of(flow)).sum::<u64>()
    };
    say(format_args!(
        "{} packets between stock peers and a pod, {} lost",
        sum(|flow| flow.sent),
        sum(|flow| flow.lost),
    ));
    report.check().with_context(|| lab.account())
}
