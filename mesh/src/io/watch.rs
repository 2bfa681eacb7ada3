//! Hears of changes to links, addresses, neighbours, routes and nftables.

use crate::agent::dirty::{Dirty, Scope};
use futures::StreamExt as _;
use futures::channel::mpsc::UnboundedReceiver;
use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket as _, SocketAddr, TokioSocket};
use rtnetlink::{MulticastGroup, new_multicast_connection};
use std::io;
use std::net::IpAddr;

/// Room for a burst of some thousand routes; what is lost costs one look at everything.
const RECEIVE_BUFFER: usize = 1 << 20;

/// NFNLGRP_NFTABLES, as a bit mask.
const NFTABLES_GROUP: u32 = 1 << 6;
/// NFNL_SUBSYS_NFTABLES: the upper byte of a message's type.
const NFTABLES_SUBSYSTEM: u8 = 10;
/// Every nftables object carries its table's name as attribute 1.
const TABLE_NAME: u16 = 1;

const GROUPS: [MulticastGroup; 6] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

type Messages = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// Subscriptions in the network namespace of the thread that opened them.
pub(crate) struct Watch {
    routes: Messages,
    nftables: TokioSocket,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

impl Watch {
    /// Subscribes. Open it before the first look, so that nothing falls in between.
    pub(crate) fn open() -> io::Result<Self> {
        let (mut connection, _, routes) = new_multicast_connection(&GROUPS)?;
        connection
            .socket_mut()
            .socket_mut()
            .set_rx_buf_sz(RECEIVE_BUFFER)?;
        tokio::spawn(connection);
        let mut nftables = TokioSocket::new(NETLINK_NETFILTER)?;
        nftables
            .socket_mut()
            .bind(&SocketAddr::new(0, NFTABLES_GROUP))?;
        nftables.socket_mut().set_rx_buf_sz(RECEIVE_BUFFER)?;
        Ok(Self { routes, nftables })
    }

    /// Waits for the next change that may matter to `scope`.
    pub(crate) async fn next(&mut self, scope: &Scope) -> io::Result<Dirty> {
        loop {
            let dirty = tokio::select! {
                message = self.routes.next() => match message {
                    Some((message, _)) => of_route_message(&message.payload, scope),
                    None => return Err(io::Error::other("the kernel closed the netlink socket")),
                },
                datagram = std::future::poll_fn(|cx| self.nftables.poll_recv_from_full(cx)) => match datagram {
                    Ok((bytes, from)) if from.port_number() == 0 => of_nftables(&bytes),
                    Ok(_) => Dirty::default(),
                    // Some were lost.
                    Err(error) if error.raw_os_error() == Some(ENOBUFS) => Dirty::NFTABLES,
                    Err(error) => return Err(error),
                },
            };
            if dirty != Dirty::default() {
                return Ok(dirty);
            }
        }
    }
}

const ENOBUFS: i32 = 105;

fn of_route_message(payload: &NetlinkPayload<RouteNetlinkMessage>, scope: &Scope) -> Dirty {
    let NetlinkPayload::InnerMessage(message) = payload else {
        // An overrun, or something that is no notification.
        return Dirty::KERNEL | Dirty::PATHS;
    };
    if let RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) = message {
        return scope.of_link(link.header.index, link_name(link));
    }
    if let RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) =
        message
    {
        return scope.of_address(address.header.index);
    }
    if let RouteNetlinkMessage::NewNeighbour(neighbour)
    | RouteNetlinkMessage::DelNeighbour(neighbour) = message
    {
        return scope.of_neighbour(neighbour.header.ifindex);
    }
    if let RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) = message {
        let ours = route.header.protocol == RouteProtocol::Other(crate::agent::kernel::PROTOCOL);
        return scope.of_route(ours, destination(route));
    }
    Dirty::default()
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only one of many attributes matters"
)]
fn link_name(message: &LinkMessage) -> Option<&str> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only one of many attributes matters"
)]
fn destination(message: &RouteMessage) -> Option<IpNet> {
    let address: IpAddr = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(v4)) => Some((*v4).into()),
            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => Some((*v6).into()),
            _ => None,
        })?;
    IpNet::new(address, message.header.destination_prefix_length).ok()
}

/// Walks over the messages of a datagram: a header of 16 bytes, 4 bytes of nftables' own header,
/// attributes.
fn of_nftables(mut bytes: &[u8]) -> Dirty {
    let mut dirty = Dirty::default();
    while let Some((length, message)) = take(bytes, u32_at(bytes, 0)) {
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        if message.get(5) == Some(&NFTABLES_SUBSYSTEM) && message.len() >= 20 {
            dirty |= Dirty::of_table(table_name(&message[20..]));
        }
    }
    dirty
}

fn table_name(mut attributes: &[u8]) -> Option<&[u8]> {
    while let Some((length, attribute)) = take(attributes, u16_at(attributes, 0).map(usize::from)) {
        attributes = attributes
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        if u16_at(attribute, 2).map(|kind| kind & 0x3fff) == Some(TABLE_NAME) {
            let value = attribute.get(4..)?;
            return Some(value.strip_suffix(&[0]).unwrap_or(value));
        }
    }
    None
}

/// The first `length` bytes, where there are so many and at least a header's worth.
fn take(bytes: &[u8], length: Option<usize>) -> Option<(usize, &[u8])> {
    let length = length.filter(|length| *length >= 4)?;
    Some((length, bytes.get(..length)?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?)).ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(attributes: &[Vec<u8>]) -> Vec<u8> {
        let body = attributes.concat();
        let mut bytes = u32::try_from(20 + body.len())
            .unwrap()
            .to_ne_bytes()
            .to_vec();
        bytes.extend([6, NFTABLES_SUBSYSTEM]);
        bytes.resize(20, 0);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn only_our_tables_matter() {
        let table = |name: &[u8]| message(&[attribute(2, b"chain\0"), attribute(1, name)]);
        assert_eq!(of_nftables(&table(b"filter\0")), Dirty::default());
        assert_eq!(of_nftables(&table(b"hawser\0")), Dirty::CLAMP);
        assert_eq!(of_nftables(&table(b"hawser_guard\0")), Dirty::GUARD);
        let both = [
            table(b"nat\0"),
            table(b"hawser\0"),
            table(b"hawser_guard\0"),
        ]
        .concat();
        assert_eq!(of_nftables(&both), Dirty::NFTABLES);
    }

    #[test]
    fn a_datagram_cut_anywhere_ends_the_reading() {
        let whole = message(&[attribute(2, b"x\0"), attribute(1, b"hawser\0")]);
        for length in 0..whole.len() {
            assert_eq!(
                of_nftables(&whole[..length]),
                Dirty::default(),
                "{length} bytes"
            );
        }
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] = 0;
            let _ = of_nftables(&broken);
        }
    }
}
