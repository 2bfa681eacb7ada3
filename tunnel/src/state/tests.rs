use super::*;
use crate::key::PrivateKey;
use proptest::prelude::*;

/// The public key of a peer, the same for the same number.
pub(crate) fn key(number: u8) -> PublicKey {
    PrivateKey::from_random([number; 32]).public()
}

fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn identities(numbers: &[u32]) -> BTreeSet<Identity> {
    numbers
        .iter()
        .map(|&number| Identity::new(number).unwrap())
        .collect()
}

/// A node of cluster 1 that knows another of its cluster and one of cluster 2.
pub(crate) fn small_state() -> State {
    let cluster = |name: &str, prefixes: &[&str], published: &[u32]| Cluster {
        name: name.to_owned(),
        prefixes: nets(prefixes),
        identities: identities(published),
    };
    let peer = |name: &str, prefixes: &[&str], number: u8| Peer {
        name: name.to_owned(),
        kind: PeerKind::Native,
        prefixes: nets(prefixes),
        lanes: vec![Lane {
            public_key: key(number),
            endpoint: Some(SocketAddr::from(([192, 0, 2, number], 51820))),
            preshared_key: None,
            needs_key: false,
        }],
        path_mtu: 1500,
        watched: false,
    };
    State {
        checksums: Checksums::Left,
        vni: Vni::DEFAULT,
        node: "1/1".parse().unwrap(),
        prefixes: nets(&["10.1.1.0/24", "fd01:1:1::/64"]),
        endpoints: BTreeMap::from([
            ("10.1.1.1".parse().unwrap(), Identity::HOST),
            ("10.1.1.10".parse().unwrap(), Identity::new(1001).unwrap()),
            (
                "fd01:1:1::10".parse().unwrap(),
                Identity::new(1001).unwrap(),
            ),
        ]),
        clusters: BTreeMap::from([
            (
                ClusterId::new(1).unwrap(),
                cluster("east", &["10.1.0.0/16", "fd01:1::/32"], &[1001, 1002]),
            ),
            (
                ClusterId::new(2).unwrap(),
                cluster("west", &["10.2.0.0/16", "fd01:2::/32"], &[2001]),
            ),
        ]),
        peers: BTreeMap::from([
            (
                "1/2".parse().unwrap(),
                peer("east-2", &["10.1.2.0/24", "fd01:1:2::/64"], 2),
            ),
            (
                "2/1".parse().unwrap(),
                peer("west-1", &["10.2.1.0/24", "fd01:2:1::/64"], 3),
            ),
        ]),
        guard: Guard {
            device: "hawser0".to_owned(),
            mesh: nets(&["10.1.0.0/16", "10.2.0.0/16", "fd01:1::/32", "fd01:2::/32"]),
            local: nets(&["10.1.1.0/24", "fd01:1:1::/64"]),
            ..Guard::default()
        },
    }
}

/// Changes the small state and says which rule it breaks.
fn broken(change: impl FnOnce(&mut State)) -> String {
    let mut state = small_state();
    change(&mut state);
    state.check().expect_err("a rule is broken").to_string()
}

fn peer_of(state: &mut State) -> &mut Peer {
    state.peers.get_mut(&"2/1".parse().unwrap()).unwrap()
}

#[test]
fn the_small_state_is_legal_and_nested_prefixes_of_one_cluster_are_too() {
    let mut state = small_state();
    assert!(state.clone().check().is_ok());
    // One node owns a larger prefix, another a part of it: the longest match decides (T8).
    state
        .peers
        .get_mut(&"1/2".parse().unwrap())
        .unwrap()
        .prefixes = nets(&["10.1.0.0/16"]);
    assert!(state.check().is_ok());
}

