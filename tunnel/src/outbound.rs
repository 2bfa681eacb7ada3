//! From a kernel's frame to plaintexts for a peer: every check that a packet passes on its way out.

use crate::batch::{Batch, Datagrams};
use crate::capture::{Captured, Direction, Stage};
use crate::device::Device;
use crate::forwarding::{Forwarding, Peer};
use crate::geneve::{self, Protocol, SourceOption};
use crate::identity::Identity;
use crate::ip::Packet;
use crate::lane::Lane;
use crate::mtu;
use crate::overlay::{self, Ends};
use crate::reject::Reject;
use crate::segment::{ETHERNET_LEN, Segments};
use crate::state::PeerKind;
use crate::virtio;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// Plaintexts of one lane that are sealed together at most: what one UDP datagram with segmentation
/// offload carries, and some more for small packets.
const MAX_PLAINTEXTS: usize = 64;

/// One thread's work from the TAP towards the underlay.
#[derive(Debug, Default)]
pub struct Outbound {
    plaintexts: Batch<()>,
    lane: Option<(Arc<Peer>, Arc<Lane>)>,
    /// Messages that are ready to be sent.
    pub datagrams: Datagrams,
    /// Counts overlay fragments.
    fragment_id: u16,
    packets: u64,
    bytes: u64,
}

/// Where a frame goes and as whom.
#[derive(Debug)]
struct Routed<'a> {
    segments: Segments<'a>,
    protocol: Protocol,
    identity: Identity,
    peer: Arc<Peer>,
    flow: u32,
}

impl Outbound {
    /// Forgets the messages that were sent.
    pub fn clear(&mut self) {
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

/// Judges a frame; `frame` starts with its Ethernet header.
fn route<'a>(
    table: &Forwarding,
    header: virtio::Header,
    frame: &'a [u8],
) -> Result<Routed<'a>, Reject> {
    let (ethernet, bytes) = frame
        .split_first_chunk::<ETHERNET_LEN>()
        .ok_or(Reject::FrameMalformed)?;
    let protocol = match [ethernet[12], ethernet[13]] {
        [0x08, 0x00] => Protocol::Ipv4,
        [0x86, 0xdd] => Protocol::Ipv6,
        _ => return Err(Reject::FrameNotIp),
    };
    let packet = Packet::parse(bytes)?;
    if packet.source.is_ipv4() != (protocol == Protocol::Ipv4) {
        return Err(Reject::FrameMalformed);
    }
    if is_link_local(packet.destination) {
        return Err(Reject::FrameLinkLocal);
    }
    let identity = table
        .local_identity(packet.source)
        .ok_or(Reject::SourceNotLocal)?;
    let owner = table
        .owner(packet.destination)
        .filter(|&owner| owner != table.node);
    let peer = owner
        .and_then(|owner| table.peer(owner))
        .ok_or(Reject::NoPeer)?;
    Ok(Routed {
        segments: Segments::new(header, bytes, packet)?,
        protocol,
        identity,
        peer: Arc::clone(peer),
        flow: packet.flow_hash(bytes),
    })
}

/// Whether an address means something on one link only.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_unicast_link_local(),
    }
}

impl Device {
    /// Takes one frame of the TAP. Packets stay in `out` until [`Self::flush`] or until they are
    /// enough to be sealed.
    pub fn handle_frame(
        &self,
        out: &mut Outbound,
        header: virtio::Header,
        frame: &[u8],
        now: Instant,
    ) {
        let Some(table) = self.table() else {
            return self.drops().count(Reject::NoState);
        };
        match route(&table, header, frame) {
            Ok(routed) => self.encapsulate(&table, out, &routed, now),
            Err(reason) => self.drops().count(reason),
        }
    }

