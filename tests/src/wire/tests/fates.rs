use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::wire::fate::Draws;

const ALL: &str = "loss 5% duplicate 2% reorder 1% corrupt 1%";

/// The fates of frames with these lengths and gaps.
fn fates(seed: u64, lengths: impl Fn(u64) -> usize, gap: Duration, count: u64) -> Vec<LogLine> {
    let mut now = Instant::now();
    let mut link = link(seed, ALL, now);
    let push = |number| {
        now += gap;
        link.push(Way::Out, &frame(number, lengths(number)), now)
    };
    (0..count).map(push).collect()
}

#[test]
fn the_same_seed_gives_every_frame_the_same_fate_whatever_comes_before_and_when() {
    let even = fates(7, |_| 100, MS, 20_000);
    assert_eq!(even, fates(7, |_| 100, Duration::ZERO, 20_000));
    // Every other frame has another length: those that have not meet the same fate to the bit, the others to the kind.
    let odd = fates(
        7,
        |number| if number % 2 == 0 { 100 } else { 1000 },
        MS * 7,
        20_000,
    );
    for (one, other) in even.iter().zip(&odd) {
        if one.length == other.length {
            assert_eq!(one, other);
        } else {
            let but_the_bit = |fate: Fate| Fate {
                corrupted: fate.corrupted.map(|_| 0),
                ..fate
            };
            assert_eq!(but_the_bit(one.fate), but_the_bit(other.fate));
        }
    }
    let differ = |seed| {
        let others = fates(seed, |_| 100, MS, 20_000);
        even.iter()
            .zip(others)
            .filter(|(one, other)| one.fate != other.fate)
            .count()
    };
    assert!(differ(8) > 1000);
}

/// A new version of the generator must not change the fates that old seeds stand for.
#[test]
fn the_fates_of_seed_7_are_these() {
    let now = Instant::now();
    let mut link = link(7, "loss 30% duplicate 30% reorder 30% corrupt 30%", now);
    let fates: Vec<String> = (0..12)
        .map(|number| {
            link.push(Way::Out, &frame(number, 100), now)
                .fate
                .to_string()
        })
        .collect();
    assert_eq!(fates, GOLDEN);
}

const GOLDEN: [&str; 12] = [
    "passed",
    "duplicated",
    "duplicated",
    "passed",
    "corrupted@713",
    "corrupted@605+delayed-past 3",
    "lost",
    "delayed-past 2",
    "corrupted@537",
    "corrupted@80+delayed-past 3",
    "lost",
    "lost",
];

#[test]
fn draws_do_not_depend_on_the_order_in_which_they_are_asked_for() {
    let mut dice = Dice::new(7, 1, 1);
    let forward: Vec<Draws> = (0..100)
        .map(|number| dice.draws(Way::Out, number))
        .collect();
    for number in (0..100).rev() {
        let _other_way = dice.draws(Way::In, number);
        assert_eq!(
            dice.draws(Way::Out, number),
            forward[usize::try_from(number).unwrap()]
        );
    }
    // Wires, directions and seeds draw differently.
    let first =
        |seed, cluster, index, way| format!("{:?}", Dice::new(seed, cluster, index).draws(way, 0));
    let different: BTreeSet<String> = [
        first(7, 1, 1, Way::Out),
        first(7, 1, 1, Way::In),
        first(8, 1, 1, Way::Out),
        first(7, 2, 1, Way::Out),
        first(7, 1, 2, Way::Out),
    ]
    .into();
    assert_eq!(different.len(), 5);
}

/// Whether a count is what a chance makes likely, within four standard deviations.
fn likely(count: u64, of: u32, chance: f64) -> bool {
    let of = f64::from(of);
    let (mean, sigma) = (of * chance, (of * chance * (1.0 - chance)).sqrt());
    (f64::from(u32::try_from(count).unwrap()) - mean).abs() < 4.0 * sigma
}

