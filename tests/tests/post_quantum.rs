//! Pre-shared keys that two agents derive from a session: they come for every pair, nobody else has them, and they change
//! under load (T4, F27).

use anyhow::{Context as _, Result, ensure};
use hawser_mesh::io::quic::{KeySession, Tls};
use hawser_mesh::psk::{Answer, Group, Request, Side, Terms};
use hawser_mesh::trust::{Credentials, Expected, Trust};
use hawser_tests::depth::rounds;
use hawser_tests::io::{PacketRing, writable_memory};
use hawser_tests::lab::{KEY_PORT, Lab, Node, Topology, wait_until};
use hawser_tests::say;
use hawser_tests::traffic::{LoadSpec, Ping, SequenceLoad};
use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than an agent that has just started leaves keys as it found them.
const RENEWED: Duration = Duration::from_secs(120);
/// How long an answer is waited for, where there may be none.
const ANSWER: Duration = Duration::from_millis(300);
/// Packets a second, all pairs together.
const RATE: u32 = 5_000;

fn lab() -> Result<Lab> {
    Lab::running(Topology::two_by_two().with_hubs(1))
}

/// The pre-shared keys that a node's data plane keeps on disk: as they are, and as text.
fn kept(node: &Node) -> Result<Vec<(Vec<u8>, String)>> {
    let text = fs::read_to_string(node.state_dir().join("state.json"))?;
    let mut keys = Vec::new();
    for part in text.split("\"presharedKey\":\"").skip(1) {
        let (key, _) = part.split_once('"').context("an end of a key")?;
        // A type for keys that are no secret, which has the same text.
        let bytes: hawser_tunnel::key::PublicKey = key.parse()?;
        keys.push((bytes.as_bytes().to_vec(), key.to_owned()));
    }
    Ok(keys)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    let first = part[0];
    let places = bytes.iter().enumerate().filter(|(_, byte)| **byte == first);
    let mut starts = places.map(|(at, _)| at);
    starts.any(|at| bytes[at..].starts_with(part))
}

/// Whether a process has something in memory that it may write to.
fn has_in_memory(pid: i32, parts: &[&[u8]]) -> Result<bool> {
    let mut found = false;
    let searched = writable_memory(pid, |_, _, bytes| {
        found |= parts.iter().any(|part| contains(bytes, part));
    })?;
    ensure!(searched > 100 << 10, "only {searched} bytes were searched");
    Ok(found)
}

/// The kinds of a node's keys.
fn kinds(node: &Node) -> Result<Vec<String>> {
    let keys = node.keys()?;
    let kinds = keys.values().map(|peer| peer["postQuantum"].as_str());
    Ok(kinds
        .map(|kind| kind.unwrap_or_default().to_owned())
        .collect())
}

#[test]
fn keys_come_for_every_pair_and_are_nowhere_else() -> Result<()> {
    let mut lab = Lab::new(Topology::two_by_two().with_hubs(1))?;
    let mut wires = Vec::new();
    for node in lab.nodes() {
        wires.push(PacketRing::open(node.netns(), "eth0")?);
    }
    lab.start()?;
    let start = Instant::now();
    let mut seen: Vec<Vec<u8>> = Vec::new();
    let mut drain = |wires: &mut Vec<PacketRing>| {
        for wire in wires {
            while wire.drain(1_000, |frame| seen.push(frame.bytes.to_vec())) > 0 {}
        }
    };
    wait_until("pre-shared keys between all nodes", PATIENCE, || {
        drain(&mut wires);
        let mut nodes = lab.nodes().iter();
        Ok(nodes.all(|node| node.is_keyed(3).unwrap_or(false)))
    })?;
    let took = start.elapsed();
    drain(&mut wires);
    let mut all = Vec::new();
    for node in lab.nodes() {
        let kinds = kinds(node)?;
        ensure!(kinds == ["X25519MLKEM768"; 3], "{}: {kinds:?}", node.name());
        all.extend(kept(node)?);
    }
    ensure!(all.len() == 12, "{} keys on disk", all.len());
    for (key, _) in &all {
        let copies = all.iter().filter(|(other, _)| other == key).count();
        ensure!(copies == 2, "{copies} nodes have the same key");
    }
    let octets: usize = seen.iter().map(Vec::len).sum();
    say(format_args!(
        "12 keys of 6 pairs after {} ms; {} frames of {octets} bytes searched",
        took.as_millis(),
        seen.len(),
    ));
    ensure!(seen.len() > 100, "only {} frames were seen", seen.len());
    for (key, text) in &all {
        let has = |bytes: &[u8]| contains(bytes, key) || contains(bytes, text.as_bytes());
        ensure!(!seen.iter().any(|frame| has(frame)), "a key on a wire");
        for node in lab.nodes() {
            let logs = [node.agent_log(), node.keeper_log()];
            ensure!(
                !logs.iter().any(|log| has(log.as_bytes())),
                "a key in a log"
            );
        }
        let logs = lab.hubs().iter().map(|hub| hub.log());
        ensure!(
            !logs.into_iter().any(|log| has(log.as_bytes())),
            "a key in a hub's log"
        );
    }
    let parts: Vec<&[u8]> = all
        .iter()
        .flat_map(|(key, text)| [key.as_slice(), text.as_bytes()])
        .collect();
    let data_plane = lab
        .node("east-1")
        .data_plane_pid()
        .context("no data plane")?;
    ensure!(
        has_in_memory(data_plane, &parts)?,
        "the search finds nothing"
    );
    for hub in lab.hubs() {
        let pid = hub.pid().context("no hub")?;
        ensure!(!has_in_memory(pid, &parts)?, "a key in a hub");
    }
    for node in lab.nodes() {
        let pid = node.keeper_pid().context("no keeper")?;
        ensure!(!has_in_memory(pid, &parts)?, "a key in a keeper");
    }
    for pair in lab.cross_pairs(None) {
        let to = lab
            .pod(&pair.to)
            .address(pair.family)
            .context("no address")?;
        let report = Ping::new(to).run(lab.pod(&pair.from).netns())?;
        ensure!(report.is_complete(), "{pair:?}: {}", report.output);
    }
    Ok(())
}

