//! What the nodes of the world are told: addresses, keys, states.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use hawser_tunnel::guard::Guard;
use hawser_tunnel::identity::Identity;
use hawser_tunnel::key::PrivateKey;
use hawser_tunnel::node::NodeId;
use hawser_tunnel::state::{Cluster, Lane, Peer, PeerKind, State};

use crate::fuzz::packet::Ends;

/// Sources and destinations of packets that come in: honest ones first.
pub(in crate::fuzz) const INBOUND: Ends<'_> = Ends {
    v4: (
        &[
            [10, 1, 1, 10],
            [10, 3, 1, 10],
            [10, 1, 2, 10],
            [10, 2, 1, 10],
            [8, 8, 8, 8],
        ],
        &[
            [10, 2, 1, 10],
            [10, 2, 1, 1],
            [10, 2, 2, 1],
            [10, 1, 1, 10],
            [224, 0, 0, 1],
        ],
    ),
    v6: (
        &[
            "fd01:1:1::10",
            "fd01:3:1::10",
            "fd01:1:2::10",
            "fd01:2:1::10",
            "2001:db8::1",
        ],
        &[
            "fd01:2:1::10",
            "fd01:2:1::1",
            "fd01:2:2::1",
            "fd01:1:1::10",
            "ff02::1",
        ],
    ),
};

/// Of packets that go out.
pub(in crate::fuzz) const OUTBOUND: Ends<'_> = Ends {
    v4: (
        &[
            [10, 2, 1, 10],
            [10, 2, 1, 1],
            [10, 2, 1, 99],
            [10, 1, 1, 10],
        ],
        &[
            [10, 1, 1, 10],
            [10, 3, 1, 10],
            [10, 1, 2, 10],
            [8, 8, 8, 8],
            [224, 0, 0, 1],
        ],
    ),
    v6: (
        &[
            "fd01:2:1::10",
            "fd01:2:1::1",
            "fd01:2:1::99",
            "fd01:1:1::10",
        ],
        &[
            "fd01:1:1::10",
            "fd01:3:1::10",
            "fd01:1:2::10",
            "2001:db8::1",
            "fe80::1",
        ],
    ),
};

/// Identities that cluster 1 published, and the one that a foreign peer speaks with.
pub(in crate::fuzz) const PUBLISHED: [u32; 3] = [1000, 1001, Identity::MAX];
pub(in crate::fuzz) const FOREIGN_IDENTITY: u32 = 3000;

pub(in crate::fuzz) fn private_key(number: u8) -> PrivateKey {
    PrivateKey::from_random([number; 32])
}

pub(in crate::fuzz) fn id(text: &str) -> NodeId {
    text.parse().expect("a node of the world")
}

pub(super) fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 51820))
}

fn nets<T: FromIterator<ipnet::IpNet>>(texts: &[&str]) -> T {
    texts
        .iter()
        .map(|text| text.parse().expect("a prefix of the world"))
        .collect()
}

fn identities<T: FromIterator<Identity>>(numbers: &[u32]) -> T {
    numbers
        .iter()
        .map(|&number| Identity::new(number).expect("an identity of the world"))
        .collect()
}

fn peer(name: &str, key: u8, kind: PeerKind, prefixes: &[&str]) -> Peer {
    Peer {
        name: name.to_owned(),
        kind,
        prefixes: nets(prefixes),
        lanes: vec![Lane {
            public_key: private_key(key).public(),
            endpoint: (name != "silent").then(|| address(key)),
            preshared_key: None,
            needs_key: false,
        }],
        path_mtu: if kind == PeerKind::Native { 1500 } else { 1280 },
        watched: kind == PeerKind::Native,
    }
}

/// What node 2/1 is told.
pub(in crate::fuzz) fn state() -> State {
    let cluster = |name: &str, prefixes: &[&str], published: &[u32]| Cluster {
        name: name.to_owned(),
        prefixes: nets(prefixes),
        identities: identities(published),
    };
    let own = ["10.2.1.0/24", "fd01:2:1::/64"];
    let foreign = PeerKind::Foreign {
        identity: Identity::new(FOREIGN_IDENTITY).expect("28 bits"),
    };
    let pods = identities::<Vec<_>>(&[2000, 1]);
    let address = |text: &str| text.parse::<IpAddr>().expect("an address of the world");
    State {
        checksums: hawser_tunnel::state::Checksums::Left,
        vni: Default::default(),
        node: id("2/1"),
        prefixes: nets(&own),
        endpoints: BTreeMap::from([
            (address("10.2.1.10"), pods[0]),
            (address("10.2.1.1"), pods[1]),
            (address("fd01:2:1::10"), pods[0]),
            (address("fd01:2:1::1"), pods[1]),
        ]),
        clusters: BTreeMap::from([
            (
                id("1/1").cluster,
                cluster("one", &["10.1.0.0/16", "fd01:1::/32"], &PUBLISHED),
            ),
            (
                id("2/1").cluster,
                cluster("two", &["10.2.0.0/16", "fd01:2::/32"], &[2000]),
            ),
            (
                id("3/1").cluster,
                cluster(
                    "three",
                    &["10.3.0.0/16", "fd01:3::/32"],
                    &[FOREIGN_IDENTITY],
                ),
            ),
        ]),
        peers: BTreeMap::from([
            (
                id("1/1"),
                peer(
                    "native",
                    1,
                    PeerKind::Native,
                    &["10.1.0.0/16", "fd01:1:1::/64"],
                ),
            ),
            (
                id("1/2"),
                peer(
                    "silent",
                    4,
                    PeerKind::Native,
                    &["10.1.2.0/24", "fd01:1:2::/64"],
                ),
            ),
            (
                id("3/1"),
                peer("foreign", 3, foreign, &["10.3.1.0/24", "fd01:3:1::/64"]),
            ),
        ]),
        guard: Guard {
            device: "hawser0".to_owned(),
            mesh: nets(&["10.0.0.0/8", "fd01::/16"]),
            local: nets(&own),
            ..Guard::default()
        },
    }
}

/// What node 1/1 is told: it takes what node 2/1 sends.
pub(super) fn mirrored() -> State {
    let own = ["10.1.0.0/16", "fd01:1:1::/64"];
    let mut state = state();
    state.node = id("1/1");
    state.prefixes = nets(&own);
    state.guard.local = nets(&own);
    state.endpoints.clear();
    state.peers = BTreeMap::from([
        (
            id("1/2"),
            peer(
                "silent",
                4,
                PeerKind::Native,
                &["10.1.2.0/24", "fd01:1:2::/64"],
            ),
        ),
        (
            id("2/1"),
            peer(
                "native",
                2,
                PeerKind::Native,
                &["10.2.1.0/24", "fd01:2:1::/64"],
            ),
        ),
    ]);
    state
}
