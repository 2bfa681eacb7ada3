#![expect(
    clippy::disallowed_methods,
    reason = "a test starts its own time somewhere"
)]

use super::*;
use crate::node::NodeId;
use std::collections::BTreeMap;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// One peer on a path without loss whose replies take `trip`, by steps of a millisecond.
struct Story {
    start: Instant,
    now: Instant,
    peer: Liveness,
    trip: Duration,
    answers: bool,
    /// Replies on their way.
    coming: Vec<(Instant, Probe)>,
    /// When requests were sent.
    asked: Vec<Instant>,
    events: Vec<(Duration, Event)>,
}

impl Story {
    fn new(seed: u64, trip: Duration) -> Self {
        let start = Instant::now();
        Self {
            start,
            now: start,
            peer: Liveness::new(start, seed),
            trip,
            answers: true,
            coming: Vec::new(),
            asked: Vec::new(),
            events: Vec::new(),
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let (now, peer) = (self.now, &mut self.peer);
            self.coming.retain(|&(at, reply)| {
                if at <= now {
                    peer.handle_reply(reply, now).unwrap();
                }
                now < at
            });
            self.peer.handle_timeout(self.now);
            if let Some(request) = self.peer.poll_transmit() {
                self.asked.push(self.now);
                if self.answers {
                    self.coming
                        .push((self.now + self.trip, request.reply().unwrap()));
                }
            }
            if let Some(event) = self.peer.poll_event() {
                self.events.push((self.now - self.start, event));
            }
            assert!(
                self.peer.poll_timeout().unwrap() > self.now,
                "a timer that was due stays due"
            );
            self.now += MS;
        }
    }

    /// Lets it die, and come back after `time`.
    fn outage(&mut self, time: Duration) {
        self.answers = false;
        self.pass(time);
        self.answers = true;
    }

    fn state(&self) -> State {
        self.peer.report(self.now).state
    }

    fn report(&self) -> Report {
        self.peer.report(self.now)
    }
}

#[test]
fn a_peer_is_unknown_until_its_first_reply() {
    let mut story = Story::new(1, 40 * MS);
    story.pass(40 * MS);
    assert_eq!(story.state(), State::Unknown);
    assert_eq!(story.report().last_reply, None);
    story.pass(MS);
    assert_eq!(story.state(), State::Alive);
    let alive = Event::Alive { silent: 40 * MS };
    assert_eq!(story.events, [(40 * MS, alive)]);
    story.pass(SECOND);
    assert_eq!(story.report().round_trip, Some(40 * MS));
    assert_eq!(story.events.len(), 1, "once");
}

#[test]
fn a_peer_that_never_answers_is_unknown_and_then_dead() {
    let mut story = Story::new(1, MS);
    story.outage(10 * SECOND);
    let dead = Event::Dead { silent: SILENCE };
    assert_eq!(story.events, [(SILENCE, dead)]);
    let report = story.report();
    assert_eq!((report.deaths, report.last_reply), (1, None));
    story.pass(100 * MS);
    assert_eq!(story.state(), State::Alive);
}

#[test]
fn requests_are_rare_while_replies_come_and_frequent_when_one_is_overdue() {
    let mut story = Story::new(7, 20 * MS);
    story.pass(60 * SECOND);
    let count = story.asked.len();
    assert!((193..=241).contains(&count), "{count} in a minute");
    story.outage(SILENCE + SECOND);
    let gaps: Vec<_> = story.asked[count..]
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .collect();
    assert!(gaps[0] <= 60 * MS, "overdue: {:?}", gaps[0]);
    assert!(
        gaps[1..]
            .iter()
            .all(|gap| (75 * MS..=91 * MS).contains(gap)),
        "{gaps:?}"
    );
}

/// What the module's first comment computes with.
#[test]
fn before_the_verdict_enough_requests_could_have_been_answered() {
    for (trip, least) in [(0, 11), (10, 11), (100, 10), (200, 9), (300, 8), (500, 12)] {
        let trip = trip * MS;
        let counts = (0..200).map(|seed| {
            let mut story = Story::new(seed, trip);
            story.pass(20 * SECOND + MS * u32::try_from(seed).unwrap());
            story.answers = false;
            story.coming.clear();
            let proof = story.now - story.report().last_reply.unwrap();
            story.pass(2 * SECOND);
            let died = story.start + story.events[1].0;
            // Those that were under way, and those that came too late to be answered in time.
            let answers = story.asked.iter().map(|&at| at + trip);
            answers.filter(|&at| proof < at && at <= died).count()
        });
        let counts: Vec<_> = counts.collect();
        let fewest = counts.iter().min().unwrap();
        let all: usize = counts.iter().sum();
        println!("{trip:?}: {fewest} at least, {all} in 200");
        assert!(*fewest >= least, "{trip:?}: {fewest}");
    }
}

