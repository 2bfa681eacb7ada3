//! Packets that go past the pods' own TCP and IP: sent as they are, and seen as they come.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use super::address;
use super::segment::fill_header_sum;
use super::superframe::Superframe;
use crate::io::{PacketSocket, send_signal};
use crate::lab::{Family, Lab};

/// How long a packet may be under way.
const PATIENCE: Duration = Duration::from_secs(3);
/// A virtio-net header, an Ethernet header, and the longest packet that a device here carries.
const MOST: usize = 70_000;
/// A packet passes two routers, its own node and the other one.
const ROUTERS: u8 = 2;
/// The table that makes a pod deaf.
const DEAF: &str = "add table inet deaf
add chain inet deaf input { type filter hook prerouting priority raw; policy accept; }
add rule inet deaf input meta l4proto != ipv6-icmp drop";

/// A way from one pod to another for packets of any kind. The pod that gets them does not answer: its kernel drops
/// everything, after the packet socket has seen it.
#[derive(Debug)]
pub struct Raw<'a> {
    lab: &'a Lab,
    from: &'a str,
    to: &'a str,
    sender: PacketSocket,
    receiver: PacketSocket,
    ethernet: [u8; 12],
}

/// What came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// Packets, each complete.
    pub packets: Vec<Vec<u8>>,
    /// Frames in which they came: fewer where some were joined.
    pub frames: usize,
}

