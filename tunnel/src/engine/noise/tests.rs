//! What only shows inside: numbers that no session reaches, and keys that are gone.

use super::*;
use crate::engine::session::Session;
use crate::engine::timers::REJECT_AFTER_TIME;
use crate::wireguard::{REJECT_AFTER_MESSAGES, data_header};

const SECOND: Duration = Duration::from_secs(1);

fn engine(own: u8, peer: u8) -> NoiseEngine {
    let peer = PrivateKey::from_random([peer; 32]).public();
    NoiseEngine::new(
        &PrivateKey::from_random([own; 32]),
        &peer,
        None,
        0x00ff_ff00 | u32::from(own),
    )
}

fn met(now: Instant) -> [NoiseEngine; 2] {
    let (mut one, mut two) = (engine(1, 2), engine(2, 1));
    let (mut message, mut reply) = (Vec::new(), Vec::new());
    assert!(one.initiate(false, now, &mut message));
    two.handle_handshake(&message, now, &mut reply).unwrap();
    one.handle_handshake(&reply, now, &mut message).unwrap();
    assert_eq!(open(&mut two, &[message], now), [Opened::Keepalive]);
    [one, two]
}

fn seal(engine: &mut NoiseEngine, count: usize, now: Instant) -> Vec<Vec<u8>> {
    let mut texts = Batch::default();
    for _ in 0..count {
        let mut text = [0; 32];
        text[..4].copy_from_slice(&[0x45, 0, 0, 32]);
        texts.push(&text, ());
    }
    let mut out = Datagrams::default();
    engine.seal(&texts, SocketAddr::from(([192, 0, 2, 1], 1)), now, &mut out);
    out.iter().map(|(message, _)| message.to_vec()).collect()
}

fn open(engine: &mut NoiseEngine, messages: &[Vec<u8>], now: Instant) -> Vec<Opened> {
    let mut out = Batch::default();
    engine.open(messages.iter().map(Vec::as_slice), now, &mut out);
    out.iter().map(|(_, opened)| *opened).collect()
}

fn current(engine: &mut NoiseEngine) -> &mut Session {
    engine.sessions.current_mut().unwrap()
}

#[test]
fn the_last_counters_are_never_used_nor_taken() {
    let now = crate::io::clock::now();
    let [mut one, mut two] = met(now);
    current(&mut one).skip_to(REJECT_AFTER_MESSAGES - 3);
    let sealed = seal(&mut one, 100, now);
    let counters: Vec<_> = sealed
        .iter()
        .map(|message| data_header(message).counter)
        .collect();
    assert_eq!(counters, [3, 2, 1].map(|left| REJECT_AFTER_MESSAGES - left));
    assert_eq!(open(&mut two, &sealed, now), [Opened::Packet; 3]);
    assert_eq!(one.session_age(now), None);
    assert_eq!(seal(&mut one, 1, now), [[0; 0]; 0]);
    assert!(!one.keepalive(now, &mut Vec::new()));
    // A peer that goes on is not heard.
    current(&mut one).skip_to(0);
    let mut beyond = seal(&mut one, 1, now);
    beyond[0][8..16].copy_from_slice(&REJECT_AFTER_MESSAGES.to_le_bytes());
    assert_eq!(
        open(&mut two, &beyond, now),
        [Opened::Rejected(Reject::WgReplay)]
    );
}

#[test]
fn a_session_that_was_used_much_is_renewed_by_either_end() {
    let now = crate::io::clock::now();
    for end in 0..2 {
        let mut pair = met(now);
        let mut out = Vec::new();
        current(&mut pair[end]).skip_to(1 << 60);
        seal(&mut pair[end], 1, now);
        assert_eq!(
            pair[end].handle_timeout(now + SECOND, &mut out),
            Timeout::Send
        );
        assert_eq!(out.len(), 148, "an initiation");
        assert_eq!(
            pair[end].handle_timeout(now + SECOND, &mut out),
            Timeout::Idle
        );
    }
}

#[test]
fn keys_are_gone_when_their_time_is_over() {
    let now = crate::io::clock::now();
    let [mut one, mut two] = met(now);
    let mut out = Vec::new();
    // Answers that nobody ever used, and an initiation that nobody answers.
    for _ in 0..20 {
        assert!(one.initiate(true, now, &mut out));
        let mut reply = Vec::new();
        two.handle_handshake(&out, now, &mut reply).unwrap();
    }
    assert_eq!((one.sessions.len(), two.sessions.len()), (1, 1 + 4));
    for second in 1..=REJECT_AFTER_TIME.as_secs() {
        for engine in [&mut one, &mut two] {
            engine.handle_timeout(now + u32::try_from(second).unwrap() * SECOND, &mut out);
        }
    }
    assert_eq!((one.sessions.len(), two.sessions.len()), (0, 0));
    assert!(one.initiations.iter().all(Option::is_none));
}

