//! A node that comes with a token, and a real hub that is its cluster's CA.

use crate::from_hub::status;
use crate::ground::{Ground, complaint, show, until, within};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

const HUB_YAML: &str = "cluster: { name: east, id: 1 }
clusterset: { name: set.example }
podCidrs: [10.1.0.0/16]
listen: '192.0.2.1:6082'
hubs: ['192.0.2.1:6082']
name: hub-1
source: dir:manifests
";
const NODES: &str = "apiVersion: v1
kind: Node
metadata: { name: east-1 }
spec: { podCIDRs: [10.1.1.0/24] }
---
apiVersion: v1
kind: Node
metadata: { name: east-2 }
spec: { podCIDRs: [10.1.2.0/24] }
";
const NODE_YAML: &str = "cluster: { name: east }
node: { name: east-1 }
tunnel: { socket: SOCKET }
underlay: { devices: [eth0] }
hub: { addresses: ['192.0.2.1:6082'], token: node.token, stateDirectory: STATE }
";
/// Longer than the longest wait between two attempts.
const LONG: Duration = Duration::from_secs(90);

/// A hub as a process; killed with this.
struct Hub(Child);

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Scene {
    ground: Ground,
}

impl Scene {
    fn new(more: &str) -> Self {
        let ground = Ground::new();
        ground.add_tap();
        let scene = Self { ground };
        fs::create_dir(scene.path("manifests")).unwrap();
        fs::write(scene.path("manifests/nodes.yaml"), NODES).unwrap();
        let state = show(&scene.path("hub-state"));
        let text = format!("{HUB_YAML}stateDirectory: {state}\n{more}");
        fs::write(scene.path("hub.yaml"), text).unwrap();
        let state = show(&scene.path("state"));
        scene.ground.configure(&NODE_YAML.replace("STATE", &state));
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.ground.folder.path().join(name)
    }

    fn hub(&self) -> Hub {
        let mut command = self
            .ground
            .hawser(&["hub", "--config", &show(&self.path("hub.yaml"))]);
        let log = fs::File::create(self.path("hub.log")).unwrap();
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let hub = Hub(child);
        until("the hub serves", || {
            fs::read_to_string(self.path("hub.log"))
                .unwrap()
                .contains("serving")
        });
        hub
    }

