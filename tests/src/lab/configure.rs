//! Turns a topology into nodes, and nodes into their configurations.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::Lab;
use super::address::letters;
use super::node::{Link, Node};
use super::node_config::{
    ClusterConfig, ClusterName, Clusterset, EndpointConfig, Lane, NodeConfig, NodeName, PeerConfig,
    PodCidr, TunnelConfig, Underlay,
};
use super::pod::{Pod, pod_addresses, pod_cidrs, router_of};
use super::process::Process;
use super::record::Record;
use crate::io::Netns;

/// The nodes of a lab with their pods. `netns` finds or makes a namespace by name, `link` a node's underlay link.
pub(super) fn nodes(
    record: &Record,
    netns: impl Fn(&str) -> Result<Netns>,
    link: impl Fn(&str, u16, u16) -> Result<Link>,
) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    for cluster in &record.topology.clusters {
        for index in 1..=cluster.nodes {
            let name = format!("{}-{index}", cluster.name);
            let cidrs = pod_cidrs(cluster, index);
            let pods = (1..=cluster.pods).map(|number| {
                let short_name = letters(number);
                let name = format!("{name}-{short_name}");
                Ok(Pod {
                    netns: netns(&name)?,
                    name,
                    short_name,
                    node: format!("{}-{index}", cluster.name),
                    cluster: cluster.name.clone(),
                    number,
                    identity: cluster.identity(number),
                    addresses: pod_addresses(&cidrs, number),
                })
            });
            let pods = pods.collect::<Result<Vec<_>>>()?;
            let directory = Record::directory_of(&record.id).join(&name);
            nodes.push(Node {
                netns: netns(&name)?,
                link: link(&name, cluster.id, index)?,
                name,
                cluster: cluster.name.clone(),
                cluster_id: cluster.id,
                index,
                underlay: record.topology.underlay.clone(),
                cidrs,
                pods,
                keeper: Process::new(&directory, "keeper"),
                agent: Process::new(&directory, "agent"),
                without: Vec::new(),
                lanes: cluster.lanes,
                open_lanes: cluster.lanes,
                directory,
            });
        }
    }
    Ok(nodes)
}

/// The public keys of every node, one a lane, by the node's name.
pub(super) fn keys(lab: &Lab) -> Result<BTreeMap<String, Vec<String>>> {
    lab.nodes()
        .iter()
        .map(|node| Ok((node.name().to_owned(), node.public_keys()?)))
        .collect()
}

/// The node.yaml of one node: every other node is a peer.
pub(super) fn node_config(
    lab: &Lab,
    node: &Node,
    keys: &BTreeMap<String, Vec<String>>,
) -> Result<NodeConfig> {
    let clusters = lab.topology().clusters.iter().map(|cluster| ClusterConfig {
        name: cluster.name.clone(),
        id: cluster.id.into(),
        prefixes: super::Family::BOTH
            .into_iter()
            .filter_map(|family| cluster.prefix(family))
            .collect(),
        identities: cluster.identities(),
    });
    let peers = lab
        .nodes()
        .iter()
        .filter(|peer| peer.name() != node.name())
        .map(|peer| {
            let keys = keys
                .get(peer.name())
                .with_context(|| format!("node {} has no key", peer.name()))?;
            let lanes = keys.iter().zip(peer.lane_endpoints());
            Ok(PeerConfig {
                name: peer.name().to_owned(),
                cluster: peer.cluster().to_owned(),
                index: peer.index().into(),
                prefixes: peer.pod_cidrs().to_vec(),
                lanes: lanes
                    .map(|(public_key, endpoint)| Lane {
                        public_key: public_key.clone(),
                        endpoint: Some(endpoint),
                        preshared_key_file: None,
                    })
                    .collect(),
                foreign: None,
                watched: None,
            })
        });
    Ok(NodeConfig {
        clusterset: Some(Clusterset { vni: 1 }),
        cluster: ClusterName {
            name: node.cluster().to_owned(),
            id: node.cluster_id().into(),
        },
        node: NodeName {
            name: node.name().to_owned(),
            index: Some(node.index().into()),
        },
        tunnel: TunnelConfig {
            socket: node.tunnel_socket(),
            device: "hawser0".to_owned(),
            checksums: None,
        },
        post_quantum: None,
        underlay: Underlay {
            devices: vec!["eth0".to_owned()],
        },
        hub: None,
        pods: node
            .pod_cidrs()
            .iter()
            .map(|cidr| PodCidr {
                cidr: *cidr,
                router: router_of(*cidr),
            })
            .collect(),
        endpoints: node.pods().iter().map(endpoint).collect(),
        clusters: clusters.collect(),
        peers: peers.collect::<Result<Vec<_>>>()?,
        released_prefixes: Vec::new(),
    })
}

fn endpoint(pod: &Pod) -> EndpointConfig {
    EndpointConfig {
        name: format!("default/{}", pod.name()),
        addresses: pod.addresses().to_vec(),
        identity: pod.identity(),
    }
}
