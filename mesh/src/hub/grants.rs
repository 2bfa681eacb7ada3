//! What other clusters may announce, as agreed when they joined.

use super::manifest::{ClusterPeer, QuotaLimits};
use crate::record::{Key, Record, Scope};
use crate::replica::{Gate, Quota, Refusal};
use crate::wire::decode_record;
use bytes::Bytes;
use hawser_tunnel::node::ClusterId;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Judges each record of another cluster by that cluster's grant.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    peers: BTreeMap<ClusterId, Arc<ClusterPeer>>,
    /// Prefixes of pods of all clusters, this one's too.
    mesh: Vec<IpNet>,
}

impl Grants {
    /// The grants of these members, seen from a cluster with these prefixes.
    pub fn new(own: &[IpNet], peers: BTreeMap<ClusterId, Arc<ClusterPeer>>) -> Self {
        let theirs = peers.values().flat_map(|peer| &peer.pod_cidrs);
        let mesh = own.iter().chain(theirs).copied().collect();
        Self { peers, mesh }
    }

    fn judge(&self, peer: &ClusterPeer, record: &Record) -> Result<(), &'static str> {
        let granted = |address: &IpAddr| peer.pod_cidrs.iter().any(|cidr| cidr.contains(address));
        let namespace = |name: &str| match &peer.namespaces {
            Some(names) if !names.contains(name) => Err("namespace_not_granted"),
            Some(_) | None => Ok(()),
        };
        match record {
            Record::Node(node) => {
                let inside =
                    |prefix: &IpNet| peer.pod_cidrs.iter().any(|cidr| cidr.contains(prefix));
                if !node.prefixes.iter().all(inside) {
                    return Err("prefix_outside_grant");
                }
                let mut endpoints = node.lanes.iter().filter_map(|lane| lane.peer_endpoint);
                let in_mesh =
                    |address: IpAddr| self.mesh.iter().any(|cidr| cidr.contains(&address));
                // Its packets would go into the tunnel that they are to make.
                if endpoints.any(|endpoint| in_mesh(endpoint.ip())) {
                    return Err("lane_endpoint_in_mesh");
                }
                Ok(())
            }
            Record::Identity(identity) => namespace(&identity.namespace),
            Record::Service(service) => namespace(&service.namespace),
            Record::Endpoint(endpoint) => {
                if endpoint.identity.is_reserved() {
                    return Err("identity_reserved");
                }
                if !endpoint.addresses.iter().all(granted) {
                    return Err("address_outside_grant");
                }
                match &endpoint.scope {
                    Scope::Service { namespace: of, .. } => namespace(of),
                    Scope::Identity(_) => {
                        let (of, _) = endpoint.name.split_once('/').unwrap_or_default();
                        namespace(of)
                    }
                }
            }
            Record::Policy(_) | Record::Namespace(_) | Record::Pod(_) | Record::Cluster(_) => {
                Err("kind_private")
            }
        }
    }
}

impl Gate for Grants {
    fn admit(&self, origin: ClusterId, key: &Key, value: &Bytes) -> Result<(), Refusal> {
        let Some(peer) = self.peers.get(&origin) else {
            return Err(Refusal::Grant("origin_not_member"));
        };
        if key.is_private() {
            return Err(Refusal::Grant("kind_private"));
        }
        let record = decode_record(key, value)?;
        self.judge(peer, &record).map_err(Refusal::Grant)
    }
}

