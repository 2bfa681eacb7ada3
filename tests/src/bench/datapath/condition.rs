//! What the network between the nodes, and the mesh, are like.

use anyhow::{Context as _, Result};
use hawser_tunnel::offload::Offload;

use crate::io::Netns;
use crate::lab::{Family, Lab, Topology};

/// Prefixes of each cluster under [`Condition::Prefixes`].
pub(super) const PREFIXES: u16 = 1_000;

/// One condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Condition {
    /// Underlay MTU 1500, IPv4, every offload of the veth on, few prefixes.
    Base,
    /// The underlay carries no super-frames: no TSO, GSO, GRO and no UDP segmentation on it.
    OffloadsOff,
    /// Underlay MTU 9000.
    Jumbo,
    /// Nodes reach each other by IPv6.
    Ipv6,
    /// Each packet of the underlay is lost with a chance of 1 %, in each direction. Without offloads, or 44 packets
    /// would be lost at once.
    Loss,
    /// Each cluster has 1,000 prefixes.
    Prefixes,
    /// The pods send by BBR, which paces: super-frames come one by one, and less can be done at once.
    Bbr,
    /// Hawser sends datagrams one by one.
    NoGso,
    /// Hawser receives datagrams one by one.
    NoGro,
    /// Hawser writes every packet to the TAP alone.
    NoJoin,
    /// Hawser's TAP hands over every packet alone.
    NoTso,
    /// Hawser fills in every checksum itself, and joins only what it has checked.
    FilledSums,
}

pub(super) const BASE: &str = "base";

/// Every condition with its name.
const ALL: [(&str, Condition); 12] = [
    (BASE, Condition::Base),
    ("offloads-off", Condition::OffloadsOff),
    ("mtu-9000", Condition::Jumbo),
    ("ipv6", Condition::Ipv6),
    ("loss-1", Condition::Loss),
    ("prefixes-1000", Condition::Prefixes),
    ("bbr", Condition::Bbr),
    ("no-udp-gso", Condition::NoGso),
    ("no-udp-gro", Condition::NoGro),
    ("no-join", Condition::NoJoin),
    ("no-tap-tcp", Condition::NoTso),
    ("checksums-filled", Condition::FilledSums),
];

/// Every condition by its name.
pub(super) const NAMES: [&str; 12] = [
    ALL[0].0, ALL[1].0, ALL[2].0, ALL[3].0, ALL[4].0, ALL[5].0, ALL[6].0, ALL[7].0, ALL[8].0,
    ALL[9].0, ALL[10].0, ALL[11].0,
];

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "most conditions change one thing"
)]
impl Condition {
    /// The condition of one of [`NAMES`].
    pub(super) fn named(name: &str) -> Option<Self> {
        let found = ALL.iter().find(|(other, _)| *other == name);
        found.map(|(_, condition)| *condition)
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        let found = ALL.iter().find(|(_, condition)| *condition == self);
        found.map_or(BASE, |(name, _)| name)
    }

    /// Two clusters of one node with one pod each, joined by one veth.
    pub(super) fn topology(self) -> Result<Topology> {
        let topology = Topology::parse(
            "clusters: [{name: east, id: 1, nodes: 1, pods: 1}, {name: west, id: 2, nodes: 1, pods: 1}]",
        )?;
        let (family, mtu) = match self {
            Self::Jumbo => (Family::V4, 9000),
            Self::Ipv6 => (Family::V6, 1500),
            _ => (Family::V4, 1500),
        };
        Ok(topology.with_underlay(family, mtu).direct())
    }

    /// What has to be so before a tunnel looks at the underlay.
    pub(super) fn prepare(self, lab: &Lab) -> Result<()> {
        match self {
            Self::OffloadsOff | Self::Loss => lab.nodes().iter().try_for_each(|node| {
                let off = ["tso", "gso", "gro", "tx-udp-segmentation"];
                let words: Vec<&str> = off.iter().flat_map(|word| [*word, "off"]).collect();
                let words = [&["-K", "eth0"], words.as_slice()].concat();
                node.netns().output("ethtool", &words).map(drop)
            }),
            _ => Ok(()),
        }
    }

    /// What the pods' TCP does: Linux's default, whatever this machine's is, so that figures are of the same thing
    /// everywhere.
    pub(super) const fn congestion_control(self) -> &'static str {
        match self {
            Self::Bbr => "bbr",
            _ => "cubic",
        }
    }

    /// Offloads that Hawser does without.
    pub(super) const fn without(self) -> &'static [Offload] {
        match self {
            Self::NoGso => &[Offload::UdpGso],
            Self::NoGro => &[Offload::UdpGro],
            Self::NoJoin => &[Offload::JoinTcp, Offload::JoinUdp],
            Self::NoTso => &[Offload::TapTcp, Offload::TapUdp],
            _ => &[],
        }
    }

    /// Whether it is of interest for what it costs alone.
    pub(super) const fn is_fallback(self) -> bool {
        matches!(
            self,
            Self::NoGso | Self::NoGro | Self::NoJoin | Self::NoTso | Self::FilledSums
        )
    }

    /// What begins once every tunnel stands: a lost handshake would cost seconds that say nothing of the data path.
    pub(super) fn begin(self, lab: &Lab) -> Result<()> {
        if self != Self::Loss {
            return Ok(());
        }
        for node in lab.nodes() {
            lose(node.netns()).with_context(|| format!("node {}", node.name()))?;
        }
        Ok(())
    }
}

/// Drops one of 100 UDP packets that come in.
fn lose(netns: &Netns) -> Result<()> {
    let rule = "add table netdev loss; \
                add chain netdev loss in { type filter hook ingress device eth0 priority 0; }; \
                add rule netdev loss in meta l4proto udp numgen random mod 100 0 counter drop";
    netns.output("nft", &[rule]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_conditions_belong_together() {
        for name in NAMES {
            let condition = Condition::named(name).unwrap();
            assert_eq!(condition.name(), name);
            condition.topology().unwrap().check().unwrap();
        }
        assert_eq!(Condition::named("weather"), None);
    }
}
