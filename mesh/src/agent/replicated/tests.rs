use super::*;
use crate::record::{IdentityRecord, LaneRecord, Node, Pod, Record};
use crate::wire::encode_record;
use hawser_tunnel::node::NodeIndex;
use std::net::SocketAddr;
use std::path::Path;

const FILE: &str = "
cluster: { name: east }
node: { name: east-1 }
underlay: { devices: [eth0] }
hub: { addresses: ['hub.example:7443'], ca: CA, certificate: CA, key: KEY }
";

/// A file of a node that asks a hub, with more fields behind it.
fn config(more: &str) -> NodeConfig {
    NodeConfig::parse(&format!("{FILE}{more}"), Path::new("node.yaml")).unwrap()
}

fn cluster_id(id: u16) -> ClusterId {
    ClusterId::new(id).unwrap()
}

fn id(cluster: u16, index: u16) -> NodeId {
    format!("{cluster}/{index}").parse().unwrap()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    let mut nets: Vec<IpNet> = texts.iter().map(|text| text.parse().unwrap()).collect();
    nets.sort();
    nets
}

fn member(number: u16, name: &str, prefixes: &[&str]) -> (u16, Record) {
    let record = Record::Cluster(record::Cluster {
        id: cluster_id(number),
        name: name.to_owned(),
        prefixes: nets(prefixes),
        ca: String::new(),
    });
    (1, record)
}

/// A node with one lane, whose key and address are made of its numbers.
fn node(cluster: u16, index: u16, name: &str, prefixes: &[&str]) -> (u16, Record) {
    let [_, byte] = (cluster * 16 + index).to_be_bytes();
    let at = SocketAddr::new([192, 0, 2, byte].into(), 51820);
    let record = Record::Node(Node {
        index: NodeIndex::new(index).unwrap(),
        name: name.to_owned(),
        prefixes: nets(prefixes),
        lanes: vec![LaneRecord {
            public_key: PublicKey::new([byte; 32]),
            peer_endpoint: Some(at),
            key_port: None,
        }],
    });
    (cluster, record)
}

fn identity(cluster: u16, number: u32) -> (u16, Record) {
    let record = Record::Identity(IdentityRecord {
        number: Identity::new(number).unwrap(),
        namespace: "shop".to_owned(),
        labels: BTreeMap::new(),
    });
    (cluster, record)
}

fn pod(index: u16, name: &str, address: &str, identity: u32) -> (u16, Record) {
    let record = Record::Pod(Pod {
        node: NodeIndex::new(index).unwrap(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        addresses: vec![address.parse().unwrap()],
        identity: Identity::new(identity).unwrap(),
    });
    (1, record)
}

fn mesh() -> Vec<(u16, Record)> {
    vec![
        member(1, "east", &["10.1.0.0/16", "fd01:1::/32"]),
        member(2, "west", &["10.2.0.0/16"]),
        node(1, 1, "east-1", &["10.1.1.0/24", "fd01:1:1::/64"]),
        node(1, 2, "east-2", &["10.1.2.0/24"]),
        node(2, 1, "west-1", &["10.2.1.0/24"]),
        identity(1, 1001),
        identity(2, 2001),
        pod(1, "a", "10.1.1.10", 1001),
        pod(2, "elsewhere", "10.1.2.10", 1001),
    ]
}

fn learned(records: &[(u16, Record)]) -> Learned {
    let records = records.iter().map(|(origin, record)| {
        let id = cluster_id(*origin);
        (id, record.key(), encode_record(record))
    });
    Learned::read("east", "east-1", records)
}

/// What comes of records; the data plane must take it.
fn composed(config: &NodeConfig, records: &[(u16, Record)]) -> Composed {
    let composed = compose(config, learned(records)).unwrap();
    composed.state.clone().check().unwrap();
    composed
}

fn names(composed: &Composed) -> Vec<&'static str> {
    composed.conflicts.iter().map(Conflict::name).collect()
}

