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
