//! What there is in a cluster of the clusterset: nodes, identities, services and endpoints, all of them made of numbers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use blake2::{Blake2s256, Digest as _};
use bytes::Bytes;
use hawser_mesh::record::{
    Condition, Endpoint, IdentityRecord, Key, LaneRecord, Node, Record, Scope, Service,
    ServicePort, ServiceType,
};
use hawser_mesh::wire::encode_record;
use hawser_tunnel::identity::Identity;
use hawser_tunnel::key::PrivateKey;
use hawser_tunnel::node::{ClusterId, NodeIndex};
use ipnet::{IpNet, Ipv4Net};

use super::size::Size;

/// The cluster under test; the others follow.
const UNDER_TEST: u16 = 1;
/// Where the pods of all others are: 100.64.0.0/10, which no network of the lab uses.
const PODS: u32 = 0x6440_0000;
/// Bits of a cluster's pod prefix, and of a node's.
const BITS: [u8; 2] = [19, 26];
/// The namespace of every service.
pub(super) const NAMESPACE: &str = "shop";
/// The namespace of a flood, and its service.
const FLOOD: &str = "flood";
/// Endpoints of a flood.
pub(super) const FLOODING: u32 = 1_000;
/// The service of many backends.
const LARGE: &str = "catalog";
/// Of what Kubernetes makes the ends of names.
const LETTERS: [char; 27] = [
    'b', 'c', 'd', 'f', 'g', 'h', 'j', 'k', 'l', 'm', 'n', 'p', 'q', 'r', 's', 't', 'v', 'w', 'x',
    'z', '2', '4', '5', '6', '7', '8', '9',
];
/// The port of the first node of all, where nobody answers; the others follow.
pub(super) const FIRST_NODE_PORT: u16 = 10_000;
/// Between the identities of services, and those of pods that nobody selects.
const UNSELECTED: u32 = 5_000;

/// A change of an origin: a key, and its record or none.
pub(super) type Change = (Key, Option<Bytes>);

/// One cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Population {
    size: Size,
    /// From 0.
    number: u16,
    /// The underlay address of all its nodes.
    at: IpAddr,
}

impl Population {
    pub(super) const fn new(size: Size, number: u16, at: IpAddr) -> Self {
        Self { size, number, at }
    }

    /// Its cluster ID.
    pub(super) fn id(self) -> Result<ClusterId> {
        Ok(ClusterId::new(UNDER_TEST + 1 + self.number)?)
    }

    /// Its name.
    pub(super) fn name(self) -> String {
        format!("far-{}", self.number)
    }

    /// The prefix of all its pods.
    pub(super) fn prefix(self) -> Result<IpNet> {
        Ok(Ipv4Net::new(self.base().into(), BITS[0])?.into())
    }

    fn base(self) -> u32 {
        PODS | u32::from(self.number) << (32 - BITS[0])
    }

    /// Everything that it tells of itself.
    pub(super) fn records(self) -> Result<Vec<(Key, Bytes)>> {
        let nodes = (0..self.size.nodes()).map(|node| self.node(node));
        let services = (0..self.size.services())
            .flat_map(|number| [self.identity(number), Ok(service(&service_name(number)))]);
        let large = (self.backends() > 0).then(|| Ok(service(LARGE)));
        let endpoints = (0..self.size.endpoints()).map(|number| self.endpoint(number, true));
        let backends = (0..self.backends()).map(|number| self.backend(number, true));
        nodes
            .chain(services)
            .chain(large)
            .chain(endpoints)
            .chain(backends)
            .map(|record| record.map(|record| (record.key(), encode_record(&record))))
            .collect()
    }

    /// One of [`FLOODING`] endpoints that nobody waits for, in another namespace, becomes ready or is so no more.
    pub(super) fn flood(self, number: u32, ready: bool) -> Result<Change> {
        let identity = identity(self.size.services())?;
        let mut record = self.member(number % FLOODING, FLOOD, identity, ready)?;
        if let Record::Endpoint(endpoint) = &mut record {
            endpoint.scope = Scope::Service {
                namespace: FLOOD.to_owned(),
                name: FLOOD.to_owned(),
            };
        }
        Ok(upsert(&record))
    }

    /// Backends of its large service, if it has one.
    pub(super) const fn backends(self) -> u32 {
        if self.number == 0 {
            self.size.backends()
        } else {
            0
        }
    }

