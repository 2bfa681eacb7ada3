//! A cluster on this machine: its CA, its manifests, and hubs as processes.

use crate::mangle::resident;
use hawser_mesh::ca::{Ca, Issued, LEAF_LIFE, init};
use hawser_mesh::trust::{Credentials, Trust};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

pub(crate) const CLUSTERSET: &str = "set.example";
/// Longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Waits for a condition.
pub(crate) fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {LONG:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An address of the loopback that no other site of this machine has. A free port could be somebody else's by the time
/// that it is used.
fn own_address() -> Ipv4Addr {
    static SITES: AtomicU8 = AtomicU8::new(1);
    let site = SITES.fetch_add(1, Ordering::Relaxed);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high | 0x80, low, site)
}

/// A cluster, everything of it in a folder that goes with it.
pub(crate) struct Site {
    pub(crate) folder: TempDir,
    pub(crate) clusterset: &'static str,
    pub(crate) name: &'static str,
    pub(crate) number: u8,
    pub(crate) root: Issued,
    pub(crate) ca: Ca,
    /// Where its hubs listen.
    pub(crate) address: Ipv4Addr,
    pub(crate) ports: [u16; 2],
}

impl Site {
    pub(crate) fn new(name: &'static str, number: u8) -> Self {
        Self::of(CLUSTERSET, name, number)
    }

    /// Of a clusterset.
    pub(crate) fn of(clusterset: &'static str, name: &'static str, number: u8) -> Self {
        let root = init(clusterset, name, SystemTime::now()).unwrap();
        let ca = Ca::from_pem(&root.certificate, &root.key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let site = Self {
            folder,
            clusterset,
            name,
            number,
            root,
            ca,
            address: own_address(),
            ports: [6082, 6083],
        };
        fs::create_dir(site.path("manifests")).unwrap();
        fs::write(site.path("ca.crt"), &site.root.certificate).unwrap();
        for hub in 0..2 {
            let name = format!("hub-{}", hub + 1);
            let issued = site.ca.hub(&name, LEAF_LIFE, SystemTime::now()).unwrap();
            fs::write(site.path(&format!("{name}.crt")), &issued.certificate).unwrap();
            let key = site.path(&format!("{name}.key"));
            fs::write(&key, &*issued.key).unwrap();
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
            fs::write(site.config(hub), site.yaml(hub)).unwrap();
        }
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The configuration of a hub.
    pub(crate) fn config(&self, hub: usize) -> PathBuf {
        self.path(&format!("hub-{}.yaml", hub + 1))
    }

    pub(crate) fn yaml(&self, hub: usize) -> String {
        let (name, number, clusterset) = (self.name, self.number, self.clusterset);
        format!(
            "cluster: {{name: {name}, id: {number}}}\nclusterset: {{name: {clusterset}}}\n\
             podCidrs: [10.{number}.0.0/16]\nlisten: \"{}\"\nstateDirectory: {}\n\
             source: dir:manifests\ntls: {{ca: ca.crt, certificate: hub-{n}.crt, key: hub-{n}.key}}\n",
            self.address(hub),
            self.path("state").display(),
            n = hub + 1,
        )
    }

    /// Writes a manifest as careful people do: whole.
    pub(crate) fn manifest(&self, file: &str, text: &str) {
        let next = self.path("next");
        fs::write(&next, text).unwrap();
        fs::rename(next, self.path("manifests").join(file)).unwrap();
    }

    pub(crate) fn remove(&self, file: &str) {
        fs::remove_file(self.path("manifests").join(file)).unwrap();
    }

    /// Two nodes.
    pub(crate) fn nodes(&self) {
        let node = |n: u8| {
            format!(
                "apiVersion: v1\nkind: Node\nmetadata: {{name: n{n}}}\nspec: {{podCIDRs: [10.{}.{n}.0/24]}}\n",
                self.number
            )
        };
        self.manifest("nodes.yaml", &[node(1), node(2)].join("---\n"));
    }

    /// A pod on the first node.
    pub(crate) fn pod(&self, name: &str, app: &str, host: u8) {
        let number = self.number;
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {app}}}}}\n\
             spec: {{nodeName: n1, containers: []}}\nstatus: {{podIPs: [{{ip: 10.{number}.1.{host}}}]}}\n"
        );
        self.manifest(&format!("pod-{name}.yaml"), &text);
    }

    /// The service `shop/web`, exported, with a pod as its backend.
    pub(crate) fn service(&self, pod: &str, host: u8) {
        let number = self.number;
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\n\
             spec: {{ports: [{{port: 80}}]}}\n---\n\
             apiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceExport\n\
             metadata: {{name: web, namespace: shop}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: web-1, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}\n\
             addressType: IPv4\nports: [{{port: 80}}]\nendpoints:\n\
             - {{addresses: [10.{number}.1.{host}], targetRef: {{kind: Pod, name: {pod}}}}}\n"
        );
        self.manifest("service.yaml", &text);
    }

    /// Makes another cluster known here.
    pub(crate) fn knows(&self, other: &Self) {
        let ca = other.root.certificate.replace('\n', "\n    ");
        let hubs = [0, 1].map(|hub| format!("\"{}\"", other.address(hub)));
        let text = format!(
            "apiVersion: hawser.io/v1alpha1\nkind: ClusterPeer\nmetadata: {{name: {}}}\nspec:\n  clusterId: {}\n  \
             podCidrs: [10.{}.0.0/16]\n  hubs: [{}]\n  ca: |\n    {ca}\n",
            other.name,
            other.number,
            other.number,
            hubs.join(", "),
        );
        self.manifest(&format!("peer-{}.yaml", other.name), &text);
    }

    pub(crate) fn node_credentials(&self, node: &str) -> Credentials {
        let issued = self.ca.node(node, LEAF_LIFE, SystemTime::now()).unwrap();
        Credentials::from_pem(&issued.certificate, &issued.key).unwrap()
    }

    pub(crate) fn trust(&self) -> Trust {
        let mut trust = Trust::new(CLUSTERSET);
        trust.set(self.name, &self.root.certificate).unwrap();
        trust
    }

    pub(crate) fn address(&self, hub: usize) -> SocketAddr {
        SocketAddr::from((self.address, self.ports[hub]))
    }

    /// Starts a hub, and waits until it serves.
    pub(crate) fn start(&self, hub: usize) -> Hub {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path(&format!("hub-{}.log", hub + 1)))
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_hawser"))
            .args(["hub", "--config"])
            .arg(self.config(hub))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let name = format!("state/hub-hub-{}-{}.sock", hub + 1, self.ports[hub]);
        let socket = self.path(&name);
        let hub = Hub {
            child,
            socket,
            log: self.path(&format!("hub-{}.log", hub + 1)),
        };
        until("the hub serves", || hub.try_status());
        hub
    }
}

