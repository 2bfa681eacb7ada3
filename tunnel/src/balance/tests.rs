use super::*;

const SAMPLE: Duration = Duration::from_millis(100);

/// A node's lanes, and the time that passes there.
struct Story {
    balance: Balance,
    lanes: u8,
    now: Duration,
    /// Each change: when, and to how many.
    changes: Vec<(Duration, u8)>,
}

impl Story {
    fn new(least: u8, lanes: u8, processors: usize) -> Self {
        Self {
            balance: Balance::new(least, lanes, NonZero::new(processors).unwrap()),
            lanes,
            now: Duration::ZERO,
            changes: Vec::new(),
        }
    }

    /// One sample in which the lanes were busy for these parts of a hundred.
    fn sample(&mut self, percent: &[u32]) {
        let busy: Vec<_> = percent.iter().map(|part| SAMPLE * *part / 100).collect();
        self.now += SAMPLE;
        if let Some(open) = self.balance.handle_sample(&busy, SAMPLE) {
            self.changes.push((self.now, open));
        }
    }

    /// Many flows, which spread evenly: `percent` of one lane in all.
    fn spread(&mut self, percent: u32, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let open = self.balance.open();
            let each = (percent / u32::from(open)).min(100);
            let lanes: Vec<_> = (0..self.lanes)
                .map(|lane| if lane < open { each } else { 0 })
                .collect();
            self.sample(&lanes);
        }
    }

    fn opened(&self) -> Vec<u8> {
        self.changes.iter().map(|(_, open)| *open).collect()
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn load_opens_one_lane_after_the_other_within_a_second() {
    let mut story = Story::new(1, 4, 8);
    story.spread(1_000, seconds(1));
    assert_eq!(story.opened(), [2, 3, 4]);
    story.spread(1_000, seconds(60));
    assert_eq!(story.opened(), [2, 3, 4], "there are no more");
}

#[test]
fn lanes_open_as_far_as_the_load_needs_them() {
    let mut story = Story::new(1, 16, 16);
    story.spread(170, seconds(60));
    assert_eq!(story.opened(), [2, 3]);
}

#[test]
fn more_lanes_than_processors_stay_closed_unless_they_are_always_open() {
    let mut story = Story::new(1, 16, 2);
    story.spread(1_000, seconds(10));
    assert_eq!(story.opened(), [2]);
    let mut story = Story::new(4, 16, 2);
    assert_eq!((story.balance.open(), story.balance.most()), (4, 4));
    story.spread(1_000, seconds(10));
    story.spread(0, seconds(60));
    assert!(story.changes.is_empty());
}

#[test]
fn more_than_there_are_cannot_be_open() {
    let balance = Balance::new(9, 4, NonZero::new(16).unwrap());
    assert_eq!((balance.open(), balance.most()), (4, 4));
}

#[test]
fn a_burst_opens_nothing() {
    let mut story = Story::new(1, 4, 4);
    for _ in 0..100 {
        story.sample(&[100]);
        story.sample(&[70]);
    }
    assert!(story.changes.is_empty());
}

#[test]
fn a_flow_alone_opens_one_lane_for_others_and_no_more() {
    let mut story = Story::new(1, 8, 8);
    for _ in 0..3_000 {
        story.sample(&[100, 0, 0, 0, 0, 0, 0, 0]);
    }
    assert_eq!(story.opened(), [2]);
}

#[test]
fn lanes_close_one_by_one_when_the_load_is_gone() {
    let mut story = Story::new(2, 4, 4);
    story.spread(1_000, seconds(1));
    assert_eq!(story.opened(), [3, 4]);
    story.changes.clear();
    story.spread(0, seconds(120));
    let wanted = [(seconds(11), 3), (seconds(21), 2)];
    assert_eq!(story.changes, wanted);
}

#[test]
fn load_that_pauses_finds_its_lanes_open() {
    let mut story = Story::new(1, 4, 4);
    for _ in 0..20 {
        story.spread(1_000, seconds(5));
        story.spread(0, seconds(9));
    }
    assert_eq!(story.opened(), [2, 3, 4]);
}

#[test]
fn flows_that_stayed_in_a_closed_lane_keep_the_others_open() {
    let mut story = Story::new(1, 4, 4);
    story.spread(180, seconds(1));
    assert_eq!(story.opened(), [2, 3]);
    for _ in 0..200 {
        // What would be in one lane too many is in the fourth.
        story.sample(&[10, 10, 0, 90]);
    }
    assert_eq!(story.opened(), [2, 3]);
    for _ in 0..101 {
        story.sample(&[10, 10, 0, 70]);
    }
    assert_eq!(story.opened(), [2, 3, 2]);
}

#[test]
fn no_steady_load_has_lanes_open_and_close_by_turns() {
    for percent in (0..=1_200).step_by(5) {
        for start in [0, 1_200] {
            let mut story = Story::new(1, 12, 12);
            story.spread(start, seconds(5));
            story.changes.clear();
            story.spread(percent, seconds(300));
            let opened = story.opened();
            let up = opened.is_sorted();
            let down = opened.iter().rev().is_sorted();
            assert!(up || down, "{percent} % after {start} %: {opened:?}");
        }
    }
}

#[test]
fn a_thread_that_waits_for_a_processor_is_busy_too() {
    let usage = |ran, waited| Usage {
        ran: Duration::from_millis(ran),
        waited: Duration::from_millis(waited),
    };
    assert_eq!(usage(40, 50).busy(), Duration::from_millis(90));
    // Little work beside somebody who takes the whole processor.
    assert_eq!(usage(2, 95).busy(), Duration::from_millis(8));
    assert_eq!(usage(50, 30).since(usage(10, 20)), usage(40, 10));
    // The kernel's two numbers are not of one moment.
    assert_eq!(usage(10, 20).since(usage(11, 20)), usage(0, 0));
}

#[test]
fn a_sample_that_came_late_counts_as_long_as_it_was() {
    let mut balance = Balance::new(1, 4, NonZero::new(4).unwrap());
    assert_eq!(balance.handle_sample(&[seconds(2)], seconds(1)), Some(2));
    let idle = [Duration::ZERO; 4];
    assert_eq!(balance.handle_sample(&idle, seconds(30)), Some(1));
    assert_eq!(balance.handle_sample(&idle, Duration::ZERO), None);
    assert_eq!(balance.handle_sample(&[], seconds(1)), None);
}
