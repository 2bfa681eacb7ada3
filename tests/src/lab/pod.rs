//! One pod of a lab: a namespace with one link to its node.

use std::net::IpAddr;

use super::address::{family_of, host, letters, pod};
use super::topology::{ClusterSpec, Family};
use crate::io::Netns;
use ipnet::IpNet;

/// A pod. Its only device is `eth0`, its only neighbour is its node.
#[derive(Clone, Debug)]
pub struct Pod {
    pub(super) name: String,
    pub(super) short_name: String,
    pub(super) node: String,
    pub(super) cluster: String,
    pub(super) number: u16,
    pub(super) identity: u32,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) netns: Netns,
}

impl Pod {
    /// Its name in the lab: `east-1-a`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name on its node: `a`.
    #[must_use]
    pub fn short_name(&self) -> &str {
        &self.short_name
    }

    /// The name of its node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The name of its cluster.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Its number on its node, from 1.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// The identity that its node says it has.
    #[must_use]
    pub const fn identity(&self) -> u32 {
        self.identity
    }

    /// Its namespace.
    #[must_use]
    pub const fn netns(&self) -> &Netns {
        &self.netns
    }

    /// All its addresses.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Its address in one family, if it has one.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses
            .iter()
            .copied()
            .find(|address| family_of(*address) == family)
    }

    /// Its IPv4 address.
    ///
    /// # Panics
    /// When the topology gave it none.
    #[must_use]
    pub fn v4(&self) -> IpAddr {
        self.address(Family::V4)
            .expect("the topology gives this pod an IPv4 address")
    }

    /// Its IPv6 address.
    ///
    /// # Panics
    /// When the topology gave it none.
    #[must_use]
    pub fn v6(&self) -> IpAddr {
        self.address(Family::V6)
            .expect("the topology gives this pod an IPv6 address")
    }

    /// The node's end of its link.
    #[must_use]
    pub fn host_device(&self) -> String {
        host_device(self.number)
    }

    /// MAC address of its `eth0`.
    #[must_use]
    pub fn mac(&self) -> String {
        mac(0x0a, self.number)
    }

    /// MAC address of the node's end of its link.
    #[must_use]
    pub fn host_mac(&self) -> String {
        mac(0x0e, self.number)
    }
}

fn host_device(number: u16) -> String {
    format!("pod-{}", letters(number))
}

/// Links of different pods never meet, so the number within the node is enough.
fn mac(first: u8, number: u16) -> String {
    let [high, low] = number.to_be_bytes();
    format!("{first:02x}:58:00:00:{high:02x}:{low:02x}")
}

/// The pods' addresses and router address on one node, in every family of the cluster.
pub(super) fn pod_addresses(cidrs: &[IpNet], number: u16) -> Vec<IpAddr> {
    cidrs.iter().map(|cidr| pod(*cidr, number)).collect()
}

/// The router address of one pod CIDR.
pub(super) fn router_of(cidr: IpNet) -> IpAddr {
    host(cidr, 1)
}

/// The pod CIDRs of node `index` of a cluster.
pub(super) fn pod_cidrs(cluster: &ClusterSpec, index: u16) -> Vec<IpNet> {
    let prefixes = Family::BOTH
        .into_iter()
        .filter_map(|family| cluster.prefix(family));
    prefixes
        .filter_map(|prefix| super::address::node_prefix(prefix, index))
        .collect()
}