/// Runs `hawser hub` to its end.
pub(crate) fn hawser_hub(config: &Path, more: &[&str]) -> Output {
    let hub = Command::new(env!("CARGO_BIN_EXE_hawser"))
        .args(["hub", "--config"])
        .arg(config)
        .args(more)
        .output();
    hub.unwrap()
}

/// A hub that runs; killed with this.
pub(crate) struct Hub {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Hub {
    pub(crate) fn try_status(&self) -> Option<Value> {
        self.ask("{\"status\":{}}\n")
    }

    /// The digest of each cluster's public records.
    pub(crate) fn digests(&self) -> BTreeMap<u64, String> {
        let status = self.ask("{\"status\":{\"digest\":true}}\n").unwrap();
        let origins = status["origins"].as_array().unwrap();
        let digest = |origin: &Value| {
            let digest = origin["digest"].as_str().unwrap().to_owned();
            (origin["cluster"].as_u64().unwrap(), digest)
        };
        origins.iter().map(digest).collect()
    }

    fn ask(&self, question: &str) -> Option<Value> {
        let stream = UnixStream::connect(&self.socket).ok()?;
        stream.set_read_timeout(Some(LONG)).unwrap();
        (&stream).write_all(question.as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    pub(crate) fn status(&self) -> Value {
        self.try_status()
            .unwrap_or_else(|| panic!("no status:\n{}", self.log()))
    }

    /// Bytes of its process that are resident.
    pub(crate) fn resident(&self) -> u64 {
        resident(&self.child.id().to_string())
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What its status says of a cluster.
    pub(crate) fn origin(&self, cluster: u8) -> Option<Value> {
        let status = self.try_status()?;
        let origins = status["origins"].as_array()?.clone();
        origins
            .into_iter()
            .find(|origin| origin["cluster"] == json!(cluster))
    }

    /// Waits until a status fits.
    pub(crate) fn until(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + LONG;
        loop {
            let status = self.try_status();
            if let Some(status) = status.clone().filter(|status| fits(status)) {
                return status;
            }
            let late = Instant::now() >= deadline;
            assert!(
                !late,
                "{what}: not within {LONG:?}: {status:?}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// As a crash does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits.
    pub(crate) fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
        let status = until("the hub ends", || self.child.try_wait().unwrap());
        assert!(status.success(), "{}", self.log());
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
