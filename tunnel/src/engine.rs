//! The WireGuard engine behind one lane of one peer, as a trait that takes batches.
//!
//! An engine knows one pair of keys: sessions, their timers and the messages between them. Who may
//! send what, where a peer is reached, what waits for a handshake: all that is [`crate::lane`]'s.

use self::handshake::Stamp;
use self::stamp::Stamps;
use crate::batch::{Batch, Datagrams};
use crate::reject::Reject;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

mod arrivals;
mod cookie;
mod handshake;
mod noise;
mod replay;
mod session;
mod sessions;
mod stamp;
mod timers;
mod transcript;
pub(crate) use self::handshake::initiator;
pub use self::noise::NoiseEngine;
#[cfg(hawser_null_cipher)]
pub mod null;

/// The engine of every lane.
#[cfg(not(hawser_null_cipher))]
pub type LaneEngine = NoiseEngine;
/// The engine of every lane, in a bench.
#[cfg(hawser_null_cipher)]
pub type LaneEngine = null::NullEngine;

/// What a session takes.
#[cfg(test)]
pub(crate) const SESSION_LEN: usize = size_of::<session::Session>();

/// Whether this build sends packets in clear, as only a bench wants it.
pub const NULL_CIPHER: bool = cfg!(hawser_null_cipher);

/// The longest message of a handshake, in bytes.
pub const HANDSHAKE_MAX: usize = 148;

/// What a data message costs on top of its plaintext: header (16) and tag (16).
pub const DATA_OVERHEAD: usize = 32;

/// What became of a handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// Nothing more to do.
    Done,
    /// Its sender proved to be the peer; the reply that was written goes back to it.
    Reply,
}

/// What a timer led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Nothing.
    Idle,
    /// A message was written that goes to the peer.
    Send,
    /// Nobody answered for as long as one tries: the attempt is over.
    Expired,
}

/// A message that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The plaintext of one data message.
    Packet,
    /// A keepalive: it proves the peer and carries nothing.
    Keepalive,
    /// It did not open.
    Rejected(Reject),
}

/// What outlives an engine, so that the next one with the same keys goes on where it stopped.
#[derive(Clone, Copy)]
pub struct Memory {
    /// The stamp of the peer's newest initiation: whoever repeats an older one is refused.
    heard: Stamp,
    /// The stamps of our own.
    stamps: Stamps,
    /// The last of our indices; the low eight bits count.
    index: u32,
}

impl Memory {
    /// Of an engine that never was. `index` is the random upper 24 bits of its session indices.
    pub fn new(index: u32) -> Self {
        Self {
            heard: Stamp::default(),
            stamps: Stamps::default(),
            index: index << 8,
        }
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

/// One pair of WireGuard keys.
pub trait Engine: Send + std::fmt::Debug {
    /// How long ago the handshake of the session in use was; `None` without a session.
    fn session_age(&self, now: Instant) -> Option<Duration>;

    /// Since when a handshake of ours runs that nobody has answered.
    fn trying_since(&self) -> Option<Instant> {
        None
    }

    /// Whether there is nothing in it that anybody can still use: no session, no attempt at one.
    fn is_idle(&self) -> bool {
        false
    }

    /// Seals every plaintext in order, each as a message to `endpoint`. There must be a session.
    /// Plaintexts are whole cipher blocks already.
    fn seal<T>(
        &mut self,
        plaintexts: &Batch<T>,
        endpoint: SocketAddr,
        now: Instant,
        out: &mut Datagrams,
    );

    /// Writes a message that carries nothing and proves who sent it and from where; `false` without
    /// a session.
    fn keepalive(&mut self, now: Instant, out: &mut Vec<u8>) -> bool;

    /// Opens data messages in order: one entry in `out` for each.
    fn open<'a>(
        &mut self,
        messages: impl Iterator<Item = &'a [u8]>,
        now: Instant,
        out: &mut Batch<Opened>,
    );

    /// Whether an answer to one of our initiations with this index is worth looking at.
    fn awaits(&self, _receiver: u32) -> bool {
        true
    }

    /// Takes a handshake message whose first MAC was checked.
    fn handle_handshake(
        &mut self,
        message: &[u8],
        now: Instant,
        reply: &mut Vec<u8>,
    ) -> Result<Handshake, Reject>;

    /// Starts a handshake, or repeats the initiation of the one that runs where `again` says so.
    /// Returns whether a message was written.
    fn initiate(&mut self, again: bool, now: Instant, out: &mut Vec<u8>) -> bool;

    /// Advances the timers: retransmission, rekey, keepalive, erasure.
    fn handle_timeout(&mut self, now: Instant, out: &mut Vec<u8>) -> Timeout;
}
