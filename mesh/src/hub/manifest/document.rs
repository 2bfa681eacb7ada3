//! One file of manifests: its documents, and the objects in them.

use super::peer::{self, Spec};
use super::{EndpointSlice, Object, ObjectKey, ObjectKind, Pod, Service, SliceEndpoint};
use crate::config::{Fault, Rule, Syntax, prefix, syntax};
use crate::record::{
    Condition, EndpointPort, ServicePort, ServiceType, check_label, check_labels, check_name,
};
use hawser_tunnel::node::ClusterId;
use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What manifests are held against: the cluster that they describe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ground {
    /// The own cluster's ID.
    pub cluster: ClusterId,
    /// Its name.
    pub name: String,
    /// Its pod prefixes.
    pub pod_cidrs: Vec<IpNet>,
    /// The prefixes of its services' virtual IPs, as far as it knows them.
    pub service_cidrs: Vec<IpNet>,
}

/// One document of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document<'a> {
    /// Its first line, from 1.
    pub line: u64,
    /// Without the marks around it.
    pub text: &'a str,
}

/// Parts a file. A document mark is a line by itself whatever stands around it (YAML 1.2.2, section 9.1.2).
pub fn split(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 1, 0);
    let mut push = |text: &'_ str, from: usize, to: usize, line: u64| {
        let body = &text[from..to];
        let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        if !body.lines().all(blank) {
            documents.push((line, from, to));
        }
    };
    for (line, number) in text.split_inclusive('\n').zip(1..) {
        let next = at + line.len();
        let content = line.trim_end();
        if content == "---" || content == "..." || line.starts_with("--- ") {
            push(text, start, at, start_line);
            // What stands behind the mark on its line belongs to the document.
            let rest = if content.len() > 3 { at + 3 } else { next };
            (start, start_line) = (rest, if rest == next { number + 1 } else { number });
        }
        at = next;
    }
    push(text, start, at, start_line);
    documents
        .into_iter()
        .map(|(line, from, to)| Document {
            line,
            text: &text[from..to],
        })
        .collect()
}

/// What is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Wrong {
    /// Of the file, from 1.
    pub line: u64,
    /// One line: field, value, rule and fix.
    pub what: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: String,
    kind: String,
}

#[derive(Debug, Deserialize)]
struct Export {
    metadata: ObjectMeta,
}

#[derive(Debug, Deserialize)]
struct Peer {
    metadata: ObjectMeta,
    spec: Spec,
}

impl Document<'_> {
    /// Reads it. `None`: of a kind that is not used.
    ///
    /// # Errors
    /// It is no YAML, not of its kind's form, or breaks a rule.
    pub fn parse(&self, ground: &Ground) -> Result<Option<(ObjectKey, Object)>, Wrong> {
        let head: Head = self.read()?;
        let Some(kind) = ObjectKind::of(&head.api_version, &head.kind) else {
            return Ok(None);
        };
        let read = match kind {
            ObjectKind::Node => {
                let node: core::Node = self.read()?;
                (node.metadata, node_object(node.spec, ground))
            }
            ObjectKind::Namespace => {
                let namespace: core::Namespace = self.read()?;
                let labels = namespace.metadata.labels.clone().unwrap_or_default();
                let object = checked_labels(labels).map(Object::Namespace);
                (namespace.metadata, object)
            }
            ObjectKind::Pod => {
                let pod: core::Pod = self.read()?;
                let labels = pod.metadata.labels.clone().unwrap_or_default();
                (pod.metadata, pod_object(labels, pod.spec, pod.status))
            }
            ObjectKind::Service => {
                let service: core::Service = self.read()?;
                (service.metadata, service_object(service.spec))
            }
            ObjectKind::EndpointSlice => {
                let slice: discovery::EndpointSlice = self.read()?;
                slice_object(slice)
            }
            ObjectKind::ServiceExport => {
                let export: Export = self.read()?;
                let time = export.metadata.creation_timestamp.as_ref();
                let seconds = time.map_or(0, |time| time.0.as_second());
                let object = Object::ServiceExport(u64::try_from(seconds).unwrap_or(0));
                (export.metadata, Ok(object))
            }
            ObjectKind::NetworkPolicy => {
                let policy: networking::NetworkPolicy = self.read()?;
                let spec = policy.spec.unwrap_or_default();
                let json = serde_json::to_string(&spec);
                let json = json.map_err(|_| Fault::new("spec", "", Rule::Unwritable));
                (policy.metadata, json.map(Object::NetworkPolicy))
            }
            ObjectKind::ClusterPeer => {
                let peer: Peer = self.read()?;
                let name = peer.metadata.name.clone().unwrap_or_default();
                let object = peer::check(peer.spec, &name, ground).map(Object::ClusterPeer);
                (peer.metadata, object)
            }
        };
        let (metadata, object) = read;
        let key = object_key(kind, metadata).map_err(|fault| self.wrong(&fault))?;
        let object = object.map_err(|fault| self.wrong(&fault))?;
        Ok(Some((key, object)))
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T, Wrong> {
        syntax::read(self.text).map_err(|Syntax { line, what, .. }| Wrong {
            line: self.line + line.saturating_sub(1),
            what,
        })
    }

    /// With the line on which the value stands; the document's first where it stands on none.
    fn wrong(&self, fault: &Fault) -> Wrong {
        let holds = |line: &str| !fault.value.is_empty() && line.contains(&fault.value);
        let at = self.text.lines().zip(self.line..);
        let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        let first = at.clone().find(|(line, _)| !blank(line));
        let found = at.clone().find(|(line, _)| holds(line)).or(first);
        Wrong {
            line: found.map_or(self.line, |(_, line)| line),
            what: fault.to_string(),
        }
    }
}

