//! `node.yaml`: a node with the hubs that tell it its peers and pods, or with static ones, or both.
//!
//! [`NodeConfig`] is the checked form. Whatever is wrong with a file is told in one line with
//! field, value, rule and fix ([`ConfigError`]); nothing of a wrong file is used.

pub(crate) mod clusters;
mod fault;
mod hub;
pub mod hub_yaml;
mod own;
mod peers;
pub(crate) mod prefix;
mod raw;
pub(crate) mod syntax;

pub use fault::{ConfigError, Fault, Rule, Syntax};
pub use hub::{EndpointsWanted, HubConfig, HubFault, NodeIdentity};
pub use own::{DEFAULT_DEVICE, DEFAULT_SOCKET};

use crate::psk::PostQuantum;
use clusters::Clusters;
use hawser_tunnel::guard::Guard;
use hawser_tunnel::identity::Identity;
use hawser_tunnel::node::{ClusterId, NodeId};
use hawser_tunnel::state::{Checksums, Cluster, Peer, State};
use hawser_tunnel::vni::Vni;
use ipnet::IpNet;
use peers::Peers;
use prefix::Owners;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The largest file that is read, in bytes. 25,000 peers take about 6 MB.
pub const MAX_FILE: u64 = 8 << 20;

/// A file that keeps every rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// The node's name.
    pub name: String,
    /// Its cluster's name.
    pub cluster: String,
    /// Its cluster's ID, where the file says so; it does without a hub.
    pub cluster_id: Option<ClusterId>,
    /// Who it is, where the file says so; it does without a hub.
    pub node: Option<NodeId>,
    /// The address by which other nodes reach this one; `None`: the first of the underlay devices.
    pub underlay_address: Option<IpAddr>,
    /// Where the rest is asked for.
    pub hub: Option<HubConfig>,
    /// Whether there may be sessions that a quantum computer could open later.
    pub post_quantum: PostQuantum,
    /// How old the node's own WireGuard keys get, where a hub tells others of new ones; `None`: as old as they like.
    pub key_rotation: Option<Duration>,
    /// Where the data plane listens.
    pub socket: PathBuf,
    /// The router address of each pod CIDR of this node.
    pub routers: BTreeMap<IpNet, IpAddr>,
    /// Prefixes of clusters that left and that need not stay blocked.
    pub released: BTreeSet<IpNet>,
    /// What the file itself says of the mesh.
    pub statics: Statics,
}

/// What the file says of the mesh. It stands whatever a hub says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statics {
    /// The network of the clusterset.
    pub vni: Vni,
    /// Local addresses and whose they are, the router addresses among them.
    pub endpoints: BTreeMap<IpAddr, Identity>,
    /// The clusters of the file.
    pub clusters: BTreeMap<ClusterId, Cluster>,
    /// The peers of the file. Paths are not measured yet.
    pub peers: BTreeMap<NodeId, Peer>,
    /// The TAP.
    pub device: String,
    /// Devices that lead to other nodes.
    pub underlay: BTreeSet<String>,
    /// What becomes of transport checksums.
    pub checksums: Checksums,
}

