use super::*;
use crate::psk::terms::tests::Session;
use crate::psk::{Keys, Side};
use hawser_tunnel::key::PublicKey;

const SECOND: Duration = Duration::from_secs(1);
const AT: &str = "192.0.2.1:6083";

#[allow(
    clippy::disallowed_methods,
    reason = "a world starts somewhere in time"
)]
fn start() -> Instant {
    Instant::now()
}

fn peer() -> NodeId {
    "2/1".parse().unwrap()
}

fn keys(byte: u8) -> Vec<PublicKey> {
    vec![PublicKey::new([byte; 32])]
}

fn partner(own: u8, other: u8) -> Partner {
    Partner {
        own: keys(own),
        peer: keys(other),
        at: Some(AT.parse().unwrap()),
        reachable: true,
        has_keys: false,
        demand: Demand::Eager,
    }
}

fn agenda(partner: Partner, now: Instant) -> Agenda {
    let mut agenda = Agenda::new(PostQuantum::Preferred, 7);
    agenda.set_peers(BTreeMap::from([(peer(), partner)]), now);
    agenda
}

/// Seconds until a session is due.
fn wait(agenda: &Agenda, now: Instant) -> Option<u64> {
    agenda.poll_timeout().map(|due| (due - now).as_secs())
}

#[test]
fn the_lower_key_begins_and_the_higher_only_when_it_waited_in_vain() {
    let now = start();
    assert_eq!(wait(&agenda(partner(1, 2), now), now), Some(0));
    let patience = PATIENCE.as_secs();
    let follower = agenda(partner(2, 1), now);
    assert!((patience..=patience + 1).contains(&wait(&follower, now).unwrap()));
    // Where the lower cannot be helped.
    let hidden = Partner {
        reachable: false,
        ..partner(2, 1)
    };
    assert_eq!(wait(&agenda(hidden, now), now), Some(0));
    let behind_nat = Partner {
        at: None,
        ..partner(1, 2)
    };
    assert_eq!(wait(&agenda(behind_nat, now), now), None);
}

#[test]
fn keys_are_renewed_between_half_an_hour_and_an_hour_by_either() {
    let now = start();
    for (own, other) in [(1, 2), (2, 1)] {
        let mut agenda = agenda(partner(own, other), now);
        let late = now + PATIENCE + SECOND;
        let begin = agenda.poll_exchange(late, 1_000).unwrap();
        assert_eq!(begin.terms.epoch, 2_000 + u64::from(own > other));
        assert!(agenda.handle_done(&begin, late));
        let next = wait(&agenda, late).unwrap();
        assert!((1_800..3_600).contains(&next), "{next}");
        assert_eq!(agenda.poll_exchange(late + 1_700 * SECOND, 2_700), None);
    }
}

#[test]
fn what_fails_is_tried_again_more_and_more_seldom_and_at_once_where_records_change() {
    let mut now = start();
    let mut agenda = agenda(partner(1, 2), now);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        now = agenda.poll_timeout().unwrap();
        let begin = agenda.poll_exchange(now, 1).unwrap();
        assert_eq!(agenda.poll_timeout(), None, "one at a time");
        agenda.handle_failed(&begin, &Failure::Session, now);
        pauses.push(agenda.poll_timeout().unwrap() - now);
    }
    assert!(pauses[0] <= SECOND && pauses.iter().all(|pause| *pause <= LONGEST_PAUSE));
    assert!(pauses[11] >= LONGEST_PAUSE / 2);
    let moved = Partner {
        at: Some("192.0.2.9:6083".parse().unwrap()),
        ..partner(1, 2)
    };
    agenda.set_peers(BTreeMap::from([(peer(), moved)]), now);
    assert!(agenda.poll_timeout().unwrap() - now <= SECOND);
}

#[test]
fn a_peer_without_the_hybrid_group_is_taken_or_refused_as_is_asked_for() {
    let now = start() + SECOND;
    for demand in [PostQuantum::Preferred, PostQuantum::Required] {
        let mut agenda = agenda(partner(1, 2), now - SECOND);
        agenda.set_demand(demand, now);
        let begin = agenda.poll_exchange(now, 1).unwrap();
        assert_eq!(begin.group, Group::Hybrid);
        agenda.handle_failed(&begin, &Failure::Group, now);
        let next = agenda.poll_exchange(now, 1);
        let terms = Terms {
            epoch: 101,
            client: keys(2),
            server: keys(1),
        };
        let judged = agenda.judge(peer(), &terms, Group::Classical);
        match demand {
            PostQuantum::Required => {
                assert_eq!(next, None);
                assert_eq!(judged, Err(Refusal::GroupClassical));
            }
            PostQuantum::Preferred => {
                assert_eq!(judged, Ok(()));
                let next = next.unwrap();
                assert_eq!(next.group, Group::Classical);
                assert!(agenda.handle_done(&next, now));
                assert_eq!(agenda.taken(peer()).unwrap().group, Group::Classical);
                // More is asked for: it is not in use any more.
                agenda.set_demand(PostQuantum::Required, now);
                assert_eq!(agenda.taken(peer()), None);
                assert!(wait(&agenda, now).unwrap() <= 1);
            }
        }
        // Once there was more, less is refused.
        agenda.set_demand(PostQuantum::Preferred, now);
        agenda.handle_answered(peer(), &terms, Group::Hybrid, now);
        let later = Terms {
            epoch: 103,
            ..terms
        };
        let judged = agenda.judge(peer(), &later, Group::Classical);
        assert_eq!(judged, Err(Refusal::GroupClassical));
    }
}

