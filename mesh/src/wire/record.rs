//! Records as bytes.
//!
//! In a value each kind has the field number of its kind ([`crate::record::Kind`]), and the message's shape is in [`messages`]. Addresses are 4 or
//! 16 bytes, prefixes an address and a byte for the length.

mod fields;
mod messages;

pub use messages::WireLane;

use crate::record::{
    Cluster, Condition, Endpoint, EndpointPort, IdentityRecord, Key, LaneRecord, MAX_LANES,
    NameError, Namespace, Node, Pod, Policy, Record, Scope, Service, ServicePort, ServiceType,
    check_label, check_labels, check_name,
};
use crate::revocation::{ListError, Signed};
use crate::trust::{Authorities, AuthoritiesError};
use bytes::Bytes;
use fields::{
    MAX_CA, MAX_LIST, address, address_bytes, addresses, check_port_name, identity, name,
    node_index, port_number, prefix_bytes, prefixes, protocol, unreserved,
};
use hawser_tunnel::key::PublicKey;
use hawser_tunnel::node::ClusterId;
use messages::{
    Value, WireAuthorities, WireCluster, WireEndpoint, WireIdentity, WireNamespace, WireNode,
    WirePod, WirePolicy, WirePort, WireRecord, WireRevocations, WireService,
};
use prost::Message as _;
use std::net::SocketAddr;

/// Why bytes are no record that we take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// It is no protobuf.
    #[error("malformed record")]
    Malformed,
    /// Its kind is newer than this program.
    #[error("record of an unknown kind")]
    UnknownKind,
    /// It lies under another key than its own.
    #[error("record under the key of another")]
    KeyMismatch,
    /// A name or label in it is none.
    #[error("{field}: {source}")]
    Name {
        /// Which.
        field: &'static str,
        /// The rule.
        #[source]
        source: NameError,
    },
    /// A number, address or prefix in it is none.
    #[error("{0}: out of range or malformed")]
    Value(&'static str),
    /// A list in it is too long, or empty where it must not be.
    #[error("{0}: too many entries, or none")]
    List(&'static str),
    /// Its list of revocations is none.
    #[error(transparent)]
    Revocations(#[from] ListError),
    /// What it says of CAs.
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
}

impl RecordError {
    /// Its name in metrics and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Malformed => "record_malformed",
            Self::UnknownKind => "record_unknown_kind",
            Self::KeyMismatch => "record_key_mismatch",
            Self::Name { .. } => "record_name",
            Self::Value(_) => "record_value",
            Self::List(_) => "record_list",
            Self::Revocations(_) => "record_revocations",
            Self::Authorities(_) => "record_authorities",
        }
    }
}

/// The bytes of a record.
pub fn encode_record(record: &Record) -> Bytes {
    let value = match record {
        Record::Node(node) => Value::Node(WireNode {
            index: u16::from(node.index).into(),
            name: node.name.clone(),
            prefixes: node.prefixes.iter().map(prefix_bytes).collect(),
            lanes: node.lanes.iter().map(WireLane::from).collect(),
        }),
        Record::Identity(identity) => Value::Identity(WireIdentity {
            number: identity.number.into(),
            namespace: identity.namespace.clone(),
            labels: identity.labels.clone(),
        }),
        Record::Service(service) => Value::Service(WireService {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            kind: match service.kind {
                ServiceType::ClusterSetIp => 1,
                ServiceType::Headless => 2,
            },
            ports: service.ports.iter().map(service_port).collect(),
            exported_at: service.exported_at,
            session_affinity: service.session_affinity,
        }),
        Record::Endpoint(endpoint) => Value::Endpoint(endpoint_message(endpoint)),
        Record::Revocations(signed) => Value::Revocations(WireRevocations {
            list: signed.bytes().clone(),
            signature: signed.signature().clone(),
        }),
        Record::Authorities(authorities) => Value::Authorities(WireAuthorities {
            cas: authorities.cas().to_vec(),
            links: authorities.links().to_vec(),
        }),
        Record::Policy(policy) => Value::Policy(WirePolicy {
            namespace: policy.namespace.clone(),
            name: policy.name.clone(),
            spec: policy.spec.clone(),
        }),
        Record::Namespace(namespace) => Value::Namespace(WireNamespace {
            name: namespace.name.clone(),
            labels: namespace.labels.clone(),
        }),
        Record::Pod(pod) => Value::Pod(WirePod {
            node: u16::from(pod.node).into(),
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            addresses: pod.addresses.iter().map(address_bytes).collect(),
            identity: pod.identity.into(),
        }),
        Record::Cluster(cluster) => Value::Cluster(WireCluster {
            id: u16::from(cluster.id).into(),
            name: cluster.name.clone(),
            prefixes: cluster.prefixes.iter().map(prefix_bytes).collect(),
            ca: cluster.ca.clone(),
        }),
    };
    WireRecord { value: Some(value) }.encode_to_vec().into()
}