/// The quota of a member: what its `ClusterPeer` says, else what the hub says for all, else the default.
pub fn quota(peer: QuotaLimits, hub: QuotaLimits) -> Quota {
    let default = Quota::default();
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let records = peer.records.or(hub.records).map(|n| size(n.into()));
    let bytes = peer.bytes.or(hub.bytes).map(size);
    let rate = peer.changes_per_second.or(hub.changes_per_second);
    let burst = peer.burst.or(hub.burst);
    Quota {
        records: records.unwrap_or(default.records),
        bytes: bytes.unwrap_or(default.bytes),
        changes_per_second: rate.unwrap_or(default.changes_per_second),
        burst: burst.unwrap_or(default.burst),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Condition, Endpoint, IdentityRecord, LaneRecord, Namespace, Node};
    use crate::wire::encode_record;
    use hawser_tunnel::identity::Identity;
    use hawser_tunnel::key::PublicKey;
    use hawser_tunnel::node::NodeIndex;

    fn id(number: u16) -> ClusterId {
        ClusterId::new(number).unwrap()
    }

    fn grants() -> Grants {
        let peer = ClusterPeer {
            id: id(2),
            pod_cidrs: vec!["10.2.0.0/16".parse().unwrap()],
            service_cidrs: Vec::new(),
            namespaces: Some(["shop".to_owned()].into()),
            hubs: Vec::new(),
            ca: String::new(),
            quotas: QuotaLimits::default(),
        };
        let own = ["10.1.0.0/16".parse().unwrap()];
        Grants::new(&own, BTreeMap::from([(id(2), Arc::new(peer))]))
    }

    fn judged(origin: u16, record: Record) -> Result<(), &'static str> {
        let admitted = grants().admit(id(origin), &record.key(), &encode_record(&record));
        admitted.map_err(|refusal| refusal.name())
    }

    fn node(prefix: &str, endpoint: &str) -> Record {
        Record::Node(Node {
            index: NodeIndex::new(1).unwrap(),
            name: "n1".to_owned(),
            prefixes: vec![prefix.parse().unwrap()],
            lanes: vec![LaneRecord {
                public_key: PublicKey::new([1; 32]),
                peer_endpoint: Some(endpoint.parse().unwrap()),
            }],
        })
    }

    fn endpoint(scope: Scope, name: &str, address: &str, identity: u32) -> Record {
        Record::Endpoint(Endpoint {
            scope,
            name: name.to_owned(),
            addresses: vec![address.parse().unwrap()],
            identity: Identity::new(identity).unwrap(),
            node: None,
            condition: Condition::READY,
            hostname: String::new(),
            zone: String::new(),
            ports: Vec::new(),
        })
    }

    fn service(namespace: &str) -> Scope {
        Scope::Service {
            namespace: namespace.to_owned(),
            name: "web".to_owned(),
        }
    }

    #[test]
    fn each_record_is_held_against_the_grant_of_its_origin() {
        let underlay = "192.0.2.1:51820";
        let cases = [
            (2, node("10.2.1.0/24", underlay), Ok(())),
            (3, node("10.2.1.0/24", underlay), Err("origin_not_member")),
            (
                2,
                node("10.1.1.0/24", underlay),
                Err("prefix_outside_grant"),
            ),
            (2, node("10.0.0.0/8", underlay), Err("prefix_outside_grant")),
            (
                2,
                node("10.2.1.0/24", "10.1.0.1:51820"),
                Err("lane_endpoint_in_mesh"),
            ),
            (2, endpoint(service("shop"), "a", "10.2.1.9", 300), Ok(())),
            (
                2,
                endpoint(service("bank"), "a", "10.2.1.9", 300),
                Err("namespace_not_granted"),
            ),
            (
                2,
                endpoint(service("shop"), "a", "10.1.1.9", 300),
                Err("address_outside_grant"),
            ),
            (
                2,
                endpoint(service("shop"), "a", "10.2.1.9", 1),
                Err("identity_reserved"),
            ),
            (
                2,
                endpoint(
                    Scope::Identity(Identity::new(300).unwrap()),
                    "bank/a",
                    "10.2.1.9",
                    300,
                ),
                Err("namespace_not_granted"),
            ),
            (
                2,
                Record::Identity(IdentityRecord {
                    number: Identity::new(300).unwrap(),
                    namespace: "bank".to_owned(),
                    labels: BTreeMap::new(),
                }),
                Err("namespace_not_granted"),
            ),
            (
                2,
                Record::Namespace(Namespace {
                    name: "shop".to_owned(),
                    labels: BTreeMap::new(),
                }),
                Err("kind_private"),
            ),
        ];
        for (origin, record, expected) in cases {
            assert_eq!(judged(origin, record.clone()), expected, "{record:?}");
        }
    }

    #[test]
    fn a_members_own_quota_comes_before_the_hubs() {
        let hub = QuotaLimits {
            records: Some(10),
            burst: Some(7),
            ..QuotaLimits::default()
        };
        let peer = QuotaLimits {
            records: Some(20),
            ..QuotaLimits::default()
        };
        let quota = quota(peer, hub);
        assert_eq!((quota.records, quota.burst), (20, 7));
        assert_eq!(quota.bytes, Quota::default().bytes);
    }
}
