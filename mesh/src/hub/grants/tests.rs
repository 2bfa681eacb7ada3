use super::*;
use crate::record::{
    Condition, Endpoint, IdentityRecord, LaneRecord, Namespace, Node, Service, ServiceType,
};
use crate::wire::encode_record;
use hawser_tunnel::identity::Identity;
use hawser_tunnel::key::PublicKey;
use hawser_tunnel::node::NodeIndex;

fn id(number: u16) -> ClusterId {
    ClusterId::new(number).unwrap()
}

/// Two of its nodes are reached at addresses that others call their pods'.
fn own() -> Own {
    Own {
        prefixes: vec!["10.1.0.0/16".parse().unwrap()],
        nodes: ["10.2.200.7", "fd01:2::7"]
            .map(|a| a.parse().unwrap())
            .into(),
        protected: Protected::default(),
    }
}

fn grants() -> Grants {
    let peer = ClusterPeer {
        id: id(2),
        pod_cidrs: ["10.2.0.0/16", "fd01:2::/32"]
            .map(|p| p.parse().unwrap())
            .into(),
        service_cidrs: Vec::new(),
        namespaces: Some(["shop".to_owned()].into()),
        hubs: Vec::new(),
        ca: String::new(),
        quotas: QuotaLimits::default(),
        may_revoke: false,
    };
    Grants::new(own(), BTreeMap::from([(id(2), Arc::new(peer))]))
}

fn judged(origin: u16, record: Record) -> Result<(), &'static str> {
    let admitted = grants().admit(id(origin), &record.key(), &encode_record(&record));
    admitted.map_err(|refusal| refusal.name())
}

fn node(prefix: &str, endpoint: &str) -> Record {
    Record::Node(Node {
        index: NodeIndex::new(1).unwrap(),
        name: "n1".to_owned(),
        prefixes: vec![prefix.parse().unwrap()],
        lanes: vec![LaneRecord {
            public_key: PublicKey::new([1; 32]),
            peer_endpoint: Some(endpoint.parse().unwrap()),
            key_port: None,
        }],
    })
}

fn endpoint(scope: Scope, name: &str, address: &str, identity: u32) -> Record {
    Record::Endpoint(Endpoint {
        scope,
        name: name.to_owned(),
        addresses: vec![address.parse().unwrap()],
        identity: Identity::new(identity).unwrap(),
        node: None,
        condition: Condition::READY,
        hostname: String::new(),
        zone: String::new(),
        ports: Vec::new(),
    })
}

fn service(namespace: &str) -> Scope {
    Scope::Service {
        namespace: namespace.to_owned(),
        name: "web".to_owned(),
    }
}

#[test]
fn each_record_is_held_against_the_grant_of_its_origin() {
    let underlay = "192.0.2.1:51820";
    let cases = [
        (2, node("10.2.1.0/24", underlay), Ok(())),
        (3, node("10.2.1.0/24", underlay), Err("origin_not_member")),
        (
            2,
            node("10.1.1.0/24", underlay),
            Err("prefix_outside_grant"),
        ),
        (2, node("10.0.0.0/8", underlay), Err("prefix_outside_grant")),
        (
            2,
            node("10.2.1.0/24", "10.1.0.1:51820"),
            Err("lane_endpoint_in_mesh"),
        ),
        (2, endpoint(service("shop"), "a", "10.2.1.9", 300), Ok(())),
        (
            2,
            endpoint(service("bank"), "a", "10.2.1.9", 300),
            Err("namespace_not_granted"),
        ),
        (
            2,
            endpoint(service("shop"), "a", "10.1.1.9", 300),
            Err("address_outside_grant"),
        ),
        (
            2,
            endpoint(service("shop"), "a", "10.2.1.9", 1),
            Err("identity_reserved"),
        ),
        (
            2,
            endpoint(
                Scope::Identity(Identity::new(300).unwrap()),
                "bank/a",
                "10.2.1.9",
                300,
            ),
            Err("namespace_not_granted"),
        ),
        (
            2,
            Record::Identity(IdentityRecord {
                number: Identity::new(300).unwrap(),
                namespace: "bank".to_owned(),
                labels: BTreeMap::new(),
            }),
            Err("namespace_not_granted"),
        ),
        (
            2,
            Record::Namespace(Namespace {
                name: "shop".to_owned(),
                labels: BTreeMap::new(),
            }),
            Err("kind_private"),
        ),
    ];
    for (origin, record, expected) in cases {
        assert_eq!(judged(origin, record.clone()), expected, "{record:?}");
    }
}

