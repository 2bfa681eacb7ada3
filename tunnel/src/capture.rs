//! Who looks into the tunnel: packets are copied to them, never waited for.

use crate::node::NodeId;
use crate::wireguard::DataHeader;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
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
    /// The packet or frame.
    pub bytes: Vec<u8>,
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
    sender: SyncSender<Captured>,
    lost: Arc<AtomicUsize>,
}

/// One who looks, until dropped.
#[derive(Debug)]
pub struct Subscription {
    /// The packets.
    pub packets: Receiver<Captured>,
    lost: Arc<AtomicUsize>,
}

impl Subscription {
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
    pub fn subscribe(&self) -> Subscription {
        let (sender, packets) = sync_channel(MAX_WAITING);
        let lost = Arc::new(AtomicUsize::new(0));
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.push(Reader {
            sender,
            lost: Arc::clone(&lost),
        });
        self.readers.store(senders.len(), Ordering::Relaxed);
        Subscription { packets, lost }
    }

    /// Shows a packet to all who look; forgets those who went away.
    pub(crate) fn offer(&self, captured: Captured) {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.retain(|reader| match reader.sender.try_send(captured.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                reader.lost.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        });
        self.readers.store(senders.len(), Ordering::Relaxed);
    }
}
