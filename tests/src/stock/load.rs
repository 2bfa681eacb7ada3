//! A constant rate of numbered packets, both ways, between stock peers and a pod, with an account of every packet.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use super::StockPeer;
use crate::io::Netns;
use crate::lab::{Family, Lab, Pair, Pod, wait_until};
use crate::traffic::PairReport;

mod receiving;
mod sending;

use receiving::{PeerReceiver, PodReceiver, Received, receive};
use sending::{Sending, Sent, Way};

/// The UDP port of both ends.
const PORT: u16 = 7008;
/// The UDP payload of every packet, in bytes.
const SIZE: usize = 200;
/// Flow, sequence number; the rest repeats the canary.
const HEADER: usize = 16;
/// The longest wait for packets that are under way at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// One direction of one peer in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Which of the peers that the load was started with.
    pub peer: usize,
    /// From the peer to the pod.
    pub inward: bool,
    /// The family of its packets.
    pub family: Family,
}

/// What became of all packets, flow by flow.
#[derive(Clone, Debug)]
pub struct StockLoadReport {
    /// The flows and their numbers.
    pub flows: Vec<(Flow, PairReport)>,
    /// Packets that arrived and were not as they should be: the first of each receiver.
    pub wrong: Vec<String>,
    /// Packets that the kernel did not take, by its words.
    pub send_errors: BTreeMap<String, u64>,
}

