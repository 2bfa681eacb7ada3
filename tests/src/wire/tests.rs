use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::fate::Dice;
use super::*;

mod fates;
mod schedules;
mod times;

const MS: Duration = Duration::from_millis(1);
/// Later than anything that is under way.
const LATER: Duration = Duration::from_secs(100_000);

fn impairment(text: &str) -> Impairment {
    text.parse().unwrap()
}

/// A wire with this in force both ways.
fn link(seed: u64, text: &str, now: Instant) -> Link {
    let mut link = Link::new(Dice::new(seed, 1, 1));
    link.set(Direction::Both, impairment(text), now);
    link
}

/// A frame that begins with its number.
fn frame(number: u64, length: usize) -> Vec<u8> {
    let mut frame = vec![0x5a; length];
    frame[..8].copy_from_slice(&number.to_be_bytes());
    frame
}

fn number(frame: &[u8]) -> u64 {
    u64::from_be_bytes(frame[..8].try_into().unwrap())
}

/// Everything that is due by then, in order.
fn drained(link: &mut Link, now: Instant) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Some((way, frame)) = link.poll(now) {
        assert_eq!(way, Way::Out);
        frames.push(frame);
    }
    frames
}

fn numbers(frames: &[Vec<u8>]) -> Vec<u64> {
    frames.iter().map(|frame| number(frame)).collect()
}

#[test]
fn a_clean_wire_hands_every_frame_on_at_once() {
    let now = Instant::now();
    let mut link = link(1, "clean", now);
    assert_eq!(link.deadline(), None);
    for number in 0..1000 {
        let line = link.push(Way::Out, &frame(number, 100), now);
        assert!(line.fate.passed() && line.ordinal == number);
        assert_eq!(link.deadline(), Some(now));
        let (way, out) = link.poll(now).unwrap();
        assert_eq!((way, &out), (Way::Out, &frame(number, 100)));
        assert_eq!(link.poll(now), None);
        link.recycle(out);
    }
    assert_eq!(link.deadline(), None);
}

#[test]
fn a_cut_in_one_direction_leaves_the_other_alone() {
    let now = Instant::now();
    let mut link = Link::new(Dice::new(1, 1, 1));
    link.set(Direction::Out, Impairment::cut(), now);
    let out = link.push(Way::Out, &frame(0, 60), now);
    assert_eq!(out.fate.dropped, Some(Dropped::Cut));
    assert!(link.push(Way::In, &frame(1, 60), now).fate.passed());
    assert_eq!(link.poll(now), Some((Way::In, frame(1, 60))));
    assert_eq!(link.poll(now), None);
    link.set(Direction::Both, Impairment::default(), now);
    assert!(link.push(Way::Out, &frame(0, 60), now).fate.passed());
}

#[test]
fn frames_longer_than_the_mtu_vanish() {
    let now = Instant::now();
    let mut link = link(1, "mtu 1400", now);
    for (length, fate) in [(1413, "passed"), (1414, "passed"), (1415, "oversize")] {
        let line = link.push(Way::Out, &frame(0, length), now);
        assert_eq!(line.fate.to_string(), fate, "{length}");
    }
    assert_eq!(drained(&mut link, now).len(), 2);
}

#[test]
fn a_log_line_says_what_a_frame_carries() {
    // Ethernet, IPv4 with protocol UDP, UDP, then a data message of 33 and a keepalive of 32 bytes.
    let packet = |message: &[u8], length: usize| {
        let mut frame = vec![0; 14 + 20 + 8 + length];
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        let total = u16::try_from(20 + 8 + length).unwrap();
        frame[14] = 0x45;
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        frame[23] = 17;
        frame[42..42 + message.len()].copy_from_slice(message);
        // Padding of a short frame is not part of the packet.
        frame.resize(frame.len().max(120), 0xff);
        frame
    };
    for (message, length, kind) in [
        (1, 148, Kind::Initiation),
        (2, 92, Kind::Response),
        (3, 64, Kind::Cookie),
        (4, 32, Kind::Keepalive),
        (4, 33, Kind::Data),
        (4, 31, Kind::Other),
        (5, 100, Kind::Other),
    ] {
        assert_eq!(Kind::of(&packet(&[message, 0, 0, 0], length)), kind);
    }
    assert_eq!(Kind::of(&packet(&[4, 0, 1, 0], 33)), Kind::Other);
    let mut later_fragment = packet(&[4, 0, 0, 0], 33);
    later_fragment[21] = 1;
    assert_eq!(Kind::of(&later_fragment), Kind::Other);
    let mut six = vec![0; 14 + 40 + 8 + 33];
    six[12..14].copy_from_slice(&[0x86, 0xdd]);
    (six[14], six[19], six[20], six[62]) = (0x60, 41, 17, 4);
    assert_eq!(Kind::of(&six), Kind::Data);
    for length in 0..=six.len() {
        let cut = Kind::of(&six[..length]);
        assert_eq!(cut == Kind::Data, length == six.len(), "{length}");
    }
}

