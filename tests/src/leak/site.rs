//! Where the hunt takes place: a lab, and in it the node that everything is done to.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use nix::sys::signal::Signal;

use super::{Barrier, Chance};
use crate::io::{Netns, send_signal};
use crate::lab::{
    ClusterSpec, Family, Lab, Link, Node, Topology, UnderlaySpec, gateway, wait_until,
};
use crate::sniffer::Sniffer;

/// The node that everything is done to.
const VICTIM: &str = "east-1";
/// The router's end of a second link to that node, whose other end is [`PARKED`] until a way plugs it in.
const SPARE: &str = "spare";
/// The node's end of that link, while it is not plugged in.
const PARKED: &str = "parked";
/// How long a busy machine may take to repair a node.
pub(super) const PATIENCE: Duration = Duration::from_secs(40);
/// The routing table that foreign tools of ours use.
pub(super) const FOREIGN_TABLE: u32 = 77;

/// A lab of two clusters, and the node that everything is done to.
#[derive(Debug)]
pub struct Site {
    lab: Lab,
    chance: Chance,
    armed: bool,
}

impl Site {
    pub(super) fn start() -> Result<Self> {
        let cluster = |name: &str, id| ClusterSpec {
            name: name.to_owned(),
            id,
            site: None,
            nodes: 2,
            pods: 1,
            families: Family::BOTH.to_vec(),
            prefixes: Vec::new(),
        };
        let topology = Topology {
            clusters: vec![cluster("east", 1), cluster("west", 2)],
            underlay: UnderlaySpec::default(),
        };
        let lab = Lab::running(topology)?;
        lab.router().ip_batch(&format!(
            "link add {SPARE} type veth peer name {PARKED}\nlink set {SPARE} master br0\nlink set {SPARE} up\n"
        ))?;
        Ok(Self {
            lab,
            chance: Chance::from_environment(),
            armed: true,
        })
    }

    /// The lab.
    #[must_use]
    pub const fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Sniffers on every link of the underlay, also on the one that is not plugged in.
    pub(super) fn sniffer(&self) -> Result<Sniffer> {
        let mut links = self.lab.links();
        links.push(Link {
            name: SPARE.to_owned(),
            netns: self.lab.router().clone(),
            device: SPARE.to_owned(),
        });
        Sniffer::start(&links, self.lab.allow(), self.lab.canary())
    }

    /// The node that everything is done to.
    pub(super) fn node(&self) -> &Node {
        self.lab.node(VICTIM)
    }

    pub(super) fn node_mut(&mut self) -> &mut Node {
        self.lab.node_mut(VICTIM)
    }

    pub(super) fn netns(&self) -> &Netns {
        self.node().netns()
    }

    /// Whether Hawser is there as shipped; otherwise it must not be started either.
    pub(super) const fn is_armed(&self) -> bool {
        self.armed
    }

    pub(super) const fn chance(&mut self) -> &mut Chance {
        &mut self.chance
    }

    /// Runs a shell script on the node; the first command that fails ends it.
    pub(super) fn script(&self, text: &str) -> Result<()> {
        run(self.netns(), &format!("set -e\n{text}"))
    }

    /// The same, but what fails is passed over: Hawser may have repaired it before.
    pub(super) fn sweep(&self, text: &str) -> Result<()> {
        run(self.netns(), &format!("exec 2>/dev/null\n{text}\ntrue"))
    }

    pub(super) fn router_script(&self, text: &str) -> Result<()> {
        run(self.lab.router(), &format!("set -e\n{text}"))
    }

    /// The router by which the node reaches all others.
    pub(super) fn gateway(&self, family: Family) -> IpAddr {
        gateway(self.node().cluster_id(), family)
    }

    /// The pod prefixes of all other nodes.
    pub(super) fn prefixes(&self) -> Vec<IpNet> {
        let others = self.lab.nodes().iter().filter(|node| node.name() != VICTIM);
        others.flat_map(|node| node.pod_cidrs().to_vec()).collect()
    }

    /// The addresses of all pods of other nodes.
    pub(super) fn remote_pods(&self) -> Vec<IpAddr> {
        let others = self.lab.pods().filter(|pod| pod.node() != VICTIM);
        others.flat_map(|pod| pod.addresses().to_vec()).collect()
    }

    /// The address of the node's pod in the family of `other`.
    pub(super) fn pod_address(&self, other: IpAddr) -> Result<IpAddr> {
        let own = self.node().pod("a").addresses().iter();
        own.copied()
            .find(|address| address.is_ipv4() == other.is_ipv4())
            .with_context(|| format!("no pod that speaks to {other}"))
    }

    /// One line of script for each remote pod prefix, from `ip`'s option for the family, the prefix, and the router.
    pub(super) fn each_prefix(&self, line: impl Fn(&str, IpNet, IpAddr) -> String) -> String {
        let mut text = String::new();
        for prefix in self.prefixes() {
            let family = family_of(prefix.addr());
            writeln!(
                text,
                "{}",
                line(family.flag(), prefix, self.gateway(family))
            )
            .ok();
        }
        text
    }

    /// One line of script for each remote pod, from `ip`'s option for the family, the address, and the router.
    pub(super) fn each_pod(&self, line: impl Fn(&str, IpAddr, IpAddr) -> String) -> String {
        let mut text = String::new();
        for pod in self.remote_pods() {
            let family = family_of(pod);
            writeln!(text, "{}", line(family.flag(), pod, self.gateway(family))).ok();
        }
        text
    }

    /// One line of script for each family, from `ip`'s option for it and the router.
    pub(super) fn each_family(&self, line: impl Fn(&str, IpAddr) -> String) -> String {
        Family::BOTH
            .map(|family| line(family.flag(), self.gateway(family)) + "\n")
            .concat()
    }

