//! Hands over to a data plane that shall take this one's place (see [`crate::handover`]).

use super::DataPlane;
use super::lane_io::LaneIo;
use crate::handover::{self, Predecessor, Successor, VERSION};
use crate::inbound::Inbound;
use crate::io::udp::Received;
use crate::io::{clock, descriptor_pass, message};
use crate::outgoing::PerLane;
use crate::reject::Reject;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How long a successor may take to say hello, and to take a message.
const PATIENCE: Duration = Duration::from_secs(2);

/// No packet of an old session for so long: nobody sends over one any more. Longer than the way
/// round the earth.
const QUIET: Duration = Duration::from_millis(400);

/// However busy the old sessions are: what still comes over them comes from who cannot be reached.
const LINGER: Duration = Duration::from_secs(3);

/// How often it looks whether they are quiet.
const LOOK: Duration = Duration::from_millis(20);

/// The way to a successor.
#[derive(Debug)]
pub(super) struct Heir {
    stream: Mutex<UnixStream>,
}

impl Heir {
    fn say(&self, said: &Predecessor) -> io::Result<()> {
        self.write(&handover::encode(said)?)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        message::write_bytes(&*stream, bytes)
    }

    /// Writes what must come before all else that `publish` lets others write.
    fn write_first(&self, bytes: &[u8], publish: impl FnOnce()) -> io::Result<()> {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        publish();
        message::write_bytes(&*stream, bytes)
    }

    /// Ends the stream for both sides.
    fn hang_up(&self) {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// How far a handover has come.
#[derive(Debug, Default)]
struct Progress {
    /// The successor's process, once it has said hello.
    successor: Option<i32>,
    /// The successor knows the lanes, and peers may turn to its sessions.
    accepted: bool,
}

impl DataPlane {
    /// Waits for successors, for ever: whoever has handed over ends the process.
    pub(super) fn await_heirs(&self, keeper: &UnixStream) -> io::Result<()> {
        loop {
            let Some(fd) = descriptor_pass::receive(keeper)? else {
                return Err(io::Error::other("the keeper is gone"));
            };
            let mut progress = Progress::default();
            let Err(error) = self.hand_over(&UnixStream::from(fd), &mut progress) else {
                info!("handed over");
                std::process::exit(0);
            };
            if let Some(pid) = progress.successor.filter(|_| !is_gone(&error)) {
                // It lives and may carry what this one will: two must not.
                warn!(%error, pid, "successor is ended");
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            warn!(%error, "successor failed: goes on");
            self.go_on(&progress);
        }
    }

    fn hand_over(&self, stream: &UnixStream, progress: &mut Progress) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        match message::read(stream)? {
            Some(Successor::Hello { version, pid }) if version == VERSION => {
                progress.successor = Some(pid);
            }
            Some(Successor::Hello { version, .. }) => {
                warn!(
                    version,
                    ours = VERSION,
                    "successor speaks another version: ends for it"
                );
                return Ok(());
            }
            Some(Successor::Ready) => return Err(io::ErrorKind::InvalidData.into()),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        info!("hands over");
        let heir = Arc::new(Heir {
            stream: Mutex::new(stream.try_clone()?),
        });
        self.freeze(true);
        progress.accepted = true;
        // What its sessions bring is passed on from the first moment.
        let inheritance = self.device.inheritance(clock::now());
        let accepted = handover::encode(&Predecessor::Accepted(inheritance))?;
        heir.write_first(&accepted, || self.heir.store(Some(Arc::clone(&heir))))?;
        // However long it takes: nothing was given away. The keeper ends one that is stuck.
        stream.set_read_timeout(None)?;
        match message::read(stream)? {
            Some(Successor::Ready) => {}
            Some(Successor::Hello { .. }) => return Err(io::ErrorKind::InvalidData.into()),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        for lane in &self.lanes {
            lane.tap_gate.close()?;
        }
        heir.say(&Predecessor::Tap)?;
        self.linger(stream)?;
        for lane in &self.lanes {
            lane.udp_gate.close()?;
        }
        self.handshakes_gate.close()?;
        self.device.give_up_waiting();
        heir.say(&Predecessor::Udp(self.device.counters()))
    }

    /// Opens what still comes over the old sessions.
    fn linger(&self, stream: &UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(LOOK))?;
        let start = clock::now();
        let (mut heard, mut count) = (start, self.device.counters().rx_packets);
        loop {
            match message::read::<Successor>(stream) {
                Ok(None) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if is_silent(&error) => {}
                Ok(Some(_)) => return Err(io::ErrorKind::InvalidData.into()),
                Err(error) => return Err(error),
            }
            let now = clock::now();
            let packets = self.device.counters().rx_packets;
            if packets != count {
                (heard, count) = (now, packets);
            }
            if now.saturating_duration_since(heard) >= QUIET
                || now.saturating_duration_since(start) >= LINGER
            {
                return Ok(());
            }
        }
    }

    /// Takes everything back. Peers may have turned to sessions of the successor's, which nobody
    /// can open any more.
    fn go_on(&self, progress: &Progress) {
        self.heir.store(None);
        for lane in &self.lanes {
            lane.tap_gate.open();
            lane.udp_gate.open();
        }
        self.handshakes_gate.open();
        self.freeze(false);
        if progress.accepted {
            let mut out = PerLane::default();
            self.device.rekey_in_use(clock::now(), &mut out);
            self.transmit(&out);
        }
    }

    /// Opens what is for this data plane, then passes on the rest, in this order: a peer that has
    /// turned to the new session sent the old one's packets before.
    pub(super) fn share(
        &self,
        heir: &Heir,
        lane: &LaneIo,
        inbound: &mut Inbound,
        received: &Received,
        now: Instant,
    ) {
        let bytes = received.bytes();
        let (ours, others): (Vec<_>, Vec<_>) = received
            .datagrams()
            .partition(|(range, _)| self.device.keeps(lane.number, &bytes[range.clone()]));
        self.deliver(lane, inbound, bytes, ours.into_iter(), now);
        let mut message = Vec::new();
        for (range, from) in others {
            handover::encode_datagram(&mut message, lane.number, from, &bytes[range]);
            if heir.write(&message).is_err() {
                // Half a message may be written: the stream is of no use any more, and its end is
                // what the thread learns by that waits for the successor's word.
                heir.hang_up();
                self.device.drops().count(Reject::WgUnknownIndex);
            }
        }
    }
}

/// Whether the other side has nothing to say for now.
fn is_silent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Whether the other side is gone.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}
