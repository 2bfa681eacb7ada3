//! This node: who it is, its devices, its pod CIDRs and its pods.

use super::clusters::{self, Clusters};
use super::fault::{Fault, Rule};
use super::prefix::{self, Owners};
use super::raw;
use crate::agent::rotation::HOURLY;
use crate::psk::PostQuantum;
use hawser_tunnel::identity::Identity;
use hawser_tunnel::node::{ClusterId, NodeId, NodeIndex};
use hawser_tunnel::state::{Checksums, Cluster};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the data plane listens unless the file says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/hawser/tunnel.sock";
/// The TAP unless the file says otherwise.
pub const DEFAULT_DEVICE: &str = "hawser0";

/// `sun_path` has 108 bytes and ends with a zero.
const LONGEST_SOCKET_PATH: usize = 107;
/// `IFNAMSIZ` is 16 and ends with a zero.
const LONGEST_DEVICE: usize = 15;

/// Who this node is, as far as the file says so.
#[derive(Debug)]
pub(super) struct Own {
    /// Its cluster's name.
    pub(super) cluster: String,
    /// Its cluster's ID; from `clusters` where only the name is written.
    pub(super) id: Option<ClusterId>,
    /// Its index.
    pub(super) index: Option<NodeIndex>,
}

impl Own {
    /// The node's id, where the file says all of it.
    pub(super) fn node(&self) -> Option<NodeId> {
        let (cluster, index) = self.id.zip(self.index)?;
        Some(NodeId { cluster, index })
    }
}

/// Finds the own cluster and reads who the node is. Without a hub nobody else can tell.
pub(super) fn node(file: &raw::File, clusters: &Clusters) -> Result<Own, Fault> {
    let needed = |field: &str| match file.hub {
        Some(_) => Ok(()),
        None => Err(Fault::new(field, "", Rule::NeededWithoutHub)),
    };
    let name = clusters::cluster_name("cluster.name", &file.cluster.name)?;
    let id = match &file.cluster.id {
        Some(text) => Some(clusters::cluster_id("cluster.id", text)?),
        None => needed("cluster.id").map(|()| None)?,
    };
    let listed = clusters.by_name(&name).map(|(listed, _)| listed);
    match (id, listed) {
        (Some(id), Some(listed)) if id != listed => {
            let rule = Rule::OwnClusterId {
                name,
                id: listed.into(),
            };
            return Err(Fault::new("cluster.id", id, rule));
        }
        (_, None) if file.hub.is_none() => {
            return Err(Fault::new("cluster.name", name, Rule::OwnClusterMissing));
        }
        (_, Some(_) | None) => {}
    }
    node_name("node.name", &file.node.name)?;
    let index = match &file.node.index {
        Some(text) => Some(node_index("node.index", text)?),
        None => needed("node.index").map(|()| None)?,
    };
    Ok(Own {
        cluster: name,
        id: id.or(listed),
        index,
    })
}

/// Reads the address by which other nodes reach this one.
pub(super) fn underlay_address(text: Option<&str>) -> Result<Option<IpAddr>, Fault> {
    const FIELD: &str = "underlay.address";
    let Some(text) = text else { return Ok(None) };
    let address = address(FIELD, text)?;
    let broadcast = address == IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast {
        return Err(Fault::new(FIELD, text, Rule::NotUnicast));
    }
    Ok(Some(address))
}

/// Reads a node's name: labels with dots between them.
pub(super) fn node_name(field: &str, text: &str) -> Result<String, Fault> {
    if text.len() > 253 || !text.split('.').all(clusters::is_label) {
        return Err(Fault::new(field, text, Rule::NodeName));
    }
    Ok(text.to_owned())
}

/// Reads a node index.
pub(super) fn node_index(field: &str, text: &str) -> Result<NodeIndex, Fault> {
    text.parse()
        .ok()
        .and_then(|number: u16| NodeIndex::new(number).ok())
        .ok_or_else(|| Fault::new(field, text, Rule::NodeIndex))
}

