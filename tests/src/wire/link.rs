//! The wire without its ends: frames in, frames out, and the time as a parameter.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::fate::{self, Dice, Dropped, Fate};
use super::schedule::Course;
use super::{Direction, Impairment, Kind, LogLine, Schedule, Way};

/// Bytes that one direction holds at most, whatever delay or queue says: half a second of a gigabit.
const MEMORY: usize = 64 << 20;
/// Buffers that are kept for later frames.
const SPARE: usize = 1024;

/// The wire of one node, both directions, each with an [`Impairment`] in force.
///
/// [`Self::push`] takes a frame, [`Self::poll`] gives those that are due, [`Self::deadline`] says when to ask next.
/// Frames of a direction leave in the order in which they came, except for those that `reorder` holds back and second
/// copies; a delay that was shortened lets no frame overtake.
#[derive(Debug)]
pub struct Link {
    dice: Dice,
    lines: [Line; 2],
    course: Option<Course>,
    spare: Vec<Vec<u8>>,
}

/// One direction.
#[derive(Debug, Default)]
struct Line {
    impairment: Impairment,
    /// The number of the next frame.
    ordinal: u64,
    /// Frames that wait for others to pass: by the number of the last of those, then by their own.
    held: BTreeMap<(u64, u64), Held>,
    /// Frames on their way, by due time, which never decreases.
    under_way: VecDeque<(Instant, Vec<u8>)>,
    /// Bytes in `held` and `under_way`.
    bytes: usize,
    /// When the frame before is through, if there is a rate.
    free: Option<Instant>,
    /// Frames that wait for the rate or are being sent: when they are through, and their lengths.
    sending: VecDeque<(Instant, usize)>,
    /// Bytes in `sending` and `held`.
    queued: usize,
}

#[derive(Debug)]
struct Held {
    frame: Vec<u8>,
    copies: usize,
    delay: Duration,
    /// It goes then, whoever has passed.
    until: Instant,
}

impl Link {
    /// A clean wire with these draws.
    #[must_use]
    pub fn new(dice: Dice) -> Self {
        Self {
            dice,
            lines: [Line::default(), Line::default()],
            course: None,
            spare: Vec::new(),
        }
    }

    /// Takes a frame and says what becomes of it.
    pub fn push(&mut self, way: Way, frame: &[u8], now: Instant) -> LogLine {
        self.follow_schedule(now);
        let line = &mut self.lines[way.index()];
        let ordinal = line.ordinal;
        line.ordinal += 1;
        if let Some(course) = &mut self.course
            && let Some(impairment) = course.due_at_frame(way, ordinal)
        {
            line.impairment = impairment;
        }
        let draws = self.dice.draws(way, ordinal);
        let mut fate = Fate::decide(&line.impairment, &draws, frame.len());
        if fate.dropped.is_none() {
            let copies = if fate.duplicated { 2 } else { 1 };
            line.sent_by(now);
            if line.has_room(frame.len() * copies) {
                let mut copy = self.spare.pop().unwrap_or_default();
                copy.clear();
                copy.extend_from_slice(frame);
                if let Some(bit) = fate.corrupted
                    && let Some(byte) = copy.get_mut(bit / 8)
                {
                    *byte ^= 1 << (bit % 8);
                }
                let delay = fate::delay(&line.impairment, &draws);
                line.bytes += frame.len() * copies;
                if let Some(frames) = fate.delayed_past {
                    line.queued += frame.len() * copies;
                    let until = now + line.impairment.reorder.hold;
                    let held = Held {
                        frame: copy,
                        copies,
                        delay,
                        until,
                    };
                    line.held
                        .insert((ordinal + u64::from(frames), ordinal), held);
                } else {
                    line.send(copy, copies, delay, now);
                }
            } else {
                fate = Fate::dropped(Some(Dropped::QueueFull));
            }
        }
        line.release(ordinal, now);
        LogLine {
            way,
            ordinal,
            length: frame.len(),
            kind: Kind::of(frame),
            fate,
        }
    }

    /// The next frame that is due.
    pub fn poll(&mut self, now: Instant) -> Option<(Way, Vec<u8>)> {
        for line in &mut self.lines {
            line.release_overdue(now);
        }
        let due = |way: Way| Some((self.lines[way.index()].under_way.front()?.0, way));
        let (at, way) = Way::BOTH.into_iter().filter_map(due).min()?;
        if at > now {
            return None;
        }
        let line = &mut self.lines[way.index()];
        let (_, frame) = line.under_way.pop_front()?;
        line.bytes -= frame.len();
        Some((way, frame))
    }

