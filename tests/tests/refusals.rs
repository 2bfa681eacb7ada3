//! Bad input at the border of the processes: one line that says what, where and how to mend it, an exit
//! code that is not 0, and nothing left behind.

use anyhow::{Context as _, Result, ensure};
use hawser_tests::lab::{Lab, Topology, binary};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// A node without any process of ours, and a directory that nobody has used.
struct Bare {
    lab: Lab,
    directory: tempfile::TempDir,
}

impl Bare {
    fn new() -> Result<Self> {
        Ok(Self {
            lab: Lab::new(Topology::two_by_two())?,
            directory: tempfile::tempdir()?,
        })
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// `hawser-tunnel run` in the node's namespace.
    fn tunnel(&self) -> Result<Command> {
        let mut command = self
            .lab
            .node("east-1")
            .netns()
            .command(binary("hawser-tunnel")?);
        command.args([
            "run",
            "--state-dir",
            &self.path("state"),
            "--socket",
            &self.path("tunnel.sock"),
        ]);
        Ok(command)
    }

    /// `hawser agent` with the configuration that the lab makes.
    fn agent(&self) -> Result<Command> {
        let node = self.lab.node("east-1");
        let mut command = node.netns().command(binary("hawser")?);
        command.arg("agent").arg("--config").arg(node.config_path());
        Ok(command)
    }

    /// A program of ours in a place where nothing is installed.
    fn without_tools(&self, command: Command) -> Command {
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let own = arguments
            .iter()
            .position(|argument| Path::new(argument).is_absolute())
            .unwrap_or_default();
        let mut bare = Command::new(command.get_program());
        bare.args(&arguments[..own])
            .arg("env")
            .arg(format!("PATH={}", self.directory.path().display()));
        bare.args(&arguments[own..]);
        bare
    }

    fn leaves_nothing(&self) -> Result<()> {
        let netns = self.lab.node("east-1").netns();
        let links = netns.output("ip", &["-br", "link"])?;
        ensure!(!links.contains("hawser0"), "a device is left: {links}");
        let tables = netns.output("nft", &["list", "tables"])?;
        ensure!(!tables.contains("hawser"), "a table is left: {tables}");
        let routes = netns.output("ip", &["route", "show", "proto", "72"])?;
        ensure!(routes.is_empty(), "a route is left: {routes}");
        ensure!(
            !Path::new(&self.path("tunnel.sock")).exists(),
            "a socket is left"
        );
        let pids = netns.pids()?;
        ensure!(pids.is_empty(), "a process is left: {pids:?}");
        Ok(())
    }
}

/// Runs a command that must end by itself with code 1, or the one given, and one line.
fn refused(mut command: Command, code: i32, expected: &str) -> Result<()> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let pid = i32::try_from(child.id())?;
    let (done, ended) = std::sync::mpsc::channel::<()>();
    // A program that goes on instead of refusing is killed, and its signal fails the test.
    let watchdog = std::thread::spawn(move || {
        if ended.recv_timeout(Duration::from_secs(15)).is_err() {
            let _ = hawser_tests::io::send_signal(pid, nix::sys::signal::Signal::SIGKILL);
        }
    });
    let Output { status, stderr, .. } = child.wait_with_output()?;
    drop(done);
    let _ = watchdog.join();
    let text = String::from_utf8(stderr)?;
    let errors: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("error"))
        .collect();
    ensure!(
        status.code() == Some(code),
        "exit code is {status}, not {code}: {text}"
    );
    ensure!(errors.len() == 1, "not one line: {text}");
    ensure!(
        errors[0].contains(expected),
        "the line is\n  {}\nand does not say\n  {expected}",
        errors[0]
    );
    ensure!(
        !text.contains("panicked") && !text.contains("stack backtrace"),
        "it panicked: {text}"
    );
    Ok(())
}

/// Becomes nobody before it runs.
fn as_nobody(command: &mut Command) {
    command.uid(65_534).gid(65_534);
}

