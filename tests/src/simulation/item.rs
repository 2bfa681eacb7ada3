//! The things in a cluster's source, as records.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use hawser_mesh::hub::manifest::{ClusterPeer, QuotaLimits};
use hawser_mesh::record::{
    Cluster, Condition, Endpoint, IdentityRecord, Key, LaneRecord, Namespace, Node, Pod, Prefix,
    Record, Scope, Service, ServiceType,
};
use hawser_mesh::wire::encode_record;
use hawser_tunnel::identity::Identity;
use hawser_tunnel::key::PublicKey;
use hawser_tunnel::node::{ClusterId, NodeIndex};
use ipnet::IpNet;

/// Kinds of things; the rest of the number says which of its kind.
const KINDS: u8 = 7;
/// The namespace that every cluster may export to.
pub(super) const NAMESPACE: &str = "shop";

/// The nodes that agents are on.
pub(super) const NODES: [u8; super::shape::AGENTS] = [0, KINDS];

/// The ID of a cluster of the world.
pub(super) fn id(cluster: usize) -> ClusterId {
    let number = u16::try_from(cluster + 1).expect("clusters are few");
    ClusterId::new(number).expect("clusters are few")
}

/// The cluster of the world that has the ID with this number, if there is one.
pub(super) fn cluster_of_number(number: u32) -> Option<usize> {
    let cluster = usize::try_from(number).ok()?.checked_sub(1)?;
    (cluster < super::shape::CLUSTERS).then_some(cluster)
}

/// The cluster of the world that has an ID.
pub(super) fn cluster_of(id: ClusterId) -> usize {
    usize::from(u16::from(id)) - 1
}

/// The name of a cluster.
pub(super) fn name(cluster: usize) -> String {
    format!("c{cluster}")
}

/// A cluster, as it knows itself.
pub(super) fn cluster(cluster: usize) -> Cluster {
    Cluster {
        id: id(cluster),
        name: name(cluster),
        prefixes: vec![net(cluster, 0, 16)],
        ca: String::new(),
    }
}

/// A cluster, as all others granted it.
pub(super) fn peer(cluster: usize) -> ClusterPeer {
    ClusterPeer {
        id: id(cluster),
        pod_cidrs: vec![net(cluster, 0, 16)],
        service_cidrs: Vec::new(),
        namespaces: Some(BTreeSet::from([NAMESPACE.to_owned()])),
        hubs: vec![format!("{}:1", name(cluster))],
        ca: name(cluster),
        quotas: QuotaLimits::default(),
        may_revoke: false,
    }
}

/// What somebody says who takes another one's ID.
pub(super) fn impostor(claims: usize) -> ClusterPeer {
    ClusterPeer {
        pod_cidrs: vec![net(150, 0, 16)],
        ..peer(claims)
    }
}

fn net(cluster: usize, node: u8, length: u8) -> IpNet {
    IpNet::new(address(cluster, node, 0), length).expect("a length of IPv4")
}

fn address(cluster: usize, node: u8, host: u8) -> IpAddr {
    let second = u8::try_from(cluster + 1).expect("clusters are few");
    Ipv4Addr::new(10, second, node, host).into()
}

fn index(number: u8) -> NodeIndex {
    NodeIndex::new(u16::from(number) + 1).expect("not 0")
}

fn identity(cluster: usize, number: u8) -> Identity {
    let cluster = u32::try_from(cluster).expect("clusters are few");
    Identity::new(1_000 + cluster * 100 + u32::from(number)).expect("it is small")
}

/// The record of a thing; each `ordinal` gives other bytes.
pub(super) fn record(cluster: usize, item: u8, ordinal: u64) -> (Key, Bytes) {
    let number = item / KINDS;
    let mark = format!("o{ordinal}");
    let labels = || BTreeMap::from([("o".to_owned(), mark.clone())]);
    let record = match item % KINDS {
        0 => Record::Node(Node {
            index: index(number),
            name: format!("node-{number}"),
            prefixes: vec![net(cluster, number, 24)],
            lanes: vec![lane(cluster, number, ordinal)],
        }),
        1 => Record::Identity(IdentityRecord {
            number: identity(cluster, number),
            namespace: NAMESPACE.to_owned(),
            labels: labels(),
        }),
        2 => Record::Service(Service {
            namespace: NAMESPACE.to_owned(),
            name: format!("web-{number}"),
            kind: ServiceType::ClusterSetIp,
            ports: Vec::new(),
            exported_at: ordinal,
            session_affinity: None,
        }),
        3 => {
            let name = "web-0".to_owned();
            let namespace = NAMESPACE.to_owned();
            endpoint(cluster, number, mark, Scope::Service { namespace, name })
        }
        4 => endpoint(
            cluster,
            number,
            mark,
            Scope::Identity(identity(cluster, number % 2)),
        ),
        5 => Record::Namespace(Namespace {
            name: format!("team-{number}"),
            labels: labels(),
        }),
        _ => Record::Pod(Pod {
            node: index(number % 2),
            namespace: NAMESPACE.to_owned(),
            name: format!("web-{number}"),
            addresses: vec![Ipv4Addr::from(u32::try_from(ordinal).unwrap_or_default()).into()],
            identity: identity(cluster, number),
        }),
    };
    (record.key(), encode_record(&record))
}

