//! Sessions between processes: ordered streams both ways, with delay, loss that delays, cuts, and hostile hands.
//!
//! A stream never loses, doubles or reorders what an honest end sends; only the end of its session does. A hostile
//! session does all of it.

use std::collections::VecDeque;

use bytes::Bytes;
use hawser_mesh::replica::{SessionId, Stream};

use super::clock::{MS, Moment, SECOND};
use super::dice::Dice;
use super::shape::{NODES, Place};
use super::story::Manner;
use super::tamper;
use super::tap::Tap;
use super::violation::Violation;

/// A session that has heard nothing for so long is dead.
pub(super) const IDLE: Moment = 2 * SECOND;
/// Messages on the way in a stream before its sender has to wait.
const FULL: usize = 24;
/// And when it may go on.
const DRAINED: usize = 12;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From the publisher to the subscriber.
    Down,
    /// From the subscriber to the publisher.
    Up,
}

/// A stream of a session, one way.
#[derive(Debug, Default)]
struct Pipe {
    queue: VecDeque<Bytes>,
    /// When the last of them arrives.
    last: Moment,
    full: bool,
}

/// A connection of two processes.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) subscriber: Place,
    pub(super) publisher: Place,
    /// Whether the subscriber's and the publisher's end is open.
    open: [bool; 2],
    pipes: [Pipe; 4],
    tap: Tap,
    pub(super) hostile: Option<Hostile>,
}

/// What is done to a session's messages.
#[derive(Debug)]
pub(super) struct Hostile {
    way: Way,
    manner: Manner,
    dice: Dice,
    /// What passed, for whoever replays it.
    past: Vec<Bytes>,
}

/// All sessions, and how processes reach each other.
#[derive(Debug)]
pub(super) struct Network {
    sessions: Vec<Session>,
    dice: Dice,
    /// Until when nothing gets from one process to another.
    cut: Vec<Moment>,
    lossy: [Moment; NODES],
    shuffled: [Moment; NODES],
}

/// A message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flight {
    pub(super) session: SessionId,
    pub(super) way: Way,
    pub(super) bulk: bool,
}

impl Session {
    pub(super) fn end(&self, way: Way) -> Place {
        match way {
            Way::Down => self.subscriber,
            Way::Up => self.publisher,
        }
    }

    /// Whether the end of this process is open.
    pub(super) fn is_open(&self, place: Place) -> bool {
        self.open[usize::from(place == self.publisher)]
    }

    pub(super) fn other(&self, place: Place) -> Place {
        if place == self.publisher {
            self.subscriber
        } else {
            self.publisher
        }
    }

    /// Which way what this process sends goes.
    pub(super) fn way_of(&self, sender: Place) -> Way {
        if sender == self.publisher {
            Way::Down
        } else {
            Way::Up
        }
    }
}

fn number(session: SessionId) -> usize {
    usize::try_from(session).expect("sessions are counted by us")
}

fn pipe(way: Way, bulk: bool) -> usize {
    usize::from(way == Way::Up) * 2 + usize::from(bulk)
}

