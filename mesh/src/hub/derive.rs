//! From manifests and numbers to records.
//!
//! [`Derive`] remembers what depends on what: a change costs what it touches, not what there is. The order of calls
//! does not matter: the same manifests, numbers and lanes give the same records.

mod backends;
mod nodes;
mod pods;
pub(super) mod unfit;

pub use unfit::{Complaint, Unfit};

use crate::hub::manifest::{ClusterPeer, EndpointSlice, Object, ObjectKey, ObjectKind, Service};
use crate::hub::protected::Protected;
use crate::record::{Cluster, Key, LaneRecord, Namespace, Policy, Record};
use crate::revocation::Signed;
use crate::trust::Authorities;
use crate::wire::encode_record;
use backends::{BackendName, PodRef};
use bytes::Bytes;
use hawser_tunnel::node::ClusterId;
use ipnet::IpNet;
use nodes::Node;
use pods::{Bearer, Pod};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// What the hub's configuration says of its own cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The own cluster.
    pub cluster: Cluster,
    /// Labels that make no difference to an identity.
    pub excluded_labels: BTreeSet<String>,
    /// What is not exported.
    pub protected: Protected,
}

/// What has a number of its own. Its text names it for ever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// A node, by name, has a node index.
    Node(String),
    /// Pods of a namespace with the same labels have an identity.
    Identity {
        /// The namespace.
        namespace: String,
        /// The labels that matter.
        labels: BTreeMap<String, String>,
    },
}