#[test]
fn a_dead_peer_is_looked_for_fast_and_later_as_a_live_one() {
    let mut story = Story::new(3, MS);
    story.outage(30 * SECOND);
    let fast = story.asked.len();
    assert!((330..=402).contains(&fast), "{fast} in 30 s");
    story.outage(30 * SECOND);
    let later = story.asked.len() - fast;
    assert!((96..=121).contains(&later), "{later} in 30 s");
}

#[test]
fn a_late_reply_is_proof_and_the_same_reply_twice_is_not() {
    let start = Instant::now();
    let mut peer = Liveness::new(start, 5);
    let mut now = start;
    let mut requests = Vec::new();
    while now < start + SILENCE - MS {
        now += 10 * MS;
        peer.handle_timeout(now);
        requests.extend(peer.poll_transmit());
    }
    let first = requests[0].reply().unwrap();
    assert_eq!(peer.handle_reply(first, now), Ok(()));
    assert_eq!(peer.report(now).state, State::Alive, "1.2 s late");
    for _ in 0..200 {
        now += 10 * MS;
        assert_eq!(peer.handle_reply(first, now), Err(Reject::ProbeStale));
        peer.handle_timeout(now);
    }
    assert_eq!(peer.report(now).state, State::Dead, "by one reply alone");
}

#[test]
fn what_answers_nothing_of_ours_proves_nothing() {
    let now = Instant::now();
    let mut peer = Liveness::new(now, 5);
    peer.handle_timeout(now);
    let request = peer.poll_transmit().unwrap();
    let reply = request.reply().unwrap();
    let cookie = reply.cookie ^ 1;
    let wrong = [
        request,
        Probe { cookie, ..reply },
        Probe {
            sequence: reply.sequence + 1,
            ..reply
        },
        Probe {
            sequence: u64::MAX,
            ..reply
        },
    ];
    for probe in wrong {
        assert_eq!(
            peer.handle_reply(probe, now),
            Err(Reject::ProbeStale),
            "{probe:?}"
        );
    }
    let mut restarted = Liveness::new(now, 6);
    restarted.handle_timeout(now);
    assert_eq!(restarted.handle_reply(reply, now), Err(Reject::ProbeStale));
    assert_eq!(peer.report(now).state, State::Unknown);
    assert_eq!(peer.handle_reply(reply, now), Ok(()));
}

#[test]
fn the_window_forgets_requests_of_seconds_ago_and_no_others() {
    let mut story = Story::new(9, MS);
    story.answers = false;
    let first = story.peer.cookie;
    story.pass(8 * SECOND);
    let last = story.asked.len() as u64 - 1;
    let reply = |sequence| Probe {
        kind: Kind::Reply,
        sequence,
        cookie: first,
    };
    let mut said = |sequence| story.peer.handle_reply(reply(sequence), story.now);
    assert_eq!(said(last - 64), Err(Reject::ProbeStale));
    for sequence in last - 63..=last {
        assert_eq!(said(sequence), Ok(()), "{sequence} of {last}");
    }
}

#[test]
fn the_third_death_in_a_row_is_held_twice_as_long_each_time_and_a_quiet_minute_forgets() {
    let mut story = Story::new(11, MS);
    story.pass(SECOND);
    let mut holds = Vec::new();
    for _ in 0..10 {
        story.outage(2 * SECOND);
        let hold = story.report().hold_down;
        let healed = story.now;
        story.pass(100 * MS);
        let state = if hold.is_zero() {
            State::Alive
        } else {
            State::Damped
        };
        assert_eq!(story.state(), state);
        while story.state() != State::Alive {
            story.pass(MS);
        }
        let took = story.now - healed;
        assert!(
            (hold..=hold + 430 * MS).contains(&took),
            "{took:?} for {hold:?}"
        );
        holds.push(hold.as_secs());
        story.pass(5 * SECOND);
    }
    assert_eq!(holds, [0, 0, 1, 2, 4, 8, 16, 30, 30, 30]);
    story.pass(60 * SECOND);
    assert_eq!(story.report().hold_down, Duration::ZERO);
    story.outage(2 * SECOND);
    story.pass(100 * MS);
    assert_eq!(story.state(), State::Alive, "at once, as the first time");
    assert_eq!(story.report().deaths, 11);
}

