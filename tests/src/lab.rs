//! Clusters out of network namespaces on one machine.
//!
//! A [`Lab`] is one network: a router namespace with a bridge per site, a namespace per node behind it, and a namespace
//! per pod behind its node. Everything carries the lab's random id in its name and lives in namespaces of its own, so
//! several labs run side by side and the host's network is never touched. A janitor process removes all of it when the
//! lab ends, in whatever way.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::io::Netns;
use crate::sniffer::{Allow, ControlPort, Protocol, Sniffer};

mod account;
pub(crate) mod address;
mod asked;
mod binary;
mod build;
mod cable;
mod configure;
mod hub;
mod janitor;
mod joining;
mod lifecycle;
mod manifests;
mod node;
mod node_config;
mod node_control;
mod node_data_plane;
mod node_processes;
mod pod;
mod process;
mod reboot;
mod record;
mod topology;
mod underlay;
mod wait;
mod wire;
mod wired;

pub use address::{gateway, world};
pub use binary::binary;
pub(crate) use hub::CLUSTERSET;
pub use hub::{HUB_PORT, Hub, KEY_PORT, NAMESPACE, manifest_of};
pub use janitor::{remove_everything_of, remove_live_labs, run_janitor};
pub use lifecycle::{check_name, is_held};
pub use manifests::{ClusterPeer, Manifests, PodManifest};
pub use node::{Link, Node};
pub use node_config::{
    ClusterConfig, ClusterName, Clusterset, EndpointConfig, Foreign, HubConfig, Lane, NodeConfig,
    NodeIdentity, NodeName, PeerConfig, PodCidr, TunnelConfig, Underlay,
};
pub use pod::Pod;
pub(crate) use process::Process;
pub use record::{Record, records};
pub use topology::{ClusterSpec, Family, Topology};
pub use underlay::UnderlaySpec;
pub use wait::wait_until;
pub use wire::{Wire, run_wires};
pub use wired::Wired;

/// How long a lab on a busy machine may take until every tunnel has shaken hands with every other.
const READY: Duration = Duration::from_secs(30);

/// A pod that sends and a pod that it sends to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pair {
    /// The sender's name.
    pub from: String,
    /// The receiver's name.
    pub to: String,
    /// By which family.
    pub family: Family,
}

/// One network of clusters. Dropping it removes everything, unless [`Lab::keep`] said otherwise.
#[derive(Debug)]
pub struct Lab {
    record: Record,
    router: Netns,
    nodes: Vec<Node>,
    hubs: Vec<Hub>,
    /// Links of namespaces that are no nodes.
    guests: Vec<Link>,
    /// The process that holds the wires. Kept to be collected when the janitor has ended it.
    _wires: Option<Process>,
    /// Absent for a lab that another process made and kept.
    janitor: Option<janitor::Janitor>,
}

impl Lab {
    /// Makes keys and configurations, then starts tunnel and agent on every node.
    ///
    /// # Errors
    /// When a program is missing or ends by itself.
    pub fn start(&mut self) -> Result<()> {
        self.start_hubs()?;
        self.start_nodes()
    }

    /// The first part of [`Self::start`]: hubs run, and clusters that join by invitation have joined.
    ///
    /// # Errors
    /// When a program is missing or ends by itself, or a hub refuses.
    pub fn start_hubs(&mut self) -> Result<()> {
        self.configure()?;
        for hub in &mut self.hubs {
            hub.start()?;
        }
        if self.topology().joining {
            self.join_clusters()?;
            self.give_tokens()?;
        }
        Ok(())
    }

