//! Which node owns a pod address: the longest prefix wins, and every prefix has exactly one owner.

use crate::node::NodeId;
use crate::state::State;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;
use std::net::IpAddr;

/// The pod prefixes of all nodes, this one included.
///
/// One table serves both directions: where a packet to an address goes, and who may send from it.
/// So a node that owns 10.2.0.0/16 cannot send as a pod of the node that owns 10.2.1.0/24 (T8).
#[derive(Debug, Default)]
pub struct Owners {
    v4: PrefixMap<Ipv4Net, NodeId>,
    v6: PrefixMap<Ipv6Net, NodeId>,
}

impl Owners {
    /// The owners in a state.
    pub fn new(state: &State) -> Self {
        let mut owners = Self::default();
        for &prefix in &state.prefixes {
            owners.insert(prefix, state.node);
        }
        for (&id, peer) in &state.peers {
            for &prefix in &peer.prefixes {
                owners.insert(prefix, id);
            }
        }
        owners
    }

    fn insert(&mut self, prefix: IpNet, owner: NodeId) {
        match prefix {
            IpNet::V4(prefix) => self.v4.insert(prefix, owner),
            IpNet::V6(prefix) => self.v6.insert(prefix, owner),
        };
    }

    /// The node that owns an address, if any does.
    pub fn owner(&self, address: IpAddr) -> Option<NodeId> {
        match address {
            IpAddr::V4(address) => self
                .v4
                .get_lpm(&Ipv4Net::from(address))
                .map(|(_, &owner)| owner),
            IpAddr::V6(address) => self
                .v6
                .get_lpm(&Ipv6Net::from(address))
                .map(|(_, &owner)| owner),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{ClusterId, NodeIndex};
    use proptest::prelude::*;

    /// The obvious way: look at every prefix, keep the longest that fits.
    fn slow_owner(entries: &[(IpNet, NodeId)], address: IpAddr) -> Option<NodeId> {
        let fits = entries
            .iter()
            .filter(|(prefix, _)| prefix.contains(&address));
        // Of equal prefixes the later stands, as in a table that is written twice.
        fits.max_by_key(|(prefix, _)| prefix.prefix_len())
            .map(|&(_, owner)| owner)
    }

    fn node() -> impl Strategy<Value = NodeId> {
        (1_u16..4, 1_u16..6).prop_map(|(cluster, index)| NodeId {
            cluster: ClusterId::new(cluster).unwrap(),
            index: NodeIndex::new(index).unwrap(),
        })
    }

    /// Addresses from a narrow range, so that prefixes nest and meet often.
    fn v4() -> impl Strategy<Value = IpAddr> {
        (0_u32..0x0fff).prop_map(|low| IpAddr::V4((0x0a02_0000 | low).into()))
    }

    fn v6() -> impl Strategy<Value = IpAddr> {
        (0_u128..0x0fff).prop_map(|low| IpAddr::V6((0xfd01_u128 << 112 | low).into()))
    }

    fn prefix() -> impl Strategy<Value = IpNet> {
        prop_oneof![
            (v4(), 16_u8..=32)
                .prop_map(|(address, length)| IpNet::new(address, length).unwrap().trunc()),
            (v6(), 112_u8..=128)
                .prop_map(|(address, length)| IpNet::new(address, length).unwrap().trunc()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn agrees_with_the_slow_oracle(entries in prop::collection::vec((prefix(), node()), 0..40), addresses in prop::collection::vec(prop_oneof![v4(), v6()], 50)) {
            let mut owners = Owners::default();
            for &(prefix, owner) in &entries {
                owners.insert(prefix, owner);
            }
            for address in addresses {
                prop_assert_eq!(owners.owner(address), slow_owner(&entries, address), "{}", address);
            }
        }
    }
}
