//! Clusters become members of each other by invitation, and whoever says the same in manifests has the same.

use anyhow::{Context as _, Result, ensure};
use hawser_tests::lab::{Lab, Topology, wait_until};
use hawser_tests::say;
use hawser_tests::traffic::{LoadSpec, Ping, SequenceLoad};
use serde_json::Value;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than an agent or a hub waits with anything.
const STIRRED: Duration = Duration::from_secs(3);
/// Packets a second, all pairs together.
const RATE: u32 = 1_000;

const NAMES: [&str; 3] = ["east", "west", "north"];

fn topology() -> Result<Topology> {
    let cluster =
        |(name, id): (&str, u16)| format!("{{name: {name}, id: {id}, nodes: 2, pods: 1, hubs: 1}}");
    let clusters = NAMES.into_iter().zip(1..).map(cluster);
    let clusters: Vec<String> = clusters.collect();
    Ok(Topology::parse(&format!("clusters: [{}]", clusters.join(", ")))?.joining())
}

/// Members of each cluster, without where it is known from.
fn members(lab: &Lab, from: &str) -> Result<Vec<Vec<Value>>> {
    let of = |name: &&str| -> Result<Vec<Value>> {
        let mut members = lab.members(name)?;
        ensure!(members.len() == NAMES.len() - 1, "{name} knows {members:?}");
        for member in &mut members {
            let known = member.as_object_mut().context("no object")?;
            let said = known.remove("from");
            ensure!(said == Some(from.into()), "{name}: from {said:?}");
            let state = known.remove("state");
            ensure!(state == Some("connected".into()), "{name}: {state:?}");
            // What happened on the way is another thing than what holds.
            let held = [
                "name",
                "id",
                "podCidrs",
                "serviceCidrs",
                "namespaces",
                "quotas",
                "hubs",
                "ca",
            ];
            known.retain(|field, _| held.contains(&field.as_str()));
        }
        Ok(members)
    };
    NAMES.iter().map(of).collect()
}

/// What every data plane was told last.
fn digests(lab: &Lab) -> Result<Vec<Value>> {
    let nodes = lab.nodes().iter();
    nodes
        .map(|node| Ok(node.status()?["revision"].take()))
        .collect()
}

#[test]
fn three_clusters_join_by_invitation_and_manifests_that_say_the_same_change_nothing() -> Result<()>
{
    let mut lab = Lab::new(topology()?)?;
    let sniffer = lab.sniffer()?;
    let start = Instant::now();
    lab.start()?;
    lab.wait_ready(PATIENCE)?;
    say(format_args!(
        "three clusters have joined, and all nodes have sessions: {} ms",
        start.elapsed().as_millis()
    ));
    for pair in lab.cross_pairs(None) {
        let to = lab.pod(&pair.to).address(pair.family);
        let report = Ping::new(to.context("no address")?).run(lab.pod(&pair.from).netns())?;
        ensure!(report.is_complete(), "{pair:?}: {}", report.output);
    }
    let mut joined = Vec::new();
    wait_until("all clusters are connected", PATIENCE, || {
        joined = members(&lab, "joined")?;
        Ok(true)
    })?;
    lab.wait_keyed(PATIENCE)?;
    let told = digests(&lab)?;
    let load = SequenceLoad::start(&lab, LoadSpec::all_pairs(&lab, RATE))?;
    for name in NAMES {
        lab.declare_others(name)?;
    }
    let mut declared = Vec::new();
    wait_until("manifests count", PATIENCE, || {
        declared = members(&lab, "manifest")?;
        Ok(true)
    })?;
    ensure!(
        declared == joined,
        "by invitation: {joined:?}\nby manifests: {declared:?}"
    );
    // Whatever that stirs up would show by now.
    std::thread::sleep(STIRRED);
    let report = load.stop()?;
    report.check()?;
    ensure!(
        digests(&lab)? == told,
        "data planes were told something else"
    );
    say(format_args!(
        "manifests took the place of invitations: {} packets, {} lost",
        report.sent, report.lost
    ));
    sniffer.stop()?.check()
}