impl StockLoadReport {
    /// Fails unless every packet of every flow arrived once.
    ///
    /// # Errors
    /// One line that names the first flow that did not.
    pub fn check(&self) -> Result<()> {
        if let Some(wrong) = self.wrong.first() {
            bail!("a packet was not as it should be: {wrong}");
        }
        ensure!(
            self.send_errors.is_empty(),
            "not sent: {:?}",
            self.send_errors
        );
        for (_, report) in &self.flows {
            let Pair { from, to, family } = &report.pair;
            ensure!(
                report.sent > 0 && report.lost == 0 && report.duplicated == 0,
                "{from} to {to} by {family}: of {} packets {} were lost, {} came twice; longest gap {:?}",
                report.sent,
                report.lost,
                report.duplicated,
                report.longest_gap
            );
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Shared {
    stop_sending: AtomicBool,
    stop_receiving: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
}

/// A load that runs. Dropping it stops it without an account.
#[derive(Debug)]
pub struct StockLoad {
    shared: Arc<Shared>,
    flows: Vec<(Flow, Pair)>,
    sender: Option<JoinHandle<Sent>>,
    receivers: Vec<JoinHandle<Received>>,
}

impl StockLoad {
    /// Sends `rate` packets a second each way between each peer and the pod, the families in turn.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn start(lab: &Lab, pod: &Pod, peers: &[&StockPeer], rate: u32) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let epoch = Instant::now();
        let (mut flows, mut ways) = (Vec::new(), Vec::new());
        let mut sockets = Vec::new();
        for family in Family::BOTH {
            sockets.push(Arc::new(socket(pod.netns(), pod_address(pod, family)?)?));
        }
        let mut ports = Vec::new();
        for (index, peer) in peers.iter().enumerate() {
            ports.push(Arc::new(peer.geneve()?));
            for (socket, family) in Family::BOTH.into_iter().enumerate() {
                let (inner, at_pod) = (peer.inner(family), pod_address(pod, family)?);
                let inner = SocketAddr::new(inner, PORT);
                for inward in [true, false] {
                    let (from, to) = match inward {
                        true => (peer.name(), pod.name()),
                        false => (pod.name(), peer.name()),
                    };
                    let pair = Pair {
                        from: from.to_owned(),
                        to: to.to_owned(),
                        family,
                    };
                    flows.push((
                        Flow {
                            peer: index,
                            inward,
                            family,
                        },
                        pair,
                    ));
                    ways.push(match inward {
                        true => Way::Peer {
                            port: index,
                            from: inner,
                            to: at_pod,
                        },
                        false => Way::Pod { socket, to: inner },
                    });
                }
            }
        }
        let template: Vec<u8> = lab.canary().iter().copied().cycle().take(SIZE).collect();
        let mut receivers = Vec::new();
        for (socket, family) in sockets.iter().zip(Family::BOTH) {
            let expected = flows
                .iter()
                .enumerate()
                .filter(|(_, (flow, _))| flow.inward && flow.family == family);
            let expected = expected.map(|(at, (flow, _))| (at, peers[flow.peer].inner(family)));
            let receiver = PodReceiver {
                socket: Arc::clone(socket),
                expected: expected.collect(),
                template: template.clone(),
            };
            receivers.push(receive(&shared, epoch, move |timeout| {
                receiver.next(timeout)
            })?);
        }
        for (index, port) in ports.iter().enumerate() {
            let peer = peers[index];
            let outward = flows
                .iter()
                .enumerate()
                .filter(|(_, (flow, _))| flow.peer == index && !flow.inward);
            let expected = outward.map(|(at, (flow, _))| {
                Ok((
                    at,
                    (
                        pod_address(pod, flow.family)?,
                        SocketAddr::new(peer.inner(flow.family), PORT),
                    ),
                ))
            });
            let receiver = PeerReceiver {
                port: Arc::clone(port),
                expected: expected.collect::<Result<_>>()?,
                cluster: lab.node(pod.node()).cluster_id(),
                identity: pod.identity(),
                template: template.clone(),
            };
            receivers.push(receive(&shared, epoch, move |timeout| {
                receiver.next(timeout)
            })?);
        }
        // Of `rate` packets each way, every second is of the other family.
        let every = Duration::from_secs(1) * 2 / rate;
        let sending = Sending {
            sockets,
            ports,
            ways,
            every,
            payload: template,
            shared: Arc::clone(&shared),
        };
        let sender = thread::Builder::new().name("stock-sender".into());
        let sender = sender
            .spawn(move || sending.run())
            .context("failed to start the load's sender")?;
        Ok(Self {
            shared,
            flows,
            sender: Some(sender),
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

    /// Stops sending, waits for what is under way, and accounts for every packet.
    ///
    /// # Errors
    /// When a thread of the load died.
    pub fn stop(mut self) -> Result<StockLoadReport> {
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
        let (mut tallies, mut wrong) = (BTreeMap::new(), Vec::new());
        for receiver in self.receivers.drain(..) {
            let (seen, first) = receiver
                .join()
                .map_err(|_| anyhow!("a receiver of the load died"))?;
            tallies.extend(seen);
            wrong.extend(first);
        }
        let flows = self.flows.drain(..).zip(sent.by_flow).enumerate();
        let flows = flows.map(|(at, ((flow, pair), sent))| {
            (
                flow,
                tallies.remove(&at).unwrap_or_default().report(pair, sent),
            )
        });
        Ok(StockLoadReport {
            flows: flows.collect(),
            wrong,
            send_errors: sent.errors,
        })
    }
}

impl Drop for StockLoad {
    fn drop(&mut self) {
        self.shared.stop_sending.store(true, Ordering::Relaxed);
        self.shared.stop_receiving.store(true, Ordering::Relaxed);
        self.sender.take().map(JoinHandle::join);
        for receiver in self.receivers.drain(..) {
            receiver.join().ok();
        }
    }
}

fn pod_address(pod: &Pod, family: Family) -> Result<SocketAddr> {
    let address = pod.address(family);
    let address = address.with_context(|| format!("pod {} has no {family} address", pod.name()))?;
    Ok(SocketAddr::new(address, PORT))
}

fn socket(netns: &Netns, address: SocketAddr) -> Result<UdpSocket> {
    let made = netns.run(|| UdpSocket::bind(address))?;
    let socket = made.with_context(|| format!("failed to bind {address} in {}", netns.name()))?;
    setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))
        .context("failed to enlarge a receive buffer")?;
    Ok(socket)
}