fn object_key(kind: ObjectKind, metadata: ObjectMeta) -> Result<ObjectKey, Fault> {
    let name = metadata.name.unwrap_or_default();
    let label = matches!(
        kind,
        ObjectKind::Namespace
            | ObjectKind::Service
            | ObjectKind::ServiceExport
            | ObjectKind::ClusterPeer
    );
    if label && check_label(&name).is_err() {
        return Err(Fault::new("metadata.name", name, Rule::ClusterName));
    }
    if check_name(&name).is_err() {
        return Err(Fault::new("metadata.name", name, Rule::NodeName));
    }
    let namespace = if kind.is_namespaced() {
        metadata.namespace.unwrap_or_else(|| "default".to_owned())
    } else {
        String::new()
    };
    if kind.is_namespaced() && check_label(&namespace).is_err() {
        return Err(Fault::new(
            "metadata.namespace",
            namespace,
            Rule::ClusterName,
        ));
    }
    Ok(ObjectKey {
        kind,
        namespace,
        name,
    })
}

fn checked_labels(labels: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Fault> {
    check_labels(&labels).map_err(|source| {
        let rule = Rule::Labels {
            what: source.to_string(),
        };
        Fault::new("metadata.labels", "", rule)
    })?;
    Ok(labels)
}

fn node_object(spec: Option<core::NodeSpec>, ground: &Ground) -> Result<Object, Fault> {
    let spec = spec.unwrap_or_default();
    let texts = spec
        .pod_cidrs
        .or_else(|| spec.pod_cidr.map(|one| vec![one]));
    let mut prefixes = BTreeSet::new();
    for (at, text) in texts.unwrap_or_default().iter().enumerate() {
        let field = format!("spec.podCIDRs[{at}]");
        let prefix = prefix::parse(&field, text)?;
        if !ground.pod_cidrs.iter().any(|outer| outer.contains(&prefix)) {
            let rule = Rule::OutsideCluster {
                cluster: ground.name.clone(),
                prefixes: ground.pod_cidrs.clone(),
            };
            return Err(Fault::new(field, text, rule));
        }
        prefixes.insert(prefix);
    }
    Ok(Object::Node(prefixes.into_iter().collect()))
}

fn pod_object(
    labels: BTreeMap<String, String>,
    spec: Option<core::PodSpec>,
    status: Option<core::PodStatus>,
) -> Result<Object, Fault> {
    let spec = spec.unwrap_or_default();
    let status = status.unwrap_or_default();
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let attached = !ended && spec.host_network != Some(true);
    let mut addresses = BTreeSet::new();
    if attached {
        let listed = status.pod_ips.unwrap_or_default();
        let texts = listed.into_iter().map(|ip| ip.ip).chain(status.pod_ip);
        for text in texts {
            addresses.insert(address("status.podIPs", &text)?);
        }
    }
    let node = spec.node_name.unwrap_or_default();
    if !node.is_empty() && check_name(&node).is_err() {
        return Err(Fault::new("spec.nodeName", node, Rule::NodeName));
    }
    Ok(Object::Pod(Pod {
        node,
        attached,
        addresses: addresses.into_iter().collect(),
        labels: checked_labels(labels)?,
    }))
}

fn service_object(spec: Option<core::ServiceSpec>) -> Result<Object, Fault> {
    let spec = spec.unwrap_or_default();
    let kind = match (spec.type_.as_deref(), spec.cluster_ip.as_deref()) {
        (Some("ExternalName"), _) => None,
        (_, Some("None")) => Some(ServiceType::Headless),
        _ => Some(ServiceType::ClusterSetIp),
    };
    let mut ports = Vec::new();
    for (at, port) in spec.ports.unwrap_or_default().into_iter().enumerate() {
        let field = format!("spec.ports[{at}]");
        ports.push(ServicePort {
            protocol: protocol(&field, port.protocol.as_deref())?,
            port: port_number(&field, port.port)?,
            name: port_name(&field, port.name)?,
            app_protocol: port.app_protocol.unwrap_or_default(),
        });
    }
    let session_affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        // Kubernetes' default, 3 hours.
        let configured = spec
            .session_affinity_config
            .and_then(|config| config.client_ip);
        let seconds = configured.and_then(|client| client.timeout_seconds);
        seconds
            .and_then(|s| u32::try_from(s).ok())
            .unwrap_or(10_800)
    });
    Ok(Object::Service(Service {
        kind,
        ports,
        session_affinity,
    }))
}

