//! What gets past every barrier, by design of the kernel or of ours. Each needs root on the node, and intent or a
//! program that works on frames. `docs/security.md` names them.

use std::fs;

use anyhow::Context as _;

use super::order::{boot, pods_up, wipe};
use super::site::FOREIGN_TABLE;
use super::translation::{forget, masquerade, redirect};
use super::{Barrier, Way};
use crate::lab::Family;

/// The acts that nothing of ours stops.
pub const LIMITS: &[Way] = &[
    Way {
        name: "tc redirects what enters by the pod's device to eth0",
        mistake: "a traffic control action or a BPF program: the kernel skips netfilter's egress hook for such frames",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            let device = site.node().pod("a").host_device();
            site.script(&format!(
                "tc qdisc add dev {device} clsact\n\
                 tc filter add dev {device} ingress protocol all u32 match u32 0 0 action mirred egress redirect dev eth0"
            ))
        },
        undo: |site| {
            let device = site.node().pod("a").host_device();
            site.sweep(&format!("tc qdisc del dev {device} clsact"))
        },
    },
    Way {
        name: "tc mirrors what leaves by the TAP to eth0",
        mistake: "the same where pod packets are still in clear by design",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            site.script(
                "tc qdisc add dev hawser0 clsact\n\
                 tc filter add dev hawser0 egress protocol all u32 match u32 0 0 action mirred egress mirror dev eth0",
            )
        },
        undo: |site| site.sweep("tc qdisc del dev hawser0 clsact"),
    },
    Way {
        name: "SRv6 around the pod packet",
        mistake: "a route that encapsulates: only the outer addresses are seen by netfilter",
        barrier: Barrier::Guard,
        families: &[Family::V6],
        provoke: |site| {
            let segment = site.lab().node("west-1").underlay(Family::V6);
            site.script(&site.each_pod(|flag, pod, _| match flag {
                "-6" => {
                    format!("ip -6 route add {pod} encap seg6 mode encap segs {segment} dev eth0")
                }
                _ => String::new(),
            }))
        },
        undo: |site| {
            site.sweep(&site.each_pod(|flag, pod, _| format!("ip {flag} route del {pod} dev eth0")))
        },
    },
    Way {
        name: "both addresses translated",
        mistake: "a redirect to an address outside of the mesh, and masquerade: by then it is a packet of the node to the world",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            redirect(site)?;
            masquerade(site)?;
            forget(site)
        },
        undo: |site| {
            site.sweep("nft delete table inet stray")?;
            forget(site)
        },
    },
    Way {
        name: "frames bridged to another device, unseen by nftables",
        mistake: "a bridge plugin with a second network card, on a node without br_netfilter",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            site.script(&bridge_filter(0))?;
            super::masters::bridge_to_spare(site)
        },
        undo: |site| {
            super::masters::no_bridge_to_spare(site)?;
            site.script(&bridge_filter(1))
        },
    },
    Way {
        name: "the node's own pod addresses routed to a device that we do not know",
        mistake: "a pod's address moved behind a second network card: to us it looks like delivery to a pod",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            site.plug_spare()?;
            site.script("ip addr add fe80::201/64 dev eth1 nodad")?;
            let pods = site.node().pod("a").addresses().iter();
            let lines = pods.map(|pod| {
                let family = Family::of(*pod);
                // The router's link-local address: its others are known to be on eth0.
                let gateway = match family {
                    Family::V4 => "192.168.1.254",
                    Family::V6 => "fe80::fffe",
                };
                let flag = family.flag();
                format!(
                    "ip {flag} route flush exact {pod}\n\
                     ip {flag} route add {pod} via {gateway} dev eth1 onlink\n"
                )
            });
            site.script(&lines.collect::<String>())
        },
        undo: |site| {
            site.unplug_spare()?;
            pods_up(site)
        },
    },
    Way {
        name: "node boots with a damaged state, and no agent",
        mistake: "a disk that lost state.json: the keeper knows of no prefix until the agent tells",
        barrier: Barrier::Hawser,
        families: &Family::BOTH,
        provoke: |site| {
            wipe(site)?;
            let state = site.node().state_dir().join("state.json");
            fs::write(&state, "{").context("damage the state")?;
            boot(site)?;
            site.node_mut().start_keeper()?;
            pods_up(site)
        },
        undo: |_| Ok(()),
    },
    Way {
        name: "guard flushed while a foreign rule leads around the tunnel",
        mistake: "both barriers gone at once: open until the keeper has the guard back",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            site.foreign_table()?;
            site.script(&site.each_prefix(|flag, prefix, _| {
                format!("ip {flag} rule add pref 100 to {prefix} table {FOREIGN_TABLE}")
            }))?;
            for _ in 0..10 {
                site.script("nft flush ruleset")?;
            }
            Ok(())
        },
        undo: |site| site.no_foreign_table(),
    },
];

/// Whether bridged packets pass the hooks of routed ones, as Kubernetes asks for.
fn bridge_filter(value: u8) -> String {
    ["iptables", "ip6tables"]
        .map(|name| format!("echo {value} >/proc/sys/net/bridge/bridge-nf-call-{name}\n"))
        .concat()
}
