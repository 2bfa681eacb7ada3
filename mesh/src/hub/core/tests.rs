use super::*;
use crate::hub::members::MemberChange;
use crate::record::{Incarnation, Revision};
use crate::record::{Namespace, Node};
use crate::wire::encode_record;
use std::time::Duration;

fn id(number: u16) -> ClusterId {
    ClusterId::new(number).unwrap()
}

fn cluster(number: u16) -> Cluster {
    Cluster {
        id: id(number),
        name: format!("c{number}"),
        prefixes: vec![format!("10.{number}.0.0/16").parse().unwrap()],
        ca: String::new(),
    }
}

fn member(number: u16) -> MemberChange {
    MemberChange {
        id: id(number),
        name: format!("c{number}"),
        peer: Some(Arc::new(ClusterPeer {
            id: id(number),
            pod_cidrs: cluster(number).prefixes,
            service_cidrs: Vec::new(),
            namespaces: None,
            hubs: vec![format!("c{number}:6082")],
            ca: "ca".to_owned(),
            quotas: QuotaLimits::default(),
            may_revoke: false,
        })),
        is_revoked: false,
    }
}

fn node(cluster: u16, number: u16) -> (Key, Bytes) {
    let record = Record::Node(Node {
        index: NodeIndex::new(number).unwrap(),
        name: format!("n{number}"),
        prefixes: vec![format!("10.{cluster}.{number}.0/24").parse().unwrap()],
        lanes: Vec::new(),
    });
    (record.key(), encode_record(&record))
}

fn frame(revision: u64, changes: Vec<(Key, Option<Bytes>)>) -> Frame {
    Frame {
        version: Version::new(1, revision),
        changes,
    }
}

/// A hub with members and a first node.
fn hub(number: u16, others: &[u16], now: Instant) -> Core {
    let mut core = Core::new(
        cluster(number),
        "set.example".to_owned(),
        QuotaLimits::default(),
    );
    let mut live = Live::default();
    let (key, value) = node(number, 1);
    live.apply(&frame(1, vec![(key, Some(value))]));
    core.load_own(&live);
    for other in others {
        core.set_member(member(*other), now);
    }
    core.set_writer(true);
    core
}

fn actions(core: &mut Core) -> Vec<Action> {
    std::iter::from_fn(|| core.poll_action()).collect()
}

/// Two ends of one session, by the same number.
fn carry(one: &mut Core, other: &mut Core, now: Instant) {
    loop {
        let sent = one.poll_transmit(now).map(|t| (t, true));
        let sent = sent.or_else(|| other.poll_transmit(now).map(|t| (t, false)));
        match sent {
            None => return,
            Some((t, true)) => other.handle_message(t.session, t.stream, t.bytes, now),
            Some((t, false)) => one.handle_message(t.session, t.stream, t.bytes, now),
        }
    }
}

fn hub_id(number: u16) -> PeerId {
    PeerId::hub(format!("c{number}"), "hub-1")
}

/// c2 dials c1 and subscribes there.
fn dial(subscriber: &mut Core, publisher: &mut Core, session: SessionId, now: Instant) {
    let (here, there) = (subscriber.own().id, publisher.own().id);
    subscriber.dialed(session, there, hub_id(there.into()), now);
    publisher.accepted(session, hub_id(here.into())).unwrap();
    carry(subscriber, publisher, now);
}

#[test]
fn a_hub_learns_another_cluster_and_keeps_what_it_learned() {
    let now = Instant::now();
    let (mut one, mut two) = (hub(1, &[2], now), hub(2, &[1], now));
    let told = actions(&mut two);
    assert!(told.contains(&Action::Dial {
        cluster: id(1),
        name: "c1".to_owned(),
        hubs: vec!["c1:6082".to_owned()],
    }));
    dial(&mut two, &mut one, 7, now);
    let (key, value) = node(1, 1);
    assert_eq!(two.store(id(1)).unwrap().get(&key), Some(value.clone()));
    let kept: Vec<_> = actions(&mut two)
        .into_iter()
        .filter_map(|action| {
            let Action::Keep {
                complete: true,
                changes,
                version,
                ..
            } = action
            else {
                return None;
            };
            Some((version, changes))
        })
        .collect();
    let expected = vec![(key, Some((Revision(1), value)))];
    assert!(kept.contains(&(Version::new(1, 1), expected)), "{kept:?}");
    let (key, value) = node(1, 2);
    one.write(frame(2, vec![(key.clone(), Some(value.clone()))]));
    carry(&mut two, &mut one, now);
    assert_eq!(two.store(id(1)).unwrap().get(&key), Some(value));
    assert_eq!(two.store(id(1)).unwrap().version(), Version::new(1, 2));
}

