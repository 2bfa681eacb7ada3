//! The `hub` section: what it makes optional, and every way to spoil it.

use super::*;
use crate::config::{EndpointsWanted, HubConfig, NodeIdentity};
use crate::psk::PostQuantum;

const HUB: &str = "cluster: { name: east }
node: { name: east-1 }
underlay: { devices: [eth0], address: 192.0.2.1 }
hub:
  addresses: [hub-1.example:6082, '192.0.2.1:6082', '[2001:db8::1]:6082']
  ca: tls/ca.crt
  certificate: /etc/hawser/node.crt
  key: tls/node.key
";

fn hub(text: &str) -> HubConfig {
    let config = NodeConfig::parse(text, Path::new("/etc/hawser/node.yaml")).unwrap();
    config.hub.unwrap()
}

#[test]
fn a_node_with_a_hub_says_its_name_and_where_to_ask() {
    let config = parse(HUB).unwrap();
    assert_eq!((config.node, config.cluster_id), (None, None));
    assert_eq!(config.state(), None, "nobody has told who it is");
    let hub = hub(HUB);
    let addresses: Vec<String> = hub.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(
        addresses,
        ["hub-1.example:6082", "192.0.2.1:6082", "[2001:db8::1]:6082"]
    );
    let files = NodeIdentity::Files {
        ca: PathBuf::from("/etc/hawser/tls/ca.crt"),
        certificate: PathBuf::from("/etc/hawser/node.crt"),
        key: PathBuf::from("/etc/hawser/tls/node.key"),
    };
    assert_eq!(hub.identity, files);
    assert_eq!(hub.endpoints, EndpointsWanted::Used);
    assert_eq!(hub.state_directory, Path::new("/var/lib/hawser/agent"));
    assert_eq!(hub.key_port, 6083);
    assert_eq!(config.post_quantum, PostQuantum::Preferred);
}

#[test]
fn a_token_takes_the_place_of_the_certificates() {
    let (before, _) = HUB.split_once("  ca:").unwrap();
    let hub = hub(&format!("{before}  token: node.token\n"));
    assert_eq!(
        hub.identity.token(),
        Some(Path::new("/etc/hawser/node.token"))
    );
}

#[test]
fn static_peers_may_stand_beside_a_hub() {
    let section = HUB.split_once("hub:").unwrap().1;
    let config = parse(&format!("{GOOD}hub:{section}  endpoints: all\n")).unwrap();
    assert_eq!(config.state().unwrap().peers.len(), 2);
    assert_eq!(config.hub.unwrap().endpoints, EndpointsWanted::All);
}

#[test]
fn every_bad_field_of_the_section_has_its_line() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "hub:\n",
            "hub:\n  keyPort: 0\n",
            "hub.keyPort: 0: must be 1 to 65535; choose another",
        ),
        (
            "[hub-1.example:6082,",
            "[hub-1.example,",
            "hub.addresses[0]: hub-1.example: must be HOST:PORT, as in hub.example.org:6082, 192.0.2.1:6082 or [2001:db8::1]:6082; correct it",
        ),
        (
            "hub-1.example:6082",
            "hub-1.example:0",
            "hub.addresses[0]: hub-1.example:0: must have a port from 1 to 65535; write HOST:PORT",
        ),
        (
            "hub-1.example:6082",
            "10.0.0:6082",
            "hub.addresses[0]: 10.0.0:6082: must be HOST:PORT, as in hub.example.org:6082, 192.0.2.1:6082 or [2001:db8::1]:6082; correct it",
        ),
        (
            "192.0.2.1:6082",
            "0.0.0.0:6082",
            "hub.addresses[1]: 0.0.0.0:6082: is no node's address; write the address by which the peer is reached",
        ),
        (
            "hub-1.example:6082",
            "192.0.2.1:6082",
            "hub.addresses[1]: 192.0.2.1:6082: is listed twice; remove one",
        ),
        (
            "[hub-1.example:6082, '192.0.2.1:6082', '[2001:db8::1]:6082']",
            "[]",
            "hub.addresses: []: must name at least one hub; add one as HOST:PORT",
        ),
        (
            "key: tls/node.key",
            "key: tls/node.key\n  endpoints: none",
            "hub.endpoints: none: must be used or all; leave it out for used",
        ),
        (
            "key: tls/node.key",
            "key: tls/node.key\n  stateDirectory: state",
            "hub.stateDirectory: state: must be an absolute path; start it with /",
        ),
        (
            "  key: tls/node.key\n",
            "",
            "hub.key: (empty): must be there unless hub.token is; add it, or a token from `hawser node-token`",
        ),
        (
            "key: tls/node.key",
            "key: tls/node.key\n  token: node.token",
            "hub.ca: tls/ca.crt: must not stand beside hub.token, which brings it; remove one of them",
        ),
        (
            "  ca: tls",
            "  certificat: x\n  ca: tls",
            "line 6, column 3: unknown field certificat; did you mean certificate?",
        ),
        (
            "address: 192.0.2.1 }",
            "address: 127.0.0.1 }",
            "underlay.address: 127.0.0.1: is no node's address; write the address by which the peer is reached",
        ),
        (
            "address: 192.0.2.1 }",
            "address: eth0 }",
            "underlay.address: eth0: must be an IP address, as in 10.1.1.1 or fd01:1:1::1; correct it",
        ),
        (
            "node: { name: east-1 }",
            "node: { name: east-1, index: 0 }",
            "node.index: 0: must be 1 to 65534; choose another",
        ),
    ];
    for (from, to, line) in cases {
        assert!(HUB.contains(from), "{from}");
        let said = parse(&HUB.replacen(from, to, 1)).map(|_| ());
        let said = said.map_err(|error| error.to_string());
        assert_eq!(said, Err(format!("node.yaml: {line}")), "{to}");
    }
}

#[test]
fn without_a_hub_the_file_must_say_all() {
    let (alone, _) = GOOD.split_once("clusters:").unwrap();
    let needed = "(empty): must be there unless a hub tells it; add it, or a hub section";
    for (text, field) in [
        (alone.to_owned(), "clusters"),
        (
            spoilt("name: east-1, index: 1", "name: east-1"),
            "node.index",
        ),
        (
            spoilt("cluster: { name: east, id: 1 }", "cluster: { name: east }"),
            "cluster.id",
        ),
    ] {
        let line = parse(&text).unwrap_err().to_string();
        assert_eq!(line, format!("node.yaml: {field}: {needed}"));
    }
}

#[test]
fn who_a_node_is_and_where_it_keeps_state_need_a_restart() {
    let running = parse(HUB).unwrap();
    let next = parse(&HUB.replace("name: east-1", "name: east-2")).unwrap();
    assert_eq!(
        running.check_reload(&next).unwrap_err().to_string(),
        "node.name: east-2 of east: cannot change while the agent runs (it is east-1 of east); restart the agent"
    );
    let next = parse(&format!("{HUB}  stateDirectory: /srv/hawser\n")).unwrap();
    assert_eq!(
        running.check_reload(&next).unwrap_err().to_string(),
        "hub.stateDirectory: /srv/hawser: cannot change while the agent runs (it is /var/lib/hawser/agent); restart the agent"
    );
    let more = HUB.replace("[hub-1.example:6082", "[hub-9.example:6082");
    assert_eq!(running.check_reload(&parse(&more).unwrap()), Ok(()));
}
