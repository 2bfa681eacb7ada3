//! Which records a node asks for.

use crate::agent::selector::EgressPolicy;
use crate::config::EndpointsWanted;
use crate::record::{IdentityRecord, Key, Kind, Namespace, Prefix, Record, Scope};
use crate::replica::{Filter, Replica};
use crate::wire::decode_record;
use hawser_tunnel::node::{ClusterId, NodeIndex};
use std::collections::{BTreeMap, BTreeSet};

/// Kinds that are small, and that every node of a cluster uses whole.
const WHOLE: [Kind; 6] = [
    Kind::Node,
    Kind::Identity,
    Kind::Service,
    Kind::Policy,
    Kind::Namespace,
    Kind::Cluster,
];

/// Derives it from what is known; as long as little is, it asks for little.
pub(super) fn wanted_filter(
    replica: &Replica,
    cluster: &str,
    node: &str,
    endpoints: EndpointsWanted,
) -> Filter {
    let known = Known { replica };
    let mut prefixes: Vec<Prefix> = WHOLE.map(Prefix::kind).to_vec();
    let own = known.own_cluster(cluster);
    let index = own.and_then(|own| known.own_index(own, node));
    prefixes.extend(index.map(Prefix::pods_of));
    match endpoints {
        EndpointsWanted::All => prefixes.push(Prefix::kind(Kind::Endpoint)),
        EndpointsWanted::Used => {
            prefixes.push(Prefix::service_endpoints());
            let selected = own
                .zip(index)
                .map(|(own, index)| known.selected(own, index));
            prefixes.extend(selected.into_iter().flatten());
        }
    }
    Filter::new(prefixes)
}

struct Known<'a> {
    replica: &'a Replica,
}

impl Known<'_> {
    fn records(&self, origin: ClusterId, prefix: &Prefix) -> Vec<Record> {
        let store = self.replica.store(origin);
        let under = store.into_iter().flat_map(|store| store.under(prefix));
        under
            .filter_map(|(_, key, value)| decode_record(&key, &value).ok())
            .collect()
    }

    /// The origin that lists itself under the cluster's name.
    fn own_cluster(&self, name: &str) -> Option<ClusterId> {
        self.replica.origins().find(|&origin| {
            let key = Key::cluster(origin);
            let value = self.replica.store(origin).and_then(|store| store.get(&key));
            let record = value.and_then(|value| decode_record(&key, &value).ok());
            matches!(record, Some(Record::Cluster(cluster)) if cluster.name == name)
        })
    }

    fn own_index(&self, own: ClusterId, name: &str) -> Option<NodeIndex> {
        let nodes = self.records(own, &Prefix::kind(Kind::Node));
        nodes.into_iter().find_map(|record| match record {
            Record::Node(node) if node.name == name => Some(node.index),
            Record::Node(_)
            | Record::Identity(_)
            | Record::Service(_)
            | Record::Endpoint(_)
            | Record::Revocations(_)
            | Record::Authorities(_)
            | Record::Policy(_)
            | Record::Namespace(_)
            | Record::Pod(_)
            | Record::Cluster(_) => None,
        })
    }

    fn identities(&self, origin: ClusterId) -> impl Iterator<Item = IdentityRecord> {
        let records = self.records(origin, &Prefix::kind(Kind::Identity));
        records.into_iter().filter_map(|record| match record {
            Record::Identity(identity) => Some(identity),
            Record::Node(_)
            | Record::Service(_)
            | Record::Endpoint(_)
            | Record::Revocations(_)
            | Record::Authorities(_)
            | Record::Policy(_)
            | Record::Namespace(_)
            | Record::Pod(_)
            | Record::Cluster(_) => None,
        })
    }

    /// The identities that egress policies of this node's pods select. An identity is scoped by its cluster and a prefix is
    /// not: the same number of another cluster comes along.
    fn selected(&self, own: ClusterId, index: NodeIndex) -> Vec<Prefix> {
        let mut policies = Vec::new();
        let mut namespaces = BTreeMap::new();
        let mut local = BTreeSet::new();
        let prefixes = [
            Prefix::kind(Kind::Policy),
            Prefix::kind(Kind::Namespace),
            Prefix::pods_of(index),
        ];
        for record in prefixes.iter().flat_map(|it| self.records(own, it)) {
            match record {
                Record::Policy(policy) => {
                    policies.extend(EgressPolicy::read(&policy.namespace, &policy.spec));
                }
                Record::Namespace(Namespace { name, labels }) => {
                    namespaces.insert(name, labels);
                }
                Record::Pod(pod) => {
                    local.insert(pod.identity);
                }
                Record::Node(_)
                | Record::Identity(_)
                | Record::Service(_)
                | Record::Endpoint(_)
                | Record::Revocations(_)
                | Record::Authorities(_)
                | Record::Cluster(_) => {}
            }
        }
        if policies.is_empty() || local.is_empty() {
            return Vec::new();
        }
        let here: Vec<IdentityRecord> = self
            .identities(own)
            .filter(|identity| local.contains(&identity.number))
            .collect();
        policies.retain(|policy| here.iter().any(|identity| policy.is_of(identity)));
        if policies.is_empty() {
            return Vec::new();
        }
        let all = self
            .replica
            .origins()
            .flat_map(|origin| self.identities(origin));
        let selected = all.filter(|identity| {
            policies
                .iter()
                .any(|policy| policy.selects(identity, &namespaces))
        });
        selected
            .map(|identity| Prefix::scope(&Scope::Identity(identity.number)))
            .collect()
    }
}
