//! Packets that wait for a handshake: never in clear, never lost without a name.

use crate::batch::Batch;
use crate::reject::{Drops, Reject};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Packets that wait at most, for each lane. A handshake takes one round trip; this is what a pod
/// sends in that time at 10,000 packets a second over 25 ms, and 400 kB at most.
pub const MAX_WAITING: usize = 256;

/// How long a packet waits: as long as WireGuard tries (REKEY_ATTEMPT_TIME). Later, whoever sent it
/// has sent it again.
const MAX_AGE: Duration = Duration::from_secs(90);

/// A bounded queue that forgets the oldest first.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    packets: VecDeque<(Instant, Vec<u8>)>,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }

    /// Takes a packet; the oldest makes room where there is none, for this reason.
    pub(super) fn push(&mut self, packet: &[u8], now: Instant, (full, drops): (Reject, &Drops)) {
        if self.packets.len() >= MAX_WAITING {
            self.packets.pop_front();
            drops.count(full);
        }
        self.packets.push_back((now, packet.to_vec()));
    }

    /// Forgets packets that nobody wants any more, for this reason.
    pub(super) fn expire(&mut self, now: Instant, (expired, drops): (Reject, &Drops)) {
        while let Some((since, _)) = self.packets.front() {
            if now.saturating_duration_since(*since) < MAX_AGE {
                break;
            }
            self.packets.pop_front();
            drops.count(expired);
        }
    }

    /// All packets, in order.
    pub(super) fn take(&mut self) -> Batch<()> {
        let mut batch = Batch::default();
        // With the room that they took: most lanes never need it again.
        for (_, packet) in std::mem::take(&mut self.packets) {
            batch.push(&packet, ());
        }
        batch
    }
}
