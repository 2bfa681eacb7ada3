//! Programs on the node itself that send to remote pods past the routes.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::site::Site;
use super::{Barrier, Way};
use crate::io::PacketSocket;
use crate::lab::Family;
use crate::sniffer::checksum::udp;

/// How often each program sends to each pod.
const TIMES: usize = 20;

/// Ways by sockets.
pub(super) const WAYS: &[Way] = &[
    Way {
        name: "a socket bound to eth0",
        mistake: "an agent on the node with SO_BINDTODEVICE, as DHCP and monitoring have",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            each_remote_pod(site, |site, pod| {
                let socket = site.netns().run(|| -> Result<Socket> {
                    let socket = Socket::new(
                        Domain::for_address(SocketAddr::new(pod, 0)),
                        Type::DGRAM,
                        None,
                    )
                    .context("failed to make a socket")?;
                    socket
                        .bind_device(Some(b"eth0"))
                        .context("failed to bind it to eth0")?;
                    Ok(socket)
                })??;
                let payload = site.lab().canary().repeat(4);
                // A refusal is what the guard is for.
                socket
                    .send_to(&payload, &SocketAddr::new(pod, 9).into())
                    .ok();
                Ok(())
            })
        },
        undo: |_| Ok(()),
    },
    Way {
        name: "a socket with the node's address, its packets marked",
        mistake: "a program with SO_MARK, and a rule for that mark",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| {
            site.foreign_table()?;
            site.script(&site.each_family(|flag, _| {
                format!(
                    "ip {flag} rule add pref 100 fwmark 9 table {}",
                    super::site::FOREIGN_TABLE
                )
            }))?;
            each_remote_pod(site, |site, pod| {
                let own = site.node().underlay(Family::of(pod));
                let socket = site.netns().run(|| -> Result<Socket> {
                    let socket =
                        UdpSocket::bind(SocketAddr::new(own, 0)).context("failed to bind")?;
                    let socket = Socket::from(socket);
                    socket.set_mark(9).context("failed to mark")?;
                    Ok(socket)
                })??;
                let payload = site.lab().canary().repeat(4);
                socket
                    .send_to(&payload, &SocketAddr::new(pod, 9).into())
                    .ok();
                Ok(())
            })
        },
        undo: |site| site.no_foreign_table(),
    },
    Way {
        name: "a raw socket with a pod's address as source",
        mistake: "a tool that writes IP headers itself (IP_HDRINCL), bound to eth0",
        barrier: Barrier::Guard,
        families: &[Family::V4],
        provoke: |site| {
            let socket = site.netns().run(|| -> Result<Socket> {
                let raw = Protocol::from(libc::IPPROTO_RAW);
                let socket = Socket::new(Domain::IPV4, Type::RAW, Some(raw))
                    .context("failed to make a raw socket")?;
                socket
                    .bind_device(Some(b"eth0"))
                    .context("failed to bind it to eth0")?;
                Ok(socket)
            })??;
            each_remote_pod(site, |site, pod| {
                if pod.is_ipv4() {
                    let packet = clear_packet(site, pod)?;
                    socket
                        .send_to(&packet, &SocketAddr::new(pod, 0).into())
                        .ok();
                }
                Ok(())
            })
        },
        undo: |_| Ok(()),
    },
    Way {
        name: "frames written to eth0 by a packet socket",
        mistake: "a packet generator, a userspace bridge, a tool that replays captures",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| write_frames(site, &[]),
        undo: |_| Ok(()),
    },
    Way {
        name: "frames with a VLAN tag written to eth0",
        mistake: "the same by a VLAN",
        barrier: Barrier::Guard,
        families: &Family::BOTH,
        provoke: |site| write_frames(site, &[0x81, 0x00, 0x00, 0x07]),
        undo: |_| Ok(()),
    },
];

fn each_remote_pod(site: &Site, send: impl Fn(&Site, IpAddr) -> Result<()>) -> Result<()> {
    for _ in 0..TIMES {
        for pod in site.remote_pods() {
            send(site, pod)?;
        }
    }
    Ok(())
}

/// What the node's pod would say to another.
fn clear_packet(site: &Site, to: IpAddr) -> Result<Vec<u8>> {
    let from = site.pod_address(to)?;
    Ok(udp(from, to, (4000, 4001), &site.lab().canary().repeat(4)))
}

fn write_frames(site: &Site, tag: &[u8]) -> Result<()> {
    let socket = PacketSocket::open(site.netns(), "eth0")?;
    each_remote_pod(site, |site, pod| {
        let ether_type: [u8; 2] = if pod.is_ipv4() {
            [0x08, 0x00]
        } else {
            [0x86, 0xdd]
        };
        let header = [
            &[0xff; 6][..],
            &[0x02, 0, 0, 0, 0xee, 0xee],
            tag,
            &ether_type,
        ];
        let frame = [header.concat(), clear_packet(site, pod)?].concat();
        // A refusal is what the guard is for.
        socket.send(&frame).ok();
        Ok(())
    })
}
