//! `node.yaml` as it is written: the right fields, and every value still text.
//!
//! Values are read as text so that a complaint can name the field and repeat the value as written.

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) clusterset: Clusterset,
    pub(super) cluster: OwnCluster,
    pub(super) node: OwnNode,
    #[serde(default)]
    pub(super) tunnel: Tunnel,
    pub(super) underlay: Underlay,
    #[serde(default)]
    pub(super) pods: Vec<PodCidr>,
    #[serde(default)]
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) clusters: Option<Vec<Cluster>>,
    #[serde(default)]
    pub(super) peers: Vec<Peer>,
    #[serde(default)]
    pub(super) released_prefixes: Vec<String>,
    pub(super) hub: Option<Hub>,
    pub(super) post_quantum: Option<String>,
    pub(super) key_rotation: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Clusterset {
    pub(super) vni: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OwnCluster {
    pub(super) name: String,
    pub(super) id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OwnNode {
    pub(super) name: String,
    pub(super) index: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Tunnel {
    pub(super) socket: Option<String>,
    pub(super) device: Option<String>,
    pub(super) checksums: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Underlay {
    pub(super) devices: Vec<String>,
    pub(super) address: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Hub {
    pub(super) addresses: Vec<String>,
    pub(super) ca: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
    pub(super) token: Option<String>,
    pub(super) endpoints: Option<String>,
    pub(super) state_directory: Option<String>,
    pub(super) key_port: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PodCidr {
    pub(super) cidr: String,
    pub(super) router: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Endpoint {
    pub(super) name: String,
    pub(super) addresses: Vec<String>,
    pub(super) identity: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Cluster {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) prefixes: Vec<String>,
    #[serde(default)]
    pub(super) identities: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) cluster: String,
    pub(super) index: String,
    pub(super) prefixes: Vec<String>,
    pub(super) lanes: Vec<Lane>,
    pub(super) foreign: Option<Foreign>,
    pub(super) watched: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Lane {
    pub(super) public_key: String,
    pub(super) endpoint: Option<String>,
    pub(super) preshared_key_file: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Foreign {
    pub(super) identity: String,
}
