//! The engine of our own: handshakes, sessions and timers as WireGuard's whitepaper has them.
//!
//! [`super::handshake`] makes keys, [`super::sessions`] holds them, [`super::timers`] says when to make others; here they
//! are put together. Two things are not as in the kernel, and neither shows to a peer: an initiation of ours can still be
//! answered when one of the peer's crosses it, so that two that begin at once need no second attempt; and keys are
//! wiped as soon as they are of no use, not when three times that time has passed.

use super::cookie::Signer;
use super::handshake::{Initiation, Keys};
use super::session::Session;
use super::sessions::Sessions;
use super::timers::{Due, REKEY_ATTEMPT_TIME, Timers};
use super::transcript::Secret;
use super::{DATA_OVERHEAD, Engine, Handshake, Memory, Opened, Timeout, arrivals};
use crate::aead::Message;
use crate::batch::{Batch, Datagrams};
use crate::key::{PresharedKey, PrivateKey, PublicKey};
use crate::reject::Reject;
use crate::wireguard;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Messages that are given to the cipher at once: more than one datagram of the kernel's holds.
pub(super) const RUN: usize = 64;

/// One pair of keys.
pub struct NoiseEngine {
    keys: Keys,
    signer: Signer,
    memory: Memory,
    /// Our last initiation, and the one before: its answer may be under way.
    initiations: [Option<Initiation>; 2],
    sessions: Sessions,
    timers: Timers,
}

impl NoiseEngine {
    /// An engine for one pair of keys. `index` is the random upper 24 bits of its session indices.
    pub fn new(
        private: &PrivateKey,
        peer: &PublicKey,
        preshared: Option<&PresharedKey>,
        index: u32,
    ) -> Self {
        Self::resume(private, peer, preshared, Memory::new(index))
    }

    /// An engine that goes on where one with the same keys stopped.
    pub fn resume(
        private: &PrivateKey,
        peer: &PublicKey,
        preshared: Option<&PresharedKey>,
        memory: Memory,
    ) -> Self {
        Self {
            keys: Keys::new(private, peer, preshared),
            signer: Signer::new(peer),
            memory,
            initiations: [None, None],
            sessions: Sessions::default(),
            timers: Timers::default(),
        }
    }

    /// What is to be known of it when it is gone.
    pub fn memory(&self) -> Memory {
        self.memory
    }

    /// An index that none of our sessions and initiations has.
    fn next_index(&mut self) -> u32 {
        loop {
            let last = self.memory.index;
            let index = last & !0xff | last.wrapping_add(1) & 0xff;
            self.memory.index = index;
            let mut initiations = self.initiations.iter().flatten();
            if self.sessions.of(index).is_none() && initiations.all(|sent| sent.index != index) {
                return index;
            }
        }
    }

    fn handle_initiation(
        &mut self,
        message: &[u8],
        now: Instant,
        reply: &mut Vec<u8>,
    ) -> Result<Handshake, Reject> {
        let received = self.keys.read_initiation(message)?;
        if received.stamp <= self.memory.heard {
            return Err(Reject::WgTimestamp);
        }
        let random = random().ok_or(Reject::WgHandshake)?;
        self.memory.heard = received.stamp;
        let index = self.next_index();
        let keys = self.keys.respond(received, &random, index, reply)?;
        self.signer.sign(index, now, reply);
        self.sessions.add(Session::new(&keys, false, now));
        self.timers.received();
        self.timers.sent();
        Ok(Handshake::Reply)
    }

    fn handle_response(
        &mut self,
        message: &[u8],
        receiver: u32,
        reply: &mut Vec<u8>,
    ) -> Result<Handshake, Reject> {
        let answered = |sent: &Option<Initiation>| {
            let sent = sent.as_ref();
            sent.is_some_and(|sent| sent.index == receiver)
        };
        let at = self.initiations.iter().position(answered);
        let at = at.ok_or(Reject::WgHandshake)?;
        let initiation = self.initiations[at].as_ref().ok_or(Reject::WgHandshake)?;
        let keys = self.keys.read_response(initiation, message)?;
        // The peer's session is no older than our asking for it, and an answer may be kept back by somebody.
        let born = initiation.sent;
        // An answer to the last makes one to any before it pointless.
        self.initiations[at..].fill_with(|| None);
        let mut session = Session::new(&keys, true, born);
        session.keepalive(reply);
        self.sessions.add(session);
        if at == 0 {
            // A peer may have forgotten this session for our newer initiation: that one is repeated until it is answered.
            self.timers.renewed();
        }
        self.timers.received();
        self.timers.sent();
        Ok(Handshake::Reply)
    }

    /// Notes that messages of the session with our `index` were opened.
    pub(super) fn authenticated(&mut self, index: u32, carries_data: bool, now: Instant) {
        let session = self.sessions.of(index);
        if session.is_some_and(|session| !session.confirmed) && self.sessions.confirm(index) {
            self.timers.renewed();
        }
        self.timers.received();
        if carries_data {
            self.timers.received_data(now);
        }
        if self
            .sessions
            .current()
            .is_some_and(|session| session.is_ending(now))
        {
            self.timers.worn();
        }
    }

    /// The sessions, to open messages with.
    pub(super) fn sessions(&mut self) -> &mut Sessions {
        &mut self.sessions
    }

    /// Notes that the current session sent something.
    fn sent(&mut self, now: Instant) {
        self.timers.sent();
        if self
            .sessions
            .current()
            .is_some_and(|session| session.is_worn(now))
        {
            self.timers.worn();
        }
    }
}

