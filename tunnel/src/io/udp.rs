//! The UDP sockets of a lane: one for each family of the underlay, with segmentation offload both
//! ways where the kernel has it.

use crate::batch::Datagrams;
use crate::lane::LaneNumber;
use crate::offload::{Offload, Offloads};
use crate::reject::{Drops, Reject};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;

mod bind;
pub use bind::{Sockets, UdpError, bind};

/// The longest run of datagrams that the kernel hands over at once.
const MAX_RUN: usize = 65_536;

/// Runs that are read with one call.
const RUNS: usize = 8;

/// Bytes of UDP payload in one send at most, over either family.
const MAX_SEND: usize = 65_487;

/// How long a full socket is waited for before datagrams are dropped.
const SEND_PATIENCE: Duration = Duration::from_millis(20);

/// Lanes whose sockets one thread waits for at most.
const LANES: usize = LaneNumber::MAX as usize;
/// Descriptors that it waits for: two families each, and one more.
const WAITED: usize = 2 * LANES + 1;

/// Sockets for both families; one may be missing where the kernel has no such family.
#[derive(Debug)]
pub struct UdpSockets {
    v4: Option<Lane>,
    v6: Option<Lane>,
    offloads: Arc<Offloads>,
}

#[derive(Debug)]
struct Lane {
    socket: UdpSocket,
    state: UdpSocketState,
    /// Bytes that its queue holds at most.
    capacity: usize,
}

/// What became of one send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Done,
    /// The socket stayed full.
    Busy,
    Refused,
}

/// Sockets that can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    v4: bool,
    v6: bool,
}

impl Ready {
    /// To be tried.
    pub const BOTH: Self = Self { v4: true, v6: true };

    /// Whether any can.
    pub fn any(self) -> bool {
        self.v4 || self.v6
    }
}

/// Room for what one call receives.
#[derive(Debug)]
pub struct Received {
    bytes: Vec<u8>,
    meta: [RecvMeta; RUNS],
    datagrams: Vec<(Range<usize>, SocketAddr)>,
    progress: [Option<Progress>; 2],
}

/// What one call made of the queue of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that were read.
    pub bytes: usize,
    /// Whether nothing was left.
    pub emptied: bool,
    /// Bytes that it holds at most.
    pub capacity: usize,
}

impl Progress {
    /// Of a socket that is not there.
    const NONE: Self = Self {
        bytes: 0,
        emptied: true,
        capacity: 0,
    };
}

impl UdpSockets {
    /// Takes over sockets that were bound by [`bind()`]. What the kernel refuses of offloads is told to `offloads`, now
    /// and later.
    pub fn inherit(sockets: Sockets, offloads: Arc<Offloads>) -> io::Result<Self> {
        let lane = |fd: OwnedFd| {
            let socket = UdpSocket::from(fd);
            let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
            if state.gro_segments() <= 1 {
                offloads.refuse(Offload::UdpGro);
            }
            if state.max_gso_segments() <= 1 {
                offloads.refuse(Offload::UdpGso);
            }
            if !offloads.uses(Offload::UdpGro) {
                // Another data plane may have switched it on for this socket.
                let _ = setsockopt(&socket, sockopt::UdpGroSegment, &false);
            }
            // What the kernel counts against the limit is more than the payload; the last one may pass it.
            let capacity = getsockopt(&socket, sockopt::RcvBuf)? + MAX_RUN;
            Ok::<_, io::Error>(Lane {
                socket,
                state,
                capacity,
            })
        };
        Ok(Self {
            v4: Some(lane(sockets.v4)?),
            v6: sockets.v6.map(lane).transpose()?,
            offloads,
        })
    }

