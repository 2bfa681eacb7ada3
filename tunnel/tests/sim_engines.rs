//! Our engine against itself and boringtun's on simulated time: WireGuard's timers (whitepaper, section 6).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod pair;

use hawser_tunnel::reject::Reject;
use pair::{AnyEngine, DATA, INITIATION, Kind, MEETINGS, Pair, RESPONSE, SECOND, packet};
use std::collections::BTreeSet;
use std::time::Duration;

/// Seconds between one and the next.
fn apart(times: &[f64]) -> Vec<f64> {
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[test]
fn hours_of_packets_lose_nothing_and_the_initiator_rekeys_every_two_minutes() {
    for kinds in MEETINGS {
        let mut pair = Pair::new(kinds, None);
        let seconds = 3 * 60 * 60;
        for second in 0..seconds {
            pair.send(0, second);
            pair.settle();
            pair.send(1, second);
            pair.pass(SECOND);
        }
        for end in &pair.ends {
            assert!(end.received.iter().copied().eq(0..seconds), "{kinds:?}");
            assert_eq!((&end.refused[..], end.expired), (&[][..], 0), "{kinds:?}");
        }
        let initiations = pair.times(0, INITIATION);
        assert_eq!(initiations.len(), pair.times(1, RESPONSE).len());
        assert_eq!(pair.times(1, INITIATION), [0.0; 0], "{kinds:?}");
        for apart in apart(&initiations) {
            assert!((119.9..121.2).contains(&apart), "{kinds:?}: {apart}");
        }
    }
}

#[test]
fn an_initiator_that_only_listens_rekeys_before_the_sender_has_to_stop() {
    for kinds in MEETINGS {
        let mut pair = Pair::new(kinds, None);
        pair.initiate(0, false);
        pair.settle();
        for second in 0..1_000 {
            pair.send(1, second);
            pair.pass(SECOND);
        }
        assert!(
            pair.ends[0].received.iter().copied().eq(0..1_000),
            "{kinds:?}"
        );
        assert_eq!(pair.times(1, INITIATION), [0.0; 0], "{kinds:?}");
        // Its own keepalives are sent on the session as well: ours renews it with one of them.
        for apart in apart(&pair.times(0, INITIATION)) {
            assert!((119.9..166.2).contains(&apart), "{kinds:?}: {apart}");
        }
    }
}

#[test]
fn whichever_message_is_lost_nothing_else_is() {
    let seconds = 300;
    for kinds in MEETINGS {
        let run = |lost: Option<usize>| {
            let mut pair = Pair::new(kinds, None);
            pair.lost.extend(lost);
            for second in 0..seconds {
                pair.send(0, second);
                pair.settle();
                pair.send(1, second);
                pair.pass(SECOND);
            }
            pair.pass(20 * SECOND);
            pair
        };
        let whole = run(None);
        let mut handshakes = 0;
        for (at, said) in whole.said.iter().enumerate() {
            // Of the packets a few will do.
            let is_handshake = said.kind != DATA || said.length == 32;
            if !is_handshake && at % 97 != 0 {
                continue;
            }
            handshakes += usize::from(is_handshake);
            let pair = run(Some(at));
            for (end, other) in [(0, 1), (1, 0)] {
                let received: BTreeSet<u64> = pair.ends[end].received.iter().copied().collect();
                let missing: Vec<_> = (0..seconds).filter(|n| !received.contains(n)).collect();
                let own = usize::from(!is_handshake && said.by == other);
                assert_eq!(
                    missing.len(),
                    own,
                    "{kinds:?}, message {at} {said:?}: {missing:?}"
                );
                assert_eq!(pair.ends[end].received.len(), received.len(), "none twice");
            }
        }
        assert!(handshakes >= 9, "{handshakes}");
    }
}

#[test]
fn who_is_not_answered_tries_every_five_seconds_for_ninety_and_again_when_there_is_something_to_send()
 {
    let mut pair = Pair::new([Kind::Own, Kind::Own], None);
    pair.cut = [true; 2];
    pair.initiate(0, false);
    pair.pass(300 * SECOND);
    let tries = pair.times(0, INITIATION);
    assert_eq!(pair.ends[0].expired, 1);
    assert!((17..=19).contains(&tries.len()), "{tries:?}");
    for apart in apart(&tries) {
        assert!((5.0..5.44).contains(&apart), "{apart}");
    }
    let all = apart(&tries);
    let is_other = |pair: &[f64]| (pair[0] - pair[1]).abs() > 0.05;
    assert!(all.windows(2).any(is_other), "no jitter: {tries:?}");
    pair.cut = [false; 2];
    pair.send(0, 7);
    pair.settle();
    assert_eq!(pair.ends[1].received, [7]);
}

#[test]
fn who_sends_and_hears_nothing_begins_anew_after_fifteen_seconds() {
    // boringtun counts from what it heard last, however long ago it sent: it would begin at once.
    for kinds in [[Kind::Own, Kind::Own], [Kind::Own, Kind::Boringtun]] {
        let mut pair = Pair::new(kinds, None);
        pair.send(0, 0);
        pair.pass(30 * SECOND);
        pair.cut[1] = true;
        let begin = (pair.now - pair.start).as_secs_f64();
        for second in 0..14 {
            pair.send(0, second);
            pair.pass(SECOND);
        }
        let since = |pair: &Pair| {
            let times = pair.times(0, INITIATION);
            times
                .into_iter()
                .filter(|at| *at > begin)
                .collect::<Vec<_>>()
        };
        assert_eq!(since(&pair), [0.0; 0], "{kinds:?}");
        pair.send(0, 14);
        pair.pass(3 * SECOND);
        assert_eq!(since(&pair).len(), 1, "{kinds:?}: {:?}", since(&pair));
    }
}

#[test]
fn who_only_gets_packets_says_every_ten_seconds_that_it_is_there_and_so_nobody_begins_anew() {
    for kinds in MEETINGS {
        let mut pair = Pair::new(kinds, None);
        pair.initiate(0, false);
        pair.pass(SECOND);
        let from = pair.said.len();
        for second in 0..100 {
            pair.send(0, second);
            pair.pass(SECOND);
        }
        let said = &pair.said[from..];
        let keepalives: Vec<_> = said.iter().filter(|m| m.by == 1).collect();
        assert!(
            (8..=10).contains(&keepalives.len()),
            "{kinds:?}: {keepalives:?}"
        );
        assert!(
            keepalives.iter().all(|m| (m.kind, m.length) == (DATA, 32)),
            "{kinds:?}"
        );
        assert!(
            said.iter().all(|m| m.kind == DATA),
            "{kinds:?}: a handshake"
        );
    }
}

#[test]
fn a_session_is_over_after_three_minutes_for_both() {
    for second in [Kind::Own, Kind::Boringtun] {
        let mut pair = Pair::new([Kind::Own, second], None);
        pair.send(0, 0);
        pair.pass(SECOND);
        let sealed: Vec<_> = (0..2_u64)
            .flat_map(|n| pair.ends[1].engine.seal(&[packet(n, 0)], pair.now))
            .collect();
        // Nobody hears anybody, so nobody can renew it.
        pair.cut = [true; 2];
        pair.pass(178 * SECOND);
        assert!(pair.ends[0].engine.has_session(pair.now));
        let opened = pair.ends[0].engine.open(&sealed[..1], pair.now);
        assert!(!opened[0].0.is_empty());
        pair.pass(SECOND);
        assert!(!pair.ends[0].engine.has_session(pair.now));
        let opened = pair.ends[0].engine.open(&sealed[1..], pair.now);
        let refused = hawser_tunnel::engine::Opened::Rejected(Reject::WgNoSession);
        assert_eq!(opened, [(vec![], refused)]);
        assert_eq!(
            pair.ends[0].engine.seal(&[packet(1, 0)], pair.now),
            [[0; 0]; 0]
        );
        assert_eq!(pair.ends[0].engine.keepalive(pair.now), None);
    }
}

#[test]
fn an_end_that_starts_again_is_back_by_the_other_ends_timer_or_its_own_word() {
    for kinds in MEETINGS {
        for speaks in [0, 1] {
            let mut pair = Pair::new(kinds, None);
            pair.send(0, 0);
            pair.pass(10 * SECOND);
            pair.ends[1].engine = AnyEngine::new(kinds[1], 2, 1, None, pair.now);
            pair.ends[1].confirmed = false;
            pair.ends[1].received.clear();
            let mut waited = Duration::ZERO;
            let mut number = 1;
            while pair.ends[1 - speaks].received.iter().all(|&n| n == 0) {
                pair.send(speaks, number);
                pair.pass(SECOND);
                number += 1;
                waited += SECOND;
                assert!(waited <= 17 * SECOND, "{kinds:?}, {speaks} speaks");
            }
            assert!(speaks == 0 || waited <= SECOND, "{kinds:?}: {waited:?}");
        }
    }
}
