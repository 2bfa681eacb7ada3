//! The world: processes, sessions and virtual time. One thing happens at a time, in an order that the seed decides.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Instant;

use hawser_mesh::hub::bump::Claim;
use hawser_mesh::replica::{SessionId, Stream};

use super::clock::{MS, Moment, SECOND};
use super::dice::Dice;
use super::network::{Flight, IDLE, Network};
use super::process::{Process, Said};
use super::shape::{CLUSTERS, Place};
use super::source::Source;
use super::story::{CALM, ROUND, ROUNDS, Story};
use super::violation::{Broken, Violation};
use super::{Report, act, allocation, check};

/// What happens next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Happening {
    /// The story's next act.
    Act(usize),
    /// A message arrives.
    Arrive(Flight),
    /// A process tries to reach a publisher.
    Dial { place: Place, slot: usize },
    /// An attempt comes to its end at this replica.
    Answer {
        place: Place,
        slot: usize,
        life: u32,
        publisher: Place,
    },
    /// A process learns that a session is over.
    Over { session: SessionId, place: Place },
    /// A session has been silent for too long, if it is still cut.
    Expire { session: SessionId },
    /// A process's timer.
    Timer { place: Place },
    /// A replica hears of its source.
    Follow { place: Place },
    /// A replica reads what another one heard.
    Heard { place: Place, claim: Claim },
    /// A process starts.
    Start { place: Place },
    /// Hostile hands let go of a session.
    Release { session: SessionId },
    /// An excess is taken back.
    Drain { cluster: usize },
    /// Restored sources go on.
    MoveOn,
    /// Everybody must agree.
    Check,
}

#[derive(Debug)]
struct Due {
    at: Moment,
    number: u64,
    happening: Happening,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Due {}

/// Everything there is.
#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Moment,
    due: BinaryHeap<Due>,
    number: u64,
    pub(super) dice: Dice,
    pub(super) network: Network,
    pub(super) sources: Vec<Source>,
    pub(super) processes: Vec<Process>,
    pub(super) report: Report,
}

/// Plays a story to its end.
pub(super) fn play(story: &Story) -> Result<Report, Broken> {
    let mut world = World::new(story.seed);
    for (number, act) in story.acts.iter().enumerate() {
        world.plan(act.at, Happening::Act(number));
    }
    for round in 1..=ROUNDS {
        world.plan(round * ROUND - CALM, Happening::MoveOn);
        world.plan(round * ROUND, Happening::Check);
    }
    let end = ROUNDS * ROUND;
    while let Some(due) = world.due.pop() {
        if due.at > end {
            break;
        }
        world.now = due.at;
        world.report.steps += 1;
        world.happen(story, due.happening)?;
    }
    allocation::play(story.seed).map_err(|violation| Broken {
        at: end,
        place: None,
        violation,
    })?;
    Ok(world.report)
}

impl World {
    fn new(seed: u64) -> Self {
        let epoch = Instant::now();
        let mut world = Self {
            now: 0,
            due: BinaryHeap::new(),
            number: 0,
            dice: Dice::new(seed, 3),
            network: Network::new(seed),
            sources: (0..CLUSTERS).map(act::first_source).collect(),
            processes: Place::all()
                .map(|place| Process::new(place, epoch))
                .collect(),
            report: Report::default(),
        };
        for place in Place::all() {
            let at = world.dice.below(200 * MS);
            world.plan(at, Happening::Start { place });
        }
        world
    }

    /// Something will happen.
    pub(super) fn plan(&mut self, at: Moment, happening: Happening) {
        self.number += 1;
        self.due.push(Due {
            at: at.max(self.now),
            number: self.number,
            happening,
        });
    }

    pub(super) fn after(&mut self, wait: Moment, happening: Happening) {
        self.plan(self.now + wait, happening);
    }

    pub(super) fn process(&mut self, place: Place) -> &mut Process {
        &mut self.processes[place.index()]
    }

    /// An invariant broke here.
    pub(super) fn broken(&self, place: Place, violation: Violation) -> Broken {
        Broken {
            at: self.now,
            place: Some(place),
            violation,
        }
    }

