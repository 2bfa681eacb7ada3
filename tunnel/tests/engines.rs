//! Our engine against itself and boringtun's: handshakes in both roles, cookies, and what is refused.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod pair;

use hawser_tunnel::cookie::{Cookies, RANDOM_LEN};
use hawser_tunnel::engine::{Handshake, Opened};
use hawser_tunnel::reject::Reject;
use pair::boringtun::Limiter;
use pair::{AnyEngine, Kind, MEETINGS, Pair, SECOND, key, number, packet, start};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

/// Two engines of our own with a session, made by the first.
fn met(kinds: [Kind; 2], now: Instant) -> [AnyEngine; 2] {
    let [mut one, mut two] = [(0, 1, 2), (1, 2, 1)]
        .map(|(at, own, peer): (usize, u8, u8)| AnyEngine::new(kinds[at], own, peer, None, now));
    let initiation = one.initiate(false, now).unwrap();
    let (_, response) = two.handshake(&initiation, now).unwrap();
    let (_, keepalive) = one.handshake(&response, now).unwrap();
    assert_eq!(two.open(&[keepalive], now), [(vec![], Opened::Keepalive)]);
    [one, two]
}

#[test]
fn each_engine_shakes_hands_with_each_and_carries_packets_both_ways() {
    for kinds in MEETINGS {
        for secret in [None, Some(9)] {
            let mut pair = Pair::new(kinds, secret);
            for number in 0..100 {
                pair.send(0, number);
                pair.settle();
                pair.send(1, number);
                pair.settle();
            }
            for end in &pair.ends {
                assert!(end.received.iter().copied().eq(0..100), "{kinds:?}");
                assert_eq!(end.refused, [], "{kinds:?}");
            }
            let kinds_said: Vec<_> = pair
                .said
                .iter()
                .map(|said| (said.kind, said.length))
                .collect();
            assert_eq!(kinds_said[..3], [(1, 148), (2, 92), (4, 32)], "{kinds:?}");
        }
    }
}

#[test]
fn different_preshared_keys_make_no_session() {
    let now = start();
    for [first, second] in MEETINGS {
        for (ours, theirs) in [(Some(1), None), (None, Some(1)), (Some(1), Some(2))] {
            let mut one = AnyEngine::new(first, 1, 2, ours, now);
            let mut two = AnyEngine::new(second, 2, 1, theirs, now);
            let initiation = one.initiate(false, now).unwrap();
            let (_, response) = two.handshake(&initiation, now).unwrap();
            assert_eq!(one.handshake(&response, now), Err(Reject::WgHandshake));
            assert!(!one.has_session(now));
        }
    }
}

#[test]
fn a_handshake_with_any_bit_changed_makes_no_session() {
    let now = start();
    let fresh = |own, peer| AnyEngine::new(Kind::Own, own, peer, None, now);
    let (mut one, mut two) = (fresh(1, 2), fresh(2, 1));
    let initiation = one.initiate(false, now).unwrap();
    // The MACs are looked at by others, the index of the sender is the sender's to choose.
    for bit in (64..116 * 8).chain(0..32) {
        let mut changed = initiation.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let refused = two.handshake(&changed, now).unwrap_err();
        let expected = match bit {
            0..32 => Reject::WgMalformed,
            _ => Reject::WgHandshake,
        };
        // The top bit of a key on the curve means nothing by itself; it is part of what is hashed.
        assert_eq!(refused, expected, "bit {bit} of the initiation");
    }
    let (_, response) = two.handshake(&initiation, now).unwrap();
    for bit in 64..60 * 8 {
        let mut changed = response.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let refused = one.handshake(&changed, now);
        assert_eq!(
            refused,
            Err(Reject::WgHandshake),
            "bit {bit} of the response"
        );
    }
    // None of this spent the attempt.
    one.handshake(&response, now).unwrap();
    assert!(one.has_session(now));
    assert_eq!(
        one.handshake(&response, now),
        Err(Reject::WgHandshake),
        "again"
    );
}

