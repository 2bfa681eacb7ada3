//! Makes the namespaces, links and addresses of a lab.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::{Context as _, Result};

use super::address::{
    POD_GATEWAY_V4, POD_GATEWAY_V6, gateway, link_local, underlay, underlay_length, world,
};
use super::node::{Link, Node};
use super::pod::Pod;
use super::topology::{Family, Topology};
use super::wire::Wire;
use crate::io::{Netns, ip_batch};
use crate::wire::{Attach, Request};

/// What a namespace is told before it has a device: no duplicate address detection, no router solicitations and no
/// addresses that nobody asked for, so that the underlay carries only what nodes mean to send. What the product needs
/// (forwarding and the like) is left to the product.
const QUIET: [(&str, &str); 5] = [
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/autoconf", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
    ("net/ipv6/conf/default/addr_gen_mode", "1"),
];

/// Makes namespaces with these full names.
pub(super) fn namespaces(names: &[String], mark: &str) -> Result<Vec<Netns>> {
    let commands: String = names
        .iter()
        .map(|name| format!("netns add {name}\n"))
        .collect();
    ip_batch(None, &commands)?;
    let mut made = Vec::new();
    for name in names {
        let netns = Netns::open(name)?.marked(mark);
        netns.run(|| -> Result<()> {
            for (key, value) in QUIET {
                let path = format!("/proc/sys/{key}");
                std::fs::write(&path, value).with_context(|| format!("failed to write {path}"))?;
            }
            Ok(())
        })??;
        netns.ip_batch("link set lo up\n")?;
        made.push(netns);
    }
    Ok(made)
}

/// The bridge of a site in the router namespace.
fn bridge(topology: &Topology, site: &str) -> String {
    let sites: BTreeSet<&str> = topology
        .clusters
        .iter()
        .map(super::topology::ClusterSpec::site)
        .collect();
    format!(
        "br{}",
        sites
            .iter()
            .position(|other| *other == site)
            .unwrap_or_default()
    )
}

/// The router: one bridge per site with a gateway address per cluster, and the world behind it.
pub(super) fn router(topology: &Topology, router: &Netns) -> Result<()> {
    for key in [
        "net.ipv4.ip_forward",
        "net.ipv6.conf.all.forwarding",
        "net.ipv6.conf.default.forwarding",
    ] {
        router.sysctl_set(key, "1")?;
    }
    let mut commands = String::new();
    let mut bridges = BTreeSet::new();
    for cluster in &topology.clusters {
        let name = bridge(topology, cluster.site());
        if bridges.insert(name.clone()) {
            // Left alone it would have the address of a port, and another one when that port goes.
            let number = u16::try_from(bridges.len()).context("too many sites")?;
            let mac = mac([0x0e, 0x56], 0, number);
            writeln!(
                commands,
                "link add {name} mtu {} address {mac} type bridge mcast_snooping 0",
                topology.underlay.mtu
            )?;
            writeln!(commands, "link set {name} up")?;
            writeln!(
                commands,
                "addr add {}/64 dev {name} nodad",
                link_local(0, 0xfffe)
            )?;
        }
        for family in Family::BOTH {
            let (address, length) = (gateway(cluster.id, family), underlay_length(family));
            writeln!(
                commands,
                "addr add {address}/{length} dev {name}{}",
                nodad(address)
            )?;
        }
    }
    for family in Family::BOTH {
        writeln!(
            commands,
            "addr add {} dev lo{}",
            world(family),
            nodad(world(family))
        )?;
    }
    router.ip_batch(&commands)
}

/// What a link connects.
pub(super) struct Ends<'a> {
    /// The router's namespace.
    pub(super) router: &'a Netns,
    /// The node's, or a guest's.
    pub(super) netns: &'a Netns,
    /// Its name for people.
    pub(super) name: &'a str,
    /// As a node of this cluster.
    pub(super) cluster: u16,
    /// With this index.
    pub(super) index: u16,
}

