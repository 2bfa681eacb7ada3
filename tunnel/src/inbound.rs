//! From a peer's plaintext to a frame for the kernel: the receiver believes nothing that the
//! WireGuard peer is not entitled to say.

use crate::batch::{Batch, Datagrams};
use crate::capture::Direction;
use crate::device::Device;
use crate::engine::Opened;
use crate::forwarding::{Forwarding, Peer};
use crate::geneve::{self, Geneve, Protocol, SourceOption};
use crate::identity::{Identity, Mac, identity_mac};
use crate::ip::Packet;
use crate::lane::Lane;
use crate::node::NodeId;
use crate::overlay::{self, Body, Ends};
use crate::reassembly::{Piece, Reassembly};
use crate::reject::Reject;
use crate::segment::ETHERNET_LEN;
use crate::state::PeerKind;
use crate::virtio;
use crate::wireguard::Message;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// The MAC address of the TAP. A frame to another is dropped by the kernel without a word.
pub const DEVICE_MAC: Mac = [0x02, 0, 0, 0, 0, 0x02];

/// The MAC address of the gateway behind the TAP, to which all mesh routes lead. No identity has
/// it: there is no cluster 0.
pub const GATEWAY_MAC: Mac = [0x02, 0, 0, 0, 0, 0x01];

/// One thread's work from the underlay towards the TAP.
#[derive(Debug, Default)]
pub struct Inbound {
    opened: Batch<Opened>,
    run: Vec<Range<usize>>,
    run_lane: Option<(Arc<Peer>, Arc<Lane>, SocketAddr)>,
    halves: BTreeMap<NodeId, Reassembly>,
    /// Frames that are ready for the TAP.
    pub frames: Batch<virtio::Header>,
    /// Messages that go back to the underlay: replies of handshakes, and what waited for them.
    pub datagrams: Datagrams,
    packets: u64,
    bytes: u64,
}

/// A pod packet that passed every check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted<'a> {
    /// The packet.
    pub packet: &'a [u8],
    /// What it is.
    pub protocol: Protocol,
    /// Whose it is, as a MAC address.
    pub source: Mac,
    /// What the kernel still has to fill in.
    pub header: virtio::Header,
}

/// Judges the Geneve packet of a peer. Pure: the same table and bytes, the same verdict.
pub fn accept<'a>(
    table: &Forwarding,
    peer: &Peer,
    datagram: &'a [u8],
) -> Result<Accepted<'a>, Reject> {
    let Geneve {
        vni,
        protocol,
        source,
        payload,
    } = geneve::parse(overlay::parse_udp(datagram)?)?;
    if vni != table.vni {
        return Err(Reject::GeneveVni);
    }
    let (identity, flags) = match (peer.kind, source) {
        (PeerKind::Foreign { identity }, _) => (identity, 0),
        (PeerKind::Native, None) => return Err(Reject::MissingOption),
        (PeerKind::Native, Some(option)) => (entitled(table, peer, option)?, option.flags),
    };
    let packet = Packet::parse(payload)?;
    if packet.source.is_ipv4() != (protocol == Protocol::Ipv4) {
        return Err(Reject::GeneveProtocol);
    }
    if table.owner(packet.source) != Some(peer.id) {
        return Err(Reject::SourceNotOwned);
    }
    if table.owner(packet.destination) != Some(table.node) {
        return Err(Reject::DestinationNotLocal);
    }
    Ok(Accepted {
        packet: payload,
        protocol,
        source: identity_mac(peer.id.cluster, identity),
        header: offload(&packet, flags)?,
    })
}

/// The identity that a peer may claim: one that its cluster published, or its host, which is a
/// remote node here.
fn entitled(table: &Forwarding, peer: &Peer, option: SourceOption) -> Result<Identity, Reject> {
    if option.cluster != u16::from(peer.id.cluster) {
        return Err(Reject::OptionCluster);
    }
    let identity = Identity::new(option.identity).map_err(|_| Reject::IdentityUnpublished)?;
    if identity == Identity::HOST {
        return Ok(Identity::REMOTE_NODE);
    }
    if identity.is_reserved() {
        return Err(Reject::IdentityReserved);
    }
    if !table.is_published(peer.id.cluster, identity) {
        return Err(Reject::IdentityUnpublished);
    }
    Ok(identity)
}

