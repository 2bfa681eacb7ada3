//! What a lab shall look like, as written in the file for `lab up`.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::underlay::UnderlaySpec;
use super::wired::Wired;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub const fn of(address: std::net::IpAddr) -> Self {
        match address {
            std::net::IpAddr::V4(_) => Self::V4,
            std::net::IpAddr::V6(_) => Self::V6,
        }
    }

    /// The option by which `ip`, `ping` and `iperf3` are told the family.
    #[must_use]
    pub const fn flag(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        })
    }
}

/// The clusters of a lab and the network between their nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Topology {
    /// Every cluster.
    pub clusters: Vec<ClusterSpec>,
    /// The network between the nodes.
    #[serde(default)]
    pub underlay: UnderlaySpec,
    /// Each cluster's hub makes a CA, nodes enrol by tokens, and clusters join each other by invitation, as by
    /// `hawser node-token`, `hawser invite` and `hawser join`; else certificates are brought, and manifests say who is a
    /// member.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub joining: bool,
    /// Clusters that join let each other revoke.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub revoking: bool,
}

/// One cluster of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterSpec {
    /// Its name, a short DNS label.
    pub name: String,
    /// Its cluster ID, 1-255 here: it is the second byte of the addresses.
    pub id: u16,
    /// Clusters of the same site share one bridge. Default: a site of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// How many nodes, 1-99.
    pub nodes: u16,
    /// How many pods on each node, 0-99.
    pub pods: u16,
    /// How many lanes each node has, 1-16, all of them open.
    #[serde(default = "one_lane", skip_serializing_if = "is_one_lane")]
    pub lanes: u8,
    /// How many hub replicas it has, on its first nodes. Without any, every node is told of the others by its file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hubs: u16,
    /// The families that its pods speak.
    #[serde(default = "both_families")]
    pub families: Vec<Family>,
    /// Pod prefixes in place of `10.<id>.0.0/16` and `fd01:<id>::/32`: an IPv4 /16, an IPv6 /32 or /48, or both.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<IpNet>,
}