    /// When [`Self::poll`] may have a frame; `None` while the wire is empty.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let due = |line: &Line| {
            let front = line.under_way.front().map(|(at, _)| *at);
            let held = line.held.values().map(|held| held.until).min();
            front.into_iter().chain(held).min()
        };
        self.lines.iter().filter_map(due).min()
    }

    /// Gives a buffer of [`Self::poll`] back, for a later frame.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE {
            self.spare.push(buffer);
        }
    }

    /// Puts an impairment in force, for frames that come from now on, and ends the schedule.
    pub fn set(&mut self, direction: Direction, impairment: Impairment, now: Instant) {
        self.follow_schedule(now);
        self.course = None;
        for way in direction.ways() {
            self.lines[way.index()].impairment = impairment;
        }
    }

    /// Starts a schedule in place of the one before.
    pub fn install(&mut self, schedule: &Schedule, now: Instant) {
        self.follow_schedule(now);
        self.course = Some(Course::new(schedule, now));
        self.follow_schedule(now);
    }

    /// What is in force in a direction.
    pub fn impairment(&mut self, way: Way, now: Instant) -> Impairment {
        self.follow_schedule(now);
        self.lines[way.index()].impairment
    }

    /// Numbers the frames from 0 again, with these draws. What is in force stays so, the schedule ends, and frames that
    /// are held back go now.
    pub fn rewind(&mut self, dice: Dice, now: Instant) {
        self.follow_schedule(now);
        (self.dice, self.course) = (dice, None);
        for line in &mut self.lines {
            line.release(u64::MAX, now);
            line.ordinal = 0;
        }
    }

    fn follow_schedule(&mut self, now: Instant) {
        let Some(course) = &mut self.course else {
            return;
        };
        while let Some((direction, impairment)) = course.due(now) {
            for way in direction.ways() {
                self.lines[way.index()].impairment = impairment;
            }
        }
    }
}

impl Line {
    fn has_room(&self, length: usize) -> bool {
        let rate = self.impairment.rate;
        self.bytes + length <= MEMORY && rate.is_none_or(|rate| self.queued + length <= rate.queue)
    }

    /// Puts a frame on the way. Its bytes are counted already.
    fn send(&mut self, frame: Vec<u8>, copies: usize, delay: Duration, now: Instant) {
        if copies == 2 {
            let copy = frame.clone();
            self.send(copy, 1, delay, now);
        }
        let mut through = now;
        if let Some(rate) = self.impairment.rate {
            let bits = u128::try_from(frame.len() * 8).unwrap_or(u128::MAX);
            let nanos = bits * 1_000_000_000 / u128::from(rate.bits);
            let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            through = self.free.unwrap_or(now).max(now) + takes;
            self.free = Some(through);
            self.sending.push_back((through, frame.len()));
            self.queued += frame.len();
        }
        let last = self.under_way.back().map(|(at, _)| *at);
        let due = (through + delay).max(last.unwrap_or(now));
        self.under_way.push_back((due, frame));
    }

    /// Forgets what the rate has let through.
    fn sent_by(&mut self, now: Instant) {
        while let Some((through, length)) = self.sending.front()
            && *through <= now
        {
            self.queued -= *length;
            self.sending.pop_front();
        }
    }

    /// Lets those frames go that waited for frame `ordinal`.
    fn release(&mut self, ordinal: u64, now: Instant) {
        while let Some(entry) = self.held.first_entry()
            && entry.key().0 <= ordinal
        {
            let held = entry.remove();
            self.let_go(held, now);
        }
    }

    fn release_overdue(&mut self, now: Instant) {
        while let Some(key) = self
            .held
            .iter()
            .find(|(_, held)| held.until <= now)
            .map(|(key, _)| *key)
            && let Some(held) = self.held.remove(&key)
        {
            self.let_go(held, now);
        }
    }

    fn let_go(&mut self, held: Held, now: Instant) {
        self.queued -= held.frame.len() * held.copies;
        self.send(held.frame, held.copies, held.delay, now);
    }
}
