//! Devices that change, go away, or come.

use anyhow::Result;

use super::order::pods_up;
use super::site::Site;
use super::{Barrier, Way};
use crate::lab::{Family, gateway};

/// Ways by devices.
pub(super) const WAYS: &[Way] = &[
    Way {
        name: "TAP set down",
        mistake: "`ip link set hawser0 down`; its routes go",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| site.script("ip link set hawser0 down"),
        undo: revive_tap,
    },
    Way {
        name: "TAP deleted",
        mistake: "a clean-up script that deletes devices which it does not know",
        barrier: Barrier::Hawser,
        families: &Family::BOTH,
        provoke: |site| site.script("ip link del hawser0"),
        undo: |_| Ok(()),
    },
    Way {
        name: "TAP renamed and moved to another namespace",
        mistake: "a container runtime that moves the wrong device",
        barrier: Barrier::Hawser,
        families: &Family::BOTH,
        provoke: |site| {
            let router = site.lab().router().name();
            site.script(&format!("ip link set hawser0 netns {router} name stolen"))
        },
        undo: |site| site.router_script("ip link del stolen"),
    },
    Way {
        name: "another device under the TAP's name",
        mistake: "a name that somebody uses as well; whoever believes names routes pods into his network",
        barrier: Barrier::Hawser,
        families: &Family::BOTH,
        provoke: |site| {
            site.node_mut().kill_keeper()?;
            site.script("ip link del hawser0")?;
            site.plug_spare()?;
            site.script(
                "ip link set eth1 down\nip link set eth1 name hawser0\nip link set hawser0 up",
            )
        },
        undo: |site| {
            site.script("ip link set hawser0 down\nip link set hawser0 name eth1")?;
            site.unplug_spare()
        },
    },
    Way {
        name: "the pod's device set down",
        mistake: "a pod's link fails, and its routes go with it, while others still send to it",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            let device = site.node().pod("a").host_device();
            site.script(&format!("ip link set {device} down"))
        },
        undo: |site| pods_up(site),
    },
    Way {
        name: "TAP too small for IPv6",
        mistake: "an MTU below 1280, after which the kernel has no IPv6 there, nor routes",
        barrier: Barrier::Guard,
        families: &[Family::V6],
        provoke: |site| site.script("ip link set hawser0 mtu 1000"),
        undo: |site| match site.is_armed() {
            true => Ok(()),
            false => site.script("ip link set hawser0 mtu 1392"),
        },
    },
    Way {
        name: "IPv6 turned off on the TAP",
        mistake: "a hardening script that turns IPv6 off wherever it can",
        barrier: Barrier::Guard,
        families: &[Family::V6],
        provoke: |site| site.script("echo 1 >/proc/sys/net/ipv6/conf/hawser0/disable_ipv6"),
        undo: |_| Ok(()),
    },
    Way {
        name: "routes without carrier ignored, and nobody holds the TAP",
        mistake: "ignore_routes_with_linkdown, as routers are tuned, while Hawser is stopped",
        barrier: Barrier::Hawser,
        families: &Family::BOTH,
        provoke: |site| {
            site.node_mut().kill_agent()?;
            site.node_mut().kill_keeper()?;
            site.script(&linkdown(1))
        },
        undo: |site| site.script(&linkdown(0)),
    },
    Way {
        name: "a second underlay device, and routes over it",
        mistake: "a network card added while the node runs, which DHCP prefers",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            site.plug_spare()?;
            site.script("ip addr add 192.168.1.201/24 dev eth1\nip addr add fd00:c0a8:1::201/64 dev eth1 nodad\nip addr add fe80::201/64 dev eth1 nodad")?;
            site.script(&site.each_prefix(|flag, prefix, gateway| {
                let metric = if flag == "-4" { "" } else { "metric 1" };
                format!("ip {flag} route replace {prefix} via {gateway} dev eth1 {metric}")
            }))
        },
        undo: |site| site.unplug_spare(),
    },
    Way {
        name: "underlay device taken out and put back, and routes over it",
        mistake: "a driver that is loaded again; hooks of the old device are gone",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            site.unplug()?;
            site.plug()?;
            routes_over(site, "eth0")
        },
        undo: |site| {
            site.sweep(&site.each_pod(|flag, pod, _| format!("ip {flag} route del {pod} dev eth0")))
        },
    },
    Way {
        name: "underlay device renamed, and routes over it",
        mistake: "predictable interface names, applied late",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            site.script("ip link set eth0 down\nip link set eth0 name uplink0")?;
            site.address_underlay("uplink0")?;
            routes_over(site, "uplink0")
        },
        undo: |site| {
            site.script("ip link set uplink0 down\nip link set uplink0 name eth0")?;
            site.address_underlay("eth0")
        },
    },
];

/// In the twin nobody sets the device up again.
fn revive_tap(site: &mut Site) -> Result<()> {
    match site.is_armed() {
        true => Ok(()),
        false => site.script("ip link set hawser0 up"),
    }
}

fn linkdown(value: u8) -> String {
    format!(
        "echo {value} >/proc/sys/net/ipv4/conf/all/ignore_routes_with_linkdown\n\
         echo {value} >/proc/sys/net/ipv6/conf/all/ignore_routes_with_linkdown\n\
         echo {value} >/proc/sys/net/ipv6/conf/hawser0/ignore_routes_with_linkdown || true"
    )
}

/// Host routes to all remote pods by the router over `device`.
pub(super) fn routes_over(site: &Site, device: &str) -> Result<()> {
    let lines = site.remote_pods().into_iter().map(|pod| {
        let family = Family::of(pod);
        let gateway = gateway(site.node().cluster_id(), family);
        format!(
            "ip {} route replace {pod} via {gateway} dev {device}\n",
            family.flag()
        )
    });
    site.script(&lines.collect::<String>())
}
