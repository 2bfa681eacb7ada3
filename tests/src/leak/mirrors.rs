//! Packets that are copied or steered to another device.

use super::{Barrier, Way};
use crate::lab::Family;

/// Ways by copies.
pub(super) const WAYS: &[Way] = &[
    Way {
        name: "pod's frames forwarded to eth0 by nftables",
        mistake: "a fast path that steers frames at ingress",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            let device = site.node().pod("a").host_device();
            site.script(&format!(
                "nft 'table netdev stray {{ chain fast {{ type filter hook ingress device {device} priority 0; \
                 fwd to eth0; }}; }}'"
            ))
        },
        undo: |site| site.sweep("nft delete table netdev stray"),
    },
    Way {
        name: "pod's frames copied to eth0 by nftables",
        mistake: "a mirror port for an intrusion detection system",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            let device = site.node().pod("a").host_device();
            site.script(&format!(
                "nft 'table netdev stray {{ chain mirror {{ type filter hook ingress device {device} priority 0; \
                 dup to eth0; }}; }}'"
            ))
        },
        undo: |site| site.sweep("nft delete table netdev stray"),
    },
    Way {
        name: "decrypted frames copied to eth0 by nftables",
        mistake: "a mirror of the tunnel's device: what others sent here encrypted goes out in clear",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            site.script(
                "nft 'table netdev stray { chain mirror { type filter hook ingress device hawser0 priority 0; \
                 dup to eth0; }; }'",
            )
        },
        undo: |site| site.sweep("nft delete table netdev stray"),
    },
    Way {
        name: "packets copied to a collector (TEE)",
        mistake: "the TEE target sends copies to a collector on the underlay",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            let device = site.node().pod("a").host_device();
            site.script(&site.each_family(|flag, gateway| {
                let family = if flag == "-4" { "ip" } else { "ip6" };
                format!(
                    "nft 'table {family} stray {{ chain tee {{ type filter hook prerouting priority -150; \
                     iifname {device} dup to {gateway} device eth0; }}; }}'"
                )
            }))
        },
        undo: |site| site.sweep("nft delete table ip stray\nnft delete table ip6 stray"),
    },
];
