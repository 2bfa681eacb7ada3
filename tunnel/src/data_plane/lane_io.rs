//! What a lane of this node has of the kernel's: a queue of the TAP, its sockets, and the gates and times of its threads.

use super::gate::Gate;
use super::heard::Heard;
use crate::io::clock;
use crate::io::tap::Tap;
use crate::io::thread_time::ThreadTime;
use crate::io::udp::{Sockets, UdpSockets};
use crate::lane::LaneNumber;
use crate::offload::Offloads;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Descriptors of one lane that the keeper handed on.
#[derive(Debug)]
pub struct InheritedLane {
    /// A queue of the TAP.
    pub tap: OwnedFd,
    /// The UDP sockets of data messages.
    pub udp: Sockets,
    /// The UDP sockets of all else.
    pub handshakes: Sockets,
}

/// One lane of this node.
#[derive(Debug)]
pub(super) struct LaneIo {
    pub(super) number: LaneNumber,
    pub(super) tap: Tap,
    pub(super) udp: UdpSockets,
    pub(super) handshakes: UdpSockets,
    pub(super) tap_gate: Gate,
    pub(super) udp_gate: Gate,
    /// How far the thread has come that reads `udp`.
    pub(super) heard: Heard,
    pub(super) tap_time: ThreadTime,
    pub(super) udp_time: ThreadTime,
}

impl LaneIo {
    /// `taking_over`: a predecessor reads these sockets as well, and passes on what is not its own.
    pub(super) fn new(
        number: LaneNumber,
        inherited: InheritedLane,
        offloads: &Arc<Offloads>,
        taking_over: bool,
    ) -> io::Result<Self> {
        Ok(Self {
            number,
            tap: Tap::inherit(inherited.tap),
            udp: UdpSockets::inherit(inherited.udp, Arc::clone(offloads))?,
            handshakes: UdpSockets::inherit(inherited.handshakes, Arc::clone(offloads))?,
            tap_gate: Gate::new(false)?,
            udp_gate: Gate::new(taking_over)?,
            heard: Heard::new(clock::now()),
            tap_time: ThreadTime::default(),
            udp_time: ThreadTime::default(),
        })
    }

    /// The name of one of its threads.
    pub(super) fn thread(&self, does: &str) -> String {
        format!("{does}-{}", self.number)
    }
}