#[test]
fn private_records_and_those_outside_the_grant_stay_out_and_the_rest_is_taken() {
    let now = Instant::now();
    let (mut one, mut two) = (hub(1, &[2], now), hub(2, &[1], now));
    let stranger = node(3, 9);
    let namespace = Record::Namespace(Namespace {
        name: "shop".to_owned(),
        labels: BTreeMap::new(),
    });
    let namespace = (namespace.key(), encode_record(&namespace));
    let good = node(1, 2);
    let all = [stranger.clone(), namespace.clone(), good.clone()];
    let changes = all.map(|(key, value)| (key, Some(value)));
    one.write(frame(2, changes.into()));
    dial(&mut two, &mut one, 7, now);
    let store = two.store(id(1)).unwrap();
    assert_eq!(store.get(&good.0), Some(good.1));
    assert_eq!(store.get(&stranger.0), None);
    assert_eq!(store.get(&namespace.0), None);
    assert_eq!(store.refused(), 1);
    assert_eq!(two.stats().refusals["prefix_outside_grant"], 1);
    let told = actions(&mut one);
    let refused = |action: &Action| matches!(action, Action::Refused { reason, .. } if reason == "prefix_outside_grant");
    assert!(told.iter().any(refused), "the source is told: {told:?}");
    let shown: Vec<_> = one.refused_by_others().iter().collect();
    assert_eq!(shown, [("c2", &stranger.0, "prefix_outside_grant")]);
    assert_eq!(one.refused_by_others().counts()["prefix_outside_grant"], 1);
    // Until the record is another one, or gone.
    one.write(frame(3, vec![(stranger.0, None)]));
    assert_eq!(one.refused_by_others().iter().count(), 0);
}

#[test]
fn what_is_said_of_records_that_there_are_not_is_not_listened_to() {
    let now = Instant::now();
    let (mut one, mut two) = (hub(1, &[2], now), hub(2, &[1], now));
    dial(&mut two, &mut one, 7, now);
    actions(&mut one);
    let say = |one: &mut Core, key: &Key| {
        let refused = crate::wire::Refused {
            origin: 1,
            key: key.as_bytes().clone(),
            reason: "no_such_thing".to_owned(),
        };
        let message = crate::wire::Message::of(crate::wire::Body::Refused(refused));
        one.handle_message(7, Stream::Changes, message.to_bytes(), now);
        (actions(one).len(), one.refused_by_others().iter().count())
    };
    assert_eq!(say(&mut one, &node(1, 9).0), (0, 0));
    assert_eq!(say(&mut one, &node(1, 1).0), (1, 1));
}

#[test]
fn nobody_elses_pods_are_where_our_nodes_are_reached() {
    let now = Instant::now();
    let (mut one, mut two) = (hub(1, &[2], now), hub(2, &[1], now));
    for number in 2..=4 {
        let (key, value) = node(1, number);
        one.write(frame(number.into(), vec![(key, Some(value))]));
    }
    dial(&mut two, &mut one, 7, now);
    assert_eq!(two.store(id(1)).unwrap().len(), 4);
    // One of ours tells an address that c1 says to be a pod's: what was taken is judged again.
    let here = |number: u16, at: &str| {
        let (key, value) = node(2, number);
        let Ok(Record::Node(mut node)) = decode_record(&key, &value) else {
            panic!("a node")
        };
        node.lanes = vec![LaneRecord {
            public_key: hawser_tunnel::key::PublicKey::new([3; 32]),
            peer_endpoint: Some(at.parse().unwrap()),
            key_port: None,
        }];
        (key, Some(encode_record(&Record::Node(node))))
    };
    two.write(frame(2, vec![here(1, "10.1.3.77:51820")]));
    carry(&mut two, &mut one, now);
    let known = |two: &Core| {
        let store = two.store(id(1)).unwrap();
        (1..=5)
            .filter(|n| store.get(&node(1, *n).0).is_some())
            .collect::<Vec<_>>()
    };
    assert_eq!(known(&two), [1, 2, 4]);
    assert_eq!(two.stats().refusals["prefix_over_own_node"], 1);
    let shown: Vec<_> = one.refused_by_others().iter().collect();
    assert_eq!(shown, [("c2", &node(1, 3).0, "prefix_over_own_node")]);
    // It moved elsewhere: nothing stands against the other any more. A node that nobody could hit makes no work.
    two.write(frame(3, vec![here(1, "192.0.2.1:51820")]));
    carry(&mut two, &mut one, now);
    assert_eq!(known(&two), [1, 2, 3, 4]);
}

