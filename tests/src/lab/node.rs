//! One node of a lab: a namespace on the underlay with its pods behind it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::Result;
use hawser_tunnel::offload::Offload;
use ipnet::IpNet;

use super::address::{family_of, underlay};
use super::pod::{Pod, router_of};
use super::process::Process;
use super::topology::Family;
use super::underlay::UnderlaySpec;
use crate::io::Netns;

/// One underlay link, seen from the router: every frame from and to a node passes here.
#[derive(Clone, Debug)]
pub struct Link {
    /// Whose link it is.
    pub name: String,
    /// The router's namespace.
    pub netns: Netns,
    /// The port in it.
    pub device: String,
}

/// A node. Its methods that start and stop programs are in `node_processes.rs`.
#[derive(Debug)]
pub struct Node {
    pub(super) name: String,
    pub(super) cluster: String,
    pub(super) cluster_id: u16,
    pub(super) index: u16,
    pub(super) underlay: UnderlaySpec,
    pub(super) cidrs: Vec<IpNet>,
    pub(super) netns: Netns,
    pub(super) link: Link,
    pub(super) pods: Vec<Pod>,
    pub(super) directory: PathBuf,
    pub(super) keeper: Process,
    pub(super) agent: Process,
    /// Offloads that its tunnel does without.
    pub(super) without: Vec<Offload>,
    /// Its lanes.
    pub(super) lanes: u8,
    /// Those that stay open without load.
    pub(super) open_lanes: u8,
}

impl Node {
    /// Has its tunnel do without these offloads from its next start on.
    pub fn set_without(&mut self, offloads: &[Offload]) {
        self.without = offloads.to_vec();
    }

    /// Has its tunnel keep so many lanes open without load from its next start on; all are otherwise.
    pub fn set_open_lanes(&mut self, count: u8) {
        self.open_lanes = count;
    }

    /// How many lanes it has.
    #[must_use]
    pub const fn lanes(&self) -> u8 {
        self.lanes
    }

    /// Where each of its lanes listens.
    pub fn lane_endpoints(&self) -> impl Iterator<Item = SocketAddr> {
        let first = self.endpoint();
        (0..u16::from(self.lanes)).map(move |lane| SocketAddr::new(first.ip(), first.port() + lane))
    }

    /// Its name: `east-1`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its cluster.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The ID of its cluster.
    #[must_use]
    pub const fn cluster_id(&self) -> u16 {
        self.cluster_id
    }

    /// Its index in its cluster, from 1.
    #[must_use]
    pub const fn index(&self) -> u16 {
        self.index
    }

    /// How `hawser status` calls it: cluster ID and node index.
    #[must_use]
    pub fn peer_id(&self) -> String {
        format!("{}/{}", self.cluster_id, self.index)
    }

    /// Its namespace.
    #[must_use]
    pub const fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its link to the underlay.
    #[must_use]
    pub const fn link(&self) -> &Link {
        &self.link
    }

    /// Its port in the router's namespace.
    #[must_use]
    pub fn port_device(&self) -> &str {
        &self.link.device
    }

    /// Its pods.
    #[must_use]
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// A pod by its short name (`a`) or its full one (`east-1-a`).
    ///
    /// # Panics
    /// When there is no such pod.
    #[must_use]
    pub fn pod(&self, name: &str) -> &Pod {
        let found = self
            .pods
            .iter()
            .find(|pod| pod.short_name() == name || pod.name() == name);
        found.unwrap_or_else(|| panic!("node {} has no pod {name}", self.name))
    }

    /// Its address on the underlay. It always has both families.
    #[must_use]
    pub fn underlay(&self, family: Family) -> IpAddr {
        underlay(self.cluster_id, self.index, family)
    }

    /// Where its tunnel listens, in the family that the topology chose.
    #[must_use]
    pub fn endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.underlay(self.underlay.family), self.underlay.port)
    }

    /// Its pod CIDRs.
    #[must_use]
    pub fn pod_cidrs(&self) -> &[IpNet] {
        &self.cidrs
    }

    /// Its pod CIDR in one family, if its cluster speaks it.
    #[must_use]
    pub fn pod_cidr(&self, family: Family) -> Option<IpNet> {
        self.cidrs
            .iter()
            .copied()
            .find(|cidr| family_of(cidr.addr()) == family)
    }

    /// Its router address in one family.
    #[must_use]
    pub fn router(&self, family: Family) -> Option<IpAddr> {
        self.pod_cidr(family).map(router_of)
    }

    /// Where its files are: logs, node.yaml, state.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.directory.clone()
    }

    /// The tunnel's state directory.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// The tunnel's control socket.
    #[must_use]
    pub fn tunnel_socket(&self) -> PathBuf {
        self.directory.join("tunnel.sock")
    }

    /// The agent's own socket.
    #[must_use]
    pub fn agent_socket(&self) -> PathBuf {
        self.directory.join("agent.sock")
    }

    /// Where the agent keeps what it heard of hubs.
    #[must_use]
    pub fn kept_dir(&self) -> PathBuf {
        self.directory.join("kept")
    }

    /// The token by which it gets its certificate, where clusters join.
    pub(super) fn token_path(&self) -> PathBuf {
        self.dir().join("node.token")
    }

    /// Its node.yaml.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.directory.join("node.yaml")
    }

    /// Installs the routes to its pods with the router address as source, which the agent must have put in place.
    /// Doing it again changes nothing.
    ///
    /// # Errors
    /// When the router address is not there.
    pub fn route_pods(&self) -> Result<()> {
        super::build::pod_routes(self)
    }
}
