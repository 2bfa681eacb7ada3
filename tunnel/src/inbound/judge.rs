//! What a peer may say: every check of the Geneve packet inside an overlay packet.

use crate::forwarding::{Forwarding, Peer};
use crate::geneve::{self, Geneve, Protocol, SourceOption};
use crate::identity::{Identity, Mac, identity_mac};
use crate::ip::Packet;
use crate::overlay;
use crate::reject::Reject;
use crate::state::PeerKind;
use std::net::IpAddr;

/// Bytes of a Geneve header with our option alone.
const SAID: usize = size_of::<geneve::Encoded>();

/// A pod packet that passed every check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted<'a> {
    /// The packet.
    pub packet: &'a [u8],
    /// What it is.
    pub protocol: Protocol,
    /// Whose it is, as a MAC address.
    pub source: Mac,
    /// What was read of it.
    pub ip: Packet,
    /// Whether its transport checksum holds only the sum of the pseudo-header.
    pub checksum_left: bool,
}

/// What was found of the packet before, for those that say the same: most packets of a run do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// Geneve header and option, as they were written.
    geneve: geneve::Encoded,
    ends: (IpAddr, IpAddr),
    source: Mac,
    flags: u16,
}

/// Judges the Geneve packet of a peer. Pure: the same table and bytes, the same verdict.
pub fn accept<'a>(
    table: &Forwarding,
    peer: &Peer,
    datagram: &'a [u8],
) -> Result<Accepted<'a>, Reject> {
    judge(table, peer, datagram, &mut None)
}

/// The same; `known` is of the packet before, of this peer and by this table.
pub(super) fn judge<'a>(
    table: &Forwarding,
    peer: &Peer,
    datagram: &'a [u8],
    known: &mut Option<Known>,
) -> Result<Accepted<'a>, Reject> {
    let geneve = overlay::parse_udp(datagram)?;
    if let (Some(known), Some((header, payload))) = (&known, geneve.split_first_chunk())
        && known.geneve == *header
    {
        let protocol = match header[2] {
            0x08 => Protocol::Ipv4,
            _ => Protocol::Ipv6,
        };
        let ip = Packet::parse(payload)?;
        if known.ends == (ip.source, ip.destination) {
            return Ok(Accepted {
                packet: payload,
                protocol,
                source: known.source,
                ip,
                checksum_left: is_checksum_left(&ip, known.flags)?,
            });
        }
    }
    let Geneve {
        vni,
        protocol,
        source,
        payload,
    } = geneve::parse(geneve)?;
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
    let source = identity_mac(peer.id.cluster, identity);
    // Only of packets whose option is the one that we write; others are read each time.
    *known = match (geneve.first_chunk(), geneve.len() - payload.len()) {
        (Some(header), SAID) => Some(Known {
            geneve: *header,
            ends: (packet.source, packet.destination),
            source,
            flags,
        }),
        _ => None,
    };
    Ok(Accepted {
        packet: payload,
        protocol,
        source,
        ip: packet,
        checksum_left: is_checksum_left(&packet, flags)?,
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

fn is_checksum_left(packet: &Packet, flags: u16) -> Result<bool, Reject> {
    if flags & SourceOption::CHECKSUM_NOT_FILLED == 0 {
        return Ok(false);
    }
    packet.checksum_offset().ok_or(Reject::OptionFlags)?;
    Ok(true)
}
