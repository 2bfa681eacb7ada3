//! Two engines, ours or boringtun's, with a wire between them that loses what the test says.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test uses its part of the pair"
)]

pub mod boringtun;

use self::boringtun::BoringtunEngine;
use hawser_tunnel::batch::{Batch, Datagrams};
use hawser_tunnel::engine::{Engine as _, Handshake, NoiseEngine, Opened, Timeout};
use hawser_tunnel::key::{PresharedKey, PrivateKey};
use hawser_tunnel::reject::Reject;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub const SECOND: Duration = Duration::from_secs(1);
pub const TICK: Duration = Duration::from_millis(100);
pub const INITIATION: u8 = 1;
pub const RESPONSE: u8 = 2;
pub const DATA: u8 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Own,
    Boringtun,
}

/// Who meets whom; the first begins.
pub const MEETINGS: [[Kind; 2]; 3] = [
    [Kind::Own, Kind::Own],
    [Kind::Own, Kind::Boringtun],
    [Kind::Boringtun, Kind::Own],
];

pub enum AnyEngine {
    Own(Box<NoiseEngine>),
    Boringtun(Box<BoringtunEngine>),
}

/// Calls a method of whichever engine it is.
macro_rules! on {
    ($any:expr, $engine:ident => $call:expr) => {
        match $any {
            AnyEngine::Own($engine) => $call,
            AnyEngine::Boringtun($engine) => $call,
        }
    };
}

pub fn key(number: u8) -> PrivateKey {
    PrivateKey::from_random([number; 32])
}

pub fn preshared(number: u8) -> PresharedKey {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode([number; 32]);
    PresharedKey::from_base64(&text).unwrap()
}

impl AnyEngine {
    /// An engine with key `own` for a peer with key `peer`.
    pub fn new(kind: Kind, own: u8, peer: u8, preshared: Option<u8>, now: Instant) -> Self {
        let (peer, index) = (key(peer).public(), 0x00ab_cd00 | u32::from(own));
        match kind {
            Kind::Own => {
                let preshared = preshared.map(self::preshared);
                let engine = NoiseEngine::new(&key(own), &peer, preshared.as_ref(), index);
                Self::Own(Box::new(engine))
            }
            Kind::Boringtun => {
                let preshared = preshared.map(|number| [number; 32]);
                let peer = *peer.as_bytes();
                let engine = BoringtunEngine::new([own; 32], peer, preshared, index, now);
                Self::Boringtun(Box::new(engine))
            }
        }
    }

    pub fn initiate(&mut self, again: bool, now: Instant) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        on!(self, engine => engine.initiate(again, now, &mut out)).then_some(out)
    }

    pub fn handshake(
        &mut self,
        message: &[u8],
        now: Instant,
    ) -> Result<(Handshake, Vec<u8>), Reject> {
        let mut out = Vec::new();
        let done = on!(self, engine => engine.handle_handshake(message, now, &mut out))?;
        Ok((done, out))
    }

    pub fn has_session(&self, now: Instant) -> bool {
        on!(self, engine => engine.session_age(now)).is_some()
    }

    pub fn age(&self, now: Instant) -> Option<Duration> {
        on!(self, engine => engine.session_age(now))
    }

    pub fn seal(&mut self, plaintexts: &[Vec<u8>], now: Instant) -> Vec<Vec<u8>> {
        let mut batch = Batch::default();
        plaintexts.iter().for_each(|text| batch.push(text, ()));
        let mut out = Datagrams::default();
        let to = SocketAddr::from(([192, 0, 2, 1], 51820));
        on!(self, engine => engine.seal(&batch, to, now, &mut out));
        out.iter().map(|(message, _)| message.to_vec()).collect()
    }

    pub fn keepalive(&mut self, now: Instant) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        on!(self, engine => engine.keepalive(now, &mut out)).then_some(out)
    }

    pub fn open(&mut self, messages: &[Vec<u8>], now: Instant) -> Vec<(Vec<u8>, Opened)> {
        let mut out = Batch::default();
        // Something of another lane is there already.
        out.push(b"before", Opened::Packet);
        let all = messages.iter().map(Vec::as_slice);
        on!(self, engine => engine.open(all, now, &mut out));
        let opened = out
            .iter()
            .map(|(text, &opened)| (text.to_vec(), opened))
            .skip(1);
        opened.collect()
    }

    pub fn timeout(&mut self, now: Instant) -> (Timeout, Vec<u8>) {
        let mut out = Vec::new();
        let due = on!(self, engine => engine.handle_timeout(now, &mut out));
        (due, out)
    }
}

/// An IPv4 packet with a number in it, padded to whole blocks as the data plane does.
pub fn packet(number: u64, length: usize) -> Vec<u8> {
    let mut packet = vec![0; length.max(28).next_multiple_of(16)];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&u16::try_from(length.max(28)).unwrap().to_be_bytes());
    packet[20..28].copy_from_slice(&number.to_be_bytes());
    packet
}

