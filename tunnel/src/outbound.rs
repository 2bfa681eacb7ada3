//! From a kernel's frame to plaintexts for a peer: every check that a packet passes on its way out.

use crate::batch::Batch;
use crate::capture::{Captured, Direction, Stage};
use crate::device::Device;
use crate::forwarding::{Forwarding, Peer};
use crate::geneve::{self, Protocol, SourceOption};
use crate::lane::{Lane, LaneNumber};
use crate::mtu;
use crate::outgoing::{ByLane as _, PerLane};
use crate::overlay::{self, Ends};
use crate::reject::Reject;
use crate::segment::ETHERNET_LEN;
use crate::state::PeerKind;
use crate::virtio;
use std::io::IoSliceMut;
use std::sync::Arc;
use std::time::Instant;

mod route;
use route::{Last, Routed, route};
mod scatter;
use scatter::{Found, Scatter};

/// Plaintexts of one lane that are sealed together at most: what one UDP datagram with segmentation
/// offload carries, and some more for small packets.
const MAX_PLAINTEXTS: usize = 64;

/// One thread's work from the TAP towards the underlay.
#[derive(Debug, Default)]
pub struct Outbound {
    /// The lane of this node whose thread it is.
    own: LaneNumber,
    plaintexts: Batch<()>,
    lane: Option<(Arc<Peer>, Arc<Lane>)>,
    /// Messages that are ready to be sent.
    pub datagrams: PerLane,
    scatter: Scatter,
    /// Whose the last frame was and where it went: most frames are of the flow of the one before.
    last: Option<Last>,
    /// Counts overlay fragments.
    fragment_id: u16,
    packets: u64,
    bytes: u64,
}

/// What all packets of a frame have in common on their way.
struct Way {
    template: overlay::Template,
    /// Checksums are made here: the peer's kernel cannot be asked to.
    fill: bool,
    /// Bytes of the largest plaintext to the peer.
    most: usize,
}

impl Outbound {
    /// For the thread of a lane.
    pub fn new(own: LaneNumber) -> Self {
        Self {
            own,
            ..Self::default()
        }
    }

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

    fn count(&mut self, length: usize) {
        self.packets += 1;
        self.bytes += length as u64;
    }
}

