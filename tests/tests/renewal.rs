//! Keys change under load, in every order in which the two ends can learn of it: no packet is lost (F27).

use anyhow::{Context as _, Result, ensure};
use hawser_tests::depth::rounds;
use hawser_tests::lab::{Lab, Node, Topology, wait_until};
use hawser_tests::say;
use hawser_tests::traffic::{LoadSpec, SequenceLoad};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
/// Packets a second of all pairs together.
const RATE: u32 = 10_000;
const PEERS: [&str; 2] = ["east-1", "west-1"];

/// How the two ends learn of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Both at once.
    Together,
    /// One, and the other a while later.
    Late,
    /// The other way round.
    Early,
    /// The second end hands over to a new data plane in the middle.
    Upgraded,
    /// The first end's agent dies in the middle.
    AgentKilled,
}

const ORDERS: [Order; 5] = [
    Order::Together,
    Order::Late,
    Order::Early,
    Order::Upgraded,
    Order::AgentKilled,
];

/// Writes the key of a round where the node's agent reads it, and names it in the node's configuration.
fn tell(node: &Node, peer: &str, round: u32) -> Result<()> {
    let path = node.dir().join(format!("preshared-{round}.key"));
    // 32 bytes in base64, with the round in the last digits.
    let text = format!("{}{round:04}A=\n", "A".repeat(38));
    fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    node.edit_config(|config| {
        for known in config.peers.iter_mut().filter(|known| known.name == peer) {
            for lane in &mut known.lanes {
                lane.preshared_key_file = Some(path.clone());
            }
        }
    })
}

/// Handshakes of the pair in force with a peer: of a new key's pair it begins with none.
fn proven(node: &Node, peer: &str) -> Result<bool> {
    let status = node.status()?;
    let peers = status["peers"].as_array().context("no peers")?;
    let of = peers.iter().find(|known| known["name"] == peer);
    let lane = &of.context("no such peer")?["lanes"][0];
    Ok(lane["presharedKey"] == true && lane["handshakeAgeMs"].is_u64())
}

/// Waits until as many packets have arrived as one flow sends in a time.
fn on(load: &SequenceLoad, time: Duration) -> Result<()> {
    let goal = load.received() + u64::from(RATE) * u64::try_from(time.as_millis())? / 1_000;
    wait_until("packets go on", PATIENCE, || Ok(load.received() >= goal))
}

#[test]
fn preshared_keys_change_under_load_in_every_order_and_no_packet_is_lost() -> Result<()> {
    let mut lab = Lab::running(Topology::two_by_two())?;
    let load = SequenceLoad::start(&lab, LoadSpec::all_pairs(&lab, RATE))?;
    on(&load, Duration::from_millis(500))?;
    let start = Instant::now();
    let count = rounds(10, 100);
    for round in 1..=count {
        let order = ORDERS[usize::try_from(round)? % ORDERS.len()];
        let [first, second] = if order == Order::Early {
            [PEERS[1], PEERS[0]]
        } else {
            PEERS
        };
        tell(lab.node(first), second, round)?;
        match order {
            Order::Together => {}
            Order::Late | Order::Early => on(&load, Duration::from_millis(700))?,
            Order::Upgraded => {
                on(&load, Duration::from_millis(300))?;
                lab.node(second).renew_data_plane()?;
            }
            Order::AgentKilled => {
                on(&load, Duration::from_millis(300))?;
                lab.node_mut(first).kill_agent()?;
            }
        }
        tell(lab.node(second), first, round)?;
        wait_until("the new key is proven", PATIENCE, || {
            Ok(proven(lab.node(first), second)? && proven(lab.node(second), first)?)
        })?;
        if order == Order::AgentKilled {
            lab.node_mut(first).start_agent()?;
        }
        on(&load, Duration::from_millis(200))?;
    }
    let report = load.stop()?;
    say(format_args!(
        "{count} changes in {:.0?}: {report}",
        start.elapsed()
    ));
    report.check().with_context(|| lab.account())
}

/// How a change of a node's own key goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnOrder {
    /// The peers learn of it at once.
    Together,
    /// One of them does later than the others.
    Late,
    /// A second node changes its own key at the same time, and nobody knows either yet.
    Crossing,
    /// A peer hands over to a new data plane before it learns of it.
    PeerUpgraded,
    /// The node itself does.
    Upgraded,
    /// The agent of a peer is dead while the others learn of it.
    AgentKilled,
}