    fn happen(&mut self, story: &Story, happening: Happening) -> Result<(), Broken> {
        match happening {
            Happening::Act(number) => act::perform(self, story, number),
            Happening::Arrive(flight) => self.arrive(flight),
            Happening::Dial { place, slot } => {
                self.dial(place, slot);
                Ok(())
            }
            Happening::Answer {
                place,
                slot,
                life,
                publisher,
            } => self.answer(place, slot, life, publisher),
            Happening::Over { session, place } => self.over(session, place),
            Happening::Expire { session } => {
                self.expire(session);
                Ok(())
            }
            Happening::Timer { place } => {
                let now = self.now;
                let process = self.process(place);
                if process.timer != Some(now) {
                    return Ok(());
                }
                process.timer = None;
                if !process.is_awake(now) {
                    self.postpone(place, happening);
                    return Ok(());
                }
                process.handle_timeout(now);
                self.settle(place)
            }
            Happening::Follow { place } => {
                let now = self.now;
                let process = &mut self.processes[place.index()];
                if !process.is_up() || process.lag > now {
                    return Ok(());
                }
                if !process.is_awake(now) {
                    self.postpone(place, happening);
                    return Ok(());
                }
                process.follow(&self.sources[place.cluster]);
                self.settle(place)
            }
            Happening::Heard { place, claim } => {
                let now = self.now;
                let process = self.process(place);
                if !process.is_up() {
                    return Ok(());
                }
                if !process.is_awake(now) {
                    self.postpone(place, happening);
                    return Ok(());
                }
                process.hear(claim, now);
                self.settle(place)
            }
            Happening::Start { place } => self.start(place),
            Happening::Release { session } => {
                self.break_session(session);
                Ok(())
            }
            Happening::Drain { cluster } => {
                act::drain(self, cluster);
                Ok(())
            }
            Happening::MoveOn => {
                act::move_on(self);
                Ok(())
            }
            Happening::Check => check::everybody_agrees(self),
        }
    }

    /// Something waits until a process that stands still goes on.
    fn postpone(&mut self, place: Place, happening: Happening) {
        let process = self.process(place);
        let until = process.stalled;
        if matches!(happening, Happening::Timer { .. }) {
            process.timer = Some(until);
        }
        self.plan(until, happening);
    }

    fn arrive(&mut self, flight: Flight) -> Result<(), Broken> {
        let session = self.network.session(flight.session);
        let place = session.end(flight.way);
        if !session.is_open(place) {
            return Ok(());
        }
        let until = self.processes[place.index()].reads_from();
        if until > self.now {
            self.plan(until, Happening::Arrive(flight));
            return Ok(());
        }
        let (sender, hostile) = (session.other(place), session.hostile.is_some());
        let (message, drained) = self.network.arrive(flight);
        let stream = if flight.bulk {
            Stream::Bulk
        } else {
            Stream::Changes
        };
        if drained {
            self.process(sender)
                .set_writable(flight.session, stream, true);
            self.settle(sender)?;
        }
        let Some(message) = message else {
            return Ok(());
        };
        let now = self.now;
        let process = &mut self.processes[place.index()];
        let repairs = process.repairs();
        let told = message.clone();
        process.handle_message(flight.session, stream, message, now);
        if process.repairs() > repairs && !hostile {
            check::repair(process, &self.sources, sender, &told)
                .map_err(|violation| self.broken(place, violation))?;
        }
        self.settle(place)
    }

    /// A process gave a session up.
    fn closed(
        &mut self,
        place: Place,
        session: SessionId,
        reason: &'static str,
    ) -> Result<(), Broken> {
        let (other, hostile, open) = {
            let session = self.network.session(session);
            let other = session.other(place);
            (other, session.hostile.is_some(), session.is_open(place))
        };
        if !hostile && reason != "too_many_sessions" {
            let reject = reason.to_owned();
            return Err(self.broken(place, Violation::HonestRejected { reject }));
        }
        self.report.rejects += 1;
        if open {
            self.close(session, place);
            let place = other;
            self.after(5 * MS, Happening::Over { session, place });
        }
        Ok(())
    }

    /// A process says and tells what it has to; every step ends here.
    pub(super) fn settle(&mut self, place: Place) -> Result<(), Broken> {
        let now = self.now;
        loop {
            let process = &mut self.processes[place.index()];
            match process.poll(now, &self.sources) {
                Ok(Some(Said::Transmit(transmit))) => {
                    let sent = self.network.send(
                        now,
                        transmit.session,
                        place,
                        transmit.stream,
                        transmit.bytes,
                    );
                    let (flights, full) =
                        sent.map_err(|violation| self.broken(place, violation))?;
                    if full {
                        let process = &mut self.processes[place.index()];
                        process.set_writable(transmit.session, transmit.stream, false);
                    }
                    for (at, flight) in flights {
                        self.plan(at, Happening::Arrive(flight));
                    }
                    self.report.messages += 1;
                }
                Ok(Some(Said::Close(session, reason))) => self.closed(place, session, reason)?,
                Ok(Some(Said::Bump(to))) => {
                    self.sources[place.cluster].bump(to);
                    self.report.bumps += 1;
                    act::tell_followers(self, place.cluster);
                }
                Ok(Some(Said::Ahead(claims))) => {
                    for other in Place::hubs_of(place.cluster).filter(|other| *other != place) {
                        for claim in &claims {
                            let (wait, claim) = (self.dice.between(MS, 40 * MS), *claim);
                            self.after(
                                wait,
                                Happening::Heard {
                                    place: other,
                                    claim,
                                },
                            );
                        }
                    }
                }
                Ok(None) => break,
                Err(violation) => return Err(self.broken(place, violation)),
            }
        }
        let process = &mut self.processes[place.index()];
        if let Some(at) = process.arm(now) {
            self.plan(at, Happening::Timer { place });
        }
        check::one(self, place)
    }

