//! This node's own lanes: their keys, and whom a session is told of for which packets waited.

use super::Device;
use crate::key::OwnKeys;
use crate::lane::{Lane, LaneNumber};
use crate::outgoing::ByLane;
use crate::own_key::Generations;
use arc_swap::ArcSwap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// One of this node's lanes.
#[derive(Debug)]
pub(super) struct OwnLane {
    keys: ArcSwap<Generations>,
    /// Pairs that a session came for while packets waited.
    released: Mutex<Vec<Arc<Lane>>>,
    has_released: AtomicBool,
}

impl OwnLane {
    pub(super) fn new(keys: OwnKeys) -> Self {
        Self {
            keys: ArcSwap::from_pointee(Generations::new(keys)),
            released: Mutex::default(),
            has_released: AtomicBool::new(false),
        }
    }

    /// The keys by which it is reached now.
    pub(super) fn keys(&self) -> Arc<Generations> {
        self.keys.load_full()
    }

    pub(super) fn set_keys(&self, keys: Generations) {
        self.keys.store(Arc::new(keys));
    }
}

/// Wakes the sending thread of a lane.
pub struct Waker(Box<dyn Fn(LaneNumber) + Send + Sync>);

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waker")
    }
}

impl Device {
    /// Has `wake` called for a lane when there is a session for packets that waited: its sending thread then calls
    /// [`Self::send_released`]. Without this, whoever finds the session leaves them in its own output, which is in order
    /// where one thread does everything. To be called once, before the first [`Self::apply`].
    pub fn wake_by(&self, wake: impl Fn(LaneNumber) + Send + Sync + 'static) {
        // The first one stays.
        let _ = self.waker.set(Waker(Box::new(wake)));
    }

    /// Notices that a session came for what waited on a lane.
    pub(crate) fn note_released(&self, lane: &Arc<Lane>) {
        if !lane.is_released() {
            return;
        }
        if let Some(Waker(wake)) = self.waker.get() {
            let own = self.own(lane.own());
            let mut released = own.released.lock().unwrap_or_else(PoisonError::into_inner);
            released.push(Arc::clone(lane));
            own.has_released.store(true, Ordering::Release);
            wake(lane.own());
        }
    }

    /// Seals what waited for sessions that have come since, in the thread that sends over lane `own`.
    pub fn send_released(&self, own: LaneNumber, now: Instant, out: &mut impl ByLane) {
        let own = self.own(own);
        if !own.has_released.load(Ordering::Acquire) {
            return;
        }
        let mut released = own.released.lock().unwrap_or_else(PoisonError::into_inner);
        own.has_released.store(false, Ordering::Release);
        for lane in released.drain(..) {
            lane.send_released(now, out.of(lane.own()));
        }
    }
}
