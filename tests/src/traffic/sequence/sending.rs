//! The sender: one thread for all pairs.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::{HEADER, Shared, nanos};

/// The sender's step.
const STEP: Duration = Duration::from_millis(1);
/// A sender that was held up longer than this goes on from here, and does not send a burst that no queue can hold.
const LATEST: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Sent {
    pub(super) by_pair: Vec<u64>,
    pub(super) errors: BTreeMap<String, u64>,
}

pub(super) struct Route {
    pub(super) socket: usize,
    pub(super) to: SocketAddr,
    pub(super) sequence: u64,
}

pub(super) struct Sending {
    pub(super) sockets: Vec<UdpSocket>,
    pub(super) routes: Vec<Route>,
    pub(super) rate: u32,
    pub(super) payload: Vec<u8>,
    pub(super) epoch: Instant,
    pub(super) shared: Arc<Shared>,
}

impl Sending {
    pub(super) fn run(mut self) -> Sent {
        let mut errors: BTreeMap<String, u64> = BTreeMap::new();
        let each = Duration::from_secs(1) / self.rate;
        let (mut due, mut turn) = (Instant::now(), 0);
        while !self.shared.stop_sending.load(Ordering::Relaxed) {
            let now = Instant::now();
            due = due.max(now.checked_sub(LATEST).unwrap_or(now));
            while due <= now {
                due += each;
                let pair = turn % self.routes.len();
                turn += 1;
                if let Err(error) = self.send(pair) {
                    *errors.entry(error.to_string()).or_default() += 1;
                }
            }
            thread::sleep(STEP.min(due.saturating_duration_since(Instant::now())));
        }
        Sent {
            by_pair: self.routes.iter().map(|route| route.sequence).collect(),
            errors,
        }
    }

    fn send(&mut self, pair: usize) -> std::io::Result<()> {
        let Self {
            sockets,
            routes,
            payload,
            epoch,
            shared,
            ..
        } = self;
        let route = &mut routes[pair];
        payload[..8].copy_from_slice(&u64::try_from(pair).unwrap_or(u64::MAX).to_be_bytes());
        payload[8..16].copy_from_slice(&route.sequence.to_be_bytes());
        payload[16..HEADER].copy_from_slice(&nanos(epoch.elapsed()).to_be_bytes());
        // Counted before it can arrive, so that `received` never runs ahead.
        shared.sent.fetch_add(1, Ordering::Relaxed);
        match sockets[route.socket].send_to(payload, route.to) {
            Ok(_) => {
                route.sequence += 1;
                Ok(())
            }
            Err(error) => {
                shared.sent.fetch_sub(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }
}
