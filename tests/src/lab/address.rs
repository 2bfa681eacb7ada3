//! Addresses of a lab. All of them follow from cluster ID, node index and pod number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::topology::Family;

/// The gateway that every pod has, as the link between a pod and its node needs no addresses of its own.
pub(crate) const POD_GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The same for IPv6.
pub(crate) const POD_GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

pub(crate) const fn family_of(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

/// The default pod prefix of a cluster.
pub(crate) fn cluster_prefix(cluster: u16, family: Family) -> Option<IpNet> {
    match family {
        Family::V4 => {
            let second = u8::try_from(cluster).ok()?;
            Ipv4Net::new(Ipv4Addr::new(10, second, 0, 0), 16)
                .ok()
                .map(IpNet::V4)
        }
        Family::V6 => Ipv6Net::new(Ipv6Addr::new(0xfd01, cluster, 0, 0, 0, 0, 0, 0), 32)
            .ok()
            .map(IpNet::V6),
    }
}

/// The pod CIDR of node `index` inside its cluster's prefix: the index is the byte, or the group, behind the prefix.
pub(crate) fn node_prefix(cluster: IpNet, index: u16) -> Option<IpNet> {
    match cluster {
        IpNet::V4(prefix) => {
            let address = u32::from(prefix.network()) | u32::from(index) << 8;
            Ipv4Net::new(Ipv4Addr::from(address), 24)
                .ok()
                .map(IpNet::V4)
        }
        IpNet::V6(prefix) => {
            let shift = 112_u8.checked_sub(prefix.prefix_len())?;
            let address = u128::from(prefix.network()) | u128::from(index) << shift;
            Ipv6Net::new(Ipv6Addr::from(address), 64)
                .ok()
                .map(IpNet::V6)
        }
    }
}

/// Address number `host` of a pod CIDR; 1 is the router address.
pub(crate) fn host(cidr: IpNet, host: u16) -> IpAddr {
    match cidr {
        IpNet::V4(prefix) => IpAddr::V4(Ipv4Addr::from(
            u32::from(prefix.network()) | u32::from(host),
        )),
        IpNet::V6(prefix) => IpAddr::V6(Ipv6Addr::from(
            u128::from(prefix.network()) | u128::from(host),
        )),
    }
}

/// The address of pod `number` (from 1): .10, .11 and so on; ::10, ::11, ::12 and so on.
pub(crate) fn pod(cidr: IpNet, number: u16) -> IpAddr {
    match cidr {
        IpNet::V4(_) => host(cidr, 9 + number),
        IpNet::V6(_) => host(cidr, 0xf + number),
    }
}

/// The underlay address of a node.
pub(crate) fn underlay(cluster: u16, index: u16, family: Family) -> IpAddr {
    let [_, cluster_byte] = cluster.to_be_bytes();
    let [_, index_byte] = index.to_be_bytes();
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(192, 168, cluster_byte, index_byte)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfd00, 0xc0a8, cluster, 0, 0, 0, 0, index)),
    }
}

/// The link-local address of a node on its site's bridge. Whoever forwards IPv6 needs one to find its neighbours.
pub(crate) const fn link_local(cluster: u16, index: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, cluster, index)
}

/// The router's address on the underlay of a cluster.
#[must_use]
pub fn gateway(cluster: u16, family: Family) -> IpAddr {
    match family {
        Family::V4 => underlay(cluster, 254, family),
        Family::V6 => underlay(cluster, 0xfffe, family),
    }
}

/// An address outside of every cluster, behind the router: what a pod reaches through its node's masquerade.
#[must_use]
pub const fn world(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1)),
    }
}

/// Length of the underlay's prefixes.
pub(crate) const fn underlay_length(family: Family) -> u8 {
    match family {
        Family::V4 => 24,
        Family::V6 => 64,
    }
}

/// `a`, `b` … `z`, `aa`, `ab` …: the n-th (from 1) short name.
pub(crate) fn letters(number: u16) -> String {
    let mut left = number;
    let mut name = String::new();
    while left > 0 {
        let digit = u8::try_from((left - 1) % 26).unwrap_or_default();
        name.insert(0, char::from(b'a' + digit));
        left = (left - 1) / 26;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_from_numbers() {
        let v4 = node_prefix(cluster_prefix(1, Family::V4).unwrap(), 2).unwrap();
        assert_eq!(v4.to_string(), "10.1.2.0/24");
        assert_eq!(host(v4, 1).to_string(), "10.1.2.1");
        assert_eq!(pod(v4, 1).to_string(), "10.1.2.10");
        let v6 = node_prefix(cluster_prefix(1, Family::V6).unwrap(), 2).unwrap();
        assert_eq!(v6.to_string(), "fd01:1:2::/64");
        let longer = node_prefix("fd99::/48".parse().unwrap(), 2).unwrap();
        assert_eq!(longer.to_string(), "fd99:0:0:2::/64");
        assert_eq!(pod(v6, 1).to_string(), "fd01:1:2::10");
        assert_eq!(underlay(2, 3, Family::V4).to_string(), "192.168.2.3");
        assert_eq!(gateway(2, Family::V6).to_string(), "fd00:c0a8:2::fffe");
    }

    #[test]
    fn short_names_go_on_after_z() {
        assert_eq!(
            [1, 2, 26, 27, 52, 53].map(letters),
            ["a", "b", "z", "aa", "az", "ba"]
        );
    }
}
