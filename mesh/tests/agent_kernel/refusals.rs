//! Nodes and calls that are refused: one line, an exit code, and nothing touched.

use crate::ground::{Ground, NODE, complaint, show};
use std::io::Read as _;
use std::process::Stdio;

fn untouched(ground: &Ground) {
    assert_eq!(ground.run("nft", &["list", "tables"]), "");
    assert!(!ground.ip("route").contains("proto 72"));
    assert_eq!(ground.sysctl("net.ipv4.ip_forward"), "0");
}

#[test]
fn a_node_that_is_not_fit_is_left_as_it_was() {
    let ground = Ground::new();
    ground.run("sysctl", &["-w", "net.ipv4.ip_forward=0"]);
    ground.configure(NODE);
    let refused = |line: &str| {
        let output = ground.agent_that_ends();
        assert_eq!(
            (complaint(&output).as_str(), output.status.code()),
            (line, Some(1))
        );
        untouched(&ground);
    };
    ground.run("sysctl", &["-w", "net.ipv4.conf.all.rp_filter=1"]);
    refused(
        "error: net.ipv4.conf.all.rp_filter: 1: must be 0 or 2, as 1 drops pod packets from the tunnel; \
         run sysctl -w net.ipv4.conf.all.rp_filter=2",
    );
    ground.run("sysctl", &["-w", "net.ipv4.conf.all.rp_filter=2"]);
    ground.configure(&NODE.replace("eth0", "eth7"));
    refused(
        "error: underlay.devices: eth7: is not a device of this node; correct the name (ip link shows them)",
    );
    ground.configure(&NODE.replace("10.1.1.0/24, router", "10.1.1.7/24, router"));
    let config = show(&ground.config());
    refused(&format!(
        "error: {config}: pods[0].cidr: 10.1.1.7/24: has host bits set; write 10.1.1.0/24"
    ));

    ground.configure(NODE);
    let arguments = [
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        env!("CARGO_BIN_EXE_hawser"),
        "agent",
        "--config",
    ];
    // Readable for everybody, as the folder of a test is not.
    let shared = std::env::temp_dir().join(format!("hawser-{}.yaml", std::process::id()));
    std::fs::copy(ground.config(), &shared).unwrap();
    let output = ground
        .command("setpriv")
        .args(arguments)
        .arg(&shared)
        .output()
        .unwrap();
    std::fs::remove_file(&shared).unwrap();
    assert_eq!(
        complaint(&output),
        "error: user: 65534: must be 0 (root); run as root: sudo hawser agent"
    );

    let arguments = [
        "PATH=/nonexistent",
        env!("CARGO_BIN_EXE_hawser"),
        "agent",
        "--config",
        &config,
    ];
    let output = ground.command("env").args(arguments).output().unwrap();
    assert_eq!(
        complaint(&output),
        "error: failed to load the guard: nft: the program nft was not found: install the package nftables"
    );
    untouched(&ground);
}

#[test]
fn only_one_agent_runs_on_a_node() {
    let ground = Ground::new();
    ground.configure(NODE);
    let first = ground.start_agent();
    first.says("guard written");
    let output = ground.agent_that_ends();
    let lock = format!("{}.agent.lock", ground.socket().display());
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(
        complaint(&output),
        format!(
            "error: {lock}: is held by another hawser agent; only one may run on a node: stop the other"
        )
    );
    // The kernel lets go of the lock of one that was killed.
    drop(first);
    ground.start_agent().says("agent starts");
}

#[test]
fn check_reads_the_file_and_nothing_else() {
    let ground = Ground::new();
    ground.configure(&NODE.replace("eth0", "eth7"));
    let config = ground.config();
    let check = |path: &str| {
        ground
            .hawser(&["agent", "--check", "--config", path])
            .output()
            .unwrap()
    };
    let output = check(&show(&config));
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), [].as_slice())
    );
    let output = check("/nonexistent/node.yaml");
    assert_eq!(output.status.code(), Some(1));
    let line = "error: /nonexistent/node.yaml: cannot be read: No such file or directory; correct the path or the permissions";
    assert_eq!(complaint(&output), line);
}

#[test]
fn calls_without_a_data_plane_say_so() {
    let ground = Ground::new();
    let socket = show(&ground.socket());
    for arguments in [
        vec!["status", "--socket", &socket],
        vec!["capture", "--socket", &socket, "-w", "-"],
    ] {
        let output = ground.hawser(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let start = format!(
            "error: failed to connect to {socket}: is hawser-tunnel running, and are you root?"
        );
        assert!(
            complaint(&output).starts_with(&start),
            "{}",
            complaint(&output)
        );
    }
    assert_eq!(
        ground
            .hawser(&["status", "--nonsense"])
            .output()
            .unwrap()
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let ground = Ground::new();
    let mut child = ground
        .hawser(&["version"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut errors = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut errors)
        .unwrap();
    assert_eq!(
        (child.wait().unwrap().code(), errors.as_str()),
        (Some(0), "")
    );
}
