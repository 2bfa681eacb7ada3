//! The sessions of one pair of keys: the one to send on, and those that may still receive.

use super::session::Session;
use std::time::Instant;

/// Sessions that are kept of each kind, confirmed or not. The whitepaper has three in all; with more, handshakes that
/// cross or follow each other faster than a round trip lose nothing. They are rare, and so are more than two sessions.
const KEPT: usize = 4;

/// All sessions.
#[derive(Default)]
pub(super) struct Sessions {
    /// The newest first.
    #[expect(
        clippy::vec_box,
        reason = "a session that moved would leave a copy of its keys"
    )]
    list: Vec<Box<Session>>,
    /// Our index of the newest that is confirmed: to send on.
    current: Option<u32>,
}

impl Sessions {
    /// The session to send on.
    pub(super) fn current(&self) -> Option<&Session> {
        self.current.and_then(|index| self.of(index))
    }

    /// The session to send on.
    pub(super) fn current_mut(&mut self) -> Option<&mut Session> {
        self.current.and_then(|index| self.of_mut(index))
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The session with our `index`.
    pub(super) fn of(&self, index: u32) -> Option<&Session> {
        let mut all = self.list.iter().map(Box::as_ref);
        all.find(|session| session.local == index)
    }

    /// The session with our `index`.
    pub(super) fn of_mut(&mut self, index: u32) -> Option<&mut Session> {
        let mut all = self.list.iter_mut().map(Box::as_mut);
        all.find(|session| session.local == index)
    }

    /// Takes a new session. One that is confirmed is the one to send on.
    pub(super) fn add(&mut self, session: Box<Session>) {
        if session.confirmed {
            self.current = Some(session.local);
        }
        self.list.insert(0, session);
        let current = self.current;
        for kind in [true, false] {
            let mut room = KEPT;
            self.list.retain(|session| {
                let kept = session.confirmed != kind || room > 0 || Some(session.local) == current;
                room = room.saturating_sub(usize::from(session.confirmed == kind));
                kept
            });
        }
    }

    /// A message of the session with our `index` was opened: the peer has it. Returns whether it is now the one to send
    /// on, and was not before.
    pub(super) fn confirm(&mut self, index: u32) -> bool {
        let place = |index| self.list.iter().position(|session| session.local == index);
        let Some(at) = place(index) else {
            return false;
        };
        let newer = self
            .current
            .and_then(place)
            .is_none_or(|current| at < current);
        self.list[at].confirmed = true;
        if newer {
            self.current = Some(index);
        }
        newer
    }

    /// Forgets sessions that are too old.
    pub(super) fn expire(&mut self, now: Instant) {
        self.list.retain(|session| !session.is_over(now));
        self.current = self.current().map(|session| session.local);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }
}