/// Seals texts, `N` at most, behind what is in `out`.
fn seal_run<'a, const N: usize>(
    session: &mut Session,
    texts: impl ExactSizeIterator<Item = &'a [u8]> + Clone,
    endpoint: SocketAddr,
    out: &mut Datagrams,
) {
    let start = out.end();
    let total = texts.clone().map(|text| text.len() + DATA_OVERHEAD).sum();
    let mut room = out.room(start, total);
    let mut messages: [Message<'_>; N] = std::array::from_fn(|_| Message::default());
    let mut count = 0;
    for (place, text) in messages.iter_mut().zip(texts.clone()) {
        let (message, rest) = std::mem::take(&mut room).split_at_mut(text.len() + DATA_OVERHEAD);
        room = rest;
        let Some(message) = session.begin(text, message) else {
            break;
        };
        *place = message;
        count += 1;
    }
    session.seal(&mut messages[..count]);
    let mut at = start;
    for text in texts.take(count) {
        let end = at + text.len() + DATA_OVERHEAD;
        out.keep(at..end, endpoint);
        at = end;
    }
}

/// 32 bytes of the kernel's; without them there is no handshake.
fn random() -> Option<Secret> {
    crate::io::clock::random().ok().map(Zeroizing::new)
}

impl std::fmt::Debug for NoiseEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NoiseEngine").finish_non_exhaustive()
    }
}

impl Engine for NoiseEngine {
    fn trying_since(&self) -> Option<Instant> {
        self.timers.trying_since()
    }

    fn awaits(&self, receiver: u32) -> bool {
        let mut initiations = self.initiations.iter().flatten();
        initiations.any(|sent| sent.index == receiver)
    }

    fn is_idle(&self) -> bool {
        let attempts = self.initiations.iter().any(Option::is_some) || self.timers.wants_session();
        self.sessions.is_empty() && !attempts
    }

    fn session_age(&self, now: Instant) -> Option<Duration> {
        let current = self.sessions.current();
        current
            .filter(|session| session.can_seal(now))
            .map(|session| session.age(now))
    }

    fn seal<T>(
        &mut self,
        plaintexts: &Batch<T>,
        endpoint: SocketAddr,
        now: Instant,
        out: &mut Datagrams,
    ) {
        let session = self.sessions.current_mut();
        let Some(session) = session.filter(|session| session.can_seal(now)) else {
            return;
        };
        let (texts, entries) = plaintexts.runs();
        for entries in entries.chunks(RUN) {
            let texts = entries.iter().map(|(range, _)| &texts[range.clone()]);
            // Room for a whole run costs as much as a short message does.
            match entries.len() {
                0 | 1 => seal_run::<1>(session, texts, endpoint, out),
                2..=8 => seal_run::<8>(session, texts, endpoint, out),
                _ => seal_run::<RUN>(session, texts, endpoint, out),
            }
        }
        if !plaintexts.is_empty() {
            self.timers.sent_data(now);
            self.sent(now);
        }
    }

    fn keepalive(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        let session = self.sessions.current_mut();
        let written = session
            .filter(|session| session.can_seal(now))
            .is_some_and(|session| session.keepalive(out));
        if written {
            self.sent(now);
        }
        written
    }

    fn open<'a>(
        &mut self,
        messages: impl Iterator<Item = &'a [u8]>,
        now: Instant,
        out: &mut Batch<Opened>,
    ) {
        arrivals::open(self, messages, now, out);
    }

    fn handle_handshake(
        &mut self,
        message: &[u8],
        now: Instant,
        reply: &mut Vec<u8>,
    ) -> Result<Handshake, Reject> {
        reply.clear();
        match wireguard::Message::parse(message)? {
            wireguard::Message::Initiation => self.handle_initiation(message, now, reply),
            wireguard::Message::Response { receiver } => {
                self.handle_response(message, receiver, reply)
            }
            wireguard::Message::Cookie { .. } => {
                self.signer.take(message, now)?;
                Ok(Handshake::Done)
            }
            wireguard::Message::Data { .. } => Err(Reject::WgMalformed),
        }
    }

    fn initiate(&mut self, again: bool, now: Instant, out: &mut Vec<u8>) -> bool {
        out.clear();
        if self.timers.is_trying() && !again {
            return false;
        }
        let index = self.next_index();
        let stamp = self.memory.stamps.next(crate::io::clock::since_epoch());
        let sent = random().and_then(|random| self.keys.initiate(&random, index, &stamp, now, out));
        let Some(initiation) = sent else {
            out.clear();
            return false;
        };
        self.signer.sign(index, now, out);
        let [last, before] = &mut self.initiations;
        *before = last.replace(initiation);
        self.timers.initiated(index, now);
        true
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Vec<u8>) -> Timeout {
        out.clear();
        self.sessions.expire(now);
        let waits = |sent: Instant| now.saturating_duration_since(sent) < REKEY_ATTEMPT_TIME;
        for initiation in &mut self.initiations {
            initiation.take_if(|initiation| !waits(initiation.sent));
        }
        let written = match self.timers.handle_timeout(now) {
            Due::Nothing => false,
            Due::Initiation => self.initiate(true, now, out),
            Due::Keepalive => self.keepalive(now, out),
            Due::GiveUp => {
                self.initiations = [None, None];
                return Timeout::Expired;
            }
        };
        match written {
            true => Timeout::Send,
            false => Timeout::Idle,
        }
    }
}

#[cfg(test)]
mod tests;
