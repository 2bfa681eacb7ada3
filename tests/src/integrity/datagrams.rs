//! UDP datagrams of given sizes, each of which says which one it is.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use super::{Stream, address};
use crate::lab::{Family, Lab};

/// Buffers of each socket, in bytes.
const BUFFER: usize = 64 << 20;
/// How long the receiver looks for more before it asks whether that is all.
const LOOK: Duration = Duration::from_millis(20);
/// How long nothing may come at the end until what is missing counts as lost: longer than any wire holds frames back.
const QUIET: Duration = Duration::from_millis(500);
/// How long a datagram may be under way.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of the number in front of each datagram; shorter ones hold the first of them.
const NUMBER: usize = 8;

/// How fast they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// At most so many are under way. None may be lost.
    Window(u64),
    /// One after each such time, whatever becomes of them.
    Every(Duration),
}

/// One way, from one pod to another.
#[derive(Clone, Copy, Debug)]
pub struct Datagrams<'a> {
    /// Where.
    pub lab: &'a Lab,
    /// The pod that sends.
    pub from: &'a str,
    /// The pod that gets them.
    pub to: &'a str,
    /// By which family.
    pub family: Family,
    /// Bytes of each datagram.
    pub sizes: &'a [usize],
    /// What the bytes follow from.
    pub seed: u64,
    /// How fast.
    pub pace: Pace,
}

/// What came of them. Each that arrived was one that was sent, and came once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramReport {
    /// Datagrams sent.
    pub sent: u64,
    /// Of those, how many arrived.
    pub received: u64,
}

/// What the receiver tells the sender.
#[derive(Debug, Default)]
struct Shared {
    received: Mutex<u64>,
    changed: Condvar,
    /// Nothing more is sent.
    done: AtomicBool,
    /// The receiver found a mistake.
    failed: AtomicBool,
}

impl Datagrams<'_> {
    /// Sends them all.
    ///
    /// # Errors
    /// Names the first that is wrong, came twice, or, in a window, did not come.
    pub fn run(&self) -> Result<DatagramReport> {
        let socket = |name: &str| -> Result<UdpSocket> {
            let pod = self.lab.pod(name);
            let at = SocketAddr::new(address(pod, self.family)?, 0);
            let socket = pod.netns().run(|| UdpSocket::bind(at))?;
            let socket = socket.with_context(|| format!("failed to bind {at}"))?;
            setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
            setsockopt(&socket, sockopt::SndBufForce, &BUFFER)?;
            Ok(socket)
        };
        let (sender, receiver) = (socket(self.from)?, socket(self.to)?);
        sender.connect(receiver.local_addr()?)?;
        receiver.set_read_timeout(Some(LOOK))?;
        let shared = Shared::default();
        let (sent, received) = thread::scope(|scope| {
            let received = scope.spawn(|| {
                let outcome = self.receive(&receiver, &shared);
                shared.failed.store(outcome.is_err(), Ordering::Relaxed);
                outcome
            });
            let sent = self.send(&sender, &shared);
            shared.done.store(true, Ordering::Relaxed);
            (sent, received.join().map_err(|_| anyhow!("a thread died")))
        });
        let what = || {
            let Self { from, to, seed, .. } = self;
            format!("seed {seed}, {from} to {to} over {}", self.family)
        };
        // A mistake that the receiver found is why the sender got no further.
        let received = received.and_then(|received| received).with_context(what)?;
        sent.with_context(what)?;
        let sent = self.sizes.len() as u64;
        ensure!(
            matches!(self.pace, Pace::Every(_)) || received == sent,
            "{}: {received} of {sent} arrived",
            what()
        );
        Ok(DatagramReport { sent, received })
    }

    fn send(&self, socket: &UdpSocket, shared: &Shared) -> Result<()> {
        let begin = Instant::now();
        let mut due = begin;
        for (number, size) in (0..).zip(self.sizes) {
            if shared.failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            match self.pace {
                Pace::Window(most) => {
                    let arrived = shared.wait(PATIENCE, |received| number < received + most);
                    ensure!(arrived, "a datagram before number {number} did not arrive");
                }
                Pace::Every(time) => {
                    due += time;
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                }
            }
            let failed = || format!("failed to send {size} bytes");
            socket
                .send(&self.datagram(number, *size))
                .with_context(failed)?;
        }
        // What has not come when nothing came for a while is lost.
        let mut before = None;
        while shared.received() < self.sizes.len() as u64 && before != Some(shared.received()) {
            let now = shared.received();
            before = Some(now);
            shared.wait(QUIET, |received| received > now);
        }
        Ok(())
    }

    fn receive(&self, socket: &UdpSocket, shared: &Shared) -> Result<u64> {
        let mut seen = vec![false; self.sizes.len()];
        let mut short: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for (number, size) in (0..).zip(self.sizes).filter(|(_, size)| **size < NUMBER) {
            short.entry(*size).or_default().push(number);
        }
        let mut buffer = vec![0; 65_536];
        loop {
            let done = shared.done.load(Ordering::Relaxed);
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    let number = self.number(&buffer[..length], &short, &seen)?;
                    let index = usize::try_from(number)?;
                    ensure!(
                        !seen[index],
                        "datagram {number} of {length} bytes came twice"
                    );
                    seen[index] = true;
                    shared.count();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if done {
                        return Ok(shared.received());
                    }
                }
                Err(error) => return Err(error).context("failed to receive"),
            }
        }
    }

    /// Which one it is; fails unless every byte of it is right.
    fn number(&self, got: &[u8], short: &BTreeMap<usize, Vec<u64>>, seen: &[bool]) -> Result<u64> {
        if let Some(number) = got.first_chunk::<NUMBER>() {
            let number = u64::from_le_bytes(*number);
            let size = usize::try_from(number)
                .ok()
                .and_then(|at| self.sizes.get(at));
            ensure!(
                size == Some(&got.len()),
                "{} bytes that say they were number {number}, which has {size:?}",
                got.len()
            );
            let right = self.datagram(number, got.len());
            let wrong = right.iter().zip(got).position(|(right, got)| right != got);
            let Some(at) = wrong else {
                return Ok(number);
            };
            return Err(anyhow!(
                "byte {at} of datagram {number} of {} is wrong",
                got.len()
            ));
        }
        let same = |number: &&u64| self.datagram(**number, got.len()) == got;
        let unseen = |number: &&u64| !usize::try_from(**number).is_ok_and(|at| seen[at]);
        let candidates = short.get(&got.len()).map(Vec::as_slice).unwrap_or_default();
        let candidates: Vec<&u64> = candidates.iter().filter(same).collect();
        let found = candidates
            .iter()
            .find(|number| unseen(number))
            .or_else(|| candidates.first());
        found
            .copied()
            .copied()
            .with_context(|| format!("{got:02x?} was never sent"))
    }

    fn datagram(&self, number: u64, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        Stream::new(self.seed, number).fill(&mut bytes);
        let length = size.min(NUMBER);
        bytes[..length].copy_from_slice(&number.to_le_bytes()[..length]);
        bytes
    }
}

impl Shared {
    fn received(&self) -> u64 {
        *self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) {
        *self.received.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_one();
    }

    /// Waits until it holds for the number received; says whether it does.
    fn wait(&self, patience: Duration, holds: impl Fn(u64) -> bool) -> bool {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting =
            |received: &mut u64| !holds(*received) && !self.failed.load(Ordering::Relaxed);
        let waited = self.changed.wait_timeout_while(received, patience, waiting);
        let (received, _) = waited.unwrap_or_else(PoisonError::into_inner);
        holds(*received)
    }
}