#[test]
fn a_node_learns_everything_from_its_hub() {
    let composed = composed(&config(""), &mesh());
    assert_eq!(names(&composed), Vec::<&str>::new());
    let state = composed.state;
    assert_eq!(state.node, id(1, 1));
    let peers: Vec<NodeId> = state.peers.keys().copied().collect();
    assert_eq!(peers, [id(1, 2), id(2, 1)]);
    assert_eq!(state.clusters[&cluster_id(2)].name, "west");
    let identities = &state.clusters[&cluster_id(2)].identities;
    assert_eq!(
        identities
            .iter()
            .map(|&it| u32::from(it))
            .collect::<Vec<_>>(),
        [2001]
    );
    let routers: Vec<String> = composed.routers.values().map(ToString::to_string).collect();
    assert_eq!(routers, ["10.1.1.1", "fd01:1:1::1"]);
    let endpoints: Vec<String> = state
        .endpoints
        .iter()
        .map(|(address, &identity)| format!("{address} {}", u32::from(identity)))
        .collect();
    assert_eq!(endpoints, ["10.1.1.1 1", "10.1.1.10 1001", "fd01:1:1::1 1"]);
    assert_eq!(state.guard.mesh.len(), 3);
}

#[test]
fn the_order_of_records_does_not_matter() {
    let mut records = mesh();
    records.push(member(3, "rival", &["10.2.128.0/17", "10.3.0.0/16"]));
    records.push(node(3, 1, "rival-1", &["10.3.1.0/24"]));
    let forwards = composed(&config(""), &records);
    records.reverse();
    assert_eq!(composed(&config(""), &records), forwards);
}

#[test]
fn what_is_missing_has_a_name() {
    let records = mesh();
    let waiting = |records: &[(u16, Record)]| compose(&config(""), learned(records)).unwrap_err();
    assert_eq!(waiting(&[]), Waiting::Cluster);
    assert_eq!(
        waiting(&records[1..]),
        Waiting::Cluster,
        "its own entry is missing"
    );
    assert_eq!(waiting(&records[..2]), Waiting::Node);
    // A cluster that says of itself what only the own hub may say is not believed.
    let (_, forged) = member(1, "east", &["10.1.0.0/16"]);
    assert_eq!(waiting(&[(2, forged)]), Waiting::Cluster);
}

#[test]
fn a_node_without_keys_is_no_peer_yet() {
    let mut records = mesh();
    if let Record::Node(node) = &mut records[3].1 {
        node.lanes.clear();
    }
    let composed = composed(&config(""), &records);
    assert_eq!(
        composed.state.peers.keys().copied().collect::<Vec<_>>(),
        [id(2, 1)]
    );
    assert_eq!(names(&composed), Vec::<&str>::new());
}

#[test]
fn what_cannot_stand_beside_others_is_left_out_alone_and_by_name() {
    let lanes = |records: &mut Vec<(u16, Record)>, at: SocketAddr, key: u8| {
        if let Some((_, Record::Node(node))) = records.last_mut() {
            node.lanes[0] = LaneRecord {
                public_key: PublicKey::new([key; 32]),
                peer_endpoint: Some(at),
                key_port: None,
            };
        }
    };
    let fine: SocketAddr = "192.0.2.200:51820".parse().unwrap();
    let cases: Vec<(&str, Vec<(u16, Record)>)> = vec![
        ("clusters_overlap", vec![member(3, "c", &["10.2.128.0/17"])]),
        ("clusters_overlap", vec![member(3, "c", &["10.0.0.0/8"])]),
        ("not_for_pods", vec![member(3, "c", &["169.254.0.0/16"])]),
        (
            "outside_cluster",
            vec![node(2, 2, "west-2", &["10.1.9.0/24"])],
        ),
        (
            "nodes_overlap",
            vec![node(2, 2, "west-2", &["10.2.1.128/25"])],
        ),
        ("namesake", vec![node(1, 9, "east-1", &["10.1.9.0/24"])]),
        ("key_twice", {
            let mut records = vec![node(2, 2, "west-2", &["10.2.2.0/24"])];
            lanes(&mut records, fine, 18);
            records
        }),
        ("peer_endpoint", {
            let mut records = vec![node(2, 2, "west-2", &["10.2.2.0/24"])];
            lanes(&mut records, "10.2.2.1:51820".parse().unwrap(), 99);
            records
        }),
        // Where our own nodes are reached.
        ("covers_node", vec![member(3, "c", &["192.0.0.0/16"])]),
        ("endpoint_of_own", {
            let mut records = vec![node(2, 2, "west-2", &["10.2.2.0/24"])];
            lanes(&mut records, "192.0.2.18:51820".parse().unwrap(), 99);
            records
        }),
        ("pod_outside", vec![pod(1, "b", "10.1.2.9", 1001)]),
        ("pod_identity", vec![pod(1, "b", "10.1.1.9", 1007)]),
        (
            "pod_address_twice",
            vec![identity(1, 1002), pod(1, "b", "10.1.1.10", 1002)],
        ),
        ("pod_address_twice", vec![pod(1, "b", "10.1.1.1", 1001)]),
    ];
    let config = config("");
    let good = composed(&config, &mesh()).state;
    for (name, more) in cases {
        let records = [mesh(), more].concat();
        let composed = composed(&config, &records);
        assert_eq!(names(&composed), [name]);
        // What was there before is as it was.
        assert_eq!(composed.state.endpoints, good.endpoints, "{name}");
        for (id, peer) in &good.peers {
            assert_eq!(&composed.state.peers[id], peer, "{name}");
        }
        let prefixes: Vec<_> = good.clusters.values().map(|it| &it.prefixes).collect();
        let now = composed.state.clusters.values().map(|it| &it.prefixes);
        assert_eq!(now.take(2).collect::<Vec<_>>(), prefixes, "{name}");
    }
}

