//! One veth between the two nodes of a lab, in place of bridges and a router.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};

use super::address::{link_local, underlay, underlay_length};
use super::build::{mac, nodad};
use super::node::Link;
use super::topology::{Family, Topology};
use crate::io::Netns;

/// Joins the two nodes: `eth0` of each with its usual addresses. Everything that is not on a node is looked for at the
/// other end, so there are no gateways.
pub(super) fn lay(topology: &Topology, find: impl Fn(&str) -> Result<Netns>) -> Result<()> {
    let clusters = topology.clusters.iter();
    let ends = clusters.flat_map(|cluster| (1..=cluster.nodes).map(|index| (cluster.id, index)));
    let ends: Vec<(u16, u16)> = ends.collect();
    let nodes: Vec<Netns> = topology
        .node_names()
        .iter()
        .map(|name| find(name))
        .collect::<Result<_>>()?;
    let ([one, other], [from, to]) = (ends.as_slice(), nodes.as_slice()) else {
        bail!("underlay.direct: needs two nodes");
    };
    let (mtu, own) = (topology.underlay.mtu, |(cluster, index): (u16, u16)| {
        mac([0x0a, 0x57], cluster, index)
    });
    from.ip_batch(&format!(
        "link add eth0 mtu {mtu} address {} type veth peer name eth0 mtu {mtu} address {} netns {}\n",
        own(*one),
        own(*other),
        to.name()
    ))?;
    for (netns, (cluster, index)) in nodes.iter().zip(ends) {
        let mut commands = String::from("link set eth0 up\n");
        let link_local = link_local(cluster, index);
        writeln!(commands, "addr add {link_local}/64 dev eth0 nodad")?;
        for (family, all) in [(Family::V4, "0.0.0.0/0"), (Family::V6, "::/0")] {
            let address = underlay(cluster, index, family);
            let (length, nodad) = (underlay_length(family), nodad(address));
            writeln!(commands, "addr add {address}/{length} dev eth0{nodad}")?;
            writeln!(commands, "route add {all} dev eth0")?;
        }
        netns.ip_batch(&commands)?;
    }
    Ok(())
}

/// The link of a node: seen from the other node, as there is no router's port. Both links see the same frames.
pub(super) fn link(
    topology: &Topology,
    name: &str,
    find: impl Fn(&str) -> Result<Netns>,
) -> Result<Link> {
    let names = topology.node_names();
    let other = names.iter().find(|other| *other != name);
    let other = other.with_context(|| format!("node {name} has no other end"))?;
    Ok(Link {
        name: name.to_owned(),
        netns: find(other)?,
        device: "eth0".to_owned(),
    })
}
