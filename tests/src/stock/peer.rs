//! One stock WireGuard peer: a namespace on the underlay with a [`StockDevice`], and the node that it knows.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use nix::sys::signal::Signal;

use super::device::{StockDevice, write_secret};
use super::{GenevePort, Implementation, family, overlay};
use crate::io::Netns;
use crate::lab::{Family, Foreign, Lab, Lane, Link, Node, PeerConfig, address};

/// The UDP port of every stock peer.
const PORT: u16 = 51820;

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
    device: StockDevice,
    netns: Netns,
    link: Link,
    directory: PathBuf,
    cidrs: Vec<IpNet>,
    cluster: String,
    mtu: u32,
    known: Option<Known>,
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
        // What fits into the underlay's MTU behind IP, UDP and WireGuard.
        let around = match spec.family {
            Family::V4 => 20 + 8 + 32,
            Family::V6 => 40 + 8 + 32,
        };
        let at = (device.as_str(), PORT);
        let device = StockDevice::start(spec.implementation, &name, &netns, at, &directory)?;
        let preshared = device.wg(&["genpsk"], "")?;
        write_secret(&directory.join("preshared.key"), &preshared)?;
        let peer = Self {
            mtu: lab.topology().underlay.mtu - around,
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
        peer.address()?;
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
        self.device.name()
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
        self.device.pid()
    }

    /// What its program has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.device.log()
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
                public_key: self.device.public_key().to_owned(),
                endpoint: endpoint.then(|| self.endpoint()),
                preshared_key_file: self
                    .spec
                    .preshared
                    .then(|| self.directory.join("preshared.key")),
            }],
            foreign: Some(Foreign {
                identity: self.identity(),
            }),
            watched: None,
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
        self.device.set(&words)
    }

    /// Forgets the node with all sessions, and is told of it again.
    ///
    /// # Errors
    /// When `wg` refuses it, or it was never told.
    pub fn forget_and_meet_again(&self) -> Result<()> {
        let known = self.known.as_ref().context("it knows nobody")?;
        self.device.set(&["peer", &known.public_key, "remove"])?;
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
            write_secret(&file, &self.device.wg(&["genpsk"], "")?)?;
        }
        let file = file.display().to_string();
        self.device
            .set(&["peer", &known.public_key, "preshared-key", &file])
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
        let text = self.device.wg(&["show", self.device.name(), what], "")?;
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
        self.device.restart(signal)?;
        self.address()?;
        self.introduce()
    }

    /// Gives the device its address and route.
    fn address(&self) -> Result<()> {
        self.netns.ip_batch(&format!(
            "addr add {own}/32 dev {device}\n\
             link set {device} mtu {mtu} up\n\
             route add 240.0.0.0/5 dev {device} src {own}\n",
            own = self.overlay(),
            device = self.device.name(),
            mtu = self.mtu,
        ))
    }
}
