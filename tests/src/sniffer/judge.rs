//! The allow-list: what may be on an underlay link, and why everything else may not.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::frame::{Decoded, Transport};

/// What may be on the underlay.
#[derive(Clone, Debug, Default)]
pub struct Allow {
    /// WireGuard's UDP ports.
    pub wireguard_ports: BTreeSet<u16>,
    /// Ports of declared control connections.
    pub control: Vec<ControlPort>,
    /// Destinations outside of the mesh that nodes may talk to: masqueraded egress. The other end must be a node.
    pub egress: Vec<IpNet>,
    /// Every address of the underlay itself: nodes and routers.
    pub nodes: BTreeSet<IpAddr>,
    /// Addresses that must never be seen.
    pub mesh: Vec<IpNet>,
    /// Stock WireGuard peers do not fill a message that is as long as the MTU to a multiple of 16.
    pub unpadded_data: bool,
}

/// A port that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlPort {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port of either end.
    pub port: u16,
}

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// IPv4's link-layer addresses.
    Arp,
    /// IPv6's link-layer addresses and routers.
    NeighborDiscovery,
    /// IPv6 multicast listeners.
    MulticastListener,
    /// WireGuard message 1.
    WireGuardInitiation,
    /// WireGuard message 2.
    WireGuardResponse,
    /// WireGuard message 3.
    WireGuardCookie,
    /// WireGuard message 4 with a packet inside.
    WireGuardData,
    /// WireGuard message 4 with nothing inside.
    WireGuardKeepalive,
    /// A node's ICMP error about a WireGuard message.
    IcmpError,
    /// A declared control connection, or a node's ICMP error about one.
    Control,
    /// Declared traffic of nodes with the world.
    Egress,
    /// Anything else.
    Foreign,
}

impl Kind {
    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Arp => "ARP",
            Self::NeighborDiscovery => "IPv6 neighbour discovery",
            Self::MulticastListener => "IPv6 multicast listener",
            Self::WireGuardInitiation => "WireGuard handshake initiation",
            Self::WireGuardResponse => "WireGuard handshake response",
            Self::WireGuardCookie => "WireGuard cookie reply",
            Self::WireGuardData => "WireGuard data",
            Self::WireGuardKeepalive => "WireGuard keepalive",
            Self::IcmpError => "ICMP error about WireGuard",
            Self::Control => "declared control",
            Self::Egress => "declared egress",
            Self::Foreign => "FOREIGN",
        }
    }
}

/// What the judge says about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it is.
    pub kind: Kind,
    /// Why it is foreign; empty otherwise.
    pub why: &'static str,
    /// Source or destination is an address of the mesh.
    pub mesh: bool,
}

/// Judges a frame by its headers.
#[must_use]
pub fn judge(frame: &Decoded, allow: &Allow) -> Verdict {
    let mesh = frame
        .addresses
        .is_some_and(|(from, to)| allow.is_mesh(from) || allow.is_mesh(to));
    let foreign = |why| Verdict {
        kind: Kind::Foreign,
        why,
        mesh,
    };
    let is = |kind| Verdict {
        kind,
        why: "",
        mesh,
    };
    if mesh {
        return foreign("a pod's or router's address in clear");
    }
    if frame.tagged {
        return foreign("a VLAN tag");
    }
    let Some((from, to)) = frame.addresses else {
        return if frame.ether_type == 0x0806 {
            is(Kind::Arp)
        } else {
            foreign("neither ARP nor a whole IP header")
        };
    };
    if let Transport::Icmp { kind } = frame.transport {
        if from.is_ipv6() && matches!(kind, 133..=137) && frame.hops == 255 {
            return is(Kind::NeighborDiscovery);
        }
        if from.is_ipv6() && matches!(kind, 130..=132 | 143) && frame.hops == 1 {
            return is(Kind::MulticastListener);
        }
        if allow.quotes(frame, Allow::is_wireguard_message) {
            return is(Kind::IcmpError);
        }
        if allow.quotes(frame, Allow::is_control) {
            return is(Kind::Control);
        }
    }
    if let Transport::Udp {
        from,
        to,
        length,
        head,
    } = &frame.transport
        && allow.is_wireguard_port(*from, *to)
    {
        return wireguard(*length, head, allow.unpadded_data).map_or_else(foreign, is);
    }
    if allow.is_control(&frame.transport) {
        return is(Kind::Control);
    }
    if allow.is_egress(from, to) {
        return is(Kind::Egress);
    }
    foreign(if frame.later_fragment {
        "a fragment of an IP packet"
    } else {
        "not on the allow-list"
    })
}

