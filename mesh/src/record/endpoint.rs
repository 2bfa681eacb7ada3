//! A pod that others may talk to.

use hawser_tunnel::identity::Identity;
use hawser_tunnel::node::NodeIndex;
use std::net::IpAddr;

/// For what an endpoint is told. Who does not ask for the scope hears nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// It is a backend of this exported service.
    Service {
        /// The service's namespace.
        namespace: String,
        /// The service's name.
        name: String,
    },
    /// It carries this identity, which somebody's egress policy selects.
    Identity(Identity),
}

/// A synced pod: addresses, identity, node and conditions, as in an `EndpointSlice`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// For what it is told.
    pub scope: Scope,
    /// Unique in its scope: for a service `<pod>` or `<address>`, for an identity `<namespace>/<pod>`.
    pub name: String,
    /// Its addresses, IPv4 first, at least one.
    pub addresses: Vec<IpAddr>,
    /// What its packets carry.
    pub identity: Identity,
    /// Where it runs.
    pub node: Option<NodeIndex>,
    /// Its conditions.
    pub condition: Condition,
    /// Its host name in a headless service; empty: none.
    pub hostname: String,
    /// Its zone; empty: not known.
    pub zone: String,
    /// The ports of this endpoint where they differ from the service's.
    pub ports: Vec<EndpointPort>,
}

/// A port of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// As the service's port is called.
    pub name: String,
    /// The protocol's number.
    pub protocol: u8,
    /// Never 0.
    pub port: u16,
}

/// `discovery.k8s.io/v1`, `EndpointConditions`. All three travel, so that a rolling update loses nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Takes new connections.
    pub ready: bool,
    /// Still answers, even while it terminates.
    pub serving: bool,
    /// Is going away.
    pub terminating: bool,
}

impl Condition {
    /// Ready and serving.
    pub const READY: Self = Self {
        ready: true,
        serving: true,
        terminating: false,
    };
}