impl Network {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            sessions: Vec::new(),
            dice: Dice::new(seed, 2),
            cut: vec![0; NODES * NODES],
            lossy: [0; NODES],
            shuffled: [0; NODES],
        }
    }

    pub(super) fn session(&self, session: SessionId) -> &Session {
        &self.sessions[number(session)]
    }

    /// Opens a session.
    pub(super) fn open(&mut self, subscriber: Place, publisher: Place) -> SessionId {
        self.sessions.push(Session {
            subscriber,
            publisher,
            open: [true; 2],
            pipes: Default::default(),
            tap: Tap::default(),
            hostile: None,
        });
        u64::try_from(self.sessions.len() - 1).expect("sessions are few")
    }

    /// Closes one end. What was on the way to it is lost, and what it sent arrives nowhere.
    pub(super) fn close(&mut self, session: SessionId, place: Place) {
        let session = &mut self.sessions[number(session)];
        session.open[usize::from(place == session.publisher)] = false;
        session.pipes = Default::default();
    }

    /// Nothing gets from one to the other until then.
    pub(super) fn cut(&mut self, from: Place, to: Place, until: Moment) {
        let cut = &mut self.cut[from.index() * NODES + to.index()];
        *cut = until.max(*cut);
    }

    /// Until when something is cut between two, either way.
    pub(super) fn cut_until(&self, a: Place, b: Place) -> Moment {
        self.one_way(a, b).max(self.one_way(b, a))
    }

    fn one_way(&self, from: Place, to: Place) -> Moment {
        self.cut[from.index() * NODES + to.index()]
    }

    pub(super) fn lose(&mut self, place: Place, until: Moment) {
        let lossy = &mut self.lossy[place.index()];
        *lossy = until.max(*lossy);
    }

    pub(super) fn shuffle(&mut self, place: Place, until: Moment) {
        let shuffled = &mut self.shuffled[place.index()];
        *shuffled = until.max(*shuffled);
    }

    /// How long something takes from one to the other now.
    pub(super) fn delay(&mut self, now: Moment, from: Place, to: Place) -> Moment {
        let far = if from.cluster == to.cluster {
            MS / 4
        } else {
            5 * MS + MS * u64::try_from((from.cluster * 7 + to.cluster * 7) % 30).unwrap_or(0)
        };
        let mut delay = far + self.dice.below(MS);
        let either = |until: &[Moment; NODES]| until[from.index()].max(until[to.index()]) > now;
        if either(&self.lossy) && self.dice.percent(25) {
            delay += self.dice.between(200 * MS, 1_200 * MS);
        }
        if either(&self.shuffled) {
            delay += self.dice.below(1_500 * MS);
        }
        delay
    }

    /// Sends a message. Returns when which arrive, and whether the stream is full now.
    pub(super) fn send(
        &mut self,
        now: Moment,
        session: SessionId,
        sender: Place,
        stream: Stream,
        bytes: Bytes,
    ) -> Result<(Vec<(Moment, Flight)>, bool), Violation> {
        let bulk = match stream {
            Stream::Changes => false,
            Stream::Bulk => true,
        };
        let at = number(session);
        let (way, to) = {
            let session = &self.sessions[at];
            let way = session.way_of(sender);
            if !session.open.iter().all(|open| *open) {
                return Ok((Vec::new(), false));
            }
            (way, session.end(way))
        };
        let arrives = self.one_way(sender, to).max(now) + self.delay(now, sender, to);
        let session_now = &mut self.sessions[at];
        if way == Way::Down {
            let foreign = sender.cluster != to.cluster;
            session_now.tap.said(&bytes, foreign)?;
        }
        let hostile = session_now.hostile.as_mut();
        let messages = match hostile.filter(|hostile| hostile.way == way) {
            Some(hostile) => hostile.handle(bytes),
            None => vec![bytes],
        };
        let pipe = &mut session_now.pipes[pipe(way, bulk)];
        pipe.last = pipe.last.max(arrives);
        let flight = Flight { session, way, bulk };
        let mut flights = Vec::with_capacity(messages.len());
        for message in messages {
            pipe.queue.push_back(message);
            flights.push((pipe.last, flight));
        }
        if session_now.hostile.as_ref().is_some_and(Hostile::swaps) && pipe.queue.len() > 1 {
            let last = pipe.queue.len() - 1;
            pipe.queue.swap(last, last - 1);
        }
        let full = !pipe.full && pipe.queue.len() >= FULL;
        pipe.full |= full;
        Ok((flights, full))
    }

    /// Takes the next message of a stream; and whether its sender may go on.
    pub(super) fn arrive(&mut self, flight: Flight) -> (Option<Bytes>, bool) {
        let session = &mut self.sessions[number(flight.session)];
        let pipe = &mut session.pipes[pipe(flight.way, flight.bulk)];
        let message = pipe.queue.pop_front();
        let drained = pipe.full && pipe.queue.len() <= DRAINED;
        pipe.full &= !drained;
        if let (Way::Up, Some(message)) = (flight.way, &message) {
            session.tap.heard(message);
        }
        (message, drained)
    }

    /// From here on messages of a session are not what was sent.
    pub(super) fn turn(&mut self, session: SessionId, way: Way, manner: Manner, dice: Dice) {
        self.sessions[number(session)].hostile = Some(Hostile {
            way,
            manner,
            dice,
            past: Vec::new(),
        });
    }
}

impl Hostile {
    fn swaps(&self) -> bool {
        self.manner == Manner::Swap
    }

    /// What arrives in place of a message.
    fn handle(&mut self, bytes: Bytes) -> Vec<Bytes> {
        if self.past.len() < 32 {
            self.past.push(bytes.clone());
        }
        if self.dice.percent(50) {
            return vec![bytes];
        }
        match self.manner {
            Manner::Drop => Vec::new(),
            Manner::Double => vec![bytes.clone(), bytes],
            Manner::Swap => vec![bytes],
            Manner::Truncate => {
                let length = self.dice.index(bytes.len().max(1));
                vec![bytes.slice(..length)]
            }
            Manner::Replay => vec![bytes, self.past[self.dice.index(self.past.len())].clone()],
            Manner::Garble => vec![tamper::garble(&bytes, &mut self.dice)],
            Manner::Forge => tamper::forge(&bytes, &mut self.dice),
        }
    }
}
