//! One good file, and every way to spoil it with the whole line that is said about it.

use super::*;
use std::os::unix::fs::PermissionsExt as _;

mod fields;
mod hub;

const KEY_1: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const KEY_2: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

const GOOD: &str = r#"clusterset: { vni: 7 }
cluster: { name: east, id: 1 }
node: { name: east-1, index: 1 }
tunnel: { socket: /run/hawser/tunnel.sock, device: hawser0 }
underlay: { devices: [eth0] }
pods:
  - { cidr: 10.1.1.0/24, router: 10.1.1.1 }
  - { cidr: "fd01:1:1::/64", router: "fd01:1:1::1" }
endpoints:
  - { name: default/a, addresses: [10.1.1.10, "fd01:1:1::10"], identity: 1001 }
  - { name: default/b, addresses: [10.1.1.11], identity: 1002 }
clusters:
  - { name: east, id: 1, prefixes: [10.1.0.0/16, "fd01:1::/32"], identities: [1001, 1002] }
  - { name: west, id: 2, prefixes: [10.2.0.0/16, "fd01:2::/32"], identities: [2001] }
peers:
  - name: west-1
    cluster: west
    index: 1
    prefixes: [10.2.1.0/24, "fd01:2:1::/64"]
    lanes: [ { publicKey: "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", endpoint: "192.0.2.11:51820" } ]
  - name: west-2
    cluster: west
    index: 2
    prefixes: [10.2.2.0/24]
    lanes: [ { publicKey: "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=", endpoint: "[2001:db8::12]:51820" } ]
    foreign: { identity: 3 }
releasedPrefixes: [10.9.0.0/16]
"#;

fn parse(text: &str) -> Result<NodeConfig, ConfigError> {
    NodeConfig::parse(text, Path::new("node.yaml"))
}

/// The good file with its one occurrence of `from` replaced.
fn spoilt(from: &str, to: &str) -> String {
    assert_eq!(GOOD.matches(from).count(), 1, "{from} must be there once");
    GOOD.replacen(from, to, 1)
}

/// Spoils the good file in each way and compares the whole lines; all that differ are shown.
fn assert_lines(cases: &[(&str, &str, &str)]) {
    let said = |(from, to, _): &(&str, &str, &str)| match parse(&spoilt(from, to)) {
        Ok(_) => "was taken".to_owned(),
        Err(error) => error.to_string(),
    };
    let said: Vec<String> = cases.iter().map(said).collect();
    let wanted: Vec<String> = cases
        .iter()
        .map(|(_, _, line)| format!("node.yaml: {line}"))
        .collect();
    let differ: Vec<_> = said
        .iter()
        .zip(&wanted)
        .filter(|(said, wanted)| said != wanted)
        .collect();
    assert!(differ.is_empty(), "said and wanted: {differ:#?}");
}

#[test]
fn the_good_file_becomes_the_state_of_the_data_plane() {
    let config = parse(GOOD).unwrap();
    let state = config.state().unwrap();
    assert_eq!(state.node.to_string(), "1/1");
    assert_eq!(u32::from(state.vni), 7);
    assert_eq!(
        state.endpoints.len(),
        5,
        "three pod addresses and two routers"
    );
    let host = state.endpoints[&"10.1.1.1".parse::<IpAddr>().unwrap()];
    assert_eq!(host, hawser_tunnel::identity::Identity::HOST);
    assert_eq!(state.guard.mesh.len(), 4);
    assert_eq!(state.guard.local.len(), 2);
    assert_eq!(state.peers.len(), 2);
    assert_eq!(
        config.routers[&"10.1.1.0/24".parse::<IpNet>().unwrap()].to_string(),
        "10.1.1.1"
    );
    assert!(config.uses_ipv6());
}

#[test]
fn a_peer_is_watched_where_the_file_says_so() {
    for (field, watched) in [
        ("watched: true", true),
        ("watched: false", false),
        ("", false),
    ] {
        let text = spoilt("foreign: { identity: 3 }", field);
        let state = parse(&text).unwrap().statics;
        let peers: Vec<bool> = state.peers.values().map(|peer| peer.watched).collect();
        assert_eq!(peers, [false, watched], "{field}");
    }
}

#[test]
fn what_may_be_left_out() {
    let text = "cluster: {name: east, id: 1}\nnode: {name: east-1, index: 1}\nunderlay: {devices: [eth0]}\n\
                clusters: [{name: east, id: 1, prefixes: [10.1.0.0/16]}]\npeers:\nendpoints: []\n";
    let config = parse(text).unwrap();
    assert_eq!(config.socket, Path::new(DEFAULT_SOCKET));
    assert_eq!(config.device(), DEFAULT_DEVICE);
    assert!(config.statics.peers.is_empty());
    assert!(!config.uses_ipv6());
}

