//! A constant rate of numbered UDP packets over many pairs at once, with an account of every packet.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::socket::{setsockopt, sockopt};

use super::latency::Histogram;
use super::tally::{PairReport, Tally};
use crate::io::Netns;
use crate::lab::{Family, Lab, Pair, wait_until};

mod receiving;
mod report;
mod sending;

use receiving::{Received, Receiving, drops};
pub use report::LoadReport;
use sending::{Route, Sending, Sent};

/// Pair, sequence number, time sent; the rest repeats the canary.
const HEADER: usize = 24;
/// The smallest payload: room for 16 bytes of canary at any offset.
const SMALLEST: usize = 64;
/// The largest payload of UDP over IPv4.
const LARGEST: usize = 65_507;
/// Every receiver listens here.
const PORT: u16 = 7007;
/// Buffers of each socket, in bytes: a second of the whole load, so that the lab itself loses nothing.
const BUFFER: usize = 64 << 20;
/// The longest wait for packets that are under way when the sender stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Which load.
#[derive(Clone, Debug)]
pub struct LoadSpec {
    /// Who sends to whom.
    pub pairs: Vec<Pair>,
    /// Packets per second, of all pairs together.
    pub rate: u32,
    /// UDP payload in bytes, 64 at least.
    pub size: usize,
}

impl LoadSpec {
    /// Every ordered pair of pods of different nodes, both families, 200 bytes each.
    #[must_use]
    pub fn all_pairs(lab: &Lab, rate: u32) -> Self {
        Self {
            pairs: lab.cross_pairs(None),
            rate,
            size: 200,
        }
    }
}

/// A load that runs. Dropping it stops it without an account.
#[derive(Debug)]
pub struct SequenceLoad {
    shared: Arc<Shared>,
    pairs: Vec<Pair>,
    sender: Option<JoinHandle<Sent>>,
    receiver: Option<JoinHandle<Received>>,
    receivers: Vec<Netns>,
}

#[derive(Debug, Default)]
struct Shared {
    stop_sending: AtomicBool,
    stop_receiving: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
    by_pair: Vec<AtomicU64>,
}

impl SequenceLoad {
    /// Opens all sockets and starts to send.
    ///
    /// # Errors
    /// When the load makes no sense, or a socket cannot be made.
    pub fn start(lab: &Lab, spec: LoadSpec) -> Result<Self> {
        if spec.pairs.is_empty() || spec.rate == 0 || !(SMALLEST..=LARGEST).contains(&spec.size) {
            bail!("load: needs pairs, a rate above 0 and a size of {SMALLEST} to {LARGEST} bytes");
        }
        let mut sources: BTreeMap<(&str, Family), usize> = BTreeMap::new();
        let mut targets: BTreeMap<(&str, Family), UdpSocket> = BTreeMap::new();
        let (mut sockets, mut routes, mut receivers) = (Vec::new(), Vec::new(), Vec::new());
        for Pair { from, to, family } in &spec.pairs {
            let address = |name: &str| -> Result<IpAddr> {
                lab.pod(name)
                    .address(*family)
                    .with_context(|| format!("pod {name} has no {family} address"))
            };
            let to_address = SocketAddr::new(address(to)?, PORT);
            if !targets.contains_key(&(to.as_str(), *family)) {
                targets.insert((to, *family), socket(lab.pod(to).netns(), to_address)?);
                receivers.push(lab.pod(to).netns().clone());
            }
            let source = match sources.get(&(from.as_str(), *family)) {
                Some(source) => *source,
                None => {
                    sockets.push(socket(
                        lab.pod(from).netns(),
                        SocketAddr::new(address(from)?, 0),
                    )?);
                    sources.insert((from, *family), sockets.len() - 1);
                    sockets.len() - 1
                }
            };
            routes.push(Route {
                socket: source,
                to: to_address,
                sequence: 0,
            });
        }
        receivers.sort_by(|left, right| left.name().cmp(right.name()));
        receivers.dedup_by(|left, right| left.name() == right.name());

        let shared = Arc::new(Shared {
            by_pair: spec.pairs.iter().map(|_| AtomicU64::new(0)).collect(),
            ..Shared::default()
        });
        let epoch = Instant::now();
        let receiving = Receiving {
            sockets: targets.into_values().collect(),
            template: filled(spec.size, lab.canary()),
            epoch,
            shared: Arc::clone(&shared),
            received: Received {
                tallies: vec![Tally::default(); spec.pairs.len()],
                corrupted: 0,
                delays: Histogram::default(),
            },
        };
        let epoll = receiving.epoll()?;
        let receiver = thread::Builder::new().name("load-receiver".into());
        let receiver = receiver
            .spawn(move || receiving.run(&epoll))
            .context("failed to start the load's receiver")?;
        let sending = Sending {
            sockets,
            routes,
            rate: spec.rate,
            payload: filled(spec.size, lab.canary()),
            epoch,
            shared: Arc::clone(&shared),
        };
        let sender = thread::Builder::new().name("load-sender".into());
        let sender = sender
            .spawn(move || sending.run())
            .context("failed to start the load's sender")?;
        Ok(Self {
            shared,
            pairs: spec.pairs,
            sender: Some(sender),
            receiver: Some(receiver),
            receivers,
        })
    }

