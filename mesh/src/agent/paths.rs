//! How much the underlay carries on the way to each peer.

use crate::io::netlink::Path;
use hawser_tunnel::mtu::MIN_UNDERLAY;
use hawser_tunnel::state::{Peer, State};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// MTU of the path to each underlay address, in bytes. An address without an entry has no route now.
pub(crate) type Paths = BTreeMap<IpAddr, u32>;

/// The underlay addresses whose paths matter.
pub(crate) fn destinations(state: &State) -> BTreeSet<IpAddr> {
    let lanes = state.peers.values().flat_map(|peer| &peer.lanes);
    lanes
        .filter_map(|lane| Some(lane.endpoint?.ip().to_canonical()))
        .collect()
}

/// Takes apart what was found: sources of IPv4 paths, and all MTUs.
pub(crate) fn sources(found: BTreeMap<IpAddr, Path>) -> (BTreeSet<Option<IpAddr>>, Paths) {
    let v4 = found.iter().filter(|(to, _)| to.is_ipv4());
    let sources = v4.map(|(_, path)| path.source).collect();
    let mtu = |(to, path): (IpAddr, Path)| (to, path.mtu);
    (sources, found.into_iter().map(mtu).collect())
}

/// Whether IPv4 packets leave from no address, or from one that is not among the node's `own`, while there is one to
/// send from.
pub(crate) fn are_forgotten(sources: &BTreeSet<Option<IpAddr>>, own: &BTreeSet<IpAddr>) -> bool {
    let usable = |address: &IpAddr| address.is_ipv4() && !address.is_loopback();
    let is_own = |source: &Option<IpAddr>| source.is_some_and(|source| own.contains(&source));
    own.iter().any(usable) && !sources.iter().all(is_own)
}

/// Writes the path MTUs into the state. `fallback` is for peers whose address is not known or has
/// no route: the MTU of the underlay devices.
pub(crate) fn measure(state: &mut State, paths: &Paths, fallback: u32) {
    for peer in state.peers.values_mut() {
        peer.path_mtu = path_mtu(peer, paths, fallback);
    }
}

fn path_mtu(peer: &Peer, paths: &Paths, fallback: u32) -> u16 {
    let lanes = peer.lanes.iter().map(|lane| {
        let address = lane.endpoint.map(|endpoint| endpoint.ip().to_canonical());
        address
            .and_then(|address| paths.get(&address))
            .copied()
            .unwrap_or(fallback)
    });
    let smallest = lanes.min().unwrap_or(fallback);
    // What carries less than every IPv6 link must is not supported; the agent says so in its log.
    u16::try_from(smallest)
        .unwrap_or(u16::MAX)
        .max(MIN_UNDERLAY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NodeConfig;

    const NODE: &str = "
cluster: { name: east, id: 1 }
node: { name: east-1, index: 1 }
underlay: { devices: [eth0] }
clusters: [ { name: east, id: 1, prefixes: [10.1.0.0/16] } ]
peers:
  - name: east-2
    cluster: east
    index: 2
    prefixes: [10.1.2.0/24]
    lanes:
      - { publicKey: AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=, endpoint: '192.0.2.2:51820' }
      - { publicKey: AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=, endpoint: '192.0.2.3:51820' }
";

    #[test]
    fn a_source_that_is_nobodys_is_noticed_unless_there_is_none_to_send_from() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let (own, other) = (address("192.0.2.1"), address("192.0.2.101"));
        let path = |source| Path { mtu: 1500, source };
        let node = BTreeSet::from([own, address("127.0.0.1"), address("2001:db8::1")]);
        let found = |source, over6| {
            let found = [
                (address("198.51.100.1"), path(Some(own))),
                (address("198.51.100.2"), path(source)),
                (address("2001:db8::2"), path(over6)),
            ];
            sources(BTreeMap::from(found)).0
        };
        // IPv6 addresses are not remembered this way.
        assert!(!are_forgotten(&found(Some(own), None), &node));
        assert!(are_forgotten(&found(None, None), &node));
        assert!(are_forgotten(&found(Some(other), None), &node));
        let none = BTreeSet::from([address("127.0.0.1"), address("2001:db8::1")]);
        assert!(!are_forgotten(&found(None, None), &none));
        assert!(!are_forgotten(&BTreeSet::new(), &node));
    }

    #[test]
    fn the_narrowest_lane_counts_and_what_is_unknown_is_as_the_device() {
        let mut state = NodeConfig::parse(NODE, std::path::Path::new("node.yaml"))
            .unwrap()
            .state()
            .unwrap();
        let [two, three]: [IpAddr; 2] =
            ["192.0.2.2".parse().unwrap(), "192.0.2.3".parse().unwrap()];
        assert_eq!(destinations(&state), BTreeSet::from([two, three]));
        let cases: [(&[(IpAddr, u32)], u16); 5] = [
            (&[(two, 9000), (three, 1500)], 1500),
            (&[(two, 9000)], 1400),
            (&[], 1400),
            (&[(two, 600), (three, 1500)], MIN_UNDERLAY),
            (&[(two, 65536), (three, 65536)], u16::MAX),
        ];
        for (paths, wanted) in cases {
            measure(&mut state, &paths.iter().copied().collect(), 1400);
            assert_eq!(
                state.peers.values().next().unwrap().path_mtu,
                wanted,
                "{paths:?}"
            );
        }
    }
}