    /// The second part: tunnel and agent run on every node.
    ///
    /// # Errors
    /// When a program is missing or ends by itself.
    pub fn start_nodes(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.start_keeper()?;
        }
        for node in &mut self.nodes {
            node.start_agent()?;
        }
        Ok(())
    }

    /// Makes every node's key and writes every node's node.yaml, without starting anything.
    ///
    /// # Errors
    /// When `hawser-tunnel` is missing.
    pub fn configure(&self) -> Result<()> {
        if self.topology().has_hubs() {
            return self.configure_hubs();
        }
        let keys = configure::keys(self)?;
        for node in &self.nodes {
            node.write_config(&configure::node_config(self, node, &keys)?)?;
        }
        Ok(())
    }

    /// The node.yaml that [`Self::start`] gives a node.
    ///
    /// # Errors
    /// When `hawser-tunnel` is missing.
    pub fn node_config(&self, node: &Node) -> Result<NodeConfig> {
        configure::node_config(self, node, &configure::keys(self)?)
    }

    /// Waits until every node has a handshake with every other, and routes to pods have their source.
    ///
    /// # Errors
    /// When `timeout` passes, or a program ended by itself.
    pub fn wait_ready(&self, timeout: Duration) -> Result<()> {
        let end = Instant::now() + timeout;
        for hub in &self.hubs {
            hub.check()?;
        }
        for node in &self.nodes {
            node.wait_ready(
                self.nodes.len() - 1,
                end.saturating_duration_since(Instant::now()),
            )?;
        }
        Ok(())
    }

    /// Watches every underlay link from now on, with the lab's own allow-list.
    ///
    /// # Errors
    /// When a link cannot be opened.
    pub fn sniffer(&self) -> Result<Sniffer> {
        Sniffer::start(&self.links(), self.allow(), self.canary())
    }

    /// What may be on the underlay of this lab: WireGuard between its nodes, and what link layers say to each other.
    #[must_use]
    pub fn allow(&self) -> Allow {
        let clusters = &self.record.topology.clusters;
        let gateways = clusters
            .iter()
            .flat_map(|spec| Family::BOTH.map(|family| gateway(spec.id, family)));
        let nodes = self
            .nodes
            .iter()
            .flat_map(|node| Family::BOTH.map(|family| node.underlay(family)));
        let nodes: BTreeSet<IpAddr> = nodes.chain(gateways).collect();
        Allow {
            wireguard_ports: self
                .nodes
                .iter()
                .flat_map(|node| node.lane_endpoints().map(|endpoint| endpoint.port()))
                .collect(),
            nodes,
            mesh: self.mesh(),
            control: self.control(),
            ..Allow::default()
        }
    }

    /// The ports of hubs, and of agents that derive keys.
    fn control(&self) -> Vec<ControlPort> {
        let any = self.hubs.first().map(|_| [HUB_PORT, KEY_PORT]);
        let ports = any.into_iter().flatten();
        let control = ports.map(|port| ControlPort {
            protocol: Protocol::Udp,
            port,
        });
        control.collect()
    }

    /// The pod prefixes of every cluster.
    #[must_use]
    pub fn mesh(&self) -> Vec<IpNet> {
        let clusters = &self.record.topology.clusters;
        clusters
            .iter()
            .flat_map(|spec| {
                Family::BOTH
                    .into_iter()
                    .filter_map(|family| spec.prefix(family))
            })
            .collect()
    }

    /// Every underlay link: the nodes', then those of [`Self::attach_underlay`].
    #[must_use]
    pub fn links(&self) -> Vec<Link> {
        self.nodes
            .iter()
            .map(|node| node.link().clone())
            .chain(self.guests.iter().cloned())
            .collect()
    }

    /// Its nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Its nodes, to start and stop their programs.
    #[must_use]
    pub fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// A node by name.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn node(&self, name: &str) -> &Node {
        let found = self.nodes.iter().find(|node| node.name() == name);
        found.unwrap_or_else(|| panic!("no node {name}; there are {}", self.node_names()))
    }

    /// A node by name, to start and stop its programs.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn node_mut(&mut self, name: &str) -> &mut Node {
        let names = self.node_names();
        let found = self.nodes.iter_mut().find(|node| node.name() == name);
        found.unwrap_or_else(|| panic!("no node {name}; there are {names}"))
    }

    fn node_names(&self) -> String {
        self.nodes
            .iter()
            .map(Node::name)
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Every pod of every node.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.nodes.iter().flat_map(Node::pods)
    }

    /// A pod by its full name.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn pod(&self, name: &str) -> &Pod {
        self.pods()
            .find(|pod| pod.name() == name)
            .unwrap_or_else(|| {
                let names: Vec<&str> = self.pods().map(Pod::name).collect();
                panic!("no pod {name}; there are {}", names.join(", "))
            })
    }

    /// The namespace of a node or a pod by name, or `router`.
    ///
    /// # Errors
    /// When there is none of that name: lists those that there are.
    pub fn find(&self, name: &str) -> Result<&Netns> {
        let node = self
            .nodes
            .iter()
            .find(|node| node.name() == name)
            .map(Node::netns);
        let pod = || self.pods().find(|pod| pod.name() == name).map(Pod::netns);
        let router = || (name == "router").then_some(&self.router);
        node.or_else(pod).or_else(router).with_context(|| {
            let names: Vec<&str> = self.pods().map(Pod::name).collect();
            format!(
                "no pod {name}; there are pods {}, nodes {} and router",
                names.join(", "),
                self.node_names()
            )
        })
    }

    /// Every ordered pair of pods of different nodes, in one family or in both.
    #[must_use]
    pub fn cross_pairs(&self, family: Option<Family>) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for from in self.pods() {
            for to in self.pods().filter(|to| to.node() != from.node()) {
                let families = Family::BOTH
                    .into_iter()
                    .filter(|own| family.is_none_or(|wanted| wanted == *own));
                for family in families
                    .filter(|own| from.address(*own).is_some() && to.address(*own).is_some())
                {
                    pairs.push(Pair {
                        from: from.name().to_owned(),
                        to: to.name().to_owned(),
                        family,
                    });
                }
            }
        }
        pairs
    }

    /// The router's namespace.
    #[must_use]
    pub const fn router(&self) -> &Netns {
        &self.router
    }

    /// Its random id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// Where its files are.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        Record::directory_of(&self.record.id)
    }

    /// Sixteen random bytes that traffic repeats in its payloads and that no sniffer may see.
    #[must_use]
    pub const fn canary(&self) -> [u8; 16] {
        self.record.canary
    }

    /// What it was built from.
    #[must_use]
    pub const fn topology(&self) -> &Topology {
        &self.record.topology
    }

    /// Makes one more namespace, which is removed with the lab.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn netns_add(&self, label: &str) -> Result<Netns> {
        let name = format!("hw{}-{label}", self.record.id);
        build::namespaces(&[name], &self.record.id)?
            .pop()
            .context("no namespace was made")
    }

    /// Connects a namespace of [`Self::netns_add`] to the underlay as if it were node `index` of a cluster.
    ///
    /// # Errors
    /// When the cluster does not exist, the index is taken, or the nodes are joined directly.
    pub fn attach_underlay(&mut self, netns: &Netns, cluster: u16, index: u16) -> Result<Link> {
        ensure!(
            !self.record.topology.underlay.direct,
            "underlay.direct: true: one veth has no room for {}",
            netns.name()
        );
        let ends = build::Ends {
            router: &self.router,
            netns,
            name: netns.name(),
            cluster,
            index,
        };
        let link = build::underlay_link(&self.record.topology, &ends, None)?;
        self.guests.push(link.clone());
        Ok(link)
    }

    /// The wire of a node, to make it bad.
    ///
    /// # Errors
    /// When there is no such node, or its link is a bare veth.
    pub fn wire(&self, node: &str) -> Result<Wire> {
        let names = self.record.topology.node_names();
        ensure!(
            names.iter().any(|name| name == node),
            "node {node}: no such node; there are {}",
            names.join(", ")
        );
        ensure!(
            self.record.topology.is_wired(node),
            "node {node}: its link is a bare veth: name it in underlay.wired"
        );
        Ok(Wire::new(node, &self.dir()))
    }

    /// Every wire, in the order of the nodes.
    #[must_use]
    pub fn wires(&self) -> Vec<Wire> {
        let names = self.nodes.iter().map(Node::name);
        names
            .filter(|name| self.record.topology.is_wired(name))
            .map(|name| Wire::new(name, &self.dir()))
            .collect()
    }

    /// Makes a node's link anew, as its cable is plugged in again after a reboot: `eth0` with its addresses and routes.
    /// What was there is removed. A wire keeps what is in force, its counts and its log; a sniffer that watched the old
    /// port sees nothing of the new.
    ///
    /// # Errors
    /// When the kernel refuses something, or the nodes are joined directly.
    pub fn relink(&self, node: &str) -> Result<()> {
        ensure!(
            !self.record.topology.underlay.direct,
            "underlay.direct: true: the link of {node} is also the other node's; it stays"
        );
        let node = self.node(node);
        let wire = self.topology().is_wired(node.name());
        let wire = wire.then(|| Wire::new(node.name(), &self.dir()));
        let port = node.port_device();
        if wire.is_none() && self.router.ip_batch(&format!("link show {port}\n")).is_ok() {
            self.router.ip_batch(&format!("link del {port}\n"))?;
        }
        let ends = build::Ends {
            router: &self.router,
            netns: node.netns(),
            name: node.name(),
            cluster: node.cluster_id(),
            index: node.index(),
        };
        build::underlay_link(self.topology(), &ends, wire.as_ref())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
