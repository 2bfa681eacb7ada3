//! A hostile cluster announces a hundred thousand things that are not its to announce, honest ones among them, to a
//! replica with our gate. Nothing of the former is taken, each is counted under its reason, and all of the latter is there.

use super::*;
use crate::record::{
    Cluster, Condition, IdentityRecord, Kind, LaneRecord, Namespace, Pod, Policy, Prefix, Service,
    ServicePort, ServiceType, Version,
};
use crate::replica::{AdmitAll, Audience, Filter, Limits, Replica, SessionId, Stats, Wanted};
use crate::wire::encode_record;
use hawser_tunnel::identity::Identity;
use hawser_tunnel::key::PublicKey;
use hawser_tunnel::node::NodeIndex;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

const HOSTILE: u32 = 100_000;
/// One announcement in so many is an honest one.
const HONEST: u32 = 10;
const SEED: u64 = 0x6861_7773_6572;

/// The node whose pods the liar tells: as an agent of its own would hear them.
const NODE: u16 = 65_000;

fn id(number: u16) -> ClusterId {
    ClusterId::new(number).unwrap()
}

fn grants() -> Grants {
    let peer = |number: u16| {
        let prefixes = [format!("10.{number}.0.0/16"), format!("fd01:{number}::/32")];
        let names = ["shop", "default", "kube-system"].map(str::to_owned);
        let peer = ClusterPeer {
            id: id(number),
            pod_cidrs: prefixes.iter().map(|p| p.parse().unwrap()).collect(),
            service_cidrs: Vec::new(),
            // A grant that is too wide does not unprotect a name.
            namespaces: Some(names.into()),
            hubs: Vec::new(),
            ca: String::new(),
            quotas: QuotaLimits::default(),
            may_revoke: false,
        };
        (id(number), Arc::new(peer))
    };
    let own = Own {
        prefixes: ["10.1.0.0/16", "fd01:1::/32"]
            .map(|p| p.parse().unwrap())
            .into(),
        nodes: [own_node()].into(),
        protected: Protected::default(),
    };
    Grants::new(own, [peer(2), peer(3)].into())
}

/// Ours, at an address that the liar may call a pod's.
fn own_node() -> IpAddr {
    [10, 2, 200, 7].into()
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    fn byte(&mut self) -> u8 {
        self.roll().to_be_bytes()[0]
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }

    /// Of the pods of a cluster; never our node's.
    fn pod_of(&mut self, cluster: u8) -> IpAddr {
        if self.below(4) == 0 {
            let [a, b] = [0; 2].map(|_: u8| u16::from_be_bytes([self.byte(), self.byte()]));
            return Ipv6Addr::new(0xfd01, cluster.into(), 0, a, 0, 0, 0, b).into();
        }
        Ipv4Addr::new(10, cluster, self.byte() % 200, self.byte()).into()
    }

    /// Of no pod or host.
    fn martian(&mut self) -> IpAddr {
        let [a, b, c] = [self.byte(), self.byte(), self.byte()];
        let mapped = Ipv4Addr::new(10, 2, b, c).to_ipv6_mapped();
        let v6 = |high: u16| Ipv6Addr::new(high, 0, 0, 0, 0, 0, a.into(), b.into());
        self.of(&[
            Ipv4Addr::new(169, 254, 169, 254).into(),
            Ipv4Addr::new(127, a, b, c).into(),
            Ipv4Addr::new(0, a, b, c).into(),
            Ipv4Addr::new(224 + a % 32, a, b, c).into(),
            Ipv4Addr::BROADCAST.into(),
            mapped.into(),
            v6(0xfe80).into(),
            v6(0xff02).into(),
            v6(0).into(),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0x0a02, b.into()).into(),
        ])
    }
}

/// Makes announcements, each under a key of its own.
struct Liar {
    dice: Dice,
    number: u32,
    nodes: u16,
}

impl Liar {
    fn name(&self) -> String {
        format!("x{}", self.number)
    }

    fn node(&mut self, mut prefixes: Vec<IpNet>, endpoint: &str) -> Record {
        self.nodes += 1;
        prefixes.sort();
        prefixes.dedup();
        Record::Node(Node {
            index: NodeIndex::new(self.nodes).unwrap(),
            name: self.name(),
            prefixes,
            lanes: vec![LaneRecord {
                public_key: PublicKey::new([9; 32]),
                peer_endpoint: Some(endpoint.parse().unwrap()),
                key_port: None,
            }],
        })
    }