    /// Packets sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Different packets that have arrived so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }

    /// The same by pair, in the order of the pairs that were asked for.
    #[must_use]
    pub fn received_by_pair(&self) -> Vec<u64> {
        let pairs = self.shared.by_pair.iter();
        pairs.map(|pair| pair.load(Ordering::Relaxed)).collect()
    }

    /// The pairs that were asked for.
    #[must_use]
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// Stops sending, waits for what is under way, and accounts for every packet.
    ///
    /// # Errors
    /// When a thread of the load died.
    pub fn stop(mut self) -> Result<LoadReport> {
        self.shared.stop_sending.store(true, Ordering::Relaxed);
        let sender = self.sender.take().context("the load has no sender")?;
        let sent = sender
            .join()
            .map_err(|_| anyhow!("the load's sender died"))?;
        // What does not come within the time is what `lost` is for.
        wait_until("all packets have arrived", DRAIN, || {
            Ok(self.received() >= self.sent())
        })
        .ok();
        self.shared.stop_receiving.store(true, Ordering::Relaxed);
        let mut receiver_drops = 0;
        for netns in &self.receivers {
            receiver_drops += netns.run(drops)??;
        }
        let receiver = self.receiver.take().context("the load has no receiver")?;
        let received = receiver
            .join()
            .map_err(|_| anyhow!("the load's receiver died"))?;

        let pairs = self.pairs.drain(..).zip(received.tallies).zip(sent.by_pair);
        let pairs: Vec<PairReport> = pairs
            .map(|((pair, tally), sent)| tally.report(pair, sent))
            .collect();
        let sum = |of: fn(&PairReport) -> u64| pairs.iter().map(of).sum::<u64>();
        Ok(LoadReport {
            sent: sum(|pair| pair.sent),
            received: sum(|pair| pair.received),
            lost: sum(|pair| pair.lost),
            duplicated: sum(|pair| pair.duplicated),
            reordered: sum(|pair| pair.reordered),
            corrupted: received.corrupted,
            send_errors: sent.errors,
            receiver_drops,
            longest_gap: pairs
                .iter()
                .map(|pair| pair.longest_gap)
                .max()
                .unwrap_or_default(),
            latency: received.delays.latency(),
            pairs,
        })
    }
}

impl Drop for SequenceLoad {
    fn drop(&mut self) {
        self.shared.stop_sending.store(true, Ordering::Relaxed);
        self.shared.stop_receiving.store(true, Ordering::Relaxed);
        self.sender.take().map(JoinHandle::join);
        self.receiver.take().map(JoinHandle::join);
    }
}

fn socket(netns: &Netns, address: SocketAddr) -> Result<UdpSocket> {
    let made = netns.run(|| UdpSocket::bind(address))?;
    let socket = made.with_context(|| format!("failed to bind {address} in {}", netns.name()))?;
    socket
        .set_nonblocking(true)
        .context("failed to make a socket non-blocking")?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)
        .context("failed to enlarge a receive buffer")?;
    setsockopt(&socket, sockopt::SndBufForce, &BUFFER)
        .context("failed to enlarge a send buffer")?;
    Ok(socket)
}

fn filled(size: usize, canary: [u8; 16]) -> Vec<u8> {
    canary.iter().copied().cycle().take(size).collect()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
