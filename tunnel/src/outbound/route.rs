//! Where a frame of the TAP goes, and as whom: every check on its way out.

use crate::forwarding::{Forwarding, Peer};
use crate::geneve::Protocol;
use crate::identity::Identity;
use crate::ip::Packet;
use crate::lane::LaneNumber;
use crate::overlay;
use crate::reject::Reject;
use crate::segment::{ETHERNET_LEN, Segments};
use crate::virtio;
use std::net::IpAddr;
use std::sync::{Arc, Weak};

/// Where a frame goes and as whom.
#[derive(Debug)]
pub(super) struct Routed<'a> {
    pub(super) segments: Segments<'a>,
    pub(super) protocol: Protocol,
    pub(super) identity: Identity,
    pub(super) peer: Arc<Peer>,
    pub(super) flow: u32,
}

impl Routed<'_> {
    /// Whether each packet goes in one message.
    pub(super) fn fits(&self, own: LaneNumber) -> bool {
        let lane = self.peer.lane(own, self.flow);
        self.segments.largest() + overlay::LEN <= self.peer.plaintext(lane.family())
    }
}

/// What a table said of two addresses.
#[derive(Debug)]
pub(super) struct Last {
    /// Not kept alive by this: it holds the keys of peers that may be gone.
    table: Weak<Forwarding>,
    ends: (IpAddr, IpAddr),
    identity: Identity,
    peer: Weak<Peer>,
}

/// Judges a frame of `length` bytes behind its Ethernet header, of which at least the packet's headers are in `bytes`.
pub(super) fn route<'a>(
    table: &Arc<Forwarding>,
    last: &mut Option<Last>,
    header: virtio::Header,
    ethernet: &[u8; ETHERNET_LEN],
    bytes: &'a [u8],
    length: usize,
) -> Result<Routed<'a>, Reject> {
    let protocol = match [ethernet[12], ethernet[13]] {
        [0x08, 0x00] => Protocol::Ipv4,
        [0x86, 0xdd] => Protocol::Ipv6,
        _ => return Err(Reject::FrameNotIp),
    };
    let packet = Packet::parse_headers(bytes, length)?;
    if packet.source.is_ipv4() != (protocol == Protocol::Ipv4) {
        return Err(Reject::FrameMalformed);
    }
    let (identity, peer) = find(table, last, (packet.source, packet.destination))?;
    Ok(Routed {
        segments: Segments::new(header, bytes, packet)?,
        protocol,
        identity,
        peer,
        flow: packet.flow_hash(bytes),
    })
}

/// Who sends, and to which peer.
fn find(
    table: &Arc<Forwarding>,
    last: &mut Option<Last>,
    ends: (IpAddr, IpAddr),
) -> Result<(Identity, Arc<Peer>), Reject> {
    if let Some(last) = last
        && last.ends == ends
        && std::ptr::eq(last.table.as_ptr(), Arc::as_ptr(table))
        && let Some(peer) = last.peer.upgrade()
    {
        return Ok((last.identity, peer));
    }
    let (source, destination) = ends;
    if is_link_local(destination) {
        return Err(Reject::FrameLinkLocal);
    }
    let identity = table.local_identity(source).ok_or(Reject::SourceNotLocal)?;
    let owner = table
        .owner(destination)
        .filter(|&owner| owner != table.node);
    let peer = owner
        .and_then(|owner| table.peer(owner))
        .ok_or(Reject::NoPeer)?;
    *last = Some(Last {
        table: Arc::downgrade(table),
        ends,
        identity,
        peer: Arc::downgrade(peer),
    });
    Ok((identity, Arc::clone(peer)))
}

/// Whether an address means something on one link only.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast() || v6.is_unicast_link_local(),
    }
}