fn slice_object(slice: discovery::EndpointSlice) -> (ObjectMeta, Result<Object, Fault>) {
    let labels = slice.metadata.labels.clone().unwrap_or_default();
    let service = labels.get("kubernetes.io/service-name").cloned();
    let object = slice_parts(service.unwrap_or_default(), slice.ports, slice.endpoints);
    (slice.metadata, object)
}

fn slice_parts(
    service: String,
    ports: Option<Vec<discovery::EndpointPort>>,
    endpoints: Option<Vec<discovery::Endpoint>>,
) -> Result<Object, Fault> {
    let mut own_ports = Vec::new();
    for (at, port) in ports.unwrap_or_default().into_iter().enumerate() {
        let field = format!("ports[{at}]");
        let Some(number) = port.port else { continue };
        own_ports.push(EndpointPort {
            protocol: protocol(&field, port.protocol.as_deref())?,
            port: port_number(&field, number)?,
            name: port_name(&field, port.name)?,
        });
    }
    let mut own_endpoints = Vec::new();
    for (at, endpoint) in endpoints.unwrap_or_default().into_iter().enumerate() {
        let field = format!("endpoints[{at}]");
        let addresses = endpoint.addresses.iter();
        let addresses = addresses.map(|text| address(&format!("{field}.addresses"), text));
        let conditions = endpoint.conditions.unwrap_or_default();
        // What is not said counts as ready, and as serving where it is ready (Kubernetes' API reference).
        let ready = conditions.ready.unwrap_or(true);
        let hostname = endpoint.hostname.unwrap_or_default();
        if !hostname.is_empty() && check_label(&hostname).is_err() {
            return Err(Fault::new(
                format!("{field}.hostname"),
                hostname,
                Rule::ClusterName,
            ));
        }
        let zone = endpoint.zone.unwrap_or_default();
        if zone.len() > 63 {
            return Err(Fault::new(format!("{field}.zone"), zone, Rule::NodeName));
        }
        let target = endpoint.target_ref;
        let pod = target.filter(|target| target.kind.as_deref() == Some("Pod"));
        let pod = pod.unwrap_or_default();
        own_endpoints.push(SliceEndpoint {
            pod: pod.name.unwrap_or_default(),
            pod_namespace: pod.namespace.unwrap_or_default(),
            addresses: addresses.collect::<Result<_, _>>()?,
            condition: Condition {
                ready,
                serving: conditions.serving.unwrap_or(ready),
                terminating: conditions.terminating.unwrap_or(false),
            },
            hostname,
            zone,
        });
    }
    Ok(Object::EndpointSlice(EndpointSlice {
        service,
        ports: own_ports,
        endpoints: own_endpoints,
    }))
}

fn address(field: &str, text: &str) -> Result<IpAddr, Fault> {
    text.parse()
        .map_err(|_| Fault::new(field, text, Rule::NotAddress))
}

fn port_number(field: &str, number: i32) -> Result<u16, Fault> {
    let port = u16::try_from(number).ok().filter(|port| *port != 0);
    port.ok_or_else(|| Fault::new(format!("{field}.port"), number, Rule::PortNumber))
}

fn port_name(field: &str, name: Option<String>) -> Result<String, Fault> {
    let name = name.unwrap_or_default();
    if !name.is_empty() && check_label(&name).is_err() {
        return Err(Fault::new(format!("{field}.name"), name, Rule::ClusterName));
    }
    Ok(name)
}

/// The protocol's number; TCP where nothing is said.
fn protocol(field: &str, text: Option<&str>) -> Result<u8, Fault> {
    match text {
        None | Some("" | "TCP") => Ok(6),
        Some("UDP") => Ok(17),
        Some("SCTP") => Ok(132),
        Some(other) => Err(Fault::new(
            format!("{field}.protocol"),
            other,
            Rule::Protocol,
        )),
    }
}
