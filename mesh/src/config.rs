//! `node.yaml`: a node with static peers and static pods.
//!
//! [`NodeConfig`] is the checked form. Whatever is wrong with a file is told in one line with
//! field, value, rule and fix ([`ConfigError`]); nothing of a wrong file is used.

pub(crate) mod clusters;
mod fault;
pub mod hub_yaml;
mod own;
mod peers;
pub(crate) mod prefix;
mod raw;
pub(crate) mod syntax;

pub use fault::{ConfigError, Fault, Rule, Syntax};
pub use own::{DEFAULT_DEVICE, DEFAULT_SOCKET};

use clusters::Clusters;
use hawser_tunnel::guard::Guard;
use hawser_tunnel::state::State;
use hawser_tunnel::vni::Vni;
use ipnet::IpNet;
use peers::Peers;
use prefix::Owners;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The largest file that is read, in bytes. 25,000 peers take about 6 MB.
pub const MAX_FILE: u64 = 8 << 20;

/// A file that keeps every rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// The node's name.
    pub name: String,
    /// Where the data plane listens.
    pub socket: PathBuf,
    /// The router address of each pod CIDR of this node.
    pub routers: BTreeMap<IpNet, IpAddr>,
    /// Prefixes of clusters that left and that need not stay blocked.
    pub released: BTreeSet<IpNet>,
    /// What the data plane is told. Paths are not measured yet, and the guard knows only the
    /// clusters of the file, not those that left.
    pub state: State,
}

impl NodeConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file cannot be read, is too long, is not YAML, or breaks a rule.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&read(path)?, path)
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
        let checked = config.state.clone().check();
        checked.map_err(|source| ConfigError::State {
            path: path.to_owned(),
            source,
        })?;
        Ok(config)
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
        Ok(())
    }

    /// The TAP.
    pub fn device(&self) -> &str {
        &self.state.guard.device
    }

    /// Whether any cluster has pods with IPv6.
    pub fn uses_ipv6(&self) -> bool {
        let mut prefixes = self
            .state
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
        let clusters = Clusters::parse(&file.clusters)?;
        let node = own::node(file, &clusters)?;
        let cluster = &clusters.0[&node.cluster];
        let socket = own::socket(file.tunnel.socket.as_deref())?;
        let device = file.tunnel.device.as_deref().unwrap_or(DEFAULT_DEVICE);
        let device = own::device("tunnel.device", device)?;
        let underlay = own::underlay(&file.underlay, &device)?;
        let mut owners = Owners::default();
        let name = &file.node.name;
        let routers = own::pods(&file.pods, name, cluster, &mut owners)?;
        let endpoints = own::endpoints(&file.endpoints, &routers, cluster)?;
        let peers = Peers {
            own: node,
            own_name: name,
            clusters: &clusters,
            folder,
            owners: &mut owners,
        }
        .parse(&file.peers)?;
        owners.check()?;
        let released = own::released(&file.released_prefixes, &clusters)?;
        let guard = Guard {
            device,
            underlay,
            mesh: clusters
                .0
                .values()
                .flat_map(|cluster| &cluster.prefixes)
                .copied()
                .collect(),
            local: routers.keys().copied().collect(),
        };
        let prefixes = routers.keys().copied().collect();
        let state = State {
            vni,
            node,
            prefixes,
            endpoints,
            clusters: clusters.0,
            peers,
            guard,
            checksums: own::checksums(file.tunnel.checksums.as_deref())?,
        };
        Ok(Self {
            name: name.clone(),
            socket,
            routers,
            released,
            state,
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
