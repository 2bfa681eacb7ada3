//! Clusters that learn of each other from their hubs, and carry on when the hubs are gone (F21, F24, I4, I5).

use anyhow::{Context as _, Result, ensure};
use hawser_tests::depth::{is_soak, rounds};
use hawser_tests::lab::{Family, HUB_PORT, Lab, Pair, Topology, manifest_of, wait_until};
use hawser_tests::say;
use hawser_tests::traffic::{LoadSpec, Ping, SequenceLoad};
use hawser_tunnel::reject::Reject;
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer is waited for, where there may be none.
const ANSWER: Duration = Duration::from_millis(30);
/// From a manifest to an answer from afar.
const FOLLOWED: Duration = Duration::from_secs(1);
/// Longer than a hub waits with what it has to tell: summaries come every five seconds where there is something to sum up.
const QUIET: Duration = Duration::from_secs(6);
/// Packets a second, all pairs together.
const RATE: u32 = 2_000;

/// How long hubs are away.
fn absence() -> Duration {
    Duration::from_secs(if is_soak() { 60 } else { 10 })
}

fn revisions(lab: &Lab) -> Result<Vec<u64>> {
    let nodes = lab.nodes().iter();
    nodes
        .map(|node| {
            let number = node.status()?["revision"]["number"].as_u64();
            number.with_context(|| format!("{} has no state", node.name()))
        })
        .collect()
}

/// Does `work`, and waits until the time is over in which it is to have an effect.
fn during(time: Duration, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let end = Instant::now() + time;
    work()?;
    thread::sleep(end.saturating_duration_since(Instant::now()));
    Ok(())
}

#[test]
fn two_clusters_learn_everything_from_their_hubs() -> Result<()> {
    let mut lab = Lab::new(Topology::two_by_two().with_hubs(1))?;
    let sniffer = lab.sniffer()?;
    let start = Instant::now();
    lab.start()?;
    lab.wait_ready(PATIENCE)?;
    say(format_args!(
        "from nothing to sessions between all nodes: {} ms",
        start.elapsed().as_millis()
    ));
    for pair in lab.cross_pairs(None) {
        let to = lab
            .pod(&pair.to)
            .address(pair.family)
            .context("no address")?;
        let report = Ping::new(to).run(lab.pod(&pair.from).netns())?;
        ensure!(
            report.received == report.sent,
            "{pair:?}: {}",
            report.output
        );
    }
    sniffer.stop()?.check()
}

#[test]
fn hubs_that_are_all_dead_cost_no_packet_and_neither_does_their_return() -> Result<()> {
    let mut lab = Lab::running(Topology::two_by_two().with_hubs(2))?;
    let load = SequenceLoad::start(&lab, LoadSpec::all_pairs(&lab, RATE))?;
    let before = revisions(&lab)?;
    for hub in lab.hubs_mut() {
        hub.kill()?;
    }
    let half = absence() / 2;
    for _ in 0..2 {
        during(half, || {
            for node in lab.nodes() {
                ensure!(node.rekey()? > 0, "nobody to rekey with");
            }
            Ok(())
        })?;
    }
    for hub in lab.hubs_mut() {
        hub.start()?;
    }
    wait_until("every agent has its hub again", PATIENCE, || {
        lab.nodes()
            .iter()
            .try_fold(true, |all, node| Ok(all && node.hub_connected()?))
    })?;
    // Whatever the return stirs up would show by now.
    during(Duration::from_secs(2), || Ok(()))?;
    let after = revisions(&lab)?;
    let report = load.stop()?;
    report.check()?;
    say(format_args!(
        "hubs away for {} s with two rekeys: {} packets, {} lost; revisions {before:?} then {after:?}",
        absence().as_secs(),
        report.sent,
        report.lost
    ));
    ensure!(
        before == after,
        "the return changed what the data planes are told"
    );
    Ok(())
}

#[test]
fn a_node_reboots_with_every_hub_away() -> Result<()> {
    let mut lab = Lab::running(Topology::two_by_two().with_hubs(1))?;
    for hub in lab.hubs_mut() {
        hub.kill()?;
    }
    for round in 1..=rounds(2, 10) {
        lab.reboot("east-2")?;
        let sniffer = lab.sniffer()?;
        let spec = LoadSpec {
            pairs: vec![
                Pair {
                    from: "west-1-a".to_owned(),
                    to: "east-2-a".to_owned(),
                    family: Family::V4,
                },
                Pair {
                    from: "east-2-a".to_owned(),
                    to: "west-1-a".to_owned(),
                    family: Family::V4,
                },
            ],
            rate: 1_000,
            size: 200,
        };
        let load = SequenceLoad::start(&lab, spec)?;
        let start = Instant::now();
        let node = lab.node_mut("east-2");
        node.start_keeper()?;
        node.start_agent()?;
        wait_until("packets both ways", PATIENCE, || {
            Ok(load.received_by_pair().iter().all(|count| *count > 0))
        })?;
        let back = start.elapsed();
        lab.node("east-2").wait_ready(3, PATIENCE)?;
        load.stop()?;
        say(format_args!(
            "reboot {round} without a hub: both ways after {} ms",
            back.as_millis()
        ));
        ensure!(back <= Duration::from_secs(2), "{} ms", back.as_millis());
        sniffer.stop()?.check()?;
    }
    Ok(())
}