#[test]
fn counts_are_the_sum_of_the_log() {
    let now = Instant::now();
    let mut link = link(3, "loss 10% duplicate 10% corrupt 10% reorder 10%", now);
    let (mut counts, mut lines) = (Counts::default(), Vec::new());
    for number in 0..2000 {
        let line = link.push(Way::Out, &frame(number, 100), now);
        counts.add(&line);
        lines.push(line);
    }
    let tally = counts.of(Direction::Out);
    let with =
        |what: fn(&Fate) -> bool| lines.iter().filter(|line| what(&line.fate)).count() as u64;
    assert_eq!(tally.frames, 2000);
    assert_eq!(tally.passed, with(Fate::passed));
    assert_eq!(tally.lost, with(|fate| fate.dropped == Some(Dropped::Lost)));
    assert_eq!(tally.corrupted, with(|fate| fate.corrupted.is_some()));
    assert_eq!(tally.duplicated, with(|fate| fate.duplicated));
    assert_eq!(tally.delayed, with(|fate| fate.delayed_past.is_some()));
    assert!(tally.lost > 0 && tally.corrupted > 0 && tally.duplicated > 0 && tally.delayed > 0);
    assert_eq!(counts.of(Direction::Both), tally);
    assert_eq!(counts.of(Direction::In), Tally::default());
    assert_eq!(counts.kind(Direction::Out, Kind::Other), tally);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fates");
    let mut log = Log::create(&path).unwrap();
    for line in &lines {
        log.write(line);
    }
    log.flush().unwrap();
    assert_eq!(Log::read(&path).unwrap(), lines);
    assert_eq!(log.unlogged(), 0);
}

proptest! {
    /// Whatever is in force: what comes out is what the log says, nothing is left behind, nothing is made up.
    #[test]
    fn what_comes_out_is_what_the_log_says(
        changes in proptest::collection::vec((impairment::tests::any_impairment(), 1_u64..50), 1..5),
        lengths in proptest::collection::vec(14_usize..3000, 1..100),
        gap in 0_u64..10_000_000,
    ) {
        let mut now = Instant::now();
        let mut link = Link::new(Dice::new(9, 1, 1));
        let (mut due, mut out, mut count) = (Vec::new(), Vec::new(), 0);
        for (impairment, frames) in &changes {
            link.set(Direction::Both, *impairment, now);
            for _ in 0..*frames {
                let length = lengths[usize::try_from(count).unwrap() % lengths.len()];
                let mut sent = vec![0; length];
                let line = link.push(Way::Out, &sent, now);
                prop_assert_eq!((line.ordinal, line.length), (count, length));
                prop_assert_eq!(line.to_string().parse::<LogLine>().unwrap(), line);
                if let Some(bit) = line.fate.corrupted {
                    sent[bit / 8] ^= 1 << (bit % 8);
                }
                if line.fate.dropped.is_none() {
                    due.push(sent.clone());
                    due.extend(line.fate.duplicated.then_some(sent));
                }
                out.extend(drained(&mut link, now));
                now += Duration::from_nanos(gap);
                count += 1;
            }
        }
        // Held frames go when their hold is over, and from then on take their delay.
        while let Some(at) = link.deadline() {
            now = now.max(at);
            out.extend(drained(&mut link, now));
        }
        due.sort();
        out.sort();
        prop_assert_eq!(out, due);
    }
}
