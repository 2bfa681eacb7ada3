use super::*;
use proptest::prelude::*;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn dial(targets: &[&str]) -> Dial {
    Dial::new(targets.iter().map(|text| target(text)).collect(), 7)
}

/// Everything that is to be done now.
fn actions(dial: &mut Dial, now: Instant) -> Vec<Action> {
    std::iter::from_fn(|| dial.poll_action(now)).collect()
}

#[test]
fn all_addresses_are_tried_one_shortly_after_the_other() {
    let start = Instant::now();
    let mut dial = dial(&["192.0.2.1:1", "[2001:db8::1]:2", "192.0.2.3:3"]);
    assert_eq!(actions(&mut dial, start), []);
    assert_eq!(dial.poll_timeout(), None);
    dial.handle_start(start);
    let mut now = start;
    for address in ["192.0.2.1:1", "[2001:db8::1]:2", "192.0.2.3:3"] {
        assert_eq!(dial.poll_timeout(), Some(now));
        assert_eq!(actions(&mut dial, now), [Action::Connect(at(address))]);
        now += STAGGER;
    }
    assert_eq!(actions(&mut dial, now + ms(100)), []);
    assert_eq!(dial.poll_timeout(), None, "all wait for an answer");
    dial.handle_connected(at("192.0.2.3:3"), now);
    assert_eq!(dial.poll_timeout(), None);
}

#[test]
fn one_that_fails_at_once_makes_the_next_wait_no_longer() {
    let now = Instant::now();
    let mut dial = dial(&["192.0.2.1:1", "192.0.2.2:1"]);
    dial.handle_start(now);
    assert_eq!(
        dial.poll_action(now),
        Some(Action::Connect(at("192.0.2.1:1")))
    );
    assert_eq!(dial.poll_action(now), None);
    dial.handle_failed(at("192.0.2.1:1"), now);
    assert_eq!(
        dial.poll_action(now),
        Some(Action::Connect(at("192.0.2.2:1")))
    );
}

#[test]
fn when_all_fail_all_are_tried_again_after_a_while() {
    let mut now = Instant::now();
    let mut dial = dial(&["192.0.2.1:1", "192.0.2.2:1"]);
    dial.handle_start(now);
    for round in 0..20 {
        let mut tried = BTreeSet::new();
        while tried.len() < 2 {
            for action in actions(&mut dial, now) {
                let Action::Connect(address) = action else {
                    panic!("{action:?}");
                };
                tried.insert(address);
                dial.handle_failed(address, now);
            }
            now = now.max(dial.poll_timeout().unwrap());
        }
        let wait = dial.poll_timeout().unwrap().saturating_duration_since(now);
        assert!(wait <= LONGEST, "round {round}: {wait:?}");
    }
}

#[test]
fn after_a_loss_another_address_is_tried_at_once_and_the_lost_one_last() {
    let now = Instant::now();
    let mut dial = dial(&["192.0.2.1:1", "192.0.2.2:1"]);
    dial.handle_start(now);
    dial.poll_action(now).unwrap();
    dial.handle_connected(at("192.0.2.1:1"), now);
    let lost = now + GOOD;
    dial.handle_start(lost);
    assert_eq!(
        actions(&mut dial, lost),
        [Action::Connect(at("192.0.2.2:1"))]
    );
    let next = lost + STAGGER;
    assert_eq!(
        actions(&mut dial, next),
        [Action::Connect(at("192.0.2.1:1"))]
    );
}

#[test]
fn a_lone_address_is_tried_again_at_once_after_a_loss() {
    let now = Instant::now();
    let mut dial = dial(&["192.0.2.1:1"]);
    dial.handle_start(now);
    dial.poll_action(now).unwrap();
    dial.handle_connected(at("192.0.2.1:1"), now);
    let lost = now + GOOD;
    dial.handle_start(lost);
    assert_eq!(
        actions(&mut dial, lost),
        [Action::Connect(at("192.0.2.1:1"))]
    );
}

