//! Two nodes that are joined by one veth, a pod on each, and every variant beside the others between the pods.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::condition::{Condition, PREFIXES};
use super::tunnel::{Ends, Tunnel};
use super::variant::Variant;
use crate::bench::meter::{Meter, peak_memory};
use crate::io::{Netns, device_bytes};
use crate::lab::{Family, Lab, NodeConfig, wait_until};
use crate::stock::pod_mtu;
use crate::traffic::Ping;

/// How long a busy machine may take until all is in place.
const READY: Duration = Duration::from_secs(30);
/// The TAP of Hawser in a lab.
const TAP: &str = "hawser0";

/// One variant between the two pods.
#[derive(Debug)]
pub(super) struct Way {
    /// The sending pod's address and the receiving pod's, by which this variant is chosen.
    pub(super) addresses: [IpAddr; 2],
    /// The tunnel's device on the receiving node.
    device: Option<String>,
    /// The variant's own processes, of both nodes.
    processes: Vec<i32>,
}

/// A lab with its variants. Dropping it removes all.
#[derive(Debug)]
pub(super) struct Site {
    ways: BTreeMap<Variant, Way>,
    /// Dropped before the lab: their programs end in order.
    _tunnels: Vec<Tunnel>,
    congestion: &'static str,
    lab: Lab,
}

impl Site {
    /// Builds the network, starts every variant, and waits until each carries a ping.
    pub(super) fn build(condition: Condition, variants: &[Variant]) -> Result<Self> {
        let lanes = variants.iter().find_map(|variant| variant.lanes());
        let topology = condition.topology()?;
        let mut lab = Lab::new(match lanes {
            Some(lanes) => topology.with_lanes(&[lanes]),
            None => topology,
        })?;
        condition.prepare(&lab)?;
        for node in lab.nodes() {
            // The agent sets it too, where there is one.
            node.netns().sysctl_set("net.ipv4.ip_forward", "1")?;
        }
        let ours = variants.iter().find(|variant| variant.is_ours());
        if let Some(ours) = ours {
            start(&mut lab, *ours, condition)?;
        }
        let congestion = condition.congestion_control();
        let (mut ways, mut tunnels) = (BTreeMap::new(), Vec::new());
        for (number, variant) in (0_u8..).zip(variants) {
            let way = match variant {
                Variant::Hawser
                | Variant::NullCipher
                | Variant::TwoLanes
                | Variant::SixteenLanes => hawser(&lab, congestion)?,
                Variant::Raw => raw(&lab, &Ends::new(&lab, number, congestion)?)?,
                Variant::Stock(implementation) => {
                    let ends = Ends::new(&lab, number, congestion)?;
                    let tunnel = Tunnel::start(&lab, *implementation, &ends, more(condition))
                        .with_context(|| format!("variant {}", variant.name()))?;
                    let way = Way {
                        addresses: ends.pods.map(IpAddr::V4),
                        device: Some(tunnel.device().to_owned()),
                        processes: tunnel.processes()?,
                    };
                    tunnels.push(tunnel);
                    way
                }
            };
            ways.insert(*variant, way);
        }
        let site = Self {
            ways,
            _tunnels: tunnels,
            congestion,
            lab,
        };
        for variant in variants {
            site.wait_until_carries(*variant)?;
        }
        condition.begin(&site.lab)?;
        Ok(site)
    }

    /// Removes everything and says what could not be removed.
    pub(super) fn remove(self) -> Result<()> {
        let Self { _tunnels, lab, .. } = self;
        drop(_tunnels);
        lab.remove()
    }

    /// Waits until a ping comes back, which also makes the sessions.
    fn wait_until_carries(&self, variant: Variant) -> Result<()> {
        let [_, to] = self.way(variant)?.addresses;
        let what = format!("variant {} carries pings", variant.name());
        wait_until(&what, READY, || {
            let ping = Ping::new(to).deadline(Duration::from_millis(500));
            Ok(ping.run(self.from())?.is_complete())
        })
    }

    /// The sending pod's namespace.
    pub(super) fn from(&self) -> &Netns {
        self.lab.node("east-1").pod("a").netns()
    }

    /// The receiving pod's namespace.
    pub(super) fn to(&self) -> &Netns {
        self.lab.node("west-1").pod("a").netns()
    }

