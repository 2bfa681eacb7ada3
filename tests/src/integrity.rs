//! Whether each byte that a pod sent came to the other pod, as it was, once.
//!
//! What is sent follows from a seed, so that the receiver knows every byte without being told, and a failure can be had
//! again. [`Flow`]s are whole TCP connections, [`Writes`] and [`Datagrams`] go through all sizes, [`Bursts`] are cut and
//! joined by the kernel's UDP offloads, and [`Raw`] puts frames beside the pods' own TCP and IP: there the kernel hides
//! nothing. [`Offloads`] changes what the devices between them do.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::lab::{ClusterSpec, Family, Lab, Pod, Topology};
use crate::traffic::Ping;

mod bursts;
mod datagrams;
mod flows;
mod offloads;
mod raw;
mod segment;
mod stream;
mod superframe;
mod writes;

pub use bursts::{BurstReport, Bursts};
pub use datagrams::{DatagramReport, Datagrams, Pace};
pub use flows::{Flow, FlowsReport, run_flows};
pub use offloads::{Offloads, Place, VARIANTS, Variant};
pub use raw::{Arrived, Raw};
pub use segment::{Datagram, Segment, ip_packet};
pub use stream::Stream;
pub use superframe::Superframe;
pub use writes::{Writes, WritesReport};

/// Two clusters of one node with one pod: the shortest way through a tunnel.
#[must_use]
pub fn one_by_one() -> Topology {
    let mut topology = Topology::two_by_two();
    let one = |cluster: &mut ClusterSpec| (cluster.nodes, cluster.pods) = (1, 1);
    topology.clusters.iter_mut().for_each(one);
    topology
}

/// The pods of [`one_by_one`].
pub const PODS: [&str; 2] = ["east-1-a", "west-1-a"];

/// The largest packet between pods of a lab that goes in one piece, by family, in bytes.
#[must_use]
pub fn path_mtu(lab: &Lab, family: Family) -> usize {
    let underlay = u16::try_from(lab.topology().underlay.mtu).unwrap_or(u16::MAX);
    let peer = lab.nodes()[0].endpoint().ip();
    usize::from(match family {
        Family::V4 => hawser_tunnel::mtu::pod(underlay, peer),
        Family::V6 => hawser_tunnel::mtu::pod_ipv6(underlay, peer),
    })
}

/// Has both pods learn the path's MTU, by a packet that is too big, as any sender does: a lab's pods start with that of
/// the underlay, and what is lost until they know better is nobody's fault.
///
/// # Errors
/// When they were told another MTU than [`path_mtu`].
pub fn learn_path_mtu(lab: &Lab, pods: [&str; 2]) -> Result<()> {
    let [one, other] = pods.map(|name| lab.pod(name));
    for (from, to) in [(one, other), (other, one)] {
        for family in Family::BOTH {
            let (to, headers) = (
                address(to, family)?,
                if family == Family::V4 { 28 } else { 48 },
            );
            let expected = path_mtu(lab, family);
            let ping = Ping::new(to)
                .dont_fragment()
                .deadline(Duration::from_secs(3));
            let report = ping.size(expected + 1 - headers).run(from.netns())?;
            let told = report.too_big.and_then(|told| usize::try_from(told).ok());
            anyhow::ensure!(
                told == Some(expected),
                "{} was told {told:?} and not {expected} on the way to {to}: {}",
                from.name(),
                report.output
            );
        }
    }
    Ok(())
}

pub(crate) fn address(pod: &Pod, family: Family) -> Result<IpAddr> {
    let address = pod.address(family);
    address.with_context(|| format!("pod {} has no {family} address", pod.name()))
}