/// Reads the record that lies under `key`.
///
/// # Errors
/// It is none, or not the one of this key.
pub fn decode_record(key: &Key, bytes: &Bytes) -> Result<Record, RecordError> {
    if key.kind().is_none() {
        return Err(RecordError::UnknownKind);
    }
    let wire = WireRecord::decode(bytes.clone()).map_err(|_| RecordError::Malformed)?;
    // A field of another number is a kind that we do not know.
    let value = wire.value.ok_or(RecordError::UnknownKind)?;
    let record = match value {
        Value::Node(node) => Record::Node(checked_node(node)?),
        Value::Identity(identity) => {
            check_labels(&identity.labels).map_err(name("labels"))?;
            check_label(&identity.namespace).map_err(name("namespace"))?;
            Record::Identity(IdentityRecord {
                number: unreserved(identity.number)?,
                namespace: identity.namespace,
                labels: identity.labels,
            })
        }
        Value::Service(service) => Record::Service(checked_service(service)?),
        Value::Endpoint(endpoint) => Record::Endpoint(checked_endpoint(endpoint)?),
        Value::Revocations(revocations) => {
            Record::Revocations(Signed::parse(revocations.list, revocations.signature)?)
        }
        Value::Authorities(authorities) => {
            Record::Authorities(Authorities::new(authorities.cas, authorities.links)?)
        }
        Value::Policy(policy) => {
            check_label(&policy.namespace).map_err(name("namespace"))?;
            check_name(&policy.name).map_err(name("name"))?;
            Record::Policy(Policy {
                namespace: policy.namespace,
                name: policy.name,
                spec: policy.spec,
            })
        }
        Value::Namespace(namespace) => {
            check_label(&namespace.name).map_err(name("name"))?;
            check_labels(&namespace.labels).map_err(name("labels"))?;
            Record::Namespace(Namespace {
                name: namespace.name,
                labels: namespace.labels,
            })
        }
        Value::Pod(pod) => {
            check_label(&pod.namespace).map_err(name("namespace"))?;
            check_name(&pod.name).map_err(name("name"))?;
            Record::Pod(Pod {
                node: node_index(pod.node)?,
                namespace: pod.namespace,
                name: pod.name,
                addresses: addresses(&pod.addresses)?,
                identity: identity(pod.identity)?,
            })
        }
        Value::Cluster(cluster) => {
            check_label(&cluster.name).map_err(name("name"))?;
            if cluster.ca.len() > MAX_CA {
                return Err(RecordError::Value("ca"));
            }
            let id = u16::try_from(cluster.id).ok();
            Record::Cluster(Cluster {
                id: id
                    .and_then(|id| ClusterId::new(id).ok())
                    .ok_or(RecordError::Value("id"))?,
                name: cluster.name,
                prefixes: prefixes(&cluster.prefixes)?,
                ca: cluster.ca,
            })
        }
    };
    if record.key() != *key {
        return Err(RecordError::KeyMismatch);
    }
    Ok(record)
}

fn checked_node(node: WireNode) -> Result<Node, RecordError> {
    check_name(&node.name).map_err(name("name"))?;
    if node.lanes.len() > MAX_LANES {
        return Err(RecordError::List("lanes"));
    }
    Ok(Node {
        index: node_index(node.index)?,
        name: node.name,
        prefixes: prefixes(&node.prefixes)?,
        lanes: node
            .lanes
            .iter()
            .map(LaneRecord::try_from)
            .collect::<Result<_, _>>()?,
    })
}

fn checked_service(service: WireService) -> Result<Service, RecordError> {
    check_label(&service.namespace).map_err(name("namespace"))?;
    check_label(&service.name).map_err(name("name"))?;
    if service.ports.len() > MAX_LIST {
        return Err(RecordError::List("ports"));
    }
    let ports = service.ports.into_iter().map(|port| {
        check_port_name(&port.name)?;
        if port.app_protocol.len() > 253 {
            return Err(RecordError::Value("ports.appProtocol"));
        }
        Ok(ServicePort {
            protocol: protocol(port.protocol)?,
            port: port_number(port.port)?,
            name: port.name,
            app_protocol: port.app_protocol,
        })
    });
    Ok(Service {
        kind: match service.kind {
            1 => ServiceType::ClusterSetIp,
            2 => ServiceType::Headless,
            _ => return Err(RecordError::Value("type")),
        },
        ports: ports.collect::<Result<_, _>>()?,
        namespace: service.namespace,
        name: service.name,
        exported_at: service.exported_at,
        session_affinity: service.session_affinity,
    })
}

