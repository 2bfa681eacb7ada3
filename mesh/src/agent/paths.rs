//! How much the underlay carries on the way to each peer.

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
    use std::path::Path;

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
    fn the_narrowest_lane_counts_and_what_is_unknown_is_as_the_device() {
        let mut state = NodeConfig::parse(NODE, Path::new("node.yaml"))
            .unwrap()
            .state;
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
