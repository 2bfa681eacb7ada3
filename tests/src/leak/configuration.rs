//! Changes of node.yaml while pods go on sending to what it no longer names.

use anyhow::{Context as _, Result};
use ipnet::IpNet;

use super::site::{PATIENCE, Site};
use super::{Barrier, Way};
use crate::lab::{Family, wait_until};

/// Ways by configuration. Without Hawser the act is what its agent does: the routes go.
pub(super) const WAYS: &[Way] = &[
    Way {
        name: "a cluster leaves",
        mistake: "a cluster is taken out of the clusterset while pods still talk to it",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            if !site.is_armed() {
                return unroute(site, "west");
            }
            site.node().edit_config(|config| {
                config.clusters.retain(|cluster| cluster.name != "west");
                config.peers.retain(|peer| peer.cluster != "west");
            })?;
            gone(site, "west")
        },
        undo: restore,
    },
    Way {
        name: "a node leaves",
        mistake: "a node is drained and removed while pods still talk to its pods",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            if !site.is_armed() {
                return unroute(site, "west-1");
            }
            site.node()
                .edit_config(|config| config.peers.retain(|peer| peer.name != "west-1"))?;
            gone(site, "west-1")
        },
        undo: restore,
    },
    Way {
        name: "a cluster gets other prefixes",
        mistake: "a cluster is renumbered, and pods still use the old addresses",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            if !site.is_armed() {
                return unroute(site, "west");
            }
            site.node().edit_config(|config| {
                config.released_prefixes.clear();
                let west = config
                    .clusters
                    .iter_mut()
                    .filter(|cluster| cluster.name == "west");
                west.for_each(|cluster| cluster.prefixes.iter_mut().for_each(renumber));
                let west = config
                    .peers
                    .iter_mut()
                    .filter(|peer| peer.cluster == "west");
                west.for_each(|peer| peer.prefixes.iter_mut().for_each(renumber));
            })?;
            gone(site, "west")
        },
        undo: restore,
    },
];

/// 10.2.x becomes 10.77.x, and the same in IPv6.
fn renumber(prefix: &mut IpNet) {
    let text = prefix
        .to_string()
        .replace("10.2.", "10.77.")
        .replace("fd01:2:", "fd01:77:");
    *prefix = text.parse().unwrap_or(*prefix);
}

/// The remote pod prefixes of a cluster or a node.
fn prefixes_of(site: &Site, name: &str) -> Vec<IpNet> {
    let nodes = site.lab().nodes().iter();
    nodes
        .filter(|node| node.name() == name || node.cluster() == name)
        .flat_map(|node| node.pod_cidrs().to_vec())
        .collect()
}

fn unroute(site: &Site, name: &str) -> Result<()> {
    let lines = prefixes_of(site, name).into_iter().map(|prefix| {
        let flag = Family::of(prefix.addr()).flag();
        format!("ip {flag} route del {prefix} dev hawser0\n")
    });
    site.script(&lines.collect::<String>())
}

/// Waits until the agent has taken the routes away.
fn gone(site: &Site, name: &str) -> Result<()> {
    wait_until("the agent takes the routes away", PATIENCE, || {
        let mut left = String::new();
        for family in Family::BOTH {
            left += &site
                .netns()
                .output("ip", &[family.flag(), "route", "show", "dev", "hawser0"])?;
        }
        Ok(prefixes_of(site, name)
            .iter()
            .all(|prefix| !left.contains(&prefix.to_string())))
    })
}

fn restore(site: &mut Site) -> Result<()> {
    let mut config = site.lab().node_config(site.node())?;
    // What nobody has any more may be let go of; otherwise it would stay blocked, as it should.
    for prefix in ["10.77.0.0/16", "fd01:77::/32"] {
        config
            .released_prefixes
            .push(prefix.parse().context("a prefix")?);
    }
    site.node().write_config(&config)
}
