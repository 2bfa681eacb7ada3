//! A cluster's CA is rolled under load: members, nodes and other clusters follow by themselves, no packet and no session
//! is lost, and what the old one signed is worth nothing once it is gone (F39).

use anyhow::{Context as _, Result, ensure};
use hawser_mesh::ca::Ca;
use hawser_mesh::io::quic::{Tls, connect};
use hawser_mesh::trust::{Credentials, Expected, Trust};
use hawser_tests::depth::rounds;
use hawser_tests::lab::{HUB_PORT, Hub, Lab, Node, Topology, wait_until};
use hawser_tests::say;
use hawser_tests::traffic::{LoadSpec, SequenceLoad};
use serde_json::Value;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

const PATIENCE: Duration = Duration::from_secs(30);
/// Until every node has a certificate of the new CA, and every session is made with it.
const FOLLOWED: Duration = Duration::from_secs(60);
/// Packets a second, all pairs together.
const RATE: u32 = 5_000;
const DAY: Duration = Duration::from_secs(86_400);

/// How a cluster's hub sees another one.
fn member(lab: &Lab, cluster: &str, other: &str) -> Result<Value> {
    let members = lab.members(cluster)?;
    let mut members = members.into_iter();
    let member = members.find(|member| member["name"] == other);
    member.with_context(|| format!("{cluster} does not know {other}"))
}

/// The fingerprints of another cluster's CAs, as a cluster's hub knows them.
fn known(lab: &Lab, cluster: &str, other: &str) -> Result<Vec<String>> {
    let member = member(lab, cluster, other)?;
    ensure!(member["state"] == "connected", "{cluster} lost {other}");
    let cas = member["ca"].as_array().context("no CAs")?;
    let cas = cas.iter().filter_map(Value::as_str);
    Ok(cas.map(str::to_owned).collect())
}

/// How the hub of a node's agent is connected: its session's number, and for how long.
fn session(node: &Node) -> Result<(bool, u64)> {
    let status = node.agent_status()?;
    let hub = &status["hub"];
    let connected = hub["connected"].as_bool().context("no connected")?;
    Ok((connected, hub["sessions"].as_u64().context("no sessions")?))
}

/// The number of the session by which each hub is fed by the other cluster; a later one has a greater number.
fn feeding(lab: &Lab) -> Result<Vec<u64>> {
    let of_hub = |hub: &Hub| {
        let status = hub.status(lab)?;
        let sessions = status["sessions"].as_array().context("no sessions")?;
        let mut feeding = sessions.iter().filter(|session| session["feedsUs"] == true);
        let session = feeding
            .next()
            .and_then(|session| session["session"].as_u64());
        session.with_context(|| format!("nobody feeds the hub on {}", hub.node()))
    };
    lab.hubs().iter().map(of_hub).collect()
}