#[test]
fn every_rule_names_field_value_and_rule() {
    assert_eq!(
        broken(|state| {
            peer_of(state).prefixes = nets(&["10.1.1.0/24"]);
        }),
        "prefix 10.1.1.0/24 of node 2/1: lies outside the prefixes of cluster 2"
    );
    assert_eq!(
        broken(|state| {
            state
                .peers
                .get_mut(&"1/2".parse().unwrap())
                .unwrap()
                .prefixes = nets(&["10.1.1.0/24"]);
        }),
        "prefix 10.1.1.0/24: has two owners, 1/1 and 1/2"
    );
    for (prefix, range) in [
        ("0.0.0.0/0", "0.0.0.0/8"),
        ("127.0.0.0/8", "127.0.0.0/8"),
        ("169.254.169.254/32", "169.254.0.0/16"),
        ("240.1.0.0/16", "240.0.0.0/4"),
        ("255.255.255.255/32", "240.0.0.0/4"),
        ("::/0", "::/96"),
        ("::a00:0/104", "::/96"),
        ("64:ff9b::/96", "64:ff9b::/96"),
        ("fe80::/64", "fe80::/10"),
        ("::ffff:10.0.0.0/104", "::ffff:0.0.0.0/96"),
    ] {
        assert_eq!(
            broken(|state| {
                state
                    .clusters
                    .get_mut(&ClusterId::new(2).unwrap())
                    .unwrap()
                    .prefixes
                    .insert(prefix.parse().unwrap());
            }),
            format!("prefix {prefix} of cluster 2: lies in {range}, which is not for pods")
        );
    }
    assert_eq!(
        broken(|state| {
            state
                .clusters
                .get_mut(&ClusterId::new(2).unwrap())
                .unwrap()
                .prefixes
                .insert("10.1.9.0/24".parse().unwrap());
        }),
        "prefix 10.1.0.0/16 of cluster 1 overlaps 10.1.9.0/24 of cluster 2"
    );
    assert_eq!(
        broken(|state| {
            state.clusters.remove(&ClusterId::new(2).unwrap());
        }),
        "node 2/1: its cluster is not listed"
    );
    assert_eq!(
        broken(|state| {
            let peer = peer_of(state).clone();
            state.peers.insert(
                state.node,
                Peer {
                    prefixes: BTreeSet::new(),
                    ..peer
                },
            );
        }),
        "peer 1/1: is this node itself"
    );
    assert_eq!(
        broken(|state| peer_of(state).lanes[0].public_key = key(2)),
        format!(
            "public key {}: belongs to two lanes, of 1/2 and of 2/1",
            key(2)
        )
    );
    assert_eq!(
        broken(|state| peer_of(state).lanes.clear()),
        "peer 2/1: has 0 lanes; must have 1 to 64, a foreign peer exactly 1"
    );
    assert_eq!(
        broken(|state| {
            let peer = peer_of(state);
            peer.kind = PeerKind::Foreign {
                identity: Identity::WORLD,
            };
            peer.lanes.push(Lane {
                public_key: key(9),
                ..peer.lanes[0].clone()
            });
        }),
        "peer 2/1: has 2 lanes; must have 1 to 64, a foreign peer exactly 1"
    );
    for endpoint in [
        "192.0.2.3:0",
        "10.2.9.9:51820",
        "0.0.0.0:1",
        "255.255.255.255:1",
        "127.0.0.1:1",
        "224.0.0.1:1",
        "[::1]:1",
        "[::ffff:192.0.2.2]:1",
    ] {
        assert_eq!(
            broken(|state| peer_of(state).lanes[0].endpoint = Some(endpoint.parse().unwrap())),
            format!(
                "endpoint {endpoint} of peer 2/1: must be a host's address with a port, outside all pod prefixes"
            )
        );
    }
    assert_eq!(
        broken(|state| peer_of(state).path_mtu = 1279),
        "path mtu 1279 of peer 2/1: must be 1280 or more"
    );
    assert_eq!(
        broken(|state| {
            state
                .endpoints
                .insert("10.1.2.9".parse().unwrap(), Identity::HOST);
        }),
        "endpoint 10.1.2.9: lies outside this node's prefixes"
    );
    assert_eq!(
        broken(|state| {
            state
                .clusters
                .get_mut(&ClusterId::new(2).unwrap())
                .unwrap()
                .identities = identities(&[2]);
        }),
        "identity 2 of cluster 2: 1 to 255 are reserved"
    );
    assert_eq!(
        broken(|state| {
            let peer = peer_of(state);
            peer.watched = true;
            peer.kind = PeerKind::Foreign {
                identity: Identity::WORLD,
            };
        }),
        "foreign peer 2/1: cannot be watched; it answers no probes"
    );
}

