//! What the kernel should have, from what the data plane is told.

use super::kernel::{RouteKey, Sysctl, UNREACHABLE_METRIC, mesh_metric};
use hawser_tunnel::mtu;
use hawser_tunnel::state::{Peer, State};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

/// Turns IPv6 routers on; with it the kernel stops to take router advertisements.
pub(super) const IPV6_FORWARDING: &str = "ipv6/conf/all/forwarding";

/// The kernel's part of a node's state; the TAP's index is not known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Desired {
    /// The TAP's name.
    pub(crate) device: String,
    /// The TAP's MTU: as large as the largest of its routes, in bytes.
    pub(crate) mtu: u32,
    /// The router addresses.
    pub(crate) routers: BTreeSet<IpAddr>,
    /// Routes into the tunnel: prefix to source address and MTU.
    pub(crate) mesh: BTreeMap<IpNet, (IpAddr, u32)>,
    /// Prefixes that must not take the default route where no better route exists.
    pub(crate) unreachable: BTreeSet<IpNet>,
    /// Sysctls of the whole node, in the order in which they are written.
    pub(crate) node_sysctls: Vec<(Sysctl, String)>,
    /// Of the underlay devices: whether they take router advertisements. Forwarding would make
    /// them stop, and the node may have its own default route from there.
    pub(crate) accept_ra: Vec<Sysctl>,
    /// Sysctls of the TAP.
    pub(crate) device_sysctls: Vec<(Sysctl, String)>,
    /// Whether any prefix is an IPv6 prefix.
    pub(crate) ipv6: bool,
}

impl Desired {
    /// Derives it. `routers` are the router addresses by pod CIDR.
    pub(crate) fn new(state: &State, routers: &BTreeMap<IpNet, IpAddr>) -> Self {
        // The first of each family speaks for the host.
        let source = |prefix: &IpNet| {
            routers
                .values()
                .find(|router| router.is_ipv4() == matches!(prefix, IpNet::V4(_)))
                .copied()
        };
        let mut mesh = BTreeMap::new();
        for peer in state.peers.values() {
            for prefix in &peer.prefixes {
                // A node without an address of the family has nobody who could send.
                if let Some(source) = source(prefix) {
                    mesh.insert(*prefix, (source, route_mtu(peer, *prefix)));
                }
            }
        }
        let largest = mesh.values().map(|(_, mtu)| *mtu).max().unwrap_or(0);
        let unreachable: BTreeSet<IpNet> = state
            .guard
            .mesh
            .iter()
            .chain(&state.prefixes)
            .copied()
            .collect();
        let ipv6 = unreachable
            .iter()
            .any(|prefix| matches!(prefix, IpNet::V6(_)));
        let device = state.guard.device.clone();
        Self {
            mtu: largest.max(u32::from(mtu::MIN_IPV6)),
            routers: routers.values().copied().collect(),
            mesh,
            unreachable,
            node_sysctls: node_sysctls(ipv6),
            accept_ra: if ipv6 {
                accept_ra(&state.guard.underlay)
            } else {
                Vec::new()
            },
            device_sysctls: device_sysctls(&device, ipv6),
            ipv6,
            device,
        }
    }

    /// Every sysctl that matters.
    pub(crate) fn sysctls(&self) -> impl Iterator<Item = &Sysctl> {
        let set = self.node_sysctls.iter().chain(&self.device_sysctls);
        set.map(|(sysctl, _)| sysctl).chain(&self.accept_ra)
    }

    /// The prefixes of all routes.
    pub(crate) fn prefixes(&self) -> BTreeSet<IpNet> {
        let mesh = self.mesh.keys().copied();
        mesh.chain(self.unreachable.iter().copied()).collect()
    }

    /// The keys of the unreachable routes.
    pub(crate) fn unreachable_keys(&self) -> impl Iterator<Item = RouteKey> {
        self.unreachable.iter().map(|&prefix| RouteKey {
            prefix,
            metric: UNREACHABLE_METRIC,
        })
    }

    /// The mesh routes by key, with source address and MTU.
    pub(crate) fn mesh_keys(&self) -> impl Iterator<Item = (RouteKey, IpAddr, u32)> {
        self.mesh.iter().map(|(&prefix, &(source, mtu))| {
            (
                RouteKey {
                    prefix,
                    metric: mesh_metric(prefix),
                },
                source,
                mtu,
            )
        })
    }
}

