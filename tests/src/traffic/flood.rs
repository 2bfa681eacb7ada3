//! A flood of handshake initiations from many sources, sent straight onto a link.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac as _};
use blake2::{Blake2s256, Blake2sMac, Digest as _};
use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng as _, SeedableRng as _};
use hawser_tunnel::key::PublicKey;

use crate::io::PacketSocket;
use crate::lab::{Family, Lab};

/// Frames that are made beforehand; then they come again.
const POOL: u32 = 65_536;
/// A WireGuard initiation, in bytes.
const INITIATION: usize = 148;
/// Sources lie in 198.18.0.0/15 (RFC 2544), which nobody else has here.
const SOURCES: u32 = 0xc612_0000;
/// How much of that range there is.
const MOST_SOURCES: u32 = 1 << 17;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloodKind {
    /// The first MAC is right: the sender knows the victim's public key.
    Initiations,
    /// Nothing is right but type and length.
    Garbage,
}

/// How much, from how many.
#[derive(Clone, Copy, Debug)]
pub struct FloodSpec {
    /// What is sent.
    pub kind: FloodKind,
    /// Messages a second.
    pub rate: u32,
    /// Different source addresses.
    pub sources: u32,
    /// What all that is random comes from.
    pub seed: u64,
}

/// A flood that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Flood {
    /// Floods a node's link from the router's end. What the node answers goes nowhere.
    ///
    /// # Errors
    /// When the link is not there, or the node has no IPv4 address.
    pub fn start(lab: &Lab, node: &str, spec: FloodSpec) -> Result<Self> {
        ensure!(
            spec.sources > 0 && spec.sources <= MOST_SOURCES && spec.rate > 0,
            "flood: needs a rate, and 1 to {MOST_SOURCES} sources"
        );
        let router = lab.router();
        router.output("ip", &["route", "replace", "blackhole", "198.18.0.0/15"])?;
        let node = lab.node(node);
        let mac = |netns: &crate::io::Netns, device: &str| -> Result<[u8; 6]> {
            let text = netns.output("cat", &[&format!("/sys/class/net/{device}/address")])?;
            let bytes = text
                .trim()
                .split(':')
                .map(|byte| u8::from_str_radix(byte, 16));
            let bytes: Vec<u8> = bytes.collect::<Result<_, _>>()?;
            bytes
                .try_into()
                .map_err(|_| anyhow!("{device} has no MAC address"))
        };
        let header = Header {
            to_mac: mac(node.netns(), "eth0")?,
            from_mac: mac(router, node.port_device())?,
            to: match node.underlay(Family::V4) {
                std::net::IpAddr::V4(address) => address,
                std::net::IpAddr::V6(_) => return Err(anyhow!("no IPv4 address")),
            },
            port: node.endpoint().port(),
        };
        let key: PublicKey = node.public_key()?.parse().context("public key")?;
        let frames = frames(&header, &key, spec);
        let socket = PacketSocket::open(router, node.port_device())?;
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (its_stop, its_sent) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = thread::Builder::new().name("flood".into());
        let thread =
            thread.spawn(move || send(&socket, &frames, spec.rate, &its_stop, &its_sent))?;
        Ok(Self {
            stop,
            sent,
            thread: Some(thread),
        })
    }

    /// Messages sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends it; returns how many messages were sent.
    ///
    /// # Errors
    /// When the kernel refused one.
    pub fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread
                .join()
                .map_err(|_| anyhow!("the flood's thread died"))??;
        }
        Ok(self.sent())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

struct Header {
    to_mac: [u8; 6],
    from_mac: [u8; 6],
    to: Ipv4Addr,
    port: u16,
}

fn frames(header: &Header, key: &PublicKey, spec: FloodSpec) -> Vec<Vec<u8>> {
    let mac1_key = Blake2s256::new()
        .chain_update(b"mac1----")
        .chain_update(key.as_bytes())
        .finalize();
    let mut random = ChaCha8Rng::seed_from_u64(spec.seed);
    let frame = |number: u32| {
        let source = Ipv4Addr::from(SOURCES + number % spec.sources);
        let mut message = [0; INITIATION];
        random.fill_bytes(&mut message[4..]);
        message[..4].copy_from_slice(&[1, 0, 0, 0]);
        if spec.kind == FloodKind::Initiations
            && let Ok(mac) = <Blake2sMac<U16> as KeyInit>::new_from_slice(&mac1_key)
        {
            let mac = mac.chain_update(&message[..INITIATION - 32]).finalize();
            message[INITIATION - 32..INITIATION - 16].copy_from_slice(&mac.into_bytes());
        }
        let port = u16::try_from(1024 + number % 60_000).unwrap_or(1024);
        packet(header, source, port, &message)
    };
    (0..POOL).map(frame).collect()
}

fn packet(header: &Header, source: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let length = |more: usize| {
        u16::try_from(payload.len() + more)
            .unwrap_or(u16::MAX)
            .to_be_bytes()
    };
    let mut ip = [
        0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    ip[2..4].copy_from_slice(&length(28));
    ip[12..16].copy_from_slice(&source.octets());
    ip[16..20].copy_from_slice(&header.to.octets());
    let words = ip
        .chunks_exact(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    ip[10..12].copy_from_slice(&(!u16::try_from(sum).unwrap_or(0)).to_be_bytes());
    [
        &header.to_mac[..],
        &header.from_mac,
        &[0x08, 0x00],
        &ip,
        &port.to_be_bytes(),
        &header.port.to_be_bytes(),
        &length(8),
        &[0, 0],
        payload,
    ]
    .concat()
}

/// Keeps to the rate over each millisecond or so.
fn send(
    socket: &PacketSocket,
    frames: &[Vec<u8>],
    rate: u32,
    stop: &AtomicBool,
    sent: &AtomicU64,
) -> Result<()> {
    let start = Instant::now();
    let mut count = 0_u64;
    let mut frames = frames.iter().cycle();
    while !stop.load(Ordering::Relaxed) {
        let due = u64::try_from(start.elapsed().as_micros())? * u64::from(rate) / 1_000_000;
        if count >= due {
            thread::sleep(Duration::from_micros(500));
            continue;
        }
        // Behind by more than that, as after the machine was busy, it does not catch up: that would
        // be another rate.
        count = count.max(due.saturating_sub(u64::from(rate) / 10));
        while count < due {
            let frame = frames.next().context("no frames")?;
            socket.send(frame)?;
            count += 1;
            sent.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}