#[test]
fn a_cluster_whose_nodes_claim_each_others_prefixes_harms_nobody_else() {
    let config = config("");
    let good = composed(&config, &mesh()).state;
    for prefix in ["10.2.1.0/24", "10.2.1.128/25", "10.2.0.0/16", "10.2.1.7/32"] {
        let mut records = mesh();
        records.push(node(2, 2, "west-2", &[prefix, "10.2.2.0/24"]));
        records.push(node(2, 3, "west-3", &["10.1.2.0/24"]));
        let forwards = composed(&config, &records);
        records.reverse();
        let composed = composed(&config, &records);
        assert_eq!(composed, forwards, "whoever came first");
        let overlap = |with: IpNet| Conflict::NodesOverlap {
            node: id(2, 2),
            prefix: with,
            taken: nets(&["10.2.1.0/24"])[0],
            by: id(2, 1),
        };
        let expected = BTreeSet::from([
            overlap(prefix.parse().unwrap()),
            Conflict::OutsideCluster {
                node: id(2, 3),
                prefix: nets(&["10.1.2.0/24"])[0],
            },
        ]);
        let left = nets(&["10.2.2.0/24"]);
        assert_eq!(composed.conflicts, expected, "{prefix}");
        let peers = &composed.state.peers;
        let of = |index| {
            peers[&id(2, index)]
                .prefixes
                .iter()
                .copied()
                .collect::<Vec<_>>()
        };
        assert_eq!((of(2), of(3)), (left, Vec::new()), "{prefix}");
        for (id, peer) in &good.peers {
            assert_eq!(&peers[id], peer, "{prefix}");
        }
    }
}

#[test]
fn keys_that_another_cluster_copied_stay_with_our_nodes() {
    // Of two strangers the lower number would have them; we are the higher one.
    let own = |record: (u16, Record)| (9, record.1);
    let mut records = vec![
        own(member(9, "east", &["10.9.0.0/16"])),
        own(member(2, "west", &["10.2.0.0/16"])),
        node(9, 1, "east-1", &["10.9.1.0/24"]),
        node(9, 2, "east-2", &["10.9.2.0/24"]),
        node(2, 1, "west-1", &["10.2.1.0/24"]),
    ];
    let good = composed(&config(""), &records);
    assert_eq!(names(&good), Vec::<&str>::new());
    for (index, of) in [(2, 1), (3, 2)] {
        let (_, Record::Node(victim)) = node(9, of, "", &[]) else {
            panic!("a node")
        };
        let prefix = format!("10.2.{index}.0/24");
        let (origin, mut thief) = node(2, index, &format!("west-{index}"), &[&prefix]);
        if let Record::Node(thief) = &mut thief {
            thief.lanes[0].public_key = victim.lanes[0].public_key;
        }
        records.push((origin, thief));
    }
    let composed = composed(&config(""), &records);
    let twice = |index, by| Conflict::KeyTwice {
        node: id(2, index),
        by: id(9, by),
    };
    assert_eq!(
        composed.conflicts,
        BTreeSet::from([twice(2, 1), twice(3, 2)])
    );
    assert_eq!(composed.state.peers, good.state.peers);
}

