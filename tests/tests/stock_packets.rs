//! What a stock WireGuard peer and a pod say to each other in Geneve that the test makes and checks itself, and what is
//! refused of a peer that says something else.

use anyhow::{Context as _, Result, bail, ensure};
use hawser_tests::io::PacketSocket;
use hawser_tests::lab::{Family, Lab, Node, Pod, wait_until};
use hawser_tests::sniffer::Sniffer;
use hawser_tests::stock::geneve::{self, GenevePort, VNI};
use hawser_tests::stock::packet::{self, Body, UDP4, UDP6};
use hawser_tests::stock::{self, Implementation, Meeting, StockPeer, StockSpec};
use hawser_tests::traffic::{EchoServer, Ping, echo};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);
const PORT: u16 = 7007;
/// Our own port inside of Geneve.
const OWN: u16 = 40_000;

/// A stock peer that speaks first; its session comes with its first packet.
fn stock_peer(
    lab: &mut Lab,
    implementation: Implementation,
    index: u16,
    family: Family,
) -> Result<StockPeer> {
    let spec = StockSpec {
        implementation,
        cluster: stock::CLUSTER,
        index,
        family,
        preshared: family == Family::V6,
    };
    let mut peer = StockPeer::start(lab, spec)?;
    let meeting = Meeting {
        endpoint: true,
        keepalive: None,
    };
    peer.meet(lab.node("east-1"), meeting)?;
    stock::declare(lab.node("east-1"), &[peer.declaration(true)])?;
    Ok(peer)
}

fn clean_wire(lab: &Lab, peers: &[StockPeer]) -> Result<Sniffer> {
    let mut allow = lab.allow();
    allow
        .nodes
        .extend(peers.iter().map(|peer| peer.endpoint().ip()));
    allow.unpadded_data = true;
    Sniffer::start(&[lab.node("east-1").link().clone()], allow, lab.canary())
}

/// The next packet for the peer, out of Geneve that is right in every byte and names the pod.
fn next(port: &GenevePort, pod: &Pod, node: &Node) -> Result<packet::Parsed> {
    let opened = port
        .receive(PATIENCE)?
        .with_context(|| format!("nothing came within {PATIENCE:?}"))?;
    ensure!(
        (opened.cluster, opened.identity) == (node.cluster_id(), pod.identity()),
        "the option says {} of cluster {}",
        opened.identity,
        opened.cluster
    );
    let parsed = packet::parse(&opened.packet)?;
    ensure!(parsed.hops == 63, "{} hops are left", parsed.hops);
    Ok(parsed)
}

/// Plays the peer's pod: sends back every datagram and every ping, until `done`.
fn answer(port: &GenevePort, pod: &Pod, node: &Node, done: &AtomicBool) -> Result<()> {
    while !done.load(Ordering::Relaxed) {
        let Some(opened) = port.receive(Duration::from_millis(20))? else {
            continue;
        };
        ensure!(
            (opened.cluster, opened.identity) == (node.cluster_id(), pod.identity()),
            "the option says {} of cluster {}",
            opened.identity,
            opened.cluster
        );
        let request = packet::parse(&opened.packet)?;
        let reply = match request.body {
            Body::Udp { from, to, payload } => packet::udp(
                SocketAddr::new(request.to, to),
                SocketAddr::new(request.from, from),
                &payload,
            ),
            Body::Echo {
                reply: false,
                id,
                sequence,
                payload,
            } => packet::echo(true, (request.to, request.from), (id, sequence), &payload),
            Body::Echo { reply: true, .. } => bail!("a reply that nobody asked for"),
        };
        port.send(&reply)?;
    }
    Ok(())
}

#[test]
fn every_byte_between_a_stock_peer_and_a_pod_is_right() -> Result<()> {
    let mut lab = stock::lab(1500)?;
    let mut peers = Vec::new();
    let mut index = 11;
    for implementation in Implementation::TESTED {
        for family in Family::BOTH {
            peers.push(stock_peer(&mut lab, implementation, index, family)?);
            index += 1;
        }
    }
    let sniffer = clean_wire(&lab, &peers)?;
    let node = lab.node("east-1");
    let pod = node.pod("b");
    let _server = EchoServer::start(pod.netns(), PORT)?;
    for peer in &peers {
        let port = peer.geneve()?;
        for family in Family::BOTH {
            let title = format!(
                "{} over {}, {family} inside",
                peer.spec().implementation.name(),
                peer.spec().family
            );
            let mtu = stock::pod_mtu(node, peer.name(), family)?;
            let wanted = match peer.spec().family {
                Family::V4 => 1392,
                Family::V6 => 1360,
            };
            ensure!(mtu == wanted, "{title}: pod MTU {mtu}, not {wanted}");
            from_peer(&lab, &port, (node, pod), peer, family, mtu).context(title.clone())?;
            from_pod(&lab, &port, (node, pod), peer, family, mtu).context(title.clone())?;
            on_the_devices(&port, (node, pod), peer, family).context(title)?;
        }
    }
    sniffer.stop()?.check()
}

