//! Prefixes as nftables takes them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nftables::expr::Expression;

use super::words::{one_or_set, prefix, range, text};

/// Prefixes by family, without overlaps: an interval set refuses them.
pub(super) struct Prefixes {
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
}

impl Prefixes {
    pub(super) fn new(prefixes: &BTreeSet<IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            match prefix {
                IpNet::V4(net) => v4.push(net.trunc()),
                IpNet::V6(net) => v6.push(net.trunc()),
            }
        }
        Self {
            v4: Ipv4Net::aggregate(&v4),
            v6: Ipv6Net::aggregate(&v6),
        }
    }

    pub(super) fn v4_elements(&self) -> Vec<Expression<'static>> {
        let prefixes = self.v4.iter();
        prefixes
            .map(|net| prefix(net.addr().to_string(), net.prefix_len()))
            .collect()
    }

    pub(super) fn v6_elements(&self) -> Vec<Expression<'static>> {
        let prefixes = self.v6.iter();
        prefixes
            .map(|net| prefix(net.addr().to_string(), net.prefix_len()))
            .collect()
    }

    /// The same as numbers, for headers that nft has no name for; none if there is no prefix.
    pub(super) fn v4_numbers(&self) -> Option<Expression<'static>> {
        let number = |address: Ipv4Addr| Expression::Number(address.to_bits());
        one_or_set(
            self.v4
                .iter()
                .map(|net| (net.network(), net.broadcast()))
                .map(|(low, high)| range(number(low), number(high))),
        )
    }

    pub(super) fn v6_numbers(&self) -> Option<Expression<'static>> {
        let number = |address: Ipv6Addr| text(&format!("{:#034x}", address.to_bits()));
        one_or_set(
            self.v6
                .iter()
                .map(|net| (net.network(), net.broadcast()))
                .map(|(low, high)| range(number(low), number(high))),
        )
    }
}