/// The epochs of a node's keys.
fn epochs(node: &Node) -> Result<Vec<u64>> {
    let keys = node.keys()?;
    let epochs = keys.values().map(|peer| peer["epoch"].as_u64());
    Ok(epochs.map(Option::unwrap_or_default).collect())
}

#[test]
fn keys_are_renewed_under_load_and_no_packet_is_lost() -> Result<()> {
    let mut lab = lab()?;
    let load = SequenceLoad::start(&lab, LoadSpec::all_pairs(&lab, RATE))?;
    let start = Instant::now();
    let count = rounds(10, 200);
    for round in 0..count {
        let before: Vec<_> = lab.nodes().iter().map(epochs).collect::<Result<_>>()?;
        // One node, or all at once: then each pair's two ends begin at the same moment.
        let asked = if round % 2 == 0 { 1 } else { 4 };
        for node in &lab.nodes()[..asked] {
            node.renew_keys()?;
        }
        wait_until("other keys", PATIENCE, || {
            let node = &lab.nodes()[0];
            let after = epochs(node)?;
            let newer = after.iter().zip(&before[0]).all(|(new, old)| new > old);
            Ok(newer && node.is_keyed(3)?)
        })?;
        if round == count / 2 {
            // An agent that dies leaves the keys as they are; the next one takes them over, and renews them.
            lab.node_mut("west-1").kill_agent()?;
            thread::sleep(Duration::from_secs(1));
            lab.node_mut("west-1").start_agent()?;
            wait_until("the next agent", PATIENCE, || {
                Ok(lab.node("west-1").keys().is_ok_and(|keys| keys.len() == 3))
            })?;
        }
    }
    wait_until("the agent that came anew has other keys", RENEWED, || {
        // It may have just started.
        let kinds = kinds(lab.node("west-1")).unwrap_or_default();
        Ok(kinds == ["X25519MLKEM768"; 3])
    })?;
    let report = load.stop()?;
    say(format_args!(
        "{count} renewals in {:.0?}: {report}",
        start.elapsed()
    ));
    report.check().with_context(|| lab.account())
}

#[test]
fn a_change_of_wireguard_keys_brings_other_keys_and_loses_no_packet() -> Result<()> {
    let lab = lab()?;
    let load = SequenceLoad::start(&lab, LoadSpec::all_pairs(&lab, RATE))?;
    let node = lab.node("east-1");
    let before = (epochs(node)?, kept(node)?);
    let keys = node.new_keys()?;
    wait_until("other keys for the other WireGuard key", PATIENCE, || {
        let after = epochs(node)?;
        let newer = after.iter().zip(&before.0).all(|(new, old)| new > old);
        Ok(newer && node.is_keyed(3)?)
    })?;
    wait_until("the change is over", PATIENCE * 2, || {
        Ok(node.status()?["keyChange"].is_null())
    })?;
    for other in lab.nodes().iter().filter(|other| other.name() != "east-1") {
        let status = other.status()?;
        let peers = status["peers"].as_array().context("no peers")?;
        let peer = peers.iter().find(|peer| peer["name"] == "east-1");
        let lane = &peer.context("no such peer")?["lanes"][0];
        ensure!(lane["publicKey"] == keys[0].as_str(), "{lane}");
        ensure!(lane["handshakeAgeMs"].is_u64(), "{lane}");
    }
    let after = kept(node)?;
    ensure!(
        after.iter().all(|key| !before.1.contains(key)),
        "a key of before"
    );
    let report = load.stop()?;
    say(format_args!("another WireGuard key: {report}"));
    report.check().with_context(|| lab.account())
}