    /// How the pods' TCP finds its rate.
    pub(super) const fn congestion_control(&self) -> &'static str {
        self.congestion
    }

    /// A variant that was asked for.
    pub(super) fn way(&self, variant: Variant) -> Result<&Way> {
        let way = self.ways.get(&variant);
        way.with_context(|| format!("variant {} was not built", variant.name()))
    }

    /// Watches the processes of a variant.
    pub(super) fn meter(&self, variant: Variant) -> Result<Meter> {
        Ok(Meter::new(self.way(variant)?.processes.clone()))
    }

    /// The largest peak of the processes of a variant, in MiB; none for a variant without processes.
    pub(super) fn peak_memory(&self, variant: Variant) -> Result<Option<f64>> {
        let mut peaks = self
            .way(variant)?
            .processes
            .iter()
            .map(|pid| peak_memory(*pid));
        peaks.try_fold(None, |most, peak| {
            Ok(Some(f64::max(most.unwrap_or_default(), peak?)))
        })
    }

    /// Bytes that each variant's device on the receiving node has carried, both ways.
    pub(super) fn carried(&self) -> Result<BTreeMap<Variant, u64>> {
        let netns = self.lab.node("west-1").netns();
        let devices = self.ways.iter().filter_map(|(variant, way)| {
            let device = way.device.as_deref()?;
            Some(device_bytes(netns, device).map(|bytes| (*variant, bytes)))
        });
        devices.collect()
    }
}

/// Puts Hawser on both nodes.
fn start(lab: &mut Lab, variant: Variant, condition: Condition) -> Result<()> {
    if variant == Variant::NullCipher {
        let program = null_cipher()?;
        for node in lab.nodes() {
            node.install_tunnel(&program)?;
        }
    }
    for node in lab.nodes_mut() {
        node.set_without(condition.without());
    }
    let edit: Option<fn(&mut NodeConfig)> = if condition == Condition::Prefixes {
        Some(widen)
    } else if condition == Condition::FilledSums {
        Some(fill)
    } else {
        None
    };
    if let Some(edit) = edit {
        lab.configure()?;
        for node in lab.nodes() {
            node.edit_config(edit)?;
        }
        for node in lab.nodes_mut() {
            node.start_keeper()?;
        }
        for node in lab.nodes_mut() {
            node.start_agent()?;
        }
    } else {
        lab.start()?;
    }
    lab.wait_ready(READY)
}

/// Has the node fill in checksums.
fn fill(config: &mut NodeConfig) {
    config.tunnel.checksums = Some("filled".to_owned());
}

/// Gives each cluster prefixes up to [`PREFIXES`], all of them its only node's.
fn widen(config: &mut NodeConfig) {
    for cluster in &mut config.clusters {
        let first = cluster.id;
        let prefixes = (1..PREFIXES).filter_map(|number| {
            let [high, low] = number.to_be_bytes();
            format!("172.{}.{low}.0/24", 8 * first + 8 + u32::from(high))
                .parse()
                .ok()
        });
        let prefixes: Vec<ipnet::IpNet> = prefixes.collect();
        for peer in config
            .peers
            .iter_mut()
            .filter(|peer| peer.cluster == cluster.name)
        {
            peer.prefixes.extend(&prefixes);
        }
        cluster.prefixes.extend(prefixes);
    }
}

/// How many prefixes a stock tunnel gets beside that of the pod.
const fn more(condition: Condition) -> u16 {
    if matches!(condition, Condition::Prefixes) {
        PREFIXES - 1
    } else {
        0
    }
}

/// The build of `hawser-tunnel` whose cipher does nothing, beside the target directory of the running program.
fn null_cipher() -> Result<PathBuf> {
    let own = std::env::current_exe().context("failed to find the running program")?;
    let found = own
        .ancestors()
        .map(|directory| directory.join("null-cipher/release/hawser-tunnel"))
        .find(|path| path.is_file());
    found.context(
        "variant null-cipher: no null-cipher/release/hawser-tunnel in the target directory; `make bench` builds it",
    )
}

