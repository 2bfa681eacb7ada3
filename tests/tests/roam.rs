//! A node gets another address, over and over: peers follow at once, also those that only send (F42).

use anyhow::{Context as _, Result, ensure};
use hawser_tests::depth::rounds;
use hawser_tests::lab::{Family, Lab, Pair, Topology, wait_until};
use hawser_tests::say;
use hawser_tests::traffic::{Connections, LoadReport, LoadSpec, SequenceLoad};
use hawser_tests::wire::Direction;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
/// Packets a second of each pair.
const RATE: u32 = 1_000;
/// One way, on the wire of the node that roams.
const DELAY: Duration = Duration::from_millis(10);
/// What a busy machine may take to notice a new address and say so.
const NOTICE: Duration = Duration::from_millis(40);
/// Packets that go on between two roams.
const BETWEEN: u64 = 400;

fn pair(from: &str, to: &str) -> Pair {
    Pair {
        from: from.to_owned(),
        to: to.to_owned(),
        family: Family::V4,
    }
}

/// Gives the node the other of its two addresses: the new one comes, the old one goes.
fn roam(lab: &Lab, round: u32) -> Result<()> {
    let node = lab.node("east-1");
    let home = node.underlay(Family::V4);
    let IpAddr::V4(address) = home else {
        anyhow::bail!("{home} is no IPv4 address");
    };
    let away = Ipv4Addr::from(u32::from(address) + 100);
    let (new, old) = if round % 2 == 1 {
        (away, address)
    } else {
        (address, away)
    };
    let netns = node.netns();
    netns.output("ip", &["addr", "add", &format!("{new}/24"), "dev", "eth0"])?;
    netns.output("ip", &["addr", "del", &format!("{old}/24"), "dev", "eth0"])?;
    Ok(())
}

fn lab() -> Result<Lab> {
    let lab = Lab::running(Topology::two_by_two().wired(1))?;
    // The second address of a subnet stays when the first goes, as under a DHCP client.
    lab.node("east-1")
        .netns()
        .sysctl_set("net.ipv4.conf.eth0.promote_secondaries", "1")?;
    lab.wire("east-1")?
        .impair(Direction::Both, &format!("delay {}ms", DELAY.as_millis()))?;
    Ok(lab)
}

fn roam_under_load(lab: &Lab, pairs: Vec<Pair>, count: u32) -> Result<LoadReport> {
    let rate = RATE * u32::try_from(pairs.len())?;
    let spec = LoadSpec {
        pairs,
        rate,
        size: 200,
    };
    let load = SequenceLoad::start(lab, spec)?;
    let on = |received: u64| {
        let goal = received + BETWEEN;
        wait_until("packets to go on", PATIENCE, || Ok(load.received() >= goal))
            .with_context(|| lab.account())
    };
    on(0)?;
    for round in 1..=count {
        roam(lab, round)?;
        on(load.received())?;
    }
    load.stop()
}

/// Packets that were on their way to the old address: from the moment that it went until the peer
/// has heard from the new one.
fn in_flight() -> u64 {
    u64::from(RATE) * u64::try_from((2 * DELAY + NOTICE).as_millis()).unwrap_or(0) / 1_000
}

#[test]
fn roaming_under_load_loses_what_was_in_flight_and_no_more() -> Result<()> {
    let lab = lab()?;
    let count = rounds(10, 50);
    let pairs = vec![pair("east-1-a", "west-1-a"), pair("west-1-a", "east-1-a")];
    let connections = Connections::open(&lab, &pairs, 50, Duration::from_millis(500))?;
    let report = roam_under_load(&lab, pairs, count)?;
    let [out, back] = [&report.pairs[0], &report.pairs[1]];
    say(format_args!(
        "{count} roams: of the roaming side {} of {} lost, of the other {} of {}; longest gap {} ms",
        out.lost,
        out.sent,
        back.lost,
        back.sent,
        report.longest_gap.as_millis()
    ));
    ensure!(
        back.lost <= u64::from(count) * in_flight(),
        "{} lost in {count} roams: {report:?}",
        back.lost
    );
    ensure!(
        out.lost == 0,
        "what the roaming side sends is lost: {report:?}"
    );
    connections.close()?.check()
}

#[test]
fn a_peer_that_only_sends_follows_as_well() -> Result<()> {
    let lab = lab()?;
    let count = rounds(10, 50);
    let report = roam_under_load(&lab, vec![pair("west-1-a", "east-1-a")], count)?;
    say(format_args!(
        "{count} roams of a listener: {} of {} lost, longest gap {} ms",
        report.lost,
        report.sent,
        report.longest_gap.as_millis()
    ));
    ensure!(
        report.lost <= u64::from(count) * in_flight(),
        "{} lost in {count} roams: {report:?}",
        report.lost
    );
    Ok(())
}
