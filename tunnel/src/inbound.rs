//! From a peer's plaintext to a frame for the kernel: the receiver believes nothing that the
//! WireGuard peer is not entitled to say.

use crate::batch::Batch;
use crate::capture::Direction;
use crate::device::Device;
use crate::engine::Opened;
use crate::forwarding::{Forwarding, Peer};
use crate::geneve::{self, Protocol};
use crate::identity::{Identity, Mac, identity_mac};
use crate::lane::{Lane, LaneNumber};
use crate::merge::{self, Frame, Joins, Merger};
use crate::node::NodeId;
use crate::outgoing::{ByLane as _, PerLane};
use crate::overlay::{self, Body, Ends};
use crate::reassembly::{Piece, Reassembly};
use crate::reject::Reject;
use crate::segment::ETHERNET_LEN;
use crate::state::PeerKind;
use crate::wireguard::Message;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

mod judge;
pub use judge::{Accepted, accept};
use judge::{Known, judge};

/// The MAC address of the TAP. A frame to another is dropped by the kernel without a word.
pub const DEVICE_MAC: Mac = [0x02, 0, 0, 0, 0, 0x02];

/// The MAC address of the gateway behind the TAP, to which all mesh routes lead. No identity has
/// it: there is no cluster 0.
pub const GATEWAY_MAC: Mac = [0x02, 0, 0, 0, 0, 0x01];

/// One thread's work from the underlay towards the TAP.
#[derive(Debug, Default)]
pub struct Inbound {
    /// The lane of this node whose socket is read.
    own: LaneNumber,
    opened: Batch<Opened>,
    run: Vec<Range<usize>>,
    /// Whose messages are in the run, where they came from, and the upper bits of their index.
    run_lane: Option<(Arc<Peer>, Arc<Lane>, SocketAddr, u32)>,
    halves: BTreeMap<NodeId, Reassembly>,
    frames: Merger,
    /// Messages that go back to the underlay: replies of handshakes, and what waited for them.
    pub datagrams: PerLane,
    packets: u64,
    bytes: u64,
}

fn ethernet(source: Mac, protocol: Protocol) -> [u8; ETHERNET_LEN] {
    let mut header = [0; ETHERNET_LEN];
    header[..6].copy_from_slice(&DEVICE_MAC);
    header[6..12].copy_from_slice(&source);
    header[12..].copy_from_slice(&(protocol as u16).to_be_bytes());
    header
}

/// The frame inside an overlay packet, for a capture; what would not be accepted has none.
pub(crate) fn captured_frame(peer: &Peer, direction: Direction, packet: &[u8]) -> Option<Vec<u8>> {
    let (_, Body::Whole(data)) = overlay::parse(packet).ok()? else {
        return None;
    };
    let geneve = geneve::parse(overlay::parse_udp(&packet[Range::from(data)]).ok()?).ok()?;
    let identity = match (peer.kind, geneve.source) {
        (PeerKind::Foreign { identity }, _) => identity,
        (PeerKind::Native, option) => Identity::new(option?.identity).ok()?,
    };
    let cluster = crate::node::ClusterId::new(
        geneve
            .source
            .map_or_else(|| peer.id.cluster.into(), |option| option.cluster),
    );
    let source = identity_mac(cluster.ok()?, identity);
    let mut frame = ethernet(source, geneve.protocol).to_vec();
    frame.extend_from_slice(geneve.payload);
    if direction == Direction::Sent {
        frame[..6].copy_from_slice(&GATEWAY_MAC);
    }
    Some(frame)
}

impl Inbound {
    /// For what comes to the socket of a lane.
    pub fn new(own: LaneNumber) -> Self {
        Self {
            own,
            ..Self::default()
        }
    }

    /// Joins packets to super-frames only as far as `joins` says.
    pub fn set_joins(&mut self, joins: Joins) {
        self.frames.set_joins(joins);
    }

    /// Frames that are ready for the TAP.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = Frame<'_>> {
        let (bytes, _) = self.opened.runs();
        self.frames.frames(bytes)
    }

    /// Forgets the frames and messages that were delivered.
    pub fn clear(&mut self) {
        self.opened.clear();
        self.frames.clear();
        self.datagrams.clear();
    }

    /// Pod packets and bytes since the last call.
    pub(crate) fn take_counts(&mut self) -> (u64, u64) {
        (
            std::mem::take(&mut self.packets),
            std::mem::take(&mut self.bytes),
        )
    }
}

