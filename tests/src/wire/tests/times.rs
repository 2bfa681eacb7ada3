use super::*;

/// Polls at every deadline and notes when which frame came.
fn arrivals(link: &mut Link, start: Instant) -> Vec<(Duration, u64)> {
    let mut arrivals = Vec::new();
    while let Some(at) = link.deadline() {
        assert_eq!(link.poll(at - Duration::from_nanos(1)), None, "too early");
        while let Some((_, frame)) = link.poll(at) {
            arrivals.push((at - start, number(&frame)));
        }
    }
    arrivals
}

#[test]
fn a_delay_holds_each_frame_for_just_so_long() {
    let start = Instant::now();
    let mut link = link(1, "delay 20ms", start);
    for number in 0..10 {
        let at = start + MS * u32::try_from(number).unwrap();
        link.push(Way::Out, &frame(number, 60), at);
    }
    let expected: Vec<_> = (0..10)
        .map(|number| (MS * (20 + number), u64::from(number)))
        .collect();
    assert_eq!(arrivals(&mut link, start), expected);
}

#[test]
fn jitter_keeps_its_range_and_lets_no_frame_overtake() {
    let start = Instant::now();
    let mut link = link(1, "delay 20ms jitter 5ms", start);
    let mut seen = Vec::new();
    for number in 0..1000_u32 {
        link.push(
            Way::Out,
            &frame(number.into(), 60),
            start + MS * 20 * number,
        );
    }
    for (place, (at, number)) in arrivals(&mut link, start).into_iter().enumerate() {
        assert_eq!(usize::try_from(number).unwrap(), place);
        seen.push(at - MS * 20 * u32::try_from(place).unwrap());
    }
    let (least, most) = (seen.iter().min().unwrap(), seen.iter().max().unwrap());
    assert!((MS * 15..MS * 16).contains(least), "{least:?}");
    assert!((MS * 24..=MS * 25).contains(most), "{most:?}");

    // Closer together than the jitter: they wait for each other, and no longer than the upper end.
    for number in 0..1000_u32 {
        link.push(
            Way::Out,
            &frame(number.into(), 60),
            start + LATER + MS * number,
        );
    }
    for (place, (at, number)) in arrivals(&mut link, start + LATER).into_iter().enumerate() {
        assert_eq!(usize::try_from(number).unwrap(), place);
        assert!(at <= MS * (25 + u32::try_from(place).unwrap()));
    }
}

#[test]
fn jitter_beyond_the_delay_stops_at_no_delay() {
    let start = Instant::now();
    let mut link = link(1, "delay 1ms jitter 5ms", start);
    for number in 0..100_u32 {
        link.push(
            Way::Out,
            &frame(number.into(), 60),
            start + MS * 20 * number,
        );
    }
    let late: Vec<Duration> = arrivals(&mut link, start)
        .into_iter()
        .map(|(at, number)| at - MS * 20 * u32::try_from(number).unwrap())
        .collect();
    assert!(late.contains(&Duration::ZERO) && late.iter().all(|delay| *delay <= MS * 6));
}

#[test]
fn a_shorter_delay_lets_no_frame_overtake() {
    let start = Instant::now();
    let mut link = link(1, "delay 50ms", start);
    link.push(Way::Out, &frame(0, 60), start);
    link.set(Direction::Both, Impairment::default(), start + MS);
    link.push(Way::Out, &frame(1, 60), start + MS * 2);
    link.push(Way::Out, &frame(2, 60), start + MS * 60);
    assert_eq!(
        arrivals(&mut link, start),
        [(MS * 50, 0), (MS * 50, 1), (MS * 60, 2)]
    );
}

#[test]
fn a_held_frame_goes_when_nothing_comes_after_it() {
    let start = Instant::now();
    let mut link = link(1, "reorder 100% depth 3 hold 30ms delay 10ms", start);
    link.push(Way::Out, &frame(0, 60), start);
    assert_eq!(link.deadline(), Some(start + MS * 30));
    assert_eq!(link.poll(start + MS * 30), None);
    assert_eq!(link.deadline(), Some(start + MS * 40));
    assert_eq!(link.poll(start + MS * 40), Some((Way::Out, frame(0, 60))));
}

#[test]
fn a_rate_holds_over_a_burst_and_over_a_gap() {
    let start = Instant::now();
    // 1,000 bytes at 1 Mbit/s take 8 ms.
    let mut link = link(1, "rate 1mbit queue 1mib delay 5ms", start);
    for number in 0..100 {
        assert!(
            link.push(Way::Out, &frame(number, 1000), start)
                .fate
                .passed()
        );
    }
    link.push(Way::Out, &frame(100, 500), start + MS * 1000);
    let mut expected: Vec<_> = (0..100)
        .map(|number| (MS * (8 * (number + 1) + 5), u64::from(number)))
        .collect();
    expected.push((MS * (1000 + 4 + 5), 100));
    assert_eq!(arrivals(&mut link, start), expected);
}

#[test]
fn a_queue_drops_what_does_not_fit_and_has_room_again_as_it_drains() {
    let start = Instant::now();
    let mut link = link(1, "rate 1mbit queue 10000b", start);
    let mut push =
        |number: u64, at: Instant| link.push(Way::Out, &frame(number, 1000), at).fate.dropped;
    for number in 0..20 {
        let expected = (number >= 10).then_some(Dropped::QueueFull);
        assert_eq!(push(number, start), expected, "frame {number}");
    }
    // After 16 ms two frames are through.
    let full = Some(Dropped::QueueFull);
    assert_eq!(
        [20, 21, 22].map(|number| push(number, start + MS * 16)),
        [None, None, full]
    );
    let out: Vec<u64> = arrivals(&mut link, start)
        .into_iter()
        .map(|(_, number)| number)
        .collect();
    assert_eq!(out, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 21]);

    // A faster rate does not take what already waits for more than it is.
    let mut link = super::link(1, "rate 1kbit queue 10000b", start);
    assert!(link.push(Way::Out, &frame(0, 5000), start).fate.passed());
    link.set(
        Direction::Both,
        impairment("rate 1gbit queue 10000b"),
        start,
    );
    assert!(link.push(Way::Out, &frame(1, 5000), start).fate.passed());
    assert_eq!(link.push(Way::Out, &frame(2, 60), start).fate.dropped, full);
}

#[test]
fn memory_is_bounded_whatever_the_delay() {
    let start = Instant::now();
    let mut link = link(1, "delay 60s", start);
    let taken = (0..2000).take_while(|number| {
        link.push(Way::Out, &frame(*number, 64 << 10), start)
            .fate
            .passed()
    });
    assert_eq!(taken.count(), 1024);
    assert_eq!(drained(&mut link, start + LATER).len(), 1024);
    assert!(
        link.push(Way::Out, &frame(0, 1000), start + LATER)
            .fate
            .passed()
    );
}
