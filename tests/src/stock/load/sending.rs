//! The sender: one thread for all flows.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::super::{GenevePort, packet};
use super::{HEADER, Shared};

/// A sender that was held up longer than this goes on from here, and does not send a burst.
const LATEST: Duration = Duration::from_millis(50);

/// What was handed to the kernel.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) by_flow: Vec<u64>,
    pub(super) errors: BTreeMap<String, u64>,
}

/// Where the packets of a flow are handed to the kernel.
pub(super) enum Way {
    /// A pod's socket.
    Pod { socket: usize, to: SocketAddr },
    /// A peer's Geneve port, in a packet of the test's making.
    Peer {
        port: usize,
        from: SocketAddr,
        to: SocketAddr,
    },
}

pub(super) struct Sending {
    pub(super) sockets: Vec<Arc<UdpSocket>>,
    pub(super) ports: Vec<Arc<GenevePort>>,
    pub(super) ways: Vec<Way>,
    /// How often each flow sends.
    pub(super) every: Duration,
    pub(super) payload: Vec<u8>,
    pub(super) shared: Arc<Shared>,
}

impl Sending {
    pub(super) fn run(mut self) -> Sent {
        let mut sent = Sent {
            by_flow: vec![0; self.ways.len()],
            errors: BTreeMap::new(),
        };
        // The flows are spread over the time between two packets of one flow.
        let step = self.every / u32::try_from(self.ways.len()).unwrap_or(u32::MAX);
        let (mut due, mut turn) = (Instant::now(), 0);
        while !self.shared.stop_sending.load(Ordering::Relaxed) {
            let now = Instant::now();
            due = due.max(now.checked_sub(LATEST).unwrap_or(now));
            while due <= now {
                due += step;
                let flow = turn % self.ways.len();
                turn += 1;
                // Counted before it can arrive, so that `received` never runs ahead.
                self.shared.sent.fetch_add(1, Ordering::Relaxed);
                match self.send(flow, sent.by_flow[flow]) {
                    Ok(()) => sent.by_flow[flow] += 1,
                    Err(error) => {
                        self.shared.sent.fetch_sub(1, Ordering::Relaxed);
                        *sent.errors.entry(format!("{error:#}")).or_default() += 1;
                    }
                }
            }
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        sent
    }

    fn send(&mut self, flow: usize, sequence: u64) -> Result<()> {
        let number = u64::try_from(flow).unwrap_or(u64::MAX);
        self.payload[..8].copy_from_slice(&number.to_be_bytes());
        self.payload[8..HEADER].copy_from_slice(&sequence.to_be_bytes());
        match &self.ways[flow] {
            Way::Pod { socket, to } => {
                let sent = self.sockets[*socket].send_to(&self.payload, to);
                sent.with_context(|| format!("failed to send to {to}"))?;
                Ok(())
            }
            Way::Peer { port, from, to } => {
                self.ports[*port].send(&packet::udp(*from, *to, &self.payload))
            }
        }
    }
}
