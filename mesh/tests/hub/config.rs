//! `hawser hub --check`, and starts that fail: one line each.

use crate::site::{Site, hawser_hub};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

/// The line of a hub that did not start.
fn complaint(site: &Site, more: &[&str]) -> String {
    let output = hawser_hub(&site.config(0), more);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text.trim_end().to_owned()
}

#[test]
fn a_good_file_is_checked_in_silence_and_nothing_is_made() {
    let site = Site::new("east", 1);
    let output = hawser_hub(&site.config(0), &["--check"]);
    assert!(output.status.success() && output.stderr.is_empty() && output.stdout.is_empty());
    assert!(!site.path("state").exists());
}

#[test]
fn each_fault_is_one_line_with_field_value_rule_and_fix() {
    let site = Site::new("east", 1);
    let good = site.yaml(0);
    let config = site.config(0).display().to_string();
    for (from, to, told) in [
        ("id: 1", "id: 0", format!("{config}: cluster.id: 0: must be 1 to 2047; choose another")),
        (
            "dir:manifests",
            "manifests",
            format!("{config}: source: manifests: must be dir:PATH, as in dir:/etc/hawser/manifests; correct it"),
        ),
        (
            "name: east",
            "name: west",
            "tls.certificate: is for spiffe://set.example/cluster/east/hub/hub-1; must be for a hub of cluster west in \
             set.example; issue it with `hawser ca hub`"
                .to_owned(),
        ),
        (
            "ca: ca.crt",
            "ca: none.crt",
            format!(
                "tls.ca: {}: cannot be read: No such file or directory; correct the path or the permissions",
                site.path("none.crt").display()
            ),
        ),
    ] {
        fs::write(site.config(0), good.replacen(from, to, 1)).unwrap();
        for more in [&["--check"][..], &[]] {
            assert_eq!(complaint(&site, more), format!("error: {told}"));
        }
    }
    fs::write(site.config(0), &good).unwrap();
    fs::set_permissions(site.path("hub-1.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let told = complaint(&site, &["--check"]);
    assert!(
        told.contains("tls.key") && told.contains("mode 0644"),
        "{told}"
    );
}

#[test]
fn a_port_that_is_taken_is_named() {
    let site = Site::new("east", 1);
    let _other = std::net::UdpSocket::bind(site.address(0)).unwrap();
    let output = hawser_hub(&site.config(0), &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    let last = text.lines().last().unwrap();
    let told = format!("error: failed to listen on {}", site.address(0));
    assert!(last.starts_with(&told), "{text}");
}

#[test]
fn a_journal_of_something_else_is_left_alone() {
    let site = Site::new("east", 1);
    fs::create_dir(site.path("state")).unwrap();
    fs::write(site.path("state/journal"), "something else altogether").unwrap();
    let output = hawser_hub(&site.config(0), &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    let last = text.lines().last().unwrap();
    assert!(last.contains("is no journal of this version"), "{text}");
    let kept = fs::read_to_string(site.path("state/journal")).unwrap();
    assert_eq!(kept, "something else altogether");
}
