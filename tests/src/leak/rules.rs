//! Policy routing that sends pod packets past table main, and with it past our routes of both kinds.

use anyhow::Result;

use super::site::{FOREIGN_TABLE, Site};
use super::{Barrier, Way};
use crate::lab::Family;

/// Ways by rules.
pub(super) const WAYS: &[Way] = &[
    Way {
        name: "a rule for all packets",
        mistake: "a VPN client (wg-quick, OpenVPN) takes the default route over",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| rule(site, |_, _| String::new()),
        undo: no_rule,
    },
    Way {
        name: "a rule by destination",
        mistake: "a cloud's CNI plugin that routes pod networks by tables of its own",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            site.foreign_table()?;
            site.script(&site.each_prefix(|flag, prefix, _| {
                format!("ip {flag} rule add pref 100 to {prefix} table {FOREIGN_TABLE}")
            }))
        },
        undo: no_rule,
    },
    Way {
        name: "a rule by source",
        mistake: "source routing for a second network card",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| rule(site, |_, own| format!("from {own}")),
        undo: no_rule,
    },
    Way {
        name: "a rule by the pod's device",
        mistake: "a CNI plugin that gives each pod's device a table of its own",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            let device = site.node().pod("a").host_device();
            rule(site, |_, _| format!("iif {device}"))
        },
        undo: no_rule,
    },
    Way {
        name: "a rule by mark",
        mistake: "a service mesh or an egress gateway marks packets and routes by the mark",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            let device = site.node().pod("a").host_device();
            site.script(&format!(
                "nft 'table inet stray {{ chain marks {{ type filter hook prerouting priority -150; \
                 iifname {device} meta mark set 7; }}; }}'"
            ))?;
            rule(site, |_, _| "fwmark 7".to_owned())
        },
        undo: |site| {
            site.sweep("nft delete table inet stray")?;
            no_rule(site)
        },
    },
    Way {
        name: "a rule by protocol",
        mistake: "traffic engineering: UDP by another provider",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| rule(site, |_, _| "ipproto udp dport 7007".to_owned()),
        undo: no_rule,
    },
    Way {
        name: "a rule ahead of table local",
        mistake: "a CNI plugin moves table local back, to put its own in front",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            site.foreign_table()?;
            site.script(&site.each_prefix(|flag, prefix, _| {
                format!("ip {flag} rule add pref 1 to {prefix} table {FOREIGN_TABLE}")
            }))?;
            site.script(&site.each_family(|flag, _| {
                format!("ip {flag} rule add pref 100 table local\nip {flag} rule del pref 0")
            }))
        },
        undo: |site| {
            site.sweep(&site.each_family(|flag, _| {
                format!(
                    "ip {flag} rule add pref 0 table local\nip {flag} rule del pref 100 table local"
                )
            }))?;
            no_rule(site)
        },
    },
];

/// Sends what the selector names to the foreign table. The selector may use the pod's own address.
fn rule(site: &Site, selector: impl Fn(&str, std::net::IpAddr) -> String) -> Result<()> {
    site.foreign_table()?;
    let mut text = String::new();
    for own in site.node().pod("a").addresses() {
        let flag = Family::of(*own).flag();
        let selector = selector(flag, *own);
        text.push_str(&format!(
            "ip {flag} rule add pref 100 {selector} table {FOREIGN_TABLE}\n"
        ));
    }
    site.script(&text)
}

fn no_rule(site: &mut Site) -> Result<()> {
    site.no_foreign_table()
}
