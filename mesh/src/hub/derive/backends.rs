//! Exported services and their backends.

use super::pods::forget;
use super::{Derive, Name, Unit, put};
use crate::hub::manifest::{EndpointSlice, Service, SliceEndpoint};
use crate::record::{self, Condition, Endpoint, EndpointPort, Record, Scope};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A backend of a service: what slices of all address families say of one pod or address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BackendName {
    namespace: String,
    service: String,
    name: String,
}

/// How a slice refers to a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PodRef {
    Name(Name),
    Address(IpAddr),
}

/// The pod's name, or the address where the slice names no pod.
fn name_of(endpoint: &SliceEndpoint) -> Option<String> {
    if !endpoint.pod.is_empty() {
        return Some(endpoint.pod.clone());
    }
    endpoint.addresses.first().map(ToString::to_string)
}

fn reference(namespace: &str, endpoint: &SliceEndpoint) -> Option<PodRef> {
    if !endpoint.pod.is_empty() {
        let name = (namespace.to_owned(), endpoint.pod.clone());
        return Some(PodRef::Name(name));
    }
    endpoint.addresses.first().copied().map(PodRef::Address)
}

impl Derive {
    pub(super) fn set_service(&mut self, name: Name, service: Option<Service>) {
        put(&mut self.services, &name, service);
        self.touch_service(&name);
    }

    pub(super) fn set_export(&mut self, name: Name, exported_at: Option<u64>) {
        put(&mut self.exports, &name, exported_at);
        self.touch_service(&name);
    }

    pub(super) fn set_slice(&mut self, name: Name, next: Option<EndpointSlice>) {
        let old = self.slices.remove(&name);
        let same_frame = |one: &EndpointSlice, other: &EndpointSlice| {
            one.service == other.service && one.ports == other.ports
        };
        let keeps = match (&old, &next) {
            (Some(old), Some(next)) => same_frame(old, next),
            (None | Some(_), None) | (None, Some(_)) => false,
        };
        // Backends that both have, said alike, stay as they are.
        let mut before: BTreeMap<BackendName, SliceEndpoint> = BTreeMap::new();
        if let Some(old) = old {
            for endpoint in old.endpoints {
                if let Some(backend) = backend_name(&name.0, &old.service, &endpoint) {
                    before.insert(backend, endpoint);
                }
            }
        }
        if let Some(next) = &next {
            for (at, endpoint) in next.endpoints.iter().enumerate() {
                let Some(backend) = backend_name(&name.0, &next.service, endpoint) else {
                    continue;
                };
                let slices = self.backends.entry(backend.clone()).or_default();
                slices.insert(name.1.clone(), at);
                match before.remove(&backend) {
                    Some(old) if keeps && old == *endpoint => continue,
                    Some(old) => self.unwatch(&name.0, &backend, &old),
                    None => {}
                }
                if let Some(reference) = reference(&name.0, endpoint) {
                    let watchers = self.watching.entry(reference).or_default();
                    watchers.insert(backend.clone());
                }
                self.dirty.insert(Unit::Backend(backend));
            }
        }
        for (backend, endpoint) in before {
            if let Some(slices) = self.backends.get_mut(&backend) {
                slices.remove(&name.1);
                if slices.is_empty() {
                    self.backends.remove(&backend);
                    self.unwatch(&name.0, &backend, &endpoint);
                }
            }
            self.dirty.insert(Unit::Backend(backend));
        }
        if let Some(next) = next {
            self.slices.insert(name, next);
        }
    }

    fn unwatch(&mut self, namespace: &str, backend: &BackendName, endpoint: &SliceEndpoint) {
        if let Some(reference) = reference(namespace, endpoint) {
            forget(&mut self.watching, &reference, backend);
        }
    }

    /// Marks a service and all its backends.
    fn touch_service(&mut self, name: &Name) {
        self.dirty.insert(Unit::Service(name.clone()));
        let first = BackendName {
            namespace: name.0.clone(),
            service: name.1.clone(),
            name: String::new(),
        };
        let of_service = |backend: &&BackendName| {
            backend.namespace == first.namespace && backend.service == first.service
        };
        let backends = self
            .backends
            .range(first.clone()..)
            .map(|(backend, _)| backend);
        let backends: Vec<_> = backends.take_while(of_service).cloned().collect();
        self.dirty.extend(backends.into_iter().map(Unit::Backend));
    }

    pub(super) fn service_record(&self, name: &Name) -> Option<Record> {
        let exported_at = *self.exports.get(name)?;
        let service = self.services.get(name)?;
        Some(Record::Service(record::Service {
            namespace: name.0.clone(),
            name: name.1.clone(),
            kind: service.kind?,
            ports: service.ports.clone(),
            exported_at,
            session_affinity: service.session_affinity,
        }))
    }

    /// What all slices say of a backend. One without a pod of ours that has an identity is none: nobody could send
    /// from it.
    pub(super) fn backend_record(&self, backend: &BackendName) -> Option<Record> {
        let service_name = (backend.namespace.clone(), backend.service.clone());
        if !self.exports.contains_key(&service_name) {
            return None;
        }
        let service = self.services.get(&service_name)?;
        service.kind?;
        let mut addresses = BTreeSet::new();
        let mut condition: Option<Condition> = None;
        let mut ports = Vec::new();
        let (mut hostname, mut zone) = (String::new(), String::new());
        let mut pod = None;
        for (slice_name, at) in self.backends.get(backend)? {
            let slice = self
                .slices
                .get(&(backend.namespace.clone(), slice_name.clone()));
            let Some((slice, endpoint)) = slice.and_then(|s| Some((s, s.endpoints.get(*at)?)))
            else {
                continue;
            };
            pod = pod.or_else(|| self.pod_of(&reference(&backend.namespace, endpoint)?));
            let own = &self.rules.cluster.prefixes;
            let fits = |address: &&IpAddr| own.iter().any(|prefix| prefix.contains(*address));
            addresses.extend(endpoint.addresses.iter().filter(fits).copied());
            let said = endpoint.condition;
            condition = Some(condition.map_or(said, |before| Condition {
                ready: before.ready && said.ready,
                serving: before.serving && said.serving,
                terminating: before.terminating || said.terminating,
            }));
            if hostname.is_empty() {
                hostname.clone_from(&endpoint.hostname);
            }
            if zone.is_empty() {
                zone.clone_from(&endpoint.zone);
            }
            if ports.is_empty() {
                let differs = |port: &&EndpointPort| {
                    let mut of_service = service.ports.iter();
                    !of_service.any(|known| {
                        known.name == port.name
                            && known.protocol == port.protocol
                            && known.port == port.port
                    })
                };
                ports.extend(slice.ports.iter().filter(differs).cloned());
            }
        }
        let (identity, node) = pod?;
        if addresses.is_empty() {
            return None;
        }
        Some(Record::Endpoint(Endpoint {
            scope: Scope::Service {
                namespace: backend.namespace.clone(),
                name: backend.service.clone(),
            },
            name: backend.name.clone(),
            addresses: addresses.into_iter().collect(),
            identity,
            node: self.index_of(node),
            condition: condition?,
            hostname,
            zone,
            ports,
        }))
    }
}

fn backend_name(namespace: &str, service: &str, endpoint: &SliceEndpoint) -> Option<BackendName> {
    if service.is_empty() {
        return None;
    }
    Some(BackendName {
        namespace: namespace.to_owned(),
        service: service.to_owned(),
        name: name_of(endpoint)?,
    })
}
