//! Where the hunt takes place: a lab, and in it the node that everything is done to.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;

use super::{Chance, underlay};
use crate::depth::is_soak;
use crate::io::Netns;
use crate::lab::{ClusterSpec, Family, Lab, Node, Topology, UnderlaySpec, gateway};
use crate::sniffer::Sniffer;

/// The node that everything is done to.
const VICTIM: &str = "east-1";
/// How long a busy machine may take to repair a node.
pub(super) const PATIENCE: Duration = Duration::from_secs(40);
/// The longest wait between two acts of a soak.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// The routing table that foreign tools of ours use.
pub(super) const FOREIGN_TABLE: u32 = 77;

/// A lab of two clusters, and the node that everything is done to.
#[derive(Debug)]
pub struct Site {
    pub(super) lab: Lab,
    pub(super) armed: bool,
    chance: Chance,
}

impl Site {
    pub(super) fn start() -> Result<Self> {
        let cluster = |name: &str, id| ClusterSpec {
            name: name.to_owned(),
            id,
            site: None,
            nodes: 2,
            lanes: 1,
            hubs: 0,
            pods: 1,
            families: Family::BOTH.to_vec(),
            prefixes: Vec::new(),
        };
        let topology = Topology {
            clusters: vec![cluster("east", 1), cluster("west", 2)],
            underlay: UnderlaySpec::default(),
            joining: false,
            revoking: false,
        };
        let lab = Lab::running(topology)?;
        underlay::spare_link(&lab)?;
        // Nodes that send by the router what is on their own link would be told so: the router's doing, not theirs.
        run(
            lab.router(),
            "for file in /proc/sys/net/ipv4/conf/*/send_redirects; do echo 0 >$file; done",
        )?;
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
        links.push(underlay::spare(&self.lab));
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

    /// In a soak waits for a time by chance, so that acts meet each state of processes and timers.
    pub(super) fn dawdle(&mut self) {
        if is_soak() {
            thread::sleep(self.chance.delay(LONGEST_WAIT));
        }
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
            let family = Family::of(prefix.addr());
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
            let family = Family::of(pod);
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