    /// An endpoint becomes ready, or is so no more.
    pub(super) fn turn(self, endpoint: u32, ready: bool) -> Result<Change> {
        Ok(upsert(&self.endpoint(endpoint, ready)?))
    }

    /// The same with a backend of the large service.
    pub(super) fn turn_backend(self, backend: u32, ready: bool) -> Result<Change> {
        Ok(upsert(&self.backend(backend, ready)?))
    }

    /// A pod comes that no service exports and no policy selects.
    pub(super) fn pod_comes(self, number: u32) -> Result<Change> {
        Ok(upsert(&self.pod(number)?))
    }

    /// The same pod goes.
    pub(super) fn pod_goes(self, number: u32) -> Result<Change> {
        Ok((self.pod(number)?.key(), None))
    }

    fn node(self, number: u16) -> Result<Record> {
        let network = self.base() | u32::from(number) << (32 - BITS[1]);
        let all = u32::from(self.number) * u32::from(self.size.nodes()) + u32::from(number);
        let port = u32::from(FIRST_NODE_PORT) + all;
        let port = u16::try_from(port).context("more nodes than ports")?;
        Ok(Record::Node(Node {
            index: NodeIndex::new(number + 1)?,
            name: format!("{}-node-{number}", self.name()),
            prefixes: vec![Ipv4Net::new(network.into(), BITS[1])?.into()],
            lanes: vec![LaneRecord {
                public_key: key(all).public(),
                peer_endpoint: Some(SocketAddr::new(self.at, port)),
                key_port: None,
            }],
        }))
    }

    fn identity(self, service: u32) -> Result<Record> {
        Ok(Record::Identity(IdentityRecord {
            number: identity(service)?,
            namespace: NAMESPACE.to_owned(),
            labels: BTreeMap::from([("app".to_owned(), service_name(service))]),
        }))
    }

    /// Endpoints are spread over services, and over nodes.
    fn endpoint(self, number: u32, ready: bool) -> Result<Record> {
        let service = number % self.size.services();
        self.member(number, &service_name(service), identity(service)?, ready)
    }

    fn backend(self, number: u32, ready: bool) -> Result<Record> {
        let number = self.size.endpoints() + number;
        self.member(number, LARGE, identity(self.size.services())?, ready)
    }

    fn member(self, number: u32, service: &str, identity: Identity, ready: bool) -> Result<Record> {
        let (node, address) = self.place(number)?;
        let scope = Scope::Service {
            namespace: NAMESPACE.to_owned(),
            name: service.to_owned(),
        };
        let condition = Condition {
            ready,
            ..Condition::READY
        };
        Ok(Record::Endpoint(Endpoint {
            scope,
            name: self.pod_name(service, number),
            addresses: vec![address],
            identity,
            node: Some(node),
            condition,
            hostname: String::new(),
            zone: format!("zone-{}", number % 3),
            ports: Vec::new(),
        }))
    }

    fn pod(self, number: u32) -> Result<Record> {
        let identity = identity(UNSELECTED + number % 10)?;
        let (node, address) = self.place(number)?;
        Ok(Record::Endpoint(Endpoint {
            scope: Scope::Identity(identity),
            name: format!("{NAMESPACE}/{}", self.pod_name("batch", number)),
            addresses: vec![address],
            identity,
            node: Some(node),
            condition: Condition::READY,
            hostname: String::new(),
            zone: String::new(),
            ports: Vec::new(),
        }))
    }

    /// As a Deployment's pods are called: by its name, by what they are made from, and by chance.
    fn pod_name(self, service: &str, number: u32) -> String {
        let (cluster, services) = (u32::from(self.number), self.size.services());
        let template = letters(cluster * services + number % services);
        format!(
            "{service}-{template}{template}-{}",
            letters(cluster * 10_000 + number)
        )
    }

    /// The node and the address of a pod.
    fn place(self, number: u32) -> Result<(NodeIndex, IpAddr)> {
        let nodes = u32::from(self.size.nodes());
        let (node, slot) = (number % nodes, number / nodes);
        // The first address of a node is its router's.
        let host = slot % ((1 << (32 - BITS[1])) - 3) + 2;
        let address = Ipv4Addr::from(self.base() | node << (32 - BITS[1]) | host);
        Ok((NodeIndex::new(u16::try_from(node)? + 1)?, address.into()))
    }
}