fn endpoint_message(endpoint: &Endpoint) -> WireEndpoint {
    let (namespace, service) = match &endpoint.scope {
        Scope::Service { namespace, name } => (namespace.clone(), name.clone()),
        Scope::Identity(_) => (String::new(), String::new()),
    };
    let condition = endpoint.condition;
    WireEndpoint {
        namespace,
        service,
        name: endpoint.name.clone(),
        addresses: endpoint.addresses.iter().map(address_bytes).collect(),
        identity: endpoint.identity.into(),
        node: endpoint.node.map_or(0, |node| u16::from(node).into()),
        condition: u32::from(condition.ready)
            | u32::from(condition.serving) << 1
            | u32::from(condition.terminating) << 2,
        hostname: endpoint.hostname.clone(),
        zone: endpoint.zone.clone(),
        ports: endpoint
            .ports
            .iter()
            .map(|port| WirePort {
                name: port.name.clone(),
                protocol: port.protocol.into(),
                port: port.port.into(),
                app_protocol: String::new(),
            })
            .collect(),
    }
}

fn checked_endpoint(endpoint: WireEndpoint) -> Result<Endpoint, RecordError> {
    let identity = identity(endpoint.identity)?;
    let scope = if endpoint.service.is_empty() {
        Scope::Identity(identity)
    } else {
        check_label(&endpoint.namespace).map_err(name("namespace"))?;
        check_label(&endpoint.service).map_err(name("service"))?;
        Scope::Service {
            namespace: endpoint.namespace,
            name: endpoint.service,
        }
    };
    // A pod's name, an address, or a namespace and a pod's name: no control characters in any of them.
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-./:".contains(&b);
    if endpoint.name.is_empty() || endpoint.name.len() > 320 || !endpoint.name.bytes().all(fits) {
        return Err(RecordError::Value("name"));
    }
    if !endpoint.hostname.is_empty() {
        check_label(&endpoint.hostname).map_err(name("hostname"))?;
    }
    if endpoint.zone.len() > 63 {
        return Err(RecordError::Value("zone"));
    }
    let addresses = addresses(&endpoint.addresses)?;
    if addresses.is_empty() {
        return Err(RecordError::List("addresses"));
    }
    if endpoint.ports.len() > MAX_LIST {
        return Err(RecordError::List("ports"));
    }
    let ports = endpoint.ports.into_iter().map(|port| {
        check_port_name(&port.name)?;
        Ok(EndpointPort {
            protocol: protocol(port.protocol)?,
            port: port_number(port.port)?,
            name: port.name,
        })
    });
    Ok(Endpoint {
        scope,
        name: endpoint.name,
        addresses,
        identity,
        node: match endpoint.node {
            0 => None,
            number => Some(node_index(number)?),
        },
        condition: Condition {
            ready: endpoint.condition & 1 != 0,
            serving: endpoint.condition & 2 != 0,
            terminating: endpoint.condition & 4 != 0,
        },
        hostname: endpoint.hostname,
        zone: endpoint.zone,
        ports: ports.collect::<Result<_, RecordError>>()?,
    })
}

fn service_port(port: &ServicePort) -> WirePort {
    WirePort {
        name: port.name.clone(),
        protocol: port.protocol.into(),
        port: port.port.into(),
        app_protocol: port.app_protocol.clone(),
    }
}

impl From<&LaneRecord> for WireLane {
    fn from(lane: &LaneRecord) -> Self {
        let endpoint = lane.peer_endpoint;
        Self {
            public_key: Bytes::copy_from_slice(lane.public_key.as_bytes()),
            address: endpoint.map_or_else(Bytes::new, |endpoint| address_bytes(&endpoint.ip())),
            port: endpoint.map_or(0, |endpoint| endpoint.port().into()),
            key_port: lane.key_port.map_or(0, u32::from),
        }
    }
}

impl TryFrom<&WireLane> for LaneRecord {
    type Error = RecordError;
    fn try_from(lane: &WireLane) -> Result<Self, RecordError> {
        let key: [u8; 32] = (&*lane.public_key)
            .try_into()
            .map_err(|_| RecordError::Value("lanes.publicKey"))?;
        let peer_endpoint = if lane.address.is_empty() {
            None
        } else {
            Some(SocketAddr::new(
                address(&lane.address)?,
                port_number(lane.port)?,
            ))
        };
        let key_port = match lane.key_port {
            0 => None,
            number => Some(port_number(number)?),
        };
        Ok(Self {
            public_key: PublicKey::new(key),
            peer_endpoint,
            key_port,
        })
    }
}

#[cfg(test)]
mod tests;
