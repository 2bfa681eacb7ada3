//! The design's MTU table and every size of packet, on underlays of both families.

use anyhow::{Context as _, Result, ensure};
use hawser_tests::lab::{Family, Lab, Topology};
use hawser_tests::traffic::{EchoServer, Ping, echo};
use std::net::SocketAddr;
use std::time::Duration;

const PORT: u16 = 7007;
const PATIENCE: Duration = Duration::from_secs(3);
const ICMP_AND_IPV4: usize = 28;
const ICMP_AND_IPV6: usize = 48;

/// Builds a lab on an underlay and finds the largest ping that passes unfragmented, and what the
/// sender is told of the next larger one.
fn table_row(underlay: Family, mtu: u32, ipv4: usize, ipv6: usize) -> Result<()> {
    let mut lab = Lab::new(Topology::two_by_two().with_underlay(underlay, mtu))?;
    let sniffer = lab.sniffer()?;
    lab.start()?;
    lab.wait_ready(Duration::from_secs(30))?;
    for (from, to) in [
        ("east-1-a", "west-1-a"),
        ("west-2-b", "east-2-b"),
        ("east-1-a", "east-2-a"),
    ] {
        for (to, headers, expected) in [
            (lab.pod(to).v4(), ICMP_AND_IPV4, ipv4),
            (lab.pod(to).v6(), ICMP_AND_IPV6, ipv6),
        ] {
            let ping = |packet: usize| {
                Ping::new(to)
                    .size(packet - headers)
                    .dont_fragment()
                    .deadline(PATIENCE)
                    .run(lab.pod(from).netns())
            };
            let largest = ping(expected)?;
            ensure!(
                largest.is_complete(),
                "{underlay:?} {mtu}: {expected} bytes to {to}: {}",
                largest.output
            );
            let next = ping(expected + 1)?;
            ensure!(
                next.received == 0,
                "{underlay:?} {mtu}: {} bytes to {to} passed",
                expected + 1
            );
            let told = next.too_big.with_context(|| {
                format!("no too-big for {} bytes: {}", expected + 1, next.output)
            })?;
            ensure!(
                usize::try_from(told)? == expected,
                "told {told} and not {expected} on {underlay:?} {mtu} to {to}"
            );
        }
    }
    sniffer.stop()?.check()
}

#[test]
fn underlay_1280_over_ipv4() -> Result<()> {
    table_row(Family::V4, 1280, 1168, 1280)
}

#[test]
fn underlay_1500_over_ipv4() -> Result<()> {
    table_row(Family::V4, 1500, 1392, 1392)
}

#[test]
fn underlay_9000_over_ipv4() -> Result<()> {
    table_row(Family::V4, 9000, 8880, 8880)
}

#[test]
fn underlay_1280_over_ipv6() -> Result<()> {
    table_row(Family::V6, 1280, 1152, 1280)
}

#[test]
fn underlay_1500_over_ipv6() -> Result<()> {
    table_row(Family::V6, 1500, 1360, 1360)
}

#[test]
fn underlay_9000_over_ipv6() -> Result<()> {
    table_row(Family::V6, 9000, 8864, 8864)
}

/// UDP, TCP and ICMP of every size from 1 to 9,000 bytes and of 60,000: past the MTU datagrams go in
/// IP fragments, which are carried like any packet.
fn sizes(underlay: Family, mtu: u32) -> Result<()> {
    let mut lab = Lab::new(Topology::two_by_two().with_underlay(underlay, mtu))?;
    let sniffer = lab.sniffer()?;
    lab.start()?;
    lab.wait_ready(Duration::from_secs(30))?;
    let (from, to) = (lab.pod("east-1-a"), lab.pod("west-1-a"));
    let _server = EchoServer::start(to.netns(), PORT)?;
    for (source, destination) in [(from.v4(), to.v4()), (from.v6(), to.v6())] {
        // The lab's pods start with the MTU of the underlay: both learn the path's by one packet that
        // is too big, as any sender does. From then on nothing may be lost.
        for (pod, target) in [(from, destination), (to, source)] {
            let headers = if target.is_ipv4() {
                ICMP_AND_IPV4
            } else {
                ICMP_AND_IPV6
            };
            let size = usize::try_from(mtu)? - headers;
            Ping::new(target)
                .size(size)
                .dont_fragment()
                .deadline(PATIENCE)
                .run(pod.netns())?;
        }
        let at = SocketAddr::new(destination, PORT);
        let (netns, canary) = (from.netns(), lab.canary());
        let mut udp = echo::UdpSession::open(netns, at, canary, PATIENCE)?;
        let mut tcp = echo::TcpSession::open(netns, at, canary, PATIENCE)?;
        let mut icmp = echo::IcmpSession::open(netns, destination, canary, PATIENCE)?;
        for size in (1..=9_000).chain([60_000]) {
            udp.exchange(size)
                .with_context(|| format!("{size} bytes over UDP to {at} on {mtu}"))?;
            tcp.exchange(size)
                .with_context(|| format!("{size} bytes over TCP to {at} on {mtu}"))?;
            icmp.exchange(size)
                .with_context(|| format!("{size} bytes over ICMP to {at} on {mtu}"))?;
        }
    }
    sniffer.stop()?.check()
}

#[test]
fn every_size_on_1500_over_ipv4() -> Result<()> {
    sizes(Family::V4, 1500)
}

#[test]
fn every_size_on_1280_over_ipv6() -> Result<()> {
    sizes(Family::V6, 1280)
}

#[test]
fn every_size_on_9000_over_ipv4() -> Result<()> {
    sizes(Family::V4, 9000)
}
