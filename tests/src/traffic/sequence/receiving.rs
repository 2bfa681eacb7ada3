//! The receiver: one thread for all pairs.

use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context as _, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::super::latency::Histogram;
use super::super::tally::Tally;
use super::{HEADER, LARGEST, PORT, Shared, nanos};

#[derive(Debug)]
pub(super) struct Received {
    pub(super) tallies: Vec<Tally>,
    pub(super) corrupted: u64,
    pub(super) delays: Histogram,
}

pub(super) struct Receiving {
    pub(super) sockets: Vec<UdpSocket>,
    pub(super) template: Vec<u8>,
    pub(super) epoch: Instant,
    pub(super) shared: Arc<Shared>,
    pub(super) received: Received,
}

impl Receiving {
    pub(super) fn epoll(&self) -> Result<Epoll> {
        let epoll =
            Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("failed to make an epoll")?;
        for (index, socket) in self.sockets.iter().enumerate() {
            let index = u64::try_from(index).context("too many sockets")?;
            epoll
                .add(socket, EpollEvent::new(EpollFlags::EPOLLIN, index))
                .context("failed to watch a socket")?;
        }
        Ok(epoll)
    }

    pub(super) fn run(mut self, epoll: &Epoll) -> Received {
        let mut events = vec![EpollEvent::empty(); self.sockets.len()];
        let mut buffer = vec![0; LARGEST + 1];
        while !self.shared.stop_receiving.load(Ordering::Relaxed) {
            let ready = epoll
                .wait(&mut events, EpollTimeout::from(20_u8))
                .unwrap_or_default();
            for event in &events[..ready] {
                let Ok(index) = usize::try_from(event.data()) else {
                    continue;
                };
                loop {
                    match self.sockets[index].recv_from(&mut buffer) {
                        Ok((length, from)) => self.take(&buffer[..length], from.ip()),
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Err(_) => break,
                    }
                }
            }
        }
        self.received
    }

    fn take(&mut self, payload: &[u8], from: IpAddr) {
        let now = self.epoch.elapsed();
        let number = |at: usize| -> Option<u64> {
            let bytes: [u8; 8] = payload.get(at..at + 8)?.try_into().ok()?;
            Some(u64::from_be_bytes(bytes))
        };
        let known = number(0).zip(number(8)).zip(number(16));
        let same = payload.len() == self.template.len()
            && payload.get(HEADER..) == self.template.get(HEADER..);
        let tally = |pair: u64| {
            usize::try_from(pair)
                .ok()
                .filter(|pair| *pair < self.received.tallies.len())
        };
        match known
            .and_then(|((pair, sequence), at)| Some((tally(pair)?, sequence, at)))
            .filter(|_| same)
        {
            Some((pair, sequence, at)) => {
                if self.received.tallies[pair].note(sequence, now, from) {
                    self.shared.received.fetch_add(1, Ordering::Relaxed);
                    self.shared.by_pair[pair].fetch_add(1, Ordering::Relaxed);
                    self.received
                        .delays
                        .add(nanos(now).saturating_sub(at) / 1000);
                }
            }
            None => self.received.corrupted += 1,
        }
    }
}

/// Packets that full sockets on the load's port have dropped in the namespace of the calling thread.
pub(super) fn drops() -> Result<u64> {
    let mut drops = 0;
    for table in ["udp", "udp6"] {
        // Not /proc/net: that is the main thread's.
        let text = std::fs::read_to_string(format!("/proc/thread-self/net/{table}"))
            .context("failed to read drops")?;
        let port = format!(":{PORT:04X}");
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.get(1).is_some_and(|local| local.ends_with(&port)) {
                drops += words
                    .last()
                    .and_then(|word| word.parse::<u64>().ok())
                    .unwrap_or_default();
            }
        }
    }
    Ok(drops)
}
