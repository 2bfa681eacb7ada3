//! What clusters tell each other: records, each owned by the cluster that wrote it, its *origin*.
//!
//! A record is found by its [`Key`], has a [`Version`], and is one of the kinds in [`Kind`]. [`Record`] is its
//! checked form; how it is written is in [`crate::wire`]. Replication ([`crate::replica`]) moves keys and bytes and looks
//! into neither; who uses a record decodes it once, at the border.

mod endpoint;
mod identity;
mod key;
mod names;
mod node;
mod own;
mod service;
mod version;

pub use endpoint::{Condition, Endpoint, EndpointPort, Scope};
pub use identity::IdentityRecord;
pub use key::{Key, KeyError, Kind, MAX_KEY, Prefix};
pub(crate) use names::check_labels;
pub use names::{MAX_LABELS, NameError, check_label, check_name};
pub use node::{LaneRecord, MAX_LANES, Node};
pub use own::{Cluster, Namespace, Pod, Policy};
pub use service::{Service, ServicePort, ServiceType};
pub use version::{Incarnation, Revision, Version};

use crate::revocation::Signed;
use crate::trust::Authorities;

/// One record, checked: every name, number and prefix in it is legal by itself. Whether its origin may say it is for
/// the grant to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A node of the origin.
    Node(Node),
    /// What an identity of the origin stands for.
    Identity(IdentityRecord),
    /// An exported service.
    Service(Service),
    /// A pod, as a backend of an exported service or as a bearer of an identity.
    Endpoint(Endpoint),
    /// Whom the origin has cut off, signed by its CA.
    Revocations(Signed),
    /// The origin's CAs, where they are not those that it joined with.
    Authorities(Authorities),
    /// A network policy; for the origin's own agents only.
    Policy(Policy),
    /// A namespace; for the origin's own agents only.
    Namespace(Namespace),
    /// A pod; for the agent of its node only.
    Pod(Pod),
    /// A member of the clusterset, as this cluster granted it; for the origin's own agents only.
    Cluster(Cluster),
}

impl Record {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Node(_) => Kind::Node,
            Self::Identity(_) => Kind::Identity,
            Self::Service(_) => Kind::Service,
            Self::Endpoint(_) => Kind::Endpoint,
            Self::Revocations(_) => Kind::Revocations,
            Self::Authorities(_) => Kind::Authorities,
            Self::Policy(_) => Kind::Policy,
            Self::Namespace(_) => Kind::Namespace,
            Self::Pod(_) => Kind::Pod,
            Self::Cluster(_) => Kind::Cluster,
        }
    }

    /// Where it is found. Two records with the same key are two states of the same thing.
    pub fn key(&self) -> Key {
        match self {
            Self::Node(node) => Key::node(node.index),
            Self::Identity(identity) => Key::identity(identity.number),
            Self::Service(service) => Key::service(&service.namespace, &service.name),
            Self::Endpoint(endpoint) => Key::endpoint(&endpoint.scope, &endpoint.name),
            Self::Revocations(_) => Key::revocations(),
            Self::Authorities(_) => Key::authorities(),
            Self::Policy(policy) => Key::policy(&policy.namespace, &policy.name),
            Self::Namespace(namespace) => Key::namespace(&namespace.name),
            Self::Pod(pod) => Key::pod(pod.node, &pod.namespace, &pod.name),
            Self::Cluster(cluster) => Key::cluster(cluster.id),
        }
    }
}
