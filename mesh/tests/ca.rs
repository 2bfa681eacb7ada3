//! `hawser ca` as a process, and the files that it makes.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails where it stands and says why"
)]

use hawser_mesh::io::pem_file::{credentials, trust_ca};
use hawser_mesh::trust::{PeerId, Trust};
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

fn hawser(folder: &TempDir, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hawser"));
    command.current_dir(folder).args(line.split(' '));
    command.output().unwrap()
}

fn done(folder: &TempDir, line: &str) -> String {
    let output = hawser(folder, line);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{line}: {stderr}");
    assert_eq!(stderr, "");
    String::from_utf8(output.stdout).unwrap()
}

/// The one line that says why nothing was done.
fn refused(folder: &TempDir, line: &str) -> String {
    let output = hawser(folder, line);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{line}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr.trim_end().to_owned()
}

const INIT: &str = "ca init --cluster east --clusterset set.example --dir ca";

#[test]
fn a_ca_and_what_it_signs_are_files_that_only_their_owner_reads() {
    let folder = tempfile::tempdir().unwrap();
    done(&folder, INIT);
    done(&folder, "ca hub --dir ca --name hub-1 --out hub");
    done(
        &folder,
        "ca node --dir ca --name worker-1.example --out node --days 7",
    );
    let at = |name: &str| folder.path().join(name);
    for name in [
        "ca/ca.crt",
        "ca/ca.key",
        "hub/tls.crt",
        "hub/tls.key",
        "hub/ca.crt",
        "node/tls.key",
    ] {
        assert_eq!(at(name).metadata().unwrap().mode() & 0o777, 0o600, "{name}");
    }
    assert_eq!(at("ca").metadata().unwrap().mode() & 0o777, 0o700);
    let fields = ("tls.certificate", "tls.key");
    let hub = credentials(&at("hub/tls.crt"), &at("hub/tls.key"), fields).unwrap();
    assert_eq!(hub.id(), &PeerId::hub("east", "hub-1"));
    let node = credentials(&at("node/tls.crt"), &at("node/tls.key"), fields).unwrap();
    assert_eq!(node.id(), &PeerId::node("east", "worker-1.example"));
    let mut trust = Trust::new("set.example");
    trust_ca(&mut trust, "east", &at("node/ca.crt"), "tls.ca").unwrap();

    let shown = done(&folder, "ca show node/tls.crt");
    assert!(
        shown.contains("spiffe://set.example/cluster/east/node/worker-1.example\n"),
        "{shown}"
    );
    assert!(
        shown.contains("issuer      O=set.example, CN=east\n"),
        "{shown}"
    );
    assert!(shown.ends_with("Z, valid\n"), "{shown}");
    assert!(done(&folder, "ca show ca/ca.crt").starts_with("CA "));
}

#[test]
fn nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    done(&folder, INIT);
    let before = std::fs::read(folder.path().join("ca/ca.key")).unwrap();
    assert_eq!(
        refused(&folder, INIT),
        "error: ca/ca.key: is there already and is not overwritten; remove it or choose another folder"
    );
    assert_eq!(
        std::fs::read(folder.path().join("ca/ca.key")).unwrap(),
        before
    );
    done(&folder, "ca node --dir ca --name worker --out node");
    std::fs::remove_file(folder.path().join("node/tls.key")).unwrap();
    let again = refused(&folder, "ca node --dir ca --name worker --out node");
    assert!(again.contains("node/tls.crt: is there already"), "{again}");
    assert!(
        !folder.path().join("node/tls.key").exists(),
        "all or nothing"
    );
}

#[test]
fn what_cannot_be_done_is_told_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let node = "ca node --dir ca --name worker --out node";
    assert_eq!(
        refused(&folder, node),
        "error: ca/ca.crt: cannot be read: No such file or directory; correct the path or the permissions"
    );
    let bad = refused(&folder, &INIT.replace("east", "East"));
    assert!(
        bad.starts_with("error: cluster: East: must be a DNS label"),
        "{bad}"
    );
    assert!(!at("ca").exists());
    done(&folder, INIT);
    let bad = refused(&folder, &node.replace("worker", "work_er"));
    assert!(
        bad.starts_with("error: name: work_er: must be a DNS name"),
        "{bad}"
    );
    // The longest that can be asked for ends before the CA of today does.
    done(&folder, &format!("{node} --days 3650"));
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_key_that_others_can_read_is_refused_and_so_is_what_is_none() {
    let folder = tempfile::tempdir().unwrap();
    done(&folder, INIT);
    done(&folder, "ca node --dir ca --name worker --out node");
    done(&folder, "ca node --dir ca --name other --out other");
    let at = |name: &str| folder.path().join(name);
    let fault = |certificate: &str, key: &str| {
        let fields = ("tls.certificate", "tls.key");
        let fault = credentials(&at(certificate), &at(key), fields).unwrap_err();
        let line = fault.to_string();
        line.replace(folder.path().to_str().unwrap(), "")
    };
    mode(&at("node/tls.key"), 0o640);
    assert_eq!(
        fault("node/tls.crt", "node/tls.key"),
        "tls.key: /node/tls.key: has mode 0640; nobody but its owner may read a key: chmod 600"
    );
    mode(&at("ca/ca.key"), 0o604);
    let line = refused(&folder, "ca node --dir ca --name worker --out new");
    assert!(line.contains("ca/ca.key: has mode 0604"), "{line}");
    mode(&at("node/tls.key"), 0o600);
    assert_eq!(
        fault("node/tls.crt", "other/tls.key"),
        "tls.key: /other/tls.key: must be the private key of the certificate; correct the path or issue it again with \
         `hawser ca`"
    );
    let again = "correct the path or issue it again with `hawser ca`";
    assert_eq!(
        fault("node/tls.key", "node/tls.key"),
        format!(
            "tls.certificate: /node/tls.key: must be a certificate in PEM (BEGIN CERTIFICATE); {again}"
        )
    );
    assert_eq!(
        fault("node/tls.crt", "node/ca.crt"),
        format!("tls.key: /node/ca.crt: must be a private key in PEM (BEGIN PRIVATE KEY); {again}")
    );
    assert_eq!(
        fault("none", "node/tls.key"),
        "tls.certificate: /none: cannot be read: No such file or directory; correct the path or the permissions"
    );
    assert_eq!(
        fault("node", "node/tls.key"),
        "tls.certificate: /node: must be a file; correct the path"
    );
    std::fs::write(at("long"), vec![b'x'; 70_000]).unwrap();
    assert_eq!(
        fault("long", "node/tls.key"),
        "tls.certificate: /long: has 70000 bytes; must be at most 65536; correct the path"
    );
    std::fs::write(at("binary"), [0xff; 20]).unwrap();
    assert_eq!(
        fault("binary", "node/tls.key"),
        "tls.certificate: /binary: must be text in PEM; correct the path or write the file again"
    );
    let mut trust = Trust::new("set.example");
    let fault = trust_ca(&mut trust, "east", &at("node/tls.crt"), "tls.ca").unwrap_err();
    let line = fault.to_string();
    assert!(line.ends_with("must hold certificates of a CA (basicConstraints CA:TRUE); correct the path or copy the cluster's ca.crt again"), "{line}");
}
