//! Somebody else's WireGuard between the two nodes, beside Hawser.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result};

use super::site::{directory, route_in_pod};
use crate::lab::{Lab, Node};
use crate::stock::{Implementation, StockDevice};

/// IPv6, UDP and WireGuard, as `wg-quick` reckons for both families.
const AROUND: u32 = 80;
/// UDP ports of the tunnels begin behind WireGuard's usual one, which is Hawser's.
const FIRST_PORT: u16 = 51_830;

/// What the addresses of one variant follow from.
#[derive(Debug)]
pub(super) struct Ends {
    number: u8,
    pub(super) nodes: [&'static str; 2],
    /// One more address of each pod, for this variant alone: 10.(100 + n).1.1 and 10.(100 + n).2.1.
    pub(super) pods: [Ipv4Addr; 2],
    /// How the pods' TCP finds its rate.
    congestion: &'static str,
}

impl Ends {
    /// Of variant number `number`, from 0. No address is in a prefix of the mesh, which Hawser would guard.
    pub(super) fn new(lab: &Lab, number: u8, congestion: &'static str) -> Result<Self> {
        let second = 100_u8.checked_add(number).context("too many variants")?;
        let pods = [1, 2].map(|side| Ipv4Addr::new(10, second, side, 1));
        let mesh = lab.mesh();
        let guarded = pods.iter().find(|pod| {
            mesh.iter()
                .any(|prefix| prefix.contains(&IpAddr::V4(**pod)))
        });
        anyhow::ensure!(guarded.is_none(), "{guarded:?} is in a prefix of the mesh");
        Ok(Self {
            number,
            nodes: ["east-1", "west-1"],
            pods,
            congestion,
        })
    }

    /// Gives the pod of side `own` its address, and its node the way to it. Packets to the other side may have `mtu`
    /// bytes.
    pub(super) fn join_pod(&self, lab: &Lab, own: usize, mtu: usize) -> Result<()> {
        let node = lab.node(self.nodes[own]);
        let (pod, address, to) = (node.pod("a"), self.pods[own], self.pods[1 - own]);
        pod.netns()
            .ip_batch(&format!("addr add {address}/32 dev eth0\n"))?;
        let (device, mac) = (pod.host_device(), pod.mac());
        node.netns().ip_batch(&format!(
            "neigh replace {address} lladdr {mac} dev {device} nud permanent\n\
             route replace {address}/32 dev {device}\n"
        ))?;
        let ends = [address.into(), to.into()];
        route_in_pod(pod.netns(), ends, mtu, self.congestion)
    }
}

/// The two ends of one tunnel. Dropping it ends their programs.
#[derive(Debug)]
pub(super) struct Tunnel {
    ends: [StockDevice; 2],
}

impl Tunnel {
    /// Starts a program on each node, makes them known to each other, and leads the variant's addresses, and `more`
    /// prefixes that nobody uses, into it.
    pub(super) fn start(
        lab: &Lab,
        implementation: Implementation,
        ends: &Ends,
        more: u16,
    ) -> Result<Self> {
        let mtu = lab.topology().underlay.mtu - AROUND;
        let port = FIRST_PORT + u16::from(ends.number);
        let start = |side: usize| -> Result<StockDevice> {
            let node = lab.node(ends.nodes[side]);
            let device = format!("hw{}b{}{side}", lab.id(), ends.number);
            let owner = format!("{} of {}", implementation.name(), node.name());
            let files = directory(lab, node.name(), implementation.name());
            StockDevice::start(
                implementation,
                &owner,
                node.netns(),
                (&device, port),
                &files,
            )
        };
        let devices = [start(0)?, start(1)?];
        for (own, other) in [(0, 1), (1, 0)] {
            let node = lab.node(ends.nodes[own]);
            let allowed = allowed(ends.pods[other], more);
            let endpoint = endpoint(lab.node(ends.nodes[other]), port);
            devices[own].set(&[
                "peer",
                devices[other].public_key(),
                "endpoint",
                &endpoint,
                "allowed-ips",
                &allowed.join(","),
            ])?;
            let device = devices[own].name();
            let mut commands = format!("link set {device} mtu {mtu} up\n");
            for prefix in &allowed {
                writeln!(commands, "route add {prefix} dev {device}")?;
            }
            node.netns().ip_batch(&commands)?;
            let mtu = usize::try_from(mtu).context("MTU does not fit")?;
            ends.join_pod(lab, own, mtu)?;
        }
        Ok(Self { ends: devices })
    }

    /// The device on the receiving node.
    pub(super) fn device(&self) -> &str {
        self.ends[1].name()
    }

    /// The processes of both ends.
    pub(super) fn processes(&self) -> Result<Vec<i32>> {
        let pids = self.ends.iter().map(|end| {
            let log = || format!("{} has ended: {}", end.name(), end.log());
            end.pid().with_context(log)
        });
        pids.collect()
    }
}

/// The other pod's address, and as many /24 behind it as asked for, out of 100.64.0.0/10.
fn allowed(pod: Ipv4Addr, more: u16) -> Vec<String> {
    let prefixes = (0..more).map(|number| {
        let [high, low] = number.to_be_bytes();
        format!("100.{}.{low}.0/24", 64 + high)
    });
    std::iter::once(format!("{pod}/32"))
        .chain(prefixes)
        .collect()
}

/// Where the tunnel of a node listens.
fn endpoint(node: &Node, port: u16) -> String {
    let mut endpoint = node.endpoint();
    endpoint.set_port(port);
    endpoint.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_prefixes_are_different_and_not_the_pods() {
        let allowed = allowed(Ipv4Addr::new(10, 104, 2, 1), 999);
        assert_eq!(allowed[0], "10.104.2.1/32");
        assert_eq!(
            (allowed[1].as_str(), allowed[999].as_str()),
            ("100.64.0.0/24", "100.67.230.0/24")
        );
        let different: std::collections::BTreeSet<&String> = allowed.iter().collect();
        assert_eq!(different.len(), 1000);
    }
}
