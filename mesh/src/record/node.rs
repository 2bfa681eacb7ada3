//! A node as its cluster announces it.

use hawser_tunnel::key::PublicKey;
use hawser_tunnel::node::NodeIndex;
use ipnet::IpNet;
use std::net::SocketAddr;

/// The most lanes that one node can have.
pub const MAX_LANES: usize = 64;

/// A node of the origin: what makes it a WireGuard peer of everybody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Unique in its cluster.
    pub index: NodeIndex,
    /// A DNS name.
    pub name: String,
    /// The pod prefixes that it owns, sorted, each once.
    pub prefixes: Vec<IpNet>,
    /// Its lanes, at most [`MAX_LANES`]. None until its agent has told its keys: then nobody can reach it yet.
    pub lanes: Vec<LaneRecord>,
}

/// One lane of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneRecord {
    /// Its WireGuard key.
    pub public_key: PublicKey,
    /// Where to reach it at first; it may roam. `None`: it must speak first.
    pub peer_endpoint: Option<SocketAddr>,
    /// The UDP port at which its agent derives keys with others, at the same address; never 0. `None`: at none.
    pub key_port: Option<u16>,
}