impl NodeConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file cannot be read, is too long, is not YAML, or breaks a rule; or a file that it names does.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let config = Self::parse(&read(path)?, path)?;
        if let Some(hub) = &config.hub {
            let files = hub.check_files(&config.cluster, &config.name);
            files.map_err(|fault| ConfigError::Hub {
                path: path.to_owned(),
                fault,
            })?;
        }
        Ok(config)
    }

    /// Checks the text of a file that lies at `path`: complaints name it, and relative paths in it
    /// start in its folder.
    ///
    /// # Errors
    /// The text is not YAML or breaks a rule.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file = syntax::read(text).map_err(|syntax| ConfigError::Syntax {
            path: path.to_owned(),
            syntax,
        })?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        let config = Self::check(&file, folder).map_err(|fault| ConfigError::Field {
            path: path.to_owned(),
            fault: Box::new(fault),
        })?;
        if let Some(state) = config.state() {
            state.check().map_err(|source| ConfigError::State {
                path: path.to_owned(),
                source,
            })?;
        }
        Ok(config)
    }

    /// What the data plane is told by the file alone; `None`: the file leaves it to a hub which node this is, or what
    /// its cluster is. The guard knows only the clusters of the file, not those that left.
    pub fn state(&self) -> Option<State> {
        let statics = &self.statics;
        let node = self.node?;
        if self.hub.is_some() && !statics.clusters.contains_key(&node.cluster) {
            return None;
        }
        let prefixes: BTreeSet<IpNet> = self.routers.keys().copied().collect();
        Some(State {
            vni: statics.vni,
            node,
            prefixes: prefixes.clone(),
            endpoints: statics.endpoints.clone(),
            clusters: statics.clusters.clone(),
            peers: statics.peers.clone(),
            guard: Guard {
                device: statics.device.clone(),
                underlay: statics.underlay.clone(),
                mesh: statics
                    .clusters
                    .values()
                    .flat_map(|cluster| &cluster.prefixes)
                    .copied()
                    .collect(),
                local: prefixes,
            },
            checksums: statics.checksums,
        })
    }

    /// Where the agent itself listens: beside the data plane.
    pub fn agent_socket(&self) -> PathBuf {
        self.socket.with_file_name("agent.sock")
    }

    /// Refuses what only a start of the agent can change.
    ///
    /// # Errors
    /// `next` uses another socket or device.
    pub fn check_reload(&self, next: &Self) -> Result<(), Fault> {
        if self.socket != next.socket {
            let rule = Rule::NeedsRestart {
                running: self.socket.display().to_string(),
            };
            return Err(Fault::new("tunnel.socket", next.socket.display(), rule));
        }
        if self.device() != next.device() {
            let rule = Rule::NeedsRestart {
                running: self.device().to_owned(),
            };
            return Err(Fault::new("tunnel.device", next.device(), rule));
        }
        let own = |config: &Self| format!("{} of {}", config.name, config.cluster);
        let hub = |config: &Self| config.hub.as_ref().map(|hub| hub.state_directory.clone());
        if self.hub.is_some() && own(self) != own(next) {
            let rule = Rule::NeedsRestart { running: own(self) };
            return Err(Fault::new("node.name", own(next), rule));
        }
        if hub(self) != hub(next) {
            let shown = |hub: Option<PathBuf>| {
                hub.map_or_else(|| "absent".to_owned(), |at| at.display().to_string())
            };
            let rule = Rule::NeedsRestart {
                running: shown(hub(self)),
            };
            let field = "hub.stateDirectory";
            return Err(Fault::new(field, shown(hub(next)), rule));
        }
        Ok(())
    }

    /// The TAP.
    pub fn device(&self) -> &str {
        &self.statics.device
    }

    /// Whether any cluster has pods with IPv6.
    pub fn uses_ipv6(&self) -> bool {
        let mut prefixes = self
            .statics
            .clusters
            .values()
            .flat_map(|cluster| &cluster.prefixes);
        prefixes.any(|prefix| matches!(prefix, IpNet::V6(_)))
    }

    fn check(file: &raw::File, folder: &Path) -> Result<Self, Fault> {
        let vni = file
            .clusterset
            .vni
            .as_ref()
            .map_or(Ok(Vni::DEFAULT), |text| {
                let number = text
                    .parse()
                    .ok()
                    .and_then(|number: u32| Vni::new(number).ok());
                number.ok_or_else(|| Fault::new("clusterset.vni", text, Rule::Vni))
            })?;
        if file.clusters.is_none() && file.hub.is_none() {
            return Err(Fault::new("clusters", "", Rule::NeededWithoutHub));
        }
        let clusters = Clusters::parse(file.clusters.as_deref().unwrap_or_default())?;
        let own = own::node(file, &clusters)?;
        let cluster = own.id.and_then(|id| clusters.0.get(&id));
        let hub = file.hub.as_ref().map(|hub| hub::parse(hub, folder));
        let socket = own::socket(file.tunnel.socket.as_deref())?;
        let device = file.tunnel.device.as_deref().unwrap_or(DEFAULT_DEVICE);
        let device = own::device("tunnel.device", device)?;
        let underlay = own::underlay(&file.underlay, &device)?;
        let mut owners = Owners::default();
        let name = &file.node.name;
        let routers = own::pods(&file.pods, name, cluster, &mut owners)?;
        let endpoints = own::endpoints(&file.endpoints, &routers, cluster)?;
        let post_quantum = own::post_quantum(file.post_quantum.as_deref())?;
        let peers = Peers {
            post_quantum,
            own: &own,
            own_name: name,
            clusters: &clusters,
            folder,
            owners: &mut owners,
        }
        .parse(&file.peers)?;
        owners.check()?;
        let released = own::released(&file.released_prefixes, &clusters)?;
        Ok(Self {
            name: name.clone(),
            node: own.node(),
            cluster: own.cluster,
            cluster_id: own.id,
            underlay_address: own::underlay_address(file.underlay.address.as_deref())?,
            hub: hub.transpose()?,
            post_quantum,
            key_rotation: own::key_rotation(file.key_rotation.as_deref())?,
            socket,
            routers,
            released,
            statics: Statics {
                vni,
                endpoints,
                clusters: clusters.0,
                peers,
                device,
                underlay,
                checksums: own::checksums(file.tunnel.checksums.as_deref())?,
            },
        })
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |error| ConfigError::Read {
        path: path.to_owned(),
        error,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    if size > MAX_FILE {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
            size,
            limit: MAX_FILE,
        });
    }
    let mut text = String::new();
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