    fn start(&mut self, place: Place) -> Result<(), Broken> {
        let process = &mut self.processes[place.index()];
        if process.is_up() {
            return Ok(());
        }
        process.start(self.now, &self.sources);
        self.choose_writer(place.cluster);
        let process = &mut self.processes[place.index()];
        let slots = process.dials.len();
        for slot in 0..slots {
            let wait = self.dice.below(100 * MS);
            self.after(wait, Happening::Dial { place, slot });
        }
        self.settle(place)
    }

    fn dial(&mut self, place: Place, slot: usize) {
        let now = self.now;
        let process = &mut self.processes[place.index()];
        if !process.is_up() || process.dials[slot].session.is_some() || process.dials[slot].dialing
        {
            return;
        }
        if !process.is_awake(now) {
            let at = process.stalled;
            self.plan(at, Happening::Dial { place, slot });
            return;
        }
        let life = process.life;
        let dial = &mut process.dials[slot];
        dial.dialing = true;
        let publisher = dial.next();
        let trip = self.network.delay(now, place, publisher) * 3;
        self.after(
            trip,
            Happening::Answer {
                place,
                slot,
                life,
                publisher,
            },
        );
    }

    fn answer(
        &mut self,
        place: Place,
        slot: usize,
        life: u32,
        publisher: Place,
    ) -> Result<(), Broken> {
        let now = self.now;
        let cut = self.network.cut_until(place, publisher) > now;
        let reached = {
            let other = &self.processes[publisher.index()];
            other.is_up() && other.is_awake(now) && !cut
        };
        let process = &mut self.processes[place.index()];
        if process.life != life || !process.is_up() {
            return Ok(());
        }
        process.dials[slot].dialing = false;
        if !reached || !process.is_awake(now) {
            let wait = self.dice.between(50 * MS, SECOND);
            self.after(wait, Happening::Dial { place, slot });
            return Ok(());
        }
        let session = self.network.open(place, publisher);
        self.report.sessions += 1;
        let served = self.process(publisher).serve(session, place);
        if let Err(reject) = served {
            let reject = reject.to_owned();
            return Err(self.broken(publisher, Violation::HonestRejected { reject }));
        }
        self.settle(publisher)?;
        self.process(place).subscribe(session, slot, publisher, now);
        self.settle(place)
    }

    /// Both ends of a session learn that it is over, one after the other.
    pub(super) fn break_session(&mut self, session: SessionId) {
        let ends = {
            let session = self.network.session(session);
            [session.subscriber, session.publisher]
        };
        for place in ends {
            let wait = self.dice.below(300 * MS);
            self.after(wait, Happening::Over { session, place });
        }
    }

    /// One end of a session closes.
    fn close(&mut self, session: SessionId, place: Place) {
        self.network.close(session, place);
        let slot = self.process(place).close(session);
        if let Some(slot) = slot {
            self.plan(self.now, Happening::Dial { place, slot });
        }
    }

    fn over(&mut self, session: SessionId, place: Place) -> Result<(), Broken> {
        if !self.network.session(session).is_open(place) {
            return Ok(());
        }
        let now = self.now;
        let process = self.process(place);
        if !process.is_awake(now) {
            self.postpone(place, Happening::Over { session, place });
            return Ok(());
        }
        self.close(session, place);
        self.settle(place)
    }

    fn expire(&mut self, session: SessionId) {
        let now = self.now;
        let (subscriber, publisher) = {
            let session = self.network.session(session);
            (session.subscriber, session.publisher)
        };
        let silent = |place: Place| self.processes[place.index()].stalled > now;
        let cut = self.network.cut_until(subscriber, publisher) > now;
        if cut || silent(subscriber) || silent(publisher) {
            self.break_session(session);
        }
    }

    /// Whoever hears nothing any more on these sessions gives them up.
    pub(super) fn doubt(&mut self, place: Place, towards: impl Fn(Place) -> bool) {
        let sessions: Vec<_> = self.processes[place.index()].sessions().collect();
        for session in sessions {
            if towards(self.network.session(session).other(place)) {
                let slack = self.dice.below(300 * MS);
                self.after(IDLE + slack, Happening::Expire { session });
            }
        }
    }

    /// A process dies: its peers learn of it when they do.
    pub(super) fn kill(&mut self, place: Place) {
        let sessions: Vec<_> = self.processes[place.index()].sessions().collect();
        for session in sessions {
            self.network.close(session, place);
            let other = self.network.session(session).other(place);
            let wait = self.dice.between(10 * MS, IDLE);
            self.after(
                wait,
                Happening::Over {
                    session,
                    place: other,
                },
            );
        }
        self.process(place).die();
        self.choose_writer(place.cluster);
    }

    /// The first replica that runs has the lock.
    fn choose_writer(&mut self, cluster: usize) {
        let mut taken = false;
        for place in Place::hubs_of(cluster) {
            let process = self.process(place);
            let writes = process.is_up() && !taken;
            taken |= writes;
            process.set_writer(writes);
        }
    }
}