#[test]
fn an_initiation_that_is_not_newer_than_the_last_is_a_replay() {
    let now = start();
    for [first, second] in MEETINGS {
        let mut one = AnyEngine::new(first, 1, 2, None, now);
        let mut two = AnyEngine::new(second, 2, 1, None, now);
        let mut all: Vec<_> = (0..3)
            .map(|number| one.initiate(true, now + number * SECOND).unwrap())
            .collect();
        all.dedup();
        assert!(
            two.handshake(&all[1], now).is_ok(),
            "{first:?} to {second:?}"
        );
        for old in &all[..2] {
            assert_eq!(two.handshake(old, now), Err(Reject::WgTimestamp));
        }
        if first == Kind::Own {
            assert!(two.handshake(&all[2], now).is_ok());
        }
    }
}

/// Keys with which every exchange gives the same: who takes them shares a secret with everybody.
#[test]
fn keys_of_low_order_are_refused() {
    let now = start();
    let mut two = AnyEngine::new(Kind::Own, 2, 1, None, now);
    for point in [[0; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        let mut initiation = vec![0; 148];
        initiation[0] = 1;
        initiation[8..40].copy_from_slice(&point);
        assert_eq!(two.handshake(&initiation, now), Err(Reject::WgHandshake));
        let peer = hawser_tunnel::key::PublicKey::new(point);
        let mut engine = hawser_tunnel::engine::NoiseEngine::new(&key(1), &peer, None, 1);
        let mut out = Vec::new();
        use hawser_tunnel::engine::Engine as _;
        assert!(!engine.initiate(true, now, &mut out));
        assert!(out.is_empty());
    }
}

/// Asks for cookies as a node with key 2 under load does: `None` for a message that shows one.
fn asking(kind: Kind) -> impl FnMut(&[u8], Instant) -> Option<Vec<u8>> {
    let from: SocketAddr = "192.0.2.1:51820".parse().unwrap();
    let mut ours = Cookies::new(&key(2).public());
    let theirs = Limiter::asking(*key(2).public().as_bytes());
    move |message, now| match kind {
        Kind::Own if ours.verify(message, from, now) => None,
        Kind::Own => {
            let reply = ours.reply(message, from, now, [7; RANDOM_LEN]);
            Some(reply.unwrap().to_vec())
        }
        Kind::Boringtun => theirs.cookie_for(message, from.ip(), now),
    }
}

#[test]
fn whoever_is_asked_for_a_cookie_shows_it_for_two_minutes() {
    for kind in [Kind::Own, Kind::Boringtun] {
        shows_cookies_of(asking(kind));
    }
}

#[test]
fn a_cookie_of_ours_is_shown_by_each_engine_also_in_its_answers() {
    let now = start();
    for kind in [Kind::Own, Kind::Boringtun] {
        let mut ask = asking(Kind::Own);
        let mut one = AnyEngine::new(kind, 1, 2, None, now);
        let cookie = ask(&one.initiate(false, now).unwrap(), now).unwrap();
        assert_eq!(one.handshake(&cookie, now), Ok((Handshake::Done, vec![])));
        let message = one.initiate(true, now + 10 * SECOND).unwrap();
        assert_eq!(ask(&message, now + 10 * SECOND), None, "{kind:?}");
        let mut two = AnyEngine::new(Kind::Own, 2, 1, None, now);
        let initiation = two.initiate(false, now).unwrap();
        let (_, response) = one.handshake(&initiation, now + 11 * SECOND).unwrap();
        assert_eq!(ask(&response, now + 11 * SECOND), None, "{kind:?}");
    }
}

fn shows_cookies_of(mut ask: impl FnMut(&[u8], Instant) -> Option<Vec<u8>>) {
    let now = start();
    let mut cookie_for = |message: &[u8]| ask(message, now);
    let mut one = AnyEngine::new(Kind::Own, 1, 2, None, now);
    let first = one.initiate(false, now).unwrap();
    assert_eq!(first[132..], [0; 16], "no cookie yet");
    let early = cookie_for(&first).unwrap();
    let second = one.initiate(true, now).unwrap();
    let cookie = cookie_for(&second).unwrap();
    let refused = Err(Reject::WgHandshake);
    assert_eq!(one.handshake(&early, now), refused, "for another message");
    for bit in 32..cookie.len() * 8 {
        let mut changed = cookie.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(one.handshake(&changed, now), refused, "bit {bit}");
    }
    assert_eq!(one.initiate(true, now).unwrap()[132..], [0; 16]);
    let third = one.initiate(true, now).unwrap();
    let cookie = cookie_for(&third).unwrap();
    assert_eq!(one.handshake(&cookie, now), Ok((Handshake::Done, vec![])));
    for seconds in [0, 1, 119] {
        let message = one.initiate(true, now + seconds * SECOND).unwrap();
        let shown = ask(&message, now + seconds * SECOND);
        assert_eq!(shown, None, "after {seconds} s");
    }
    let message = one.initiate(true, now + 120 * SECOND).unwrap();
    assert_eq!(message[132..], [0; 16], "after two minutes");
    // Answers are signed with it as well.
    let mut two = AnyEngine::new(Kind::Own, 2, 1, None, now);
    let (_, response) = two.handshake(&message, now).unwrap();
    assert_eq!(response[76..], [0; 16]);
}

/// Whatever is in a batch, there is one entry for each message, in order.
#[test]
fn a_batch_of_anything_is_opened_message_by_message() {
    let now = start();
    for kinds in [[Kind::Own, Kind::Own], [Kind::Boringtun, Kind::Own]] {
        let [mut one, mut two] = met(kinds, now);
        let texts: Vec<_> = (0..200)
            .map(|number| packet(number, 28 + usize::try_from(number).unwrap() * 7))
            .collect();
        let sealed = one.seal(&texts, now);
        assert_eq!(sealed.len(), 200);
        let (mut batch, mut expected) = (Vec::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for (at, message) in sealed.iter().enumerate() {
            let mut push = |message: Vec<u8>, outcome: Result<Option<usize>, Reject>| {
                batch.push(message);
                expected.push(outcome);
            };
            let mut changed = message.clone();
            match at % 7 {
                0 => changed[16 + at % 20] ^= 1,
                1 => *changed.last_mut().unwrap() ^= 0x80,
                2 => changed.truncate(message.len() - 1),
                _ => {}
            }
            if changed != *message {
                push(changed, Err(Reject::WgDecrypt));
            }
            if at % 5 == 0 {
                let mut stranger = message.clone();
                stranger[4] ^= 0x55;
                push(stranger, Err(Reject::WgNoSession));
            }
            if at % 11 == 0 {
                let mut late = message.clone();
                late[8..16].copy_from_slice(&(u64::MAX - 5).to_le_bytes());
                push(late, Err(Reject::WgReplay));
            }
            push(message.clone(), Ok(Some(at)));
            seen.insert(at);
            if at % 3 == 0 {
                push(message.clone(), Err(Reject::WgReplay));
            }
        }
        let opened = two.open(&batch, now);
        assert_eq!(opened.len(), expected.len());
        for (at, ((text, opened), expected)) in opened.iter().zip(expected).enumerate() {
            match expected {
                Err(reason) => {
                    assert_eq!((text.len(), *opened), (0, Opened::Rejected(reason)), "{at}");
                }
                Ok(Some(sent)) => {
                    assert_eq!(*opened, Opened::Packet, "{at}");
                    assert_eq!(number(text), sent as u64, "{at}");
                    assert_eq!(text.len(), 28 + sent * 7, "padding is cut off");
                    assert_eq!(*text, texts[sent][..text.len()]);
                }
                Ok(None) => unreachable!("no keepalives here"),
            }
        }
        // All at once once more.
        let again = two.open(&sealed, now);
        let replay = |(_, opened): &(_, Opened)| *opened == Opened::Rejected(Reject::WgReplay);
        assert!(again.iter().all(replay));
    }
}

#[test]
fn what_was_sealed_and_is_no_packet_is_refused_as_boringtun_refuses_it() {
    let now = start();
    let mut texts = vec![
        vec![0x45; 19],
        vec![0x60; 39],
        vec![0; 64],
        vec![0xff; 64],
        packet(1, 64),
        {
            let mut lies = packet(1, 64);
            lies[3] = 65;
            lies
        },
        {
            let mut v6 = vec![0; 48];
            v6[0] = 0x60;
            v6[5] = 8;
            v6
        },
        {
            let mut v6 = vec![0; 48];
            v6[0] = 0x60;
            v6[5] = 9;
            v6
        },
    ];
    texts.extend((1..48).map(|length| vec![0x45; length]));
    let [mut one, mut two] = met([Kind::Own, Kind::Own], now);
    let [mut three, mut four] = met([Kind::Own, Kind::Boringtun], now);
    let ours = two.open(&one.seal(&texts, now), now);
    let theirs = four.open(&three.seal(&texts, now), now);
    assert_eq!(ours, theirs);
    assert!(ours.iter().any(|(_, opened)| *opened == Opened::Packet));
    assert!(
        ours.iter()
            .any(|(_, opened)| *opened == Opened::Rejected(Reject::WgPlaintext))
    );
}

#[test]
fn initiations_that_cross_end_with_sessions_that_both_have() {
    for kinds in [[Kind::Own, Kind::Own], [Kind::Own, Kind::Boringtun]] {
        // Any of the messages after the two initiations may be lost on top.
        for lost in [None, Some(2), Some(3), Some(4), Some(5)] {
            let mut pair = Pair::new(kinds, None);
            pair.lost.extend(lost);
            pair.initiate(0, false);
            pair.initiate(1, false);
            pair.settle();
            for number in 0..50 {
                pair.send(0, number);
                pair.send(1, number);
                pair.settle();
            }
            // Where both answers are lost somebody has to ask again; one is not enough for that.
            for end in &pair.ends {
                assert!(
                    end.received.iter().copied().eq(0..50),
                    "{kinds:?}, {lost:?} lost"
                );
            }
        }
    }
}

#[test]
fn handshakes_faster_than_the_wire_lose_nothing() {
    let now = start();
    let [mut one, mut two] = met([Kind::Own, Kind::Own], now);
    // Initiations and packets are under way for longer than one waits before the next.
    let mut under_way = Vec::new();
    for round in 0..1_000_u64 {
        let initiation = one.initiate(true, now).unwrap();
        let (_, response) = two.handshake(&initiation, now).unwrap();
        let sealed = one.seal(&[packet(round, 0)], now).remove(0);
        let back = two.seal(&[packet(round, 0)], now).remove(0);
        under_way.push((response, sealed, back));
        if round % 3 == 2 {
            for (response, sealed, back) in under_way.drain(..) {
                assert_eq!(two.open(&[sealed], now)[0].1, Opened::Packet, "{round}");
                assert_eq!(one.open(&[back], now)[0].1, Opened::Packet, "{round}");
                // Only the last two initiations can be answered.
                if let Ok((_, keepalive)) = one.handshake(&response, now) {
                    assert_eq!(two.open(&[keepalive], now)[0].1, Opened::Keepalive);
                }
            }
        }
    }
}

#[test]
fn no_bytes_end_the_engine() {
    let now = start();
    let [_, mut two] = met([Kind::Own, Kind::Own], now);
    let index = [2, 0xcd, 0xab].map(|byte: u8| byte);
    let mut state = 1_u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24).to_le_bytes()[0]
    };
    for length in (0..300).flat_map(|length| [length; 20]) {
        let mut message: Vec<u8> = (0..length).map(|_| byte()).collect();
        for (kind, at) in [(1, 4), (2, 8), (3, 4), (4, 4)] {
            if let Some(head) = message.first_chunk_mut() {
                *head = [kind, 0, 0, 0];
            }
            // Half of them name a session or an initiation of ours.
            let count = byte();
            if let Some(field) = message.get_mut(at..at + 4).filter(|_| count < 128) {
                field[0] = count % 4;
                field[1..].copy_from_slice(&index);
            }
            let opened = two.open(&[message.clone()], now);
            assert!(
                matches!(opened[..], [(_, Opened::Rejected(_))]),
                "{message:?}"
            );
            assert!(two.handshake(&message, now).is_err(), "{message:?}");
        }
    }
}