    fn encapsulate(
        &self,
        table: &Forwarding,
        out: &mut Outbound,
        routed: &Routed<'_>,
        now: Instant,
    ) {
        let peer = &routed.peer;
        let lane = peer.lane(routed.flow);
        if out
            .lane
            .as_ref()
            .is_some_and(|(_, current)| !Arc::ptr_eq(current, lane))
        {
            self.flush(out, now);
        }
        out.lane
            .get_or_insert_with(|| (Arc::clone(peer), Arc::clone(lane)));
        let fill = matches!(peer.kind, PeerKind::Foreign { .. });
        let flags = match routed.segments.leaves_checksum() && !fill {
            true => SourceOption::CHECKSUM_NOT_FILLED,
            false => 0,
        };
        let option = SourceOption::new(table.node.cluster, flags, routed.identity);
        let header = geneve::encode(table.vni, routed.protocol, option);
        let ends = Ends {
            source: table.overlay,
            destination: peer.overlay,
        };
        let most = peer.plaintext(lane.family());
        let splits = routed.protocol == Protocol::Ipv6
            && routed.segments.largest() <= usize::from(mtu::MIN_IPV6);
        if routed.segments.largest() + overlay::LEN > most && !splits {
            return self.drops().count(Reject::TooBig);
        }
        for at in 0..routed.segments.count() {
            let length = routed.segments.length(at);
            let appended = if length + overlay::LEN <= most {
                out.plaintexts
                    .push_with(padded(overlay::LEN + length), |room| {
                        let (head, inner) = room.split_at_mut(overlay::LEN);
                        overlay::write(head, ends, routed.flow, &header, length);
                        let (inner, padding) = inner.split_at_mut(length);
                        routed.segments.write(at, fill, inner);
                        padding.fill(0);
                        Ok((room.len(), ()))
                    })
            } else {
                let mut inner = vec![0; length];
                routed.segments.write(at, fill, &mut inner);
                out.push_fragments(ends, routed.flow, &header, &inner, most)
            };
            match appended {
                Ok(()) => {
                    out.packets += 1;
                    out.bytes += length as u64;
                }
                Err(reason) => self.drops().count(reason),
            }
            if out.plaintexts.len() >= MAX_PLAINTEXTS {
                self.flush(out, now);
                out.lane = Some((Arc::clone(peer), Arc::clone(lane)));
            }
        }
    }

    /// Seals what is left in `out`, or leaves it with its lane until a handshake is done.
    pub fn flush(&self, out: &mut Outbound, now: Instant) {
        if let Some((peer, lane)) = out.lane.take()
            && !out.plaintexts.is_empty()
        {
            let first = out.datagrams.len();
            let sealed = lane.send(&out.plaintexts, now, self.drops(), &mut out.datagrams);
            if sealed && self.capture().is_on() {
                for ((plaintext, ()), (message, _)) in
                    out.plaintexts.iter().zip(out.datagrams.iter().skip(first))
                {
                    self.capture_plaintext(Direction::Sent, &peer, message, plaintext);
                }
            }
        }
        out.plaintexts.clear();
    }

    /// Shows a plaintext to whoever captures: as an overlay packet and as the frame inside.
    pub(crate) fn capture_plaintext(
        &self,
        direction: Direction,
        peer: &Peer,
        message: &[u8],
        plaintext: &[u8],
    ) {
        let captured = |stage, bytes: &[u8]| Captured {
            stage,
            direction,
            peer: peer.id,
            message: crate::wireguard::data_header(message),
            bytes: bytes.to_vec(),
            length: bytes.len(),
        };
        let length = plaintext.get(2..4).map_or(0, |length| {
            usize::from(u16::from_be_bytes([length[0], length[1]]))
        });
        let packet = &plaintext[..length.min(plaintext.len())];
        self.capture().offer(&captured(Stage::Geneve, packet));
        if let Some(frame) = crate::inbound::captured_frame(peer, direction, packet) {
            self.capture().offer(&captured(Stage::Plain, &frame));
        }
    }
}

impl Outbound {
    fn push_fragments(
        &mut self,
        ends: Ends,
        flow: u32,
        header: &geneve::Encoded,
        inner: &[u8],
        most: usize,
    ) -> Result<(), Reject> {
        self.fragment_id = self.fragment_id.wrapping_add(1);
        let mut room = vec![0; overlay::LEN + overlay::IPV4_LEN + inner.len()];
        let lengths =
            overlay::write_fragments(&mut room, ends, flow, header, inner, self.fragment_id, most);
        let [first, second] = lengths.ok_or(Reject::TooBig)?;
        let (one, two) = room.split_at(first);
        for half in [one, &two[..second]] {
            let mut padding = half.to_vec();
            padding.resize(padded(half.len()), 0);
            self.plaintexts.push(&padding, ());
        }
        Ok(())
    }
}

/// A plaintext is whole cipher blocks: its length tells an observer less (T5).
fn padded(length: usize) -> usize {
    length.next_multiple_of(usize::from(mtu::BLOCK))
}