/// The peer asks, the pod's server and the pod's kernel answer, at every interesting size.
fn from_peer(
    lab: &Lab,
    port: &GenevePort,
    (node, pod): (&Node, &Pod),
    peer: &StockPeer,
    family: Family,
    mtu: usize,
) -> Result<()> {
    let own = SocketAddr::new(peer.inner(family), OWN);
    let at = SocketAddr::new(pod.address(family).context("address")?, PORT);
    let headers = match family {
        Family::V4 => UDP4,
        Family::V6 => UDP6,
    };
    let payload = |size| -> Vec<u8> { lab.canary().iter().copied().cycle().take(size).collect() };
    for size in [1, 15, 16, 17, 64, 1000, mtu - headers - 1, mtu - headers] {
        port.send(&packet::udp(own, at, &payload(size)))?;
        let parsed = next(port, pod, node).with_context(|| format!("{size} bytes"))?;
        let expected = Body::Udp {
            from: PORT,
            to: OWN,
            payload: payload(size),
        };
        ensure!(
            (parsed.from, parsed.to) == (at.ip(), own.ip()) && parsed.body == expected,
            "{size} bytes came back as {parsed:?}"
        );
        port.send(&packet::echo(
            false,
            (own.ip(), at.ip()),
            (7, 8),
            &payload(size),
        ))?;
        let parsed = next(port, pod, node).with_context(|| format!("ping of {size} bytes"))?;
        let expected = Body::Echo {
            reply: true,
            id: 7,
            sequence: 8,
            payload: payload(size),
        };
        ensure!(
            (parsed.from, parsed.to) == (at.ip(), own.ip()) && parsed.body == expected,
            "a ping of {size} bytes came back as {parsed:?}"
        );
    }
    Ok(())
}

/// The pod asks, the test answers in the peer's name; one byte more than the MTU is answered too-big by the node.
fn from_pod(
    lab: &Lab,
    port: &GenevePort,
    (node, pod): (&Node, &Pod),
    peer: &StockPeer,
    family: Family,
    mtu: usize,
) -> Result<()> {
    let to = peer.inner(family);
    let headers = match family {
        Family::V4 => UDP4,
        Family::V6 => UDP6,
    };
    let largest = mtu - headers;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let answering = scope.spawn(|| answer(port, pod, node, &done));
        let asked = (|| -> Result<()> {
            for size in [1, 64, largest] {
                echo::udp(
                    pod.netns(),
                    None,
                    SocketAddr::new(to, PORT),
                    size,
                    lab.canary(),
                    PATIENCE,
                )?;
                let ping = Ping::new(to)
                    .count(1)
                    .size(size)
                    .dont_fragment()
                    .deadline(PATIENCE);
                let report = ping.canary(lab.canary()).run(pod.netns())?;
                ensure!(report.received == 1, "ping of {size}: {}", report.output);
            }
            let ping = Ping::new(to).count(1).size(largest + 1).dont_fragment();
            let report = ping.deadline(Duration::from_secs(1)).run(pod.netns())?;
            let told = u32::try_from(mtu)?;
            ensure!(
                report.received == 0 && report.too_big == Some(told),
                "ping of {}: {}",
                largest + 1,
                report.output
            );
            Ok(())
        })();
        done.store(true, Ordering::Relaxed);
        let answered = answering.join();
        answered
            .map_err(|_| anyhow::anyhow!("the peer's part died"))?
            .and(asked)
    })
}