/// The largest pod packet on the way to a peer's prefix, whichever of its lanes a flow takes.
fn route_mtu(peer: &Peer, prefix: IpNet) -> u32 {
    // A peer that must speak first may do so over IPv6, which costs more.
    const UNKNOWN: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let lanes = peer.lanes.iter().map(|lane| {
        lane.endpoint
            .map_or(UNKNOWN, |endpoint| endpoint.ip().to_canonical())
    });
    let mtu = lanes.map(|address| match prefix {
        IpNet::V4(_) => mtu::pod(peer.path_mtu, address),
        IpNet::V6(_) => mtu::pod_ipv6(peer.path_mtu, address),
    });
    mtu.min().unwrap_or(mtu::MIN_IPV6).into()
}

fn node_sysctls(ipv6: bool) -> Vec<(Sysctl, String)> {
    let mut sysctls = vec![("ipv4/ip_forward".to_owned(), "1")];
    if ipv6 {
        sysctls.push((IPV6_FORWARDING.to_owned(), "1"));
    }
    owned(sysctls)
}

fn accept_ra(underlay: &BTreeSet<String>) -> Vec<Sysctl> {
    underlay
        .iter()
        .map(|device| Sysctl(format!("ipv6/conf/{device}/accept_ra")))
        .collect()
}

fn device_sysctls(device: &str, ipv6: bool) -> Vec<(Sysctl, String)> {
    let mut sysctls = Vec::new();
    // Replies of remote pods come in where the route to them goes out, but not always.
    for (name, value) in [
        ("rp_filter", "0"),
        ("accept_redirects", "0"),
        ("send_redirects", "0"),
    ] {
        sysctls.push((format!("ipv4/conf/{device}/{name}"), value));
    }
    if ipv6 {
        // No link-local address, no router solicitations: nobody is there to answer.
        let v6 = [
            ("addr_gen_mode", "1"),
            ("accept_ra", "0"),
            ("accept_redirects", "0"),
            ("disable_ipv6", "0"),
        ];
        for (name, value) in v6 {
            sysctls.push((format!("ipv6/conf/{device}/{name}"), value));
        }
    }
    owned(sysctls)
}

fn owned(sysctls: Vec<(String, &str)>) -> Vec<(Sysctl, String)> {
    sysctls
        .into_iter()
        .map(|(name, value)| (Sysctl(name), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NodeConfig;
    use std::path::Path;

    const NODE: &str = "
cluster: { name: east, id: 1 }
node: { name: east-1, index: 1 }
underlay: { devices: [eth0] }
pods: [ { cidr: 10.1.1.0/24, router: 10.1.1.1 }, { cidr: 10.1.9.0/24, router: 10.1.9.1 } ]
clusters:
  - { name: east, id: 1, prefixes: [10.1.0.0/16] }
  - { name: west, id: 2, prefixes: [10.2.0.0/16, 'fd01:2::/32'] }
peers:
  - name: west-1
    cluster: west
    index: 1
    prefixes: [10.2.1.0/24, 'fd01:2:1::/64']
    lanes: [ { publicKey: AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=, endpoint: '192.0.2.2:51820' } ]
";

    fn desired(path_mtu: u16) -> Desired {
        let config = NodeConfig::parse(NODE, Path::new("node.yaml")).unwrap();
        let mut state = config.state().unwrap();
        for peer in state.peers.values_mut() {
            peer.path_mtu = path_mtu;
        }
        Desired::new(&state, &config.routers)
    }

    #[test]
    fn routes_have_the_mtu_of_the_design_and_the_first_router_as_source() {
        let source: IpAddr = "10.1.1.1".parse().unwrap();
        for (underlay, pod, device) in [(1280, 1168, 1280), (1500, 1392, 1392), (9000, 8880, 8880)]
        {
            let desired = desired(underlay);
            assert_eq!(
                desired.mesh,
                BTreeMap::from([("10.2.1.0/24".parse().unwrap(), (source, pod))])
            );
            assert_eq!(desired.mtu, device, "the kernel wants 1280 for IPv6");
        }
    }

    #[test]
    fn a_family_without_a_router_is_unreachable_not_forgotten() {
        let unreachable: Vec<String> = desired(1500)
            .unreachable
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            unreachable,
            [
                "10.1.0.0/16",
                "10.1.1.0/24",
                "10.1.9.0/24",
                "10.2.0.0/16",
                "fd01:2::/32"
            ]
        );
    }
}