fn offload(packet: &Packet, flags: u16) -> Result<virtio::Header, Reject> {
    if flags & SourceOption::CHECKSUM_NOT_FILLED == 0 {
        return Ok(virtio::Header::COMPLETE);
    }
    let offset = packet.checksum_offset().ok_or(Reject::OptionFlags)?;
    let word = |value: usize| u16::try_from(value).map_err(|_| Reject::OptionFlags);
    Ok(virtio::Header {
        flags: virtio::Header::NEEDS_CSUM,
        csum_start: word(ETHERNET_LEN + packet.transport)?,
        csum_offset: word(offset)?,
        ..virtio::Header::COMPLETE
    })
}

fn write_frame(accepted: &Accepted<'_>, frame: &mut [u8]) {
    frame[..6].copy_from_slice(&DEVICE_MAC);
    frame[6..12].copy_from_slice(&accepted.source);
    frame[12..ETHERNET_LEN].copy_from_slice(&(accepted.protocol as u16).to_be_bytes());
    frame[ETHERNET_LEN..].copy_from_slice(accepted.packet);
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
    let mut frame = vec![0; ETHERNET_LEN + geneve.payload.len()];
    let accepted = Accepted {
        packet: geneve.payload,
        protocol: geneve.protocol,
        source: identity_mac(cluster.ok()?, identity),
        header: virtio::Header::COMPLETE,
    };
    write_frame(&accepted, &mut frame);
    if direction == Direction::Sent {
        frame[..6].copy_from_slice(&GATEWAY_MAC);
    }
    Some(frame)
}

impl Inbound {
    /// Forgets the frames and messages that were delivered.
    pub fn clear(&mut self) {
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
            match Message::parse(message) {
                Ok(Message::Data { receiver }) => match table.lane_by_index(receiver) {
                    Some((peer, lane)) => {
                        let same = inbound.run_lane.as_ref().is_some_and(|(_, current, at)| {
                            Arc::ptr_eq(current, lane) && *at == from
                        });
                        if !same {
                            self.open_run(&table, inbound, bytes, now);
                            inbound.run_lane = Some((Arc::clone(peer), Arc::clone(lane), from));
                        }
                        inbound.run.push(range);
                    }
                    None => self.drops().count(Reject::WgUnknownIndex),
                },
                Ok(handshake) => {
                    self.open_run(&table, inbound, bytes, now);
                    let done = self.handle_handshake(
                        &table,
                        handshake,
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
    }

    fn open_run(&self, table: &Forwarding, inbound: &mut Inbound, bytes: &[u8], now: Instant) {
        let Some((peer, lane, from)) = inbound.run_lane.take() else {
            return;
        };
        inbound.opened.clear();
        let messages = inbound.run.iter().map(|range| &bytes[range.clone()]);
        lane.receive(
            messages,
            from,
            now,
            &mut inbound.opened,
            &mut inbound.datagrams,
        );
        let Inbound {
            opened,
            frames,
            halves,
            run,
            packets,
            bytes: total,
            ..
        } = inbound;
        for ((plaintext, result), range) in opened.iter().zip(run.iter()) {
            let delivered = match result {
                Opened::Keepalive => continue,
                Opened::Rejected(reason) => Err(*reason),
                Opened::Packet => {
                    if self.capture().is_on() {
                        self.capture_plaintext(
                            Direction::Received,
                            &peer,
                            &bytes[range.clone()],
                            plaintext,
                        );
                    }
                    self.deliver(table, &peer, halves, plaintext, now, frames)
                }
            };
            match delivered {
                Ok(0) => {}
                Ok(length) => {
                    *packets += 1;
                    *total += length as u64;
                }
                Err(reason) => self.drops().count(reason),
            }
        }
        run.clear();
    }

    /// Returns the bytes of the pod packet that was delivered; 0 while its other half is missing.
    fn deliver(
        &self,
        table: &Forwarding,
        peer: &Peer,
        halves: &mut BTreeMap<NodeId, Reassembly>,
        plaintext: &[u8],
        now: Instant,
        frames: &mut Batch<virtio::Header>,
    ) -> Result<usize, Reject> {
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
        let whole;
        let datagram = match body {
            Body::Whole(data) => &plaintext[Range::from(data)],
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
                match halves.entry(peer.id).or_default().handle_fragment(
                    piece,
                    now,
                    &mut expired,
                )? {
                    Some(datagram) => {
                        whole = datagram;
                        whole.as_slice()
                    }
                    None => return Ok(0),
                }
            }
        };
        let accepted = accept(table, peer, datagram)?;
        frames.push_with(ETHERNET_LEN + accepted.packet.len(), |frame| {
            write_frame(&accepted, frame);
            Ok::<_, Reject>((frame.len(), accepted.header))
        })?;
        Ok(accepted.packet.len())
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