#[test]
fn a_state_that_watches_nobody_reads_as_before() {
    let mut state = small_state();
    let before = state.digest();
    let json = serde_json::to_string(&state).unwrap();
    assert!(!json.contains("watched"));
    assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state);
    peer_of(&mut state).watched = true;
    let json = serde_json::to_string(&state).unwrap();
    assert!(json.contains("\"watched\":true"));
    assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state);
    assert_ne!(state.digest(), before);
    assert!(state.check().is_ok());
}

#[test]
fn secrets_are_in_the_json_of_a_state_and_nowhere_in_its_debug() {
    let mut state = small_state();
    let secret = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";
    peer_of(&mut state).lanes[0].preshared_key = Some(PresharedKey::from_base64(secret).unwrap());
    let json = serde_json::to_string(&state).unwrap();
    assert!(json.contains(secret), "the state file must hold it");
    assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state);
    assert!(!format!("{state:?}").contains("CQkJ"));
    assert_ne!(state.digest(), small_state().digest());
}

fn any_state() -> impl Strategy<Value = State> {
    let endpoints = prop::collection::btree_map(2_u8..9, 1000_u32..1003, 0..5);
    let peers = prop::collection::btree_map(2_u16..7, (1280_u16..1290, 2_u8..20), 0..5);
    let clusters = prop::collection::btree_map(
        1_u16..5,
        prop::collection::btree_set(256_u32..260, 0..3),
        0..4,
    );
    (endpoints, peers, clusters, 0_u32..3).prop_map(|(endpoints, peers, clusters, vni)| {
        let mut state = small_state();
        state.vni = Vni::new(vni).unwrap();
        state.endpoints = endpoints
            .into_iter()
            .map(|(low, identity)| {
                (
                    IpAddr::from([10, 1, 1, low]),
                    Identity::new(identity).unwrap(),
                )
            })
            .collect();
        let model = state.peers.values().next().unwrap().clone();
        state.peers = peers
            .into_iter()
            .map(|(index, (path_mtu, number))| {
                let lanes = vec![Lane {
                    public_key: key(number),
                    ..model.lanes[0].clone()
                }];
                let id = NodeId {
                    cluster: ClusterId::new(1).unwrap(),
                    index: crate::node::NodeIndex::new(index).unwrap(),
                };
                (
                    id,
                    Peer {
                        path_mtu,
                        lanes,
                        prefixes: BTreeSet::new(),
                        ..model.clone()
                    },
                )
            })
            .collect();
        state.clusters = clusters
            .into_iter()
            .map(|(id, published)| {
                let published: Vec<u32> = published.into_iter().collect();
                let id = ClusterId::new(id).unwrap();
                (
                    id,
                    Cluster {
                        identities: identities(&published),
                        ..Cluster::default()
                    },
                )
            })
            .collect();
        state
    })
}

proptest! {
    #[test]
    fn changes_lead_from_any_state_to_any_other(from in any_state(), to in any_state()) {
        let changes = from.changes_to(&to);
        prop_assert_eq!(changes.is_empty(), from == to);
        let led = from.with_changes(changes.clone()).unwrap();
        prop_assert_eq!(led.digest() == from.digest(), from == to);
        prop_assert_eq!(&led, &to);
        // Over the wire they are the same changes.
        let json = serde_json::to_string(&changes).unwrap();
        prop_assert_eq!(serde_json::from_str::<Vec<Change>>(&json).unwrap(), changes);
    }
}

#[test]
fn a_change_that_removes_what_is_not_there_changes_nothing() {
    let state = small_state();
    let changes = vec![
        Change::RemoveEndpoint {
            address: "10.1.1.10".parse().unwrap(),
        },
        Change::RemovePeer {
            id: "2/9".parse().unwrap(),
        },
    ];
    let error = state.with_changes(changes).unwrap_err();
    assert_eq!(
        error.to_string(),
        "change removes peer 2/9, which is not there"
    );
}

/// Found by fuzzing: a sign in the place of a digit was taken.
#[test]
fn a_digest_is_64_hexadecimal_digits_and_nothing_else() {
    let text = small_state().digest().to_string();
    assert!(Digest::try_from(text.clone()).is_ok());
    for (at, wrong) in [(0, "+"), (2, "-"), (63, "g"), (10, " ")] {
        let mut bad = text.clone();
        bad.replace_range(at..=at, wrong);
        assert!(Digest::try_from(bad.clone()).is_err(), "{bad}");
    }
    assert!(Digest::try_from(text[1..].to_owned()).is_err());
}
