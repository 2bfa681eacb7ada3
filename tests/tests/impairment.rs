//! What wires do to the traffic of nodes and pods.

use anyhow::{Context as _, Result, ensure};
use hawser_tests::depth::rounds;
use hawser_tests::io::{Netns, has_environment, process_ids};
use hawser_tests::lab::{Family, Lab, Topology, binary, wait_until};
use hawser_tests::traffic::{EchoServer, Iperf, LoadSpec, Ping, SequenceLoad, echo};
use hawser_tests::wire::{Direction, Kind};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

const PORT: u16 = 7007;
const ETHERNET: usize = 14;
const PATIENCE: Duration = Duration::from_secs(20);
/// How long an answer that must not come is waited for.
const MOMENT: Duration = Duration::from_millis(300);

/// Two nodes with wires and no tunnels.
fn two_nodes() -> Result<Lab> {
    let clusters =
        "clusters: [{name: e, id: 1, nodes: 1, pods: 1}, {name: w, id: 2, nodes: 1, pods: 1}]";
    Lab::new(Topology::parse(clusters)?.wired(7))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[test]
fn a_delay_is_added_one_way_or_both_ways() -> Result<()> {
    let lab = two_nodes()?;
    let (east, west) = (lab.node("e-1"), lab.node("w-1"));
    let round_trip = || -> Result<f64> {
        let report = Ping::new(west.underlay(Family::V4))
            .count(10)
            .interval(Duration::from_millis(10))
            .run(east.netns())?;
        ensure!(report.is_complete(), "{}", report.output);
        Ok(milliseconds(report.average.context("no average")?))
    };
    round_trip()?;
    for (direction, least) in [
        (Direction::Out, 20.0),
        (Direction::In, 20.0),
        (Direction::Both, 40.0),
    ] {
        lab.wire("e-1")?.clean()?;
        lab.wire("e-1")?.impair(direction, "delay 20ms")?;
        let took = round_trip()?;
        ensure!(
            (least..least * 2.0).contains(&took),
            "{direction:?}: {took} ms"
        );
    }
    Ok(())
}

#[test]
fn a_smaller_mtu_is_a_black_hole() -> Result<()> {
    let lab = two_nodes()?;
    let wire = lab.wire("e-1")?;
    let ping = |packet: usize, deadline| {
        Ping::new(lab.node("w-1").underlay(Family::V4))
            .size(packet - 28)
            .dont_fragment()
            .deadline(deadline)
            .run(lab.node("e-1").netns())
    };
    ensure!(ping(1500, PATIENCE)?.is_complete());
    wire.impair(Direction::Both, "mtu 1400")?;
    ensure!(ping(1400, PATIENCE)?.is_complete());
    let report = ping(1401, MOMENT)?;
    ensure!(
        report.received == 0 && report.too_big.is_none(),
        "{}",
        report.output
    );
    ensure!(wire.counts()?.of(Direction::Out).oversize == 1);
    Ok(())
}

#[test]
fn a_cut_in_one_direction_lets_the_other_flow() -> Result<()> {
    let lab = two_nodes()?;
    let (east, west, wire) = (lab.node("e-1"), lab.node("w-1"), lab.wire("e-1")?);
    let server = EchoServer::start(east.netns(), PORT)?;
    let to = SocketAddr::new(east.underlay(Family::V4), PORT);
    let echo = |patience| echo::udp(west.netns(), None, to, 100, lab.canary(), patience);
    echo(PATIENCE)?;
    let before = server.peers().len();
    wire.cut(Direction::Out)?;
    ensure!(echo(MOMENT).is_err(), "an answer came through a cut");
    ensure!(
        server.peers().len() > before,
        "the question did not come through"
    );
    ensure!(wire.counts()?.of(Direction::Out).cut > 0);
    wire.cut(Direction::Both)?;
    let before = server.peers().len();
    ensure!(echo(MOMENT).is_err() && server.peers().len() == before);
    wire.clean()?;
    echo(PATIENCE)?;
    Ok(())
}

#[test]
fn a_clean_wire_loses_nothing_of_ten_thousand_packets_a_second() -> Result<()> {
    let mut lab = Lab::new(Topology::two_by_two().wired(7))?;
    let sniffer = lab.sniffer()?;
    lab.start()?;
    lab.wait_ready(Duration::from_secs(30))?;
    let load = SequenceLoad::start(&lab, LoadSpec::all_pairs(&lab, 10_000))?;
    let packets = 10_000 * u64::from(rounds(5, 60));
    wait_until("all packets are sent", Duration::from_secs(300), || {
        Ok(load.sent() >= packets)
    })?;
    let report = load.stop()?;
    report.check()?;
    ensure!(report.reordered == 0, "{} reordered", report.reordered);
    let mut data = 0;
    for wire in lab.wires() {
        let counts = wire.counts()?;
        let all = counts.of(Direction::Both);
        ensure!(
            all.frames == all.passed && all.refused == 0 && counts.overruns(Direction::Both) == 0,
            "{}: {counts:?}",
            wire.node()
        );
        data += counts.kind(Direction::Out, Kind::Data).frames;
    }
    ensure!(
        data >= report.sent,
        "{data} messages for {} packets",
        report.sent
    );
    sniffer.stop()?.check()
}

#[test]
fn faults_hit_packets_and_not_super_frames() -> Result<()> {
    let mut lab = Lab::new(Topology::two_by_two().wired(7))?;
    let sniffer = lab.sniffer()?;
    lab.start()?;
    lab.wait_ready(Duration::from_secs(30))?;
    for wire in lab.wires() {
        wire.impair(Direction::Both, "loss 1%")?;
    }
    let (from, to) = (lab.pod("east-1-a"), lab.pod("west-1-a"));
    let run = Iperf::new(to.v4(), 3).start(to.netns(), from.netns())?;
    let report = run.finish()?;
    ensure!(report.retransmits > 0, "nothing was sent again");
    let longest = usize::try_from(lab.topology().underlay.mtu)? + ETHERNET;
    let (mut full, mut lost) = (0, 0);
    for wire in lab.wires() {
        for line in wire.log()? {
            ensure!(line.length <= longest, "{}: {line}", wire.node());
            full += usize::from(line.length > 1400);
        }
        lost += wire.counts()?.kind(Direction::Both, Kind::Data).lost;
    }
    ensure!(
        full > 1000 && lost > 10,
        "{full} full frames, {lost} data messages lost"
    );
    sniffer.stop()?.check()
}

#[test]
fn a_link_that_is_made_anew_keeps_what_is_in_force_and_its_counts() -> Result<()> {
    let lab = two_nodes()?;
    let (node, wire) = (lab.node("e-1"), lab.wire("e-1")?);
    let ping = |deadline| {
        Ping::new(lab.node("w-1").underlay(Family::V6))
            .deadline(deadline)
            .run(node.netns())
    };
    ensure!(ping(PATIENCE)?.is_complete());
    wire.cut(Direction::Out)?;
    ensure!(ping(MOMENT)?.received == 0);
    let before = wire.counts()?.of(Direction::Out);
    ensure!(before.passed > 0 && before.cut > 0, "{before:?}");

    node.netns().output("ip", &["link", "del", "eth0"])?;
    wait_until("the wire has noticed", PATIENCE, || {
        Ok(!wire.state()?.attached)
    })?;
    let port = lab
        .router()
        .output("ip", &["link", "show", node.port_device()]);
    ensure!(port.is_err(), "one end outlived the other");

    lab.relink("e-1")?;
    let state = wire.state()?;
    ensure!(state.attached && state.out.cut, "{state:?}");
    ensure!(ping(MOMENT)?.received == 0);
    let after = wire.counts()?.of(Direction::Out);
    ensure!(
        after.passed == before.passed && after.cut > before.cut,
        "{after:?}"
    );
    wire.clean()?;
    ensure!(ping(PATIENCE)?.is_complete());
    // And while it still stands, as a cable that is changed.
    lab.relink("e-1")?;
    ensure!(ping(PATIENCE)?.is_complete());
    Ok(())
}

#[test]
fn a_bare_link_is_made_anew_as_well() -> Result<()> {
    let lab = Lab::new(Topology::parse(
        "clusters: [{name: e, id: 1, nodes: 2, pods: 0}]",
    )?)?;
    let ping = || {
        let to = lab.node("e-2").underlay(Family::V4);
        Ping::new(to).run(lab.node("e-1").netns())
    };
    lab.relink("e-1")?;
    ensure!(ping()?.is_complete());
    lab.node("e-1")
        .netns()
        .output("ip", &["link", "del", "eth0"])?;
    lab.relink("e-1")?;
    ensure!(ping()?.is_complete());
    let text = lab
        .wire("e-1")
        .map_or_else(|error| error.to_string(), |_| String::new());
    ensure!(
        text == "node e-1: its link is a bare veth: name it in underlay.wired",
        "{text}"
    );
    Ok(())
}

#[test]
fn a_kept_lab_keeps_its_wires_until_it_is_removed() -> Result<()> {
    let lab = two_nodes()?;
    let name = format!("wires-{}", lab.id());
    drop(lab);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("lab.yaml");
    std::fs::write(
        &file,
        "clusters: [{name: e, id: 1, nodes: 2, pods: 0}]\nunderlay: {wired: [e-2], seed: 7}",
    )?;
    let run = |arguments: &[&str]| -> Result<String> {
        let output = Command::new(binary("lab")?).args(arguments).output()?;
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{}", complaint.trim());
        Ok(String::from_utf8(output.stdout)?)
    };
    let path = file.to_string_lossy();
    run(&["up", &path, "--network-only", "--name", &name])?;
    let lab = Lab::open(Some(&name))?;
    let ping = |deadline| {
        Ping::new(lab.node("e-2").underlay(Family::V4))
            .deadline(deadline)
            .run(lab.node("e-1").netns())
    };
    ensure!(ping(PATIENCE)?.is_complete());
    run(&["impair", "--name", &name, "e-2", "in", "loss", "100%"])?;
    ensure!(ping(MOMENT)?.received == 0);
    let shown = run(&["impair", "--name", &name, "all"])?;
    ensure!(
        shown.contains("  in  loss 100%\n") && shown.contains("  out clean\n"),
        "{shown}"
    );
    run(&["impair", "--name", &name, "all", "clean"])?;
    ensure!(ping(PATIENCE)?.is_complete());
    for (arguments, expected) in [
        (
            ["e-1", "cut"],
            "node e-1: its link is a bare veth: name it in underlay.wired",
        ),
        (["e-3", "cut"], "node e-3: no such node; there are e-1, e-2"),
        (
            ["e-2", "loss 200%"],
            "loss: 200%: must be 0% to 100%, with 7 decimals at most: 0.5%",
        ),
    ] {
        let refused = run(&[&["impair", "--name", &name][..], &arguments[..]].concat());
        let text = refused.map_or_else(|error| error.to_string(), |_| "accepted".to_owned());
        ensure!(text == format!("error: {expected}"), "{text}");
    }
    let id = lab.id().to_owned();
    run(&["down", "--name", &name])?;
    let marked = |pid: &i32| has_environment(*pid, Netns::MARK, &id);
    ensure!(
        !process_ids().iter().any(marked),
        "a process of the lab is left"
    );
    ensure!(!lab.dir().exists());
    Ok(())
}