#[test]
fn every_bad_form_has_its_line() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "router: 10.1.1.1 }",
            "ruoter: 10.1.1.1 }",
            "line 7, column 26: unknown field ruoter; did you mean router?",
        ),
        (
            "vni: 7",
            "colour: red",
            "line 1, column 15: unknown field colour; known are vni",
        ),
        (
            "    index: 2\n",
            "",
            "line 25, column 5: field index is missing; add it",
        ),
        (
            "name: east-1, index: 1",
            "name: east-1, name: east-1",
            "line 3, column 23: field name is there twice; remove one",
        ),
        (
            "devices: [eth0]",
            "devices: eth0",
            "line 5, column 22: must be a list; put it in [ ]",
        ),
        (
            "name: east-1, index: 1",
            "name: east-1, index: [1]",
            "line 3, column 30: must be one value, neither a list nor a map; correct it",
        ),
        (
            "name: east-1, index: 1",
            "name: ~, index: 1",
            "line 3, column 15: a value is missing; add it",
        ),
        (
            "[10.9.0.0/16]",
            "[10.9.0.0/16",
            "line 27, column 19: unclosed bracket '['; correct it",
        ),
        (
            "node: {",
            "\tnode: {",
            "line 3, column 2: while parsing a block mapping, did not find expected key; correct it",
        ),
    ];
    assert_lines(cases);
    assert_eq!(
        parse("").unwrap_err().to_string(),
        "node.yaml: line 1, column 1: the file ends too early; write the rest"
    );
    assert_eq!(
        parse("- a\n").unwrap_err().to_string(),
        "node.yaml: line 1, column 1: must be a map; write it as { field: value }"
    );
}

#[test]
fn files_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.yaml");
    let shown = path.display().to_string();
    let line = |path: &Path| NodeConfig::load(path).unwrap_err().to_string();
    assert_eq!(
        line(&path),
        format!(
            "{shown}: cannot be read: No such file or directory; correct the path or the permissions"
        )
    );
    std::fs::File::create(&path)
        .unwrap()
        .set_len(MAX_FILE + 1)
        .unwrap();
    assert_eq!(
        line(&path),
        format!(
            "{shown}: has 8388609 bytes; must be at most 8388608; split the mesh or shorten the file"
        )
    );
    std::fs::write(&path, b"cluster: \xff\xfe").unwrap();
    assert_eq!(
        line(&path),
        format!(
            "{shown}: cannot be read: stream did not contain valid UTF-8; correct the path or the permissions"
        )
    );
    std::fs::write(&path, GOOD).unwrap();
    assert_eq!(NodeConfig::load(&path).unwrap(), parse(GOOD).unwrap());
}

#[test]
fn a_preshared_key_lies_in_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("west.psk");
    let from = "endpoint: \"192.0.2.11:51820\"";
    let text = spoilt(from, &format!("{from}, presharedKeyFile: west.psk"));
    let parse = || NodeConfig::parse(&text, &folder.path().join("node.yaml"));
    let line = || {
        let text = parse().unwrap_err().to_string();
        text.split_once("presharedKeyFile: west.psk: ")
            .unwrap()
            .1
            .to_owned()
    };
    assert_eq!(
        line(),
        "cannot be read: No such file or directory; correct the path or write the key there"
    );
    std::fs::create_dir(&secret).unwrap();
    assert_eq!(line(), "is not a file; name the file that holds the key");
    std::fs::remove_dir(&secret).unwrap();
    std::fs::write(&secret, KEY_1).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(
        line(),
        "can be read by others (mode 0644); run chmod 600 on it"
    );
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = parse().unwrap();
    assert!(
        config.statics.peers.values().next().unwrap().lanes[0]
            .preshared_key
            .is_some()
    );
    for content in ["", "AQEB", "\u{0}", &KEY_1.repeat(20)] {
        std::fs::write(&secret, content).unwrap();
        assert_eq!(
            line(),
            "must hold 32 bytes in base64, as `wg genpsk` prints; write it again"
        );
    }
}

#[test]
fn a_running_agent_keeps_its_socket_and_device() {
    let running = parse(GOOD).unwrap();
    let next = parse(&spoilt("device: hawser0", "device: hawser1")).unwrap();
    assert_eq!(
        running.check_reload(&next).unwrap_err().to_string(),
        "tunnel.device: hawser1: cannot change while the agent runs (it is hawser0); restart the agent"
    );
    let next = parse(&spoilt("/run/hawser/tunnel.sock", "/run/other.sock")).unwrap();
    assert_eq!(
        running.check_reload(&next).unwrap_err().to_string(),
        "tunnel.socket: /run/other.sock: cannot change while the agent runs (it is /run/hawser/tunnel.sock); restart the agent"
    );
    assert_eq!(
        running.check_reload(&parse(&spoilt("[10.9.0.0/16]", "[]")).unwrap()),
        Ok(())
    );
}

#[test]
fn five_thousand_peers_are_checked_in_a_moment() {
    use std::fmt::Write as _;
    let (head, _) = GOOD.split_once("peers:\n").unwrap();
    let mut text = format!("{head}peers:\n");
    for index in 1..=5000_u32 {
        let key = base64_of(index);
        let [_, _, high, low] = (index * 8).to_be_bytes();
        writeln!(text, "  - {{ name: w{index}, cluster: west, index: {index}, prefixes: [10.2.{high}.{low}/29], lanes: [{{ publicKey: \"{key}\" }}] }}").unwrap();
    }
    assert_eq!(parse(&text).unwrap().statics.peers.len(), 5000);
}

/// 32 bytes that end in `number`, in base64.
fn base64_of(number: u32) -> String {
    let mut bytes = [0; 32];
    bytes[28..].copy_from_slice(&number.to_be_bytes());
    hawser_tunnel::key::PublicKey::new(bytes).to_string()
}
