//! Devices on top of devices: bridges, macvlan, and tunnels of others.

use anyhow::Result;

use super::devices::routes_over;
use super::site::Site;
use super::{Barrier, Way};
use crate::lab::Family;

/// Ways by stacked devices.
pub(super) const WAYS: &[Way] = &[
    Way {
        name: "eth0 made a port of a bridge, and routes over it",
        mistake: "a hypervisor's bridge (br-ex, virbr) takes the network card over",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            site.script("ip link add br-ex type bridge mcast_snooping 0\nip addr flush dev eth0\nip link set eth0 master br-ex")?;
            site.address_underlay("br-ex")?;
            routes_over(site, "br-ex")
        },
        undo: |site| {
            site.sweep("ip link set eth0 nomaster\nip link del br-ex")?;
            site.address_underlay("eth0")
        },
    },
    Way {
        name: "eth0 and the pod's device in one bridge",
        mistake: "a bridge plugin that is given the network card as well: frames are never routed",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            let device = site.node().pod("a").host_device();
            site.script(&format!(
                "ip link add br-ex type bridge mcast_snooping 0\nip link set br-ex up\n\
                 ip link set eth0 master br-ex\nip link set {device} master br-ex"
            ))?;
            // The bridge would take frames to its port's own address itself: a pod that speaks to the router's.
            speak_to_router(site)
        },
        undo: |site| {
            let device = site.node().pod("a").host_device();
            site.sweep(&format!(
                "ip link set eth0 nomaster\nip link set {device} nomaster\nip link del br-ex"
            ))?;
            speak_to_node(site)
        },
    },
    Way {
        name: "the pod's device bridged with a device that we do not know",
        mistake: "a bridge plugin with a second network card: frames are never routed, and that card has no hook",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| bridge_to_spare(site),
        undo: |site| no_bridge_to_spare(site),
    },
    Way {
        name: "a macvlan of eth0, and routes over it",
        mistake: "macvlan for access between host and containers",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            site.script(
                "ip link add mv0 link eth0 type macvlan mode bridge\nip link set mv0 up\n\
                 ip addr add 192.168.1.202/24 dev mv0\nip addr add fd00:c0a8:1::202/64 dev mv0 nodad\nip addr add fe80::202/64 dev mv0 nodad",
            )?;
            routes_over(site, "mv0")
        },
        undo: |site| site.sweep("ip link del mv0"),
    },
    Way {
        name: "a macvlan of eth0 inside the pod",
        mistake: "Multus gives the pod a second interface, which it uses with its first address",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            let pod = site.node().pod("a").netns().clone();
            site.script(&format!(
                "ip link add mv0 link eth0 type macvlan mode bridge\nip link set mv0 netns {}",
                pod.name()
            ))?;
            let lines = site.each_pod(|flag, remote, gateway| {
                format!("ip {flag} route add {remote} via {gateway} dev mv0 onlink")
            });
            pod.output(
                "sh",
                &[
                    "-ec",
                    &format!("ip link set mv0 up\nip addr add fe80::202/64 dev mv0 nodad\n{lines}"),
                ],
            )
            .map(drop)
        },
        undo: |site| {
            let pod = site.node().pod("a").netns();
            pod.output("sh", &["-c", "ip link del mv0"]).map(drop)
        },
    },
    Way {
        name: "VXLAN of another network plugin",
        mistake: "the old CNI plugin (flannel.1) was not removed and brings its routes back",
        barrier: Barrier::Guard,
        families: &[Family::V4],
        provoke: |site| {
            let node = site.lab().node("west-1").underlay(Family::V4);
            site.script(&format!(
                "ip link add flannel.1 type vxlan id 1 remote {node} dstport 8472 dev eth0 nolearning\n\
                 echo 1 >/proc/sys/net/ipv6/conf/flannel.1/disable_ipv6\n\
                 ip link set flannel.1 up"
            ))?;
            site.script(&site.each_pod(|flag, pod, _| match flag {
                "-4" => format!(
                    "ip route add {pod} dev flannel.1\nip neigh replace {pod} lladdr 02:00:00:00:00:77 dev flannel.1"
                ),
                _ => String::new(),
            }))
        },
        undo: |site| site.sweep("ip link del flannel.1"),
    },
];

/// Has the pod use the router of the underlay as its gateway, which a bridge lets it reach.
pub(super) fn speak_to_router(site: &Site) -> Result<()> {
    let text = site
        .lab()
        .router()
        .output("cat", &["/sys/class/net/br0/address"])?;
    next_hop_of_pod(site, text.trim())
}

/// Has the pod use its node again.
pub(super) fn speak_to_node(site: &Site) -> Result<()> {
    next_hop_of_pod(site, &site.node().pod("a").host_mac())
}

/// Tells the pod which hardware address its gateways have.
fn next_hop_of_pod(site: &Site, mac: &str) -> Result<()> {
    let pod = site.node().pod("a").netns();
    pod.ip_batch(&format!(
        "neigh replace 169.254.1.1 lladdr {mac} dev eth0 nud permanent\n\
         neigh replace fe80::1 lladdr {mac} dev eth0 nud permanent\n"
    ))
}

/// Puts the pod's device and the second link into one bridge. With br_netfilter, as Kubernetes asks for, bridged
/// packets pass the guard for routed ones.
pub(super) fn bridge_to_spare(site: &Site) -> Result<()> {
    let device = site.node().pod("a").host_device();
    site.plug_spare()?;
    site.script(&format!(
        "ip link add br-ex type bridge mcast_snooping 0\nip link set br-ex up\n\
         ip link set eth1 master br-ex\nip link set {device} master br-ex"
    ))?;
    speak_to_router(site)
}

/// Takes that back.
pub(super) fn no_bridge_to_spare(site: &Site) -> Result<()> {
    let device = site.node().pod("a").host_device();
    site.sweep(&format!(
        "ip link set {device} nomaster\nip link set eth1 nomaster\nip link del br-ex"
    ))?;
    site.unplug_spare()?;
    speak_to_node(site)
}