#[test]
fn a_members_own_quota_comes_before_the_hubs() {
    let hub = QuotaLimits {
        records: Some(10),
        burst: Some(7),
        ..QuotaLimits::default()
    };
    let peer = QuotaLimits {
        records: Some(20),
        ..QuotaLimits::default()
    };
    let quota = quota(peer, hub);
    assert_eq!((quota.records, quota.burst), (20, 7));
    assert_eq!(quota.bytes, Quota::default().bytes);
}

/// Addresses that nobody's pod or node has, with the reason where a pod of cluster 2 is said to have them.
const POISON: [(&str, &str); 40] = [
    // "This" network, loopback, link-local with the cloud's metadata, multicast, broadcast.
    ("0.0.0.0", "address_martian"),
    ("0.1.2.3", "address_martian"),
    ("127.0.0.1", "address_martian"),
    ("127.255.255.254", "address_martian"),
    ("169.254.0.1", "address_martian"),
    ("169.254.1.1", "address_martian"),
    ("169.254.169.254", "address_martian"),
    ("224.0.0.1", "address_martian"),
    ("239.255.255.255", "address_martian"),
    ("255.255.255.255", "address_martian"),
    // The mesh's own: overlay, virtual IPs, aliases, and the rest of 240.0.0.0/4.
    ("240.0.0.1", "address_martian"),
    ("240.2.0.1", "address_martian"),
    ("247.255.0.1", "address_martian"),
    ("250.0.0.1", "address_martian"),
    ("251.0.0.1", "address_martian"),
    ("254.255.255.255", "address_martian"),
    ("::", "address_martian"),
    ("::1", "address_martian"),
    ("fe80::1", "address_martian"),
    ("febf:ffff::1", "address_martian"),
    ("ff02::1", "address_martian"),
    ("ff0e::1", "address_martian"),
    // What stands for an IPv4 address: compatible, mapped, translated; even for one inside the grant.
    ("::127.0.0.1", "address_martian"),
    ("::10.2.1.9", "address_martian"),
    ("::ffff:127.0.0.1", "address_martian"),
    ("::ffff:169.254.169.254", "address_martian"),
    ("::ffff:10.2.1.9", "address_martian"),
    ("::ffff:10.1.1.9", "address_martian"),
    ("64:ff9b::7f00:1", "address_martian"),
    ("64:ff9b::a02:109", "address_martian"),
    // Our nodes.
    ("10.2.200.7", "address_of_own_node"),
    ("fd01:2::7", "address_of_own_node"),
    // Pods and services of ours and of others, hosts of the underlay and of the rest of the world.
    ("10.1.1.9", "address_outside_grant"),
    ("10.3.1.9", "address_outside_grant"),
    ("10.1.255.255", "address_outside_grant"),
    ("10.96.0.10", "address_outside_grant"),
    ("192.168.1.1", "address_outside_grant"),
    ("8.8.8.8", "address_outside_grant"),
    ("fd01:1::9", "address_outside_grant"),
    ("2001:db8::1", "address_outside_grant"),
];

