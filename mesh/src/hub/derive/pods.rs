//! Pods and the identities that they bear.

use super::backends::PodRef;
use super::{Claim, Derive, Name, Unfit, Unit};
use crate::hub::manifest;
use crate::record::{self, Condition, Endpoint, IdentityRecord, Record, Scope};
use hawser_tunnel::identity::Identity;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// What an identity stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bearer {
    pub(super) namespace: String,
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Debug, Default)]
pub(super) struct Bearing {
    number: Option<Identity>,
    pods: BTreeSet<Name>,
}

#[derive(Debug)]
pub(super) struct Pod {
    node: String,
    addresses: Vec<IpAddr>,
    bearer: Arc<Bearer>,
}

impl Derive {
    pub(super) fn set_pod(&mut self, name: Name, pod: Option<&manifest::Pod>) {
        let next = pod.filter(|pod| pod.attached).map(|pod| {
            let own = &self.rules.cluster.prefixes;
            let fits = |address: &&IpAddr| own.iter().any(|prefix| prefix.contains(*address));
            let excluded = &self.rules.excluded_labels;
            let labels = pod
                .labels
                .iter()
                .filter(|(key, _)| !excluded.contains(*key));
            let bearer = Bearer {
                namespace: name.0.clone(),
                labels: labels.map(|(k, v)| (k.clone(), v.clone())).collect(),
            };
            Pod {
                node: pod.node.clone(),
                addresses: pod.addresses.iter().filter(fits).copied().collect(),
                bearer: self.shared(bearer),
            }
        });
        // Backends of the addresses before and of those after.
        self.touch_pod(&name);
        let old = self.pods.remove(&name);
        if let Some(old) = &old {
            for address in &old.addresses {
                forget(&mut self.by_address, address, &name);
            }
            if let Some(node) = self.nodes.get_mut(&old.node) {
                node.pods.remove(&name);
            }
        }
        if let Some(pod) = &next {
            for address in &pod.addresses {
                let of = self.by_address.entry(*address).or_default();
                of.insert(name.clone());
            }
            let node = self.nodes.entry(pod.node.clone()).or_default();
            node.pods.insert(name.clone());
        }
        self.bear(&name, next.as_ref().map(|pod| Arc::clone(&pod.bearer)));
        if let Some(old) = old
            && next.as_ref().is_none_or(|next| next.bearer != old.bearer)
        {
            self.unbear(&name, &old.bearer);
        }
        if let Some(pod) = next {
            self.pods.insert(name.clone(), pod);
        }
        self.touch_pod(&name);
    }

    fn shared(&self, bearer: Bearer) -> Arc<Bearer> {
        let known = self.bearers.get_key_value(&bearer);
        known.map_or_else(|| Arc::new(bearer), |(known, _)| Arc::clone(known))
    }

    fn bear(&mut self, name: &Name, bearer: Option<Arc<Bearer>>) {
        let Some(bearer) = bearer else { return };
        let bearing = self.bearers.entry(Arc::clone(&bearer)).or_default();
        if bearing.pods.is_empty() {
            self.claims.insert(claim(&bearer), true);
        }
        bearing.pods.insert(name.clone());
    }

    fn unbear(&mut self, name: &Name, bearer: &Arc<Bearer>) {
        let Some(bearing) = self.bearers.get_mut(bearer) else {
            return;
        };
        bearing.pods.remove(name);
        if bearing.pods.is_empty() {
            self.bearers.remove(bearer);
            self.claims.insert(claim(bearer), false);
            self.dirty.insert(Unit::Bearer(Arc::clone(bearer)));
        }
    }

    pub(super) fn set_identity(&mut self, bearer: &Bearer, number: u32) {
        let number = Identity::new(number).ok().filter(|id| !id.is_reserved());
        let Some((key, _)) = self.bearers.get_key_value(bearer) else {
            return;
        };
        let key = Arc::clone(key);
        let bearing = self.bearers.get_mut(&key);
        let bearing = bearing.expect("the key was found in the line above");
        if bearing.number == number {
            return;
        }
        bearing.number = number;
        let pods = bearing.pods.clone();
        self.dirty.insert(Unit::Bearer(key));
        for pod in pods {
            self.touch_pod(&pod);
        }
    }

    /// Marks all that is said of a pod.
    pub(super) fn touch_pod(&mut self, name: &Name) {
        self.dirty.insert(Unit::Pod(name.clone()));
        let by_name = PodRef::Name(name.clone());
        let addresses = self.pods.get(name).map(|pod| pod.addresses.clone());
        let by_address = addresses.into_iter().flatten().map(PodRef::Address);
        for reference in [by_name].into_iter().chain(by_address) {
            let backends = self.watching.get(&reference).into_iter().flatten();
            self.dirty.extend(backends.cloned().map(Unit::Backend));
        }
    }

    /// What a backend takes from its pod: identity and node. `None`: its identity has no number yet.
    pub(super) fn bearing_of(&self, name: &Name) -> Option<(Identity, &str)> {
        let pod = self.pods.get(name)?;
        Some((self.bearers.get(&pod.bearer)?.number?, &pod.node))
    }

    /// The addresses of a pod that has a network of its own.
    pub(super) fn addresses_of(&self, name: &Name) -> Option<&[IpAddr]> {
        Some(&self.pods.get(name)?.addresses)
    }

    /// The pod of a namespace that has an address.
    pub(super) fn pod_at(&self, namespace: &str, address: IpAddr) -> Result<&Name, Unfit> {
        let pods = self.by_address.get(&address);
        let pods = pods.ok_or(Unfit::AddressOfNoPod)?;
        let own = pods.iter().find(|(of, _)| of == namespace);
        own.ok_or(Unfit::AddressOfOtherNamespace)
    }

    pub(super) fn identity_record(&self, bearer: &Arc<Bearer>) -> Option<Record> {
        Some(Record::Identity(IdentityRecord {
            number: self.bearers.get(bearer)?.number?,
            namespace: bearer.namespace.clone(),
            labels: bearer.labels.clone(),
        }))
    }

    pub(super) fn pod_records(&self, name: &Name) -> Vec<Record> {
        let Some(pod) = self.pods.get(name) else {
            return Vec::new();
        };
        let Some(identity) = self.bearers.get(&pod.bearer).and_then(|b| b.number) else {
            return Vec::new();
        };
        let node = self.index_of(&pod.node);
        let of_node = node.map(|node| {
            Record::Pod(record::Pod {
                node,
                namespace: name.0.clone(),
                name: name.1.clone(),
                addresses: pod.addresses.clone(),
                identity,
            })
        });
        let of_identity = (!pod.addresses.is_empty()).then(|| {
            Record::Endpoint(Endpoint {
                scope: Scope::Identity(identity),
                name: format!("{}/{}", name.0, name.1),
                addresses: pod.addresses.clone(),
                identity,
                node,
                condition: Condition::READY,
                hostname: String::new(),
                zone: String::new(),
                ports: Vec::new(),
            })
        });
        of_node.into_iter().chain(of_identity).collect()
    }
}

pub(super) fn claim(bearer: &Bearer) -> Claim {
    Claim::Identity {
        namespace: bearer.namespace.clone(),
        labels: bearer.labels.clone(),
    }
}

/// Removes from a set in a map, and the set when it is empty.
pub(super) fn forget<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(values) = map.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            map.remove(key);
        }
    }
}