#[test]
fn who_is_no_member_no_node_or_of_another_role_is_not_served() {
    let now = Instant::now();
    let mut core = hub(1, &[2], now);
    let node = |cluster: &str, name: &str| PeerId::node(cluster, name);
    for (peer, expected) in [
        (hub_id(2), Ok(())),
        (hub_id(3), Err(Unwelcome::ClusterUnknown)),
        (hub_id(1), Err(Unwelcome::RoleUnserved)),
        (node("c1", "n1"), Ok(())),
        (node("c1", "n9"), Err(Unwelcome::NodeUnknown)),
        (node("c2", "n1"), Err(Unwelcome::RoleUnserved)),
    ] {
        let session = core.sessions().len() as u64 + 100;
        assert_eq!(core.accepted(session, peer), expected);
    }
}

#[test]
fn a_member_that_leaves_is_hung_up_and_forgotten() {
    let now = Instant::now();
    let (mut one, mut two) = (hub(1, &[2], now), hub(2, &[1], now));
    dial(&mut two, &mut one, 7, now);
    actions(&mut two);
    let gone = MemberChange {
        peer: None,
        ..member(1)
    };
    two.set_member(gone, now);
    assert!(two.store(id(1)).is_none());
    let told = actions(&mut two);
    for expected in [
        Action::Forget { origin: id(1) },
        Action::Hang { cluster: id(1) },
        Action::Trust {
            name: "c1".to_owned(),
            ca: None,
        },
        Action::Close {
            session: 7,
            reason: "cluster_left",
        },
    ] {
        assert!(told.contains(&expected), "{expected:?} in {told:?}");
    }
}

#[test]
fn a_grant_that_changes_judges_what_is_here_again() {
    let now = Instant::now();
    let (mut one, mut two) = (hub(1, &[2], now), hub(2, &[1], now));
    dial(&mut two, &mut one, 7, now);
    let grant = |prefix: &str| {
        let mut change = member(1);
        let peer = change.peer.take().unwrap();
        let pod_cidrs = vec![prefix.parse().unwrap()];
        change.peer = Some(Arc::new(ClusterPeer {
            pod_cidrs,
            ..(*peer).clone()
        }));
        change
    };
    let (key, value) = node(1, 1);
    two.set_member(grant("10.1.128.0/17"), now);
    assert_eq!(two.store(id(1)).unwrap().get(&key), None);
    carry(&mut two, &mut one, now);
    assert_eq!(two.store(id(1)).unwrap().get(&key), None);
    two.set_member(grant("10.1.0.0/16"), now);
    carry(&mut two, &mut one, now);
    assert_eq!(two.store(id(1)).unwrap().get(&key), Some(value));
}

#[test]
fn what_was_kept_is_held_against_the_grant_of_today() {
    let now = Instant::now();
    let (inside, outside) = (node(1, 1), node(3, 9));
    let record = |(key, value): &(Key, Bytes)| (Revision(1), key.clone(), value.clone());
    let kept = |records: &[(Key, Bytes)]| KeptOrigin {
        version: Version::new(1, 1),
        complete: true,
        records: records.iter().map(record).collect(),
    };
    let mut two = hub(2, &[1], now);
    two.load(id(1), kept(std::slice::from_ref(&inside)));
    assert!(two.store(id(1)).unwrap().is_complete());
    let mut two = hub(2, &[1], now);
    two.load(id(1), kept(&[inside.clone(), outside.clone()]));
    let store = two.store(id(1)).unwrap();
    assert_eq!((store.len(), store.is_complete()), (1, false));
    two.load(id(3), kept(&[outside]));
    assert!(two.store(id(3)).is_none());
    assert!(actions(&mut two).contains(&Action::Forget { origin: id(3) }));
    // The rest is compared, and complete again.
    let mut one = hub(1, &[2], now);
    dial(&mut two, &mut one, 7, now);
    let store = two.store(id(1)).unwrap();
    assert_eq!(
        (store.get(&inside.0), store.is_complete()),
        (Some(inside.1), true)
    );
}

#[test]
fn a_restored_source_begins_another_incarnation_when_another_hub_says_so() {
    let mut now = Instant::now();
    let (mut one, mut two) = (hub(1, &[2], now), hub(2, &[1], now));
    for revision in 2..30 {
        let (key, value) = node(1, u16::try_from(revision).unwrap());
        one.write(frame(revision, vec![(key, Some(value))]));
    }
    dial(&mut two, &mut one, 7, now);
    assert_eq!(two.store(id(1)).unwrap().version(), Version::new(1, 29));
    // Back from a backup of the first day.
    let mut one = hub(1, &[2], now);
    two.closed(7);
    dial(&mut two, &mut one, 8, now);
    actions(&mut one);
    let mut bump = None;
    for _ in 0..20 {
        now += Duration::from_secs(1);
        one.handle_timeout(now);
        two.handle_timeout(now);
        carry(&mut two, &mut one, now);
        bump = bump.or_else(|| {
            actions(&mut one).into_iter().find_map(|action| {
                let Action::Bump { to } = action else {
                    return None;
                };
                Some(to)
            })
        });
    }
    assert_eq!(bump, Some(Incarnation(2)));
    assert_eq!(two.store(id(1)).unwrap().len(), 29, "nothing goes back");
    one.write(Frame {
        version: Version::new(2, 2),
        changes: Vec::new(),
    });
    carry(&mut two, &mut one, now);
    assert_eq!(two.store(id(1)).unwrap().version(), Version::new(2, 2));
    assert_eq!(two.store(id(1)).unwrap().len(), 1);
}