/// The certificate that a node shows, with what stands behind it.
fn shown(node: &Node) -> Result<String> {
    let path = node.kept_dir().join("identity/node.crt");
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Whether a hub of a cluster takes a hub of another one that shows a certificate of this CA; why not, if it does not.
fn knocks(lab: &Lab, ca: &Ca, at: &str) -> Result<Result<(), String>> {
    let issued = ca.hub("hub-9", DAY, SystemTime::now())?;
    let credentials = Credentials::from_pem(&issued.certificate, &issued.key)?;
    let mut trust = Trust::new("lab");
    trust.set(at, &fs::read_to_string(lab.authority(at).join("ca.crt"))?)?;
    let hub = lab.hubs().iter().find(|hub| hub.cluster() == at);
    let hub = lab.node(hub.context("no hub")?.node());
    let address = SocketAddr::new(hub.endpoint().ip(), HUB_PORT);
    hub.netns().run(|| -> Result<_> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(runtime.block_on(async {
            let tls = Tls::new(credentials, trust);
            let connection = connect(address, &tls, Expected::HubOf(at.to_owned())).await;
            match connection {
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        }))
    })?
}

#[test]
fn a_ca_is_rolled_under_load_and_neither_a_packet_nor_a_session_is_lost() -> Result<()> {
    let mut lab = Lab::running(Topology::two_by_two().with_hubs(2).joining())?;
    wait_until("pre-shared keys between all nodes", PATIENCE, || {
        let mut nodes = lab.nodes().iter();
        Ok(nodes.all(|node| node.is_keyed(3).unwrap_or(false)))
    })?;
    let load = SequenceLoad::start(&lab, LoadSpec::all_pairs(&lab, RATE))?;
    let logs = |lab: &Lab| -> Vec<usize> {
        let hubs = lab.hubs().iter().map(|hub| hub.log().len());
        hubs.chain(lab.nodes().iter().map(|node| node.agent_log().len()))
            .collect()
    };
    let before = logs(&lab);
    let count = rounds(1, 10);
    let (mut slowest, mut old_key) = (Duration::ZERO, String::new());
    let mut old = None;
    for round in 0..count {
        let cluster = ["east", "west"][usize::try_from(round)? % 2];
        let other = ["west", "east"][usize::try_from(round)? % 2];
        let at = lab.authority(cluster);
        old_key = fs::read_to_string(at.join("ca.key"))?;
        let old_pem = fs::read_to_string(at.join("ca.crt"))?;
        old = Some((cluster, other, Ca::from_pem(&old_pem, &old_key)?));
        let first = known(&lab, other, cluster)?;
        let sessions: Vec<u64> = nodes_of(&lab, cluster)
            .map(|node| Ok(session(node)?.1))
            .collect::<Result<_>>()?;
        let fed = feeding(&lab)?;
        let start = Instant::now();
        let told = lab.roll_ca(cluster)?;
        ensure!(
            told.contains("the CA that signs") && told.contains("trusted until then"),
            "{told}"
        );
        let pem = fs::read_to_string(at.join("ca.crt"))?;
        ensure!(pem != old_pem, "the same CA");
        wait_until("the other cluster knows both", PATIENCE, || {
            let now = known(&lab, other, cluster)?;
            Ok(now.len() == 2 && now.contains(&first[0]))
        })?;
        let heard = start.elapsed();
        wait_until(
            "every node has a certificate of the new one, and a session by it",
            FOLLOWED,
            || {
                let mut nodes = nodes_of(&lab, cluster).zip(&sessions);
                nodes.try_fold(true, |all, (node, before)| {
                    let (connected, now) = session(node)?;
                    ensure!(connected, "{} lost its hub", node.name());
                    Ok(all
                        && shown(node)?.matches("BEGIN CERTIFICATE").count() == 2
                        && now > *before)
                })
            },
        )?;
        wait_until("hubs have made their connections anew", FOLLOWED, || {
            let now = feeding(&lab)?;
            Ok(now.iter().zip(&fed).all(|(now, before)| now > before))
        })?;
        let followed = start.elapsed();
        slowest = slowest.max(followed);
        // Nodes know each other by the new certificates, too.
        let derived: Vec<Vec<u64>> = lab.nodes().iter().map(epochs).collect::<Result<_>>()?;
        for node in lab.nodes() {
            node.renew_keys()?;
        }
        wait_until("other pre-shared keys between all nodes", PATIENCE, || {
            let mut nodes = lab.nodes().iter().zip(&derived);
            nodes.try_fold(true, |all, (node, before)| {
                let now = epochs(node)?;
                Ok(all && now.len() == 3 && now.iter().zip(before).all(|(now, was)| now > was))
            })
        })?;
        lab.retire_ca(cluster)?;
        wait_until(
            "the other cluster knows the new one alone",
            PATIENCE,
            || {
                let now = known(&lab, other, cluster)?;
                Ok(now.len() == 1 && now != first)
            },
        )?;
        say(format_args!(
            "round {round}: {cluster} rolled; {other} knew after {} ms, all sessions by the new CA after {} ms",
            heard.as_millis(),
            followed.as_millis()
        ));
    }
    // None of the sessions ended but by the side that had another in its place.
    for (text, from) in lab
        .hubs()
        .iter()
        .map(Hub::log)
        .chain(lab.nodes().iter().map(Node::agent_log))
        .zip(before)
    {
        let since = text.get(from..).unwrap_or_default();
        for lost in ["hub lost", "ca_changed", "timed_out", "issuer_unknown"] {
            ensure!(!since.contains(lost), "{lost}: {since}");
        }
    }
    // What the old one signed is worth nothing, also at a hub that has restarted.
    let (cluster, other, old_ca) = old.context("no round")?;
    for hub in lab
        .hubs_mut()
        .iter_mut()
        .filter(|hub| hub.cluster() == other)
    {
        hub.kill()?;
        hub.start()?;
    }
    wait_until("its hubs answer again", PATIENCE, || {
        Ok(known(&lab, other, cluster).is_ok())
    })?;
    let refused = knocks(&lab, &old_ca, other)?;
    let refused = refused
        .err()
        .context("a certificate of the old CA was taken")?;
    ensure!(refused.contains("issuer_unknown"), "{refused}");
    let at = lab.authority(cluster);
    let pem = fs::read_to_string(at.join("ca.crt"))?;
    let new_ca = Ca::from_pem(&pem, &fs::read_to_string(at.join("ca.key"))?)?;
    let taken = knocks(&lab, &new_ca, other)?;
    ensure!(taken.is_ok(), "a certificate of the new CA: {taken:?}");
    // Its key is nowhere any more.
    for entry in walk(&lab.state_directory(cluster))? {
        let bytes = fs::read(&entry).unwrap_or_default();
        let is_there = bytes
            .windows(old_key.len())
            .any(|window| window == old_key.as_bytes());
        ensure!(!is_there, "the old key is in {}", entry.display());
    }
    let report = load.stop()?;
    say(format_args!(
        "{count} rolls: {report}; slowest followed after {} ms",
        slowest.as_millis()
    ));
    report.check()
}

fn nodes_of<'a>(lab: &'a Lab, cluster: &'a str) -> impl Iterator<Item = &'a Node> {
    lab.nodes()
        .iter()
        .filter(move |node| node.cluster() == cluster)
}

/// The pre-shared keys' epochs with each peer.
fn epochs(node: &Node) -> Result<Vec<u64>> {
    let keys = node.keys()?;
    let epochs = keys.values().map(|peer| peer["epoch"].as_u64());
    Ok(epochs.map(Option::unwrap_or_default).collect())
}

/// All files under a folder.
fn walk(folder: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(walk(&path)?);
        } else if path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}
