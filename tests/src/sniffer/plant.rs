//! Puts a leak onto an underlay link, so that tests show that the sniffer finds it.

use std::net::IpAddr;

use anyhow::{Context as _, Result};

use super::Sniffer;
use super::checksum::udp;
use crate::io::PacketSocket;
use crate::lab::{Family, Lab};

/// Which leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// A pod's IPv4 packet to a pod of another node.
    Udp4,
    /// A pod's IPv6 packet to a pod of another node.
    Udp6,
    /// Geneve between nodes, without WireGuard around it.
    Geneve,
    /// A pod's packet behind a VLAN tag.
    Vlan,
    /// A node's own datagram that only its payload gives away.
    Payload,
    /// A data message between WireGuard's ports whose content was not encrypted.
    Canary,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Udp4,
        Self::Udp6,
        Self::Geneve,
        Self::Vlan,
        Self::Payload,
        Self::Canary,
    ];
}

impl Sniffer {
    /// Puts one frame onto a node's link, from the router's side of it: the node's own guard would stop
    /// even a packet socket of its own.
    ///
    /// # Errors
    /// When the lab has no pods to send between, or the frame cannot be sent.
    pub fn plant(&self, lab: &Lab, node: &str, plant: Plant) -> Result<()> {
        let node = lab.node(node);
        let peer = lab
            .nodes()
            .iter()
            .find(|peer| peer.name() != node.name())
            .context("a leak needs two nodes")?;
        let pods = |family: Family| -> Result<(IpAddr, IpAddr)> {
            let address =
                |pods: &[crate::lab::Pod]| pods.first().and_then(|pod| pod.address(family));
            let both = address(node.pods()).zip(address(peer.pods()));
            both.with_context(|| {
                format!(
                    "a leak needs {family} pods on {} and {}",
                    node.name(),
                    peer.name()
                )
            })
        };
        let nodes = |family: Family| (node.underlay(family), peer.underlay(family));
        let clear = self.canary.repeat(4);
        let packet = |(from, to), ports, payload: &[u8]| udp(from, to, ports, payload);
        let port = lab.topology().underlay.port;
        let (packet, tag): (Vec<u8>, &[u8]) = match plant {
            Plant::Udp4 => (packet(pods(Family::V4)?, (4000, 4001), &clear), &[]),
            Plant::Udp6 => (packet(pods(Family::V6)?, (4000, 4001), &clear), &[]),
            Plant::Vlan => (
                packet(pods(Family::V4)?, (4000, 4001), &clear),
                &[0x81, 0x00, 0x00, 0x07],
            ),
            Plant::Geneve => {
                let inner = packet(pods(Family::V4)?, (4000, 4001), &clear);
                let geneve = [&[0, 0, 0x08, 0x00, 0, 0, 1, 0][..], &inner].concat();
                (packet(nodes(Family::V4), (40000, 6081), &geneve), &[])
            }
            Plant::Payload => (packet(nodes(Family::V4), (4000, 4001), &clear), &[]),
            Plant::Canary => {
                let message = [
                    &[4, 0, 0, 0, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0, 0][..],
                    &clear,
                ]
                .concat();
                (packet(nodes(Family::V4), (port, port), &message), &[])
            }
        };
        let ether_type: [u8; 2] = if packet[0] >> 4 == 4 {
            [0x08, 0x00]
        } else {
            [0x86, 0xdd]
        };
        // To everybody: no ARP is needed and no node's own address is taken.
        let frame = [
            &[0xff; 6][..],
            &[0x02, 0, 0, 0, 0xee, 0xee],
            tag,
            &ether_type,
            &packet,
        ]
        .concat();
        PacketSocket::open(lab.router(), node.port_device())?.send(&frame)
    }
}
