//! UDP datagrams that the sender's kernel cuts out of one write (`UDP_SEGMENT`) and the receiver's may join (`UDP_GRO`).

use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};

use super::{Stream, address};
use crate::lab::{Family, Lab};
use crate::leak::Chance;

/// What one write holds at most, with its headers.
const MOST_BYTES: usize = 65_000;
/// Datagrams of one write at most (`UDP_MAX_SEGMENTS` of older kernels).
const MOST_DATAGRAMS: u64 = 64;
/// How long a datagram may be under way.
const PATIENCE: Duration = Duration::from_secs(3);
/// Buffers of each socket, in bytes.
const BUFFER: usize = 8 << 20;

/// One way, from one pod to another, one write at a time.
#[derive(Clone, Copy, Debug)]
pub struct Bursts<'a> {
    /// Where.
    pub lab: &'a Lab,
    /// The pod that sends.
    pub from: &'a str,
    /// The pod that gets them.
    pub to: &'a str,
    /// By which family.
    pub family: Family,
    /// Bytes of each datagram of a write; one write for each size.
    pub sizes: &'a [usize],
    /// Whether the receiver takes them joined.
    pub joined: bool,
    /// What the bytes follow from, and how many datagrams a write has.
    pub seed: u64,
}

/// What came of them; all of it right, whole and in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BurstReport {
    /// Datagrams.
    pub datagrams: u64,
    /// Reads that gave more than one of them.
    pub joined: u64,
}

impl Bursts<'_> {
    /// Sends them all.
    ///
    /// # Errors
    /// Names the write and the datagram that is wrong, too short, too long, or missing.
    pub fn run(&self) -> Result<BurstReport> {
        let socket = |name: &str| -> Result<UdpSocket> {
            let pod = self.lab.pod(name);
            let at = SocketAddr::new(address(pod, self.family)?, 0);
            let socket = pod.netns().run(|| UdpSocket::bind(at))?;
            let socket = socket.with_context(|| format!("failed to bind {at}"))?;
            setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
            setsockopt(&socket, sockopt::SndBufForce, &BUFFER)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        };
        let (sender, receiver) = (socket(self.from)?, socket(self.to)?);
        sender.connect(receiver.local_addr()?)?;
        setsockopt(&receiver, sockopt::UdpGroSegment, &self.joined)?;
        let mut report = BurstReport::default();
        let mut chance = Chance::new(self.seed);
        for (number, size) in (0..).zip(self.sizes) {
            let most = MOST_DATAGRAMS.min((MOST_BYTES / size).try_into()?).max(1);
            let whole = usize::try_from(1 + chance.below(most))?;
            // The last one may be shorter.
            let less = usize::try_from(chance.below((*size).try_into()?))?;
            let mut bytes = vec![0; whole * size - less];
            Stream::new(self.seed, number).fill(&mut bytes);
            let what = || {
                let Self {
                    from,
                    to,
                    seed,
                    family,
                    ..
                } = self;
                let length = bytes.len();
                format!(
                    "seed {seed}, {from} to {to} over {family}, write {number}: {length} bytes by {size}"
                )
            };
            setsockopt(&sender, sockopt::UdpGsoSegment, &i32::try_from(*size)?)?;
            sender.send(&bytes).with_context(what)?;
            for datagram in Received::new(&receiver, &mut report).expecting(&bytes, *size) {
                datagram.with_context(what)?;
            }
        }
        Ok(report)
    }
}

/// Reads of one socket, taken apart again.
struct Received<'a> {
    socket: &'a UdpSocket,
    report: &'a mut BurstReport,
}

impl<'a> Received<'a> {
    fn new(socket: &'a UdpSocket, report: &'a mut BurstReport) -> Self {
        Self { socket, report }
    }

    /// The datagrams of one write, one for each that must come, each compared.
    fn expecting(mut self, bytes: &[u8], size: usize) -> Vec<Result<()>> {
        let mut expected = bytes.chunks(size).enumerate();
        let (mut outcomes, mut buffer) = (Vec::new(), vec![0; 65_536]);
        while outcomes.len() < bytes.len().div_ceil(size) {
            let (length, each) = match self.read(&mut buffer) {
                Ok(read) => read,
                Err(error) => {
                    let came = outcomes.len();
                    outcomes.push(Err(error.context(format!("after {came} datagrams"))));
                    return outcomes;
                }
            };
            self.report.joined += u64::from(length > each);
            for got in buffer[..length].chunks(each.max(1)) {
                self.report.datagrams += 1;
                let right = expected.next();
                let right = right.is_some_and(|(_, right)| right == got);
                let at = outcomes.len();
                outcomes.push(if right {
                    Ok(())
                } else {
                    let shown = &got[..got.len().min(16)];
                    Err(anyhow::anyhow!(
                        "datagram {at} is wrong: {} bytes, {shown:02x?}",
                        got.len()
                    ))
                });
            }
        }
        outcomes
    }

    /// Bytes of one read, and of each datagram in it but the last.
    fn read(&mut self, buffer: &mut [u8]) -> Result<(usize, usize)> {
        let mut control = nix::cmsg_space!(i32);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::empty();
        let message = loop {
            match recvmsg::<SockaddrStorage>(
                self.socket.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                flags,
            ) {
                Err(Errno::EINTR) => {}
                outcome => break outcome.context("failed to receive")?,
            }
        };
        let mut each = message.bytes;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::UdpGroSegments(size) = control {
                each = usize::try_from(size)?;
            }
        }
        ensure!(message.bytes > 0, "an empty datagram");
        Ok((message.bytes, each))
    }
}
