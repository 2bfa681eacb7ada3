//! Members and nodes that are revoked are cut off, from tunnels, state and names, and stay so (T17, F40).

use anyhow::{Context as _, Result, ensure};
use hawser_tests::lab::{HUB_PORT, Lab, Pair, Topology, wait_until};
use hawser_tests::say;
use hawser_tests::traffic::{LoadSpec, Ping, SequenceLoad};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
/// From the operator's word until nobody speaks with it any more.
const CUT: Duration = Duration::from_secs(5);
/// From the end of a partition until who was parted has cut it, too.
const HEALED: Duration = Duration::from_secs(1);
/// How long an answer is waited for, where there is to be none.
const ANSWER: Duration = Duration::from_millis(100);
/// Longer than a hub or an agent waits until it tries again.
const STIRRED: Duration = Duration::from_secs(3);
/// Packets a second, all pairs together.
const RATE: u32 = 1_000;

/// Clusters `east`, `west` and `north`, whose CAs their hubs make, which join by invitation and may revoke each other.
fn topology() -> Result<Topology> {
    let clusters = [("east", 1), ("west", 2), ("north", 3)]
        .map(|(name, id)| format!("{{name: {name}, id: {id}, nodes: 2, pods: 1, hubs: 1}}"));
    Ok(Topology::parse(&format!("clusters: [{}]", clusters.join(", ")))?.revoking())
}

/// How a cluster's hub sees another one; `None`: not at all.
fn state_of(lab: &Lab, cluster: &str, other: &str) -> Result<Option<(String, u64)>> {
    let members = lab.members(cluster)?;
    let member = members.iter().find(|member| member["name"] == other);
    let Some(member) = member else {
        return Ok(None);
    };
    let state = member["state"].as_str().context("no state")?.to_owned();
    Ok(Some((
        state,
        member["records"].as_u64().context("no count")?,
    )))
}

/// The nodes that have a peer whose name begins so.
fn with_peer(lab: &Lab, name: &str) -> Result<Vec<String>> {
    let mut with = Vec::new();
    for node in lab.nodes() {
        let status = node.status()?;
        let peers = status["peers"].as_array().context("no peers")?;
        let mut names = peers.iter().filter_map(|peer| peer["name"].as_str());
        if names.any(|peer| peer.starts_with(name)) {
            with.push(node.name().to_owned());
        }
    }
    Ok(with)
}

fn answers(lab: &Lab, from: &str, to: &str) -> Result<bool> {
    let ping = Ping::new(lab.pod(to).v4()).deadline(ANSWER);
    Ok(ping.run(lab.pod(from).netns())?.is_complete())
}

/// Both ways.
fn between(one: &str, other: &str) -> Vec<Pair> {
    let families = hawser_tests::lab::Family::BOTH;
    let pair = |from: &str, to: &str, family| Pair {
        from: from.to_owned(),
        to: to.to_owned(),
        family,
    };
    let both = |family| [pair(one, other, family), pair(other, one, family)];
    families.into_iter().flat_map(both).collect()
}

/// Traffic of those who have nothing to do with it.
fn bystanders(lab: &Lab) -> Result<SequenceLoad> {
    let spec = LoadSpec {
        pairs: between("east-1-a", "west-2-a"),
        rate: RATE,
        size: 200,
    };
    SequenceLoad::start(lab, spec)
}

fn restart_hubs(lab: &mut Lab, cluster: &str) -> Result<()> {
    let hubs = lab.hubs_mut().iter_mut();
    for hub in hubs.filter(|hub| hub.cluster() == cluster) {
        hub.kill()?;
        hub.start()?;
    }
    Ok(())
}

#[test]
fn a_cluster_that_is_revoked_is_cut_off_by_all_who_follow_and_costs_nobody_else_a_packet()
-> Result<()> {
    let mut lab = Lab::running(topology()?)?;
    let sniffer = lab.sniffer()?;
    for from in ["west-1-a", "east-2-a"] {
        ensure!(answers(&lab, from, "north-1-a")?, "{from} before");
    }
    let load = bystanders(&lab)?;
    let start = Instant::now();
    let told = lab.revoke("east", "north")?;
    ensure!(
        told.starts_with("cluster north is revoked, epoch "),
        "{told}"
    );
    let mut took = Vec::new();
    for cluster in ["east", "west"] {
        wait_until("its hub has cut it off", PATIENCE, || {
            Ok(state_of(&lab, cluster, "north")? == Some(("revoked".to_owned(), 0)))
        })?;
        took.push((cluster, start.elapsed().as_millis()));
    }
    let own = ["north-1".to_owned(), "north-2".to_owned()];
    wait_until("no node of others has its nodes as peers", PATIENCE, || {
        Ok(with_peer(&lab, "north-")? == own)
    })?;
    let all = start.elapsed();
    say(format_args!(
        "revoked at east: hubs cut it off after {took:?} ms, all nodes after {} ms",
        all.as_millis()
    ));
    ensure!(all <= CUT, "{} ms", all.as_millis());
    // Both ways, and nothing in clear: its prefixes stay blocked.
    for (from, to) in [
        ("west-1-a", "north-1-a"),
        ("north-2-a", "west-2-a"),
        ("east-1-a", "north-2-a"),
        ("north-1-a", "east-2-a"),
    ] {
        ensure!(!answers(&lab, from, to)?, "{from} still reaches {to}");
    }
    // It knocks in vain, also at hubs that have restarted.
    for cluster in ["west", "east"] {
        restart_hubs(&mut lab, cluster)?;
    }
    wait_until("hubs answer again", PATIENCE, || {
        Ok(lab.members("west").is_ok() && lab.members("east").is_ok())
    })?;
    thread::sleep(STIRRED);
    for cluster in ["east", "west"] {
        let state = state_of(&lab, cluster, "north")?;
        ensure!(
            state == Some(("revoked".to_owned(), 0)),
            "{cluster}: {state:?}"
        );
    }
    ensure!(with_peer(&lab, "north-")? == own, "it is a peer again");
    let hubs = lab.hubs().iter();
    for hub in hubs.filter(|hub| hub.cluster() != "north") {
        let refused = hub.status(&lab)?["handshakes"]["cluster_unknown"].as_u64();
        ensure!(
            refused > Some(0),
            "{}: north did not even knock",
            hub.node()
        );
    }
    let report = load.stop()?;
    report.check()?;
    say(format_args!(
        "east and west meanwhile: {} packets, {} lost",
        report.sent, report.lost
    ));
    // Let in again by the one that had cut it off.
    let start = Instant::now();
    lab.readmit("east", "north")?;
    wait_until("it is answered again", PATIENCE, || {
        Ok(answers(&lab, "west-1-a", "north-1-a")? && answers(&lab, "east-1-a", "north-2-a")?)
    })?;
    say(format_args!(
        "let in again after {} ms",
        start.elapsed().as_millis()
    ));
    sniffer.stop()?.check()
}

