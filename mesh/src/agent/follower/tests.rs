//! A node's follower against its hub's replica and another cluster's, over virtual time.

use super::*;
use crate::kept::KeptOrigin;
use crate::record::{
    Cluster, Condition, Endpoint, IdentityRecord, Incarnation, Namespace, Node, Pod, Policy,
    Record, Revision, Scope,
};
use crate::replica::Audience;
use crate::wire::encode_record;
use hawser_tunnel::identity::Identity;
use hawser_tunnel::key::PublicKey;
use hawser_tunnel::node::{NodeId, NodeIndex};
use serde_json::json;

const EAST: u16 = 1;
const WEST: u16 = 2;
/// The session of the hub of east at that of west.
const HUBS: SessionId = 1_000;

fn cluster_id(id: u16) -> ClusterId {
    ClusterId::new(id).unwrap()
}

fn index(index: u16) -> NodeIndex {
    NodeIndex::new(index).unwrap()
}

fn identity(number: u32) -> Identity {
    Identity::new(number).unwrap()
}

fn node(number: u16, name: &str, prefix: &str) -> Record {
    Record::Node(Node {
        index: index(number),
        name: name.to_owned(),
        prefixes: vec![prefix.parse().unwrap()],
        lanes: vec![LaneRecord {
            public_key: PublicKey::new([u8::try_from(number).unwrap(); 32]),
            peer_endpoint: None,
            key_port: None,
        }],
    })
}

fn member(id: u16, name: &str, prefix: &str) -> Record {
    Record::Cluster(Cluster {
        id: cluster_id(id),
        name: name.to_owned(),
        prefixes: vec![prefix.parse().unwrap()],
        ca: String::new(),
    })
}

fn labelled(number: u32, namespace: &str, app: &str) -> Record {
    Record::Identity(IdentityRecord {
        number: identity(number),
        namespace: namespace.to_owned(),
        labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
    })
}

fn endpoint(scope: Scope, name: &str) -> Record {
    Record::Endpoint(Endpoint {
        scope,
        name: name.to_owned(),
        addresses: vec!["10.2.1.9".parse().unwrap()],
        identity: identity(2001),
        node: None,
        condition: Condition::READY,
        hostname: String::new(),
        zone: String::new(),
        ports: Vec::new(),
    })
}

fn pod(node: u16, name: &str, number: u32) -> Record {
    Record::Pod(Pod {
        node: index(node),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        addresses: vec!["10.1.1.9".parse().unwrap()],
        identity: identity(number),
    })
}

fn policy(to: &serde_json::Value) -> Record {
    Record::Policy(Policy {
        namespace: "shop".to_owned(),
        name: "out".to_owned(),
        spec:
            json!({ "podSelector": { "matchLabels": { "app": "web" } }, "policyTypes": ["Egress"],
            "egress": [{ "to": [to] }] })
            .to_string(),
    })
}

/// Two clusters with a hub each, and the node east-1.
struct World {
    now: Instant,
    east: Replica,
    west: Replica,
    revision: u64,
    follower: Follower,
    session: SessionId,
    /// What the follower told since the last look, and what it would have on disk.
    told: Vec<Event>,
    disk: BTreeMap<ClusterId, KeptOrigin>,
    scope: Bytes,
    /// Bytes from the hub to the node.
    bytes: usize,
}

impl World {
    fn new(endpoints: EndpointsWanted) -> Self {
        let now = Instant::now();
        let replica = |own| {
            let mut replica = Replica::new(Limits::default(), Box::new(AdmitAll));
            replica.own(cluster_id(own), Version::new(1, 0));
            replica
        };
        let (mut east, mut west) = (replica(EAST), replica(WEST));
        let to = Audience::OtherHub {
            cluster: cluster_id(EAST),
        };
        west.publish(HUBS, to);
        let from_west = Wanted::One(cluster_id(WEST));
        east.subscribe(HUBS, from_west, Filter::public(), now);
        let mut world = Self {
            now,
            east,
            west,
            revision: 0,
            follower: Follower::new("east", "east-1", endpoints),
            session: 0,
            told: Vec::new(),
            disk: BTreeMap::new(),
            scope: Bytes::new(),
            bytes: 0,
        };
        world.set(
            EAST,
            &[
                member(EAST, "east", "10.1.0.0/16"),
                member(WEST, "west", "10.2.0.0/16"),
                node(1, "east-1", "10.1.1.0/24"),
                node(2, "east-2", "10.1.2.0/24"),
                labelled(1001, "shop", "web"),
                pod(1, "web", 1001),
                pod(2, "elsewhere", 1001),
                Record::Namespace(Namespace {
                    name: "shop".to_owned(),
                    labels: BTreeMap::new(),
                }),
            ],
        );
        world.set(
            WEST,
            &[
                node(1, "west-1", "10.2.1.0/24"),
                labelled(2001, "shop", "db"),
            ],
        );
        world
    }

