//! Who said what of WireGuard's handshakes and keepalives on a link, in order, message by message.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};

use crate::io::PacketRing;
use crate::lab::Link;
use crate::sniffer::{Transport, decode};

/// How long the thread rests when the ring is empty.
const REST: Duration = Duration::from_millis(2);
/// Frames taken from the ring in one turn.
const TURN: usize = 4096;

/// The messages that are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageKind {
    /// Type 1.
    Initiation,
    /// Type 2.
    Response,
    /// Type 3.
    Cookie,
    /// Type 4 without a packet in it.
    Keepalive,
}

/// One message on the wire.
#[derive(Clone, Debug)]
pub struct WireMessage {
    /// When the kernel saw it.
    pub at: SystemTime,
    /// Who said it.
    pub from: SocketAddr,
    /// To whom.
    pub to: SocketAddr,
    /// What it is.
    pub kind: MessageKind,
    /// All of it, from the type on.
    pub bytes: Vec<u8>,
    /// The frame that carried it, from the Ethernet header on. Its UDP checksum may be left to the device.
    pub frame: Vec<u8>,
}

impl WireMessage {
    /// Whether an initiation or a response proves its source by a cookie: its second MAC is not zero.
    #[must_use]
    pub fn has_cookie(&self) -> bool {
        matches!(self.kind, MessageKind::Initiation | MessageKind::Response)
            && self
                .bytes
                .last_chunk::<16>()
                .is_some_and(|mac2| *mac2 != [0; 16])
    }
}

/// A thread that logs the handshakes and keepalives of one link. Dropping it stops it.
#[derive(Debug)]
pub struct WireLog {
    log: Arc<Mutex<Vec<WireMessage>>>,
    /// How often the thread has emptied the ring.
    emptied: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl WireLog {
    /// Starts to log.
    ///
    /// # Errors
    /// When the link cannot be opened.
    pub fn start(link: &Link) -> Result<Self> {
        let mut ring = PacketRing::open(&link.netns, &link.device)?;
        let (log, stop) = (
            Arc::<Mutex<Vec<WireMessage>>>::default(),
            Arc::new(AtomicBool::new(false)),
        );
        let (shared, stopped) = (Arc::clone(&log), Arc::clone(&stop));
        let emptied = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&emptied);
        let thread = thread::Builder::new().name("wire-log".into());
        let thread = thread
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    let mut said = Vec::new();
                    let seen = ring.drain(TURN, |frame| {
                        said.extend(message(frame.bytes, frame.length, frame.at));
                    });
                    shared
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .append(&mut said);
                    if seen < TURN {
                        counted.fetch_add(1, Ordering::Release);
                    }
                    if seen == 0 {
                        thread::sleep(REST);
                    }
                }
            })
            .context("failed to start the log of a link")?;
        Ok(Self {
            log,
            emptied,
            stop,
            thread: Some(thread),
        })
    }

    /// What was said until now, up to the last message.
    #[must_use]
    pub fn messages(&self) -> Vec<WireMessage> {
        // The turn that is under way may have begun before; the one after it sees all.
        let goal = self.emptied.load(Ordering::Acquire) + 2;
        let ended = || self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        while self.emptied.load(Ordering::Acquire) < goal && !ended() {
            thread::sleep(REST);
        }
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The same of one kind by one address.
    #[must_use]
    pub fn said_by(&self, from: SocketAddr, kind: MessageKind) -> Vec<WireMessage> {
        let mut messages = self.messages();
        messages.retain(|message| message.from == from && message.kind == kind);
        messages
    }

    /// Forgets what was said so far.
    pub fn clear(&self) {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

impl Drop for WireLog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn message(frame: &[u8], whole: usize, at: SystemTime) -> Option<WireMessage> {
    let decoded = decode(frame, whole, None);
    let (source, destination) = decoded.addresses?;
    let Transport::Udp {
        from,
        to,
        length,
        head,
    } = decoded.transport
    else {
        return None;
    };
    let kind = match (head.as_slice(), length) {
        ([1, 0, 0, 0, ..], 148) => MessageKind::Initiation,
        ([2, 0, 0, 0, ..], 92) => MessageKind::Response,
        ([3, 0, 0, 0, ..], 64) => MessageKind::Cookie,
        ([4, 0, 0, 0, ..], 32) => MessageKind::Keepalive,
        _ => return None,
    };
    // No frame of these is short enough to be filled up by Ethernet.
    let start = frame.len().checked_sub(length)?;
    Some(WireMessage {
        at,
        from: SocketAddr::new(source, from),
        to: SocketAddr::new(destination, to),
        kind,
        bytes: frame[start..].to_vec(),
        frame: frame.to_vec(),
    })
}
