//! Address translation by others.

use anyhow::Result;

use super::site::{FOREIGN_TABLE, Site};
use super::{Barrier, Way};
use crate::lab::{Family, world};

/// Ways by one translated address; with both translated see [`super::LIMITS`].
pub(super) const WAYS: &[Way] = &[
    Way {
        name: "pod's source translated on a way around the tunnel",
        mistake: "`MASQUERADE` for all that leaves by eth0, and a rule that leads there",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            masquerade(site)?;
            site.foreign_table()?;
            site.script(&site.each_prefix(|flag, prefix, _| {
                format!("ip {flag} rule add pref 100 to {prefix} table {FOREIGN_TABLE}")
            }))
        },
        undo: |site| {
            site.sweep("nft delete table inet stray")?;
            forget(site)?;
            site.no_foreign_table()
        },
    },
    Way {
        name: "remote pod's address translated to another",
        mistake: "a redirect of pod traffic to a collector, a proxy, a decommissioned address",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            redirect(site)?;
            forget(site)
        },
        undo: |site| {
            site.sweep("nft delete table inet stray")?;
            forget(site)
        },
    },
];

/// Gives everything that leaves by eth0 the node's address.
pub(super) fn masquerade(site: &Site) -> Result<()> {
    site.script(
        "nft 'table inet stray { chain masq { type nat hook postrouting priority 100; oifname eth0 masquerade; }; }'",
    )?;
    forget(site)
}

/// Sends what the pod sends to remote pods to an address outside of the mesh.
pub(super) fn redirect(site: &Site) -> Result<()> {
    let device = site.node().pod("a").host_device();
    let (v4, v6) = (world(Family::V4), world(Family::V6));
    site.script(&format!(
        "nft 'table inet stray {{ chain redirects {{ type nat hook prerouting priority -100; \
         iifname {device} ip daddr 10.0.0.0/8 dnat ip to {v4}; iifname {device} ip6 daddr fd01::/16 dnat ip6 to {v6}; \
         }}; }}'"
    ))
}

/// Connections that were seen before keep what was decided about them.
pub(super) fn forget(site: &Site) -> Result<()> {
    // Without it nothing leaks, and not for any merit of ours.
    site.script(
        "command -v conntrack >/dev/null || { echo 'conntrack was not found' >&2; exit 1; }",
    )?;
    site.sweep("conntrack -F")
}