    fn change(&mut self, origin: u16, changes: Vec<(Key, Option<Bytes>)>) {
        self.revision += 1;
        let revision = Revision(self.revision);
        let hub = if origin == EAST {
            &mut self.east
        } else {
            &mut self.west
        };
        assert!(hub.write(revision, changes));
    }

    fn set(&mut self, origin: u16, records: &[Record]) {
        let change = |record: &Record| (record.key(), Some(encode_record(record)));
        self.change(origin, records.iter().map(change).collect());
    }

    fn remove(&mut self, origin: u16, key: Key) {
        self.change(origin, vec![(key, None)]);
    }

    fn connect(&mut self) {
        self.session += 1;
        let node = index(1);
        self.east.publish(self.session, Audience::OwnAgent { node });
        self.follower.connect(self.session, self.now);
        self.settle();
    }

    fn cut(&mut self) {
        self.east.close(self.session);
        self.follower.disconnect();
    }

    /// Carries messages and lets time go on until nobody has anything to say for a second.
    fn settle(&mut self) {
        for _ in 0..100 {
            self.carry();
            self.now += Duration::from_millis(10);
            for replica in [&mut self.east, &mut self.west] {
                replica.handle_timeout(self.now);
            }
            self.follower.handle_timeout(self.now);
        }
        self.carry();
    }

    fn carry(&mut self) {
        loop {
            let mut moved = false;
            while let Some(sent) = self.west.poll_transmit(self.now) {
                moved = true;
                self.east
                    .handle_message(HUBS, sent.stream, sent.bytes, self.now)
                    .unwrap();
            }
            while let Some(sent) = self.east.poll_transmit(self.now) {
                moved = true;
                if sent.session == HUBS {
                    self.west
                        .handle_message(HUBS, sent.stream, sent.bytes, self.now)
                        .unwrap();
                } else {
                    self.bytes += sent.bytes.len();
                    self.follower
                        .handle_message(sent.session, sent.stream, sent.bytes, self.now)
                        .unwrap();
                }
            }
            while let Some(sent) = self.follower.poll_transmit(self.now) {
                moved = true;
                self.east
                    .handle_message(sent.session, sent.stream, sent.bytes, self.now)
                    .unwrap();
            }
            while let Some(event) = self.follower.poll_event() {
                if let Event::Keep(keep) = &event {
                    self.keep(keep.clone());
                }
                self.told.push(event);
            }
            while self.east.poll_event().is_some() || self.west.poll_event().is_some() {}
            if !moved {
                return;
            }
        }
    }

    fn keep(&mut self, keep: Keep) {
        match keep {
            Keep::Changes {
                origin,
                version,
                complete,
                changes,
            } => {
                let kept = self.disk.entry(origin).or_default();
                (kept.version, kept.complete) = (version, complete);
                for (key, change) in changes {
                    kept.records.retain(|(_, at, _)| *at != key);
                    kept.records
                        .extend(change.map(|(revision, value)| (revision, key, value)));
                }
            }
            Keep::Forget { origin } => drop(self.disk.remove(&origin)),
            Keep::Scope(scope) => self.scope = scope,
        }
    }

    fn told(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.told)
    }

    fn peers(&mut self) -> Vec<NodeId> {
        self.follower.learned().nodes.into_keys().collect()
    }

    fn holds(&self, origin: u16, record: &Record) -> bool {
        let store = self.follower.replica().store(cluster_id(origin));
        store.is_some_and(|store| store.get(&record.key()).is_some())
    }

    /// The node starts again, with what it kept.
    fn restart(&mut self, endpoints: EndpointsWanted) {
        self.cut();
        self.follower = Follower::new("east", "east-1", endpoints);
        let kept = self.disk.iter().map(|(&origin, kept)| {
            let mut records = kept.records.clone();
            records.sort_by(|a, b| a.1.cmp(&b.1));
            let (version, complete) = (kept.version, kept.complete);
            (
                origin,
                KeptOrigin {
                    version,
                    complete,
                    records,
                },
            )
        });
        let loaded = Loaded {
            origins: kept.collect(),
            scope: self.scope.clone(),
            damage: None,
        };
        self.follower.load(loaded);
    }
}

fn id(text: &str) -> NodeId {
    text.parse().unwrap()
}

