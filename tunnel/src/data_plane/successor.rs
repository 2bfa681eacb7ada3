//! Takes over from the data plane that runs already (see [`crate::handover`]).

use super::{DataPlane, spawn};
use crate::handover::{self, Inheritance, Message, Predecessor, Successor, VERSION};
use crate::inbound::Inbound;
use crate::io::{clock, message};
use nix::poll::{PollTimeout, poll};
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

/// How often it looks whether they are there.
const LOOK: Duration = Duration::from_millis(5);

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

    /// Returns when the TAP is ours; a thread that becomes `udp` takes what the predecessor passes
    /// on until the sockets are.
    pub(super) fn take_over(
        self: &Arc<Self>,
        predecessor: BufReader<UnixStream>,
    ) -> io::Result<()> {
        let stream = predecessor.get_ref().try_clone()?;
        let (given, tap) = mpsc::channel();
        spawn("udp", self, move |plane| {
            if let Err(error) = plane.carry_passed_on(predecessor, &given) {
                warn!(%error, "predecessor went away: the rest is taken over at once");
            }
            plane.taking_over.store(false, Ordering::Relaxed);
            plane.handshakes_gate.open();
            // Says that the TAP is ours, if that was not said.
            drop(given);
            plane.carry_in()
        })?;
        let end = clock::now() + PATIENCE;
        loop {
            let now = clock::now();
            let missing = self.device.missing(now);
            if missing == 0 || now >= end {
                if missing > 0 {
                    warn!(missing, "takes over without a session with every peer");
                }
                break;
            }
            let _ = poll(
                &mut [],
                PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO),
            );
        }
        // Whether it hears us or is gone: the next message or the end of the stream tells.
        let _ = message::write(&stream, &Successor::Ready);
        loop {
            match tap.recv_timeout(PATIENCE) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                // The keeper ends a predecessor that does not let go.
                Err(RecvTimeoutError::Timeout) => warn!("predecessor still has the TAP"),
            }
        }
    }

    fn carry_passed_on(
        &self,
        mut predecessor: BufReader<UnixStream>,
        tap: &mpsc::Sender<()>,
    ) -> io::Result<()> {
        let mut inbound = Inbound::default();
        while let Some(bytes) = message::read_bytes(&mut predecessor)? {
            match handover::decode(&bytes).map_err(io::Error::other)? {
                Message::Datagram(from, datagram) => {
                    let whole = [(0..datagram.len(), from)];
                    self.deliver(&mut inbound, datagram, whole.into_iter(), clock::now());
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

fn greeting(reader: &mut BufReader<UnixStream>) -> io::Result<Inheritance> {
    message::write(reader.get_ref(), &Successor::Hello { version: VERSION })?;
    let bytes = message::read_bytes(reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    match handover::decode(&bytes).map_err(io::Error::other)? {
        Message::Said(Predecessor::Accepted(inheritance)) => Ok(inheritance),
        Message::Said(_) | Message::Datagram(..) => Err(io::ErrorKind::InvalidData.into()),
    }
}