/// The overlay packet as the peer's TUN shows it, and the frame as the node's TAP shows it, from the first byte on.
fn on_the_devices(
    port: &GenevePort,
    (node, pod): (&Node, &Pod),
    peer: &StockPeer,
    family: Family,
) -> Result<()> {
    let tun = PacketSocket::open(peer.netns(), peer.device())?;
    let tap = PacketSocket::open(node.netns(), "hawser0")?;
    let own = SocketAddr::new(peer.inner(family), OWN);
    let at = SocketAddr::new(pod.address(family).context("address")?, PORT);
    port.send(&packet::udp(own, at, b"one packet"))?;
    next(port, pod, node)?;

    let (to, from) = (
        peer.overlay(),
        stock::overlay(node.cluster_id(), node.index()),
    );
    let overlay = received(&tun, |bytes| bytes.get(16..20) == Some(&to.octets()[..]))
        .context("on the peer's TUN")?;
    let inner_length = match family {
        Family::V4 => UDP4,
        Family::V6 => UDP6,
    } + b"one packet".len();
    let length = u16::try_from(overlay.len())?;
    ensure!(
        overlay.len() == 28 + geneve::LENGTH + inner_length,
        "{} bytes on the TUN",
        overlay.len()
    );
    // Identification 0, Don't Fragment, TTL 64, UDP; the checksum is checked by the peer's kernel.
    let expected = [
        &[0x45, 0][..],
        &length.to_be_bytes(),
        &[0, 0, 0x40, 0, 64, 17],
        &overlay[10..12],
        &from.octets(),
        &to.octets(),
        &overlay[20..22],
        &6081_u16.to_be_bytes(),
        &(length - 20).to_be_bytes(),
        &[0, 0],
    ]
    .concat();
    ensure!(
        overlay[..28] == expected,
        "overlay headers are {:02x?}, not {expected:02x?}",
        &overlay[..28]
    );
    let (cluster, identity) = (peer.spec().cluster, peer.identity());
    let frame = received(&tap, |bytes| {
        bytes.ends_with(b"one packet") && bytes[..6] == [2, 0, 0, 0, 0, 2]
    })
    .context("on the node's TAP")?;
    let mac = u64::from(2_u8) << 40 | u64::from(cluster) << 28 | u64::from(identity);
    ensure!(
        frame[6..12] == mac.to_be_bytes()[2..],
        "the frame's source is {:02x?}, not {mac:012x}",
        &frame[6..12]
    );
    ensure!(
        frame[14..] == packet::udp(own, at, b"one packet"),
        "the pod packet was changed on its way"
    );
    Ok(())
}

fn received(socket: &PacketSocket, wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
    let (mut buffer, end) = (vec![0; 65_536], Instant::now() + PATIENCE);
    while Instant::now() < end {
        if let Some(length) = socket.receive(&mut buffer, PATIENCE)?
            && length > 14
            && wanted(&buffer[..length])
        {
            return Ok(buffer[..length].to_vec());
        }
    }
    bail!("it was not seen within {PATIENCE:?}")
}