#[test]
fn nodes_come_change_and_go() {
    let mut world = World::new(EndpointsWanted::Used);
    world.connect();
    assert_eq!(world.peers(), [id("1/1"), id("1/2"), id("2/1")]);
    let learned = world.follower.learned();
    assert_eq!(learned.node(), Some(id("1/1")));
    assert_eq!(learned.pods.len(), 1, "only its own");

    world.told();
    world.set(
        WEST,
        &[
            node(2, "west-2", "10.2.2.0/24"),
            node(1, "west-1", "10.2.9.0/24"),
        ],
    );
    world.settle();
    assert!(world.told().contains(&Event::Mesh));
    let learned = world.follower.learned();
    assert_eq!(
        learned.nodes[&id("2/1")].prefixes[0].to_string(),
        "10.2.9.0/24"
    );
    assert!(learned.nodes.contains_key(&id("2/2")));

    world.remove(WEST, Key::node(index(1)));
    world.settle();
    assert_eq!(world.peers(), [id("1/1"), id("1/2"), id("2/2")]);
}

#[test]
fn a_cluster_that_leaves_is_gone_with_all_it_told() {
    let mut world = World::new(EndpointsWanted::Used);
    world.connect();
    world.remove(EAST, Key::cluster(cluster_id(WEST)));
    world.east.forget(cluster_id(WEST));
    world.settle();
    assert_eq!(world.peers(), [id("1/1"), id("1/2")]);
    let west = cluster_id(WEST);
    assert!(!world.follower.learned().clusters.contains_key(&west));
    assert!(world.told().contains(&Event::Forgotten { origin: west }));
    assert!(!world.disk.contains_key(&west));
}

#[test]
fn a_node_whose_own_prefix_changes_learns_it() {
    let mut world = World::new(EndpointsWanted::Used);
    world.connect();
    world.follower.learned();
    world.told();
    world.set(EAST, &[node(1, "east-1", "10.1.7.0/24")]);
    world.settle();
    assert!(world.told().contains(&Event::Mesh));
    let learned = world.follower.learned();
    assert_eq!(
        learned.nodes[&id("1/1")].prefixes[0].to_string(),
        "10.1.7.0/24"
    );
}

#[test]
fn endpoints_that_no_policy_selects_cost_nothing() {
    let mut world = World::new(EndpointsWanted::Used);
    world.connect();
    world.set(WEST, &[labelled(2002, "shop", "cache")]);
    world.settle();
    let of_identity = |number, name| endpoint(Scope::Identity(identity(number)), name);
    let selected = of_identity(2001, "shop/db-1");
    // Others' pods come and go, and not a byte says so.
    let before = world.bytes;
    world.set(WEST, std::slice::from_ref(&selected));
    world.settle();
    assert_eq!(world.bytes, before);
    assert!(!world.holds(WEST, &selected));

    // A policy of a pod of this node selects them: they come.
    world.set(
        EAST,
        &[policy(
            &json!({ "podSelector": { "matchLabels": { "app": "db" } } }),
        )],
    );
    world.settle();
    assert!(world.holds(WEST, &selected));
    world.told();
    let later = of_identity(2001, "shop/db-2");
    world.set(WEST, std::slice::from_ref(&later));
    world.settle();
    let told = world.told();
    assert!(
        matches!(&told[0], Event::Apply { key, .. } if *key == later.key()),
        "{told:?}"
    );
    assert!(
        !told.contains(&Event::Mesh),
        "endpoints are not the data plane's affair"
    );

    // And go with the policy.
    world.remove(EAST, Key::policy("shop", "out"));
    world.settle();
    assert!(!world.holds(WEST, &selected));
}

#[test]
fn endpoints_of_services_come_always_and_all_of_them_where_the_file_says_so() {
    let scope = Scope::Service {
        namespace: "shop".to_owned(),
        name: "db".to_owned(),
    };
    let of_service = endpoint(scope, "db-1");
    let of_identity = endpoint(Scope::Identity(identity(2001)), "shop/db-1");
    for (wanted, all) in [(EndpointsWanted::Used, false), (EndpointsWanted::All, true)] {
        let mut world = World::new(wanted);
        world.set(WEST, &[of_service.clone(), of_identity.clone()]);
        world.connect();
        assert!(world.holds(WEST, &of_service));
        assert_eq!(world.holds(WEST, &of_identity), all);
        // The file is changed while the node runs.
        let other = if all {
            EndpointsWanted::Used
        } else {
            EndpointsWanted::All
        };
        world.follower.set_endpoints(other, world.now);
        world.settle();
        assert_eq!(world.holds(WEST, &of_identity), !all);
    }
}

