//! A network namespace with an underlay device, and an agent inside.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Where every run must be within.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A node to be: `eth0` is the underlay, and the TAP does not exist yet.
pub(crate) struct Ground {
    name: String,
    pub(crate) folder: tempfile::TempDir,
}

impl Ground {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "hwm{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let added = Command::new("ip")
            .args(["netns", "add", &name])
            .status()
            .unwrap();
        assert!(
            added.success(),
            "cannot add a network namespace: run the tests as root"
        );
        let ground = Self {
            name,
            folder: tempfile::tempdir().unwrap(),
        };
        ground.ip("link set lo up");
        ground.ip("link add eth0 type veth peer name peer0");
        // The kernel makes up no addresses in its own time, so what changes is somebody's doing.
        for device in ["eth0", "peer0"] {
            ground.ip(&format!("link set {device} addrgenmode none"));
        }
        ground.ip("addr add 192.0.2.1/24 dev eth0");
        ground.ip("link set eth0 up");
        ground.ip("link set peer0 up");
        ground
    }

    /// The file that stands for the network namespace.
    pub(crate) fn namespace(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Makes the TAP as the keeper does.
    pub(crate) fn add_tap(&self) {
        self.ip("tuntap add dev hawser0 mode tap");
        self.ip("link set hawser0 arp off");
    }

    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a program that must succeed; returns what it printed.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program).args(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn ip(&self, arguments: &str) -> String {
        self.run("ip", &arguments.split(' ').collect::<Vec<_>>())
    }

    pub(crate) fn sysctl(&self, name: &str) -> String {
        self.run("sysctl", &["-n", name]).trim().to_owned()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("tunnel.sock")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("node.yaml")
    }

    /// Puts a configuration in the place of the one before, as an operator's tool does.
    pub(crate) fn configure(&self, text: &str) {
        let next = self.folder.path().join("next.yaml");
        std::fs::write(
            &next,
            text.replace("SOCKET", self.socket().to_str().unwrap()),
        )
        .unwrap();
        std::fs::rename(next, self.config()).unwrap();
    }

    pub(crate) fn hawser(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_hawser"));
        command.args(arguments);
        command
    }

    /// Runs `hawser agent` where it is expected to end by itself.
    pub(crate) fn agent_that_ends(&self) -> Output {
        self.hawser(&["agent", "--config", self.config().to_str().unwrap()])
            .output()
            .unwrap()
    }

    pub(crate) fn start_agent(&self) -> Agent {
        let log = self.folder.path().join("agent.log");
        let mut command = self.hawser(&["agent", "--config", self.config().to_str().unwrap()]);
        command
            .env("HAWSER_LOG", "debug,netlink_proto=info")
            .stdout(Stdio::null());
        let child = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
        Agent { child, log }
    }

    /// Everything that the kernel tells of changes, from now until [`Monitor::changes`].
    pub(crate) fn monitor(&self) -> Monitor {
        let start = |program: &str, arguments: &[&str]| {
            let log = self.folder.path().join(format!("{program}.monitor"));
            let mut command = self.command(program);
            command
                .args(arguments)
                .stdout(File::create(&log).unwrap())
                .stderr(Stdio::null());
            (command.spawn().unwrap(), log)
        };
        let monitors = [
            start("ip", &["monitor", "link", "address", "route", "neigh"]),
            start("nft", &["monitor"]),
        ];
        let monitor = Monitor { monitors };
        // Both have subscribed once they tell of a change that we make.
        until("both monitors listen", || {
            self.ip("route add 203.0.113.0/24 dev eth0");
            self.ip("route del 203.0.113.0/24 dev eth0");
            self.run("nft", &["add", "table", "inet", "probe"]);
            self.run("nft", &["delete", "table", "inet", "probe"]);
            monitor
                .monitors
                .iter()
                .all(|(_, log)| std::fs::metadata(log).unwrap().len() > 0)
        });
        monitor
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// A running agent, killed when dropped.
pub(crate) struct Agent {
    child: Child,
    log: PathBuf,
}

impl Agent {
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the log says something.
    pub(crate) fn says(&self, text: &str) {
        until(&format!("log says {text:?}"), || self.log().contains(text));
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Stops it as a service manager does.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal("-TERM");
        self.child.wait().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("agent's log:\n{}", self.log());
        }
    }
}

pub(crate) struct Monitor {
    monitors: [(Child, PathBuf); 2],
}

impl Monitor {
    /// What changed, without the changes that [`Ground::monitor`] made itself.
    pub(crate) fn changes(self) -> Vec<String> {
        let ours = |line: &&str| {
            !line.contains("203.0.113.0/24")
                && !line.contains("inet probe")
                && !line.starts_with('#')
                && !line.is_empty()
        };
        let read = |(_, log): &(Child, PathBuf)| std::fs::read_to_string(log).unwrap();
        let text: String = self.monitors.iter().map(read).collect();
        text.lines().filter(ours).map(str::to_owned).collect()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        for (child, _) in &mut self.monitors {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until something holds.
pub(crate) fn until(what: &str, holds: impl FnMut() -> bool) {
    within(SOON, what, holds);
}

pub(crate) fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The one line that a program complained in.
pub(crate) fn complaint(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    assert_eq!(lines.len(), 1, "one line: {text}");
    assert!(output.stdout.is_empty());
    lines[0].to_owned()
}

pub(crate) fn show(path: &Path) -> String {
    path.display().to_string()
}

pub(crate) const NODE: &str = r#"cluster: { name: east, id: 1 }
node: { name: east-1, index: 1 }
tunnel: { socket: SOCKET }
underlay: { devices: [eth0] }
pods:
  - { cidr: 10.1.1.0/24, router: 10.1.1.1 }
  - { cidr: "fd01:1:1::/64", router: "fd01:1:1::1" }
clusters:
  - { name: east, id: 1, prefixes: [10.1.0.0/16, "fd01:1::/32"], identities: [1001] }
  - { name: west, id: 2, prefixes: [10.2.0.0/16, "fd01:2::/32"], identities: [2001] }
peers:
  - name: west-1
    cluster: west
    index: 1
    prefixes: [10.2.1.0/24, "fd01:2:1::/64"]
    lanes: [ { publicKey: "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", endpoint: "192.0.2.11:51820" } ]
"#;

/// Another node for the end of [`NODE`].
pub(crate) const WEST_2: &str = r#"  - name: west-2
    cluster: west
    index: 2
    prefixes: [10.2.2.0/24]
    lanes: [ { publicKey: "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=", endpoint: "192.0.2.12:51820" } ]
"#;
