use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn changes_come_when_the_schedule_says() {
    let start = Instant::now();
    let mut link = link(1, "clean", start);
    let schedule = Schedule::new()
        .after(SECOND * 2, Direction::Out, Impairment::cut())
        .after(SECOND, Direction::Both, impairment("delay 5ms"))
        .after(SECOND * 3, Direction::Both, Impairment::default());
    link.install(&schedule, start);
    let mut in_force = |after: Duration| {
        [Way::Out, Way::In].map(|way| link.impairment(way, start + after).to_string())
    };
    assert_eq!(in_force(SECOND - MS), ["clean", "clean"]);
    assert_eq!(in_force(SECOND), ["delay 5ms", "delay 5ms"]);
    assert_eq!(in_force(SECOND * 2), ["cut", "delay 5ms"]);
    assert_eq!(in_force(SECOND * 3), ["clean", "clean"]);
}

#[test]
fn a_change_by_frame_meets_that_very_frame() {
    let now = Instant::now();
    let mut link = link(1, "clean", now);
    let schedule = Schedule::new()
        .at_frame(10, Direction::Out, Impairment::cut())
        .at_frame(13, Direction::Both, Impairment::default())
        .at_frame(11, Direction::In, Impairment::cut());
    link.install(&schedule, now);
    let mut cut = |way| -> Vec<u64> {
        let lines = (0..20).map(|number| link.push(way, &frame(number, 60), now));
        let cut = lines.filter(|line| line.fate.dropped == Some(Dropped::Cut));
        cut.map(|line| line.ordinal).collect()
    };
    assert_eq!(cut(Way::Out), [10, 11, 12]);
    assert_eq!(cut(Way::In), [11, 12]);
}

#[test]
fn a_flapping_link_is_down_every_other_second() {
    let start = Instant::now();
    let mut link = link(1, "clean", start);
    link.install(&Schedule::flapping(SECOND, SECOND, Direction::Both), start);
    for millisecond in 0..20_000_u32 {
        let now = start + MS * millisecond;
        let down = millisecond / 1000 % 2 == 1;
        let line = link.push(Way::Out, &frame(0, 60), now);
        assert_eq!(line.fate.dropped.is_some(), down, "after {millisecond} ms");
    }
    // Also when nobody asked for an hour.
    let hour = start + SECOND * 3600;
    assert!(!link.impairment(Way::Out, hour).cut);
    assert!(link.impairment(Way::Out, hour + SECOND).cut);
}

#[test]
fn what_is_set_by_hand_ends_the_schedule() {
    let start = Instant::now();
    let mut link = link(1, "clean", start);
    link.install(&Schedule::flapping(SECOND, SECOND, Direction::Both), start);
    link.set(Direction::Out, impairment("loss 5%"), start + SECOND + MS);
    let later = start + SECOND * 2 + MS;
    assert_eq!(link.impairment(Way::Out, later).to_string(), "loss 5%");
    // The direction that nobody named stays as the schedule had left it.
    assert_eq!(link.impairment(Way::In, later).to_string(), "cut");
}

#[test]
fn a_rewound_wire_begins_anew_with_the_same_fates() {
    let now = Instant::now();
    let mut link = link(7, "loss 30%", now);
    let round = |link: &mut Link| -> Vec<LogLine> {
        (0..1000)
            .map(|number| link.push(Way::Out, &frame(number, 60), now))
            .collect()
    };
    let first = round(&mut link);
    link.rewind(Dice::new(7, 1, 1), now);
    assert_eq!(round(&mut link), first);
    link.rewind(Dice::new(8, 1, 1), now);
    assert_ne!(round(&mut link), first);
}

#[test]
fn a_schedule_survives_json_and_a_period_that_is_too_short_is_refused() {
    let schedule = Schedule::flapping(SECOND, SECOND, Direction::In).at_frame(
        7,
        Direction::Out,
        impairment("mtu 1400"),
    );
    let json = serde_json::to_string(&schedule).unwrap();
    assert_eq!(serde_json::from_str::<Schedule>(&json).unwrap(), schedule);
    schedule.check().unwrap();
    assert_eq!(
        schedule.repeating(SECOND).check().unwrap_err().to_string(),
        "period: 1s: must be 1 ms at least and longer than the time of the last step, 1s"
    );
}
