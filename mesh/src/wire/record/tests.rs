use super::*;
use hawser_tunnel::identity::Identity;
use hawser_tunnel::key::PublicKey;
use hawser_tunnel::node::NodeIndex;
use std::collections::BTreeMap;

fn number(number: u32) -> Identity {
    Identity::new(number).unwrap()
}

fn index(number: u16) -> NodeIndex {
    NodeIndex::new(number).unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn endpoint(scope: Scope) -> Endpoint {
    Endpoint {
        scope,
        name: "web-7d4b9c-x2x8q".to_owned(),
        addresses: vec!["10.1.2.3".parse().unwrap(), "fd01:1::3".parse().unwrap()],
        identity: number(1001),
        node: Some(index(17)),
        condition: Condition::READY,
        hostname: String::new(),
        zone: "a".to_owned(),
        ports: vec![EndpointPort {
            name: "http".to_owned(),
            protocol: 6,
            port: 8080,
        }],
    }
}

fn every_kind() -> Vec<Record> {
    vec![
        Record::Node(Node {
            index: index(17),
            name: "east-17.example.org".to_owned(),
            prefixes: vec![
                "10.1.17.0/24".parse().unwrap(),
                "fd01:1:17::/64".parse().unwrap(),
            ],
            lanes: vec![
                LaneRecord {
                    public_key: PublicKey::new([7; 32]),
                    peer_endpoint: Some("192.0.2.17:51820".parse().unwrap()),
                    key_port: Some(6083),
                },
                LaneRecord {
                    public_key: PublicKey::new([8; 32]),
                    peer_endpoint: None,
                    key_port: None,
                },
            ],
        }),
        Record::Identity(IdentityRecord {
            number: number(1001),
            namespace: "shop".to_owned(),
            labels: labels(&[("app", "web"), ("tier", "")]),
        }),
        Record::Service(Service {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            kind: ServiceType::Headless,
            ports: vec![ServicePort {
                name: "http".to_owned(),
                protocol: 6,
                port: 80,
                app_protocol: "kubernetes.io/h2c".to_owned(),
            }],
            exported_at: 1_700_000_000,
            session_affinity: Some(10_800),
        }),
        Record::Endpoint(endpoint(Scope::Service {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
        })),
        Record::Endpoint(Endpoint {
            name: "shop/web-7d4b9c-x2x8q".to_owned(),
            ..endpoint(Scope::Identity(number(1001)))
        }),
        Record::Policy(Policy {
            namespace: "shop".to_owned(),
            name: "deny.all".to_owned(),
            spec: "{\"podSelector\":{}}".to_owned(),
        }),
        Record::Namespace(Namespace {
            name: "shop".to_owned(),
            labels: labels(&[("team", "a")]),
        }),
        Record::Pod(Pod {
            node: index(17),
            namespace: "shop".to_owned(),
            name: "web-1".to_owned(),
            addresses: Vec::new(),
            identity: number(1001),
        }),
        Record::Cluster(Cluster {
            id: ClusterId::new(2).unwrap(),
            name: "west".to_owned(),
            prefixes: vec!["10.2.0.0/16".parse().unwrap()],
            ca: "-----BEGIN CERTIFICATE-----".to_owned(),
        }),
    ]
}

#[test]
fn every_kind_comes_back_as_it_was() {
    for record in every_kind() {
        let bytes = encode_record(&record);
        assert_eq!(decode_record(&record.key(), &bytes), Ok(record));
    }
}

#[test]
fn a_record_under_the_key_of_another_is_refused() {
    let records = every_kind();
    for (at, record) in records.iter().enumerate() {
        let other = &records[(at + 1) % records.len()];
        let found = decode_record(&other.key(), &encode_record(record));
        assert_eq!(found, Err(RecordError::KeyMismatch));
    }
}

/// A newer program's field in a record that we know is skipped, and a newer kind is told apart from nonsense.
#[test]
fn what_is_newer_is_skipped_or_named() {
    let record = every_kind().remove(0);
    let mut bytes = encode_record(&record).to_vec();
    // Field 500, a number.
    bytes.extend([0xa0, 0x1f, 0x01]);
    assert_eq!(
        decode_record(&record.key(), &bytes.into()),
        Ok(record.clone())
    );
    let newer = Key::parse(Bytes::from_static(b"\x09x")).unwrap();
    let unknown = Err(RecordError::UnknownKind);
    assert_eq!(decode_record(&newer, &encode_record(&record)), unknown);
    let only_newer = Bytes::from_static(&[0x4a, 0x00]);
    assert_eq!(decode_record(&record.key(), &only_newer), unknown);
    let nonsense = Bytes::from_static(&[0xff; 9]);
    assert_eq!(
        decode_record(&record.key(), &nonsense),
        Err(RecordError::Malformed)
    );
}

#[test]
fn values_out_of_range_are_refused_by_field() {
    let node = |change: fn(&mut WireNode)| {
        let mut node = WireNode {
            index: 1,
            name: "a".to_owned(),
            ..WireNode::default()
        };
        change(&mut node);
        let bytes = WireRecord {
            value: Some(Value::Node(node)),
        }
        .encode_to_vec();
        decode_record(&Key::node(index(1)), &bytes.into())
            .unwrap_err()
            .to_string()
    };
    let lane = |key: usize, address: usize, port| WireLane {
        public_key: vec![1; key].into(),
        address: vec![1; address].into(),
        port,
        key_port: 0,
    };
    assert_eq!(
        node(|node| node.index = 0),
        "index: out of range or malformed"
    );
    assert_eq!(
        node(|node| node.index = 65_535),
        "index: out of range or malformed"
    );
    assert!(node(|node| node.name = "A".to_owned()).starts_with("name"));
    for prefixes in [
        &[&[10, 0, 0, 1, 8][..]][..],
        &[&[10, 0, 0, 0, 33]],
        &[&[10, 0, 0]],
        &[&[]],
        &[&[10, 0, 0, 0, 8], &[10, 0, 0, 0, 8]],
        &[&[11, 0, 0, 0, 8], &[10, 0, 0, 0, 8]],
    ] {
        let node = WireNode {
            index: 1,
            name: "a".to_owned(),
            prefixes: prefixes
                .iter()
                .map(|bytes| Bytes::copy_from_slice(bytes))
                .collect(),
            lanes: Vec::new(),
        };
        let bytes = WireRecord {
            value: Some(Value::Node(node)),
        }
        .encode_to_vec();
        let found = decode_record(&Key::node(index(1)), &bytes.into()).unwrap_err();
        let malformed = found.to_string().ends_with("out of range or malformed");
        assert!(malformed, "{prefixes:?}: {found}");
    }
    for (bad, field) in [
        (lane(31, 4, 1), "lanes.publicKey"),
        (lane(32, 5, 1), "address"),
        (lane(32, 4, 0), "port"),
        (lane(32, 4, 65_536), "port"),
    ] {
        assert_eq!(LaneRecord::try_from(&bad), Err(RecordError::Value(field)));
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_a_record_or_are_refused(key: Vec<u8>, value: Vec<u8>) {
        if let Ok(key) = Key::parse(key.into()) {
            let _ = decode_record(&key, &value.into());
        }
    }
}