    /// Sends datagrams in order; those that the kernel refuses are counted.
    pub fn send(&self, datagrams: &Datagrams, drops: &Drops) {
        let (bytes, entries) = datagrams.runs();
        let mut rest = entries;
        while let Some((first, to)) = rest.first() {
            let lane = if to.is_ipv4() { &self.v4 } else { &self.v6 };
            let segments = lane
                .as_ref()
                .map_or(1, |lane| lane.state.max_gso_segments());
            let most = match self.offloads.uses(Offload::UdpGso) {
                true => segments,
                false => 1,
            };
            let count = if is_data(&bytes[first.clone()]) {
                run_length(bytes, rest, most)
            } else {
                1
            };
            let (run, after) = rest.split_at(count);
            let end = run.last().map_or(first.end, |(range, _)| range.end);
            let contents = &bytes[first.start..end];
            let size = (count > 1).then_some(first.len());
            let lost = match lane {
                None => count,
                Some(lane) => match lane.send(*to, contents, size) {
                    Sent::Done => 0,
                    Sent::Busy => count,
                    Sent::Refused => {
                        self.note_refusal(lane, *to);
                        let alone = |(range, _): &&(Range<usize>, _)| {
                            lane.send(*to, &bytes[range.clone()], None) != Sent::Done
                        };
                        match count {
                            1 => 1,
                            _ => run.iter().filter(alone).count(),
                        }
                    }
                },
            };
            drops.add(Reject::UdpSend, lost as u64);
            rest = after;
        }
    }

    /// A device without checksum offload refuses a run with EIO, others with EINVAL; quinn-udp then sends no more of them.
    fn note_refusal(&self, lane: &Lane, to: SocketAddr) {
        if lane.state.max_gso_segments() <= 1 && self.offloads.refuse(Offload::UdpGso) {
            warn!(offload = %Offload::UdpGso, %to, "refused by the device: datagrams are sent one by one");
        }
    }

    /// Reads one batch of each socket that is ready. Returns which may have more.
    pub fn receive(&self, received: &mut Received, ready: Ready) -> io::Result<Ready> {
        received.datagrams.clear();
        received.progress = [&self.v4, &self.v6].map(|lane| match lane {
            Some(_) => None,
            None => Some(Progress::NONE),
        });
        let mut more = Ready::default();
        if let (Some(lane), true) = (&self.v4, ready.v4) {
            more.v4 = received.read(lane, 0)?;
        }
        if let (Some(lane), true) = (&self.v6, ready.v6) {
            more.v6 = received.read(lane, 1)?;
        }
        // Neither waits for the other, however much there is.
        Ok(if more.any() { Ready::BOTH } else { more })
    }

    /// Whether there is something to read.
    pub fn is_readable(&self) -> bool {
        [&self.v4, &self.v6].into_iter().flatten().any(|lane| {
            let mut fds = [PollFd::new(lane.socket.as_fd(), PollFlags::POLLIN)];
            // What cannot be told is not denied.
            poll(&mut fds, PollTimeout::ZERO) != Ok(0)
        })
    }
}

