//! The hubs of a lab's clusters: on the first nodes of each, with a CA, a state directory and manifests of the cluster's
//! own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use serde_json::json;

use super::manifests::{ClusterPeer, Manifests, PodManifest};
use super::node_config::{
    ClusterName, Clusterset, HubConfig, NodeConfig, NodeIdentity, NodeName, TunnelConfig, Underlay,
};
use super::pod::Pod;
use super::process::Process;
use super::record::Record;
use super::{Family, Lab, Node, binary};
use crate::io::Netns;

/// Where hubs listen, UDP.
pub const HUB_PORT: u16 = 6082;
/// Where agents derive keys with each other, UDP.
pub const KEY_PORT: u16 = 6083;
/// The name of every lab's clusterset.
pub(crate) const CLUSTERSET: &str = "lab";
/// The namespace of every pod.
pub const NAMESPACE: &str = "default";

/// One replica of a cluster's hub.
#[derive(Debug)]
pub struct Hub {
    cluster: String,
    /// Where it runs.
    node: String,
    netns: Netns,
    directory: PathBuf,
    process: Process,
}

impl Hub {
    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The node that it runs on.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Its hub.yaml.
    pub(super) fn config_path(&self) -> PathBuf {
        self.directory.join("hub.yaml")
    }

    /// The machine under it was made anew.
    pub(super) fn move_to(&mut self, netns: &Netns) {
        self.netns = netns.clone();
    }

    /// Starts it and waits for nothing.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self) -> Result<()> {
        let mut command = self.netns.command(binary("hawser")?);
        command.args(["hub", "--config"]).arg(self.config_path());
        self.process
            .start(command)
            .with_context(|| format!("hub on {}", self.node))
    }

    /// Kills it by SIGKILL.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(&mut self) -> Result<()> {
        self.process.end(Signal::SIGKILL)
    }

    /// Stops it by SIGTERM.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.process.end(Signal::SIGTERM)
    }

    /// Its process id, while it lives.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.process.pid()
    }

    /// Fails with its last words if it ended by itself.
    ///
    /// # Errors
    /// When it is dead.
    pub fn check(&self) -> Result<()> {
        self.process
            .check()
            .with_context(|| format!("hub on {}", self.node))
    }

    /// What it has logged so far, over all its runs.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log_text()
    }
}

impl Lab {
    /// Every replica of every cluster's hub.
    #[must_use]
    pub fn hubs(&self) -> &[Hub] {
        &self.hubs
    }

    /// The same, to start and stop them.
    #[must_use]
    pub fn hubs_mut(&mut self) -> &mut [Hub] {
        &mut self.hubs
    }

    /// The manifests of a cluster.
    ///
    /// # Errors
    /// When their directory cannot be made.
    pub fn manifests(&self, cluster: &str) -> Result<Manifests> {
        Manifests::new(cluster_directory(self, cluster).join("manifests"))
    }

    /// Where a cluster's hubs keep what they must not forget.
    #[must_use]
    pub fn state_directory(&self, cluster: &str) -> PathBuf {
        cluster_directory(self, cluster).join("state")
    }

    /// Where a cluster's CA is.
    #[must_use]
    pub fn authority(&self, cluster: &str) -> PathBuf {
        if self.topology().joining {
            return self.state_directory(cluster).join("ca");
        }
        cluster_directory(self, cluster).join("ca")
    }

    /// Makes manifests, and writes hub.yaml of every hub and node.yaml of every node. Of clusters that do not join, also
    /// CAs and certificates.
    pub(super) fn configure_hubs(&self) -> Result<()> {
        let joining = self.topology().joining;
        for cluster in &self.topology().clusters {
            let directory = cluster_directory(self, &cluster.name);
            fs::create_dir_all(&directory)
                .with_context(|| format!("failed to make {}", directory.display()))?;
            let ca = directory.join("ca");
            if !joining && !ca.exists() {
                let arguments = ["--cluster", &cluster.name, "--clusterset", CLUSTERSET];
                authority("init", &arguments, &ca, None)?;
                for node in self.nodes_of(&cluster.name) {
                    let out = Some(node.dir().join("tls"));
                    authority("node", &["--name", node.name()], &ca, out.as_deref())?;
                }
            }
        }
        for hub in &self.hubs {
            if joining {
                fs::create_dir_all(&hub.directory)
                    .with_context(|| format!("failed to make {}", hub.directory.display()))?;
            } else if !hub.directory.exists() {
                let ca = cluster_directory(self, &hub.cluster).join("ca");
                let out = hub.directory.join("tls");
                authority("hub", &["--name", &hub.node], &ca, Some(&out))?;
            }
            self.write_hub_config(hub)?;
        }
        for cluster in &self.topology().clusters {
            self.write_manifests(&cluster.name)?;
        }
        for node in self.nodes() {
            node.write_config(&self.learning_config(node))?;
        }
        Ok(())
    }

    fn nodes_of<'a>(&'a self, cluster: &'a str) -> impl Iterator<Item = &'a Node> {
        let nodes = self.nodes().iter();
        nodes.filter(move |node| node.cluster() == cluster)
    }

    /// Where the hubs of a cluster listen.
    fn hub_addresses(&self, cluster: &str) -> Vec<String> {
        let hubs = self.hubs.iter().filter(|hub| hub.cluster == cluster);
        hubs.map(|hub| {
            let underlay = self.node(&hub.node).endpoint().ip();
            SocketAddr::new(underlay, HUB_PORT).to_string()
        })
        .collect()
    }

