//! A prefix that addresses come from.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A pod prefix of this node. One address after another is given, so that each rests for as long as it can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    prefix: IpNet,
    router: IpAddr,
    /// Where the next search begins: an address as a number, less the prefix's first.
    next: u128,
}

/// How it stands with a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolStatus {
    /// Which.
    pub prefix: IpNet,
    /// How many addresses it gives; `u64::MAX`: as many or more.
    pub addresses: u64,
    /// So many are leased.
    pub leased: u64,
    /// So many rest.
    pub resting: u64,
}

impl Pool {
    /// A prefix in which the node itself has one address.
    pub fn new(prefix: IpNet, router: IpAddr) -> Self {
        Self {
            prefix: prefix.trunc(),
            router,
            next: 0,
        }
    }

    /// Which.
    pub fn prefix(&self) -> IpNet {
        self.prefix
    }

    /// Whether its addresses are of IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.router.is_ipv4()
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.prefix, self.router) == (other.prefix, other.router)
    }

    /// How many addresses it gives; `u64::MAX`: as many or more.
    pub fn size(&self) -> u64 {
        let bits = self.prefix.max_prefix_len() - self.prefix.prefix_len();
        let all = if bits >= 64 { u64::MAX } else { 1 << bits };
        let reserved = [self.prefix.network(), self.prefix.broadcast(), self.router];
        let mut reserved = reserved.to_vec();
        reserved.sort_unstable();
        reserved.dedup();
        let kept = reserved
            .iter()
            .filter(|address| self.is_reserved(**address));
        all.saturating_sub(u64::try_from(kept.count()).unwrap_or(0))
    }

    /// Whether it gives this one.
    pub fn gives(&self, address: IpAddr) -> bool {
        self.prefix.contains(&address) && !self.is_reserved(address)
    }

    /// The router's, the network's (of IPv6: the subnet routers' anycast, RFC 4291, section 2.6.1), and the broadcast
    /// address; the latter two where the prefix has more than two addresses (RFC 3021, RFC 6164).
    fn is_reserved(&self, address: IpAddr) -> bool {
        let bits = self.prefix.max_prefix_len() - self.prefix.prefix_len();
        let is_end = address == self.prefix.network()
            || (self.is_ipv4() && address == self.prefix.broadcast());
        address == self.router || (bits > 1 && is_end)
    }

    /// Goes on after the last of these that is its own.
    pub(super) fn begin_after(&mut self, used: &[IpAddr]) {
        if self.next == 0
            && let Some(last) = used
                .iter()
                .filter(|address| self.prefix.contains(*address))
                .max()
        {
            self.next = self.place(*last) + 1;
        }
    }

    /// The next one that is free.
    pub(super) fn next(&mut self, is_free: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let bits = self.prefix.max_prefix_len() - self.prefix.prefix_len();
        let last = if bits >= 128 {
            u128::MAX
        } else {
            (1 << bits) - 1
        };
        let begin = self.next.min(last);
        let round = (begin..=last).chain(0..begin);
        let found = round
            .map(|place| (place, self.address(place)))
            .find(|(_, address)| self.gives(*address) && is_free(*address));
        let (place, address) = found?;
        self.next = if place == last { 0 } else { place + 1 };
        Some(address)
    }

    fn place(&self, address: IpAddr) -> u128 {
        number(address) - number(self.prefix.network())
    }

    fn address(&self, place: u128) -> IpAddr {
        match self.prefix.network() {
            IpAddr::V4(first) => {
                // A place is less than the prefix's size.
                let place = u32::try_from(place).unwrap_or(0);
                Ipv4Addr::from(u32::from(first) + place).into()
            }
            IpAddr::V6(first) => Ipv6Addr::from(u128::from(first) + place).into(),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(prefix: &str, router: &str) -> Pool {
        Pool::new(prefix.parse().unwrap(), router.parse().unwrap())
    }

    fn all(mut pool: Pool) -> Vec<String> {
        let mut given = Vec::new();
        while let Some(address) = pool.next(|address| !given.contains(&address)) {
            given.push(address);
        }
        given.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_that_nobody_else_needs_are_given_one_after_another() {
        let small = pool("10.1.1.0/29", "10.1.1.1");
        let given = ["10.1.1.2", "10.1.1.3", "10.1.1.4", "10.1.1.5", "10.1.1.6"];
        assert_eq!(small.size(), 5);
        assert_eq!(all(small), given);
        let six = pool("fd00::/126", "fd00::1");
        assert_eq!(six.size(), 2);
        assert_eq!(all(six), ["fd00::2", "fd00::3"]);
        // The router is in the middle, or outside.
        assert_eq!(all(pool("10.1.1.0/30", "10.1.1.2")), ["10.1.1.1"]);
        assert_eq!(all(pool("10.1.1.0/31", "10.1.1.0")), ["10.1.1.1"]);
        assert_eq!(all(pool("10.1.1.9/32", "10.9.9.9")), ["10.1.1.9"]);
        assert_eq!(all(pool("10.1.1.9/32", "10.1.1.9")), [""; 0]);
        assert_eq!(pool("fd00::/64", "fd00::1").size(), u64::MAX - 2);
        assert_eq!(pool("::/0", "::1").size(), u64::MAX - 2);
        assert_eq!(pool("10.1.0.0/16", "10.1.0.1").size(), 65_533);
    }

    #[test]
    fn what_was_given_back_comes_last() {
        let mut pool = pool("10.1.1.0/29", "10.1.1.1");
        pool.begin_after(&["10.1.1.4".parse().unwrap(), "10.2.0.9".parse().unwrap()]);
        let mut given = Vec::new();
        for _ in 0..7 {
            given.push(pool.next(|_| true).unwrap().to_string());
        }
        assert_eq!(
            given,
            [
                "10.1.1.5", "10.1.1.6", "10.1.1.2", "10.1.1.3", "10.1.1.4", "10.1.1.5", "10.1.1.6"
            ]
        );
        let mut last = pool.clone();
        last.begin_after(&["10.1.1.7".parse().unwrap()]);
        assert_eq!(last, pool, "it goes on where it is");
    }
}