/// Waits until something can be read from some of the sockets, which are told so, or from `other`; for `timeout` at most.
pub fn wait<'a>(
    sockets: impl Iterator<Item = (&'a UdpSockets, &'a mut Ready)>,
    other: BorrowedFd<'_>,
    timeout: Duration,
) -> io::Result<()> {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    let mut fds: [PollFd<'_>; WAITED] =
        std::array::from_fn(|_| PollFd::new(other, PollFlags::POLLIN));
    let mut told: [Option<&mut Ready>; LANES] = [const { None }; LANES];
    let mut count = 0;
    for ((sockets, ready), told) in sockets.zip(&mut told) {
        for lane in [&sockets.v4, &sockets.v6] {
            // One that is not there is never ready.
            if let Some(lane) = lane {
                fds[count] = PollFd::new(lane.socket.as_fd(), PollFlags::POLLIN);
            } else {
                fds[count] = PollFd::new(other, PollFlags::empty());
            }
            count += 1;
        }
        *told = Some(ready);
    }
    match poll(&mut fds[..=count], timeout) {
        Ok(_) => {}
        Err(nix::errno::Errno::EINTR) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    for (at, ready) in told.into_iter().flatten().enumerate() {
        let is_ready = |fd: &PollFd<'_>| fd.any() == Some(true);
        let [v4, v6] = [2 * at, 2 * at + 1].map(|at| is_ready(&fds[at]));
        *ready = Ready { v4, v6 };
    }
    Ok(())
}

/// Messages of handshakes go alone, each a datagram that anybody on the path can tell for what it is.
fn is_data(message: &[u8]) -> bool {
    message.first() == Some(&4)
}

/// Data messages of one size to one address, of which only the last may be shorter: what one send
/// with segmentation takes.
fn run_length(bytes: &[u8], entries: &[(Range<usize>, SocketAddr)], most: usize) -> usize {
    let (first, to) = &entries[0];
    let size = first.len();
    let most = most.min(MAX_SEND / size.max(1)).max(1);
    let mut count = 1;
    for (range, address) in &entries[1..] {
        if count == most || address != to || range.len() > size || !is_data(&bytes[range.clone()]) {
            break;
        }
        count += 1;
        if range.len() < size {
            break;
        }
    }
    count
}

impl Lane {
    fn send(&self, destination: SocketAddr, contents: &[u8], segment_size: Option<usize>) -> Sent {
        let transmit = Transmit {
            destination,
            ecn: None,
            contents,
            segment_size,
            src_ip: None,
        };
        for _ in 0..2 {
            match self
                .state
                .try_send(UdpSockRef::from(&self.socket), &transmit)
            {
                Ok(()) => return Sent::Done,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
                    let patience =
                        PollTimeout::try_from(SEND_PATIENCE).unwrap_or(PollTimeout::ZERO);
                    let _ = poll(&mut fds, patience);
                }
                Err(_) => return Sent::Refused,
            }
        }
        Sent::Busy
    }
}

impl Default for Received {
    fn default() -> Self {
        Self {
            bytes: vec![0; 2 * RUNS * MAX_RUN],
            meta: [RecvMeta::default(); RUNS],
            datagrams: Vec::new(),
            progress: [None; 2],
        }
    }
}

impl Received {
    /// The bytes that the ranges of [`Self::datagrams`] point into.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether there was nothing.
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Every datagram with the address that it came from.
    pub fn datagrams(&self) -> impl Iterator<Item = (Range<usize>, SocketAddr)> {
        self.datagrams.iter().cloned()
    }

    /// What the call made of the queues of IPv4 and IPv6; `None` of one that was not read.
    pub fn progress(&self) -> [Option<Progress>; 2] {
        self.progress
    }

    /// Returns whether there may be more.
    fn read(&mut self, lane: &Lane, half: usize) -> io::Result<bool> {
        let (more, bytes) = self.read_runs(lane, half)?;
        self.progress[half] = Some(Progress {
            bytes,
            emptied: !more,
            capacity: lane.capacity,
        });
        Ok(more)
    }

    /// Returns whether there may be more, and how many bytes were read.
    fn read_runs(&mut self, lane: &Lane, half: usize) -> io::Result<(bool, usize)> {
        let base = half * RUNS * MAX_RUN;
        let room = &mut self.bytes[base..base + RUNS * MAX_RUN];
        let mut chunks = room.chunks_exact_mut(MAX_RUN);
        let mut slices: [IoSliceMut<'_>; RUNS] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let runs =
            match lane
                .state
                .recv(UdpSockRef::from(&lane.socket), &mut slices, &mut self.meta)
            {
                Ok(runs) => runs,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok((false, 0)),
                // An ICMP error of an earlier send; it says nothing about what was received.
                Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => {
                    return Ok((true, 0));
                }
                Err(error) => return Err(error),
            };
        let mut bytes = 0;
        for (run, meta) in self.meta[..runs].iter().enumerate() {
            let start = base + run * MAX_RUN;
            let end = start + meta.len;
            bytes += meta.len;
            if meta.len == 0 {
                self.datagrams.push((start..end, meta.addr));
            }
            for at in (start..end).step_by(meta.stride.max(1)) {
                self.datagrams
                    .push((at..(at + meta.stride).min(end), meta.addr));
            }
        }
        Ok((runs == RUNS, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_at_another_address_a_larger_datagram_or_after_a_shorter_one() {
        let a: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let b: SocketAddr = "192.0.2.2:1".parse().unwrap();
        let run = |sizes: &[(usize, SocketAddr)], most| {
            let mut start = 0;
            let entries: Vec<_> = sizes
                .iter()
                .map(|&(size, to)| {
                    start += size;
                    (start - size..start, to)
                })
                .collect();
            run_length(&[4; 200_000], &entries, most)
        };
        assert_eq!(run(&[(100, a), (100, a), (100, a)], 64), 3);
        assert_eq!(run(&[(100, a), (100, a), (100, a)], 2), 2);
        assert_eq!(run(&[(100, a), (100, b)], 64), 1);
        assert_eq!(run(&[(100, a), (60, a), (100, a)], 64), 2);
        assert_eq!(run(&[(100, a), (101, a)], 64), 1);
        assert_eq!(run(&[(30_000, a), (30_000, a), (30_000, a)], 64), 2);
    }
}