    fn write_hub_config(&self, hub: &Hub) -> Result<()> {
        let topology = self.topology();
        let cluster = topology
            .clusters
            .iter()
            .find(|cluster| cluster.name == hub.cluster)
            .context("a hub without a cluster")?;
        let prefixes = Family::BOTH.map(|family| cluster.prefix(family));
        let shared = cluster_directory(self, &hub.cluster);
        let tls = hub.directory.join("tls");
        let mut config = json!({
            "name": hub.node,
            "cluster": { "name": cluster.name, "id": cluster.id },
            "clusterset": { "name": CLUSTERSET, "vni": 1 },
            "listen": format!("[::]:{HUB_PORT}"),
            "stateDirectory": self.state_directory(&hub.cluster),
            "source": format!("dir:{}", shared.join("manifests").display()),
            "podCidrs": prefixes.iter().flatten().collect::<Vec<_>>(),
            "hubs": self.hub_addresses(&hub.cluster),
        });
        if !topology.joining {
            config["tls"] = json!({
                "ca": shared.join("ca").join("ca.crt"),
                "certificate": tls.join("tls.crt"),
                "key": tls.join("tls.key"),
            });
        }
        let text = serde_saphyr::to_string(&config).context("failed to write hub.yaml")?;
        let path = hub.config_path();
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))
    }

    fn write_manifests(&self, cluster: &str) -> Result<()> {
        let manifests = self.manifests(cluster)?;
        manifests.namespace(NAMESPACE)?;
        for node in self.nodes_of(cluster) {
            let addresses = [node.endpoint().ip()];
            manifests.node(node.name(), node.pod_cidrs(), &addresses)?;
            for pod in node.pods() {
                manifests.pod(&manifest_of(pod))?;
            }
        }
        if self.topology().joining {
            return Ok(());
        }
        self.declare_others(cluster)
    }

    /// Has a cluster's manifests say that every other one is a member.
    ///
    /// # Errors
    /// When a CA cannot be read, or a manifest not be written.
    pub fn declare_others(&self, cluster: &str) -> Result<()> {
        let manifests = self.manifests(cluster)?;
        let others = self.topology().clusters.iter();
        for other in others.filter(|other| other.name != cluster) {
            let ca = self.authority(&other.name).join("ca.crt");
            let ca = fs::read_to_string(&ca)
                .with_context(|| format!("failed to read {}", ca.display()))?;
            manifests.cluster_peer(&ClusterPeer {
                name: other.name.clone(),
                id: other.id,
                prefixes: Family::BOTH
                    .into_iter()
                    .filter_map(|family| other.prefix(family))
                    .collect(),
                hubs: self.hub_addresses(&other.name),
                ca,
            })?;
        }
        Ok(())
    }

    /// The node.yaml of a node that learns everything from its hubs.
    #[must_use]
    pub fn learning_config(&self, node: &Node) -> NodeConfig {
        let shared = cluster_directory(self, node.cluster());
        let tls = node.dir().join("tls");
        NodeConfig {
            clusterset: Some(Clusterset { vni: 1 }),
            cluster: ClusterName {
                name: node.cluster().to_owned(),
                id: node.cluster_id().into(),
            },
            node: NodeName {
                name: node.name().to_owned(),
                index: None,
            },
            tunnel: TunnelConfig {
                socket: node.tunnel_socket(),
                device: "hawser0".to_owned(),
                checksums: None,
            },
            underlay: Underlay {
                devices: vec!["eth0".to_owned()],
            },
            hub: Some(HubConfig {
                addresses: self.hub_addresses(node.cluster()),
                identity: if self.topology().joining {
                    NodeIdentity::Token {
                        token: node.token_path(),
                    }
                } else {
                    NodeIdentity::Files {
                        ca: shared.join("ca").join("ca.crt"),
                        certificate: tls.join("tls.crt"),
                        key: tls.join("tls.key"),
                    }
                },
                endpoints: None,
                state_directory: Some(node.kept_dir()),
            }),
            post_quantum: None,
            pods: Vec::new(),
            endpoints: Vec::new(),
            clusters: Vec::new(),
            peers: Vec::new(),
            released_prefixes: Vec::new(),
        }
    }
}

/// The manifest of a lab's pod: the n-th pods of all nodes of a cluster are one workload.
#[must_use]
pub fn manifest_of(pod: &Pod) -> PodManifest {
    PodManifest {
        namespace: NAMESPACE.to_owned(),
        name: pod.name().to_owned(),
        node: pod.node().to_owned(),
        addresses: pod.addresses().to_vec(),
        app: pod.short_name().to_owned(),
    }
}

/// The hubs of a lab's topology.
pub(super) fn hubs(record: &Record, nodes: &[Node]) -> Vec<Hub> {
    let clusters = &record.topology.clusters;
    let replicas = |name: &str| {
        let found = clusters.iter().find(|cluster| cluster.name == name);
        found.map_or(0, |cluster| cluster.hubs)
    };
    let chosen = nodes.iter();
    chosen
        .filter(|node| node.index() <= replicas(node.cluster()))
        .map(|node| {
            let directory = Record::directory_of(&record.id).join(format!("hub-{}", node.name()));
            Hub {
                cluster: node.cluster().to_owned(),
                node: node.name().to_owned(),
                netns: node.netns().clone(),
                process: Process::new(&directory, "hub"),
                directory,
            }
        })
        .collect()
}

fn cluster_directory(lab: &Lab, cluster: &str) -> PathBuf {
    lab.dir().join(format!("cluster-{cluster}"))
}

fn authority(what: &str, arguments: &[&str], ca: &Path, out: Option<&Path>) -> Result<()> {
    let mut command = Command::new(binary("hawser")?);
    command
        .args(["ca", what])
        .args(arguments)
        .arg("--dir")
        .arg(ca);
    if let Some(out) = out {
        command.arg("--out").arg(out);
    }
    let output = command.output().context("failed to start hawser ca")?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("hawser ca {what}: {}", complaint.trim());
    }
    Ok(())
}