#[test]
fn who_was_parted_cuts_it_off_within_a_second_of_healing() -> Result<()> {
    let lab = Lab::running(topology()?)?;
    let rule = format!(
        "add table inet cut\nadd chain inet cut forward {{ type filter hook forward priority 0; }}\n\
         add rule inet cut forward udp dport {HUB_PORT} drop\nadd rule inet cut forward udp sport {HUB_PORT} drop\n"
    );
    let file = lab.dir().join("cut.nft");
    std::fs::write(&file, rule)?;
    let router = lab.router();
    router.output("nft", &["-f", &file.to_string_lossy()])?;
    // Longer than connections live that hear nothing.
    thread::sleep(STIRRED);
    lab.revoke("east", "north")?;
    thread::sleep(STIRRED);
    ensure!(
        answers(&lab, "west-1-a", "north-1-a")?,
        "west cannot know yet"
    );
    ensure!(!answers(&lab, "east-1-a", "north-1-a")?, "east does");
    router.output("nft", &["delete", "table", "inet", "cut"])?;
    let start = Instant::now();
    let own = ["north-1".to_owned(), "north-2".to_owned()];
    wait_until("no node of west has its nodes as peers", PATIENCE, || {
        Ok(with_peer(&lab, "north-")? == own)
    })?;
    let took = start.elapsed();
    say(format_args!(
        "parted, healed: cut off after {} ms",
        took.as_millis()
    ));
    ensure!(
        !answers(&lab, "west-1-a", "north-1-a")?,
        "it is still answered"
    );
    ensure!(took <= HEALED, "{} ms", took.as_millis());
    Ok(())
}

#[test]
fn a_node_that_is_revoked_is_nobodys_peer_and_its_hub_serves_it_no_more() -> Result<()> {
    let mut lab = Lab::running(topology()?)?;
    let sniffer = lab.sniffer()?;
    let load = bystanders(&lab)?;
    let start = Instant::now();
    let told = lab.revoke("east", "east-2")?;
    ensure!(told.starts_with("node east-2 is revoked"), "{told}");
    wait_until("nobody has it as a peer", PATIENCE, || {
        Ok(with_peer(&lab, "east-2")?.is_empty())
    })?;
    let took = start.elapsed();
    say(format_args!(
        "node revoked: nobody's peer after {} ms",
        took.as_millis()
    ));
    ensure!(took <= CUT, "{} ms", took.as_millis());
    for (from, to) in [
        ("east-1-a", "east-2-a"),
        ("east-2-a", "west-1-a"),
        ("north-1-a", "east-2-a"),
    ] {
        ensure!(!answers(&lab, from, to)?, "{from} still reaches {to}");
    }
    // Its certificate is as good as before, and worth nothing, also to a hub and an agent that start anew.
    restart_hubs(&mut lab, "east")?;
    lab.node_mut("east-2").restart_agent()?;
    wait_until("its hub turns it away", PATIENCE, || {
        let mut hubs = lab.hubs().iter();
        let hub = hubs.find(|hub| hub.cluster() == "east");
        let Ok(status) = hub.context("no hub")?.status(&lab) else {
            return Ok(false);
        };
        Ok(status["unwelcome"]["node_unknown"].as_u64() > Some(0))
    })?;
    ensure!(!lab.node("east-2").hub_connected()?, "it is served");
    ensure!(with_peer(&lab, "east-2")?.is_empty(), "it is a peer again");
    let report = load.stop()?;
    report.check()?;
    lab.readmit("east", "east-2")?;
    wait_until("it is answered again", PATIENCE, || {
        Ok(answers(&lab, "east-2-a", "west-1-a")? && answers(&lab, "east-1-a", "east-2-a")?)
    })?;
    sniffer.stop()?.check()
}