/// A pod without an identity does not get a word out; it may speak as soon as its cluster knows it, and to the far side
/// as soon as that has heard of its identity.
#[test]
fn pods_come_and_go_and_the_far_side_follows() -> Result<()> {
    let lab = Lab::running(Topology::two_by_two().with_hubs(1))?;
    let manifests = lab.manifests("east")?;
    let pod = lab.pod("east-1-b").clone();
    let to = lab.pod("west-2-a").v4();
    for round in 1..=rounds(2, 20) {
        manifests.remove_pod(hawser_tests::lab::NAMESPACE, pod.name())?;
        let dropped = lab.node("east-1").dropped(Reject::SourceNotLocal)?;
        wait_until("the pod is not carried any more", PATIENCE, || {
            Ping::new(to).deadline(ANSWER).run(pod.netns())?;
            Ok(lab.node("east-1").dropped(Reject::SourceNotLocal)? > dropped)
        })?;
        // Other labels, another identity: one that nobody has heard of.
        let mut manifest = manifest_of(&pod);
        manifest.app = format!("round-{round}");
        let start = Instant::now();
        manifests.pod(&manifest)?;
        wait_until("the far side answers the pod", PATIENCE, || {
            Ok(Ping::new(to)
                .deadline(ANSWER)
                .run(pod.netns())?
                .is_complete())
        })?;
        let took = start.elapsed();
        say(format_args!(
            "a pod with a new identity is answered from afar after {} ms",
            took.as_millis()
        ));
        ensure!(took <= FOLLOWED, "{} ms", took.as_millis());
    }
    Ok(())
}

/// Bytes of messages that the agents of a cluster have heard of their hub, node by node.
fn heard(lab: &Lab, cluster: &str) -> Result<Vec<u64>> {
    let nodes = lab.nodes().iter().filter(|node| node.cluster() == cluster);
    nodes
        .map(|node| {
            let bytes = node.agent_status()?["hub"]["bytesIn"].as_u64();
            bytes.with_context(|| format!("{} does not count", node.name()))
        })
        .collect()
}

/// Pods of an identity that is known already, which no service exports and no policy selects.
#[test]
fn pods_that_concern_nobody_cost_the_far_agents_no_byte() -> Result<()> {
    let lab = Lab::running(Topology::two_by_two().with_hubs(1))?;
    let manifests = lab.manifests("east")?;
    let mut known = heard(&lab, "west")?;
    wait_until("the far agents have heard everything", PATIENCE, || {
        thread::sleep(QUIET);
        let before = std::mem::replace(&mut known, heard(&lab, "west")?);
        Ok(known == before)
    })?;
    let own = heard(&lab, "east")?;
    let count = rounds(50, 250);
    let pods = (0..count).map(|number| {
        let mut manifest = manifest_of(lab.pod("east-1-a"));
        manifest.name = format!("extra-{number}");
        manifest.addresses = vec![format!("10.1.1.{}", number % 150 + 100).parse()?];
        anyhow::Ok(manifest)
    });
    for manifest in pods.collect::<Result<Vec<_>>>()? {
        let before = heard(&lab, "east")?[0];
        manifests.pod(&manifest)?;
        wait_until("the pod's own agent hears of it", PATIENCE, || {
            Ok(heard(&lab, "east")?[0] > before)
        })?;
        manifests.remove_pod(hawser_tests::lab::NAMESPACE, &manifest.name)?;
    }
    wait_until("equal digests", PATIENCE, || lab.agree("east"))?;
    thread::sleep(QUIET);
    let after = heard(&lab, "west")?;
    let told = heard(&lab, "east")?[0] - own[0];
    say(format_args!(
        "{count} pods came and went: {told} bytes to the agent of their node, {known:?} then {after:?} to the far ones"
    ));
    ensure!(after == known, "the far agents were told of them");
    // They would have been told: of an identity that is new they are.
    let mut manifest = manifest_of(lab.pod("east-1-a"));
    manifest.name = "new".to_owned();
    manifest.addresses = vec!["10.1.1.99".parse()?];
    manifest.app = "new".to_owned();
    manifests.pod(&manifest)?;
    wait_until("the far agents hear of an identity", PATIENCE, || {
        let now = heard(&lab, "west")?;
        Ok(now.iter().zip(&known).all(|(now, before)| now > before))
    })
}

/// F24, F21: control is cut, then healed.
#[test]
fn clusters_that_were_parted_agree_within_a_second() -> Result<()> {
    let lab = Lab::running(Topology::two_by_two().with_hubs(1))?;
    let manifests = lab.manifests("east")?;
    let load = SequenceLoad::start(&lab, LoadSpec::all_pairs(&lab, RATE))?;
    let rule = format!(
        "add table inet cut\nadd chain inet cut forward {{ type filter hook forward priority 0; }}\n\
         add rule inet cut forward udp dport {HUB_PORT} drop\nadd rule inet cut forward udp sport {HUB_PORT} drop\n"
    );
    let file = lab.dir().join("cut.nft");
    std::fs::write(&file, rule)?;
    lab.router()
        .output("nft", &["-f", &file.to_string_lossy()])?;
    let time = Duration::from_secs(if is_soak() { 60 } else { 8 });
    during(time, || {
        // What the far side has to catch up with.
        for number in 0..50_u8 {
            let mut manifest = manifest_of(lab.pod("east-1-a"));
            manifest.name = format!("extra-{number}");
            manifest.addresses = vec![format!("10.1.1.{}", 100 + number).parse()?];
            manifest.app = format!("extra-{number}");
            manifests.pod(&manifest)?;
        }
        Ok(())
    })?;
    ensure!(!lab.agree("east")?, "nothing was to catch up with");
    lab.router()
        .output("nft", &["delete", "table", "inet", "cut"])?;
    let start = Instant::now();
    wait_until("equal digests", PATIENCE, || lab.agree("east"))?;
    let took = start.elapsed();
    say(format_args!(
        "parted for {} s: equal digests after {} ms",
        time.as_secs(),
        took.as_millis()
    ));
    load.stop()?.check()?;
    ensure!(took <= Duration::from_secs(1), "{} ms", took.as_millis());
    Ok(())
}
