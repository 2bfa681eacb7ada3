//! Exported services and their backends.

use super::pods::forget;
use super::{Complaint, Derive, Name, Unfit, Unit, put};
use crate::hub::manifest::{EndpointSlice, ObjectKind, Service, SliceEndpoint};
use crate::hub::protected::Breach;
use crate::record::{self, Condition, Endpoint, EndpointPort, Record, Scope};
use hawser_tunnel::state::martian;
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

    /// The service as others see it, or why they do not.
    pub(super) fn judged_service(&self, name: &Name) -> Result<Option<Record>, Complaint> {
        let Some(&exported_at) = self.exports.get(name) else {
            return Ok(None);
        };
        let of = (name.0.as_str(), name.1.as_str());
        let wrong =
            |value: &str, why| Err(Complaint::new(ObjectKind::ServiceExport, of, value, why));
        match self.rules.protected.judge(of.0, of.1) {
            Ok(()) => {}
            Err(Breach::Service) => return wrong(of.1, Unfit::ServiceProtected),
            Err(Breach::Namespace) => return wrong(of.0, Unfit::NamespaceProtected),
        }
        let Some(service) = self.services.get(name) else {
            return wrong(of.1, Unfit::ServiceMissing);
        };
        let Some(kind) = service.kind else {
            let why = Unfit::ServiceExternalName;
            return Err(Complaint::new(ObjectKind::Service, of, "ExternalName", why));
        };
        Ok(Some(Record::Service(record::Service {
            namespace: name.0.clone(),
            name: name.1.clone(),
            kind,
            ports: service.ports.clone(),
            exported_at,
            session_affinity: service.session_affinity,
        })))
    }

    /// What all slices say of a backend, and the first thing in them that is not so. One without a pod of ours that has
    /// an identity is none: nobody could send from it.
    pub(super) fn judged_backend(
        &self,
        backend: &BackendName,
    ) -> (Option<Record>, Option<Complaint>) {
        let service_name = (backend.namespace.clone(), backend.service.clone());
        let exported = matches!(self.judged_service(&service_name), Ok(Some(_)));
        let service = self.services.get(&service_name).filter(|_| exported);
        let (Some(service), Some(slices)) = (service, self.backends.get(backend)) else {
            return (None, None);
        };
        let mut addresses = BTreeSet::new();
        let mut condition: Option<Condition> = None;
        let mut ports = Vec::new();
        let (mut hostname, mut zone) = (String::new(), String::new());
        let (mut pod, mut complaint) = (None, None);
        for (slice_name, at) in slices {
            let slice = self
                .slices
                .get(&(backend.namespace.clone(), slice_name.clone()));
            let Some((slice, endpoint)) = slice.and_then(|s| Some((s, s.endpoints.get(*at)?)))
            else {
                continue;
            };
            let mut wrong = |(value, why): (String, Unfit)| {
                let of = (backend.namespace.as_str(), slice_name.as_str());
                let kind = ObjectKind::EndpointSlice;
                complaint.get_or_insert_with(|| Complaint::new(kind, of, value, why));
            };
            let name = match self.pod_behind(&backend.namespace, endpoint) {
                Ok(name) => name,
                Err(why) => {
                    wrong(why);
                    continue;
                }
            };
            for address in &endpoint.addresses {
                match self.fits(address, &name) {
                    Ok(()) => {
                        addresses.insert(*address);
                    }
                    Err(why) => wrong((address.to_string(), why)),
                }
            }
            pod = pod.or(Some(name));
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
        let bearing = pod.as_ref().and_then(|name| self.bearing_of(name));
        let (Some((identity, node)), Some(condition)) = (bearing, condition) else {
            return (None, complaint);
        };
        if addresses.is_empty() {
            return (None, complaint);
        }
        let record = Record::Endpoint(Endpoint {
            scope: Scope::Service {
                namespace: backend.namespace.clone(),
                name: backend.service.clone(),
            },
            name: backend.name.clone(),
            addresses: addresses.into_iter().collect(),
            identity,
            node: self.index_of(node),
            condition,
            hostname,
            zone,
            ports,
        });
        (Some(record), complaint)
    }

    /// The pod that an endpoint of a slice stands for: of the slice's own namespace.
    fn pod_behind(
        &self,
        namespace: &str,
        endpoint: &SliceEndpoint,
    ) -> Result<Name, (String, Unfit)> {
        let name = (namespace.to_owned(), endpoint.pod.clone());
        let first = endpoint.addresses.first();
        let placed = |address: &IpAddr| {
            self.placed(*address)
                .map_err(|why| (address.to_string(), why))
        };
        if endpoint.pod.is_empty() {
            let address = first.ok_or_else(|| (String::new(), Unfit::AddressOfNoPod))?;
            placed(address)?;
            let pod = self.pod_at(namespace, *address);
            return pod.cloned().map_err(|why| (address.to_string(), why));
        }
        if !endpoint.pod_namespace.is_empty() && endpoint.pod_namespace != namespace {
            let value = format!("{}/{}", endpoint.pod_namespace, endpoint.pod);
            return Err((value, Unfit::PodInOtherNamespace));
        }
        if self.addresses_of(&name).is_none() {
            // That says more of a pod on the node's network than that there is none.
            first.map_or(Ok(()), placed)?;
            return Err((endpoint.pod.clone(), Unfit::PodUnknown));
        }
        Ok(name)
    }

    /// Whether a pod of ours can have an address at all.
    fn placed(&self, address: IpAddr) -> Result<(), Unfit> {
        if martian(&address.into()).is_some() {
            return Err(Unfit::AddressMartian);
        }
        let mut own = self.rules.cluster.prefixes.iter();
        if own.any(|prefix| prefix.contains(&address)) {
            Ok(())
        } else {
            Err(Unfit::AddressOutsideCluster)
        }
    }

    /// Whether it is an address of this very pod.
    fn fits(&self, address: &IpAddr, pod: &Name) -> Result<(), Unfit> {
        self.placed(*address)?;
        let of_pod = self.addresses_of(pod).unwrap_or_default();
        if of_pod.contains(address) {
            Ok(())
        } else {
            Err(Unfit::AddressOfOtherPod)
        }
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