#[test]
fn one_that_answers_and_hangs_up_is_not_dialled_in_a_loop() {
    let start = Instant::now();
    let mut now = start;
    let mut dial = dial(&["192.0.2.1:1"]);
    let mut attempts = 0u32;
    dial.handle_start(now);
    while now < start + Duration::from_secs(60) {
        for _ in actions(&mut dial, now) {
            attempts += 1;
            dial.handle_connected(at("192.0.2.1:1"), now);
            dial.handle_start(now);
        }
        now = dial.poll_timeout().unwrap();
    }
    // About four a second, since a wait is half of LONGEST on average.
    assert!((120..480).contains(&attempts), "{attempts}");
}

#[test]
fn a_name_is_asked_for_once_and_again_when_its_time_is_over() {
    let mut now = Instant::now();
    let mut dial = dial(&["hub.example:9", "192.0.2.1:1"]);
    dial.handle_start(now);
    let first = actions(&mut dial, now);
    let ask = Action::Resolve("hub.example".to_owned());
    assert_eq!(first, [ask.clone(), Action::Connect(at("192.0.2.1:1"))]);
    let addresses = vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
    let valid = now + Duration::from_secs(5);
    dial.handle_resolved("hub.example", addresses, valid, now);
    now += STAGGER;
    assert_eq!(
        actions(&mut dial, now),
        [Action::Connect(at("192.0.2.7:9"))]
    );
    now += STAGGER;
    assert_eq!(
        actions(&mut dial, now),
        [Action::Connect(at("[2001:db8::7]:9"))]
    );
    dial.handle_connected(at("192.0.2.7:9"), now);
    assert_eq!(actions(&mut dial, now + Duration::from_secs(9)), []);

    // Lost before the time is over: nobody is asked. Lost later: the old addresses are tried and the name is asked for.
    let early = valid - ms(1);
    dial.handle_start(early);
    assert_eq!(
        actions(&mut dial, early),
        [Action::Connect(at("192.0.2.1:1"))]
    );
    dial.handle_connected(at("192.0.2.1:1"), early);
    let late = early + GOOD;
    dial.handle_start(late);
    assert_eq!(
        actions(&mut dial, late),
        [ask, Action::Connect(at("192.0.2.7:9"))]
    );
    dial.handle_resolved(
        "hub.example",
        vec!["192.0.2.8".parse().unwrap()],
        late + ms(1),
        late,
    );
    let next = late + STAGGER;
    assert_eq!(
        actions(&mut dial, next),
        [Action::Connect(at("192.0.2.8:9"))]
    );
}

#[test]
fn a_name_that_cannot_be_resolved_keeps_its_old_addresses_and_is_asked_for_again() {
    let now = Instant::now();
    let mut dial = dial(&["hub.example:9"]);
    dial.handle_start(now);
    assert_eq!(actions(&mut dial, now).len(), 1);
    dial.handle_unresolved("hub.example", now);
    let again = dial.poll_timeout().unwrap();
    assert!(again > now && again <= now + LONGEST);
    let mut later = again;
    let ask = Action::Resolve("hub.example".to_owned());
    while actions(&mut dial, later) != [ask.clone()] {
        later = dial.poll_timeout().unwrap();
        assert!(later <= now + LONGEST);
    }
    dial.handle_resolved(
        "hub.example",
        vec!["192.0.2.7".parse().unwrap()],
        later,
        later,
    );
    let mut asked = 0;
    let mut tried = 0;
    for _ in 0..200 {
        for action in actions(&mut dial, later) {
            match action {
                Action::Resolve(name) => {
                    asked += 1;
                    dial.handle_unresolved(&name, later);
                }
                Action::Connect(address) => {
                    tried += 1;
                    dial.handle_failed(address, later);
                }
            }
        }
        later = later.max(dial.poll_timeout().unwrap());
    }
    assert!(asked > 20 && tried > 20, "{asked} asked, {tried} tried");
}

#[test]
fn a_name_with_many_addresses_does_not_keep_the_others_waiting() {
    let mut now = Instant::now();
    let mut dial = dial(&["many.example:9", "192.0.2.1:1"]);
    dial.handle_start(now);
    assert_eq!(
        dial.poll_action(now),
        Some(Action::Resolve("many.example".to_owned()))
    );
    let many = (0..200).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    dial.handle_resolved("many.example", many, now + ms(5000), now);
    let mut tried = Vec::new();
    for _ in 0..300 {
        tried.extend(actions(&mut dial, now));
        now += STAGGER;
    }
    assert_eq!(tried[1], Action::Connect(at("192.0.2.1:1")));
    let connects = tried.iter().filter(|a| matches!(a, Action::Connect(_)));
    assert_eq!(connects.count(), MAX_ADDRESSES);
}