/// `worker-1`, or `shop app=web,tier=front`: none of these signs is in a name or a label.
impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => f.write_str(name),
            Self::Identity { namespace, labels } => {
                write!(f, "{namespace} ")?;
                for (at, (key, value)) in labels.iter().enumerate() {
                    write!(f, "{}{key}={value}", if at == 0 { "" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

/// A claim that came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimChange {
    /// It needs a number: answer with [`Derive::allocated`].
    Wanted(Claim),
    /// Its number can rest.
    Unwanted(Claim),
}

/// Namespace and name.
pub(crate) type Name = (String, String);

/// A group of records that are made together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Node(String),
    Bearer(Arc<Bearer>),
    Pod(Name),
    Service(Name),
    Backend(BackendName),
    Namespace(String),
    Policy(Name),
    Cluster(ClusterId),
    Revocations,
    Authorities,
}

/// Makes the own cluster's records.
#[derive(Debug)]
pub struct Derive {
    rules: Rules,
    nodes: BTreeMap<String, Node>,
    /// Each prefix with the node that has it.
    prefixes: BTreeMap<IpNet, String>,
    /// Nodes of which a prefix overlaps one of another node.
    crowded: BTreeSet<String>,
    /// Each WireGuard key with the nodes that told it, in the order in which they did. Only the first has it.
    keys: BTreeMap<[u8; 32], Vec<String>>,
    bearers: BTreeMap<Arc<Bearer>, pods::Bearing>,
    pods: BTreeMap<Name, Pod>,
    by_address: BTreeMap<IpAddr, BTreeSet<Name>>,
    services: BTreeMap<Name, Service>,
    exports: BTreeMap<Name, u64>,
    slices: BTreeMap<Name, EndpointSlice>,
    /// Each backend with the slices that have it, and where in them.
    backends: BTreeMap<BackendName, BTreeMap<String, usize>>,
    watching: BTreeMap<PodRef, BTreeSet<BackendName>>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    policies: BTreeMap<Name, String>,
    members: BTreeMap<ClusterId, Cluster>,
    revocations: Option<Signed>,
    authorities: Option<Authorities>,
    claims: BTreeMap<Claim, bool>,
    dirty: BTreeSet<Unit>,
    produced: BTreeMap<Unit, Vec<Key>>,
    /// What is wrong with exports, as of the last [`Self::drain`].
    unfit: BTreeMap<Unit, Complaint>,
    /// Those of them that nobody was told of yet.
    news: BTreeSet<Unit>,
    unfit_changed: bool,
}

impl Derive {
    /// Knows nothing but the own cluster yet.
    pub fn new(rules: Rules) -> Self {
        let own = rules.cluster.clone();
        Self {
            rules,
            nodes: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            crowded: BTreeSet::new(),
            keys: BTreeMap::new(),
            bearers: BTreeMap::new(),
            pods: BTreeMap::new(),
            by_address: BTreeMap::new(),
            services: BTreeMap::new(),
            exports: BTreeMap::new(),
            slices: BTreeMap::new(),
            backends: BTreeMap::new(),
            watching: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            policies: BTreeMap::new(),
            dirty: BTreeSet::from([Unit::Cluster(own.id)]),
            members: BTreeMap::from([(own.id, own)]),
            revocations: None,
            authorities: None,
            claims: BTreeMap::new(),
            produced: BTreeMap::new(),
            unfit: BTreeMap::new(),
            news: BTreeSet::new(),
            unfit_changed: false,
        }
    }

    /// Takes an object's newest state; `None`: it is gone. Members are told with [`Self::set_member`].
    pub fn apply(&mut self, key: &ObjectKey, object: Option<&Object>) {
        let name = (key.namespace.clone(), key.name.clone());
        // An object of another kind than its key's is none.
        let object = object.filter(|object| object.kind() == key.kind).cloned();
        match (key.kind, object) {
            (_, Some(Object::Node(prefixes))) => self.set_node(&key.name, Some(prefixes)),
            (_, Some(Object::Pod(pod))) => self.set_pod(name, Some(&pod)),
            (_, Some(Object::Service(service))) => self.set_service(name, Some(service)),
            (_, Some(Object::ServiceExport(at))) => self.set_export(name, Some(at)),
            (_, Some(Object::EndpointSlice(slice))) => self.set_slice(name, Some(slice)),
            (_, Some(Object::Namespace(labels))) => self.set_namespace(&key.name, Some(labels)),
            (_, Some(Object::NetworkPolicy(spec))) => self.set_policy(name, Some(spec)),
            (ObjectKind::Node, None) => self.set_node(&key.name, None),
            (ObjectKind::Pod, None) => self.set_pod(name, None),
            (ObjectKind::Service, None) => self.set_service(name, None),
            (ObjectKind::ServiceExport, None) => self.set_export(name, None),
            (ObjectKind::EndpointSlice, None) => self.set_slice(name, None),
            (ObjectKind::Namespace, None) => self.set_namespace(&key.name, None),
            (ObjectKind::NetworkPolicy, None) => self.set_policy(name, None),
            (_, Some(Object::ClusterPeer(_))) | (ObjectKind::ClusterPeer, None) => {}
        }
    }

    fn set_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>) {
        put(&mut self.namespaces, &name.to_owned(), labels);
        self.dirty.insert(Unit::Namespace(name.to_owned()));
    }

    fn set_policy(&mut self, name: Name, spec: Option<String>) {
        put(&mut self.policies, &name, spec);
        self.dirty.insert(Unit::Policy(name));
    }

    /// Takes a member of the clusterset, as it was accepted; `None`: it left.
    pub fn set_member(&mut self, id: ClusterId, name: &str, peer: Option<&ClusterPeer>) {
        let cluster = peer.map(|peer| Cluster {
            id,
            name: name.to_owned(),
            prefixes: peer.pod_cidrs.clone(),
            ca: peer.ca.clone(),
        });
        put(&mut self.members, &id, cluster);
        self.dirty.insert(Unit::Cluster(id));
    }

    /// Takes the list of those whom this cluster has cut off.
    pub fn set_revocations(&mut self, signed: Option<Signed>) {
        self.revocations = signed;
        self.dirty.insert(Unit::Revocations);
    }

    /// Takes this cluster's CAs, where they are not those that everybody began with, for other clusters and, in PEM, for
    /// the own agents.
    pub fn set_authorities(&mut self, authorities: Option<Authorities>, pem: String) {
        let own = self.rules.cluster.id;
        if let Some(cluster) = self.members.get_mut(&own) {
            cluster.ca = pem;
        }
        self.authorities = authorities;
        self.dirty.extend([Unit::Authorities, Unit::Cluster(own)]);
    }

    /// Takes the lanes that a node's agent told. One with a key that another node told before is left out: a node cannot
    /// take over another.
    pub fn set_lanes(&mut self, node: &str, lanes: Vec<LaneRecord>) {
        self.take_lanes(node, lanes);
    }

    /// The next claim that came or went since the last call.
    pub fn poll_claim(&mut self) -> Option<ClaimChange> {
        let (claim, wanted) = self.claims.pop_first()?;
        Some(if wanted {
            ClaimChange::Wanted(claim)
        } else {
            ClaimChange::Unwanted(claim)
        })
    }

    /// All claims that want a number, as text, with the kind's own.
    pub(super) fn wanted(&self) -> BTreeSet<Claim> {
        let nodes = self
            .nodes
            .iter()
            .filter(|(_, node)| node.prefixes.is_some());
        let nodes = nodes.map(|(name, _)| Claim::Node(name.clone()));
        nodes
            .chain(self.bearers.keys().map(|bearer| pods::claim(bearer)))
            .collect()
    }

    /// Tells a claim once more with the next [`Self::poll_claim`], unless it changed meanwhile.
    pub fn again(&mut self, claim: Claim, wanted: bool) {
        self.claims.entry(claim).or_insert(wanted);
    }

    /// Takes the number of a claim. A number that its kind cannot have is left out.
    pub fn allocated(&mut self, claim: &Claim, number: u32) {
        match claim {
            Claim::Node(name) => self.set_index(name, number),
            Claim::Identity { namespace, labels } => {
                let bearer = Bearer {
                    namespace: namespace.clone(),
                    labels: labels.clone(),
                };
                self.set_identity(&bearer, number);
            }
        }
    }

    /// Nodes that share an address with another one's prefixes, and therefore lack that prefix.
    pub fn crowded(&self) -> impl Iterator<Item = &str> {
        self.crowded.iter().map(String::as_str)
    }

    /// The records of all that was touched since the last call, each with its bytes; `None`: there is none.
    /// Bytes may be those that there were before.
    pub fn drain(&mut self) -> BTreeMap<Key, Option<Bytes>> {
        let mut gone = BTreeMap::new();
        let mut made = BTreeMap::new();
        for unit in std::mem::take(&mut self.dirty) {
            let mut complaint = None;
            let records = self.records_of(&unit, &mut complaint);
            self.complain(&unit, complaint);
            let before = if records.is_empty() {
                self.produced.remove(&unit)
            } else {
                let keys = records.iter().map(Record::key).collect();
                self.produced.insert(unit, keys)
            };
            gone.extend(before.into_iter().flatten().map(|key| (key, None)));
            let bytes = |record: &Record| (record.key(), Some(encode_record(record)));
            made.extend(records.iter().map(bytes));
        }
        // A key that moved from one unit to another is not gone.
        gone.extend(made);
        gone
    }

    /// The keys of all records, as of the last [`Self::drain`].
    pub fn keys(&self) -> BTreeSet<&Key> {
        self.produced.values().flatten().collect()
    }

    /// What is wrong with exports, as of the last [`Self::drain`]. What they ask for wrongly is not announced.
    pub fn complaints(&self) -> impl Iterator<Item = &Complaint> {
        self.unfit.values()
    }

    /// Complaints that were not there at the last call, and whether any came, changed or went.
    pub fn take_news(&mut self) -> (Vec<Complaint>, bool) {
        let news = std::mem::take(&mut self.news);
        let news = news.iter().filter_map(|unit| self.unfit.get(unit).cloned());
        (news.collect(), std::mem::take(&mut self.unfit_changed))
    }

    fn complain(&mut self, unit: &Unit, complaint: Option<Complaint>) {
        if self.unfit.get(unit) == complaint.as_ref() {
            return;
        }
        self.unfit_changed = true;
        if complaint.is_some() {
            self.news.insert(unit.clone());
        }
        put(&mut self.unfit, unit, complaint);
    }

    /// The records of a unit, and what is wrong with it.
    fn records_of(&self, unit: &Unit, complaint: &mut Option<Complaint>) -> Vec<Record> {
        match unit {
            Unit::Node(name) => self.node_record(name).into_iter().collect(),
            Unit::Bearer(bearer) => self.identity_record(bearer).into_iter().collect(),
            Unit::Pod(name) => self.pod_records(name),
            Unit::Service(name) => {
                let judged = self.judged_service(name);
                let record = judged.unwrap_or_else(|wrong| {
                    *complaint = Some(wrong);
                    None
                });
                record.into_iter().collect()
            }
            Unit::Backend(name) => {
                let (record, wrong) = self.judged_backend(name);
                *complaint = wrong;
                record.into_iter().collect()
            }
            Unit::Namespace(name) => {
                let labels = self.namespaces.get(name);
                let record = |labels: &BTreeMap<String, String>| {
                    Record::Namespace(Namespace {
                        name: name.clone(),
                        labels: labels.clone(),
                    })
                };
                labels.map(record).into_iter().collect()
            }
            Unit::Policy(name) => {
                let record = |spec: &String| {
                    Record::Policy(Policy {
                        namespace: name.0.clone(),
                        name: name.1.clone(),
                        spec: spec.clone(),
                    })
                };
                self.policies.get(name).map(record).into_iter().collect()
            }
            Unit::Cluster(id) => {
                let member = self.members.get(id).cloned();
                member.map(Record::Cluster).into_iter().collect()
            }
            Unit::Revocations => {
                let signed = self.revocations.clone();
                signed.map(Record::Revocations).into_iter().collect()
            }
            Unit::Authorities => {
                let said = self.authorities.clone();
                said.map(Record::Authorities).into_iter().collect()
            }
        }
    }
}

fn put<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>, key: &K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key.clone(), value),
        None => map.remove(key),
    };
}

#[cfg(test)]
mod tests;