/// Reads the path of the data plane's socket.
pub(super) fn socket(text: Option<&str>) -> Result<PathBuf, Fault> {
    const FIELD: &str = "tunnel.socket";
    let text = text.unwrap_or(DEFAULT_SOCKET);
    if !Path::new(text).is_absolute() {
        return Err(Fault::new(FIELD, text, Rule::SocketRelative));
    }
    if text.len() > LONGEST_SOCKET_PATH {
        return Err(Fault::new(
            FIELD,
            text,
            Rule::SocketTooLong { length: text.len() },
        ));
    }
    Ok(PathBuf::from(text))
}

/// Whether there may be sessions without a pre-shared key.
pub(super) fn post_quantum(text: Option<&str>) -> Result<PostQuantum, Fault> {
    match text {
        None | Some("preferred") => Ok(PostQuantum::Preferred),
        Some("required") => Ok(PostQuantum::Required),
        Some(other) => Err(Fault::new("postQuantum", other, Rule::PostQuantum)),
    }
}

/// How old the node's own WireGuard keys get: minutes or hours.
pub(super) fn key_rotation(text: Option<&str>) -> Result<Option<Duration>, Fault> {
    let Some(text) = text else {
        return Ok(Some(HOURLY));
    };
    if text == "off" {
        return Ok(None);
    }
    let number = |text: &str, seconds: u64| text.parse::<u64>().ok()?.checked_mul(seconds);
    let seconds = match (text.strip_suffix('m'), text.strip_suffix('h')) {
        (Some(text), _) => number(text, 60),
        (None, Some(text)) => number(text, 3600),
        (None, None) => None,
    };
    let seconds = seconds.filter(|seconds| (300..=86_400).contains(seconds));
    match seconds {
        Some(seconds) => Ok(Some(Duration::from_secs(seconds))),
        None => Err(Fault::new("keyRotation", text, Rule::KeyRotation)),
    }
}

/// Whether transport checksums are left to be filled in by the receiver's kernel.
pub(super) fn checksums(text: Option<&str>) -> Result<Checksums, Fault> {
    match text {
        None | Some("left") => Ok(Checksums::Left),
        Some("filled") => Ok(Checksums::Filled),
        Some(other) => Err(Fault::new("tunnel.checksums", other, Rule::Checksums)),
    }
}

/// Reads the name of a network device.
pub(super) fn device(field: &str, text: &str) -> Result<String, Fault> {
    let legal = (1..=LONGEST_DEVICE).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'/' && b != b':')
        && text != "."
        && text != "..";
    if !legal {
        return Err(Fault::new(field, text, Rule::Device));
    }
    Ok(text.to_owned())
}

/// Reads the devices that lead to other nodes.
pub(super) fn underlay(raw: &raw::Underlay, tunnel: &str) -> Result<BTreeSet<String>, Fault> {
    if raw.devices.is_empty() {
        return Err(Fault::new("underlay.devices", "[]", Rule::NoUnderlay));
    }
    let mut devices = BTreeSet::new();
    for (at, text) in raw.devices.iter().enumerate() {
        let field = format!("underlay.devices[{at}]");
        let name = device(&field, text)?;
        if name == tunnel {
            return Err(Fault::new(field, text, Rule::UnderlayIsTunnel));
        }
        if !devices.insert(name) {
            return Err(Fault::new(field, text, Rule::Twice));
        }
    }
    Ok(devices)
}