#[test]
fn targets_are_names_or_addresses_with_a_port() {
    for (text, shown) in [
        ("hub.example.org:7443", "hub.example.org:7443"),
        ("Hub.Example.org.:1", "hub.example.org:1"),
        ("hub:65535", "hub:65535"),
        ("192.0.2.1:7443", "192.0.2.1:7443"),
        ("[2001:db8::1]:7443", "[2001:db8::1]:7443"),
    ] {
        assert_eq!(target(text).to_string(), shown);
    }
    for (text, error) in [
        ("", TargetError::Form),
        ("hub", TargetError::Form),
        ("192.0.2.1", TargetError::Form),
        ("192.0.2:7", TargetError::Form),
        ("192.0.2.256:7", TargetError::Form),
        ("2001:db8::1:7443", TargetError::Form),
        ("a_b:7", TargetError::Form),
        ("hub:0", TargetError::Port),
        ("hub:65536", TargetError::Port),
        ("hub:-1", TargetError::Port),
        ("192.0.2.1:0", TargetError::Port),
        ("0.0.0.0:7", TargetError::Unspecified),
        ("[::]:7", TargetError::Unspecified),
        ("224.0.0.1:7", TargetError::Unspecified),
    ] {
        assert_eq!(text.parse::<Target>(), Err(error), "{text}");
    }
}

proptest! {
    #[test]
    fn waits_grow_to_a_second_and_no_further(seed: u64, failures in 0usize..100) {
        let mut backoff = Backoff::new(seed);
        let mut before = Duration::ZERO;
        for _ in 0..failures {
            let bound = backoff.bound();
            prop_assert!(bound >= before && bound <= LONGEST);
            prop_assert!(backoff.draw_next() <= bound);
            let rest = backoff.of_name();
            prop_assert!(rest >= LONGEST / 2 && rest <= LONGEST);
            before = bound;
        }
        if failures > 5 {
            prop_assert_eq!(backoff.bound(), LONGEST);
        }
        backoff.reset();
        prop_assert!(backoff.draw_next() <= ms(50));
    }

    /// Whatever happens: there is always something to wait for, no address is tried twice at a time, and a hub that is
    /// there all along is tried at least once in any two seconds.
    #[test]
    fn whatever_happens_every_address_is_tried_soon_and_none_too_often(
        seed: u64,
        answers in prop::collection::vec(0u8..4, 1..200),
    ) {
        let start = Instant::now();
        let mut now = start;
        let targets = vec![target("a.example:1"), target("192.0.2.1:1"), target("192.0.2.2:1")];
        let mut dial = Dial::new(targets, seed);
        let mut pending: BTreeSet<SocketAddr> = BTreeSet::new();
        let mut last_seen = now;
        dial.handle_start(now);
        for answer in answers {
            let mut burst = 0;
            while let Some(action) = dial.poll_action(now) {
                burst += 1;
                prop_assert!(burst < 10, "too many at a time");
                match action {
                    Action::Resolve(name) if answer == 0 => dial.handle_unresolved(&name, now),
                    Action::Resolve(name) => {
                        let addresses = vec!["192.0.2.9".parse().unwrap()];
                        dial.handle_resolved(&name, addresses, now + ms(10), now);
                    }
                    Action::Connect(address) => {
                        prop_assert!(pending.insert(address), "tried twice at a time");
                        if address == at("192.0.2.2:1") {
                            prop_assert!(now - last_seen <= ms(2000), "{:?}", now - last_seen);
                            last_seen = now;
                        }
                        if answer < 3 {
                            pending.remove(&address);
                            dial.handle_failed(address, now);
                        } else {
                            pending.clear();
                            dial.handle_connected(address, now);
                            now += ms(u64::from(answer) * 400);
                            last_seen = now;
                            dial.handle_start(now);
                        }
                    }
                }
            }
            let next = dial.poll_timeout();
            prop_assert!(next.is_some(), "nothing to wait for");
            now = now.max(next.unwrap());
        }
    }
}