impl Allow {
    fn is_mesh(&self, address: IpAddr) -> bool {
        self.mesh.iter().any(|prefix| prefix.contains(&address))
    }

    fn is_wireguard_port(&self, from: u16, to: u16) -> bool {
        self.wireguard_ports.contains(&from) || self.wireguard_ports.contains(&to)
    }

    /// A node says that such a message did not arrive: its port is closed, or a link too small.
    fn quotes(&self, frame: &Decoded, such: impl Fn(&Self, &Transport) -> bool) -> bool {
        let (Some((from, to)), Some((quoted_from, quoted_to, transport))) =
            (frame.addresses, &frame.quoted)
        else {
            return false;
        };
        let addresses = [from, to, *quoted_from, *quoted_to];
        such(self, transport) && addresses.iter().all(|address| self.nodes.contains(address))
    }

    fn is_wireguard_message(&self, transport: &Transport) -> bool {
        match transport {
            Transport::Udp {
                from,
                to,
                length,
                head,
            } => self.is_wireguard_port(*from, *to) && wireguard(*length, head, true).is_ok(),
            Transport::Tcp { .. }
            | Transport::Icmp { .. }
            | Transport::Other(_)
            | Transport::None => false,
        }
    }

    fn is_control(&self, transport: &Transport) -> bool {
        let (protocol, from, to) = match transport {
            Transport::Udp { from, to, .. } => (Protocol::Udp, *from, *to),
            Transport::Tcp { from, to } => (Protocol::Tcp, *from, *to),
            Transport::Icmp { .. } | Transport::Other(_) | Transport::None => return false,
        };
        self.control
            .iter()
            .any(|entry| entry.protocol == protocol && (entry.port == from || entry.port == to))
    }

    fn is_egress(&self, from: IpAddr, to: IpAddr) -> bool {
        let world = |address: &IpAddr| self.egress.iter().any(|prefix| prefix.contains(address));
        (self.nodes.contains(&from) && world(&to)) || (self.nodes.contains(&to) && world(&from))
    }
}