#[test]
fn the_tunnel_refuses_by_name_and_leaves_nothing() -> Result<()> {
    let mut bare = Bare::new()?;
    // Another program has the port.
    let netns = bare.lab.node("east-1").netns().clone();
    let taken = netns.run(|| std::net::UdpSocket::bind("0.0.0.0:51820"))??;
    refused(
        bare.tunnel()?,
        1,
        "port 51820/udp: in use by another process: choose another by --port, or stop it",
    )?;
    drop(taken);
    bare.leaves_nothing()?;
    let taken = netns.run(|| std::net::UdpSocket::bind("[::]:51820"))??;
    refused(
        bare.tunnel()?,
        1,
        "port 51820/udp: in use by another process",
    )?;
    drop(taken);
    bare.leaves_nothing()?;
    // No /dev/net/tun: a container without the device.
    let mut command = netns.command("unshare");
    let script = "mount -t tmpfs none /dev/net && exec \"$0\" \"$@\"";
    command
        .args(["--mount", "sh", "-c", script])
        .arg(binary("hawser-tunnel")?);
    command.args([
        "run",
        "--state-dir",
        &bare.path("state"),
        "--socket",
        &bare.path("tunnel.sock"),
    ]);
    refused(
        command,
        1,
        "/dev/net/tun: not found: load the kernel module tun, or give the container the device",
    )?;
    bare.leaves_nothing()?;
    // No nft: without it there would be no guard.
    refused(
        bare.without_tools(bare.tunnel()?),
        1,
        "was not found: install the package nftables",
    )?;
    bare.leaves_nothing()?;
    // The device's name is somebody else's.
    netns.output(
        "ip",
        &[
            "link", "add", "hawser0", "type", "veth", "peer", "name", "other",
        ],
    )?;
    refused(
        bare.tunnel()?,
        1,
        "device hawser0: exists and is no TAP with our flags, which differ between one lane and several: choose another name by --device, or remove it by `ip link delete hawser0`",
    )?;
    netns.output("ip", &["link", "del", "hawser0"])?;
    bare.leaves_nothing()?;
    // A key that others can read, and one that is none.
    let key = Path::new(&bare.path("state")).join("wireguard.key");
    std::fs::write(&key, "nonsense")?;
    refused(bare.tunnel()?, 1, "must be 32 bytes in base64")?;
    netns.output("chmod", &["644", &key.display().to_string()])?;
    refused(
        bare.tunnel()?,
        1,
        "mode is 0644; a key must be a file of mode 0600: chmod 600 it",
    )?;
    std::fs::remove_file(&key)?;
    bare.leaves_nothing()?;
    // Flags.
    for (flag, value, rule) in [
        ("--port", "0", "1..=65535"),
        ("--port", "65536", "1..=65535"),
        ("--lanes", "0", "1..=16"),
        ("--lanes", "17", "1..=16"),
        ("--open-lanes", "two", "invalid digit"),
        ("--colour", "red", "unexpected argument '--colour'"),
    ] {
        let mut command = bare.tunnel()?;
        command.args([flag, value]);
        refused(command, 2, "error:").and_then(|()| {
            let text = String::from_utf8(bare.tunnel()?.args([flag, value]).output()?.stderr)?;
            ensure!(text.contains(rule), "{flag} {value}: {text}");
            Ok(())
        })?;
    }
    for (flags, rule) in [
        (
            &["--open-lanes", "2"][..],
            "--open-lanes 2: must not be more than --lanes, which is 1",
        ),
        (
            &["--lanes", "16", "--port", "65530"],
            "port 65530/udp: 16 lanes need as many ports from here, and the last is 65535: choose a lower --port",
        ),
    ] {
        let mut command = bare.tunnel()?;
        command.args(flags);
        refused(command, 1, rule)?;
    }
    bare.leaves_nothing()?;
    let mut command = bare.tunnel()?;
    command.args(["--device", "a-name-that-is-too-long"]);
    refused(command, 1, "a-name-that-is-too-long")?;
    bare.leaves_nothing()?;
    // Not root: neither the network nor the state is touched.
    let mut command = Command::new(binary("hawser-tunnel")?);
    command.args([
        "run",
        "--state-dir",
        &bare.path("nobody"),
        "--socket",
        &bare.path("tunnel.sock"),
    ]);
    as_nobody(&mut command);
    refused(
        command,
        1,
        "not permitted to configure the network: run as root with CAP_NET_ADMIN",
    )?;
    // A second instance: by the state directory, and by the device.
    bare.lab.node_mut("east-1").start_keeper()?;
    let node = bare.lab.node("east-1");
    let second = |state: &Path, port: &str| -> Result<Command> {
        let mut command = node.netns().command(binary("hawser-tunnel")?);
        command.arg("run").arg("--state-dir").arg(state).args([
            "--socket",
            &bare.path("tunnel.sock"),
            "--port",
            port,
        ]);
        Ok(command)
    };
    hawser_tests::lab::wait_until("the first instance", Duration::from_secs(10), || {
        Ok(node.tunnel_socket().exists())
    })?;
    refused(
        second(&node.state_dir(), "51821")?,
        3,
        "in use by another hawser-tunnel: stop it, or choose another by --state-dir",
    )?;
    refused(
        second(Path::new(&bare.path("state")), "51821")?,
        1,
        "device hawser0: in use by another process: is a second hawser-tunnel running?",
    )?;
    ensure!(
        node.keeper_pid().is_some() && node.data_plane_pid().is_some(),
        "the first instance was hurt"
    );
    Ok(())
}

#[test]
fn the_agent_refuses_by_name_and_leaves_nothing() -> Result<()> {
    let mut bare = Bare::new()?;
    bare.lab.configure()?;
    let netns = bare.lab.node("east-1").netns().clone();
    netns.sysctl_set("net.ipv4.conf.all.rp_filter", "1")?;
    refused(bare.agent()?, 1, "rp_filter")?;
    bare.leaves_nothing()?;
    netns.sysctl_set("net.ipv4.conf.all.rp_filter", "0")?;
    refused(bare.without_tools(bare.agent()?), 1, "nft")?;
    bare.leaves_nothing()?;
    bare.lab
        .node("east-1")
        .edit_config(|config| config.underlay.devices = vec!["eth9".to_owned()])?;
    refused(bare.agent()?, 1, "eth9")?;
    bare.leaves_nothing()?;
    bare.lab
        .node("east-1")
        .write_config_text("cluster: {name: east, id: 4096}\n")?;
    refused(bare.agent()?, 1, "node.yaml")?;
    bare.leaves_nothing()?;
    std::fs::remove_file(bare.lab.node("east-1").config_path())?;
    refused(bare.agent()?, 1, "node.yaml")?;
    bare.leaves_nothing()?;
    bare.lab.configure()?;
    // As nobody: the file is readable, the network is not to be had.
    let open = bare.directory.path().join("node.yaml");
    std::fs::copy(bare.lab.node("east-1").config_path(), &open)
        .context("copy of the configuration")?;
    let mut command = Command::new(binary("hawser")?);
    command.arg("agent").arg("--config").arg(&open);
    for path in [bare.directory.path(), &open] {
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    }
    as_nobody(&mut command);
    refused(command, 1, "root")?;
    bare.leaves_nothing()?;
    // A second agent on one node.
    bare.lab.start()?;
    bare.lab.wait_ready(Duration::from_secs(30))?;
    refused(bare.agent()?, 3, "agent")?;
    bare.lab.wait_ready(Duration::from_secs(30))
}