#[test]
fn who_asks_gets_other_keys_soon_whoevers_turn_it_is() {
    let now = start() + PATIENCE + 2 * SECOND;
    for (own, other) in [(1, 2), (2, 1)] {
        let mut agenda = agenda(partner(own, other), start());
        let begin = agenda.poll_exchange(now, 1_000).unwrap();
        assert!(agenda.handle_done(&begin, now));
        agenda.renew(now);
        let again = agenda.poll_exchange(now + SECOND, 1_000).unwrap();
        assert_eq!(again.terms.epoch, begin.terms.epoch + 2);
    }
}

#[test]
fn in_a_large_mesh_keys_come_at_once_for_whoever_needs_them_and_for_nobody_else() {
    let now = start();
    for (own, other) in [(1, 2), (2, 1)] {
        let of = |demand| {
            let partner = Partner {
                demand,
                ..partner(own, other)
            };
            BTreeMap::from([(peer(), partner)])
        };
        let mut agenda = Agenda::new(PostQuantum::Required, 7);
        agenda.set_peers(of(Demand::None), now);
        assert_eq!(agenda.poll_timeout(), None);
        agenda.set_peers(of(Demand::Now), now);
        let begin = agenda.poll_exchange(now, 1_000).unwrap();
        assert!(agenda.handle_done(&begin, now));
        // Nobody needs it any more: it grows old.
        let later = now + 10_000 * SECOND;
        agenda.set_peers(of(Demand::None), later);
        assert_eq!(agenda.poll_exchange(later, 6_000), None);
        agenda.set_peers(of(Demand::Now), later);
        assert!(agenda.poll_exchange(later, 6_000).is_some());
    }
}

#[test]
fn requests_are_refused_by_name() {
    let now = start();
    let mut agenda = agenda(partner(1, 2), now);
    let terms = |epoch, client, server| Terms {
        epoch,
        client: keys(client),
        server: keys(server),
    };
    let judge = |agenda: &Agenda, terms| agenda.judge(peer(), &terms, Group::Hybrid);
    for (terms, refusal) in [
        (terms(9, 2, 3), Refusal::KeysOther),
        (terms(9, 3, 1), Refusal::KeysOther),
        (terms(9, 1, 2), Refusal::KeysOther),
        (terms(8, 2, 1), Refusal::Malformed),
    ] {
        assert_eq!(judge(&agenda, terms), Err(refusal));
    }
    assert_eq!(judge(&agenda, terms(9, 2, 1)), Ok(()));
    agenda.handle_answered(peer(), &terms(9, 2, 1), Group::Hybrid, now);
    assert_eq!(judge(&agenda, terms(9, 2, 1)), Err(Refusal::EpochOld));
    let unknown = "2/9".parse().unwrap();
    let judged = agenda.judge(unknown, &terms(11, 2, 1), Group::Hybrid);
    assert_eq!(judged, Err(Refusal::PeerUnknown));
}

#[test]
fn a_clock_that_went_back_is_made_up_for() {
    let now = start() + SECOND;
    let mut agenda = agenda(partner(1, 2), now - SECOND);
    let begin = agenda.poll_exchange(now, 10).unwrap();
    let refused = Failure::Refused {
        refusal: Some(Refusal::EpochOld),
        epoch: 5_001,
    };
    agenda.handle_failed(&begin, &refused, now);
    let begin = agenda.poll_exchange(now + SECOND, 11).unwrap();
    assert_eq!(begin.terms.epoch, 5_002);
}

/// A few attempts in a row may fail.
const SOON: Duration = Duration::from_secs(240);

/// A node of the day: its agenda, which may be dead, and what its data plane has.
struct End {
    agenda: Option<Agenda>,
    in_force: Option<Keys>,
    /// When it was last given other keys.
    given: Instant,
}