#[test]
fn no_address_of_the_table_of_poison_is_taken_for_a_pods_or_a_nodes() {
    for (address, reason) in POISON {
        let identity = Identity::new(300).unwrap();
        for (scope, name) in [
            (service("shop"), "a"),
            (Scope::Identity(identity), "shop/a"),
        ] {
            let poisoned = judged(2, endpoint(scope.clone(), name, address, 300));
            assert_eq!(poisoned, Err(reason), "{address} in {scope:?}");
            // A right one beside it makes it no better.
            let Record::Endpoint(mut beside) = endpoint(scope, name, "10.2.1.9", 300) else {
                panic!("an endpoint")
            };
            beside.addresses.push(address.parse().unwrap());
            assert_eq!(judged(2, Record::Endpoint(beside)), Err(reason));
        }
        let single = IpNet::from(address.parse::<IpAddr>().unwrap()).to_string();
        let prefix = match reason {
            "address_martian" => "prefix_martian",
            "address_of_own_node" => "prefix_over_own_node",
            _ => "prefix_outside_grant",
        };
        assert_eq!(judged(2, node(&single, "192.0.2.1:51820")), Err(prefix));
        let at = std::net::SocketAddr::new(address.parse().unwrap(), 51820).to_string();
        let expected = match address {
            _ if reason == "address_martian" => Err("lane_endpoint_martian"),
            "192.168.1.1" | "8.8.8.8" | "10.3.1.9" | "10.96.0.10" | "fd01:1::9" | "2001:db8::1" => {
                Ok(())
            }
            _ => Err("lane_endpoint_in_mesh"),
        };
        assert_eq!(judged(2, node("10.2.1.0/24", &at)), expected, "{address}");
    }
}

#[test]
fn a_prefix_that_touches_what_it_must_not_is_refused_whole() {
    for (prefix, reason) in [
        ("0.0.0.0/0", "prefix_martian"),
        ("::/0", "prefix_martian"),
        ("128.0.0.0/1", "prefix_martian"),
        ("169.254.169.254/32", "prefix_martian"),
        ("10.0.0.0/8", "prefix_outside_grant"),
        ("10.1.1.9/32", "prefix_outside_grant"),
        ("10.2.0.0/15", "prefix_outside_grant"),
        ("10.2.200.0/24", "prefix_over_own_node"),
        ("10.2.0.0/16", "prefix_over_own_node"),
        ("fd01:2::/64", "prefix_over_own_node"),
    ] {
        assert_eq!(
            judged(2, node(prefix, "192.0.2.1:51820")),
            Err(reason),
            "{prefix}"
        );
    }
    assert_eq!(judged(2, node("10.2.201.0/24", "192.0.2.1:51820")), Ok(()));
}

#[test]
fn protected_names_are_imported_from_nobody_whatever_is_granted() {
    let named = |of: &str, name: &str| {
        Record::Service(Service {
            namespace: of.to_owned(),
            name: name.to_owned(),
            kind: ServiceType::ClusterSetIp,
            ports: Vec::new(),
            exported_at: 1,
            session_affinity: None,
        })
    };
    let mut all = grants();
    let peer = all.peers.get_mut(&id(2)).unwrap();
    Arc::make_mut(peer).namespaces = None;
    for (of, name, expected) in [
        ("kube-system", "kube-dns", Err("namespace_protected")),
        ("kube-public", "web", Err("namespace_protected")),
        ("kube-node-lease", "web", Err("namespace_protected")),
        ("default", "kubernetes", Err("service_protected")),
        ("default", "web", Ok(())),
        ("bank", "web", Ok(())),
    ] {
        let scope = Scope::Service {
            namespace: of.to_owned(),
            name: name.to_owned(),
        };
        for record in [named(of, name), endpoint(scope, "a", "10.2.1.9", 300)] {
            let admitted = all.admit(id(2), &record.key(), &encode_record(&record));
            let admitted = admitted.map_err(|refusal| refusal.name());
            assert_eq!(admitted, expected, "{of}/{name}: {record:?}");
        }
    }
    // Pods of such a namespace may talk to us all the same: an identity is no name that answers.
    let identity = Record::Identity(IdentityRecord {
        number: Identity::new(300).unwrap(),
        namespace: "kube-system".to_owned(),
        labels: BTreeMap::new(),
    });
    assert!(
        all.admit(id(2), &identity.key(), &encode_record(&identity))
            .is_ok()
    );
}