const fn one_lane() -> u8 {
    1
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_one_lane(lanes: &u8) -> bool {
    *lanes == one_lane()
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_zero(count: &u16) -> bool {
    *count == 0
}

fn both_families() -> Vec<Family> {
    Family::BOTH.to_vec()
}

impl Topology {
    /// Clusters `east` and `west`, two nodes each, two pods on each node, both families, as the demo uses.
    #[must_use]
    pub fn two_by_two() -> Self {
        let cluster = |name: &str, id| ClusterSpec {
            name: name.to_owned(),
            id,
            site: None,
            nodes: 2,
            pods: 2,
            lanes: one_lane(),
            hubs: 0,
            families: both_families(),
            prefixes: Vec::new(),
        };
        Self {
            clusters: vec![cluster("east", 1), cluster("west", 2)],
            underlay: UnderlaySpec::default(),
            joining: false,
            revoking: false,
        }
    }

    /// The same clusters, each node with so many lanes.
    #[must_use]
    pub fn with_lanes(mut self, lanes: &[u8]) -> Self {
        for (cluster, lanes) in self.clusters.iter_mut().zip(lanes.iter().cycle()) {
            cluster.lanes = *lanes;
        }
        self
    }

    /// The same clusters, each with so many hub replicas, from which its nodes learn everything.
    #[must_use]
    pub fn with_hubs(mut self, replicas: u16) -> Self {
        for cluster in &mut self.clusters {
            cluster.hubs = replicas;
        }
        self
    }

    /// The same clusters, which join each other by invitation.
    #[must_use]
    pub const fn joining(mut self) -> Self {
        self.joining = true;
        self
    }

    /// The same clusters, which join each other and let each other revoke.
    #[must_use]
    pub const fn revoking(mut self) -> Self {
        self.joining = true;
        self.revoking = true;
        self
    }

    /// Whether nodes learn from hubs.
    #[must_use]
    pub fn has_hubs(&self) -> bool {
        self.clusters.iter().any(|cluster| cluster.hubs > 0)
    }

    /// The same clusters on another underlay.
    #[must_use]
    pub fn with_underlay(mut self, family: Family, mtu: u32) -> Self {
        self.underlay.family = family;
        self.underlay.mtu = mtu;
        self
    }

    /// The same clusters with a wire at every node, all of them clean for now.
    #[must_use]
    pub fn wired(mut self, seed: u64) -> Self {
        (self.underlay.wired, self.underlay.seed) = (Wired::All, seed);
        self
    }

    /// The same clusters, whose two nodes are joined by one veth.
    #[must_use]
    pub const fn direct(mut self) -> Self {
        self.underlay.direct = true;
        self
    }

    /// Whether a node's link is a wire.
    #[must_use]
    pub fn is_wired(&self, node: &str) -> bool {
        self.underlay.wired.has(node)
    }

    /// The names of all nodes.
    #[must_use]
    pub fn node_names(&self) -> Vec<String> {
        let names = |cluster: &ClusterSpec| {
            let name = cluster.name.clone();
            (1..=cluster.nodes).map(move |index| format!("{name}-{index}"))
        };
        self.clusters.iter().flat_map(names).collect()
    }

    /// Reads a topology from YAML and checks it.
    ///
    /// # Errors
    /// One line that names the field, the value and the rule.
    pub fn parse(yaml: &str) -> Result<Self> {
        let topology: Self = serde_saphyr::from_str(yaml).map_err(|error| {
            anyhow::anyhow!(
                "topology: {}",
                error.to_string().lines().next().unwrap_or_default()
            )
        })?;
        topology.check()?;
        Ok(topology)
    }

    /// Checks that every name and address which follows from the topology is legal and unique.
    ///
    /// # Errors
    /// One line that names the field, the value and the rule.
    pub fn check(&self) -> Result<()> {
        if self.clusters.is_empty() {
            bail!("clusters: empty: a lab needs at least one cluster");
        }
        let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for (index, cluster) in self.clusters.iter().enumerate() {
            let at = || format!("clusters[{index}]");
            cluster
                .check()
                .with_context(at)
                .map_err(|error| anyhow::anyhow!("{error:#}"))?;
            if !names.insert(&cluster.name) {
                bail!(
                    "{}.name: {}: used twice; names must be unique",
                    at(),
                    cluster.name
                );
            }
            if !ids.insert(cluster.id) {
                bail!(
                    "{}.id: {}: used twice; cluster IDs must be unique",
                    at(),
                    cluster.id
                );
            }
        }
        if self.has_hubs()
            && let Some(without) = self.clusters.iter().position(|cluster| cluster.hubs == 0)
        {
            bail!("clusters[{without}].hubs: 0: all clusters have hubs, or none has");
        }
        if self.joining && !self.has_hubs() {
            bail!("joining: true: clusters without hubs cannot join; give each of them hubs");
        }
        self.underlay.check(&self.node_names())
    }
}

impl ClusterSpec {
    /// The site that the cluster is on.
    #[must_use]
    pub fn site(&self) -> &str {
        self.site.as_deref().unwrap_or(&self.name)
    }

    /// The prefix of all its pods in one family, if its pods speak it.
    #[must_use]
    pub fn prefix(&self, family: Family) -> Option<IpNet> {
        if !self.families.contains(&family) {
            return None;
        }
        let own = self
            .prefixes
            .iter()
            .find(|prefix| super::address::family_of(prefix.addr()) == family);
        own.copied()
            .or_else(|| super::address::cluster_prefix(self.id, family))
    }

    /// The identities of its pods: the n-th pod of each node carries the same one, as the replicas of a workload do.
    #[must_use]
    pub fn identities(&self) -> Vec<u32> {
        (1..=self.pods).map(|pod| self.identity(pod)).collect()
    }

    /// The identity of the n-th pod (from 1) of a node.
    #[must_use]
    pub fn identity(&self, pod: u16) -> u32 {
        u32::from(self.id) * 1000 + u32::from(pod)
    }

    fn check(&self) -> Result<()> {
        let label = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
        if self.name.is_empty() || self.name.len() > 20 || !self.name.chars().all(label) {
            bail!("name: {:?}: must be 1 to 20 of a-z and 0-9", self.name);
        }
        if !(1..=255).contains(&self.id) {
            bail!("id: {}: must be 1 to 255 in a lab", self.id);
        }
        if !(1..=99).contains(&self.nodes) {
            bail!("nodes: {}: must be 1 to 99", self.nodes);
        }
        if self.hubs > self.nodes {
            bail!(
                "hubs: {}: each runs on a node of its own; there are {}",
                self.hubs,
                self.nodes
            );
        }
        if self.pods > 99 {
            bail!("pods: {}: must be 0 to 99", self.pods);
        }
        if self.families.is_empty() {
            bail!("families: empty: must name v4, v6 or both");
        }
        for prefix in &self.prefixes {
            let fits = if prefix.addr().is_ipv4() {
                &[16][..]
            } else {
                &[32, 48]
            };
            if !fits.contains(&prefix.prefix_len()) || prefix.trunc() != *prefix {
                bail!(
                    "prefixes: {prefix}: must be an IPv4 /16, or an IPv6 /32 or /48, without host bits"
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_file_is_enough() {
        let topology =
            Topology::parse("clusters:\n- { name: east, id: 1, nodes: 2, pods: 1 }\n").unwrap();
        assert_eq!(topology.underlay, UnderlaySpec::default());
        assert_eq!(topology.clusters[0].families, Family::BOTH);
        assert_eq!(topology.clusters[0].identities(), [1001]);
    }

    #[test]
    fn bad_files_are_refused_in_one_line() {
        for (yaml, text) in [
            (
                "clusters: []",
                "clusters: empty: a lab needs at least one cluster",
            ),
            (
                "clusters: [{name: e, id: 256, nodes: 1, pods: 1}]",
                "clusters[0]: id: 256: must be 1 to 255 in a lab",
            ),
            (
                "clusters: [{name: E, id: 1, nodes: 1, pods: 1}]",
                "clusters[0]: name: \"E\": must be 1 to 20 of a-z and 0-9",
            ),
            (
                "clusters: [{name: e, id: 1, nodes: 0, pods: 1}]",
                "clusters[0]: nodes: 0: must be 1 to 99",
            ),
            (
                "clusters: [{name: e, id: 1, nodes: 1, pods: 1}, {name: f, id: 1, nodes: 1, pods: 1}]",
                "clusters[1].id: 1: used twice; cluster IDs must be unique",
            ),
            (
                "clusters: [{name: e, id: 1, nodes: 1, pods: 1, hubs: 2}]",
                "clusters[0]: hubs: 2: each runs on a node of its own; there are 1",
            ),
            (
                "clusters: [{name: e, id: 1, nodes: 1, pods: 1, hubs: 1}, {name: f, id: 2, nodes: 1, pods: 1}]",
                "clusters[1].hubs: 0: all clusters have hubs, or none has",
            ),
            (
                "clusters: [{name: e, id: 1, nodes: 1, pods: 1}]\njoining: true",
                "joining: true: clusters without hubs cannot join; give each of them hubs",
            ),
            (
                "clusters: [{name: e, id: 1, nodes: 1, pods: 1}]\nunderlay: {mtu: 1000}",
                "underlay.mtu: 1000: must be 1280 to 65535",
            ),
            (
                "clusters: [{name: e, id: 1, nodes: 1, pods: 1}]\nunderlay: {wired: [e-1, e-2]}",
                "underlay.wired: e-2: no such node; there are e-1",
            ),
            (
                "clusters: [{name: e, id: 1, nodes: 1, pods: 1}]\nunderlay: {wired: all, mtu: 65535}",
                "underlay.mtu: 65535: must be 1280 to 65521 with wires",
            ),
            (
                "clusters: [{name: e, id: 1, nodes: 3, pods: 1}]\nunderlay: {direct: true}",
                "underlay.direct: true: one veth joins two nodes; there are 3",
            ),
            (
                "clusters: [{name: e, id: 1, nodes: 2, pods: 1}]\nunderlay: {direct: true, wired: all}",
                "underlay.direct: true: goes without wires; leave underlay.wired out",
            ),
        ] {
            assert_eq!(Topology::parse(yaml).unwrap_err().to_string(), text);
        }
        let unknown = Topology::parse("clusters: [{name: e, id: 1, nodes: 1, pods: 1, x: 2}]")
            .unwrap_err()
            .to_string();
        assert!(
            unknown.contains('x') && !unknown.contains('\n'),
            "{unknown}"
        );
    }

    #[test]
    fn a_topology_survives_its_own_yaml() {
        let topology = Topology::two_by_two().with_underlay(Family::V6, 9000);
        let yaml = serde_saphyr::to_string(&topology).unwrap();
        assert_eq!(Topology::parse(&yaml).unwrap(), topology);
        let joining = topology.clone().with_hubs(1).joining();
        let yaml = serde_saphyr::to_string(&joining).unwrap();
        assert_eq!(Topology::parse(&yaml).unwrap(), joining);
        let wired = topology.wired(7);
        let yaml = serde_saphyr::to_string(&wired).unwrap();
        assert_eq!(Topology::parse(&yaml).unwrap(), wired);
    }

    #[test]
    fn wires_are_at_all_nodes_or_at_some() {
        let clusters = "clusters: [{name: e, id: 1, nodes: 3, pods: 0}]\n";
        let wired = |underlay: &str| {
            let topology = Topology::parse(&format!("{clusters}{underlay}")).unwrap();
            let names = topology.node_names();
            names
                .into_iter()
                .filter(|name| topology.is_wired(name))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(wired(""), "");
        assert_eq!(wired("underlay: {wired: all, seed: 7}"), "e-1 e-2 e-3");
        assert_eq!(wired("underlay: {wired: [e-1, e-3]}"), "e-1 e-3");
        let every = Topology::parse(&format!("{clusters}underlay: {{wired: every}}"));
        let text = every.unwrap_err().to_string();
        assert!(
            text.contains("\"every\": must be all or a list of nodes"),
            "{text}"
        );
    }
}