/// Reads the node's pod CIDRs and their router addresses.
pub(super) fn pods(
    raw: &[raw::PodCidr],
    node: &str,
    cluster: Option<&Cluster>,
    owners: &mut Owners,
) -> Result<BTreeMap<IpNet, IpAddr>, Fault> {
    let mut routers = BTreeMap::new();
    for (at, raw) in raw.iter().enumerate() {
        let field = format!("pods[{at}].cidr");
        let cidr = prefix::parse(&field, &raw.cidr)?;
        if let Some(cluster) = cluster {
            clusters::check_inside(&field, cidr, cluster)?;
        }
        let router = address(&format!("pods[{at}].router"), &raw.router)?;
        if !cidr.contains(&router) {
            let rule = Rule::RouterOutside { cidr };
            return Err(Fault::new(format!("pods[{at}].router"), router, rule));
        }
        if routers.insert(cidr, router).is_some() {
            return Err(Fault::new(field, cidr, Rule::Twice));
        }
        owners.add(cidr, field, &format!("node {node}"));
    }
    Ok(routers)
}

/// Reads the local pods; the router addresses are the host's.
pub(super) fn endpoints(
    raw: &[raw::Endpoint],
    routers: &BTreeMap<IpNet, IpAddr>,
    cluster: Option<&Cluster>,
) -> Result<BTreeMap<IpAddr, Identity>, Fault> {
    let mut holders: BTreeMap<IpAddr, (String, Identity)> = routers
        .values()
        .map(|&router| {
            (
                router,
                ("this node, as router address".to_owned(), Identity::HOST),
            )
        })
        .collect();
    let mut names = BTreeSet::new();
    for (at, raw) in raw.iter().enumerate() {
        let field = |name: &str| format!("endpoints[{at}].{name}");
        if !(1..=253).contains(&raw.name.len()) || !raw.name.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Fault::new(field("name"), &raw.name, Rule::EndpointName));
        }
        if !names.insert(&raw.name) {
            return Err(Fault::new(field("name"), &raw.name, Rule::Twice));
        }
        let identity = clusters::unreserved_identity(&field("identity"), &raw.identity)?;
        if let Some(cluster) = cluster
            && !cluster.identities.contains(&identity)
        {
            let rule = Rule::IdentityUnpublished {
                cluster: cluster.name.clone(),
            };
            return Err(Fault::new(field("identity"), identity, rule));
        }
        if raw.addresses.is_empty() {
            return Err(Fault::new(field("addresses"), "[]", Rule::NoAddresses));
        }
        for (nth, text) in raw.addresses.iter().enumerate() {
            let field = field(&format!("addresses[{nth}]"));
            let address = address(&field, text)?;
            if !routers.keys().any(|cidr| cidr.contains(&address)) {
                let rule = Rule::EndpointOutside {
                    prefixes: routers.keys().copied().collect(),
                };
                return Err(Fault::new(field, address, rule));
            }
            if let Some((other, _)) = holders.insert(address, (raw.name.clone(), identity)) {
                return Err(Fault::new(field, address, Rule::AddressTwice { other }));
            }
        }
    }
    Ok(holders
        .into_iter()
        .map(|(address, (_, identity))| (address, identity))
        .collect())
}

/// Checks that released prefixes belong to no cluster any more.
pub(super) fn released(raw: &[String], clusters: &Clusters) -> Result<BTreeSet<IpNet>, Fault> {
    let mut released = BTreeSet::new();
    for (at, text) in raw.iter().enumerate() {
        let field = format!("releasedPrefixes[{at}]");
        let prefix = prefix::parse(&field, text)?;
        for cluster in clusters.0.values() {
            let in_use = cluster
                .prefixes
                .iter()
                .find(|used| used.contains(&prefix) || prefix.contains(*used));
            if let Some(&used) = in_use {
                let rule = Rule::ReleasedInUse {
                    prefix: used,
                    cluster: cluster.name.clone(),
                };
                return Err(Fault::new(field, prefix, rule));
            }
        }
        if !released.insert(prefix) {
            return Err(Fault::new(field, prefix, Rule::Twice));
        }
    }
    Ok(released)
}

fn address(field: &str, text: &str) -> Result<IpAddr, Fault> {
    text.parse()
        .map_err(|_| Fault::new(field, text, Rule::NotAddress))
}
