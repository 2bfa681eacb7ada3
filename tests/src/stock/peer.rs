//! One stock WireGuard peer: a namespace on the underlay, the program in it, and what `wg` says and is told.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use ipnet::IpNet;
use nix::sys::signal::Signal;

use super::{GenevePort, Implementation, family, overlay};
use crate::io::Netns;
use crate::lab::{
    Family, Foreign, Lab, Lane, Link, Node, PeerConfig, Process, address, wait_until,
};

/// Where userspace implementations put their sockets, by the name of the device.
const SOCKETS: &str = "/var/run/wireguard";
/// The UDP port of every stock peer.
const PORT: u16 = 51820;
/// How long a program may take to answer `wg`.
const START: Duration = Duration::from_secs(10);

/// Which stock peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockSpec {
    /// Whose program.
    pub implementation: Implementation,
    /// The ID of the cluster that it belongs to.
    pub cluster: u16,
    /// Its node index in that, 1-99.
    pub index: u16,
    /// By which family of the underlay it and Hawser reach each other.
    pub family: Family,
    /// Whether the two share a pre-shared key.
    pub preshared: bool,
}

/// How a stock peer is told of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meeting {
    /// Whether it is told where the node is, so that it can speak first.
    pub endpoint: bool,
    /// Seconds between its persistent keepalives.
    pub keepalive: Option<u16>,
}

/// A node as a stock peer knows it.
#[derive(Clone, Debug)]
struct Known {
    public_key: String,
    overlay: Ipv4Addr,
    endpoint: SocketAddr,
    meeting: Meeting,
}

/// A stock WireGuard peer. Dropping it ends its program.
#[derive(Debug)]
pub struct StockPeer {
    name: String,
    spec: StockSpec,
    device: String,
    netns: Netns,
    link: Link,
    directory: PathBuf,
    cidrs: Vec<IpNet>,
    cluster: String,
    mtu: u32,
    public_key: String,
    known: Option<Known>,
    process: Process,
}

impl StockPeer {
    /// Makes its namespace and keys, and starts its program. It knows nobody yet.
    ///
    /// # Errors
    /// When the program is missing or does not start.
    pub fn start(lab: &mut Lab, spec: StockSpec) -> Result<Self> {
        let name = format!("stock-{}", spec.index);
        // Namespaces share /var/run: the lab's id makes the socket's name its own.
        let device = format!("hw{}w{}", lab.id(), spec.index);
        let netns = lab.netns_add(&name)?;
        let link = lab.attach_underlay(&netns, spec.cluster, spec.index)?;
        let found = lab
            .topology()
            .clusters
            .iter()
            .find(|c| c.id == spec.cluster);
        let cluster = found.with_context(|| format!("no cluster {} in this lab", spec.cluster))?;
        let cidrs = Family::BOTH
            .iter()
            .filter_map(|family| address::node_prefix(cluster.prefix(*family)?, spec.index));
        let (cidrs, cluster) = (cidrs.collect(), cluster.name.clone());
        let directory = lab.dir().join(&name);
        fs::create_dir_all(&directory)
            .with_context(|| format!("failed to make {}", directory.display()))?;
        // What fits into the underlay's MTU behind IP, UDP and WireGuard.
        let around = match spec.family {
            Family::V4 => 20 + 8 + 32,
            Family::V6 => 40 + 8 + 32,
        };
        let mut peer = Self {
            process: Process::new(&directory, spec.implementation.name()),
            mtu: lab.topology().underlay.mtu - around,
            public_key: String::new(),
            known: None,
            name,
            spec,
            device,
            netns,
            link,
            directory,
            cidrs,
            cluster,
        };
        for (file, command) in [("private.key", "genkey"), ("preshared.key", "genpsk")] {
            let key = peer.wg(&[command], "")?;
            write_secret(&peer.directory.join(file), &key)?;
        }
        let private = fs::read_to_string(peer.directory.join("private.key"))
            .context("failed to read the private key")?;
        peer.public_key = peer.wg(&["pubkey"], &private)?.trim().to_owned();
        peer.run()?;
        Ok(peer)
    }

    /// Its name, also in node.yaml: `stock-11`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it was made from.
    #[must_use]
    pub const fn spec(&self) -> &StockSpec {
        &self.spec
    }