#[test]
fn what_a_replica_that_follows_hears_moves_the_one_that_writes() {
    let now = Instant::now();
    let (mut writer, mut follower) = (hub(1, &[2], now), hub(1, &[2], now));
    follower.set_writer(false);
    follower.accepted(5, hub_id(2)).unwrap();
    actions(&mut follower);
    actions(&mut writer);
    let seen = Version::new(1, 900);
    follower.ahead(5, seen, Some(now));
    let who = Witness::Hub(id(2));
    let claims = vec![Claim { who, seen }];
    assert_eq!(actions(&mut follower), [Action::Ahead { claims }]);
    follower.heard(Claim { who, seen }, now);
    assert_eq!(actions(&mut follower), [], "it does not write");
    writer.heard(Claim { who, seen }, now);
    let to = Incarnation(2);
    assert_eq!(actions(&mut writer), [Action::Bump { to }]);
}

#[test]
fn agents_count_once_wherever_they_are_heard_and_strangers_do_not() {
    let now = Instant::now();
    let mut writer = hub(1, &[2], now);
    let mut changes = Vec::new();
    for number in 2..=10 {
        let (key, value) = node(1, number);
        changes.push((key, Some(value)));
    }
    writer.write(frame(2, changes));
    actions(&mut writer);
    let agent = |number| Claim {
        who: Witness::Agent(NodeIndex::new(number).unwrap()),
        seen: Version::new(1, 900),
    };
    writer.accepted(5, PeerId::node("c1", "n1")).unwrap();
    writer.ahead(5, agent(1).seen, Some(now));
    let stranger = Claim {
        who: Witness::Hub(id(3)),
        ..agent(1)
    };
    let implausible = Claim {
        seen: Version::new(5000, 1),
        ..agent(4)
    };
    for claim in [
        agent(1),
        agent(2),
        agent(11),
        agent(12),
        stranger,
        implausible,
    ] {
        writer.heard(claim, now);
        assert_eq!(actions(&mut writer), [], "{claim:?}");
    }
    writer.heard(agent(3), now);
    let to = Incarnation(2);
    assert_eq!(actions(&mut writer), [Action::Bump { to }]);
}

#[test]
fn a_node_that_comes_again_and_again_is_served_and_its_oldest_session_ends() {
    let now = Instant::now();
    let mut core = hub(1, &[2], now);
    let (_, changed) = node(1, 2);
    core.write(frame(2, vec![(node(1, 2).0, Some(changed))]));
    core.accepted(1, PeerId::node("c1", "n2")).unwrap();
    actions(&mut core);
    let mut ended = Vec::new();
    for session in 2..12 {
        core.accepted(session, PeerId::node("c1", "n1")).unwrap();
        assert!(
            core.sessions().contains_key(&session),
            "the newest is there"
        );
        for action in actions(&mut core) {
            let Action::Close { session, reason } = action else {
                panic!("{action:?}");
            };
            assert_eq!(reason, "too_many_sessions");
            ended.push(session);
        }
    }
    assert_eq!(ended, [2, 3, 4, 5, 6, 7, 8]);
    let left: Vec<_> = core.sessions().keys().copied().collect();
    assert_eq!(left, [1, 9, 10, 11], "and another node's is let alone");
}

#[test]
fn a_replica_that_follows_never_bumps() {
    let mut core = hub(1, &[2], Instant::now());
    core.set_writer(false);
    core.accepted(5, hub_id(2)).unwrap();
    core.ahead(5, Version::new(1, 900), Some(Instant::now()));
    let told = actions(&mut core);
    let is_bump = |action: &Action| matches!(action, Action::Bump { .. });
    assert!(!told.iter().any(is_bump));
    core.set_writer(true);
    core.ahead(5, Version::new(5000, 1), Some(Instant::now()));
    assert_eq!(
        actions(&mut core),
        [Action::Close {
            session: 5,
            reason: "incarnation_implausible"
        }]
    );
}

mod trust;