fn upsert(record: &Record) -> Change {
    (record.key(), Some(encode_record(record)))
}

fn service(name: &str) -> Record {
    Record::Service(Service {
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
        kind: ServiceType::ClusterSetIp,
        ports: vec![ServicePort {
            name: "main".to_owned(),
            protocol: 6,
            port: 8080,
            app_protocol: String::new(),
        }],
        exported_at: 1_700_000_000,
        session_affinity: None,
    })
}

fn service_name(number: u32) -> String {
    format!("orders-{number}")
}

/// Five letters for a number; no two numbers of a million have the same.
fn letters(number: u32) -> String {
    let all = 27_u64.pow(5);
    // No multiple of three, so each remainder comes once.
    let mut rest = u64::from(number) * 7_654_321 % all;
    let letter = |_| {
        let letter = usize::try_from(rest % 27).unwrap_or_default();
        rest /= 27;
        LETTERS[letter]
    };
    (0..5).map(letter).collect()
}

fn identity(number: u32) -> Result<Identity> {
    Ok(Identity::new(Identity::FIRST_UNRESERVED + number)?)
}

fn key(node: u32) -> PrivateKey {
    let seed = Blake2s256::new()
        .chain_update(b"sync")
        .chain_update(node.to_be_bytes());
    PrivateKey::from_random(seed.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hawser_mesh::wire::decode_record;
    use std::collections::BTreeSet;

    fn population(size: Size, number: u16) -> Population {
        Population::new(size, number, Ipv4Addr::new(192, 168, 1, 90).into())
    }

    #[test]
    fn records_are_legal_and_each_is_there_once() {
        for (number, wanted) in [(0, 20 + 2 * 5 + 1 + 400 + 500), (9, 20 + 2 * 5 + 400)] {
            let population = population(Size::Ten, number);
            let prefix = population.prefix().unwrap();
            let records = population.records().unwrap();
            let keys: BTreeSet<&Key> = records.iter().map(|(key, _)| key).collect();
            assert_eq!((records.len(), keys.len()), (wanted, wanted));
            let mut addresses = BTreeSet::new();
            for (key, bytes) in &records {
                let record = decode_record(key, bytes).unwrap();
                if let Record::Endpoint(endpoint) = &record {
                    assert!(prefix.contains(&endpoint.addresses[0]), "{endpoint:?}");
                    assert!(addresses.insert(endpoint.addresses[0]), "{endpoint:?}");
                }
                if let Record::Node(node) = &record {
                    assert!(prefix.contains(&node.prefixes[0]), "{node:?}");
                }
            }
        }
    }

    #[test]
    fn clusters_share_neither_prefixes_nor_keys_nor_ports() {
        let last = Size::Curve.clusters() - 1;
        let prefixes = [0, 1, 249, last].map(|number| population(Size::Curve, number).prefix());
        let prefixes: Vec<IpNet> = prefixes.into_iter().map(Result::unwrap).collect();
        for (number, one) in prefixes.iter().enumerate() {
            assert!(
                prefixes[number + 1..]
                    .iter()
                    .all(|other| !one.contains(other))
            );
        }
        assert_eq!(prefixes[3].to_string(), "100.126.96.0/19");
        let node = population(Size::Curve, last).node(Size::Curve.nodes() - 1);
        let Record::Node(node) = node.unwrap() else {
            panic!("no node")
        };
        assert_eq!(node.lanes[0].peer_endpoint.unwrap().port(), 59_999);
    }

    #[test]
    fn letters_are_of_one_number() {
        let all: BTreeSet<String> = (0..100_000).map(letters).collect();
        assert_eq!(all.len(), 100_000);
    }

    #[test]
    fn a_change_is_of_a_record_that_is_there() {
        let population = population(Size::Ten, 0);
        let records: BTreeMap<Key, Bytes> = population.records().unwrap().into_iter().collect();
        for change in [population.turn(7, false), population.turn_backend(7, false)] {
            let (key, value) = change.unwrap();
            assert_ne!(records.get(&key), value.as_ref());
            assert!(records.contains_key(&key));
        }
        assert_eq!(
            population.pod_comes(3).unwrap().0,
            population.pod_goes(3).unwrap().0
        );
    }
}