/// Which WireGuard message it is. `head` are its first bytes. Several data messages of a super-frame, one after the
/// other, look like one long one: all of them are multiples of 16.
fn wireguard(length: usize, head: &[u8], unpadded: bool) -> Result<Kind, &'static str> {
    let [kind, 0, 0, 0, ..] = head else {
        return Err("on WireGuard's port, but no WireGuard message");
    };
    match (kind, length) {
        (1, 148) => Ok(Kind::WireGuardInitiation),
        (2, 92) => Ok(Kind::WireGuardResponse),
        (3, 64) => Ok(Kind::WireGuardCookie),
        (4, 32) => Ok(Kind::WireGuardKeepalive),
        (4, 33..) if unpadded || length.is_multiple_of(16) => Ok(Kind::WireGuardData),
        (1..=4, _) => Err("a WireGuard message of wrong length"),
        _ => Err("on WireGuard's port, but no WireGuard message"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::checksum::udp;
    use super::super::frame::decode;
    use super::*;

    fn allow() -> Allow {
        Allow {
            wireguard_ports: BTreeSet::from([51820]),
            nodes: [
                "192.168.1.1",
                "192.168.2.1",
                "fd00:c0a8:1::1",
                "fd00:c0a8:2::1",
            ]
            .map(|a| a.parse().unwrap())
            .into(),
            mesh: ["10.1.0.0/16", "10.2.0.0/16", "fd01:1::/32"]
                .map(|prefix| prefix.parse().unwrap())
                .into(),
            control: vec![ControlPort {
                protocol: Protocol::Udp,
                port: 7443,
            }],
            egress: vec!["198.51.100.0/24".parse().unwrap()],
            unpadded_data: false,
        }
    }

    fn framed(packet: &[u8]) -> Vec<u8> {
        let ether_type: [u8; 2] = if packet[0] >> 4 == 4 {
            [8, 0]
        } else {
            [0x86, 0xdd]
        };
        [&[2; 12][..], &ether_type, packet].concat()
    }

    fn judged(frame: &[u8]) -> Kind {
        judge(&decode(frame, frame.len(), None), &allow()).kind
    }

    fn between(from: &str, to: &str, ports: (u16, u16), payload: &[u8]) -> Kind {
        judged(&framed(&udp(
            from.parse().unwrap(),
            to.parse().unwrap(),
            ports,
            payload,
        )))
    }

    fn message(kind: u8, length: usize) -> Vec<u8> {
        let mut message = vec![0xaa; length];
        message[..4].copy_from_slice(&[kind, 0, 0, 0]);
        message
    }

    #[test]
    fn wireguard_is_known_by_type_reserved_bytes_and_length() {
        let node = |payload: &[u8]| between("192.168.1.1", "192.168.2.1", (51820, 51820), payload);
        assert_eq!(node(&message(1, 148)), Kind::WireGuardInitiation);
        assert_eq!(node(&message(2, 92)), Kind::WireGuardResponse);
        assert_eq!(node(&message(3, 64)), Kind::WireGuardCookie);
        assert_eq!(node(&message(4, 32)), Kind::WireGuardKeepalive);
        assert_eq!(node(&message(4, 160)), Kind::WireGuardData);
        for bad in [
            message(1, 149),
            message(2, 64),
            message(4, 31),
            message(4, 33),
            message(5, 160),
            vec![4, 1, 0, 0],
        ] {
            assert_eq!(node(&bad), Kind::Foreign, "{bad:?}");
        }
        assert_eq!(node(&[4, 0, 1, 0, 9, 9, 9, 9]), Kind::Foreign);
        assert_eq!(
            between(
                "fd00:c0a8:1::1",
                "fd00:c0a8:2::1",
                (51820, 1),
                &message(4, 48)
            ),
            Kind::WireGuardData
        );
        assert_eq!(
            between("192.168.1.1", "192.168.2.1", (6081, 6081), &message(4, 160)),
            Kind::Foreign
        );
    }

    #[test]
    fn a_mesh_address_is_foreign_even_on_wireguards_port() {
        assert_eq!(
            between("10.1.1.10", "192.168.2.1", (51820, 51820), &message(4, 160)),
            Kind::Foreign
        );
        assert_eq!(
            between(
                "fd00:c0a8:1::1",
                "fd01:1:1::10",
                (51820, 51820),
                &message(4, 160)
            ),
            Kind::Foreign
        );
    }

    #[test]
    fn what_is_declared_is_known_and_nothing_else() {
        assert_eq!(
            between("192.168.1.1", "192.168.2.1", (40000, 7443), b"quic"),
            Kind::Control
        );
        assert_eq!(
            between("192.168.1.1", "198.51.100.9", (40000, 53), b"dns"),
            Kind::Egress
        );
        assert_eq!(
            between("198.51.100.9", "192.168.1.1", (53, 40000), b"dns"),
            Kind::Egress
        );
        assert_eq!(
            between("192.168.9.9", "198.51.100.9", (40000, 53), b"dns"),
            Kind::Foreign
        );
        assert_eq!(
            between("192.168.1.1", "192.168.2.1", (40000, 53), b"dns"),
            Kind::Foreign
        );
        assert_eq!(
            judged(&[&[2; 12][..], &[8, 6], &[0; 28]].concat()),
            Kind::Arp
        );
        assert_eq!(
            judged(&[&[2; 12][..], &[0x88, 0xcc], &[0; 28]].concat()),
            Kind::Foreign
        );
    }

    #[test]
    fn an_icmp_error_is_known_by_what_it_quotes() {
        let quote = |ports, payload: &[u8]| {
            let quoted = udp(
                "192.168.1.1".parse().unwrap(),
                "192.168.2.1".parse().unwrap(),
                ports,
                payload,
            );
            let mut packet = vec![
                0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 192, 168, 2, 1, 192, 168, 1, 1,
            ];
            packet.extend([3, 3, 0, 0, 0, 0, 0, 0]);
            packet.extend(quoted);
            judged(&framed(&packet))
        };
        assert_eq!(quote((51820, 51820), &message(4, 160)), Kind::IcmpError);
        assert_eq!(quote((51820, 51820), b"clear text"), Kind::Foreign);
        assert_eq!(quote((6081, 6081), &message(4, 160)), Kind::Foreign);
        assert_eq!(quote((40000, 7443), b"quic"), Kind::Control);
    }
}