pub fn number(packet: &[u8]) -> u64 {
    u64::from_be_bytes(packet[20..28].try_into().unwrap())
}

/// One end, with as much of a lane as a meeting needs: nothing is sealed before the peer has the session.
pub struct End {
    pub engine: AnyEngine,
    pub confirmed: bool,
    pub received: Vec<u64>,
    pub expired: usize,
    pub refused: Vec<Reject>,
    waiting: Vec<u64>,
}

/// A message that went on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    pub at: Duration,
    pub by: usize,
    pub kind: u8,
    pub length: usize,
}

pub struct Pair {
    pub ends: [End; 2],
    pub now: Instant,
    pub start: Instant,
    pub said: Vec<Said>,
    /// Numbers of messages that the wire loses.
    pub lost: BTreeSet<usize>,
    /// Whose messages the wire loses.
    pub cut: [bool; 2],
    wire: VecDeque<(usize, Vec<u8>)>,
}

#[allow(
    clippy::disallowed_methods,
    reason = "a meeting starts somewhere in time"
)]
pub fn start() -> Instant {
    Instant::now()
}

impl Pair {
    pub fn new(kinds: [Kind; 2], preshared: Option<u8>) -> Self {
        let now = start();
        let end = |at: usize| End {
            engine: AnyEngine::new(
                kinds[at],
                u8::try_from(at).unwrap() + 1,
                2 - u8::try_from(at).unwrap(),
                preshared,
                now,
            ),
            confirmed: false,
            received: Vec::new(),
            expired: 0,
            refused: Vec::new(),
            waiting: Vec::new(),
        };
        Self {
            ends: [end(0), end(1)],
            now,
            start: now,
            said: Vec::new(),
            lost: BTreeSet::new(),
            cut: [false; 2],
            wire: VecDeque::new(),
        }
    }

    pub fn say(&mut self, by: usize, message: Vec<u8>) {
        let lost = self.cut[by] || self.lost.contains(&self.said.len());
        self.said.push(Said {
            at: self.now - self.start,
            by,
            kind: message[0],
            length: message.len(),
        });
        if !lost {
            self.wire.push_back((1 - by, message));
        }
    }

    pub fn initiate(&mut self, by: usize, again: bool) {
        if let Some(message) = self.ends[by].engine.initiate(again, self.now) {
            self.say(by, message);
        }
    }

    fn is_ready(&self, end: usize) -> bool {
        self.ends[end].confirmed && self.ends[end].engine.has_session(self.now)
    }

    /// Sends a packet, or keeps it until there is a session.
    pub fn send(&mut self, by: usize, number: u64) {
        self.ends[by].waiting.push(number);
        if !self.is_ready(by) {
            self.initiate(by, false);
        }
        self.flush(by);
    }

    fn flush(&mut self, by: usize) {
        if self.is_ready(by) && !self.ends[by].waiting.is_empty() {
            let waiting = std::mem::take(&mut self.ends[by].waiting);
            let packets: Vec<_> = waiting.iter().map(|&number| packet(number, 0)).collect();
            for message in self.ends[by].engine.seal(&packets, self.now) {
                self.say(by, message);
            }
        }
    }

    /// Delivers until nothing is on the wire.
    pub fn settle(&mut self) {
        while let Some((to, message)) = self.wire.pop_front() {
            let end = &mut self.ends[to];
            if message[0] == DATA {
                for (text, opened) in end.engine.open(&[message], self.now) {
                    match opened {
                        Opened::Packet => end.received.push(number(&text)),
                        Opened::Keepalive => {}
                        Opened::Rejected(reason) => end.refused.push(reason),
                    }
                    end.confirmed |= !matches!(opened, Opened::Rejected(_));
                }
            } else {
                match end.engine.handshake(&message, self.now) {
                    Ok((Handshake::Reply, reply)) => {
                        end.confirmed |= message[0] == RESPONSE;
                        self.say(to, reply);
                    }
                    Ok((Handshake::Done, _)) => {}
                    Err(reason) => end.refused.push(reason),
                }
            }
            self.flush(to);
        }
    }

    /// Lets time pass, tick by tick.
    pub fn pass(&mut self, time: Duration) {
        self.settle();
        let until = self.now + time;
        while self.now < until {
            self.now += TICK;
            for at in 0..2 {
                let (due, message) = self.ends[at].engine.timeout(self.now);
                match due {
                    Timeout::Idle => {}
                    Timeout::Send => self.say(at, message),
                    Timeout::Expired => self.ends[at].expired += 1,
                }
                if !self.ends[at].waiting.is_empty() && !self.is_ready(at) {
                    self.initiate(at, false);
                }
                self.settle();
            }
        }
    }

    /// Messages of one kind that one end has sent, by when.
    pub fn times(&self, by: usize, kind: u8) -> Vec<f64> {
        let of = self.said.iter().filter(|m| (m.by, m.kind) == (by, kind));
        of.map(|message| message.at.as_secs_f64()).collect()
    }
}
