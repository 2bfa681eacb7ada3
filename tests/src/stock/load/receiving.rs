//! The receivers: pods by their sockets, peers by Geneve.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::super::GenevePort;
use super::super::packet::{self, Body};
use super::{HEADER, Shared};
use crate::traffic::Tally;

/// How long a receiver waits before it looks whether it shall end.
const LOOK: Duration = Duration::from_millis(50);
/// A packet that was forwarded by its own node on its way.
const HOPS: u8 = 63;

/// What one receiver saw: tallies by flow, and the first wrong packet.
pub(super) type Received = (BTreeMap<usize, Tally>, Option<String>);

/// One packet: its flow, its sequence number, and its source.
type Numbered = (usize, u64, IpAddr);

/// Starts a thread that accounts for what `next` says, an error being a packet that is not as it should be.
pub(super) fn receive(
    shared: &Arc<Shared>,
    epoch: Instant,
    next: impl Fn(Duration) -> Result<Option<Numbered>> + Send + 'static,
) -> Result<JoinHandle<Received>> {
    let shared = Arc::clone(shared);
    thread::Builder::new()
        .name("stock-receiver".into())
        .spawn(move || {
            let (mut tallies, mut wrong) = (BTreeMap::<usize, Tally>::new(), None);
            while !shared.stop_receiving.load(Ordering::Relaxed) {
                match next(LOOK) {
                    Ok(None) => {}
                    Ok(Some((flow, sequence, source))) => {
                        let tally = tallies.entry(flow).or_default();
                        if tally.note(sequence, epoch.elapsed(), source) {
                            shared.received.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    Err(error) => {
                        wrong.get_or_insert_with(|| format!("{error:#}"));
                    }
                }
            }
            (tallies, wrong)
        })
        .context("failed to start a receiver of the load")
}

/// A pod's socket of one family.
pub(super) struct PodReceiver {
    pub(super) socket: Arc<UdpSocket>,
    /// The source of each flow that comes here.
    pub(super) expected: BTreeMap<usize, IpAddr>,
    pub(super) template: Vec<u8>,
}

impl PodReceiver {
    pub(super) fn next(&self, timeout: Duration) -> Result<Option<Numbered>> {
        self.socket
            .set_read_timeout(Some(timeout))
            .context("failed to set a timeout")?;
        let mut buffer = [0; 2048];
        let (length, from) = match self.socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error).context("failed to receive"),
        };
        let (flow, sequence) = numbers(&buffer[..length], &self.template)?;
        let source = self.expected.get(&flow);
        let source = source.with_context(|| format!("flow {flow} came to the wrong pod"))?;
        ensure!(
            from.ip() == *source,
            "flow {flow} came from {from}, not from {source}"
        );
        Ok(Some((flow, sequence, from.ip())))
    }
}

/// The Geneve port of one peer.
pub(super) struct PeerReceiver {
    pub(super) port: Arc<GenevePort>,
    /// The ends of each flow that comes here.
    pub(super) expected: BTreeMap<usize, (SocketAddr, SocketAddr)>,
    /// Whose cluster the option must name.
    pub(super) cluster: u16,
    /// The identity that it must name.
    pub(super) identity: u32,
    pub(super) template: Vec<u8>,
}

impl PeerReceiver {
    pub(super) fn next(&self, timeout: Duration) -> Result<Option<Numbered>> {
        let Some(opened) = self.port.receive(timeout)? else {
            return Ok(None);
        };
        ensure!(
            (opened.cluster, opened.identity) == (self.cluster, self.identity),
            "the option says {} of cluster {}",
            opened.identity,
            opened.cluster
        );
        let parsed = packet::parse(&opened.packet)?;
        ensure!(parsed.hops == HOPS, "{} hops are left", parsed.hops);
        let Body::Udp { from, to, payload } = parsed.body else {
            bail!("an echo from {}", parsed.from);
        };
        let (flow, sequence) = numbers(&payload, &self.template)?;
        let ends = self.expected.get(&flow);
        let ends = *ends.with_context(|| format!("flow {flow} came to the wrong peer"))?;
        let found = (
            SocketAddr::new(parsed.from, from),
            SocketAddr::new(parsed.to, to),
        );
        ensure!(
            found == ends,
            "flow {flow} has the ends {found:?}, not {ends:?}"
        );
        Ok(Some((flow, sequence, parsed.from)))
    }
}

/// Flow and sequence number of a payload whose every other byte is right.
fn numbers(payload: &[u8], template: &[u8]) -> Result<(usize, u64)> {
    ensure!(
        payload.len() == template.len() && payload[HEADER..] == template[HEADER..],
        "a payload of {} bytes came changed",
        payload.len()
    );
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&payload[at..at + 8]);
        u64::from_be_bytes(bytes)
    };
    Ok((usize::try_from(number(0)).context("flow")?, number(8)))
}
