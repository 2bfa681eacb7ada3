//! Stock WireGuard peers: other people's implementations, configured with `wg`, as foreign peers of a Hawser node.
//!
//! Such a peer knows nothing of Geneve or of pods. The test plays that part inside the peer's namespace with an encoder
//! and parsers of its own ([`packet`], [`geneve`]), so that a mistake in the product's cannot hide itself.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::lab::{Family, Lab, Node, PeerConfig, Topology, wait_until};

mod device;
pub mod geneve;
mod load;
pub mod packet;
mod peer;
mod program;
mod wire_log;

pub(crate) use device::StockDevice;
pub use geneve::GenevePort;
pub use load::{Flow, StockLoad, StockLoadReport};
pub use peer::{Meeting, StockPeer, StockSpec};
pub use program::Implementation;
pub use wire_log::{MessageKind, WireLog, WireMessage};

/// The cluster that stock peers belong to in [`lab`]. Index 1 is taken by a node that is never started.
pub const CLUSTER: u16 = 2;

/// How long an agent on a busy machine may take to see a new node.yaml and have it put in force.
const TAKEN: Duration = Duration::from_secs(20);

/// The overlay address of a node (docs/wire.md, "Overlay IPv4 and UDP").
#[must_use]
pub fn overlay(cluster: u16, index: u16) -> Ipv4Addr {
    Ipv4Addr::from(0xf000_0000 | u32::from(cluster) << 16 | u32::from(index))
}

/// A lab of one Hawser node that runs, `east-1` with two pods, and room for stock peers in [`CLUSTER`].
///
/// # Errors
/// As [`Lab::new`], or when the node does not come up.
pub fn lab(mtu: u32) -> Result<Lab> {
    let topology = Topology::parse(
        "clusters: [{name: east, id: 1, nodes: 1, pods: 2}, {name: stock, id: 2, nodes: 1, pods: 0}]",
    )?;
    let mut lab = Lab::new(topology.with_underlay(Family::V4, mtu))?;
    lab.configure()?;
    let node = lab.node_mut("east-1");
    node.edit_config(|config| config.peers.clear())?;
    node.start_keeper()?;
    node.start_agent()?;
    node.wait_ready(0, TAKEN)?;
    Ok(lab)
}

/// Tells a node of peers, in place of those of the same name, and waits until its data plane knows them.
///
/// # Errors
/// When the agent does not take them in time.
pub fn declare(node: &Node, peers: &[PeerConfig]) -> Result<()> {
    node.edit_config(|config| {
        for peer in peers {
            let identity = peer.foreign.as_ref().map(|foreign| foreign.identity);
            let cluster = config.clusters.iter_mut().find(|c| c.name == peer.cluster);
            if let (Some(cluster), Some(identity)) = (cluster, identity)
                && !cluster.identities.contains(&identity)
            {
                cluster.identities.push(identity);
            }
            config.peers.retain(|other| other.name != peer.name);
            config.peers.push(peer.clone());
        }
    })?;
    wait_until(
        &format!("{} knows {} more peers", node.name(), peers.len()),
        TAKEN,
        || {
            let status = node.status()?;
            for peer in peers {
                lane(&status, &peer.name)?;
            }
            Ok(true)
        },
    )?;
    // Its routes to them are the agent's, written after that.
    let prefixes: Vec<String> = peers
        .iter()
        .flat_map(|peer| peer.prefixes.iter().map(ToString::to_string))
        .collect();
    wait_until(
        &format!("{} has routes to them", node.name()),
        TAKEN,
        || {
            let routes = ["-4", "-6"]
                .map(|family| {
                    node.netns()
                        .output("ip", &[family, "route", "show", "dev", "hawser0"])
                })
                .into_iter()
                .collect::<Result<String>>()?;
            Ok(prefixes.iter().all(|prefix| routes.contains(prefix)))
        },
    )
}

/// The only lane of a peer in the status of a node.
///
/// # Errors
/// When the node does not know the peer.
pub fn lane<'a>(status: &'a Value, peer: &str) -> Result<&'a Value> {
    let found = status["peers"]
        .as_array()
        .and_then(|peers| peers.iter().find(|other| other["name"] == peer));
    found
        .and_then(|found| found["lanes"].get(0))
        .with_context(|| format!("no peer {peer} in the status"))
}

/// How many packets a node has dropped under a named reason.
///
/// # Errors
/// When the status cannot be had.
pub fn drops(node: &Node, reason: &str) -> Result<u64> {
    let status = node.status()?;
    Ok(status["counters"]["drops"][reason]
        .as_u64()
        .unwrap_or_default())
}

/// The pod MTU that a node has for packets of one family to a peer, in bytes.
///
/// # Errors
/// When the node does not know the peer.
pub fn pod_mtu(node: &Node, peer: &str, family: Family) -> Result<usize> {
    let status = node.status()?;
    let found = status["peers"]
        .as_array()
        .and_then(|peers| peers.iter().find(|other| other["name"] == peer));
    let mtu = found.and_then(|found| {
        found["podMtu"][match family {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        }]
        .as_u64()
    });
    usize::try_from(mtu.with_context(|| format!("no pod MTU of {peer} in the status"))?)
        .context("MTU does not fit")
}

/// The family of an address.
const fn family(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}
