//! The shapes of the messages that records are written in.

use bytes::Bytes;
use std::collections::BTreeMap;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireRecord {
    #[prost(oneof = "Value", tags = "1, 2, 3, 4, 5, 6, 65, 66, 67, 68")]
    pub(super) value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Value {
    #[prost(message, tag = "1")]
    Node(WireNode),
    #[prost(message, tag = "2")]
    Identity(WireIdentity),
    #[prost(message, tag = "3")]
    Service(WireService),
    #[prost(message, tag = "4")]
    Endpoint(WireEndpoint),
    #[prost(message, tag = "5")]
    Revocations(WireRevocations),
    #[prost(message, tag = "6")]
    Authorities(WireAuthorities),
    #[prost(message, tag = "65")]
    Policy(WirePolicy),
    #[prost(message, tag = "66")]
    Namespace(WireNamespace),
    #[prost(message, tag = "67")]
    Pod(WirePod),
    #[prost(message, tag = "68")]
    Cluster(WireCluster),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireNode {
    #[prost(uint32, tag = "1")]
    pub(super) index: u32,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub(super) prefixes: Vec<Bytes>,
    #[prost(message, repeated, tag = "4")]
    pub(super) lanes: Vec<WireLane>,
}

/// A lane of a node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WireLane {
    /// Its WireGuard key, 32 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) public_key: Bytes,
    /// An address; empty: none.
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) address: Bytes,
    /// The UDP port.
    #[prost(uint32, tag = "3")]
    pub(super) port: u32,
    /// The UDP port at the same address at which its agent derives keys; 0: none.
    #[prost(uint32, tag = "4")]
    pub(super) key_port: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireIdentity {
    #[prost(uint32, tag = "1")]
    pub(super) number: u32,
    #[prost(string, tag = "2")]
    pub(super) namespace: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireService {
    #[prost(string, tag = "1")]
    pub(super) namespace: String,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    /// 1 ClusterSetIP, 2 Headless.
    #[prost(uint32, tag = "3")]
    pub(super) kind: u32,
    #[prost(message, repeated, tag = "4")]
    pub(super) ports: Vec<WirePort>,
    #[prost(uint64, tag = "5")]
    pub(super) exported_at: u64,
    #[prost(uint32, optional, tag = "6")]
    pub(super) session_affinity: Option<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WirePort {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(uint32, tag = "2")]
    pub(super) protocol: u32,
    #[prost(uint32, tag = "3")]
    pub(super) port: u32,
    #[prost(string, tag = "4")]
    pub(super) app_protocol: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireEndpoint {
    /// With `service`: the scope is this service.
    #[prost(string, tag = "1")]
    pub(super) namespace: String,
    /// Empty: the scope is `identity`.
    #[prost(string, tag = "2")]
    pub(super) service: String,
    #[prost(string, tag = "3")]
    pub(super) name: String,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub(super) addresses: Vec<Bytes>,
    #[prost(uint32, tag = "5")]
    pub(super) identity: u32,
    /// 0: not known.
    #[prost(uint32, tag = "6")]
    pub(super) node: u32,
    /// 1 ready, 2 serving, 4 terminating.
    #[prost(uint32, tag = "7")]
    pub(super) condition: u32,
    #[prost(string, tag = "8")]
    pub(super) hostname: String,
    #[prost(string, tag = "9")]
    pub(super) zone: String,
    #[prost(message, repeated, tag = "10")]
    pub(super) ports: Vec<WirePort>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireRevocations {
    /// A message of its own, as it was signed.
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) list: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) signature: Bytes,
}

/// Each in DER.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireAuthorities {
    /// The first is the one that signs.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(super) cas: Vec<Bytes>,
    /// Their keys, certified by the CA before them.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(super) links: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WirePolicy {
    #[prost(string, tag = "1")]
    pub(super) namespace: String,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) spec: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireNamespace {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WirePod {
    #[prost(uint32, tag = "1")]
    pub(super) node: u32,
    #[prost(string, tag = "2")]
    pub(super) namespace: String,
    #[prost(string, tag = "3")]
    pub(super) name: String,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub(super) addresses: Vec<Bytes>,
    #[prost(uint32, tag = "5")]
    pub(super) identity: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireCluster {
    #[prost(uint32, tag = "1")]
    pub(super) id: u32,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub(super) prefixes: Vec<Bytes>,
    /// In PEM.
    #[prost(string, tag = "4")]
    pub(super) ca: String,
}
