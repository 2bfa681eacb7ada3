//! Each way to break the protocol has a name, and costs nobody else anything.

use super::*;
use crate::wire::{
    Ack, Announce, BUCKETS, Change, Compare, Delta, Digests, Have, Snapshot, Subscribe, Summary,
};

const SESSION: SessionId = 500;

/// Somebody who says what it likes, to a hub of cluster 1 or to an agent.
struct Liar(World, usize);

impl Liar {
    fn to_hub(to: Audience) -> Self {
        let mut world = World::new(2);
        world.write(1, [set("a1", "x"), set("\x01n", "y")]);
        world.replicas[HUB].publish(SESSION, to);
        Self(world, HUB).greeted()
    }

    fn to_agent() -> Self {
        let mut world = World::new(2);
        world.replicas[1].subscribe(SESSION, Wanted::All, all(), world.now);
        Self(world, 1).greeted()
    }

    fn greeted(mut self) -> Self {
        self.0.collect();
        assert_eq!(self.say(hello()), Ok(()));
        self
    }

    fn say(&mut self, body: Body) -> Result<(), Reject> {
        let stream = if matches!(body, Body::Snapshot(_)) {
            Stream::Bulk
        } else {
            Stream::Changes
        };
        let bytes = Message::of(body).to_bytes();
        let result = self.0.replicas[self.1].handle_message(SESSION, stream, bytes, self.0.now);
        self.0.collect();
        result
    }

    fn assert_rejected(&mut self, body: Body, reject: Reject) {
        assert_eq!(self.say(body), Err(reject));
        let stats = self.0.replicas[self.1].stats();
        assert!(stats.rejects[reject.name()] > 0);
    }
}

fn hello() -> Body {
    Body::Hello(Hello::default())
}

fn other_hub() -> Audience {
    Audience::OtherHub {
        cluster: cluster(2),
    }
}

