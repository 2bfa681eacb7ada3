//! A session: two keys, counters, and who began it (whitepaper, section 5.4.6).

use super::handshake::SessionKeys;
use super::replay::Window;
use super::timers::{REJECT_AFTER_TIME, REKEY_AFTER_TIME, REKEY_ON_RECEIVE};
use crate::aead::{Cipher, Key, Message, TAG_LEN};
use crate::reject::Reject;
use crate::wireguard::REJECT_AFTER_MESSAGES;
use std::time::{Duration, Instant};

/// Messages after which a session is renewed.
const REKEY_AFTER_MESSAGES: u64 = 1 << 60;

/// What stands in front of a text: type (4), the receiver's index (4), counter (8).
pub(super) const HEADER_LEN: usize = 16;

/// One session. Its keys wipe themselves.
pub(super) struct Session {
    /// Our index.
    pub(super) local: u32,
    /// The peer has shown that it has the session too.
    pub(super) confirmed: bool,
    remote: u32,
    is_initiator: bool,
    born: Instant,
    sending: Key,
    receiving: Key,
    /// The counter of the next message.
    next: u64,
    window: Window,
}

impl Session {
    /// Of a handshake that we began, whose answer confirms the session, or of one that we answered.
    pub(super) fn new(keys: &SessionKeys, is_initiator: bool, now: Instant) -> Box<Self> {
        Box::new(Self {
            local: keys.local,
            confirmed: is_initiator,
            remote: keys.remote,
            is_initiator,
            born: now,
            sending: Key::new(&keys.sending, Cipher::chosen()),
            receiving: Key::new(&keys.receiving, Cipher::chosen()),
            next: 0,
            window: Window::new(),
        })
    }

    /// How old it is.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.born)
    }

    /// Whether it is too old for anything.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.age(now) >= REJECT_AFTER_TIME
    }

    /// Whether it may seal a message.
    pub(super) fn can_seal(&self, now: Instant) -> bool {
        !self.is_over(now) && self.next < REJECT_AFTER_MESSAGES
    }

    /// Whether whoever sends on it renews it: its initiator by age, both by use.
    pub(super) fn is_worn(&self, now: Instant) -> bool {
        self.next > REKEY_AFTER_MESSAGES || (self.is_initiator && self.age(now) >= REKEY_AFTER_TIME)
    }

    /// Whether whoever receives on it renews it, so that the sender is not the one who has to stop.
    pub(super) fn is_ending(&self, now: Instant) -> bool {
        self.is_initiator && self.age(now) >= REKEY_ON_RECEIVE
    }

    /// Writes header and text of the next message, and leaves room for the tag: `room` is longer by that than the text.
    /// `None` where the counters are used up.
    pub(super) fn begin<'a>(&mut self, text: &[u8], room: &'a mut [u8]) -> Option<Message<'a>> {
        let counter = self.next;
        if counter >= REJECT_AFTER_MESSAGES {
            return None;
        }
        let (header, bytes) = room.split_at_mut_checked(HEADER_LEN)?;
        let (kind, rest) = header.split_at_mut(4);
        let (receiver, number) = rest.split_at_mut(4);
        kind.copy_from_slice(&[4, 0, 0, 0]);
        receiver.copy_from_slice(&self.remote.to_le_bytes());
        number.copy_from_slice(&counter.to_le_bytes());
        let (place, _) = bytes.split_at_mut_checked(text.len())?;
        place.copy_from_slice(text);
        self.next += 1;
        Some(Message { counter, bytes })
    }

    /// Seals what [`Self::begin`] wrote.
    pub(super) fn seal(&self, messages: &mut [Message<'_>]) {
        self.sending.seal(messages);
    }

    /// Writes a message that carries nothing.
    pub(super) fn keepalive(&mut self, out: &mut Vec<u8>) -> bool {
        out.clear();
        out.resize(HEADER_LEN + TAG_LEN, 0);
        let Some(message) = self.begin(&[], out) else {
            out.clear();
            return false;
        };
        self.sending.seal(&mut [message]);
        true
    }

    /// Whether a message with this counter is worth opening.
    pub(super) fn admit(&self, counter: u64) -> Result<(), Reject> {
        match counter < REJECT_AFTER_MESSAGES && self.window.is_new(counter) {
            true => Ok(()),
            false => Err(Reject::WgReplay),
        }
    }

    /// Opens messages in place; `opened` is told of each whether its tag was right.
    pub(super) fn open(&self, messages: &mut [Message<'_>], opened: impl FnMut(usize, bool)) {
        self.receiving.open(messages, opened);
    }

    /// Remembers the counter of a message that was opened; refuses the second of two.
    pub(super) fn mark(&mut self, counter: u64) -> Result<(), Reject> {
        match self.window.mark(counter) {
            true => Ok(()),
            false => Err(Reject::WgReplay),
        }
    }

    #[cfg(test)]
    pub(super) fn skip_to(&mut self, counter: u64) {
        self.next = counter;
    }
}
