//! Hands over to a data plane that shall take this one's place (see [`crate::handover`]).

use super::DataPlane;
use crate::handover::{self, Predecessor, Successor, VERSION};
use crate::inbound::Inbound;
use crate::io::udp::Received;
use crate::io::{clock, descriptor_pass, message};
use crate::outbound::Outbound;
use crate::reject::Reject;
use std::io;
use std::net::SocketAddr;
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
}

impl DataPlane {
    /// Waits for successors, for ever: whoever has handed over ends the process.
    pub(super) fn await_heirs(&self, keeper: &UnixStream) -> io::Result<()> {
        loop {
            let Some(fd) = descriptor_pass::receive(keeper)? else {
                return Err(io::Error::other("the keeper is gone"));
            };
            let error = match self.hand_over(UnixStream::from(fd)) {
                Ok(()) => {
                    info!("handed over");
                    std::process::exit(0);
                }
                Err(error) => error,
            };
            if is_stalled(&error) {
                // It lives and would believe itself alone: two must not carry the same packets.
                warn!("successor does not answer: left alone with everything");
                std::process::exit(0);
            }
            warn!(%error, "successor went away: goes on");
            self.go_on();
        }
    }

    fn hand_over(&self, stream: UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // One that says nothing has nothing yet: it is left behind, and ends when it looks.
        match message::read(&stream).map_err(|_| io::Error::other("it said nothing"))? {
            Some(Successor::Hello { version: VERSION }) => {}
            Some(Successor::Hello { version }) => {
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
        self.freeze(true);
        let heir = Arc::new(Heir {
            stream: Mutex::new(stream.try_clone()?),
        });
        heir.say(&Predecessor::Accepted(
            self.device.inheritance(clock::now()),
        ))?;
        self.heir.store(Some(Arc::clone(&heir)));
        // Its own patience with its peers is shorter than ours with it.
        stream.set_read_timeout(Some(2 * LINGER))?;
        match message::read(&stream)? {
            Some(Successor::Ready) => {}
            Some(Successor::Hello { .. }) => return Err(io::ErrorKind::InvalidData.into()),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        self.tap_gate.close()?;
        heir.say(&Predecessor::Tap)?;
        self.linger(&stream)?;
        self.udp_gate.close()?;
        self.handshakes_gate.close()?;
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
                Err(error) if is_stalled(&error) => {}
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
    fn go_on(&self) {
        self.heir.store(None);
        self.tap_gate.open();
        self.udp_gate.open();
        self.handshakes_gate.open();
        self.freeze(false);
        let mut out = Outbound::default();
        self.device.rekey(None, clock::now(), &mut out.datagrams);
        self.udp.send(&out.datagrams, self.device.drops());
    }

    /// Opens what is for this data plane, then passes on the rest, in this order: a peer that has
    /// turned to the new session sent the old one's packets before.
    pub(super) fn share(
        &self,
        heir: &Heir,
        inbound: &mut Inbound,
        received: &Received,
        now: Instant,
    ) {
        let bytes = received.bytes();
        let (ours, others): (Vec<_>, Vec<_>) = received
            .datagrams()
            .partition(|(range, _)| self.device.expects(&bytes[range.clone()]));
        self.deliver(inbound, bytes, ours.into_iter(), now);
        let mut message = Vec::new();
        for (range, from) in others {
            let from: SocketAddr = from;
            handover::encode_datagram(&mut message, from, &bytes[range]);
            if let Err(error) = heir.write(&message) {
                if is_stalled(&error) {
                    // Half a message may be written: the stream is of no use any more.
                    warn!("successor takes no datagrams: left alone with everything");
                    std::process::exit(0);
                }
                // It is gone; the thread that waits for its word learns of it as well.
                self.device.drops().count(Reject::WgUnknownIndex);
            }
        }
    }
}

/// Whether the other side lives and says nothing.
fn is_stalled(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