    /// Fills a table of its own with a default route by the router; rules may send packets there.
    pub(super) fn foreign_table(&self) -> Result<()> {
        self.script(&self.each_family(|flag, gateway| {
            format!("ip {flag} route replace default via {gateway} dev eth0 table {FOREIGN_TABLE}")
        }))
    }

    /// Removes all rules that lead to that table, and the table.
    pub(super) fn no_foreign_table(&self) -> Result<()> {
        self.sweep(&self.each_family(|flag, _| {
            format!(
                "while ip {flag} rule del table {FOREIGN_TABLE}; do :; done\nip {flag} route flush table {FOREIGN_TABLE}"
            )
        }))
    }

    /// Gives `eth0`, or what took its place, the node's addresses and default routes.
    pub(super) fn address_underlay(&self, device: &str) -> Result<()> {
        let mut text =
            format!("ip link set {device} up\nip addr replace fe80::1:1/64 dev {device} nodad\n");
        for family in Family::BOTH {
            let (address, gateway) = (self.node().underlay(family), self.gateway(family));
            let (length, nodad) = match family {
                Family::V4 => (24, ""),
                Family::V6 => (64, "nodad"),
            };
            writeln!(
                text,
                "ip addr replace {address}/{length} dev {device} {nodad}"
            )?;
            writeln!(
                text,
                "ip {} route replace default via {gateway} dev {device}",
                family.flag()
            )?;
        }
        self.script(&text)
    }

    /// Takes `eth0` out of the node; the link to the router stays.
    pub(super) fn unplug(&self) -> Result<()> {
        let router = self.lab.router().name();
        self.script(&format!("ip link set eth0 netns {router} name unplugged"))
    }

    /// Puts it back, as a new device with the old name.
    pub(super) fn plug(&self) -> Result<()> {
        let node = self.netns().name();
        self.router_script(&format!("ip link set unplugged netns {node} name eth0"))?;
        self.address_underlay("eth0")
    }

    /// Plugs in the second link as `eth1`, up and without an address.
    pub(super) fn plug_spare(&self) -> Result<()> {
        let node = self.netns().name();
        self.router_script(&format!("ip link set {PARKED} netns {node} name eth1"))?;
        self.script("ip link set eth1 up")
    }

    /// Takes it out again.
    pub(super) fn unplug_spare(&self) -> Result<()> {
        let router = self.lab.router().name();
        self.sweep(&format!("ip link set eth1 netns {router} name {PARKED}"))
    }

    /// Takes a barrier away, and whoever would put it back.
    pub(super) fn disarm(&mut self, barrier: Barrier) -> Result<()> {
        self.armed = false;
        match barrier {
            Barrier::Guard | Barrier::Routes => self.signal(Signal::SIGSTOP)?,
            Barrier::Hawser => {
                self.node_mut().kill_agent()?;
                self.node_mut().kill_keeper()?;
            }
        }
        let unreachable =
            self.each_family(|flag, _| format!("ip {flag} route flush type unreachable proto 72"));
        self.script(&unreachable)?;
        match barrier {
            Barrier::Guard | Barrier::Hawser => self
                .script("nft delete table netdev hawser_guard; nft delete table inet hawser_guard"),
            Barrier::Routes => {
                self.script(&self.each_prefix(|flag, prefix, _| {
                    format!("ip {flag} route del {prefix} proto 72")
                }))
            }
        }
    }

    /// Makes Hawser what it was: everything runs.
    pub(super) fn arm(&mut self) -> Result<()> {
        self.armed = true;
        self.signal(Signal::SIGCONT)?;
        self.settle()
    }

    /// Starts what does not run, and waits until the node is as Hawser wants it.
    pub(super) fn settle(&mut self) -> Result<()> {
        let node = self.node_mut();
        if node.keeper_pid().is_none() {
            node.stop_keeper()?;
            node.start_keeper()?;
        }
        if node.agent_pid().is_none() {
            node.stop_agent()?;
            node.start_agent()?;
        }
        let peers = self.lab.nodes().len() - 1;
        self.node().wait_ready(peers, PATIENCE)?;
        wait_until("guard and routes stand again", PATIENCE, || {
            self.stands().map(|()| true)
        })?;
        self.node().route_pods()
    }

    /// Fails unless the guard's tables, the mesh routes and the unreachable routes are there.
    fn stands(&self) -> Result<()> {
        let netns = self.netns();
        for family in ["netdev", "inet"] {
            netns.output("nft", &["list", "table", family, "hawser_guard"])?;
        }
        for family in Family::BOTH {
            let routes = netns.output("ip", &[family.flag(), "route", "show", "proto", "72"])?;
            let own = |word: &str| routes.lines().filter(|line| line.contains(word)).count();
            let mesh = self
                .prefixes()
                .iter()
                .filter(|prefix| family_of(prefix.addr()) == family)
                .count();
            if own("dev hawser0") != mesh || own("unreachable") < self.lab.topology().clusters.len()
            {
                bail!("{family} routes: {routes}");
            }
        }
        Ok(())
    }

    /// Sends a signal to keeper and agent; the data plane goes on.
    fn signal(&self, signal: Signal) -> Result<()> {
        let node = self.node();
        for pid in [node.keeper_pid(), node.agent_pid()].into_iter().flatten() {
            send_signal(pid, signal)?;
        }
        Ok(())
    }
}

pub(super) const fn family_of(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

fn run(netns: &Netns, script: &str) -> Result<()> {
    let output = netns
        .command("sh")
        .args(["-c", script])
        .stdin(Stdio::null())
        .output()
        .context("failed to start sh")?;
    if !output.status.success() {
        bail!(
            "script in {} ended with {}: {}: {script}",
            netns.name(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
