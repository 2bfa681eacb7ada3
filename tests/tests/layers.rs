//! The direction of the dependencies, and where `unsafe` may live (docs/architecture.md, "Layers").

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Members by layer: each may depend on members of lower layers only. A new member gets its place here.
const LAYERS: [(&str, u8); 4] = [
    ("hawser-tunnel", 0),
    ("hawser-cni", 0),
    ("hawser-mesh", 1),
    ("hawser-tests", 2),
];

/// What the packet path never pulls in: runtimes, Kubernetes, QUIC, HTTP, and what configures the kernel.
const NEVER_IN_THE_TUNNEL: [&str; 10] = [
    "tokio",
    "async-std",
    "smol",
    "kube",
    "k8s-openapi",
    "quinn",
    "hyper",
    "reqwest",
    "rtnetlink",
    // Another WireGuard, which tests hold ours against, on a clock that stands still.
    "boringtun",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn cargo(arguments: &[&str]) -> String {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program)
        .args(arguments)
        .args(["--locked", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// Members and the members that each names as a dependency of any kind.
fn members() -> BTreeMap<String, BTreeSet<String>> {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"])).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    packages
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let local = dependencies.filter(|dependency| dependency["path"].is_string());
            (
                text(&package["name"]),
                local.map(|dependency| text(&dependency["name"])).collect(),
            )
        })
        .collect()
}

/// Names of all packages that `package` is built from, itself included.
fn built_from(package: &str) -> BTreeSet<String> {
    let tree = cargo(&[
        "tree",
        "-p",
        package,
        "-e",
        "normal",
        "--prefix",
        "none",
        "--all-features",
    ]);
    tree.lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// Packages and their features, as a selection of what can be built has them.
fn libraries(selection: &[&str], kinds: &str) -> BTreeSet<String> {
    let form = [
        "tree", "--prefix", "none", "--format", "{p} {f}", "-e", kinds,
    ];
    let tree = cargo(&[&form, selection].concat());
    let lines = tree.lines();
    lines
        .map(|line| line.trim_end_matches(" (*)").to_owned())
        .collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_member_depends_on_lower_layers_only() {
    let layers = BTreeMap::from(LAYERS);
    let members = members();
    let names: BTreeSet<&str> = members.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        layers.keys().copied().collect(),
        "LAYERS must name every member"
    );
    for (member, dependencies) in &members {
        for dependency in dependencies {
            let (above, below) = (layers[member.as_str()], layers[dependency.as_str()]);
            assert!(above > below, "{member} must not depend on {dependency}");
        }
    }
    assert!(
        members["hawser-tests"].contains("hawser-tunnel"),
        "dependencies were not found at all"
    );
}

#[test]
fn the_tunnel_is_built_without_a_runtime_or_a_control_plane() {
    let built_from = built_from("hawser-tunnel");
    assert!(
        built_from.contains("x25519-dalek"),
        "dependencies were not found at all"
    );
    for package in NEVER_IN_THE_TUNNEL {
        assert!(
            !built_from.contains(package),
            "hawser-tunnel is built from {package}"
        );
    }
}

#[test]
fn only_the_tunnels_tests_know_another_wireguard_and_only_the_mesh_speaks_rtnetlink() {
    for (package, owner, kinds) in [
        ("boringtun", "hawser-tunnel", "normal,dev"),
        ("rtnetlink", "hawser-mesh", "normal"),
    ] {
        let tree = cargo(&[
            "tree",
            "-i",
            package,
            "-e",
            kinds,
            "--prefix",
            "none",
            "--depth",
            "1",
            "--all-features",
        ]);
        let users: BTreeSet<&str> = tree
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        assert_eq!(users, BTreeSet::from([owner]), "users of {package}");
    }
}

/// Otherwise each would be built twice, the product's crates too.
#[test]
fn programs_and_tests_are_built_of_the_same_libraries() {
    let all = libraries(&["--workspace"], "normal,build,dev");
    for (selection, kinds) in [
        (&["--workspace"][..], "normal,build"),
        (
            &["--workspace", "--exclude", "hawser-tests"],
            "normal,build,dev",
        ),
        (&["-p", "hawser-tests"], "normal,build"),
        (&["-p", "hawser-tests"], "normal,build,dev"),
    ] {
        let some = libraries(selection, kinds);
        let others: Vec<&String> = some.difference(&all).collect();
        assert!(
            others.is_empty() && !some.is_empty(),
            "{selection:?} is built of others: {others:?}; features belong into tests/Cargo.toml or the workspace"
        );
    }
}

#[test]
fn unsafe_code_lives_in_io_modules_and_in_the_batch_cipher() {
    let mut files = Vec::new();
    for folder in ["tunnel", "mesh", "tests/src"] {
        sources(&root().join(folder), &mut files);
    }
    let is_io = |path: &Path| {
        path.components().any(|part| part.as_os_str() == "io") || path.ends_with("io.rs")
    };
    // Loads, stores and calls of instructions that not every CPU has.
    let is_cipher = |path: &Path| path.to_string_lossy().contains("tunnel/src/aead/avx512");
    let lifts_the_lint = |path: &Path| fs::read_to_string(path).unwrap().contains("unsafe_code");
    let outside: Vec<&PathBuf> = files
        .iter()
        .filter(|path| !is_io(path) && !is_cipher(path) && lifts_the_lint(path))
        .collect();
    assert!(
        outside.is_empty(),
        "unsafe code belongs into an io module: {outside:?}"
    );
    assert!(files.len() > 20, "sources were not found at all");
}