    fn endpoint(
        &mut self,
        of: &str,
        service: &str,
        addresses: Vec<IpAddr>,
        identity: u32,
    ) -> Record {
        let identity = Identity::new(identity).unwrap();
        let by_identity = service.is_empty();
        Record::Endpoint(Endpoint {
            scope: if by_identity {
                Scope::Identity(identity)
            } else {
                let (namespace, name) = (of.to_owned(), service.to_owned());
                Scope::Service { namespace, name }
            },
            name: if by_identity {
                format!("{of}/{}", self.name())
            } else {
                self.name()
            },
            addresses,
            identity,
            node: None,
            condition: Condition::READY,
            hostname: String::new(),
            zone: String::new(),
            ports: Vec::new(),
        })
    }

    fn service(&self, of: &str, name: &str, port: u16) -> Record {
        Record::Service(Service {
            namespace: of.to_owned(),
            name: name.to_owned(),
            kind: ServiceType::ClusterSetIp,
            ports: vec![ServicePort {
                name: String::new(),
                protocol: 6,
                port,
                app_protocol: String::new(),
            }],
            exported_at: self.number.into(),
            session_affinity: None,
        })
    }

    fn honest(&mut self) -> Record {
        let address = self.dice.pod_of(2);
        match self.dice.below(4) {
            0 => {
                let third = self.dice.byte() % 200;
                let prefix = format!("10.2.{third}.0/24").parse().unwrap();
                self.node(vec![prefix], "192.0.2.9:51820")
            }
            1 => Record::Identity(IdentityRecord {
                number: Identity::new(1_000 + self.number).unwrap(),
                namespace: "shop".to_owned(),
                labels: BTreeMap::new(),
            }),
            2 => self.service("shop", &self.name(), 80),
            _ => self.endpoint("shop", "web", vec![address], 300),
        }
    }

    /// A record that is not its to announce, as key and value, with the reason for which it must be refused.
    fn lie(&mut self) -> (Key, Bytes, &'static str) {
        let (record, reason) = match self.dice.below(16) {
            0..=3 => self.lie_of_prefixes(),
            4 => self.lie_of_lanes(),
            5..=9 => self.lie_of_endpoints(),
            10..=12 => self.lie_of_names(),
            13 => (self.private(), "kind_private"),
            _ => return self.malformed(),
        };
        (record.key(), encode_record(&record), reason)
    }

    fn lie_of_prefixes(&mut self) -> (Record, &'static str) {
        const UNDERLAY: &str = "192.0.2.9:51820";
        let other = self.dice.of(&[1, 3, 96, 200]);
        let (foreign, good) = (self.dice.pod_of(other), self.dice.pod_of(2));
        let length = |address: IpAddr, v4: u8, v6: u8| {
            let length = if address.is_ipv4() { v4 } else { v6 };
            IpNet::new(address, length).unwrap().trunc()
        };
        let (prefixes, reason) = match self.dice.below(7) {
            // Another one's node, pod, or virtual IP.
            0 => (vec![length(foreign, 24, 64)], "prefix_outside_grant"),
            1 => (vec![length(foreign, 32, 128)], "prefix_outside_grant"),
            // The own prefixes, and what is around them.
            2 => {
                let shorter = 8 + u8::try_from(self.dice.below(8)).unwrap();
                (
                    vec![length([10, 2, 0, 0].into(), shorter, 0)],
                    "prefix_outside_grant",
                )
            }
            // Beside a right one.
            3 => {
                let both = vec![length(good, 24, 64), length(foreign, 24, 64)];
                (both, "prefix_outside_grant")
            }
            // Everything, or half of it.
            4 => {
                let all =
                    self.dice
                        .of(&["0.0.0.0/0", "::/0", "0.0.0.0/1", "128.0.0.0/1", "8000::/1"]);
                (vec![all.parse().unwrap()], "prefix_martian")
            }
            5 => (vec![length(self.dice.martian(), 32, 128)], "prefix_martian"),
            _ => {
                let around = 16 + u8::try_from(self.dice.below(17)).unwrap();
                (vec![length(own_node(), around, 0)], "prefix_over_own_node")
            }
        };
        (self.node(prefixes, UNDERLAY), reason)
    }

    fn lie_of_lanes(&mut self) -> (Record, &'static str) {
        let cluster = self.dice.of(&[1, 2, 3]);
        let (address, reason) = if self.dice.below(2) == 0 {
            (self.dice.martian(), "lane_endpoint_martian")
        } else {
            (self.dice.pod_of(cluster), "lane_endpoint_in_mesh")
        };
        let at = SocketAddr::new(address, 51820).to_string();
        (self.node(vec!["10.2.1.0/24".parse().unwrap()], &at), reason)
    }