impl<'a> Raw<'a> {
    /// Opens the way, and makes the pod that gets packets deaf for good.
    ///
    /// # Errors
    /// When the kernel refuses something.
    pub fn open(lab: &'a Lab, from: &'a str, to: &'a str) -> Result<Self> {
        let (source, target) = (lab.pod(from), lab.pod(to));
        target.netns().output("nft", &[DEAF])?;
        let sender = PacketSocket::open(source.netns(), "eth0")?.with_virtio_headers()?;
        let receiver = PacketSocket::open(target.netns(), "eth0")?.with_virtio_headers()?;
        let mac = |text: &str| -> Result<[u8; 6]> {
            let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16));
            let bytes: Vec<u8> = bytes.collect::<Result<_, _>>()?;
            <[u8; 6]>::try_from(bytes)
                .ok()
                .context("a MAC address of six bytes")
        };
        let addresses = [mac(&source.host_mac())?, mac(&source.mac())?].concat();
        let ethernet = *addresses.first_chunk().context("two MAC addresses")?;
        Ok(Self {
            lab,
            from,
            to,
            sender,
            receiver,
            ethernet,
        })
    }

    /// The addresses of both pods.
    ///
    /// # Errors
    /// When they do not speak the family.
    pub fn ends(&self, family: Family) -> Result<(IpAddr, IpAddr)> {
        let address = |name| address(self.lab.pod(name), family);
        Ok((address(self.from)?, address(self.to)?))
    }

    /// Sends frames and returns what came, as soon as that is as many packets as were sent. The data plane of the
    /// sender's node is stopped meanwhile, so that it finds them all waiting and may take as many at once as it can.
    ///
    /// # Errors
    /// When the kernel refuses a frame, or too few packets came.
    pub fn send(&self, frames: &[Superframe]) -> Result<Arrived> {
        let node = self.lab.node(self.lab.pod(self.from).node());
        let data_plane = node
            .data_plane_pid()
            .context("the node has no data plane")?;
        let stopped = Stopped::new(data_plane)?;
        let mut expected = 0;
        for frame in frames {
            let kind: [u8; 2] = if frame.packet[0] >> 4 == 4 {
                [8, 0]
            } else {
                [0x86, 0xdd]
            };
            let header = frame.header()?;
            let bytes = [&header[..], &self.ethernet, &kind, &frame.packet].concat();
            let length = frame.packet.len();
            self.sender
                .send(&bytes)
                .with_context(|| format!("a packet of {length} bytes"))?;
            expected += frame.packets()?.len();
        }
        drop(stopped);
        let (mut arrived, mut buffer) = (Arrived::default(), vec![0; MOST]);
        let end = Instant::now() + PATIENCE;
        while arrived.packets.len() < expected {
            let left = end.saturating_duration_since(Instant::now());
            let length = self.receiver.receive(&mut buffer, left)?;
            let came = arrived.packets.len();
            let length = length.with_context(|| format!("{came} of {expected} packets came"))?;
            let Some(frame) = self.ours(&buffer[..length])? else {
                continue;
            };
            arrived.packets.extend(frame.packets()?);
            arrived.frames += 1;
        }
        Ok(arrived)
    }

    /// [`Self::send`], and fails unless exactly what was sent came: of each flow the same packets in the same order,
    /// every byte as it was but for the hop counts, and the identification of IPv4 packets that must not be fragmented:
    /// it means nothing (RFC 6864, section 4.1), and a super-frame cannot say that it is the same in all.
    ///
    /// # Errors
    /// Shows the first packet that is not as it should be.
    pub fn check(&self, frames: &[Superframe]) -> Result<Arrived> {
        let mut expected = Vec::new();
        for frame in frames {
            expected.extend(frame.packets()?.into_iter().map(after_routers).map(meaning));
        }
        let arrived = self.send(frames)?;
        let meant: Vec<Vec<u8>> = arrived.packets.iter().cloned().map(meaning).collect();
        let mut left: VecDeque<&Vec<u8>> = meant.iter().collect();
        for (number, packet) in expected.iter().enumerate() {
            // The order between flows is nobody's promise.
            let next = left.iter().position(|came| flow(came) == flow(packet));
            let came = next.and_then(|at| left.remove(at));
            let came =
                came.with_context(|| format!("packet {number} did not come: {packet:02x?}"))?;
            let wrong = came
                .iter()
                .zip(packet)
                .position(|(came, sent)| came != sent);
            ensure!(
                came == packet,
                "packet {number} of {} differs at byte {:?} or in length:\nsent {packet:02x?}\ncame {came:02x?}",
                expected.len(),
                wrong
            );
        }
        ensure!(
            left.is_empty(),
            "packets came that nobody sent: {left:02x?}"
        );
        Ok(arrived)
    }

    /// A frame from the other pod, if it is one; its own kernel talks on the device, too.
    fn ours(&self, bytes: &[u8]) -> Result<Option<Superframe>> {
        let kind = bytes.get(super::superframe::HEADER + 12..super::superframe::HEADER + 14);
        let family = match kind {
            Some([8, 0]) => Family::V4,
            Some([0x86, 0xdd]) => Family::V6,
            _ => return Ok(None),
        };
        let packet = &bytes[super::superframe::HEADER + 14..];
        let (from, _) = self.ends(family)?;
        let ours = match from {
            IpAddr::V4(from) => packet.get(12..16) == Some(&from.octets()[..]),
            IpAddr::V6(from) => packet.get(8..24) == Some(&from.octets()[..]),
        };
        ours.then(|| Superframe::parse(bytes)).transpose()
    }
}

/// A process that stands still as long as this value lives.
struct Stopped(i32);

impl Stopped {
    fn new(pid: i32) -> Result<Self> {
        send_signal(pid, Signal::SIGSTOP)?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Whoever is gone need not go on.
        send_signal(self.0, Signal::SIGCONT).ok();
    }
}

/// The packet as it leaves the last router.
fn after_routers(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        packet[8] -= ROUTERS;
        fill_header_sum(&mut packet);
    } else {
        packet[7] -= ROUTERS;
    }
    packet
}

/// The packet without what means nothing in it.
fn meaning(mut packet: Vec<u8>) -> Vec<u8> {
    const DONT_FRAGMENT: u8 = 0x40;
    if packet[0] >> 4 == 4 && packet[6] & DONT_FRAGMENT != 0 {
        packet[4..6].fill(0);
        fill_header_sum(&mut packet);
    }
    packet
}

/// What keeps its order: protocol and ports.
fn flow(packet: &[u8]) -> (u8, Vec<u8>) {
    let (protocol, begin) = match packet[0] >> 4 {
        4 => (packet[9], usize::from(packet[0] & 0x0f) * 4),
        _ => (packet[6], 40),
    };
    let ports = matches!(protocol, 6 | 17).then(|| packet.get(begin..begin + 4));
    (protocol, ports.flatten().unwrap_or_default().to_vec())
}
