//! Who looks into the tunnel: packets are copied to them, never waited for.

use crate::node::NodeId;
use crate::wireguard::DataHeader;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Packets that wait for a slow reader; more are lost to it alone and counted.
const MAX_WAITING: usize = 4096;

/// Where in the tunnel a packet was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The overlay packet: IPv4, UDP, Geneve, pod packet.
    Geneve,
    /// The pod packet as a frame.
    Plain,
}

/// Which way a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the peer.
    Sent,
    /// From the peer.
    Received,
}

/// A packet that was seen.
#[derive(Clone, Debug)]
pub struct Captured {
    /// Where.
    pub stage: Stage,
    /// Which way.
    pub direction: Direction,
    /// The peer at the other end.
    pub peer: NodeId,
    /// The WireGuard message that carries it, by which it is found on the wire.
    pub message: DataHeader,
    /// The packet or frame, or as much of it as the reader wants.
    pub bytes: Vec<u8>,
    /// Bytes of the whole.
    pub length: usize,
}

/// All who look.
#[derive(Debug, Default)]
pub struct Capture {
    /// How many look; the packet path asks nothing else while it is zero.
    readers: AtomicUsize,
    senders: Mutex<Vec<Reader>>,
}

#[derive(Debug)]
struct Reader {
    wants: Wants,
    sender: SyncSender<Captured>,
    lost: Arc<AtomicUsize>,
}

/// What a reader wants to see.
#[derive(Clone, Copy, Debug)]
pub struct Wants {
    /// Overlay packets.
    pub geneve: bool,
    /// Frames.
    pub plain: bool,
    /// Of one peer alone.
    pub peer: Option<NodeId>,
    /// How much of each, in bytes.
    pub snap_length: usize,
}

impl Wants {
    fn includes(&self, captured: &Captured) -> bool {
        let stage = match captured.stage {
            Stage::Geneve => self.geneve,
            Stage::Plain => self.plain,
        };
        stage && self.peer.is_none_or(|peer| peer == captured.peer)
    }
}

/// One who looks, until dropped.
#[derive(Debug)]
pub struct Subscription<'a> {
    /// The packets.
    pub packets: Receiver<Captured>,
    capture: &'a Capture,
    lost: Arc<AtomicUsize>,
}

impl Subscription<'_> {
    /// Packets that this reader was too slow for.
    pub fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Capture {
    /// Whether anybody looks.
    pub fn is_on(&self) -> bool {
        self.readers.load(Ordering::Relaxed) > 0
    }

    /// Starts to look.
    pub fn subscribe(&self, wants: Wants) -> Subscription<'_> {
        let (sender, packets) = sync_channel(MAX_WAITING);
        let lost = Arc::new(AtomicUsize::new(0));
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.push(Reader {
            wants,
            sender,
            lost: Arc::clone(&lost),
        });
        self.readers.store(senders.len(), Ordering::Relaxed);
        Subscription {
            packets,
            capture: self,
            lost,
        }
    }

    /// Shows a packet to all who want it.
    pub(crate) fn offer(&self, captured: &Captured) {
        let senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        for reader in senders
            .iter()
            .filter(|reader| reader.wants.includes(captured))
        {
            let kept = captured.bytes.len().min(reader.wants.snap_length);
            let copy = Captured {
                bytes: captured.bytes[..kept].to_vec(),
                ..*captured
            };
            if reader.sender.try_send(copy).is_err() {
                reader.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Forgets the readers who went away.
    fn forget(&self, lost: &Arc<AtomicUsize>) {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.retain(|reader| !Arc::ptr_eq(&reader.lost, lost));
        self.readers.store(senders.len(), Ordering::Relaxed);
    }
}

impl Drop for Subscription<'_> {
    fn drop(&mut self) {
        self.capture.forget(&self.lost);
    }
}