#[test]
fn nodes_with_other_numbers_of_lanes_have_a_key_for_each_pair() -> Result<()> {
    let lab = Lab::running(Topology::two_by_two().with_lanes(&[3, 2]).with_hubs(1))?;
    let load = SequenceLoad::start(&lab, LoadSpec::all_pairs(&lab, RATE))?;
    for round in 0..3 {
        let goal = load.received() + u64::from(RATE) * 2;
        wait_until("packets go on", PATIENCE, || Ok(load.received() >= goal))?;
        if round < 2 {
            lab.node("west-2").renew_keys()?;
        }
    }
    let report = load.stop()?;
    report.check().with_context(|| lab.account())?;
    let mut used = 0;
    for node in lab.nodes() {
        let status = node.status()?;
        let peers = status["peers"].as_array().context("no peers")?;
        let lanes = peers.iter().filter_map(|peer| peer["lanes"].as_array());
        for lane in lanes.flatten() {
            ensure!(lane["presharedKey"] == true, "{}: {lane}", node.name());
            if lane["txPackets"].as_u64().is_some_and(|count| count > 0) {
                used += 1;
                ensure!(lane["handshakeAgeMs"].is_u64(), "{}: {lane}", node.name());
            }
        }
    }
    let first = lab.nodes().len() * (lab.nodes().len() - 1);
    say(format_args!("{used} pairs of lanes in use: {report}"));
    ensure!(used > first, "only first lanes were used: {used}");
    Ok(())
}

#[test]
fn a_node_reboots_with_every_hub_and_every_other_agent_dead() -> Result<()> {
    let mut lab = lab()?;
    for hub in lab.hubs_mut() {
        hub.kill()?;
    }
    for name in ["east-1", "west-1", "west-2"] {
        lab.node_mut(name).kill_agent()?;
    }
    let before = kept(lab.node("east-2"))?;
    lab.reboot("east-2")?;
    let node = lab.node_mut("east-2");
    node.start_keeper()?;
    node.start_agent()?;
    let (from, to) = (lab.pod("west-1-a"), lab.pod("east-2-a"));
    let start = Instant::now();
    wait_until("an answer", PATIENCE, || {
        Ok(Ping::new(to.v4())
            .deadline(ANSWER)
            .run(from.netns())?
            .is_complete())
    })?;
    say(format_args!(
        "answers after {} ms",
        start.elapsed().as_millis()
    ));
    // Long enough for the agent to have put its own idea of the state into force.
    thread::sleep(Duration::from_secs(3));
    let node = lab.node("east-2");
    ensure!(kinds(node)? == ["kept"; 3], "{:?}", kinds(node)?);
    ensure!(kept(node)? == before, "other keys than before");
    let report = Ping::new(to.v4()).run(from.netns())?;
    ensure!(report.is_complete(), "{}", report.output);
    Ok(())
}

/// Plays the agent of a node that knows no lattices, from where that node is. Returns what the other one answers.
fn ask_by_elliptic_curves(from: &Node, to: &Node, trust: &Trust, epoch: u64) -> Result<Answer> {
    let tls = from.dir().join("tls");
    let chain = fs::read_to_string(tls.join("tls.crt"))?;
    let key = fs::read_to_string(tls.join("tls.key"))?;
    let tls = Tls::new(Credentials::from_pem(&chain, &key)?, trust.clone());
    let keys = |node: &Node| -> Result<Vec<_>> {
        let texts = node.public_keys()?.into_iter();
        texts.map(|text| Ok(text.parse()?)).collect()
    };
    let (client, server) = (keys(from)?, keys(to)?);
    // Epochs of the lower key are even.
    let epoch = (epoch & !1) + 2 + u64::from(client[0] > server[0]);
    let terms = Terms {
        epoch,
        client,
        server,
    };
    let expected = Expected::Node {
        cluster: to.cluster().to_owned(),
        name: to.name().to_owned(),
    };
    let at = SocketAddr::new(to.endpoint().ip(), KEY_PORT);
    from.netns().run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let session = KeySession::open(at, &tls, expected, Group::Classical).await?;
            let confirmation = terms.confirmation(&session, Side::Client)?;
            let request = Request {
                terms: terms.clone(),
                confirmation,
            };
            let answer = session.ask(request.encode()).await?;
            Answer::decode(&answer).map_err(|refusal| anyhow::anyhow!("{refusal}"))
        })
    })?
}