#[test]
fn a_million_frames_show_the_chances_that_were_asked_for() {
    const FRAMES: u32 = 1_000_000;
    let impairment = impairment("loss 5% duplicate 2% reorder 1% depth 4 corrupt 0.1%");
    let mut dice = Dice::new(1, 1, 1);
    let (mut lost, mut duplicated, mut corrupted, mut both) = (0, 0, 0, 0);
    let (mut depths, mut bits) = (BTreeMap::<u32, u64>::new(), BTreeSet::new());
    for number in 0..u64::from(FRAMES) {
        let fate = Fate::decide(&impairment, &dice.draws(Way::Out, number), 100);
        let back = Fate::decide(&impairment, &dice.draws(Way::In, number), 100);
        let is_lost = |fate: &Fate| u64::from(fate.dropped == Some(Dropped::Lost));
        lost += is_lost(&fate);
        both += is_lost(&fate) * is_lost(&back);
        duplicated += u64::from(fate.duplicated);
        corrupted += u64::from(fate.corrupted.is_some());
        bits.extend(fate.corrupted);
        if let Some(frames) = fate.delayed_past {
            *depths.entry(frames).or_default() += 1;
        }
    }
    assert!(likely(lost, FRAMES, 0.05), "{lost} lost");
    // What is not lost may meet the rest. The two directions of a wire do not lose together.
    assert!(likely(both, FRAMES, 0.0025), "{both} lost both ways");
    assert!(
        likely(duplicated, FRAMES, 0.95 * 0.02),
        "{duplicated} duplicated"
    );
    assert!(
        likely(corrupted, FRAMES, 0.95 * 0.001),
        "{corrupted} corrupted"
    );
    assert_eq!(depths.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4]);
    for (depth, count) in depths {
        assert!(
            likely(count, FRAMES, 0.95 * 0.01 / 4.0),
            "{count} past {depth}"
        );
    }
    assert!(bits.len() > 500 && bits.iter().all(|bit| *bit < 800));
}

#[test]
fn a_frame_is_overtaken_by_no_more_frames_than_the_depth_says() {
    let now = Instant::now();
    let mut link = link(5, "reorder 20% depth 5 hold 10s", now);
    let mut out = Vec::new();
    let mut said = BTreeMap::new();
    for number in 0..10_000 {
        let line = link.push(Way::Out, &frame(number, 60), now);
        said.insert(number, line.fate.delayed_past.unwrap_or_default());
        out.extend(numbers(&drained(&mut link, now)));
    }
    out.extend(numbers(&drained(&mut link, now + LATER)));
    let mut most = 0;
    for (place, number) in out.iter().enumerate() {
        let before = out[..place].iter().rev().take(20);
        let overtaken = before.filter(|other| *other > number).count();
        assert!(
            overtaken <= usize::try_from(said[number]).unwrap(),
            "frame {number}"
        );
        most = most.max(overtaken);
    }
    assert_eq!(most, 5);
    out.sort_unstable();
    assert!(out.into_iter().eq(0..10_000));
}

#[test]
fn a_duplicate_comes_right_after_the_first() {
    let now = Instant::now();
    let mut link = link(5, "duplicate 10%", now);
    let (mut out, mut expected) = (Vec::new(), Vec::new());
    for number in 0..1000 {
        let line = link.push(Way::Out, &frame(number, 60), now);
        expected.extend(std::iter::repeat_n(
            number,
            if line.fate.duplicated { 2 } else { 1 },
        ));
        out.extend(numbers(&drained(&mut link, now)));
    }
    assert!(expected.len() > 1050);
    assert_eq!(out, expected);
}

#[test]
fn corruption_flips_one_bit_and_the_log_says_which() {
    let now = Instant::now();
    let mut link = link(5, "corrupt 100%", now);
    for number in 0..1000 {
        let length = 60 + usize::try_from(number).unwrap();
        let sent = frame(number, length);
        let line = link.push(Way::Out, &sent, now);
        let (_, got) = link.poll(now).unwrap();
        let flipped: Vec<usize> = (0..length * 8)
            .filter(|bit| (sent[bit / 8] ^ got[bit / 8]) >> (bit % 8) & 1 == 1)
            .collect();
        assert_eq!(flipped, [line.fate.corrupted.unwrap()]);
    }
}