    fn token(&self, node: &str) -> String {
        let config = show(&self.path("hub.yaml"));
        let output = self
            .ground
            .hawser(&["node-token", "--config", &config, node])
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn give(&self, token: &str) {
        let path = self.path("node.token");
        fs::write(&path, token).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn certificate(&self) -> Option<String> {
        fs::read_to_string(self.path("state/identity/node.crt")).ok()
    }

    fn is_connected(&self) -> bool {
        status(&self.ground).is_some_and(|status| status.hub.connected)
    }
}

#[test]
fn a_node_enrols_by_its_token_and_comes_up_again_without_hub_and_without_token() {
    let scene = Scene::new("");
    let hub = scene.hub();
    scene.give(&scene.token("east-1"));
    let agent = scene.ground.start_agent();
    until("the node is connected", || scene.is_connected());
    let known = || status(&scene.ground).map_or(0, |status| status.origins.len());
    until("its hub told it of its cluster", || known() == 1);
    for file in fs::read_dir(scene.path("state/identity")).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }
    assert!(!agent.log().contains("hawser-node."));
    let first = scene.certificate().unwrap();
    assert!(agent.stop().success());

    // The hub is dead and the token used up, and nobody waits for either.
    drop(hub);
    let agent = scene.ground.start_agent();
    until("what was heard is there", || known() == 1);
    agent.says("begins with what was kept");
    assert!(!scene.is_connected());
    assert_eq!(scene.certificate().as_ref(), Some(&first));
    assert!(agent.stop().success());

    // Nor is the token missed once it is gone.
    fs::remove_file(scene.path("node.token")).unwrap();
    let _agent = scene.ground.start_agent();
    let _hub = scene.hub();
    within(LONG, "the node is connected again", || scene.is_connected());
    assert_eq!(scene.certificate(), Some(first));
}

#[test]
fn a_certificate_is_renewed_at_half_of_its_life_and_the_connection_stays() {
    let scene = Scene::new("nodeCertificateSeconds: 10\n");
    let _hub = scene.hub();
    scene.give(&scene.token("east-1"));
    let agent = scene.ground.start_agent();
    until("the node is connected", || scene.is_connected());
    let key = || fs::read(scene.path("state/identity/node.key")).unwrap();
    let made = key();
    let mut seen = scene.certificate().unwrap();
    for _ in 0..2 {
        within(LONG, "the next certificate", || {
            scene.certificate().is_some_and(|next| next != seen)
        });
        seen = scene.certificate().unwrap();
    }
    assert_eq!(key(), made);
    let status = status(&scene.ground).unwrap();
    assert!(
        status.hub.connected && status.hub.sessions == 1,
        "{status:?}"
    );
    assert!(
        !agent.log().contains("token_"),
        "renewed by the certificate"
    );
}

#[test]
fn a_token_that_is_not_good_is_told_in_a_line_and_another_one_helps() {
    let scene = Scene::new("");
    let _hub = scene.hub();
    let used = scene.token("east-1");
    scene.give(&used);
    let agent = scene.ground.start_agent();
    until("the node is connected", || scene.is_connected());
    assert!(agent.stop().success());
    // The node's disk is another one, and so is its key.
    fs::remove_dir_all(scene.path("state")).unwrap();
    let agent = scene.ground.start_agent();
    agent.says("token_used");
    let log = agent.log();
    let line = log
        .lines()
        .find(|line| line.contains("token_used"))
        .unwrap();
    assert!(
        line.contains("the token was used already, by another key"),
        "{line}"
    );
    let failures = status(&scene.ground).unwrap().hub.failures;
    assert!(
        failures.iter().any(|why| why.contains("token_used")),
        "{failures:?}"
    );
    scene.give(&scene.token("east-1"));
    within(LONG, "the node is connected", || scene.is_connected());
    assert!(!log.contains(used.trim()));
}

#[test]
fn a_node_that_was_off_when_the_ca_of_its_certificate_went_comes_back_by_another_token() {
    let scene = Scene::new("");
    let _hub = scene.hub();
    scene.give(&scene.token("east-1"));
    let agent = scene.ground.start_agent();
    until("the node is connected", || scene.is_connected());
    let first = scene.certificate();
    assert!(agent.stop().success());
    let state = show(&scene.path("hub-state"));
    for word in ["roll", "retire"] {
        let done = scene.ground.hawser(&["ca", word, "--hub", &state]).output();
        let done = done.unwrap();
        assert!(done.status.success(), "{done:?}");
    }
    let agent = scene.ground.start_agent();
    let told = || status(&scene.ground).map_or_else(Vec::new, |status| status.hub.failures);
    within(LONG, "it is told why", || {
        told().iter().any(|why| why.contains("issuer_unknown"))
    });
    assert!(!scene.is_connected());
    assert_eq!(scene.certificate(), first);
    scene.give(&scene.token("east-1"));
    within(LONG, "the node is connected again", || scene.is_connected());
    let next = scene.certificate().unwrap();
    assert_eq!(next.matches("BEGIN CERTIFICATE").count(), 2, "with a link");
    assert!(!agent.log().contains("hawser-node."));
}

#[test]
fn a_node_whose_token_is_none_of_its_own_does_not_start() {
    let scene = Scene::new("");
    let file = show(&scene.ground.config());
    let path = show(&scene.path("node.token"));
    let told = || {
        let line = complaint(&scene.ground.agent_that_ends());
        let start = format!("error: {file}: hub.token: {path}: ");
        assert!(line.starts_with(&start), "{line}");
        line[start.len()..].to_owned()
    };
    assert!(told().starts_with("cannot be read: No such file or directory"));
    scene.give("\u{201c}hawser-node.abc\u{201d}");
    assert!(told().starts_with("token: has a typographic quote at character 1;"));
    let hub = scene.hub();
    scene.give(&scene.token("east-2"));
    assert_eq!(
        told(),
        "is for cluster/east/node/east-2; must be for cluster/east/node/east-1: have it made with `hawser node-token`"
    );
    scene.give(&scene.token("east-1"));
    fs::set_permissions(scene.path("node.token"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(told().starts_with("has mode 0644"));
    drop(hub);
}