    /// Its namespace.
    #[must_use]
    pub const fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its link to the underlay.
    #[must_use]
    pub const fn link(&self) -> &Link {
        &self.link
    }

    /// Its TUN device.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Its overlay address.
    #[must_use]
    pub fn overlay(&self) -> Ipv4Addr {
        overlay(self.spec.cluster, self.spec.index)
    }

    /// An address of its pod prefix, for the packets that a test makes in its name.
    ///
    /// # Panics
    /// When its cluster does not have the family.
    #[must_use]
    pub fn inner(&self, wanted: Family) -> IpAddr {
        let found = self.cidrs.iter().find(|cidr| family(cidr.addr()) == wanted);
        address::pod(*found.expect("a prefix of this family"), 1)
    }

    /// The identity that a node gives to all its packets.
    #[must_use]
    pub fn identity(&self) -> u32 {
        u32::from(self.spec.cluster) * 1000 + 500 + u32::from(self.spec.index)
    }

    /// Where its WireGuard listens.
    #[must_use]
    pub fn endpoint(&self) -> SocketAddr {
        let StockSpec {
            cluster,
            index,
            family,
            ..
        } = self.spec;
        SocketAddr::new(address::underlay(cluster, index, family), PORT)
    }

    /// Its program's process, while it lives.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.process.pid()
    }

    /// What its program has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log_text()
    }

    /// Itself as a node's node.yaml has it; with `endpoint` the node can speak first.
    #[must_use]
    pub fn declaration(&self, endpoint: bool) -> PeerConfig {
        PeerConfig {
            name: self.name.clone(),
            cluster: self.cluster.clone(),
            index: self.spec.index.into(),
            prefixes: self.cidrs.clone(),
            lanes: vec![Lane {
                public_key: self.public_key.clone(),
                endpoint: endpoint.then(|| self.endpoint()),
                preshared_key_file: self
                    .spec
                    .preshared
                    .then(|| self.directory.join("preshared.key")),
            }],
            foreign: Some(Foreign {
                identity: self.identity(),
            }),
        }
    }

    /// Tells it of a node.
    ///
    /// # Errors
    /// When `wg` refuses it.
    pub fn meet(&mut self, node: &Node, meeting: Meeting) -> Result<()> {
        let port = node.endpoint().port();
        self.known = Some(Known {
            public_key: node.public_key()?,
            overlay: overlay(node.cluster_id(), node.index()),
            endpoint: SocketAddr::new(node.underlay(self.spec.family), port),
            meeting,
        });
        self.introduce()
    }

    fn introduce(&self) -> Result<()> {
        let Some(known) = &self.known else {
            return Ok(());
        };
        let mut words = vec![
            "set".to_owned(),
            self.device.clone(),
            "peer".to_owned(),
            known.public_key.clone(),
            "allowed-ips".to_owned(),
            format!("{}/32", known.overlay),
        ];
        if self.spec.preshared {
            let file = self.directory.join("preshared.key");
            words.extend(["preshared-key".to_owned(), file.display().to_string()]);
        }
        if known.meeting.endpoint {
            words.extend(["endpoint".to_owned(), known.endpoint.to_string()]);
        }
        if let Some(seconds) = known.meeting.keepalive {
            words.extend(["persistent-keepalive".to_owned(), seconds.to_string()]);
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.wg(&words, "").map(drop)
    }

    /// Forgets the node with all sessions, and is told of it again.
    ///
    /// # Errors
    /// When `wg` refuses it, or it was never told.
    pub fn forget_and_meet_again(&self) -> Result<()> {
        let known = self.known.as_ref().context("it knows nobody")?;
        self.wg(
            &["set", &self.device, "peer", &known.public_key, "remove"],
            "",
        )?;
        self.introduce()
    }

    /// Gives it another pre-shared key for the node than the one that the node has, or the right one again.
    ///
    /// # Errors
    /// When `wg` refuses it, or it knows nobody.
    pub fn set_preshared_key(&self, right: bool) -> Result<()> {
        let known = self.known.as_ref().context("it knows nobody")?;
        ensure!(self.spec.preshared, "{} has no pre-shared key", self.name);
        let file = self
            .directory
            .join(if right { "preshared.key" } else { "wrong.key" });
        if !right {
            write_secret(&file, &self.wg(&["genpsk"], "")?)?;
        }
        let file = file.display().to_string();
        self.wg(
            &[
                "set",
                &self.device,
                "peer",
                &known.public_key,
                "preshared-key",
                &file,
            ],
            "",
        )
        .map(drop)
    }

    /// When its latest handshake with the node was, by `wg show latest-handshakes`.
    ///
    /// # Errors
    /// When `wg` says nothing of the node.
    pub fn latest_handshake(&self) -> Result<Option<SystemTime>> {
        let seconds: u64 = self.show("latest-handshakes")?.parse().context("seconds")?;
        Ok((seconds > 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)))
    }

    /// Where it thinks the node is.
    ///
    /// # Errors
    /// When `wg` says nothing of the node.
    pub fn endpoint_of_node(&self) -> Result<Option<SocketAddr>> {
        let told = self.show("endpoints")?;
        if told == "(none)" {
            return Ok(None);
        }
        Ok(Some(
            told.parse().with_context(|| format!("endpoint {told}"))?,
        ))
    }

    fn show(&self, what: &str) -> Result<String> {
        let known = self.known.as_ref().context("it knows nobody")?;
        let text = self.wg(&["show", &self.device, what], "")?;
        let line = text
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .find(|(key, _)| *key == known.public_key);
        Ok(line
            .with_context(|| format!("`wg show {what}` does not tell: {text}"))?
            .1
            .to_owned())
    }

    /// The Geneve port of the node at the other end.
    ///
    /// # Errors
    /// When it is taken, or the peer knows nobody.
    pub fn geneve(&self) -> Result<GenevePort> {
        let known = self.known.as_ref().context("it knows nobody")?;
        GenevePort::open(&self.netns, self.overlay(), known.overlay)
    }

    /// Ends its program by `signal` and starts it again with the same keys, as after a crash or an upgrade.
    ///
    /// # Errors
    /// When it does not end or start.
    pub fn restart(&mut self, signal: Signal) -> Result<()> {
        self.process.end(signal)?;
        self.run()?;
        self.introduce()
    }

    fn run(&mut self) -> Result<()> {
        let program = self.spec.implementation.program()?;
        self.remove_socket();
        let mut command = self.netns.command(program);
        command
            .args(self.spec.implementation.foreground())
            .arg(&self.device)
            .env("LOG_LEVEL", "error");
        self.process.start(command)?;
        let mut ended = None;
        wait_until(&format!("{} answers wg", self.name), START, || {
            ended = self.process.check().err();
            Ok(ended.is_some() || self.wg(&["show", &self.device], "").is_ok())
        })?;
        if let Some(error) = ended {
            return Err(error.context(format!("{}: {}", self.name, self.log())));
        }
        let key = self.directory.join("private.key").display().to_string();
        let port = PORT.to_string();
        self.wg(
            &[
                "set",
                &self.device,
                "private-key",
                &key,
                "listen-port",
                &port,
            ],
            "",
        )?;
        self.netns.ip_batch(&format!(
            "addr add {own}/32 dev {device}\n\
             link set {device} mtu {mtu} up\n\
             route add 240.0.0.0/5 dev {device} src {own}\n",
            own = self.overlay(),
            device = self.device,
            mtu = self.mtu,
        ))
    }

    fn wg(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = self.netns.command("wg");
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("failed to start wg")?;
        let mut stdin = child.stdin.take().context("wg has no stdin")?;
        // A command that reads nothing may have closed it already.
        stdin.write_all(input.as_bytes()).ok();
        drop(stdin);
        let output = child.wait_with_output().context("failed to wait for wg")?;
        if !output.status.success() {
            bail!(
                "`wg {}` for {}: {}",
                arguments.first().unwrap_or(&""),
                self.name,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A killed program leaves its socket behind, outside of every namespace.
    fn remove_socket(&self) {
        fs::remove_file(Path::new(SOCKETS).join(format!("{}.sock", self.device))).ok();
    }
}

impl Drop for StockPeer {
    fn drop(&mut self) {
        if let Err(error) = self.process.end(Signal::SIGTERM) {
            writeln!(std::io::stderr(), "warning: {}: {error:#}", self.name).ok();
        }
        self.remove_socket();
    }
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;

    let mut file = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("failed to make {}", path.display()))?;
    file.write_all(text.trim().as_bytes())
        .with_context(|| format!("failed to write {}", path.display()))
}
