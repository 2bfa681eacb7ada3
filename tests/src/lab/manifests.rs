//! A cluster's manifests, as its hub reads them: a directory in which every object has a file of its own.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use serde_json::{Value, json};

/// The directory of one cluster.
#[derive(Clone, Debug)]
pub struct Manifests {
    directory: PathBuf,
}

/// What another cluster is told to be, and where its hubs are.
#[derive(Clone, Debug)]
pub struct ClusterPeer {
    /// Its name.
    pub name: String,
    /// Its cluster ID.
    pub id: u16,
    /// The prefixes of all its pods.
    pub prefixes: Vec<IpNet>,
    /// Where its hubs listen.
    pub hubs: Vec<String>,
    /// Its CA's certificate, as PEM.
    pub ca: String,
}

/// A pod.
#[derive(Clone, Debug)]
pub struct PodManifest {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where it runs.
    pub node: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its label `app`, which gives it its identity.
    pub app: String,
}

impl Manifests {
    /// Makes the directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(directory: PathBuf) -> Result<Self> {
        fs::create_dir_all(&directory)
            .with_context(|| format!("failed to make {}", directory.display()))?;
        Ok(Self { directory })
    }

    /// Where the files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A namespace.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn namespace(&self, name: &str) -> Result<()> {
        let object =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        self.write(&format!("namespace-{name}"), &object)
    }

    /// A node with its pod CIDRs.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn node(&self, name: &str, cidrs: &[IpNet], addresses: &[IpAddr]) -> Result<()> {
        let addresses = addresses
            .iter()
            .map(|address| json!({ "type": "InternalIP", "address": address }));
        let object = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": name },
            "spec": { "podCIDR": cidrs.first(), "podCIDRs": cidrs },
            "status": { "addresses": addresses.collect::<Vec<_>>() },
        });
        self.write(&format!("node-{name}"), &object)
    }

    /// A running pod.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn pod(&self, pod: &PodManifest) -> Result<()> {
        let addresses = pod.addresses.iter().map(|address| json!({ "ip": address }));
        let object = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "namespace": pod.namespace, "name": pod.name, "labels": { "app": pod.app } },
            "spec": { "nodeName": pod.node, "containers": [{ "name": "main", "image": "example.org/main" }] },
            "status": {
                "phase": "Running",
                "podIP": pod.addresses.first(),
                "podIPs": addresses.collect::<Vec<_>>(),
                "conditions": [{ "type": "Ready", "status": "True" }],
            },
        });
        self.write(&format!("pod-{}-{}", pod.namespace, pod.name), &object)
    }

    /// A pod goes.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn remove_pod(&self, namespace: &str, name: &str) -> Result<()> {
        self.remove(&format!("pod-{namespace}-{name}"))
    }

    /// Another cluster.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn cluster_peer(&self, peer: &ClusterPeer) -> Result<()> {
        let object = json!({
            "apiVersion": "hawser.io/v1alpha1",
            "kind": "ClusterPeer",
            "metadata": { "name": peer.name },
            "spec": {
                "clusterId": peer.id,
                "podCidrs": peer.prefixes,
                "hubs": peer.hubs,
                "ca": peer.ca,
            },
        });
        self.write(&format!("clusterpeer-{}", peer.name), &object)
    }

    /// Another cluster leaves.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn remove_cluster_peer(&self, name: &str) -> Result<()> {
        self.remove(&format!("clusterpeer-{name}"))
    }

    /// An exported service with these backends: `Service`, `ServiceExport` and one `EndpointSlice`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn exported_service(
        &self,
        namespace: &str,
        name: &str,
        port: u16,
        backends: &[PodManifest],
    ) -> Result<()> {
        let metadata = json!({ "namespace": namespace, "name": name });
        let endpoints = backends.iter().map(|pod| {
            json!({
                "addresses": [pod.addresses.first()],
                "conditions": { "ready": true, "serving": true, "terminating": false },
                "nodeName": pod.node,
                "targetRef": { "kind": "Pod", "namespace": pod.namespace, "name": pod.name },
            })
        });
        let objects = [
            json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": metadata,
                "spec": {
                    "type": "ClusterIP",
                    "selector": { "app": name },
                    "ports": [{ "name": "main", "protocol": "TCP", "port": port }],
                },
            }),
            json!({
                "apiVersion": "multicluster.x-k8s.io/v1alpha1",
                "kind": "ServiceExport",
                "metadata": metadata,
            }),
            json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "namespace": namespace,
                    "name": format!("{name}-1"),
                    "labels": { "kubernetes.io/service-name": name },
                },
                "addressType": "IPv4",
                "endpoints": endpoints.collect::<Vec<_>>(),
                "ports": [{ "name": "main", "protocol": "TCP", "port": port }],
            }),
        ];
        let kinds = ["service", "serviceexport", "endpointslice"];
        for (kind, object) in kinds.iter().zip(&objects) {
            self.write(&format!("{kind}-{namespace}-{name}"), object)?;
        }
        Ok(())
    }

    fn write(&self, name: &str, object: &Value) -> Result<()> {
        let text = serde_saphyr::to_string(object).context("failed to write a manifest")?;
        let path = self.directory.join(format!("{name}.yaml"));
        // In one step, as anybody should who writes what others watch.
        let draft = self.directory.join(format!(".{name}.new"));
        fs::write(&draft, text).with_context(|| format!("failed to write {}", draft.display()))?;
        fs::rename(&draft, &path).with_context(|| format!("failed to write {}", path.display()))
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.directory.join(format!("{name}.yaml"));
        fs::remove_file(&path).with_context(|| format!("failed to remove {}", path.display()))
    }
}
