//! Facts of the kernel that the agent reads and writes: the TAP, its addresses and neighbours,
//! routes, and sysctls.

use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The next hop of every mesh route over IPv4. It exists only as a neighbour entry.
pub(crate) const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
/// The next hop of every mesh route over IPv6.
pub(crate) const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
/// The gateways' MAC address, behind which the data plane reads.
pub(crate) const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// `rtm_protocol` of our routes, by which we know them again. Free in iproute2's `rt_protos`.
pub(crate) const PROTOCOL: u8 = 72;
/// Any other route to the same prefix goes first: the largest metric but one, as the kernel keeps
/// the last for itself.
pub(crate) const UNREACHABLE_METRIC: u32 = u32::MAX - 1;

/// The next hop of mesh routes to a prefix.
pub(crate) fn gateway(prefix: IpNet) -> IpAddr {
    match prefix {
        IpNet::V4(_) => GATEWAY_V4,
        IpNet::V6(_) => GATEWAY_V6,
    }
}

/// The metric of mesh routes: none is better for IPv4; 0 means 1024 for IPv6.
pub(crate) fn mesh_metric(prefix: IpNet) -> u32 {
    match prefix {
        IpNet::V4(_) => 0,
        IpNet::V6(_) => 1,
    }
}

/// What the kernel tells routes of one table apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RouteKey {
    /// The destination.
    pub(crate) prefix: IpNet,
    /// Its priority; the smallest wins.
    pub(crate) metric: u32,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Into the tunnel.
    Mesh {
        /// The TAP's index.
        device: u32,
        /// The next hop.
        gateway: IpAddr,
        /// The address that host processes send from.
        source: IpAddr,
        /// The largest pod packet that this path carries, in bytes.
        mtu: u32,
    },
    /// Nowhere: senders are told at once.
    Unreachable,
    /// Anything else that carries our protocol number.
    Other,
}

/// A device as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// The kernel's number of the device.
    pub(crate) index: u32,
    /// In bytes.
    pub(crate) mtu: u32,
    /// Whether it is administratively up.
    pub(crate) up: bool,
    /// Whether it is a TAP or TUN, and not a device of another kind that somebody gave this name.
    pub(crate) tap: bool,
}

/// A neighbour entry of the TAP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    /// The link-layer address.
    pub(crate) mac: Vec<u8>,
    /// Whether it stays without being confirmed.
    pub(crate) permanent: bool,
}

/// What the kernel has now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// The device with the TAP's name, if there is one.
    pub(crate) link: Option<Link>,
    /// Its addresses with their prefix lengths.
    pub(crate) addresses: BTreeSet<IpNet>,
    /// Its neighbours.
    pub(crate) neighbours: BTreeMap<IpAddr, Neighbour>,
    /// Routes of the main table with our protocol number.
    pub(crate) routes: BTreeMap<RouteKey, Way>,
    /// The sysctls that were asked for; `None` where there is no such file.
    pub(crate) sysctls: BTreeMap<Sysctl, Option<String>>,
}

/// A file below `/proc/sys/net`, as in `ipv4/ip_forward`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sysctl(pub String);

/// One write to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Writes a sysctl.
    SetSysctl(Sysctl, String),
    /// Sets the TAP's MTU, in bytes.
    SetMtu(u32),
    /// Sets the TAP up.
    SetUp,
    /// Adds a router address to the TAP.
    AddAddress(IpAddr),
    /// Takes an address off the TAP.
    RemoveAddress(IpNet),
    /// Makes a gateway a permanent neighbour.
    SetNeighbour(IpAddr),
    /// Adds a route or takes the place of the one with the same key.
    SetRoute(RouteKey, Way),
    /// Removes one of our routes.
    RemoveRoute(RouteKey),
}
