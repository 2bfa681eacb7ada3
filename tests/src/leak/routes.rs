//! Routes that lead around the tunnel, or the tunnel's routes removed.

use anyhow::Result;

use super::order::pods_up;
use super::site::Site;
use super::{Barrier, Way};
use crate::lab::Family;

/// Ways by routes of table main.
pub(super) const WAYS: &[Way] = &[
    Way {
        name: "host routes to remote pods by the router",
        mistake: "a cloud's route controller, or a debugging session, adds more specific routes",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            site.script(&site.each_pod(|flag, pod, gateway| {
                format!("ip {flag} route add {pod} via {gateway} dev eth0")
            }))
        },
        undo: drop_host_routes,
    },
    Way {
        name: "host routes to remote pods on the link itself",
        mistake: "a network that answers ARP and neighbour discovery for everything",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            answer_for_remote_pods(site)?;
            site.script(
                &site.each_pod(|flag, pod, _| format!("ip {flag} route add {pod} dev eth0")),
            )
        },
        undo: |site| {
            drop_host_routes(site)?;
            stop_answering(site)
        },
    },
    Way {
        name: "halves of remote pod prefixes",
        mistake: "a VPN client that halves prefixes so as to win against what is there",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| site.script(&halves(site, "add")),
        undo: |site| site.sweep(&halves(site, "del")),
    },
    Way {
        name: "a better route of the same prefix",
        mistake: "a routing daemon that learnt the pod prefixes from the underlay",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        // The same metric as ours: the newer IPv4 route goes first, IPv6 shares flows between both by weight. With
        // equal weights all flows of one pod may stay in the tunnel: their labels are another boot's chance.
        provoke: |site| {
            site.script(&site.each_prefix(|flag, prefix, gateway| match flag {
                "-4" => format!("ip -4 route prepend {prefix} via {gateway} dev eth0"),
                _ => format!(
                    "ip -6 route append {prefix} metric 1 nexthop via {gateway} dev eth0 weight 250"
                ),
            }))
        },
        undo: drop_prefix_routes,
    },
    Way {
        name: "mesh routes replaced",
        mistake: "`ip route replace` by a script that believes the pod network is routed",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            site.script(&site.each_prefix(|flag, prefix, gateway| {
                let metric = if flag == "-4" { "" } else { "metric 1" };
                format!("ip {flag} route replace {prefix} via {gateway} dev eth0 {metric}")
            }))
        },
        undo: drop_prefix_routes,
    },
    Way {
        name: "mesh routes replaced by next hop objects",
        mistake: "a routing daemon that works with next hop objects",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            site.script(&site.each_family(|flag, gateway| {
                let id = if flag == "-4" { 4 } else { 6 };
                format!("ip {flag} nexthop add id {id} via {gateway} dev eth0")
            }))?;
            site.script(&site.each_prefix(|flag, prefix, _| {
                let (id, metric) = if flag == "-4" {
                    (4, "")
                } else {
                    (6, "metric 1")
                };
                format!("ip {flag} route replace {prefix} nhid {id} {metric}")
            }))
        },
        undo: |site| site.sweep("ip nexthop del id 4\nip nexthop del id 6"),
    },
    Way {
        name: "mesh routes deleted",
        mistake: "somebody tidies up routes that he does not know",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            site.script(
                &site.each_prefix(|flag, prefix, _| {
                    format!("ip {flag} route del {prefix} dev hawser0")
                }),
            )
        },
        undo: |_| Ok(()),
    },
    Way {
        name: "routes to the node's own pod deleted",
        mistake: "a pod ends while others still send to it: what was decrypted for it looks for another way",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            let pods = site.node().pod("a").addresses().iter();
            let lines = pods.map(|pod| {
                let flag = Family::of(*pod).flag();
                format!("ip {flag} route flush exact {pod}\n")
            });
            site.script(&lines.collect::<String>())
        },
        undo: |site| pods_up(site),
    },
    Way {
        name: "all routes of our protocol flushed",
        mistake: "systemd-networkd restarts and removes foreign routes (ManageForeignRoutes=yes)",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            site.script(&site.each_family(|flag, _| format!("ip {flag} route flush proto 72")))
        },
        undo: |_| Ok(()),
    },
    Way {
        name: "table main flushed and only the defaults put back",
        mistake: "ifdown and ifup, or a DHCP client that starts over",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            site.script(&site.each_family(|flag, gateway| {
                format!(
                    "ip {flag} route flush table main\n\
                     ip {flag} route add default via {gateway} dev eth0 onlink"
                )
            }))
        },
        undo: |site| {
            site.sweep("ip addr flush dev eth0")?;
            site.address_underlay("eth0")?;
            pods_up(site)
        },
    },
];

fn drop_host_routes(site: &mut Site) -> Result<()> {
    site.sweep(&site.each_pod(|flag, pod, _| format!("ip {flag} route del {pod} dev eth0")))
}

fn drop_prefix_routes(site: &mut Site) -> Result<()> {
    site.sweep(
        &site.each_prefix(|flag, prefix, _| format!("ip {flag} route del {prefix} dev eth0")),
    )
}

fn halves(site: &Site, act: &str) -> String {
    site.each_prefix(|flag, prefix, gateway| {
        let halves = prefix
            .subnets(prefix.prefix_len() + 1)
            .into_iter()
            .flatten();
        halves
            .map(|half| format!("ip {flag} route {act} {half} via {gateway} dev eth0\n"))
            .collect()
    })
}

/// Makes the router answer for the addresses of remote pods.
pub(super) fn answer_for_remote_pods(site: &Site) -> Result<()> {
    let proxies = site
        .remote_pods()
        .into_iter()
        .map(|pod| format!("ip neigh replace proxy {pod} dev br0\n"));
    // It answers ARP only for what it has a route to.
    site.router_script(&format!(
        "echo 1 >/proc/sys/net/ipv6/conf/br0/proxy_ndp\n{}{}",
        proxies.collect::<String>(),
        cloud_routes(site, "replace")
    ))
}

/// Takes that back.
pub(super) fn stop_answering(site: &Site) -> Result<()> {
    let lines = site
        .remote_pods()
        .into_iter()
        .map(|pod| format!("ip neigh del proxy {pod} dev br0\n"));
    site.router_script(&format!(
        "{}{}echo 0 >/proc/sys/net/ipv6/conf/br0/proxy_ndp",
        lines.collect::<String>(),
        cloud_routes(site, "del")
    ))
}

/// Routes on the router to the pods of the other cluster, as a cloud's network has them.
fn cloud_routes(site: &Site, act: &str) -> String {
    let west = site
        .lab()
        .nodes()
        .iter()
        .filter(|node| node.cluster() == "west");
    let routes = west.filter_map(|node| {
        let (prefix, node) = (node.pod_cidr(Family::V4)?, node.underlay(Family::V4));
        Some(format!("ip route {act} {prefix} via {node}\n"))
    });
    routes.collect()
}
