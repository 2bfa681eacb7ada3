//! Pre-shared keys change under load, in every order in which the two ends can learn of it: no packet is lost (F27).

use anyhow::{Context as _, Result};
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

#[test]
fn preshared_keys_change_under_load_in_every_order_and_no_packet_is_lost() -> Result<()> {
    let mut lab = Lab::running(Topology::two_by_two())?;
    let load = SequenceLoad::start(&lab, LoadSpec::all_pairs(&lab, RATE))?;
    let on = |load: &SequenceLoad, time: Duration| {
        let goal = load.received() + u64::from(RATE) * u64::try_from(time.as_millis())? / 1_000;
        wait_until("packets go on", PATIENCE, || Ok(load.received() >= goal))
    };
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