impl Device {
    /// Takes one frame that `read` fills in: into the parts that it is given, one after the other, an offload header
    /// ([`virtio::LEN`] bytes) and the frame; it returns how many bytes that were. The parts are where payload stays
    /// until it is sealed, if the frame is of the shape of those before it.
    ///
    /// # Errors
    /// What `read` returned; then nothing was taken.
    pub fn handle_read<E>(
        &self,
        out: &mut Outbound,
        now: Instant,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> Result<usize, E>,
    ) -> Result<(), E> {
        let taken = out.scatter.read(&mut out.plaintexts, read)?;
        let Some(found) = taken else {
            self.drops().count(Reject::FrameMalformed);
            return Ok(());
        };
        let Some(table) = self.table() else {
            self.drops().count(Reject::NoState);
            return Ok(());
        };
        let in_place = route(
            &table,
            &mut out.last,
            found.header,
            &found.ethernet,
            found.beginning(),
            found.length,
        )
        .ok()
        // Fragments are written elsewhere: they take more room than the packet in its place.
        .filter(|routed| found.is_in_place(&routed.segments) && routed.fits(out.own));
        if let Some(routed) = in_place {
            self.encapsulate_in_place(&table, out, &routed, &found, now);
        } else {
            let frame = out.scatter.gather(&out.plaintexts, &found);
            self.handle_frame(out, found.header, &frame, now);
            out.scatter.give_back(frame);
        }
        Ok(())
    }

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
        let routed = frame
            .split_first_chunk::<ETHERNET_LEN>()
            .ok_or(Reject::FrameMalformed)
            .and_then(|(ethernet, bytes)| {
                let length = bytes.len();
                route(&table, &mut out.last, header, ethernet, bytes, length)
            });
        match routed {
            Ok(routed) => {
                out.scatter.expect(&routed.segments);
                self.encapsulate(&table, out, &routed, now);
            }
            Err(reason) => self.drops().count(reason),
        }
    }

    /// Makes `out` ready for packets of a frame: what is there for another lane is sealed first.
    fn prepare(
        &self,
        table: &Forwarding,
        out: &mut Outbound,
        routed: &Routed<'_>,
        now: Instant,
    ) -> Result<Way, Reject> {
        let peer = &routed.peer;
        let lane = peer.lane(out.own, routed.flow);
        if out
            .lane
            .as_ref()
            .is_some_and(|(_, current)| !Arc::ptr_eq(current, lane))
        {
            self.flush(out, now);
        }
        let most = peer.plaintext(lane.family());
        let splits = routed.protocol == Protocol::Ipv6
            && routed.segments.largest() <= usize::from(mtu::MIN_IPV6);
        if !routed.fits(out.own) && !splits {
            return Err(Reject::TooBig);
        }
        out.lane
            .get_or_insert_with(|| (Arc::clone(peer), Arc::clone(lane)));
        let fill = !table.leaves_checksums || matches!(peer.kind, PeerKind::Foreign { .. });
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
        Ok(Way {
            template: overlay::Template::new(ends, routed.flow, header),
            fill,
            most,
        })
    }

    fn encapsulate(
        &self,
        table: &Forwarding,
        out: &mut Outbound,
        routed: &Routed<'_>,
        now: Instant,
    ) {
        let mut way = match self.prepare(table, out, routed, now) {
            Ok(way) => way,
            Err(reason) => return self.drops().count(reason),
        };
        for at in 0..routed.segments.count() {
            let length = routed.segments.length(at);
            let appended = if length + overlay::LEN <= way.most {
                out.plaintexts
                    .push_with(padded(overlay::LEN + length), |room| {
                        let (head, inner) = room.split_at_mut(overlay::LEN);
                        way.template.write(head, length);
                        let (inner, padding) = inner.split_at_mut(length);
                        routed.segments.write(at, way.fill, inner);
                        padding.fill(0);
                        Ok((room.len(), ()))
                    })
            } else {
                let mut inner = vec![0; length];
                routed.segments.write(at, way.fill, &mut inner);
                out.push_fragments(&way, &inner)
            };
            match appended {
                Ok(()) => out.count(length),
                Err(reason) => self.drops().count(reason),
            }
        }
        self.flush_if_enough(out, now);
    }

    /// The same for a frame whose payload stands where it is sealed from.
    fn encapsulate_in_place(
        &self,
        table: &Forwarding,
        out: &mut Outbound,
        routed: &Routed<'_>,
        found: &Found,
        now: Instant,
    ) {
        let mut way = match self.prepare(table, out, routed, now) {
            Ok(way) => way,
            Err(reason) => return self.drops().count(reason),
        };
        for at in 0..routed.segments.count() {
            let length = routed.segments.length(at);
            let plaintext = padded(overlay::LEN + length);
            let start = found.slot(at);
            let room = out.plaintexts.room(start, plaintext);
            let (head, inner) = room.split_at_mut(overlay::LEN);
            let (inner, padding) = inner.split_at_mut(length);
            routed.segments.complete(at, way.fill, inner);
            way.template.write(head, length);
            padding.fill(0);
            out.plaintexts.keep(start..start + plaintext, ());
            out.count(length);
        }
        self.flush_if_enough(out, now);
    }

    fn flush_if_enough(&self, out: &mut Outbound, now: Instant) {
        if out.plaintexts.len() >= MAX_PLAINTEXTS {
            self.flush(out, now);
        }
    }

    /// Seals what is left in `out`, or leaves it with its lane until a handshake is done.
    pub fn flush(&self, out: &mut Outbound, now: Instant) {
        if let Some((peer, lane)) = out.lane.take()
            && !out.plaintexts.is_empty()
        {
            let datagrams = out.datagrams.of(lane.own());
            let first = datagrams.len();
            let sealed = lane.send(&out.plaintexts, now, self.drops(), datagrams);
            if sealed && self.capture().is_on() {
                for ((plaintext, ()), (message, _)) in
                    out.plaintexts.iter().zip(datagrams.iter().skip(first))
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
    fn push_fragments(&mut self, way: &Way, inner: &[u8]) -> Result<(), Reject> {
        self.fragment_id = self.fragment_id.wrapping_add(1);
        let mut room = vec![0; overlay::LEN + overlay::IPV4_LEN + inner.len()];
        let template = &way.template;
        let lengths = template.write_fragments(&mut room, inner, self.fragment_id, way.most);
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
