//! What a change of keys asks of a pair: whether it is still wanted, how it tries, and how it ends.

use super::Lane;
use crate::batch::{Batch, Datagrams};
use crate::key::PublicKey;
use crate::lane::LaneNumber;
use crate::node::NodeId;
use crate::own_key::OwnKey;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

impl Lane {
    /// This node's key in it.
    pub(crate) fn key(&self) -> &Arc<OwnKey> {
        &self.key
    }

    /// Whether this lane is what a state and a key of ours ask for, so that its sessions may go on. One that is to end
    /// begins nothing again.
    pub(crate) fn serves(
        &self,
        peer: NodeId,
        (own, key): (LaneNumber, &PublicKey),
        desired: &crate::state::Lane,
    ) -> bool {
        (self.peer, self.own, self.public_key) == (peer, own, desired.public_key)
            && self.key.public == *key
            && self.preshared_key == desired.preshared_key
            && self.awaits_key == desired.awaits_key()
            && !self.is_ending()
    }

    /// Whether this node wants anything of it: it has a session or asks for one.
    pub(crate) fn is_alive(&self, now: Instant) -> bool {
        if !self.awake.load(Ordering::Relaxed) {
            return false;
        }
        let state = self.lock();
        let active = state.active.as_ref().filter(|_| !state.closed);
        active.is_some_and(|active| active.is_ready(now) || active.is_wanted())
    }

    /// Whether a session is wanted that is not there.
    pub(crate) fn is_seeking(&self, now: Instant) -> bool {
        if !self.awake.load(Ordering::Relaxed) {
            return false;
        }
        let state = self.lock();
        let active = state.active.as_ref().filter(|_| !state.closed);
        active.is_some_and(|active| !active.is_ready(now) && active.is_wanted())
    }

    /// Whether another pair has taken its place.
    pub(crate) fn is_ending(&self) -> bool {
        let state = self.lock();
        state.closed || state.withdrawn
    }

    /// Whether it was ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Asks for a session that nobody needs, once, if that was not done for as long as `pause`: the peer may know this
    /// pair by now, and have no reason to begin itself.
    pub(crate) fn knock(&self, pause: Duration, now: Instant, out: &mut Datagrams) {
        let state = &mut *self.lock();
        let lately = |at| now.saturating_duration_since(at) < pause;
        // Whoever has an engine has a session, or tries.
        let tries = state.active.is_some() || state.knocked.is_some_and(lately);
        if tries || self.asks_at(state.endpoint).is_none() || state.closed || state.withdrawn {
            return;
        }
        state.knocked = Some(now);
        let active = self.wake(&mut state.active, state.memory);
        active.knocks = true;
        active.initiate(false, state.endpoint, now, out);
    }

    /// Makes no session any more, for another pair has taken this one's place. Returns whether nothing has come by the last
    /// session for `quiet`, or there is none: then the lane can be ended.
    pub(crate) fn withdraw(&self, quiet: Duration, now: Instant) -> bool {
        let mut state = self.lock();
        state.withdrawn = true;
        let active = state.active.as_ref().filter(|active| active.is_ready(now));
        active.is_none_or(|active| {
            let lately = |at| now.saturating_duration_since(at) < quiet;
            !active.last_received.is_some_and(lately)
        })
    }

    /// Ends the lane, and wipes its keys; what still waited is the caller's.
    pub(crate) fn close(&self) -> Batch<()> {
        let mut state = self.lock();
        state.closed = true;
        for shown in [&self.awake, &self.proven, &self.silent, &self.released] {
            shown.store(false, Ordering::Relaxed);
        }
        let active = state.active.take();
        active.map_or_else(Batch::default, |mut active| active.waiting.take())
    }
}