const OWN_ORDERS: [OwnOrder; 6] = [
    OwnOrder::Together,
    OwnOrder::Crossing,
    OwnOrder::Late,
    OwnOrder::Upgraded,
    OwnOrder::AgentKilled,
    OwnOrder::PeerUpgraded,
];

/// How long the old key is kept at least: until the new one is 10 s old and the old one has been quiet for as long.
const OVER: Duration = Duration::from_secs(40);

/// Tells a node which keys a peer has now.
fn tell_key(node: &Node, peer: &str, keys: &[String]) -> Result<()> {
    node.edit_config(|config| {
        for known in config.peers.iter_mut().filter(|known| known.name == peer) {
            for (lane, key) in known.lanes.iter_mut().zip(keys) {
                lane.public_key.clone_from(key);
            }
        }
    })
}

/// Whether a node's change of keys has come to its end.
fn is_over(node: &Node) -> Result<bool> {
    Ok(node.status()?["keyChange"].is_null())
}

#[test]
fn own_keys_change_under_load_in_every_order_and_no_packet_is_lost() -> Result<()> {
    let mut lab = Lab::running(Topology::two_by_two())?;
    let load = SequenceLoad::start(&lab, LoadSpec::all_pairs(&lab, RATE))?;
    on(&load, Duration::from_millis(500))?;
    let names: Vec<String> = lab
        .nodes()
        .iter()
        .map(|node| node.name().to_owned())
        .collect();
    let start = Instant::now();
    let count = usize::try_from(rounds(6, 100))?;
    for round in 0..count {
        let order = OWN_ORDERS[round % OWN_ORDERS.len()];
        // Each node in its turn; what it began the last time is over by then, or is waited for.
        let at = |further: usize| &names[(round + further) % names.len()];
        let mut changing = vec![at(0).clone()];
        if order == OwnOrder::Crossing {
            changing.push(at(1).clone());
        }
        let mut made = Vec::new();
        for name in &changing {
            let node = lab.node(name);
            wait_until("the change before is over", OVER, || is_over(node))?;
            let before = node.public_keys()?;
            let keys = node.new_keys()?;
            ensure!(
                keys != before && keys == node.public_keys()?,
                "{name}: {keys:?}"
            );
            ensure!(node.new_keys().is_err(), "{name}: two changes at once");
            made.push((name.clone(), keys));
        }
        let peer = at(2).clone();
        match order {
            OwnOrder::Together | OwnOrder::Crossing | OwnOrder::Late => {}
            OwnOrder::PeerUpgraded => lab.node(&peer).renew_data_plane()?,
            OwnOrder::Upgraded => lab.node(at(0)).renew_data_plane()?,
            OwnOrder::AgentKilled => lab.node_mut(&peer).kill_agent()?,
        }
        on(&load, Duration::from_millis(300))?;
        for (name, keys) in &made {
            for node in lab.nodes().iter().filter(|node| node.name() != name) {
                if order == OwnOrder::Late && node.name() == peer {
                    on(&load, Duration::from_secs(2))?;
                }
                tell_key(node, name, keys)?;
            }
        }
        on(&load, Duration::from_millis(300))?;
        if order == OwnOrder::AgentKilled {
            lab.node_mut(&peer).start_agent()?;
        }
    }
    for node in lab.nodes() {
        wait_until("all changes are over", OVER, || is_over(node))
            .with_context(|| lab.account())?;
        let files = fs::read_dir(node.state_dir())?.flatten();
        let files = files.map(|file| file.file_name().to_string_lossy().into_owned());
        let keys: Vec<_> = files.filter(|name| name.ends_with(".key")).collect();
        ensure!(
            keys.len() == node.public_keys()?.len(),
            "{}: {keys:?}",
            node.name()
        );
    }
    on(&load, Duration::from_millis(500))?;
    let report = load.stop()?;
    say(format_args!(
        "{count} changes in {:.0?}: {report}",
        start.elapsed()
    ));
    report.check().with_context(|| lab.account())
}
