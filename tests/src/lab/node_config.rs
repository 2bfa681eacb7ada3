//! The agent's node.yaml, field by field, so that tests can change any of it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeConfig {
    /// The clusterset's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clusterset: Option<Clusterset>,
    /// The own cluster.
    pub cluster: ClusterName,
    /// The own node.
    pub node: NodeName,
    /// Where the tunnel is.
    pub tunnel: TunnelConfig,
    /// Devices that lead to other nodes.
    pub underlay: Underlay,
    /// Where it learns the rest, when that is not in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<HubConfig>,
    /// Whether there must be pre-shared keys: `required` or `preferred`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_quantum: Option<String>,
    /// The node's pod CIDRs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodCidr>,
    /// Its pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointConfig>,
    /// Every cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<ClusterConfig>,
    /// Every other node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerConfig>,
    /// Prefixes that may be unblocked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub released_prefixes: Vec<IpNet>,
}

/// `clusterset:`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Clusterset {
    /// The Geneve network id.
    pub vni: u32,
}

/// `cluster:`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterName {
    /// Its name.
    pub name: String,
    /// Its cluster ID.
    pub id: u32,
}

/// `node:`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeName {
    /// Its name.
    pub name: String,
    /// Its node index; without it the hub says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
}

/// `hub:`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HubConfig {
    /// Where its cluster's hubs listen.
    pub addresses: Vec<String>,
    /// By what it proves who it is.
    #[serde(flatten)]
    pub identity: NodeIdentity,
    /// Which endpoints it wants: `used` or `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<String>,
    /// Where it keeps what it heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_directory: Option<PathBuf>,
}

/// By what a node proves who it is: fields of `hub:`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum NodeIdentity {
    /// By a certificate that was brought.
    Files {
        /// The cluster's CA certificate.
        ca: PathBuf,
        /// The node's certificate.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// By a token, once.
    Token {
        /// The file with it.
        token: PathBuf,
    },
}

/// `tunnel:`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TunnelConfig {
    /// The tunnel's control socket.
    pub socket: PathBuf,
    /// The TAP's name.
    pub device: String,
    /// What becomes of transport checksums that pods leave: `left` or `filled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksums: Option<String>,
}

/// `underlay:`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Underlay {
    /// Devices that lead to other nodes.
    pub devices: Vec<String>,
}

/// One entry of `pods:`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodCidr {
    /// The range of the node's pods.
    pub cidr: IpNet,
    /// The router address in it.
    pub router: IpAddr,
}

/// One entry of `endpoints:`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointConfig {
    /// Namespace and name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its identity.
    pub identity: u32,
}

/// One entry of `clusters:`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterConfig {
    /// Its name.
    pub name: String,
    /// Its cluster ID.
    pub id: u32,
    /// Prefixes of all its pods.
    pub prefixes: Vec<IpNet>,
    /// The identities it has published.
    pub identities: Vec<u32>,
}

/// One entry of `peers:`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeerConfig {
    /// Its name.
    pub name: String,
    /// Its cluster's name.
    pub cluster: String,
    /// Its node index.
    pub index: u32,
    /// Its pod CIDRs.
    pub prefixes: Vec<IpNet>,
    /// Its WireGuard keys.
    pub lanes: Vec<Lane>,
    /// Set for a stock WireGuard peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<Foreign>,
    /// Whether it is probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watched: Option<bool>,
}

/// One entry of a peer's `lanes:`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lane {
    /// WireGuard public key, base64.
    pub public_key: String,
    /// Where it listens; without it the peer must speak first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// File with a pre-shared key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preshared_key_file: Option<PathBuf>,
}

/// `foreign:` of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Foreign {
    /// The identity that all its packets get.
    pub identity: u32,
}
