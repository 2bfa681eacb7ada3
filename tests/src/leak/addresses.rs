//! Addresses that are taken away, or that turn up where they should not.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context as _, Result};

use super::routes::{answer_for_remote_pods, stop_answering};
use super::site::Site;
use super::{Barrier, Way};
use crate::io::PacketSocket;
use crate::lab::{Family, wait_until};
use crate::sniffer::checksum::internet;

/// Bits of the prefix that the rogue router advertises: longer than ours, so that it wins.
const ADVERTISED: u8 = 80;

/// Ways by addresses.
pub(super) const WAYS: &[Way] = &[
    Way {
        name: "router addresses removed",
        mistake: "`ip addr flush` on a device that somebody does not know; the routes go with them",
        barrier: Barrier::Guard,
        // The kernel takes IPv4 routes away with their source address; IPv6 ones only lose the source.
        families: &[Family::V4],
        provoke: |site| site.script("ip addr flush dev hawser0"),
        undo: |_| Ok(()),
    },
    Way {
        name: "a remote pod network as a subnet of eth0",
        mistake: "an overlapping LAN: DHCP or an admin gives the node an address among remote pods",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            answer_for_remote_pods(site)?;
            site.script(&neighbours(site, "add"))
        },
        undo: |site| {
            site.sweep(&neighbours(site, "del"))?;
            stop_answering(site)
        },
    },
    Way {
        name: "a rogue router advertisement",
        mistake: "anybody on the underlay says that remote pods are on this link; no access to the node needed",
        barrier: Barrier::Guard,
        families: &[Family::V6],
        provoke: |site| {
            answer_for_remote_pods(site)?;
            site.script("echo 2 >/proc/sys/net/ipv6/conf/eth0/accept_ra")?;
            let port = site.node().port_device();
            let socket = PacketSocket::open(site.lab().router(), port)?;
            for pod in site.remote_pods() {
                if let IpAddr::V6(pod) = pod {
                    socket.send(&advertisement(pod)?)?;
                }
            }
            wait_until("the node believes it", super::site::PATIENCE, || {
                let routes = site
                    .netns()
                    .output("ip", &["-6", "route", "show", "proto", "kernel"])?;
                Ok(routes.contains(&format!("/{ADVERTISED} ")))
            })
        },
        undo: |site| {
            let lines = site.remote_pods().into_iter().filter(IpAddr::is_ipv6);
            let lines = lines.map(|pod| format!("ip -6 route del {pod}/{ADVERTISED} dev eth0\n"));
            let lines = lines.map(|line| line.replace("::10/", "::/"));
            site.sweep(&lines.collect::<String>())?;
            site.script("echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_ra")?;
            stop_answering(site)
        },
    },
];

/// Address 99 of the first quarter of each remote pod prefix.
fn neighbours(site: &Site, act: &str) -> String {
    let addresses = site.prefixes().into_iter().map(|prefix| {
        let net = prefix.network();
        match net {
            IpAddr::V4(net) => format!("ip addr {act} {}/25 dev eth0\n", v4_host(net)),
            IpAddr::V6(net) => {
                let address = Ipv6Addr::from(net.to_bits() | 0x99);
                format!("ip addr {act} {address}/80 dev eth0 nodad\n")
            }
        }
    });
    addresses.collect()
}

fn v4_host(net: std::net::Ipv4Addr) -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::from(net.to_bits() | 99)
}

/// An Ethernet frame with a router advertisement (RFC 4861, 4.2): the addresses around `pod` are on this link.
fn advertisement(pod: Ipv6Addr) -> Result<Vec<u8>> {
    let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xfffe);
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    // Type, code, checksum, hop limit, flags, lifetime 0: no default router.
    let mut message = vec![134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // Prefix information: length, on-link, valid and preferred for five minutes.
    message.extend([3, 4, ADVERTISED, 0x80, 0, 0, 1, 44, 0, 0, 1, 44, 0, 0, 0, 0]);
    message.extend((pod.to_bits() & !0xffff_ffff_ffff).to_be_bytes());
    let length = u16::try_from(message.len()).context("a short message")?;
    let pseudo = [
        &source.octets()[..],
        &all_nodes.octets(),
        &u32::from(length).to_be_bytes(),
        &[0, 0, 0, 58],
    ]
    .concat();
    let sum = internet(&[&pseudo, &message]);
    message[2..4].copy_from_slice(&sum);
    let mut frame = vec![
        0x33, 0x33, 0, 0, 0, 1, 0x02, 0, 0, 0, 0xff, 0xfe, 0x86, 0xdd,
    ];
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([58, 255]);
    frame.extend(source.octets());
    frame.extend(all_nodes.octets());
    frame.extend(message);
    Ok(frame)
}