#[test]
fn the_file_wins() {
    let file = "
pods: [ { cidr: 10.1.1.0/24, router: 10.1.1.254 } ]
clusters: [ { name: west, id: 2, prefixes: [10.2.0.0/16], identities: [2009] } ]
peers:
  - name: west-one
    cluster: west
    index: 1
    prefixes: [10.2.1.0/24]
    lanes: [ { publicKey: AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=, endpoint: '192.0.2.2:51820' } ]
";
    let mut records = mesh();
    records.push(node(2, 2, "west-2", &["10.2.1.0/24", "10.2.2.0/24"]));
    let composed = composed(&config(file), &records);
    assert_eq!(names(&composed), ["static_peer", "nodes_overlap"]);
    let state = composed.state;
    assert_eq!(state.peers[&id(2, 1)].name, "west-one");
    let left: Vec<IpNet> = state.peers[&id(2, 2)].prefixes.iter().copied().collect();
    assert_eq!(left, nets(&["10.2.2.0/24"]));
    assert_eq!(state.clusters[&cluster_id(2)].identities.len(), 2);
    let router = &composed.routers[&nets(&["10.1.1.0/24"])[0]];
    assert_eq!(router.to_string(), "10.1.1.254");
}

#[test]
fn a_file_that_says_who_the_node_is_needs_no_record_of_it() {
    let mut config = config("");
    config.node = Some(id(1, 7));
    let composed = composed(&config, &mesh());
    assert_eq!(names(&composed), ["own_node"]);
    assert_eq!(composed.state.node, id(1, 7));
    assert!(composed.state.peers.contains_key(&id(1, 1)));
}

#[test]
fn a_state_of_25_000_peers_is_derived_in_a_moment() {
    let mut records = vec![member(1, "east", &["10.1.0.0/16"])];
    records.push(node(1, 1, "east-1", &["10.1.1.0/24"]));
    for cluster in 2..=251_u16 {
        let [high, low] = (cluster * 128).to_be_bytes();
        records.push(member(
            cluster,
            &format!("c{cluster}"),
            &[&format!("100.{high}.{low}.0/17")],
        ));
        for index in 1..=100_u16 {
            let prefix = format!("100.{high}.{}.0/24", u16::from(low) + index);
            let (origin, mut record) = node(cluster, index, &format!("n{index}"), &[&prefix]);
            if let Record::Node(node) = &mut record {
                let number = u32::from(cluster) << 16 | u32::from(index);
                let mut key = [7; 32];
                key[..4].copy_from_slice(&number.to_be_bytes());
                let at = std::net::Ipv4Addr::from(0xc612_0000 + number % 0x1_0000);
                node.lanes[0] = LaneRecord {
                    public_key: PublicKey::new(key),
                    peer_endpoint: Some(SocketAddr::new(at.into(), 51820)),
                    key_port: None,
                };
            }
            records.push((origin, record));
        }
    }
    let bytes = records
        .iter()
        .map(|(origin, record)| (cluster_id(*origin), record.key(), encode_record(record)));
    let bytes: Vec<_> = bytes.collect();
    let config = config("");
    let start = std::time::Instant::now();
    let composed = compose(&config, Learned::read("east", "east-1", bytes)).unwrap();
    let derived = start.elapsed();
    composed.state.digest();
    println!(
        "25,000 peers: derived in {derived:?}, digest in {:?}",
        start.elapsed() - derived
    );
    assert_eq!(composed.state.peers.len(), 25_000);
    assert_eq!(composed.conflicts.len(), 0);
    let bound = if cfg!(debug_assertions) { 20 } else { 1 };
    assert!(derived.as_secs() < bound, "{derived:?}");
}