#[test]
fn what_the_peer_sends_on_is_kept_whatever_it_begins() {
    let now = crate::io::clock::now();
    let [mut one, mut two] = met(now);
    // Two sends on another session than one does, as after handshakes that crossed.
    let (mut message, mut reply) = (Vec::new(), Vec::new());
    let crossing = two.initiate(true, now, &mut message);
    assert!(crossing);
    one.handle_handshake(&message, now, &mut reply).unwrap();
    two.handle_handshake(&reply, now, &mut message).unwrap();
    let indices: Vec<_> = [&mut one, &mut two].map(|end| current(end).local).into();
    assert_ne!(indices[0], indices[1]);
    // And its answers are lost for a minute.
    for _ in 0..12 {
        assert!(one.initiate(true, now, &mut message));
        two.handle_handshake(&message, now, &mut reply).unwrap();
    }
    let sealed = seal(&mut one, 1, now);
    assert_eq!(open(&mut two, &sealed, now), [Opened::Packet]);
    let sealed = seal(&mut two, 1, now);
    assert_eq!(open(&mut one, &sealed, now), [Opened::Packet]);
}

#[test]
fn an_index_is_used_once_at_a_time() {
    let now = crate::io::clock::now();
    let [mut one, _] = met(now);
    let kept = current(&mut one).local;
    let mut message = Vec::new();
    for _ in 0..1_000 {
        assert!(one.initiate(true, now, &mut message));
        let index = u32::from_le_bytes(message[4..8].try_into().unwrap());
        assert_ne!(index, kept);
        assert_eq!(index >> 8, kept >> 8);
    }
}

#[test]
fn nothing_secret_is_printed() {
    assert_eq!(format!("{:?}", engine(1, 2)), "NoiseEngine { .. }");
}

#[test]
fn an_answer_may_come_after_the_next_initiation_and_not_after_the_one_behind() {
    let now = crate::io::clock::now();
    for (after, taken) in [(0, true), (1, true), (2, false)] {
        let (mut one, mut two) = (engine(1, 2), engine(2, 1));
        let (mut message, mut reply) = (Vec::new(), Vec::new());
        assert!(one.initiate(false, now, &mut message));
        two.handle_handshake(&message, now, &mut reply).unwrap();
        for _ in 0..after {
            assert!(one.initiate(true, now, &mut message));
        }
        let done = one.handle_handshake(&reply, now, &mut message);
        assert_eq!(done.is_ok(), taken, "{after} after it");
        assert_eq!(one.session_age(now).is_some(), taken);
    }
}

#[test]
fn an_older_session_that_is_proven_late_is_not_sent_on() {
    let now = crate::io::clock::now();
    let (mut one, mut two) = (engine(1, 2), engine(2, 1));
    let (mut message, mut reply) = (Vec::new(), Vec::new());
    let proofs = [0, 1].map(|_| {
        one.initiate(true, now, &mut message);
        two.handle_handshake(&message, now, &mut reply).unwrap();
        one.handle_handshake(&reply, now, &mut message).unwrap();
        message.clone()
    });
    let newest = two.memory.index;
    for proof in proofs.into_iter().rev() {
        assert_eq!(open(&mut two, &[proof], now), [Opened::Keepalive]);
        assert_eq!(current(&mut two).local, newest);
    }
}

#[test]
fn data_at_the_end_of_a_session_renews_it_at_once_where_it_was_begun() {
    let now = crate::io::clock::now();
    for (seconds, renews) in [(164, false), (165, true), (179, true)] {
        let [mut one, mut two] = met(now);
        let late = now + seconds * SECOND;
        let mut out = Vec::new();
        let sealed = seal(&mut two, 1, late);
        assert_eq!(open(&mut one, &sealed, late), [Opened::Packet]);
        let due = one.handle_timeout(late, &mut out);
        assert_eq!(due == Timeout::Send, renews, "after {seconds} s");
        // Who answered the handshake leaves that to the other.
        let sealed = seal(&mut one, 1, late);
        assert_eq!(open(&mut two, &sealed, late), [Opened::Packet]);
        assert_eq!(two.handle_timeout(late, &mut out), Timeout::Idle);
    }
}

#[test]
fn a_session_that_is_over_opens_nothing_also_between_ticks() {
    let now = crate::io::clock::now();
    let [mut one, mut two] = met(now);
    let sealed = seal(&mut two, 2, now);
    let last = now + REJECT_AFTER_TIME - SECOND / 1000;
    assert_eq!(open(&mut one, &sealed[..1], last), [Opened::Packet]);
    let over = now + REJECT_AFTER_TIME;
    let refused = [Opened::Rejected(Reject::WgNoSession)];
    assert_eq!(open(&mut one, &sealed[1..], over), refused);
    assert_eq!(one.session_age(over), None);
    assert_eq!(seal(&mut one, 1, over), [[0; 0]; 0]);
}