/// The same, as what nobody granted.
pub(super) fn overreach(cluster: usize, item: u8, ordinal: u64) -> (Key, Bytes) {
    let number = 200 + item / KINDS;
    let other = cluster + 100;
    let namespace = "bank".to_owned();
    match item % KINDS {
        // Pods of another cluster's prefix.
        0 => {
            let record = Record::Node(Node {
                index: index(number),
                name: format!("node-{number}"),
                prefixes: vec![net(other, number, 24)],
                lanes: vec![lane(cluster, number, ordinal)],
            });
            (record.key(), encode_record(&record))
        }
        1 => {
            let scope = Scope::Identity(identity(cluster, number));
            let record = endpoint(other, number, format!("o{ordinal}"), scope);
            (record.key(), encode_record(&record))
        }
        // A namespace that it may not export to.
        2 | 3 => {
            let record = Record::Service(Service {
                name: format!("web-{number}"),
                namespace,
                kind: ServiceType::Headless,
                ports: Vec::new(),
                exported_at: ordinal,
                session_affinity: None,
            });
            (record.key(), encode_record(&record))
        }
        // No record at all.
        4 | 5 => {
            let (key, _) = record(cluster, 0, ordinal);
            let mut bytes = key.as_bytes().to_vec();
            bytes[1..3].copy_from_slice(&(1_000 + u16::from(number)).to_be_bytes());
            let key = Key::parse(bytes.into()).expect("as long as a key");
            (key, ordinal.to_le_bytes().to_vec().into())
        }
        // What lies under the key of another.
        _ => {
            let (_, value) = record(cluster, 0, ordinal);
            let (key, _) = record(cluster, 7 + 2, ordinal);
            let mut bytes = key.as_bytes().to_vec();
            bytes.extend_from_slice(b"-x");
            let key = Key::parse(bytes.into()).expect("as long as a key");
            (key, value)
        }
    }
}

fn lane(cluster: usize, node: u8, ordinal: u64) -> LaneRecord {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&ordinal.to_le_bytes());
    key[8] = node;
    LaneRecord {
        public_key: PublicKey::new(key),
        peer_endpoint: Some(SocketAddr::new(
            Ipv4Addr::new(192, 0, 2, u8::try_from(cluster % 250).expect("below 250")).into(),
            51820,
        )),
        key_port: None,
    }
}

fn endpoint(cluster: usize, number: u8, mark: String, scope: Scope) -> Record {
    let (identity, name) = match &scope {
        Scope::Identity(identity) => (*identity, format!("{NAMESPACE}/pod-{number}")),
        Scope::Service { .. } => (identity(cluster % 100, number), format!("pod-{number}")),
    };
    Record::Endpoint(Endpoint {
        scope,
        name,
        addresses: vec![address(cluster, number, 9)],
        identity,
        node: None,
        condition: Condition::READY,
        hostname: mark,
        zone: String::new(),
        ports: Vec::new(),
    })
}

/// The filters that subscribers have: 0 is a hub's, the others are agents'.
pub(super) fn prefixes(filter: usize, own_node: u8) -> Vec<Prefix> {
    use hawser_mesh::record::Kind;
    let mut prefixes = vec![Prefix::kind(Kind::Node), Prefix::kind(Kind::Identity)];
    let own = [
        Prefix::kind(Kind::Namespace),
        Prefix::pods_of(index(own_node)),
    ];
    match filter {
        0 => prefixes.extend([Prefix::kind(Kind::Service), Prefix::kind(Kind::Endpoint)]),
        1 => {
            prefixes.extend([Prefix::kind(Kind::Service), Prefix::service_endpoints()]);
            prefixes.extend(own);
        }
        2 => {
            prefixes.extend([Prefix::kind(Kind::Service), Prefix::kind(Kind::Endpoint)]);
            prefixes.extend(own);
        }
        _ => {
            prefixes.extend(own);
            for cluster in 0..super::shape::CLUSTERS {
                let scope = Scope::Identity(identity(cluster, 1));
                prefixes.push(Prefix::scope(&scope));
            }
        }
    }
    prefixes
}

/// How many filters there are.
pub(super) const FILTERS: usize = 4;