    fn lie_of_endpoints(&mut self) -> (Record, &'static str) {
        let service = self.dice.of(&["web", ""]);
        let other = self.dice.of(&[1, 3, 96, 200]);
        let (address, reason) = match self.dice.below(4) {
            0 => (self.dice.pod_of(other), "address_outside_grant"),
            1 => (self.dice.martian(), "address_martian"),
            2 => (own_node(), "address_of_own_node"),
            _ => {
                let reserved = self.dice.of(&[1, 2, 3, 4, 255]);
                let address = self.dice.pod_of(2);
                let record = self.endpoint("shop", service, vec![address], reserved);
                return (record, "identity_reserved");
            }
        };
        let mut addresses = vec![address];
        if self.dice.below(3) == 0 {
            addresses.insert(0, self.dice.pod_of(2));
        }
        (self.endpoint("shop", service, addresses, 300), reason)
    }

    fn lie_of_names(&mut self) -> (Record, &'static str) {
        let (address, name) = (self.dice.pod_of(2), self.name());
        let protected = self
            .dice
            .of(&["kube-system", "kube-public", "kube-node-lease"]);
        match self.dice.below(8) {
            0 => (self.service(protected, &name, 53), "namespace_protected"),
            1 => {
                let record = self.endpoint(protected, "kube-dns", vec![address], 300);
                (record, "namespace_protected")
            }
            // One key, so once.
            2 if self.number.is_multiple_of(1_000) => (
                self.service("default", "kubernetes", 443),
                "service_protected",
            ),
            2 | 3 => {
                let record = self.endpoint("default", "kubernetes", vec![address], 300);
                (record, "service_protected")
            }
            4 => (self.service("bank", &name, 80), "namespace_not_granted"),
            5 => (
                self.endpoint("bank", "web", vec![address], 300),
                "namespace_not_granted",
            ),
            6 => (
                self.endpoint("bank", "", vec![address], 300),
                "namespace_not_granted",
            ),
            _ => {
                let identity = Record::Identity(IdentityRecord {
                    number: Identity::new(1_000 + self.number).unwrap(),
                    namespace: "bank".to_owned(),
                    labels: BTreeMap::new(),
                });
                (identity, "namespace_not_granted")
            }
        }
    }

    fn private(&mut self) -> Record {
        let (name, namespace) = (self.name(), "shop".to_owned());
        match self.dice.below(3) {
            0 => Record::Namespace(Namespace {
                name,
                labels: BTreeMap::new(),
            }),
            1 => Record::Policy(Policy {
                namespace,
                name,
                spec: "{}".to_owned(),
            }),
            _ => Record::Pod(Pod {
                node: NodeIndex::new(NODE).unwrap(),
                namespace,
                name,
                addresses: vec![self.dice.pod_of(1)],
                identity: Identity::new(300).unwrap(),
            }),
        }
    }

    fn malformed(&mut self) -> (Key, Bytes, &'static str) {
        let name = self.name();
        let good = self.service("shop", &name, 80);
        let key = good.key();
        match self.dice.below(6) {
            0 => (key, Bytes::from_static(&[0xff; 9]), "record_malformed"),
            1 => (key, Bytes::new(), "record_unknown_kind"),
            2 => {
                let other = self.service("shop", "another", 80);
                (key, encode_record(&other), "record_key_mismatch")
            }
            3 => {
                let upper = self.service("shop", &name.to_uppercase(), 80);
                (upper.key(), encode_record(&upper), "record_name")
            }
            4 => {
                let port = self.service("shop", &name, 0);
                (key, encode_record(&port), "record_value")
            }
            _ => {
                let nowhere = self.endpoint("shop", "web", Vec::new(), 300);
                (nowhere.key(), encode_record(&nowhere), "record_list")
            }
        }
    }
}

/// A hub that says whatever it likes.
fn publisher(origin: u16, changes: Vec<(Key, Option<Bytes>)>, session: SessionId) -> Replica {
    let mut replica = Replica::new(Limits::default(), Box::new(AdmitAll));
    replica.own(id(origin), Version::new(1, 0));
    for (revision, changes) in (1..).zip(changes.chunks(500)) {
        assert!(replica.write(crate::record::Revision(revision), changes.to_vec()));
    }
    // An honest one would not serve what is private; to this one we are an agent of its own.
    let node = NodeIndex::new(NODE).unwrap();
    replica.publish(session, Audience::OwnAgent { node });
    replica
}

fn carry(ours: &mut Replica, theirs: &mut Replica, now: Instant) {
    loop {
        let mut quiet = true;
        while let Some(sent) = ours.poll_transmit(now) {
            quiet = false;
            let taken = theirs.handle_message(sent.session, sent.stream, sent.bytes, now);
            taken.unwrap();
        }
        while let Some(sent) = theirs.poll_transmit(now) {
            quiet = false;
            let taken = ours.handle_message(sent.session, sent.stream, sent.bytes, now);
            taken.unwrap();
        }
        if quiet {
            return;
        }
    }
}

