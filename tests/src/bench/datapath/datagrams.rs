//! UDP at a steady rate, and how much of it arrives in time.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use super::search::{Search, Trial};
use crate::io::{BATCH, Netns, receive_datagrams, send_datagrams, wake_on_time};

/// The most datagrams of one system call of the sender. They are packets of their own from there on.
pub(super) const BURST: u8 = 16;
/// At most this many bursts a second: below 16 × this rate, bursts are shorter.
const BURSTS: f64 = 4_000.0;
/// Who has not arrived this long after the last was sent is lost. Queues on the way could hide for longer that more is
/// offered than carried.
pub(super) const IN_TIME: Duration = Duration::from_millis(20);
/// The path counts as empty when nothing has come for so long, so that a trial does not begin with the rest of the last.
const EMPTY: Duration = Duration::from_millis(10);
/// A sender that was held up for longer offers less; it does not catch up by a burst that no queue holds.
const LATEST: Duration = Duration::from_millis(5);
/// Buffer of the receiver, in bytes: it shares two cores with all others and must not be what loses.
const BUFFER: usize = 4 << 20;
/// Where the receiver listens.
const PORT: u16 = 7010;
/// Where a search begins that knows nothing, in datagrams a second.
const GUESS: f64 = 40_000.0;
/// A number of the trial and of the datagram.
const HEADER: usize = 16;

/// What a search found out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Capacity {
    /// Datagrams a second of which at most 0.1 % were lost.
    pub(super) rate: f64,
    /// Trials that it took.
    pub(super) trials: f64,
    /// Bytes of payload that arrived in all trials.
    pub(super) bytes: f64,
}

/// Sender and receiver.
#[derive(Debug)]
pub(super) struct Datagrams {
    from: UdpSocket,
    to: UdpSocket,
    size: usize,
}

impl Datagrams {
    /// Opens both sockets, for payloads of `size` bytes.
    pub(super) fn open(
        from: &Netns,
        to: &Netns,
        [own, other]: [IpAddr; 2],
        size: usize,
    ) -> Result<Self> {
        ensure!(
            size >= HEADER,
            "datagrams of {size} bytes: must be {HEADER} at least"
        );
        let bind = |netns: &Netns, address: SocketAddr| -> Result<UdpSocket> {
            let socket = netns.run(|| UdpSocket::bind(address))?;
            socket.with_context(|| format!("failed to bind {address} in {}", netns.name()))
        };
        let receiver = bind(to, SocketAddr::new(other, PORT))?;
        setsockopt(&receiver, sockopt::RcvBufForce, &BUFFER)
            .context("failed to enlarge a receive buffer")?;
        receiver
            .set_read_timeout(Some(Duration::from_millis(2)))
            .context("failed to set a timeout")?;
        let sender = bind(from, SocketAddr::new(own, 0))?;
        sender
            .connect((other, PORT))
            .with_context(|| format!("no way to {other}"))?;
        Ok(Self {
            from: sender,
            to: receiver,
            size,
        })
    }

    /// Searches for the highest rate at which what is lost stays within the bound.
    pub(super) fn search(
        &self,
        near: Option<f64>,
        each: Duration,
        trials: u32,
    ) -> Result<Capacity> {
        let mut search = Search::new(near, GUESS, trials);
        let (mut count, mut bytes) = (0_u32, 0.0);
        while let Some(rate) = search.next() {
            count += 1;
            let (trial, arrived) = self.trial(count, rate, each)?;
            bytes += arrived * self.size as f64;
            search.note(rate, trial);
        }
        let rate = search.result();
        Ok(Capacity {
            rate: rate.context("no rate was low enough: nearly all datagrams are lost")?,
            trials: f64::from(count),
            bytes,
        })
    }

    /// Offers a rate for a time; returns what that came to, and how many datagrams arrived.
    fn trial(&self, number: u32, rate: f64, time: Duration) -> Result<(Trial, f64)> {
        let sent_by = AtomicU64::new(u64::MAX);
        let start = Instant::now();
        let (sent, arrived) = thread::scope(|scope| {
            let receiver = scope.spawn(|| self.receive(number, start, &sent_by));
            let sender = scope.spawn(|| {
                let sent = self.send(number, rate, time);
                let end = start.elapsed() + IN_TIME;
                let end = u64::try_from(end.as_nanos()).unwrap_or(u64::MAX - 1);
                sent_by.store(end, Ordering::SeqCst);
                sent
            });
            (sender.join(), receiver.join())
        });
        let died = |_| anyhow!("a thread of the datagrams died");
        let ((sent, seconds), arrived) = (sent.map_err(died)??, arrived.map_err(died)??);
        let (sent, arrived) = (f64::from(sent), f64::from(arrived));
        let trial = Trial {
            offered: sent / seconds,
            // Nothing at all sent is nothing that fits.
            lost: if sent > 0.0 {
                1.0 - arrived / sent
            } else {
                1.0
            },
        };
        Ok((trial, arrived))
    }

    /// Returns how many datagrams the kernel took, and in how many seconds.
    fn send(&self, number: u32, rate: f64, time: Duration) -> Result<(u32, f64)> {
        wake_on_time()?;
        let enough = |burst: &u8| f64::from(*burst) * BURSTS >= rate;
        let burst = (1..=BURST).find(enough).unwrap_or(BURST);
        let apart = Duration::from_secs_f64(f64::from(burst) / rate);
        let mut bytes = vec![0; self.size * usize::from(burst)];
        let (start, mut sent) = (Instant::now(), 0_u32);
        let mut due = start;
        while due < start + time {
            let now = Instant::now();
            if now < due {
                thread::sleep(due - now);
                continue;
            }
            due = due.max(now.checked_sub(LATEST).unwrap_or(now)) + apart;
            for datagram in bytes.chunks_exact_mut(self.size) {
                datagram[..4].copy_from_slice(&number.to_be_bytes());
            }
            let taken = send_datagrams(&self.from, &bytes, self.size);
            let taken = taken.context("failed to send datagrams")?;
            sent += u32::try_from(taken).context("too many datagrams")?;
        }
        Ok((sent, start.elapsed().as_secs_f64()))
    }

    /// Counts what arrives in time, then waits until the path is empty.
    fn receive(&self, number: u32, start: Instant, sent_by: &AtomicU64) -> Result<u32> {
        let mut buffer = vec![0; self.size * BATCH];
        let mut lengths = [0; BATCH];
        let (mut arrived, mut last) = (0, Instant::now());
        loop {
            let got = receive_datagrams(&self.to, &mut buffer, self.size, &mut lengths);
            let now = Instant::now();
            let end = Duration::from_nanos(sent_by.load(Ordering::SeqCst));
            let in_time = now.duration_since(start) <= end;
            match got {
                Ok(lengths) => {
                    last = now;
                    let datagrams = lengths.iter().zip(buffer.chunks_exact(self.size));
                    let ours = datagrams.filter(|(length, datagram)| {
                        **length == self.size && datagram[..4] == number.to_be_bytes()
                    });
                    if in_time {
                        arrived += u32::try_from(ours.count()).unwrap_or_default();
                    }
                }
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error).context("failed to receive datagrams"),
            }
            if !in_time && now.duration_since(last) >= EMPTY {
                return Ok(arrived);
            }
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}