#[test]
fn a_node_that_restarts_knows_what_it_knew_and_asks_for_nothing_twice() {
    let mut world = World::new(EndpointsWanted::Used);
    world.connect();
    world.set(EAST, &[policy(&json!({ "namespaceSelector": {} }))]);
    world.settle();
    let learned = world.follower.learned();
    world.restart(EndpointsWanted::Used);
    assert_eq!(world.follower.learned(), learned, "while every hub is away");
    assert_eq!(world.follower.poll_event(), Some(Event::Mesh));
    world.bytes = 0;
    world.told();
    world.connect();
    let told = world.told();
    let is_news = |event: &Event| {
        matches!(
            event,
            Event::Apply { .. } | Event::Delete { .. } | Event::Mesh
        )
    };
    assert!(!told.iter().any(is_news), "{told:?}");
    assert!(world.bytes < 200, "{} bytes", world.bytes);
    assert!(
        world
            .follower
            .status()
            .values()
            .all(|origin| origin.complete && origin.synced)
    );
}

#[test]
fn a_node_that_restarts_with_another_wish_gets_what_it_lacks() {
    let of_identity = endpoint(Scope::Identity(identity(2001)), "shop/db-1");
    let mut world = World::new(EndpointsWanted::Used);
    world.set(WEST, std::slice::from_ref(&of_identity));
    world.connect();
    world.restart(EndpointsWanted::All);
    world.connect();
    assert!(world.holds(WEST, &of_identity));
}

#[test]
fn what_changes_while_no_hub_is_heard_comes_with_the_next_one() {
    let mut world = World::new(EndpointsWanted::Used);
    world.connect();
    let before = world.follower.learned();
    world.cut();
    world.set(WEST, &[node(3, "west-3", "10.2.3.0/24")]);
    world.remove(WEST, Key::node(index(1)));
    world.settle();
    assert_eq!(
        world.follower.learned(),
        before,
        "a lost hub changes nothing"
    );
    world.connect();
    assert_eq!(world.peers(), [id("1/1"), id("1/2"), id("2/3")]);
}

/// I4: time alone changes nothing, and neither does the return of a hub that has nothing new to say.
#[test]
fn ten_minutes_without_a_hub_and_its_return_give_the_data_plane_nothing_to_do() {
    let mut world = World::new(EndpointsWanted::All);
    world.connect();
    let before = world.follower.learned();
    world.told();
    world.cut();
    for _ in 0..600 {
        world.settle();
    }
    assert_eq!(world.follower.learned(), before);
    world.connect();
    world.settle();
    assert_eq!(world.follower.learned(), before);
    let told = world.told();
    let idle = |event: &Event| matches!(event, Event::Synced { .. } | Event::Keep(_));
    assert!(told.iter().all(idle), "{told:?}");
}

#[test]
fn what_was_kept_is_what_is_known_after_every_change() {
    let mut world = World::new(EndpointsWanted::All);
    world.connect();
    for round in 0..20_u16 {
        match round % 4 {
            0 => world.set(WEST, &[node(10 + round, "west-x", "10.2.3.0/24")]),
            1 => world.remove(WEST, Key::node(index(9 + round))),
            2 => world.set(
                EAST,
                &[policy(&json!({ "podSelector": {} })), pod(1, "b", 1001)],
            ),
            _ => world
                .east
                .bump_incarnation(Incarnation(u64::from(round) + 2)),
        }
        world.settle();
        for origin in world.follower.replica().origins() {
            let store = world.follower.replica().store(origin).unwrap();
            // An equal value under a newer revision is no change.
            let content = |(_, key, value): (Revision, Key, Bytes)| (key, value);
            let kept = world.disk[&origin].records.iter().cloned().map(content);
            let known = store.records().map(content).collect();
            assert_eq!(kept.collect::<BTreeMap<_, _>>(), known, "round {round}");
            assert_eq!(world.disk[&origin].version, store.version());
            assert_eq!(world.disk[&origin].complete, store.is_complete());
        }
    }
}

#[test]
fn the_own_lanes_are_told_to_every_hub() {
    let mut world = World::new(EndpointsWanted::Used);
    let lanes = |key| {
        vec![LaneRecord {
            public_key: PublicKey::new([key; 32]),
            peer_endpoint: Some("192.0.2.1:51820".parse().unwrap()),
            key_port: None,
        }]
    };
    let mut heard = Vec::new();
    let mut carry = |world: &mut World| {
        while let Some(sent) = world.follower.poll_transmit(world.now) {
            let session = sent.session;
            world
                .east
                .handle_message(session, sent.stream, sent.bytes, world.now)
                .unwrap();
        }
        while let Some(event) = world.east.poll_event() {
            if let replica::Event::Announced { session, lanes } = event {
                heard.push((session, lanes));
            }
        }
    };
    world.follower.announce(lanes(1));
    for session in [1, 2] {
        let node = index(1);
        world.east.publish(session, Audience::OwnAgent { node });
        world.follower.connect(session, world.now);
        carry(&mut world);
    }
    world.follower.announce(lanes(2));
    carry(&mut world);
    assert_eq!(heard, [(1, lanes(1)), (2, lanes(1)), (2, lanes(2))]);
}