/// Everything, private kinds too: only the gate stands between.
fn everything() -> Filter {
    let node = NodeIndex::new(NODE).unwrap();
    let kinds = [
        Kind::Node,
        Kind::Identity,
        Kind::Service,
        Kind::Endpoint,
        Kind::Policy,
        Kind::Namespace,
        Kind::Cluster,
    ];
    let kinds = kinds.map(Prefix::kind).into_iter();
    Filter::new(kinds.chain([Prefix::pods_of(node)]))
}

fn hub() -> Replica {
    let quota = Quota {
        changes_per_second: u32::MAX,
        burst: u32::MAX,
        ..Quota::default()
    };
    let limits = Limits {
        quota,
        ..Limits::default()
    };
    Replica::new(limits, Box::new(grants()))
}

#[test]
fn of_a_hundred_thousand_hostile_announcements_none_is_taken_and_each_is_counted_by_its_reason() {
    let mut liar = Liar {
        dice: Dice(SEED),
        number: 0,
        nodes: 0,
    };
    let mut said = BTreeMap::new();
    let mut honest: BTreeMap<Key, Bytes> = BTreeMap::new();
    let mut expected: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut hostile = 0;
    while hostile < HOSTILE {
        liar.number += 1;
        if liar.number.is_multiple_of(HONEST) {
            let record = liar.honest();
            let (key, value) = (record.key(), encode_record(&record));
            honest.insert(key.clone(), value.clone());
            assert_eq!(said.insert(key, Some(value)), None, "a key of its own");
            continue;
        }
        let (key, value, reason) = liar.lie();
        if said.contains_key(&key) {
            continue;
        }
        said.insert(key, Some(value));
        *expected.entry(reason).or_default() += 1;
        hostile += 1;
    }
    let now = Instant::now();
    let mut theirs = publisher(2, said.into_iter().collect(), 1);
    let mut ours = hub();
    ours.subscribe(1, Wanted::One(id(2)), everything(), now);
    carry(&mut ours, &mut theirs, now);
    assert_eq!(ours.stats().refusals, expected, "seed {SEED:#x}");
    assert_eq!(expected.values().sum::<u64>(), u64::from(HOSTILE));
    assert_eq!(expected.len(), 19, "{expected:?}");
    let store = ours.store(id(2)).unwrap();
    let taken: BTreeMap<Key, Bytes> = store.records().map(|(_, k, v)| (k, v)).collect();
    assert_eq!(taken.len(), honest.len());
    assert!(
        taken == honest,
        "all that is honest is there, and nothing else"
    );
    assert_eq!(store.refused(), usize::try_from(HOSTILE).unwrap());
}

#[test]
fn who_is_no_member_is_believed_nothing_and_a_cluster_speaks_only_for_itself() {
    let now = Instant::now();
    let mut liar = Liar {
        dice: Dice(SEED),
        number: 0,
        nodes: 0,
    };
    let mut records = Vec::new();
    for number in 0..1_000 {
        liar.number = number;
        let record = liar.honest();
        records.push((record.key(), Some(encode_record(&record))));
    }
    // What is right for cluster 2 is not for a stranger, nor for cluster 3.
    for (origin, reasons) in [
        (9, &["origin_not_member"][..]),
        (3, &["address_outside_grant", "prefix_outside_grant"]),
    ] {
        let mut theirs = publisher(origin, records.clone(), 1);
        let mut ours = hub();
        ours.subscribe(1, Wanted::One(id(origin)), everything(), now);
        carry(&mut ours, &mut theirs, now);
        let Stats { refusals, .. } = ours.stats();
        assert_eq!(refusals.keys().copied().collect::<Vec<_>>(), reasons);
        let taken = ours.store(id(origin)).unwrap().records();
        for (_, key, _) in taken {
            // Names and numbers are each cluster's own; addresses are not.
            assert!(
                matches!(key.kind(), Some(Kind::Identity | Kind::Service)),
                "{key}"
            );
        }
    }
    // A member list is private: who sends one makes no member.
    let cluster = Record::Cluster(Cluster {
        id: id(9),
        name: "alien".to_owned(),
        prefixes: Vec::new(),
        ca: String::new(),
    });
    let mut theirs = publisher(2, vec![(cluster.key(), Some(encode_record(&cluster)))], 1);
    let mut ours = hub();
    ours.subscribe(1, Wanted::One(id(2)), everything(), now);
    carry(&mut ours, &mut theirs, now);
    assert_eq!(ours.stats().refusals, BTreeMap::from([("kind_private", 1)]));
}
