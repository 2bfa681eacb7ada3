//! What netlink messages say, and the messages that say what we want.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "messages carry many attributes, and most do not matter here"
)]

use crate::agent::kernel::{Link, Neighbour, PROTOCOL, RouteKey, Way, gateway};
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
    RouteProtocol, RouteScope, RouteType,
};
use std::net::IpAddr;

pub(super) fn link(message: &LinkMessage) -> Link {
    let mtu = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        });
    let infos = message
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        });
    Link {
        index: message.header.index,
        mtu: mtu.unwrap_or_default(),
        up: message.header.flags.contains(LinkFlags::Up),
        tap: infos
            .flatten()
            .any(|info| *info == LinkInfo::Kind(InfoKind::Tun)),
    }
}

pub(super) fn address(message: &AddressMessage) -> Option<IpNet> {
    let own = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    };
    let peer = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    };
    let address = message.attributes.iter().find_map(own);
    // IPv6 has a local address only on point-to-point links.
    let address = address.or_else(|| message.attributes.iter().find_map(peer))?;
    IpNet::new(address, message.header.prefix_len).ok()
}

pub(super) fn address_message(index: u32, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = net.prefix_len();
    message.header.family = if net.addr().is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    message.attributes.push(AddressAttribute::Local(net.addr()));
    message
}

pub(super) fn neighbour(message: &NeighbourMessage) -> Option<(IpAddr, Neighbour)> {
    let mut address = None;
    let mut mac = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6))
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac.clone_from(bytes),
            _ => {}
        }
    }
    Some((
        address?,
        Neighbour {
            mac,
            permanent: message.header.state == NeighbourState::Permanent,
        },
    ))
}

pub(super) fn route(message: &RouteMessage) -> Option<(RouteKey, Way)> {
    let (mut prefix, mut metric, mut source, mut via) = (None, 0, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => prefix = ip(address),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Gateway(address) => via = ip(address),
            _ => {}
        }
    }
    let prefix = IpNet::new(prefix?, message.header.destination_prefix_length).ok()?;
    let way = if message.header.kind == RouteType::Unreachable {
        Way::Unreachable
    } else if let (RouteType::Unicast, Some(device), Some(gateway), Some(source), Some(mtu)) = (
        message.header.kind,
        output_device(message),
        via,
        source,
        route_mtu(message),
    ) {
        Way::Mesh {
            device,
            gateway,
            source,
            mtu,
        }
    } else {
        Way::Other
    };
    Some((RouteKey { prefix, metric }, way))
}

/// The message that names a route; with `way` also where it leads.
pub(super) fn route_message(key: RouteKey, way: Option<&Way>) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = if key.prefix.addr().is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    header.destination_prefix_length = key.prefix.prefix_len();
    header.table = RouteHeader::RT_TABLE_MAIN;
    header.protocol = RouteProtocol::Other(PROTOCOL);
    message
        .attributes
        .push(RouteAttribute::Destination(key.prefix.network().into()));
    message
        .attributes
        .push(RouteAttribute::Priority(key.metric));
    match way {
        None | Some(Way::Other) => {
            message.header.scope = RouteScope::NoWhere;
        }
        Some(Way::Unreachable) => message.header.kind = RouteType::Unreachable,
        Some(Way::Mesh {
            device,
            gateway: via,
            source,
            mtu,
        }) => {
            debug_assert_eq!(*via, gateway(key.prefix));
            message.header.kind = RouteType::Unicast;
            message.header.flags = RouteFlags::Onlink;
            message
                .attributes
                .push(RouteAttribute::Gateway((*via).into()));
            message.attributes.push(RouteAttribute::Oif(*device));
            message
                .attributes
                .push(RouteAttribute::PrefSource((*source).into()));
            message
                .attributes
                .push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(*mtu)]));
        }
    }
    message
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

pub(super) fn output_device(message: &RouteMessage) -> Option<u32> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        })
}

/// The source that a route gives to what is sent over it.
pub(super) fn route_source(message: &RouteMessage) -> Option<IpAddr> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::PrefSource(address) => ip(address),
            _ => None,
        })
}

pub(super) fn route_mtu(message: &RouteMessage) -> Option<u32> {
    let metrics = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Metrics(metrics) => Some(metrics),
            _ => None,
        })?;
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}