/// Pod to pod through Hawser, by the pods' own addresses.
fn hawser(lab: &Lab, congestion: &str) -> Result<Way> {
    let nodes = [lab.node("east-1"), lab.node("west-1")];
    let mut processes = Vec::new();
    for (own, other) in [(nodes[0], nodes[1]), (nodes[1], nodes[0])] {
        let keeper = own.keeper_pid();
        processes.push(keeper.with_context(|| format!("{} has no keeper", own.name()))?);
        let data_plane = own.data_plane_pid();
        processes.push(data_plane.with_context(|| format!("{} has no data plane", own.name()))?);
        let mtu = pod_mtu(own, other.name(), Family::V4)?;
        let (pod, to) = (own.pod("a"), other.pod("a").v4());
        route_in_pod(pod.netns(), [pod.v4(), to], mtu, congestion)?;
    }
    Ok(Way {
        addresses: nodes.map(|node| node.pod("a").v4()),
        device: Some(TAP.to_owned()),
        processes,
    })
}

/// Pod to pod in clear.
fn raw(lab: &Lab, ends: &Ends) -> Result<Way> {
    let mtu = usize::try_from(lab.topology().underlay.mtu).context("MTU does not fit")?;
    for (own, other) in [(0, 1), (1, 0)] {
        let node = lab.node(ends.nodes[own]);
        let via = lab.node(ends.nodes[other]).underlay(Family::V4);
        ends.join_pod(lab, own, mtu)?;
        let to = ends.pods[other];
        node.netns()
            .ip_batch(&format!("route add {to}/32 via {via} dev eth0 onlink\n"))?;
    }
    Ok(Way {
        addresses: ends.pods.map(IpAddr::V4),
        device: None,
        processes: Vec::new(),
    })
}

/// Tells a pod how large packets from its address to another may be, so that no variant begins with packets that are too
/// big, and how its TCP finds its rate. A namespace may choose for itself only among the algorithms that the machine
/// allows, and a connection that chooses after it began keeps the pacing of the machine's default.
pub(super) fn route_in_pod(
    pod: &Netns,
    [own, to]: [IpAddr; 2],
    mtu: usize,
    congestion: &str,
) -> Result<()> {
    let gateway = crate::lab::address::POD_GATEWAY_V4;
    pod.ip_batch(&format!(
        "route replace {to}/32 via {gateway} dev eth0 onlink src {own} mtu {mtu} congctl {congestion}\n"
    ))
}

/// Checks that `bytes` of payload went through the device of `variant` and of no other.
pub(super) fn check_passage(
    variant: Variant,
    bytes: f64,
    before: &BTreeMap<Variant, u64>,
    after: &BTreeMap<Variant, u64>,
) -> Result<()> {
    /// Handshakes' first pings, neighbour discovery on a device and the like.
    const REST: f64 = 65_536.0;
    for (other, after) in after {
        let before = before.get(other).copied().unwrap_or_default();
        let grown = after.saturating_sub(before) as f64;
        let name = other.name();
        if *other == variant {
            ensure!(
                grown >= bytes * 0.99,
                "variant {name}: {bytes} bytes arrived, but its tunnel carried {grown}: they went another way"
            );
        } else {
            ensure!(
                grown <= REST + bytes * 0.01,
                "variant {}: the tunnel of {name} carried {grown} bytes meanwhile: they went another way",
                variant.name()
            );
        }
    }
    Ok(())
}

/// Where a variant's files are.
pub(super) fn directory(lab: &Lab, node: &str, variant: &str) -> PathBuf {
    Path::new(&lab.dir()).join(node).join(variant)
}

#[cfg(test)]
mod tests {
    use super::super::variant::{HAWSER, NEWEST};
    use super::*;

    #[test]
    fn bytes_that_went_another_way_are_noticed() {
        let named = |name| Variant::named(name).unwrap();
        let counters =
            |hawser, newest| BTreeMap::from([(named(HAWSER), hawser), (named(NEWEST), newest)]);
        let check = |variant: Variant, hawser: u64, newest: u64| {
            check_passage(
                variant,
                1e6,
                &counters(5, 7),
                &counters(5 + hawser, 7 + newest),
            )
        };
        check(named(HAWSER), 1_050_000, 100).unwrap();
        check(Variant::Raw, 100, 100).unwrap();
        assert!(check(named(HAWSER), 980_000, 0).is_err(), "too few");
        assert!(
            check(named(HAWSER), 1_050_000, 1_050_000).is_err(),
            "through both"
        );
        assert!(check(Variant::Raw, 0, 1_050_000).is_err(), "not in clear");
    }
}
