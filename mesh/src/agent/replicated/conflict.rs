//! Why something that was learned is not used.

use hawser_tunnel::identity::Identity;
use hawser_tunnel::node::{ClusterId, NodeId, NodeIndex};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// What is missing before there is a state at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum Waiting {
    /// The own hub has not told of its own cluster.
    #[error("waiting for a hub to tell of this node's cluster")]
    Cluster,
    /// The own hub does not know a node of this name.
    #[error("waiting for a hub to tell of this node: its Node object may be missing")]
    Node,
}

impl Waiting {
    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cluster => "waits_for_cluster",
            Self::Node => "waits_for_node",
        }
    }
}

/// Something that cannot stand beside what has precedence, and is left out alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each variant's text says what it is")]
pub enum Conflict {
    #[error("the file gives this node another number than its hub; the file stands")]
    OwnNode,
    #[error("node index {} has this node's name too; the lower one is taken", u16::from(*.index))]
    Namesake { index: NodeIndex },
    #[error("a peer of the file is this node itself")]
    PeerIsSelf,
    #[error("the file gives peer {node} other prefixes or keys than its hub; the file stands")]
    StaticPeer { node: NodeId },
    #[error("the file gives cluster {cluster} another name than its hub; the file stands")]
    ClusterName { cluster: ClusterId },
    #[error("prefix {prefix} of cluster {cluster} lies in {range}, which is not for pods")]
    NotForPods {
        cluster: ClusterId,
        prefix: IpNet,
        range: IpNet,
    },
    #[error("prefix {prefix} of cluster {cluster} overlaps {taken} of cluster {by}")]
    ClustersOverlap {
        cluster: ClusterId,
        prefix: IpNet,
        taken: IpNet,
        by: ClusterId,
    },
    #[error("prefix {prefix} of node {node} lies outside the prefixes of its cluster")]
    OutsideCluster { node: NodeId, prefix: IpNet },
    #[error("prefix {prefix} of node {node} overlaps {taken} of node {by}")]
    NodesOverlap {
        node: NodeId,
        prefix: IpNet,
        taken: IpNet,
        by: NodeId,
    },
    #[error("a key of node {node} is one of node {by}")]
    KeyTwice { node: NodeId, by: NodeId },
    #[error(
        "endpoint {peer_endpoint} of node {node} is no host's, or lies inside the prefixes of a cluster"
    )]
    PeerEndpoint {
        node: NodeId,
        peer_endpoint: SocketAddr,
    },
    #[error(
        "prefix {prefix} of cluster {cluster} contains {address}, where a node of this cluster is reached; correct its \
         ClusterPeer"
    )]
    CoversNode {
        cluster: ClusterId,
        prefix: IpNet,
        address: IpAddr,
    },
    #[error(
        "endpoint {peer_endpoint} of node {node} is that of a node of this cluster; it must speak first"
    )]
    EndpointOfOwn {
        node: NodeId,
        peer_endpoint: SocketAddr,
    },
    #[error("address {address} of a pod lies outside this node's prefixes")]
    PodOutside { address: IpAddr },
    #[error("identity {identity} of pod address {address} is not published yet")]
    PodIdentity { address: IpAddr, identity: Identity },
    #[error("address {address} of a pod is already that of identity {taken}")]
    PodAddressTwice { address: IpAddr, taken: Identity },
}

impl Conflict {
    /// Its name in metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::OwnNode => "own_node",
            Self::Namesake { .. } => "namesake",
            Self::PeerIsSelf => "peer_is_self",
            Self::StaticPeer { .. } => "static_peer",
            Self::ClusterName { .. } => "cluster_name",
            Self::NotForPods { .. } => "not_for_pods",
            Self::ClustersOverlap { .. } => "clusters_overlap",
            Self::OutsideCluster { .. } => "outside_cluster",
            Self::NodesOverlap { .. } => "nodes_overlap",
            Self::KeyTwice { .. } => "key_twice",
            Self::PeerEndpoint { .. } => "peer_endpoint",
            Self::CoversNode { .. } => "covers_node",
            Self::EndpointOfOwn { .. } => "endpoint_of_own",
            Self::PodOutside { .. } => "pod_outside",
            Self::PodIdentity { .. } => "pod_identity",
            Self::PodAddressTwice { .. } => "pod_address_twice",
        }
    }
}