fn subscribe(number: u32, prefixes: &[&'static str]) -> Subscribe {
    Subscribe {
        number,
        prefixes: prefixes.iter().map(|p| Bytes::from(*p)).collect(),
        ..Subscribe::default()
    }
}

fn change(revision: u64, key: &'static str, value: &'static str) -> Change {
    Change {
        revision,
        key: key.into(),
        value: Some(value.into()),
    }
}

fn snapshot(sequence: u64, records: Vec<Change>) -> Snapshot {
    Snapshot {
        number: 1,
        origin: 1,
        incarnation: 1,
        revision: 10,
        sequence,
        all: true,
        records,
        last: true,
        ..Snapshot::default()
    }
}

fn delta(sequence: u64, from: u64, to: u64, changes: Vec<Change>) -> Delta {
    Delta {
        number: 1,
        origin: 1,
        incarnation: 1,
        from,
        to,
        sequence,
        changes,
        newest: 0,
    }
}

#[test]
fn what_is_no_message_is_refused() {
    let mut liar = Liar::to_hub(agent());
    let now = liar.0.now;
    let hub = &mut liar.0.replicas[HUB];
    let mut say = |bytes: Vec<u8>| hub.handle_message(SESSION, Stream::Changes, bytes.into(), now);
    assert_eq!(say(vec![0; (1 << 20) + 1]), Err(Reject::MessageTooLong));
    assert_eq!(say(vec![0x12, 0x7f, 1]), Err(Reject::MessageMalformed));
    // A newer message is skipped.
    assert_eq!(say(vec![0xfa, 0x07, 0]), Ok(()));
    // Every truncation of a message is refused or means less; none panics.
    let whole = Message::of(Body::Subscribe(subscribe(1, &["a", "b"]))).to_bytes();
    for length in 0..whole.len() {
        let _ = say(whole[..length].to_vec());
    }
}

#[test]
fn a_session_begins_with_one_hello() {
    let mut world = World::new(1);
    world.replicas[HUB].publish(SESSION, agent());
    let mut liar = Liar(world, HUB);
    liar.assert_rejected(Body::Subscribe(subscribe(1, &["a"])), Reject::HelloMissing);
    assert_eq!(liar.say(hello()), Ok(()));
    liar.assert_rejected(hello(), Reject::HelloTwice);
}

#[test]
fn each_side_says_only_what_is_its_own() {
    let mut liar = Liar::to_hub(agent());
    for body in [
        Body::Compare(Compare::default()),
        Body::Delta(Delta::default()),
        Body::Summary(Summary::default()),
        Body::Snapshot(Snapshot::default()),
    ] {
        liar.assert_rejected(body, Reject::UnexpectedMessage);
    }
    let mut liar = Liar::to_agent();
    for body in [
        Body::Subscribe(subscribe(1, &[])),
        Body::Ack(Ack::default()),
        Body::Digests(Digests::default()),
        Body::Announce(Announce::default()),
    ] {
        liar.assert_rejected(body, Reject::UnexpectedMessage);
    }
    let bytes = Message::of(Body::Snapshot(snapshot(1, vec![]))).to_bytes();
    let result = liar.0.replicas[1].handle_message(SESSION, Stream::Changes, bytes, liar.0.now);
    assert_eq!(result, Err(Reject::WrongStream));
    let mut liar = Liar::to_hub(other_hub());
    liar.assert_rejected(
        Body::Announce(Announce::default()),
        Reject::UnexpectedMessage,
    );
}

#[test]
fn a_subscription_sent_again_is_refused() {
    let mut liar = Liar::to_hub(agent());
    assert_eq!(liar.say(Body::Subscribe(subscribe(5, &["a"]))), Ok(()));
    liar.assert_rejected(
        Body::Subscribe(subscribe(5, &["a"])),
        Reject::SubscriptionOrder,
    );
    liar.assert_rejected(
        Body::Subscribe(subscribe(4, &["b"])),
        Reject::SubscriptionOrder,
    );
    let ack = |number, sequence| {
        Body::Ack(Ack {
            number,
            origin: 1,
            sequence,
        })
    };
    assert_eq!(liar.say(ack(4, 900)), Ok(()), "an older subscription's");
    liar.assert_rejected(ack(6, 1), Reject::SubscriptionUnknown);
    liar.assert_rejected(ack(5, 2), Reject::AckOfUnsent);
    assert_eq!(liar.say(ack(5, 1)), Ok(()));
}

#[test]
fn a_filter_is_sorted_bounded_and_for_this_peer() {
    let mut liar = Liar::to_hub(other_hub());
    let mut say = |prefixes: &[&'static str], reject| {
        liar.assert_rejected(Body::Subscribe(subscribe(1, prefixes)), reject);
    };
    say(&["\x01", "a"], Reject::PrefixPrivate);
    say(&["\x02", "\x01"], Reject::PrefixOrder);
    say(&["\x01", "\x01x"], Reject::PrefixOrder);
    say(&[""], Reject::PrefixMalformed);
    let many = Subscribe {
        number: 1,
        prefixes: (0..9000u16)
            .map(|n| [&[4, b'i', 0][..], &n.to_be_bytes()].concat().into())
            .collect(),
        ..Subscribe::default()
    };
    liar.assert_rejected(Body::Subscribe(many), Reject::TooManyPrefixes);
    // An agent has the pods of its own node, and no other's.
    let mut liar = Liar::to_hub(agent());
    assert_eq!(
        liar.say(Body::Subscribe(subscribe(1, &["C\0\x07"]))),
        Ok(())
    );
    for pods in ["C\0\x08", "C", "C\0"] {
        liar.assert_rejected(
            Body::Subscribe(subscribe(2, &[pods])),
            Reject::PrefixPrivate,
        );
    }
}

#[test]
fn what_a_subscriber_says_that_it_has_must_be_possible() {
    let mut liar = Liar::to_hub(other_hub());
    let with = |have: Have| Subscribe {
        have: vec![have],
        ..subscribe(1, &["\x01"])
    };
    let have = Have {
        origin: 1,
        incarnation: 1,
        ..Have::default()
    };
    for (have, reject) in [
        (
            Have {
                origin: 0,
                ..have.clone()
            },
            Reject::OriginMalformed,
        ),
        (
            Have {
                origin: 70_000,
                ..have.clone()
            },
            Reject::OriginMalformed,
        ),
        (
            Have {
                incarnation: 1002,
                ..have.clone()
            },
            Reject::IncarnationImplausible,
        ),
        (
            Have {
                count: 3,
                ..have.clone()
            },
            Reject::DigestsLength,
        ),
        (
            Have {
                digest: vec![1; 15].into(),
                ..have.clone()
            },
            Reject::DigestsLength,
        ),
    ] {
        liar.assert_rejected(Body::Subscribe(with(have)), reject);
    }
    let foreign = Subscribe {
        origins: vec![2],
        ..subscribe(1, &["\x01"])
    };
    liar.assert_rejected(Body::Subscribe(foreign), Reject::OriginNotShown);
    let many = Subscribe {
        have: vec![have; 1025],
        ..subscribe(1, &["\x01"])
    };
    liar.assert_rejected(Body::Subscribe(many), Reject::TooManyOrigins);
}

#[test]
fn digests_have_their_length() {
    let mut liar = Liar::to_hub(agent());
    assert_eq!(liar.say(Body::Subscribe(subscribe(1, &["a"]))), Ok(()));
    let digests = |length| {
        Body::Digests(Digests {
            number: 1,
            origin: 1,
            buckets: vec![0; length].into(),
            round: 0,
        })
    };
    liar.assert_rejected(digests(BUCKETS * 16 - 1), Reject::DigestsLength);
    assert_eq!(liar.say(digests(BUCKETS * 16)), Ok(()));
}

#[test]
fn parts_come_in_order_and_once() {
    let mut liar = Liar::to_agent();
    liar.assert_rejected(Body::Snapshot(snapshot(2, vec![])), Reject::SequenceOrder);
    assert_eq!(liar.say(Body::Snapshot(snapshot(1, vec![]))), Ok(()));
    liar.assert_rejected(Body::Snapshot(snapshot(1, vec![])), Reject::SequenceOrder);
    liar.assert_rejected(Body::Snapshot(snapshot(2, vec![])), Reject::SnapshotUnasked);
    let mut liar = Liar::to_agent();
    assert_eq!(liar.say(Body::Snapshot(snapshot(1, vec![]))), Ok(()));
    let one = Body::Delta(delta(2, 10, 11, vec![change(11, "a1", "x")]));
    assert_eq!(liar.say(one.clone()), Ok(()));
    liar.assert_rejected(one, Reject::SequenceOrder);
}

#[test]
fn a_delta_has_what_it_says() {
    for (changes, from, to, reject) in [
        (vec![change(10, "a1", "x")], 10, 11, Reject::RevisionOrder),
        (vec![change(12, "a1", "x")], 10, 11, Reject::RevisionOrder),
        (
            vec![change(12, "a1", "x"), change(11, "a2", "x")],
            10,
            12,
            Reject::RevisionOrder,
        ),
        (vec![], 10, 10, Reject::RevisionOrder),
        (vec![], u64::MAX, 3, Reject::RevisionOrder),
        (
            vec![change(11, "c1", "x")],
            10,
            11,
            Reject::KeyNotSubscribed,
        ),
        (vec![change(11, "", "x")], 10, 11, Reject::KeyNotSubscribed),
    ] {
        let mut liar = Liar::to_agent();
        assert_eq!(liar.say(Body::Snapshot(snapshot(1, vec![]))), Ok(()));
        liar.assert_rejected(Body::Delta(delta(2, from, to, changes)), reject);
    }
}

#[test]
fn a_delta_that_does_not_fit_leads_to_a_comparison_and_not_to_an_end() {
    let mut liar = Liar::to_agent();
    assert_eq!(liar.say(Body::Snapshot(snapshot(1, vec![]))), Ok(()));
    let late = delta(2, 20, 21, vec![change(21, "a1", "x")]);
    assert_eq!(liar.say(Body::Delta(late)), Ok(()));
    assert_eq!(liar.0.replicas[1].stats().delta_gap, 1);
    assert!(liar.0.records(1, 1).is_empty());
    assert_eq!(
        liar.say(Body::Snapshot(snapshot(3, vec![change(5, "a1", "y")]))),
        Ok(())
    );
    assert_eq!(liar.0.records(1, 1).len(), 1);
}

#[test]
fn a_snapshot_never_goes_back() {
    let mut liar = Liar::to_agent();
    assert_eq!(liar.say(Body::Snapshot(snapshot(1, vec![]))), Ok(()));
    let compare = Body::Compare(Compare {
        number: 1,
        origin: 1,
        round: 1,
    });
    let at = |incarnation, revision| {
        Body::Snapshot(Snapshot {
            incarnation,
            revision,
            ..snapshot(2, vec![])
        })
    };
    for (incarnation, revision, reject) in [
        (1, 9, Reject::VersionWentBack),
        (0, 900, Reject::VersionWentBack),
        (1002, 1, Reject::IncarnationImplausible),
    ] {
        let mut liar = Liar::to_agent();
        assert_eq!(liar.say(Body::Snapshot(snapshot(1, vec![]))), Ok(()));
        assert_eq!(liar.say(compare.clone()), Ok(()));
        liar.assert_rejected(at(incarnation, revision), reject);
    }
    assert_eq!(liar.say(compare), Ok(()));
    assert_eq!(liar.say(at(2, 1)), Ok(()));
}

#[test]
fn a_snapshot_has_what_it_says() {
    let part = |start: &'static str, end: &'static str, last, records| Snapshot {
        start: start.into(),
        end: end.into(),
        last,
        ..snapshot(1, records)
    };
    for (part, reject) in [
        (part("", "b", true, vec![]), Reject::SnapshotRange),
        (part("", "", false, vec![]), Reject::SnapshotRange),
        (part("a", "b", false, vec![]), Reject::SnapshotRange),
        (
            part("", "a5", false, vec![change(1, "a5", "x")]),
            Reject::KeyNotSubscribed,
        ),
        (
            part("", "", true, vec![change(1, "c", "x")]),
            Reject::KeyNotSubscribed,
        ),
        (
            part(
                "",
                "",
                true,
                vec![change(1, "a2", "x"), change(1, "a1", "x")],
            ),
            Reject::KeyOrder,
        ),
        (
            Snapshot {
                all: false,
                buckets: vec![0; 31].into(),
                ..snapshot(1, vec![])
            },
            Reject::BucketsLength,
        ),
        (
            Snapshot {
                all: false,
                buckets: Bytes::new(),
                ..snapshot(1, vec![change(1, "a1", "x")])
            },
            Reject::KeyNotSubscribed,
        ),
    ] {
        Liar::to_agent().assert_rejected(Body::Snapshot(part), reject);
    }
    let mut liar = Liar::to_agent();
    assert_eq!(
        liar.say(Body::Snapshot(part("", "b", false, vec![]))),
        Ok(())
    );
    let hole = Snapshot {
        start: "b1".into(),
        ..snapshot(2, vec![])
    };
    liar.assert_rejected(Body::Snapshot(hole), Reject::SnapshotRange);
}

#[test]
fn nobody_tells_us_our_own_origin_or_one_that_we_did_not_ask_for() {
    let mut world = World::new(1);
    world.replicas[HUB].subscribe(SESSION, Wanted::One(cluster(2)), all(), world.now);
    let mut liar = Liar(world, HUB).greeted();
    liar.assert_rejected(Body::Snapshot(snapshot(1, vec![])), Reject::OriginIsOwn);
    let of = |origin| Snapshot {
        origin,
        ..snapshot(1, vec![])
    };
    liar.assert_rejected(Body::Snapshot(of(3)), Reject::OriginNotSubscribed);
    liar.assert_rejected(Body::Snapshot(of(0)), Reject::OriginMalformed);
    let early = Snapshot { number: 2, ..of(2) };
    liar.assert_rejected(Body::Snapshot(early), Reject::SubscriptionUnknown);
    assert_eq!(liar.say(Body::Snapshot(of(2))), Ok(()));
}

#[test]
fn more_parts_than_agreed_or_more_origins_are_refused() {
    let mut liar = Liar::to_agent();
    assert_eq!(liar.say(Body::Snapshot(snapshot(1, vec![]))), Ok(()));
    // The agent cannot write, so it acknowledges nothing.
    liar.0.replicas[1].set_writable(SESSION, Stream::Changes, false);
    for n in 2..=1 + WINDOW {
        let one = delta(n, 8 + n, 9 + n, vec![change(9 + n, "a1", "x")]);
        assert_eq!(liar.say(Body::Delta(one)), Ok(()), "{n}");
    }
    liar.assert_rejected(
        Body::Delta(delta(2 + WINDOW, 10 + WINDOW, 11 + WINDOW, vec![])),
        Reject::WindowExceeded,
    );
    let mut liar = Liar::to_agent();
    for origin in 1..=1025 {
        let part = Body::Snapshot(Snapshot {
            origin,
            ..snapshot(1, vec![])
        });
        match origin {
            1025 => liar.assert_rejected(part, Reject::TooManyOrigins),
            _ => assert_eq!(liar.say(part), Ok(())),
        }
    }
    // Another session does not make room for more.
    let now = liar.0.now;
    liar.0.replicas[1].close(SESSION);
    liar.0.replicas[1].subscribe(SESSION, Wanted::All, all(), now);
    let mut liar = liar.greeted();
    let part = Body::Snapshot(Snapshot {
        origin: 1026,
        ..snapshot(1, vec![])
    });
    liar.assert_rejected(part, Reject::TooManyOrigins);
}

#[test]
fn an_announcement_is_of_lanes_and_not_of_too_many() {
    let mut liar = Liar::to_hub(agent());
    let malformed = Announce {
        lanes: vec![Default::default()],
    };
    liar.assert_rejected(Body::Announce(malformed), Reject::AnnounceMalformed);
    let many = Announce {
        lanes: vec![Default::default(); 65],
    };
    liar.assert_rejected(Body::Announce(many), Reject::AnnounceMalformed);
}

#[test]
fn a_malformed_record_is_refused_alone() {
    let mut liar = Liar::to_agent();
    let long = Change {
        value: Some(vec![0; MAX_VALUE + 1].into()),
        ..change(1, "a1", "")
    };
    let key = Change {
        key: [b"a", &[b'x'; 600][..]].concat().into(),
        ..change(1, "", "x")
    };
    let part = snapshot(1, vec![long, change(2, "a2", "y"), key]);
    assert_eq!(liar.say(Body::Snapshot(part)), Ok(()));
    assert_eq!(
        liar.0.records(1, 1),
        BTreeMap::from([(super::key("a2"), "y".into())])
    );
    let refusals = &liar.0.replicas[1].stats().refusals;
    assert_eq!(
        (refusals["value_too_long"], refusals["key_malformed"]),
        (1, 1)
    );
}

mod noise;