/// Connects a namespace to the underlay of a cluster: `eth0` with addresses and default routes, and a port on the
/// site's bridge. A veth, or the two ends of a wire, of which those that were there before are replaced. Returns the
/// port, where a sniffer sees both directions.
pub(super) fn underlay_link(
    topology: &Topology,
    ends: &Ends<'_>,
    wire: Option<&Wire>,
) -> Result<Link> {
    let &Ends {
        router,
        netns,
        name,
        cluster,
        index,
    } = ends;
    let port = format!("p{cluster}-{index}");
    let site = topology
        .clusters
        .iter()
        .find(|spec| spec.id == cluster)
        .with_context(|| format!("no cluster with ID {cluster} in this lab"))?
        .site();
    let (mtu, bridge) = (topology.underlay.mtu, bridge(topology, site));
    // Fixed, as a machine's are over its reboots. By chance they would differ between labs of the same seed, too.
    let own = mac([0x0a, 0x57], cluster, index);
    let other = mac([0x0e, 0x57], cluster, index);
    let (mut of_router, mut commands) = (String::new(), String::new());
    if let Some(wire) = wire {
        let attach = Attach {
            netns: netns.name().to_owned(),
            router: router.name().to_owned(),
            port: port.clone(),
            seed: topology.underlay.seed,
            cluster,
            index,
        };
        wire.ask(&Request::Attach(name.to_owned(), attach))?;
        let queue = WIRE_QUEUE;
        writeln!(
            of_router,
            "link set {port} mtu {mtu} txqueuelen {queue} address {other}"
        )?;
        writeln!(
            commands,
            "link set eth0 mtu {mtu} txqueuelen {queue} address {own}"
        )?;
    } else {
        writeln!(
            of_router,
            "link add {port} mtu {mtu} address {other} type veth peer name eth0 mtu {mtu} address {own} netns {}",
            netns.name()
        )?;
    }
    writeln!(of_router, "link set {port} master {bridge}")?;
    writeln!(of_router, "link set {port} up")?;
    router.ip_batch(&of_router)?;
    writeln!(commands, "link set eth0 up")?;
    writeln!(
        commands,
        "addr add {}/64 dev eth0 nodad",
        link_local(cluster, index)
    )?;
    for family in Family::BOTH {
        let (address, length) = (underlay(cluster, index, family), underlay_length(family));
        writeln!(
            commands,
            "addr add {address}/{length} dev eth0{}",
            nodad(address)
        )?;
        writeln!(
            commands,
            "route add default via {} dev eth0",
            gateway(cluster, family)
        )?;
    }
    netns.ip_batch(&commands)?;
    Ok(Link {
        name: name.to_owned(),
        netns: router.clone(),
        device: port,
    })
}

/// The MAC address of a bridge or of one end of an underlay link.
pub(super) fn mac([first, second]: [u8; 2], cluster: u16, index: u16) -> String {
    let ([a, b], [c, d]) = (cluster.to_be_bytes(), index.to_be_bytes());
    format!("{first:02x}:{second:02x}:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// Frames that wait in the kernel for the process of the wires: a second of the heaviest load of any test, so that a
/// busy machine loses nothing that the wire does not know of.
const WIRE_QUEUE: u32 = 10_000;

/// Connects a pod to its node.
///
/// Both ends know each other's MAC address for good, and the pod's gateway is a link-local address on its link: no ARP,
/// no subnet, nothing shared between pods.
pub(super) fn pod_link(topology: &Topology, node: &Netns, pod: &Pod) -> Result<()> {
    let (mtu, device) = (topology.underlay.mtu, pod.host_device());
    let mut commands = format!(
        "link add {device} mtu {mtu} address {} type veth peer name eth0 mtu {mtu} address {} netns {}\n\
         link set {device} up\n",
        pod.host_mac(),
        pod.mac(),
        pod.netns().name()
    );
    for address in pod.addresses() {
        writeln!(
            commands,
            "neigh replace {address} lladdr {} dev {device} nud permanent",
            pod.mac()
        )?;
        // Stays when the router address goes: without a source of its own, and only used then.
        let metric = if address.is_ipv4() { 200 } else { 2048 };
        writeln!(
            commands,
            "route replace {address} dev {device} metric {metric}"
        )?;
    }
    node.ip_batch(&commands)?;

    let mut commands = String::from("link set eth0 up\n");
    for address in pod.addresses() {
        let gateway = match address {
            IpAddr::V4(_) => IpAddr::V4(POD_GATEWAY_V4),
            IpAddr::V6(_) => IpAddr::V6(POD_GATEWAY_V6),
        };
        writeln!(commands, "addr add {address} dev eth0{}", nodad(*address))?;
        // A router, as its own advertisements would say: else the kernel forgets the path MTU of IPv6 every 30 s.
        writeln!(
            commands,
            "neigh replace {gateway} lladdr {} dev eth0 nud permanent router",
            pod.host_mac()
        )?;
        writeln!(commands, "route add default via {gateway} dev eth0 onlink")?;
    }
    pod.netns().ip_batch(&commands)
}

/// Routes from a node to its pods with the router address as source, so that what the node itself says to a pod (ICMP
/// errors, probes) comes from a legal address. Works only once the agent has put the router address on its device.
pub(super) fn pod_routes(node: &Node) -> Result<()> {
    let mut commands = String::new();
    for pod in node.pods() {
        for address in pod.addresses() {
            let router = node
                .router(super::address::family_of(*address))
                .context("a pod without a router address")?;
            let metric = if address.is_ipv4() {
                ""
            } else {
                " metric 1024"
            };
            writeln!(
                commands,
                "route replace {address} dev {} src {router}{metric}",
                pod.host_device()
            )?;
        }
    }
    node.netns().ip_batch(&commands)
}

pub(super) const fn nodad(address: IpAddr) -> &'static str {
    if address.is_ipv6() { " nodad" } else { "" }
}
