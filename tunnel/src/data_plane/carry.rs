//! The threads that carry packets: from the TAP to the underlay, and back.

use super::DataPlane;
use super::gate::Gate;
use super::heard::{Backlog, Heard};
use super::lane_io::LaneIo;
use crate::inbound::Inbound;
use crate::io::tap::Tap;
use crate::io::udp::{self, Ready, Received, UdpSockets};
use crate::io::{clock, stack};
use crate::merge::{Frame, Joins};
use crate::offload::Offload;
use crate::outbound::Outbound;
use crate::reject::Reject;
use crate::virtio::Gso;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use tracing::warn;

/// Frames that are read before what was sealed is sent: a bound on delay, not a wait.
const FRAMES: usize = 64;

/// How often a thread that finds nothing lets others run before it sleeps. Where senders and receivers share its core,
/// they bring more meanwhile, and nobody has to wake anybody; where they do not, this takes a microsecond.
const YIELDS: u32 = 2;

/// Bytes of messages that are sealed before they are sent: two super-frames. More would only wait,
/// and take memory.
const BYTES: usize = 128 << 10;

/// Failures to receive, one after the other, before the process gives up and another takes over.
const FAILURES: u32 = 100;

/// Sockets of a lane, as the thread that reads them sees them.
struct Port<'a> {
    lane: &'a LaneIo,
    sockets: &'a UdpSockets,
    ready: Ready,
    inbound: Inbound,
    /// Of the sockets by which replies to probes come: how far they were read, and who is told.
    heard: Option<(Backlog, &'a Heard)>,
}

impl<'a> Port<'a> {
    fn new(lane: &'a LaneIo, sockets: &'a UdpSockets) -> Self {
        Self {
            lane,
            sockets,
            ready: Ready::default(),
            inbound: Inbound::new(lane.number),
            heard: None,
        }
    }

    fn set_waits(&self, waits: bool) {
        if let Some((_, heard)) = &self.heard {
            heard.set_waits(waits);
        }
    }

    /// Tells how far the sockets were read, once what was read from `at` on is handed in.
    fn note(&mut self, received: &Received, at: Instant) {
        if let Some((backlog, heard)) = &mut self.heard {
            heard.note(backlog.read(received.progress(), at));
        }
    }
}

impl DataPlane {
    /// From a queue of the TAP to the underlay.
    pub(super) fn carry_out(&self, lane: &LaneIo) -> io::Result<()> {
        lane.tap_time.attach();
        let mut outbound = Outbound::new(lane.number);
        let mut more = false;
        let mut yields = 0;
        loop {
            lane.tap_gate.pass();
            if !more {
                // Before it sleeps, for whoever knows how long.
                stack::wipe();
                let mut fds = [lane.tap.as_fd(), lane.tap_gate.as_fd()]
                    .map(|fd| PollFd::new(fd, PollFlags::POLLIN));
                match poll(&mut fds, PollTimeout::NONE) {
                    Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
                if fds[1].any() == Some(true) {
                    lane.tap_gate.calm();
                }
            }
            more = true;
            let now = clock::now();
            let released = &mut outbound.datagrams;
            self.device.send_released(lane.number, now, released);
            for _ in 0..FRAMES {
                let read = |parts: &mut [IoSliceMut<'_>]| lane.tap.read(parts);
                match self.device.handle_read(&mut outbound, now, read) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        more = yields < YIELDS;
                        yields += 1;
                        break;
                    }
                    Err(error) => return Err(error),
                }
                yields = 0;
                if outbound.datagrams.bytes() >= BYTES {
                    break;
                }
            }
            self.device.flush(&mut outbound, now);
            self.transmit(&outbound.datagrams);
            self.device.count(Some(&mut outbound), None);
            outbound.clear();
            if more && yields > 0 {
                std::thread::yield_now();
            }
        }
    }

    /// From the underlay to the TAP.
    pub(super) fn carry_in(&self, lane: &LaneIo) -> io::Result<()> {
        lane.udp_time.attach();
        let mut port = [Port::new(lane, &lane.udp)];
        port[0].heard = Some((Backlog::new(clock::now()), &lane.heard));
        self.receive(&mut port, &lane.udp_gate, YIELDS)
    }