/// What west-1's peer on east-1 is shown as.
fn shown(lab: &Lab) -> Result<String> {
    let keys = lab.node("east-1").keys()?;
    let kind = keys
        .get("2/1")
        .and_then(|peer| peer["postQuantum"].as_str());
    Ok(kind.unwrap_or_default().to_owned())
}

#[test]
fn a_peer_without_the_hybrid_group_is_shown_or_refused_by_name() -> Result<()> {
    let mut lab = lab()?;
    let mut trust = Trust::new("lab");
    for cluster in ["east", "west"] {
        let ca = fs::read_to_string(lab.authority(cluster).join("ca.crt"))?;
        trust.set(cluster, &ca)?;
    }
    // Beyond what a clock says until 2033.
    let mut epoch = 4_000_000_000;
    let mut ask = |lab: &Lab| {
        epoch += 2;
        let (east, west) = (lab.node("east-1"), lab.node("west-1"));
        ask_by_elliptic_curves(west, east, &trust, epoch)
    };
    let classical = |answer: Answer| match answer {
        Answer::Refused { name, .. } => name,
        Answer::Accepted { .. } => "accepted".to_owned(),
    };
    // The test is the agent of west-1 from here on.
    lab.node_mut("west-1").kill_agent()?;
    let answer = classical(ask(&lab)?);
    ensure!(
        answer == "key_group_classical",
        "less than there was: {answer}"
    );
    // An agent that does not know what there was takes it where it may, and says so.
    lab.node_mut("east-1").restart_agent()?;
    wait_until("the agent is back", PATIENCE, || {
        Ok(shown(&lab).unwrap_or_default() == "kept")
    })?;
    let answer = classical(ask(&lab)?);
    ensure!(answer == "accepted", "preferred: {answer}");
    wait_until("it is shown", PATIENCE, || Ok(shown(&lab)? == "X25519"))?;
    let mut table = lab.node("east-1").hawser(&["status", "--socket"])?;
    let table = table.arg(lab.node("east-1").tunnel_socket()).output()?;
    let table = String::from_utf8(table.stdout)?;
    let line = table.lines().find(|line| line.contains("2/1"));
    let line = line.context("no such peer")?;
    ensure!(line.contains("X25519 "), "{line}");
    // Required: the keys are not used any more, nor is any session without; packets wait, and are dropped by name.
    let east = lab.node("east-1");
    east.edit_config(|config| config.post_quantum = Some("required".to_owned()))?;
    wait_until("the keys are dropped", PATIENCE, || {
        Ok(shown(&lab)? == "none")
    })?;
    let answer = classical(ask(&lab)?);
    ensure!(answer == "key_group_classical", "required: {answer}");
    let refusals = &east.agent_status()?["keyRefusals"]["key_group_classical"];
    ensure!(*refusals == 1, "{refusals}");
    let (from, to) = (lab.pod("east-1-a"), lab.pod("west-1-a"));
    wait_until("the session ends", PATIENCE, || {
        Ok(!Ping::new(to.v4())
            .deadline(ANSWER)
            .run(from.netns())?
            .is_complete())
    })?;
    Ping::new(from.v4()).deadline(ANSWER).run(to.netns())?;
    wait_until("a handshake is refused", PATIENCE, || {
        Ping::new(from.v4()).deadline(ANSWER).run(to.netns())?;
        let status = east.status()?;
        let refused = status["counters"]["drops"]["wg_no_preshared_key"].as_u64();
        Ok(refused.is_some_and(|count| count > 0))
    })?;
    // The others have what is asked for.
    let other = lab.pod("west-2-a");
    wait_until("west-2 answers", RENEWED, || {
        Ok(Ping::new(other.v4())
            .deadline(ANSWER)
            .run(from.netns())?
            .is_complete())
    })?;
    // And so has west-1 when its own agent is back.
    lab.node_mut("west-1").start_agent()?;
    wait_until("hybrid keys", RENEWED, || {
        Ok(shown(&lab)? == "X25519MLKEM768")
    })?;
    let (from, to) = (lab.pod("east-1-a"), lab.pod("west-1-a"));
    wait_until("west-1 answers", PATIENCE, || {
        Ok(Ping::new(to.v4())
            .deadline(ANSWER)
            .run(from.netns())?
            .is_complete())
    })
}