/// A day of two nodes, with lost sessions, lost answers, and agents that die at any moment: how long the keys in force
/// differed at most while both agents lived, and how old they were.
fn day(seed: u64) -> (Duration, Duration) {
    let origin = start();
    let mut chance = Lot::new(seed);
    let mut often = |one_in: u64| chance.within(Duration::from_nanos(one_in - 1)).is_zero();
    let fresh = |at: usize, has_keys: bool, now: Instant| {
        let own = u8::try_from(at).unwrap() + 1;
        let partner = Partner {
            has_keys,
            ..partner(own, 3 - own)
        };
        agenda(partner, now)
    };
    let mut ends = [0, 1].map(|at| End {
        agenda: Some(fresh(at, false, origin)),
        in_force: None,
        given: origin,
    });
    let (mut differ, mut oldest) = (Duration::ZERO, Duration::ZERO);
    let (mut since, mut dead) = (origin, origin);
    let mut session = 0u8;
    for second in 0..86_400u32 {
        let now = origin + SECOND * second;
        let unix = 1_700_000_000 + u64::from(second);
        for at in 0..2 {
            if ends[at].agenda.is_none() {
                if often(60) {
                    let has_keys = ends[at].in_force.is_some();
                    ends[at].agenda = Some(fresh(at, has_keys, now));
                }
            } else if often(7_200) {
                ends[at].agenda = None;
            }
            let Some(begin) = ends[at]
                .agenda
                .as_mut()
                .and_then(|agenda| agenda.poll_exchange(now, unix))
            else {
                continue;
            };
            session = session.wrapping_add(1);
            let secret = Session(session);
            let keys = begin.terms.keys(&secret).unwrap();
            let shown = begin.terms.confirmation(&secret, Side::Client).unwrap();
            let other = 1 - at;
            let arrives = !often(5);
            let answer = ends[other]
                .agenda
                .as_mut()
                .filter(|_| arrives)
                .map(|agenda| {
                    agenda.judge(peer(), &begin.terms, begin.group)?;
                    assert!(begin.terms.confirms(&secret, Side::Client, &shown).unwrap());
                    agenda.handle_answered(peer(), &begin.terms, begin.group, now);
                    Ok(())
                });
            if answer == Some(Ok(())) {
                ends[other].in_force = Some(keys.clone());
                ends[other].given = now;
            }
            // The answer, or the agent that waits for it, may be lost.
            let answer = answer.filter(|_| !often(10));
            if often(20) {
                ends[at].agenda = None;
                continue;
            }
            let known = ends[other].agenda.as_ref().map_or(0, |it| it.epoch(peer()));
            let Some(agenda) = &mut ends[at].agenda else {
                continue;
            };
            match answer {
                Some(Ok(())) => {
                    if agenda.handle_done(&begin, now) {
                        ends[at].in_force = Some(keys);
                        ends[at].given = now;
                    }
                }
                Some(Err(refusal)) => {
                    let failure = Failure::Refused {
                        refusal: Some(refusal),
                        epoch: known,
                    };
                    agenda.handle_failed(&begin, &failure, now);
                }
                None => agenda.handle_failed(&begin, &Failure::Session, now),
            }
        }
        let alive = ends.iter().all(|end| end.agenda.is_some());
        if !alive {
            dead = now;
        }
        if !alive || ends[0].in_force == ends[1].in_force {
            since = now;
        }
        differ = differ.max(now - since);
        if now - dead >= SOON {
            oldest = ends
                .iter()
                .map(|end| now - end.given)
                .fold(oldest, Duration::max);
        }
    }
    assert!(ends.iter().all(|end| end.in_force.is_some()));
    (differ, oldest)
}

#[test]
fn through_a_day_of_losses_and_deaths_both_ends_come_to_the_same_keys_soon() {
    for seed in 0..20 {
        let (differ, oldest) = day(seed);
        assert!(differ <= SOON, "seed {seed}: {differ:?}");
        assert!(oldest <= 3_600 * SECOND, "seed {seed}: {oldest:?}");
    }
}

#[test]
fn sessions_that_cross_leave_both_ends_with_the_keys_of_the_greater_epoch() {
    let now = start() + PATIENCE + 2 * SECOND;
    for first in [0, 1] {
        let mut ends = [
            agenda(partner(1, 2), start()),
            agenda(partner(2, 1), start()),
        ];
        let begun = [0, 1].map(|at| ends[at].poll_exchange(now, 50).unwrap());
        let mut in_force = [0; 2];
        for (session, begin) in begun.iter().enumerate() {
            let server = &mut ends[1 - session];
            if server.judge(peer(), &begin.terms, begin.group).is_ok() {
                server.handle_answered(peer(), &begin.terms, begin.group, now);
                in_force[1 - session] = session;
            }
        }
        // Answers come in any order.
        for session in [first, 1 - first] {
            if ends[session].handle_done(&begun[session], now) {
                in_force[session] = session;
            }
        }
        assert_eq!(in_force, [1, 1], "the higher key's epochs are odd");
    }
}