#[test]
fn a_stock_peer_is_held_to_what_it_may_say() -> Result<()> {
    let mut lab = stock::lab(1500)?;
    let peer = stock_peer(&mut lab, Implementation::WireguardGo, 11, Family::V4)?;
    let other = stock_peer(&mut lab, Implementation::Gotatun, 12, Family::V4)?;
    let stranger = Ipv4Addr::new(240, 2, 0, 99);
    peer.netns()
        .ip_batch(&format!("addr add {stranger}/32 dev {}\n", peer.device()))?;
    let node = lab.node("east-1");
    let pod = node.pod("a");
    let _server = EchoServer::start(pod.netns(), PORT)?;
    let port = peer.geneve()?;
    let at = SocketAddr::new(pod.v4(), PORT);
    let from = |address: IpAddr| SocketAddr::new(address, OWN);
    let own = from(peer.inner(Family::V4));
    let good = packet::udp(own, at, b"good");
    let answered = || -> Result<()> {
        let parsed = next(&port, pod, node)?;
        ensure!(
            parsed.from == at.ip() && parsed.to == own.ip(),
            "{parsed:?}"
        );
        Ok(())
    };
    port.send(&good)?;
    answered().context("the plainest packet")?;
    // Options are read and not believed: an unknown one, and ours with lies in it.
    let lies = [0xff, 0x48, 1, 2, 0, 7, 0, 1, 0, 0, 0, 1];
    for options in [&[0x12, 0x34, 0x05, 1, 9, 9, 9, 9][..], &lies] {
        port.send_bytes(&geneve::encode(VNI, options, &good))?;
        answered().with_context(|| format!("with options {options:02x?}"))?;
    }

    let hawser = stock::overlay(node.cluster_id(), node.index());
    let plain = peer
        .netns()
        .run(|| UdpSocket::bind((peer.overlay(), OWN)))??;
    let strange = peer.netns().run(|| UdpSocket::bind((stranger, OWN)))??;
    let geneve = |packet: &[u8]| geneve::encode(VNI, &[], packet);
    let changed = |at: usize, byte: u8| {
        let mut bytes = geneve(&good);
        bytes[at] = byte;
        bytes
    };
    let critical = [0x12, 0x34, 0x85, 1, 9, 9, 9, 9];
    let v6 = packet::udp(
        from(peer.inner(Family::V6)),
        SocketAddr::new(pod.v6(), PORT),
        b"six",
    );
    let mut v6_as_v4 = geneve(&v6);
    v6_as_v4[2..4].copy_from_slice(&[0x08, 0x00]);
    let sourced = |source: IpAddr| geneve(&packet::udp(from(source), at, b"lie"));
    let lies: [(&str, &str, Vec<u8>); 14] = [
        ("four bytes", "geneve_truncated", vec![0; 4]),
        ("version 1", "geneve_version", changed(0, 0x40)),
        ("a control packet", "geneve_control", changed(1, 0x80)),
        ("an Ethernet frame", "geneve_protocol", {
            let mut bytes = changed(2, 0x65);
            bytes[3] = 0x58;
            bytes
        }),
        ("IPv6 that says it is IPv4", "geneve_protocol", v6_as_v4),
        ("another network", "geneve_vni", changed(6, 2)),
        (
            "an unknown critical option",
            "geneve_critical_option",
            geneve::encode(VNI, &critical, &good),
        ),
        (
            "another stock peer's pod",
            "source_not_owned",
            sourced(other.inner(Family::V4)),
        ),
        (
            "a pod of the receiver",
            "source_not_owned",
            sourced(node.pod("b").v4()),
        ),
        (
            "a stranger",
            "source_not_owned",
            sourced(Ipv4Addr::new(192, 0, 2, 1).into()),
        ),
        (
            "to another stock peer's pod",
            "destination_not_local",
            geneve(&packet::udp(own, from(other.inner(Family::V4)), b"lie")),
        ),
        (
            "to the node's underlay",
            "destination_not_local",
            geneve(&packet::udp(own, from(node.underlay(Family::V4)), b"lie")),
        ),
        (
            "Geneve in Geneve",
            "nested_geneve",
            geneve(&packet::udp(
                own,
                SocketAddr::new(at.ip(), geneve::PORT),
                b"lie",
            )),
        ),
        (
            "a packet cut short",
            "inner_malformed",
            geneve(&good[..good.len() - 1]),
        ),
    ];
    let arrived = |node: &Node| -> Result<u64> {
        let status = node.status()?;
        status["counters"]["rxPackets"]
            .as_u64()
            .context("no count of packets")
    };
    let before = arrived(node)?;
    let refused = |title: &str, reason: &str, send: &dyn Fn() -> Result<()>| -> Result<()> {
        const TIMES: u64 = 5;
        let before = stock::drops(node, reason)?;
        for _ in 0..TIMES {
            send()?;
        }
        wait_until(
            &format!("{title} was counted as {reason}"),
            PATIENCE,
            || Ok(stock::drops(node, reason)? >= before + TIMES),
        )?;
        let counted = stock::drops(node, reason)? - before;
        ensure!(counted == TIMES, "{title}: {counted} counted as {reason}");
        Ok(())
    };
    for (title, reason, bytes) in &lies {
        refused(title, reason, &|| port.send_bytes(bytes))?;
    }
    refused("a plain packet", "overlay_not_geneve", &|| {
        plain.send_to(b"plain", (hawser, PORT))?;
        Ok(())
    })?;
    refused("another overlay address", "overlay_source", &|| {
        strange.send_to(&geneve(&good), (hawser, geneve::PORT))?;
        Ok(())
    })?;
    refused(
        "a ping of the node's overlay address",
        "overlay_not_geneve",
        &|| {
            let report = Ping::new(hawser.into())
                .count(1)
                .from(peer.overlay().into())
                .deadline(Duration::from_secs(1))
                .run(peer.netns())?;
            ensure!(report.received == 0, "{}", report.output);
            Ok(())
        },
    )?;
    let delivered = arrived(node)? - before;
    ensure!(delivered == 0, "{delivered} lies were delivered");
    port.send(&good)?;
    answered().context("the good packet after all the lies")
}

#[test]
fn a_large_ipv6_packet_reaches_a_stock_peer_over_a_small_underlay_in_two_fragments() -> Result<()> {
    let mut lab = stock::lab(1280)?;
    let mut peers = Vec::new();
    for (index, implementation) in (11..).zip(Implementation::TESTED) {
        peers.push(stock_peer(&mut lab, implementation, index, Family::V6)?);
    }
    let sniffer = clean_wire(&lab, &peers)?;
    let node = lab.node("east-1");
    let pod = node.pod("a");
    for peer in &peers {
        let port = peer.geneve()?;
        let to = SocketAddr::new(peer.inner(Family::V6), PORT);
        let socket = pod
            .netns()
            .run(|| UdpSocket::bind(SocketAddr::new(pod.v6(), OWN)))??;
        ensure!(stock::pod_mtu(node, peer.name(), Family::V4)? == 1152);
        ensure!(stock::pod_mtu(node, peer.name(), Family::V6)? == 1280);
        for size in [1, 1152 - UDP6, 1153 - UDP6, 1279 - UDP6, 1280 - UDP6] {
            let payload: Vec<u8> = lab.canary().iter().copied().cycle().take(size).collect();
            socket.send_to(&payload, to)?;
            let parsed = next(&port, pod, node).with_context(|| format!("{size} bytes"))?;
            let expected = Body::Udp {
                from: OWN,
                to: PORT,
                payload,
            };
            ensure!(parsed.body == expected, "{size} bytes came as {parsed:?}");
        }
    }
    sniffer.stop()?.check()
}
