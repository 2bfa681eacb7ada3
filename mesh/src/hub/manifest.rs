//! Manifests: what a cluster is, as Kubernetes writes it, and of each kind only what a hub needs.
//!
//! [`document`] reads a file, [`Catalog`] keeps what stands of all files.
//!
//! ```yaml
//! apiVersion: v1
//! kind: Node
//! metadata: { name: worker-1 }
//! spec: { podCIDRs: [10.1.1.0/24] }
//! ---
//! apiVersion: hawser.io/v1alpha1
//! kind: ClusterPeer
//! metadata: { name: west }
//! spec:
//!   clusterId: 2
//!   podCidrs: [10.2.0.0/16]
//!   namespaces: [shop]            # may export from these only; left out: from all
//!   hubs: ["hub.west.example:6082"]
//!   ca: |
//!     -----BEGIN CERTIFICATE-----
//!     ...
//! ```

mod catalog;
pub mod document;
mod peer;

pub use catalog::{Catalog, Complaint, Content, Look, News, Place};
pub use peer::{ClusterPeer, QuotaLimits};
pub(crate) use peer::{overlaps, own_cluster, protected};

use crate::record::{Condition, EndpointPort, ServicePort, ServiceType};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// The kinds that are read; others are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    /// `v1`.
    Node,
    /// `v1`.
    Namespace,
    /// `v1`.
    Pod,
    /// `v1`.
    Service,
    /// `discovery.k8s.io/v1`.
    EndpointSlice,
    /// `multicluster.x-k8s.io/v1alpha1` or `v1beta1`.
    ServiceExport,
    /// `networking.k8s.io/v1`.
    NetworkPolicy,
    /// `hawser.io/v1alpha1`.
    ClusterPeer,
}

impl ObjectKind {
    /// The kind of a document, if it is one of ours.
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        match (api_version, kind) {
            ("v1", "Node") => Some(Self::Node),
            ("v1", "Namespace") => Some(Self::Namespace),
            ("v1", "Pod") => Some(Self::Pod),
            ("v1", "Service") => Some(Self::Service),
            ("discovery.k8s.io/v1", "EndpointSlice") => Some(Self::EndpointSlice),
            (
                "multicluster.x-k8s.io/v1alpha1" | "multicluster.x-k8s.io/v1beta1",
                "ServiceExport",
            ) => Some(Self::ServiceExport),
            ("networking.k8s.io/v1", "NetworkPolicy") => Some(Self::NetworkPolicy),
            ("hawser.io/v1alpha1", "ClusterPeer") => Some(Self::ClusterPeer),
            _ => None,
        }
    }

    /// As in a manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "Node",
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::ServiceExport => "ServiceExport",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterPeer => "ClusterPeer",
        }
    }

    fn is_namespaced(self) -> bool {
        match self {
            Self::Node | Self::Namespace | Self::ClusterPeer => false,
            Self::Pod
            | Self::Service
            | Self::EndpointSlice
            | Self::ServiceExport
            | Self::NetworkPolicy => true,
        }
    }
}

/// What an object is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: ObjectKind,
    /// Empty for kinds without.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        if self.namespace.is_empty() {
            write!(f, " {}", self.name)
        } else {
            write!(f, " {}/{}", self.namespace, self.name)
        }
    }
}

/// What a hub needs of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A node's pod prefixes, sorted, each once.
    Node(Vec<IpNet>),
    /// A namespace's labels.
    Namespace(BTreeMap<String, String>),
    /// A pod.
    Pod(Pod),
    /// A service.
    Service(Service),
    /// Some of a service's endpoints.
    EndpointSlice(EndpointSlice),
    /// When a service was exported, in seconds since 1970; 0: not said.
    ServiceExport(u64),
    /// The `spec`, as JSON.
    NetworkPolicy(String),
    /// A member of the clusterset.
    ClusterPeer(ClusterPeer),
}

impl Object {
    /// The member that it is.
    pub fn as_cluster_peer(&self) -> Option<&ClusterPeer> {
        let Self::ClusterPeer(peer) = self else {
            return None;
        };
        Some(peer)
    }

    /// Its kind.
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Node(_) => ObjectKind::Node,
            Self::Namespace(_) => ObjectKind::Namespace,
            Self::Pod(_) => ObjectKind::Pod,
            Self::Service(_) => ObjectKind::Service,
            Self::EndpointSlice(_) => ObjectKind::EndpointSlice,
            Self::ServiceExport(_) => ObjectKind::ServiceExport,
            Self::NetworkPolicy(_) => ObjectKind::NetworkPolicy,
            Self::ClusterPeer(_) => ObjectKind::ClusterPeer,
        }
    }
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// The node's name; empty: not scheduled yet.
    pub node: String,
    /// Whether it has a network of its own: not the node's, and not ended.
    pub attached: bool,
    /// Its own addresses, sorted.
    pub addresses: Vec<IpAddr>,
    /// All its labels.
    pub labels: BTreeMap<String, String>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `None`: `ExternalName`, which has no endpoints and is not exported.
    pub kind: Option<ServiceType>,
    /// In the order of the manifest.
    pub ports: Vec<ServicePort>,
    /// In seconds.
    pub session_affinity: Option<u32>,
}

/// Some of a service's endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// The service's name; empty: of none.
    pub service: String,
    /// The ports that the endpoints listen on.
    pub ports: Vec<EndpointPort>,
    /// The endpoints.
    pub endpoints: Vec<SliceEndpoint>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// The pod's name; empty: not said.
    pub pod: String,
    /// At least one.
    pub addresses: Vec<IpAddr>,
    /// Its conditions.
    pub condition: Condition,
    /// Empty: none.
    pub hostname: String,
    /// Empty: not known.
    pub zone: String,
}