    /// Handshakes with any lane, their answers, and garbage. They are seldom enough to be waited for.
    pub(super) fn answer_handshakes(&self) -> io::Result<()> {
        let ports = self.lanes.iter();
        let mut ports: Vec<_> = ports
            .map(|lane| Port::new(lane, &lane.handshakes))
            .collect();
        self.receive(&mut ports, &self.handshakes_gate, 0)
    }

    /// Whatever comes to `ports`: the kernel parts it by its first byte, not always rightly where
    /// it has joined datagrams of one size.
    fn receive(&self, ports: &mut [Port<'_>], gate: &Gate, patience: u32) -> io::Result<()> {
        let mut received = Received::default();
        let mut swept = clock::now();
        let mut failures = 0;
        let mut yields = 0;
        loop {
            gate.pass();
            if !ports.iter().any(|port| port.ready.any()) {
                if yields < patience {
                    yields += 1;
                    std::thread::yield_now();
                    ports.iter_mut().for_each(|port| port.ready = Ready::BOTH);
                } else {
                    stack::wipe();
                    ports.iter().for_each(|port| port.set_waits(true));
                    let sockets = ports.iter_mut().map(|port| (port.sockets, &mut port.ready));
                    udp::wait(sockets, gate.as_fd(), Duration::from_secs(1))?;
                    ports.iter().for_each(|port| port.set_waits(false));
                }
            }
            let now = clock::now();
            for port in ports.iter_mut().filter(|port| port.ready.any()) {
                match port.sockets.receive(&mut received, port.ready) {
                    Ok(more) => {
                        (port.ready, failures) = (more, 0);
                        if !received.is_empty() {
                            yields = 0;
                        }
                    }
                    // Out of memory, say: what came before it is still handled, and it may pass.
                    Err(error) if failures < FAILURES => {
                        port.ready = Ready::default();
                        failures += 1;
                        warn!(%error, "failed to receive");
                    }
                    Err(error) => return Err(error),
                }
                let (lane, inbound) = (port.lane, &mut port.inbound);
                match &*self.heir.load() {
                    None => {
                        self.deliver(lane, inbound, received.bytes(), received.datagrams(), now);
                    }
                    Some(heir) => self.share(heir, lane, inbound, &received, now),
                }
                port.note(&received, now);
            }
            if now.saturating_duration_since(swept) >= Duration::from_secs(1) {
                for port in ports.iter_mut() {
                    self.device.handle_inbound_timeout(&mut port.inbound, now);
                }
                swept = now;
            }
        }
    }

    /// Opens datagrams that came to a lane, and writes what was in them to the TAP.
    pub(super) fn deliver(
        &self,
        lane: &LaneIo,
        inbound: &mut Inbound,
        bytes: &[u8],
        datagrams: impl Iterator<Item = (Range<usize>, SocketAddr)>,
        now: Instant,
    ) {
        self.device.handle_datagrams(inbound, bytes, datagrams, now);
        inbound.set_joins(self.joins());
        for frame in inbound.frames() {
            if let Err(error) = lane.tap.write(frame.header(), frame.parts()) {
                self.write_apart(&lane.tap, &frame, &error);
            }
        }
        self.transmit(&inbound.datagrams);
        self.device.count(None, Some(inbound));
        inbound.clear();
    }

    /// Which packets the TAP takes in one frame.
    fn joins(&self) -> Joins {
        Joins {
            tcp: self.offloads.uses(Offload::JoinTcp),
            udp: self.offloads.uses(Offload::JoinUdp),
        }
    }

    /// Writes the packets of a frame that was refused one by one. Kernels were known to refuse super-frames that they
    /// took before.
    fn write_apart(&self, tap: &Tap, frame: &Frame<'_>, error: &io::Error) {
        let packets = frame.packets();
        let write = |(header, packet): &(_, Vec<u8>)| {
            tap.write(*header, std::iter::once(&packet[..])).is_ok()
        };
        let written = match packets {
            1 => 0,
            _ => frame.split().iter().filter(|packet| write(packet)).count(),
        };
        if packets > 1 && written > 0 && error.raw_os_error() == Some(libc::EINVAL) {
            let offload = match frame.header().gso() {
                Some(Gso::UdpL4) => Offload::JoinUdp,
                _ => Offload::JoinTcp,
            };
            if self.offloads.refuse(offload) {
                warn!(%offload, "refused by the kernel: packets are written one by one");
            }
        }
        let lost = packets - written;
        self.device.drops().add(Reject::TapWrite, lost as u64);
    }
}
