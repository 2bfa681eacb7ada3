//! Takes over from the data plane that runs already (see [`crate::handover`]).

use super::DataPlane;
use crate::handover::{self, Inheritance, Message, Predecessor, Successor, VERSION};
use crate::inbound::Inbound;
use crate::io::{clock, message};
use crate::outgoing::PerLane;
use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use tracing::{info, warn};

/// How long it waits for new sessions with all peers that had one. Who has not answered by then may
/// be dead, and would not hear the predecessor either.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often it tries again with those that are missing: a message of a handshake may be lost.
const PRESS: Duration = Duration::from_secs(1);

/// How often it looks whether they are there.
const LOOK: Duration = Duration::from_millis(10);

/// Room for a burst of datagrams that the predecessor passes on.
const BUFFER: usize = 256 << 10;

impl DataPlane {
    /// Learns what the predecessor has. Until then nothing is ours: where it does not answer, this
    /// process ends, and the keeper sees to it that one is left.
    pub(super) fn greet(&self, stream: UnixStream) -> io::Result<BufReader<UnixStream>> {
        let mut reader = BufReader::with_capacity(BUFFER, stream);
        let inheritance = greeting(&mut reader)?;
        info!(in_use = inheritance.in_use.len(), "takes over");
        self.device.inherit(inheritance);
        self.taking_over.store(true, Ordering::Relaxed);
        Ok(reader)
    }

    /// A thread takes what the predecessor passes on until the sockets are ours, and lets their own threads in then.
    /// It starts before there is a table: a stream that nobody reads would hold up the predecessor.
    pub(super) fn listen_to(
        self: &Arc<Self>,
        predecessor: BufReader<UnixStream>,
    ) -> io::Result<Takeover> {
        let stream = predecessor.get_ref().try_clone()?;
        let (given, tap) = mpsc::channel();
        let plane = Arc::clone(self);
        let takes = move || {
            if let Err(error) = plane.carry_passed_on(predecessor, &given) {
                if error.kind() != io::ErrorKind::UnexpectedEof {
                    // It lives and carries; the keeper sees to it that one is left.
                    tracing::error!(%error, "takeover failed");
                    std::process::abort();
                }
                warn!("predecessor went away: the rest is taken over at once");
            }
            plane.taking_over.store(false, Ordering::Relaxed);
            for lane in &plane.lanes {
                lane.udp_gate.open();
            }
            plane.handshakes_gate.open();
            plane.freeze(false);
            // Says that the TAP is ours, if that was not said.
            drop(given);
        };
        let thread = std::thread::Builder::new().name("legacy".to_owned());
        thread.spawn(takes)?;
        Ok(Takeover { stream, tap })
    }

    /// Returns when the TAP is ours.
    pub(super) fn take_over(&self, takeover: &Takeover) -> io::Result<()> {
        if self.device.table().is_none() && self.device.has_inherited_lanes() {
            // The predecessor has a state in force and may carry packets by it.
            return Err(io::Error::other(
                "kept state cannot be used: the predecessor goes on",
            ));
        }
        let start = clock::now();
        let mut pressed = start;
        loop {
            let now = clock::now();
            let press = now.saturating_duration_since(pressed) >= PRESS;
            let mut out = PerLane::default();
            let missing = self.device.missing(press, now, &mut out);
            if press {
                pressed = now;
                self.transmit(&out);
            }
            let waited = now.saturating_duration_since(start);
            if missing == 0 || waited >= PATIENCE {
                if missing > 0 {
                    warn!(missing, "takes over without a session with every peer");
                }
                break;
            }
            if let Ok(()) | Err(RecvTimeoutError::Disconnected) = takeover.tap.recv_timeout(LOOK) {
                return Ok(());
            }
        }
        // Whether it hears us or is gone: the next message or the end of the stream tells.
        let _ = message::write(&takeover.stream, &Successor::Ready);
        // The keeper ends a predecessor that does not let go, or this process.
        let _ = takeover.tap.recv();
        Ok(())
    }

    fn carry_passed_on(
        &self,
        mut predecessor: BufReader<UnixStream>,
        tap: &mpsc::Sender<()>,
    ) -> io::Result<()> {
        let numbers = self.lanes.iter().map(|lane| lane.number);
        let mut inbound: Vec<Inbound> = numbers.map(Inbound::new).collect();
        while let Some(bytes) = message::read_bytes(&mut predecessor)? {
            match handover::decode(&bytes).map_err(io::Error::other)? {
                Message::Datagram(number, from, datagram) => {
                    let whole = [(0..datagram.len(), from)];
                    let lane = self.lanes.get(number.index());
                    if let Some((lane, inbound)) = lane.zip(inbound.get_mut(number.index())) {
                        self.deliver(lane, inbound, datagram, whole.into_iter(), clock::now());
                    }
                }
                // Nobody listens only when the process ends.
                Message::Said(Predecessor::Tap) => drop(tap.send(())),
                Message::Said(Predecessor::Udp(counters)) => {
                    self.device.add_counters(&counters);
                    info!("took over");
                    return Ok(());
                }
                Message::Said(Predecessor::Accepted(_)) => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// The way to a predecessor, while it has something.
pub(super) struct Takeover {
    stream: UnixStream,
    /// Says when the TAP is ours.
    tap: mpsc::Receiver<()>,
}

fn greeting(reader: &mut BufReader<UnixStream>) -> io::Result<Inheritance> {
    let pid = nix::unistd::getpid().as_raw();
    let hello = Successor::Hello {
        version: VERSION,
        pid,
    };
    message::write(reader.get_ref(), &hello)?;
    let bytes = message::read_bytes(reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    match handover::decode(&bytes).map_err(io::Error::other)? {
        Message::Said(Predecessor::Accepted(inheritance)) => Ok(inheritance),
        Message::Said(_) | Message::Datagram(..) => Err(io::ErrorKind::InvalidData.into()),
    }
}
