//! What a hub tells its own agents, and nobody else.

use hawser_tunnel::identity::Identity;
use hawser_tunnel::node::{ClusterId, NodeIndex};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A `NetworkPolicy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A DNS label.
    pub namespace: String,
    /// A DNS name.
    pub name: String,
    /// Its `spec`, as JSON.
    pub spec: String,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// A DNS label.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A pod, for the agent of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Where it runs.
    pub node: NodeIndex,
    /// A DNS label.
    pub namespace: String,
    /// A DNS name.
    pub name: String,
    /// Its addresses; none before it has any.
    pub addresses: Vec<IpAddr>,
    /// What its packets carry.
    pub identity: Identity,
}

/// A member of the clusterset, this cluster included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Unique in the clusterset.
    pub id: ClusterId,
    /// A DNS label, unique in the clusterset.
    pub name: String,
    /// Its pod prefixes, as granted, sorted, each once.
    pub prefixes: Vec<IpNet>,
    /// The certificates of its CA in PEM, by which its nodes are known; for this cluster itself empty, unless its CA
    /// was rolled: then those that are trusted, first of which is the one that signs.
    pub ca: String,
}
