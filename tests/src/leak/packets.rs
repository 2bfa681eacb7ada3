//! Odd packets of a pod, sent around the tunnel: whatever a header looks like, its addresses are judged.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result};

use super::site::{FOREIGN_TABLE, Site};
use super::{Barrier, Way};
use crate::io::PacketSocket;
use crate::lab::Family;
use crate::sniffer::checksum::internet;

/// How often each is sent to each remote pod.
const TIMES: usize = 20;

/// Matches nothing.
const NONE: &str = "meta length 0";

/// Ways by packets that few tools know. Only those that are odd are sent around.
pub(super) const WAYS: &[Way] = &[
    Way {
        name: "IPv4 options",
        mistake: "a record-route ping, by a rule that others made",
        barrier: Barrier::Guard,
        families: &[Family::V4],
        provoke: |site| {
            around(site, "ip hdrlength > 5", NONE)?;
            send(site, |from, to, payload| match (from, to) {
                (IpAddr::V4(from), IpAddr::V4(to)) => Some(ipv4(
                    (from, to),
                    (17, 0),
                    &[7, 7, 4, 0, 0, 0, 0, 0],
                    payload,
                )),
                _ => None,
            })
        },
        undo: straight,
    },
    Way {
        name: "IPv4 and IPv6 fragments",
        mistake: "large datagrams, whose later fragments have no ports",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            around(site, "ip frag-off & 0x1fff != 0", "exthdr frag exists")?;
            send(site, |from, to, payload| match (from, to) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    Some(ipv4((from, to), (17, 100), &[], payload))
                }
                // Next header UDP, offset 800 bytes, more to come.
                _ => ipv6(
                    from,
                    to,
                    44,
                    &[&[17, 0, 0x03, 0x21, 0, 0, 0, 9], payload].concat(),
                ),
            })
        },
        undo: straight,
    },
    Way {
        name: "IPv6 extension headers",
        mistake: "destination options, by a rule that others made",
        barrier: Barrier::Guard,
        families: &[Family::V6],
        provoke: |site| {
            around(site, NONE, "exthdr dst exists")?;
            send(site, |from, to, payload| {
                ipv6(
                    from,
                    to,
                    60,
                    &[&[59, 0, 1, 4, 0, 0, 0, 0], payload].concat(),
                )
            })
        },
        undo: straight,
    },
    Way {
        name: "protocols without ports that anybody knows",
        mistake: "IPsec (ESP), SCTP and UDP-Lite of a pod, by a rule that others made",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            around(
                site,
                "ip protocol { 50, 132, 136 }",
                "ip6 nexthdr { 50, 132, 136 }",
            )?;
            for protocol in [50, 132, 136] {
                send(site, |from, to, payload| match (from, to) {
                    (IpAddr::V4(from), IpAddr::V4(to)) => {
                        Some(ipv4((from, to), (protocol, 0), &[], payload))
                    }
                    _ => ipv6(from, to, protocol, payload),
                })?;
            }
            Ok(())
        },
        undo: straight,
    },
    Way {
        name: "a foreign source address",
        mistake: "a pod that may write headers itself (NET_RAW) says that it is somebody else",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            around(site, "ip saddr 203.0.113.9", "ip6 saddr 2001:db8:9::9")?;
            send(site, |_, to, payload| match to {
                IpAddr::V4(to) => Some(ipv4(
                    (Ipv4Addr::new(203, 0, 113, 9), to),
                    (17, 0),
                    &[],
                    payload,
                )),
                IpAddr::V6(_) => ipv6(
                    IpAddr::from([0x2001, 0xdb8, 9, 0, 0, 0, 0, 9]),
                    to,
                    59,
                    payload,
                ),
            })
        },
        undo: straight,
    },
];

/// Sends what either expression matches by the underlay's router.
fn around(site: &Site, v4: &str, v6: &str) -> Result<()> {
    let device = site.node().pod("a").host_device();
    // Ahead of defragmentation, which would put fragments together.
    site.script(&format!(
        "nft 'table inet stray {{ chain marks {{ type filter hook prerouting priority -450; \
         meta nfproto ipv4 iifname {device} {v4} meta mark set 7; \
         meta nfproto ipv6 iifname {device} {v6} meta mark set 7; }}; }}'"
    ))?;
    site.foreign_table()?;
    site.script(&site.each_family(|flag, _| {
        format!("ip {flag} rule add pref 100 fwmark 7 table {FOREIGN_TABLE}")
    }))
}

fn straight(site: &mut Site) -> Result<()> {
    site.sweep("nft delete table inet stray")?;
    site.no_foreign_table()
}

/// Has the node's pod send what `packet` makes of source, destination and payload, to each remote pod.
fn send(site: &Site, packet: impl Fn(IpAddr, IpAddr, &[u8]) -> Option<Vec<u8>>) -> Result<()> {
    let pod = site.node().pod("a");
    let socket = PacketSocket::open(pod.netns(), "eth0")?;
    let payload = site.lab().canary().repeat(4);
    let macs = [mac(&pod.host_mac())?, mac(&pod.mac())?].concat();
    for to in site.remote_pods() {
        let Some(packet) = packet(site.pod_address(to)?, to, &payload) else {
            continue;
        };
        let ether_type: [u8; 2] = if to.is_ipv4() {
            [0x08, 0x00]
        } else {
            [0x86, 0xdd]
        };
        let frame = [&macs[..], &ether_type, &packet].concat();
        for _ in 0..TIMES {
            socket.send(&frame)?;
        }
    }
    Ok(())
}

fn mac(text: &str) -> Result<Vec<u8>> {
    let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16));
    bytes
        .collect::<Result<_, _>>()
        .with_context(|| format!("MAC address {text}"))
}

/// An IPv4 packet with a protocol, a fragment offset in units of 8 bytes, and options.
fn ipv4(
    (from, to): (Ipv4Addr, Ipv4Addr),
    (protocol, offset): (u8, u16),
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).unwrap_or(15);
    let length = u16::try_from(usize::from(words) * 4 + payload.len()).unwrap_or(u16::MAX);
    let mut header = vec![0x40 | words, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 9]);
    header.extend(offset.to_be_bytes());
    header.extend([64, protocol, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    header.extend(options);
    let sum = internet(&[&header]);
    header[10..12].copy_from_slice(&sum);
    [&header, payload].concat()
}

/// An IPv6 packet; none if the addresses are not IPv6.
fn ipv6(from: IpAddr, to: IpAddr, next: u8, payload: &[u8]) -> Option<Vec<u8>> {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (from, to) else {
        return None;
    };
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).ok()?.to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    Some(packet)
}