impl Device {
    /// Takes datagrams of the underlay, each a range of `bytes` with the address it came from.
    /// Neighbours of one lane are opened together. Frames and replies are left in `inbound`.
    pub fn handle_datagrams(
        &self,
        inbound: &mut Inbound,
        bytes: &[u8],
        datagrams: impl Iterator<Item = (Range<usize>, SocketAddr)>,
        now: Instant,
    ) {
        let Some(table) = self.table() else {
            return self.drops().add(Reject::NoState, datagrams.count() as u64);
        };
        for (range, from) in datagrams {
            let message = &bytes[range.clone()];
            if from.port() == 0 {
                // Nobody can be answered there, and a send to it makes the kernel doubt more than this.
                self.drops().count(Reject::WgMalformed);
                continue;
            }
            match Message::parse(message) {
                Ok(Message::Data { receiver }) => {
                    let same = inbound
                        .run_lane
                        .as_ref()
                        .is_some_and(|(.., at, index)| *index == receiver >> 8 && *at == from);
                    if same {
                        inbound.run.push(range);
                        continue;
                    }
                    match table.lane_by_index(receiver) {
                        Some((peer, lane)) => {
                            self.open_run(&table, inbound, bytes, now);
                            let lane = Arc::clone(lane);
                            inbound.run_lane = Some((Arc::clone(peer), lane, from, receiver >> 8));
                            inbound.run.push(range);
                        }
                        None => self.drops().count(Reject::WgUnknownIndex),
                    }
                }
                Ok(_) => {
                    self.open_run(&table, inbound, bytes, now);
                    let done = self.handle_handshake(
                        &table,
                        inbound.own,
                        message,
                        from,
                        now,
                        &mut inbound.datagrams,
                    );
                    if let Err(reason) = done {
                        self.drops().count(reason);
                    }
                }
                Err(reason) => self.drops().count(reason),
            }
        }
        self.open_run(&table, inbound, bytes, now);
        inbound.frames.finish(inbound.opened.bytes_mut());
    }

    fn open_run(&self, table: &Forwarding, inbound: &mut Inbound, bytes: &[u8], now: Instant) {
        let Some((peer, lane, from, _)) = inbound.run_lane.take() else {
            return;
        };
        let first = inbound.opened.len();
        let messages = inbound.run.iter().map(|range| &bytes[range.clone()]);
        lane.receive(
            messages,
            from,
            now,
            &mut inbound.opened,
            inbound.datagrams.of(lane.own()),
        );
        self.note_released(&lane);
        let count = inbound.run.len();
        let mut known = None;
        for at in 0..count {
            let Some((range, result)) = inbound.opened.entry(first + at) else {
                break;
            };
            let delivered = match *result {
                Opened::Keepalive => continue,
                Opened::Rejected(reason) => Err(reason),
                Opened::Packet => {
                    let range = range.clone();
                    if self.capture().is_on() {
                        let (opened, _) = inbound.opened.runs();
                        self.capture_plaintext(
                            Direction::Received,
                            &peer,
                            &bytes[inbound.run[at].clone()],
                            &opened[range.clone()],
                        );
                    }
                    match self.deliver(table, &peer, inbound, range.clone(), now, &mut known) {
                        // Its overlay addresses were right: what is not for a pod may be for this node.
                        Err(Reject::GeneveControl) => {
                            let (opened, _) = inbound.opened.runs();
                            let out = inbound.datagrams.of(lane.own());
                            self.handle_control(table, (&peer, &lane), &opened[range], now, out)
                                .map(|()| 0)
                        }
                        delivered => delivered,
                    }
                }
            };
            match delivered {
                Ok(0) => {}
                Ok(length) => {
                    inbound.packets += 1;
                    inbound.bytes += length as u64;
                }
                Err(reason) => self.drops().count(reason),
            }
        }
        inbound.run.clear();
    }

    /// Takes the plaintext at `range` of what was opened. Returns the bytes of the pod packet that was delivered; 0
    /// while its other half is missing.
    fn deliver(
        &self,
        table: &Forwarding,
        peer: &Peer,
        inbound: &mut Inbound,
        range: Range<usize>,
        now: Instant,
        known: &mut Option<Known>,
    ) -> Result<usize, Reject> {
        let (opened, _) = inbound.opened.runs();
        let plaintext = &opened[range.clone()];
        let (
            Ends {
                source,
                destination,
            },
            body,
        ) = overlay::parse(plaintext)?;
        if source != peer.overlay {
            return Err(Reject::OverlaySource);
        }
        if destination != table.overlay {
            return Err(Reject::OverlayDestination);
        }
        let datagram = match body {
            Body::Whole(data) => range.start + data.start..range.start + data.end,
            Body::Fragment {
                id,
                offset,
                last,
                data,
            } => {
                let piece = Piece {
                    id,
                    offset,
                    last,
                    data: &plaintext[Range::from(data)],
                };
                let mut expired = || self.drops().count(Reject::OverlayReassembly);
                let halves = inbound.halves.entry(peer.id).or_default();
                let Some(whole) = halves.handle_fragment(piece, now, &mut expired)? else {
                    return Ok(0);
                };
                // Behind what was opened: there frames are made of it like of the others.
                let start = inbound.opened.end();
                inbound.opened.push(&whole, Opened::Packet);
                start..start + whole.len()
            }
        };
        let (opened, _) = inbound.opened.runs();
        let accepted = judge(table, peer, &opened[datagram.clone()], known)?;
        let length = accepted.packet.len();
        let piece = merge::Piece {
            range: datagram.end - length..datagram.end,
            ip: accepted.ip,
            ethernet: ethernet(accepted.source, accepted.protocol),
            checksum_left: accepted.checksum_left,
        };
        inbound.frames.push(opened, piece);
        Ok(length)
    }

    /// Gives up halves whose other half did not come; once in a while is enough.
    pub fn handle_inbound_timeout(&self, inbound: &mut Inbound, now: Instant) {
        let mut expired = || self.drops().count(Reject::OverlayReassembly);
        inbound
            .halves
            .values_mut()
            .for_each(|halves| halves.handle_timeout(now, &mut expired));
        inbound.halves.retain(|_, halves| !halves.is_empty());
    }
}