#[test]
fn a_peer_that_dies_while_it_is_held_was_dead_all_the_time() {
    let mut story = Story::new(12, MS);
    story.pass(SECOND);
    for _ in 0..6 {
        story.outage(2 * SECOND);
        story.pass(500 * MS);
    }
    let (mut alive, mut dead) = (0, 0);
    for (_, event) in &story.events {
        match event {
            Event::Alive { .. } => alive += 1,
            Event::Dead { .. } => dead += 1,
        }
    }
    assert_eq!(
        (alive, dead),
        (3, 3),
        "the third death is the last that is told"
    );
    let report = story.report();
    assert_eq!((report.state, report.deaths), (State::Damped, 6));
    assert_eq!(report.hold_down, 8 * SECOND);
}

#[test]
fn time_in_which_we_did_not_run_does_not_pass() {
    let start = Instant::now();
    let mut awake = Awake::new(start);
    assert_eq!(awake.advance(start + 20 * MS), start + 20 * MS);
    assert_eq!(
        awake.advance(start + 70 * MS),
        start + 70 * MS,
        "the longest gap"
    );
    assert_eq!(awake.at(start + 9 * SECOND), start + 120 * MS);
    assert_eq!(awake.advance(start + 9 * SECOND), start + 120 * MS);
    assert_eq!(awake.at(start + 9 * SECOND + MS), start + 121 * MS);
    assert_eq!(
        awake.advance(start),
        start + 120 * MS,
        "a clock does not run backwards"
    );
    let due = start + 125 * MS;
    assert_eq!(awake.until(due), start + 9 * SECOND + 5 * MS);
    assert_eq!(awake.until(due + SECOND), start + 9 * SECOND + TICK);
}

fn node(number: u16) -> NodeId {
    format!("2/{number}").parse().unwrap()
}

#[test]
fn only_watched_peers_are_asked_and_each_by_its_own_pace() {
    let start = Instant::now();
    let mut watch = Watch::new(start, 1);
    assert_eq!(watch.poll_timeout(), None);
    watch.set_watched((1..=25_000).map(node), start);
    watch.set_watched((1..=200).map(node), start);
    assert_eq!(watch.len(), 200);
    let mut asked: BTreeMap<NodeId, u32> = BTreeMap::new();
    let mut now = start;
    let mut most = 0;
    while now < start + 30 * SECOND {
        watch.handle_timeout(now);
        let mut at_once = 0;
        while let Some((id, request)) = watch.poll_transmit() {
            *asked.entry(id).or_default() += 1;
            at_once += 1;
            let reply = request.reply().unwrap();
            assert_eq!(
                watch.handle_reply(node(201), reply, now),
                Err(Reject::ProbeStale)
            );
            watch.handle_reply(id, reply, now).unwrap();
        }
        if now > start + 10 * SECOND {
            most = most.max(at_once);
        }
        let next = watch.poll_timeout().unwrap();
        assert!(now < next && next <= now + TICK);
        now = next;
    }
    assert_eq!(asked.len(), 200);
    assert!(
        asked.values().all(|count| (96..=121).contains(count)),
        "{asked:?}"
    );
    assert!(most <= 60, "jitter spreads them: {most} at once");
    let alive = std::iter::from_fn(|| watch.poll_event()).count();
    assert_eq!(alive, 200);
}

#[test]
fn a_peer_that_is_still_watched_keeps_what_is_known_and_a_new_watch_starts_anew() {
    let start = Instant::now();
    let mut watch = Watch::new(start, 1);
    watch.set_watched([node(1), node(2)], start);
    watch.handle_timeout(start);
    let (first, old) = watch.poll_transmit().unwrap();
    assert_eq!(first, node(1));
    watch
        .handle_reply(first, old.reply().unwrap(), start)
        .unwrap();
    watch.set_watched([node(1), node(3)], start);
    assert_eq!(watch.report(node(1), start).unwrap().state, State::Alive);
    assert_eq!(watch.report(node(2), start), None);
    assert_eq!(
        watch.poll_transmit(),
        None,
        "the request of who went is gone"
    );
    assert_eq!(watch.report(node(3), start).unwrap().state, State::Unknown);
    watch.set_watched([], start);
    assert_eq!((watch.poll_timeout(), watch.poll_event()), (None, None));
    watch.set_watched([node(1)], start);
    watch.handle_timeout(start);
    let (_, new) = watch.poll_transmit().unwrap();
    assert_eq!(new.sequence, old.sequence);
    let stale = watch.handle_reply(node(1), old.reply().unwrap(), start);
    assert_eq!(stale, Err(Reject::ProbeStale), "of the watch before");
}
