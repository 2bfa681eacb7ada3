//! WireGuard's conduct towards stock peers: keepalives, roaming, a peer that starts again, and a wrong pre-shared key.

use anyhow::{Context as _, Result, ensure};
use hawser_tests::lab::{Family, Lab, Node, Pod, wait_until};
use hawser_tests::stock::{
    self, GenevePort, Implementation, Meeting, MessageKind, StockPeer, StockSpec, WireLog,
    WireMessage, packet,
};
use hawser_tests::traffic::EchoServer;
use nix::sys::signal::Signal;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

const PATIENCE: Duration = Duration::from_secs(20);
const ECHO: u16 = 7007;
/// A socket in the pod that takes and never answers.
const SILENT: u16 = 7009;
/// Our own port inside of Geneve.
const OWN: u16 = 40_000;
/// How often somebody who waits for an answer asks again.
const AGAIN: Duration = Duration::from_millis(50);

/// One stock peer that knows east-1 and is not declared to it yet.
fn stock_peer(
    lab: &mut Lab,
    implementation: Implementation,
    index: u16,
    (preshared, meeting): (bool, Meeting),
) -> Result<StockPeer> {
    let spec = StockSpec {
        implementation,
        cluster: stock::CLUSTER,
        index,
        family: Family::V4,
        preshared,
    };
    let mut peer = StockPeer::start(lab, spec)?;
    peer.meet(lab.node("east-1"), meeting)?;
    Ok(peer)
}

const SPEAKS: Meeting = Meeting {
    endpoint: true,
    keepalive: None,
};
const WAITS: Meeting = Meeting {
    endpoint: false,
    keepalive: None,
};

/// Whether the node has a session with the peer that the peer has confirmed.
fn has_session(node: &Node, peer: &StockPeer) -> Result<bool> {
    Ok(!stock::lane(&node.status()?, peer.name())?["handshakeAgeMs"].is_null())
}

fn endpoint(node: &Node, peer: &StockPeer) -> Result<SocketAddr> {
    let status = node.status()?;
    let told = stock::lane(&status, peer.name())?["endpoint"].as_str();
    told.context("no endpoint")?.parse().context("endpoint")
}

/// A packet from the peer's pod to a port of a real one.
fn from_peer(peer: &StockPeer, pod: &Pod, port: u16, payload: &[u8]) -> Vec<u8> {
    packet::udp(
        SocketAddr::new(peer.inner(Family::V4), OWN),
        SocketAddr::new(pod.v4(), port),
        payload,
    )
}

/// Asks the pod's server in the peer's name until it answers; says how long that took.
fn answered(port: &GenevePort, peer: &StockPeer, pod: &Pod) -> Result<Duration> {
    let start = Instant::now();
    for number in 0_u32.. {
        ensure!(start.elapsed() < PATIENCE, "no answer within {PATIENCE:?}");
        port.send(&from_peer(peer, pod, ECHO, &number.to_be_bytes()))?;
        if port.receive(AGAIN)?.is_some() {
            break;
        }
    }
    let took = start.elapsed();
    // Answers to what was asked meanwhile.
    while port.receive(AGAIN)?.is_some() {}
    Ok(took)
}

fn hawser(node: &Node) -> SocketAddr {
    SocketAddr::new(node.underlay(Family::V4), node.endpoint().port())
}

fn silent(pod: &Pod) -> Result<UdpSocket> {
    let at = SocketAddr::new(pod.v4(), SILENT);
    pod.netns()
        .run(|| UdpSocket::bind(at))?
        .with_context(|| format!("failed to bind {at}"))
}

/// Seconds from one moment to the message.
fn after(start: SystemTime, message: &WireMessage) -> f64 {
    message
        .at
        .duration_since(start)
        .map_or(-1.0, |passed| passed.as_secs_f64())
}

#[test]
fn a_peer_behind_a_firewall_is_reached_through_its_persistent_keepalives() -> Result<()> {
    let mut lab = stock::lab(1500)?;
    let meeting = Meeting {
        endpoint: true,
        keepalive: Some(1),
    };
    let mut peers = Vec::new();
    for (index, implementation) in (11..).zip(Implementation::TESTED) {
        peers.push(stock_peer(
            &mut lab,
            implementation,
            index,
            (false, meeting),
        )?);
    }
    let node = lab.node("east-1");
    let pod = node.pod("a");
    let log = WireLog::start(node.link())?;
    let declared: Vec<_> = peers.iter().map(|peer| peer.declaration(false)).collect();
    stock::declare(node, &declared)?;
    for peer in &peers {
        let name = peer.spec().implementation.name();
        wait_until(&format!("{name} has a session"), PATIENCE, || {
            has_session(node, peer)
        })?;
        // The node knows where the peer is although nobody told it, and no packet has come from there.
        let port = peer.geneve()?;
        let socket = silent(pod)?;
        socket.send_to(b"are you there", (peer.inner(Family::V4), OWN))?;
        let opened = port.receive(PATIENCE)?.context("nothing came")?;
        ensure!(packet::parse(&opened.packet)?.from == pod.v4());
        wait_until(&format!("{name} keeps alive"), PATIENCE, || {
            Ok(log.said_by(peer.endpoint(), MessageKind::Keepalive).len() >= 5)
        })?;
        let back = log.said_by(hawser(node), MessageKind::Keepalive);
        ensure!(
            !back.iter().any(|message| message.to == peer.endpoint()),
            "{name}: a keepalive was answered by one"
        );
    }
    Ok(())
}

#[test]
fn whoever_only_listens_says_so_after_ten_seconds_and_nobody_shakes_hands_again() -> Result<()> {
    let mut lab = stock::lab(1500)?;
    let mut peers = Vec::new();
    for (at, implementation) in (0_u16..).zip(Implementation::TESTED) {
        peers.push(stock_peer(
            &mut lab,
            implementation,
            11 + at,
            (false, SPEAKS),
        )?);
        peers.push(stock_peer(
            &mut lab,
            implementation,
            13 + at,
            (false, WAITS),
        )?);
    }
    let node = lab.node("east-1");
    let pod = node.pod("a");
    let log = WireLog::start(node.link())?;
    let socket = silent(pod)?;
    let declared: Vec<_> = peers
        .iter()
        .map(|peer| peer.declaration(peer.spec().index > 12))
        .collect();
    stock::declare(node, &declared)?;
    let talks = |peer: &StockPeer| peer.spec().index <= 12;
    let mut ports = Vec::new();
    for peer in &peers {
        ports.push(peer.geneve()?);
        if !talks(peer) {
            wait_until("the node has a session", PATIENCE, || {
                has_session(node, peer)
            })?;
        }
    }
    // One packet, of the peer with which the handshake comes, or of the pod; nobody answers.
    let start = SystemTime::now();
    for (peer, port) in peers.iter().zip(&ports) {
        if talks(peer) {
            port.send(&from_peer(peer, pod, SILENT, b"listen"))?;
        } else {
            socket.send_to(b"listen", (peer.inner(Family::V4), OWN))?;
        }
    }
    // KEEPALIVE_TIMEOUT + REKEY_TIMEOUT after the packet its sender would have begun anew.
    wait_until("seventeen seconds have passed", PATIENCE, || {
        Ok(start.elapsed()? > Duration::from_secs(17))
    })?;
    for peer in &peers {
        let title = format!("{}, {}", peer.name(), peer.spec().implementation.name());
        let (speaker, listener) = match talks(peer) {
            true => (peer.endpoint(), hawser(node)),
            false => (hawser(node), peer.endpoint()),
        };
        let all = log.messages();
        let said = |kind, from: SocketAddr, to: SocketAddr| {
            let of = all
                .iter()
                .filter(move |m| (m.kind, m.from, m.to) == (kind, from, to));
            of.map(|message| after(start, message)).collect::<Vec<_>>()
        };
        let keepalives = said(MessageKind::Keepalive, listener, speaker);
        println!("{title}: keepalives {keepalives:.2?} s after the packet");
        ensure!(
            keepalives.len() == 1 && (9.5..14.0).contains(&keepalives[0]),
            "{title}: keepalives of the listener {keepalives:.2?} s after the packet"
        );
        let late = |from, to| {
            let mut said = said(MessageKind::Initiation, from, to);
            said.retain(|at| *at > 5.0);
            said
        };
        let again = [late(speaker, listener), late(listener, speaker)].concat();
        ensure!(
            again.is_empty(),
            "{title}: handshakes {again:.2?} s after the packet"
        );
    }
    Ok(())
}

#[test]
fn a_peer_that_moves_is_followed_and_one_that_repeats_its_words_is_not() -> Result<()> {
    let mut lab = stock::lab(1500)?;
    let mut peers = Vec::new();
    for (index, implementation) in (11..).zip(Implementation::TESTED) {
        peers.push(stock_peer(&mut lab, implementation, index, (true, SPEAKS))?);
    }
    let attacker = lab.netns_add("attacker")?;
    lab.attach_underlay(&attacker, stock::CLUSTER, 90)?;
    let node = lab.node("east-1");
    let pod = node.pod("a");
    let _server = EchoServer::start(pod.netns(), ECHO)?;
    let log = WireLog::start(node.link())?;
    let declared: Vec<_> = peers.iter().map(|peer| peer.declaration(false)).collect();
    stock::declare(node, &declared)?;
    let attacker = attacker.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 51820)))??;
    attacker.set_nonblocking(true)?;
    for peer in &peers {
        let name = peer.spec().implementation.name();
        let port = peer.geneve()?;
        answered(&port, peer, pod)?;
        let old = peer.endpoint();
        ensure!(endpoint(node, peer)? == old);

        let new: Ipv4Addr = Ipv4Addr::new(192, 168, 2, 100 + u8::try_from(peer.spec().index)?);
        let IpAddr::V4(old_address) = old.ip() else {
            unreachable!("an IPv4 underlay");
        };
        peer.netns().ip_batch(&format!(
            "addr del {old_address}/24 dev eth0\n\
             addr add {new}/24 dev eth0\n\
             route replace default via 192.168.2.254 dev eth0\n"
        ))?;
        let took = answered(&port, peer, pod).with_context(|| format!("{name} after its move"))?;
        println!("{name}: answered {took:.0?} after its address changed");
        let new = SocketAddr::new(new.into(), old.port());
        ensure!(
            endpoint(node, peer)? == new,
            "{name} was not followed to {new}"
        );
        // wireguard-go sends from its old address, in vain, until it has heard nothing for 15 s.
        let limit = match peer.spec().implementation {
            Implementation::WireguardGo | Implementation::WireguardGoNewest => {
                Duration::from_secs(17)
            }
            Implementation::Boringtun | Implementation::Gotatun => Duration::from_secs(1),
        };
        ensure!(took < limit, "{name}: {took:?} after its address changed");

        // The same address and another port: a NAT comes between that gives it one.
        let new = SocketAddr::new(new.ip(), 51999);
        let nat = format!(
            "add table ip away; \
             add chain ip away out {{ type nat hook postrouting priority 100; }}; \
             add rule ip away out udp sport 51820 snat to {new}"
        );
        peer.netns().output("nft", &[&nat])?;
        let took = answered(&port, peer, pod).with_context(|| format!("{name} at {new}"))?;
        println!("{name}: answered {took:.0?} after its port changed");
        ensure!(
            endpoint(node, peer)? == new,
            "{name} was not followed to {new}"
        );
        ensure!(
            took < Duration::from_secs(1),
            "{name}: {took:?} after its port changed"
        );

        // The first words of the peer, said again by somebody else.
        let initiation = log.said_by(old, MessageKind::Initiation);
        let initiation = initiation.first().context("no initiation")?;
        let keepalive = log.said_by(old, MessageKind::Keepalive);
        let keepalive = keepalive.first();
        let mut replays = vec![("wg_timestamp", &initiation.bytes)];
        replays.extend(keepalive.map(|message| ("wg_replay", &message.bytes)));
        for (reason, bytes) in replays {
            let before = stock::drops(node, reason)?;
            attacker.send_to(bytes, hawser(node))?;
            wait_until(&format!("{reason} was counted"), PATIENCE, || {
                Ok(stock::drops(node, reason)? == before + 1)
            })?;
            ensure!(
                endpoint(node, peer)? == new,
                "{name}: the node followed a replay ({reason})"
            );
        }
        let took = answered(&port, peer, pod)?;
        ensure!(
            took < Duration::from_secs(1),
            "{name}: {took:?} after a replay"
        );
        ensure!(
            attacker.recv_from(&mut [0; 256]).is_err(),
            "{name}: the replay was answered"
        );
    }
    Ok(())
}

#[test]
fn a_peer_that_starts_again_is_back_at_once_where_it_speaks_and_soon_where_it_waits() -> Result<()>
{
    let mut lab = stock::lab(1500)?;
    let mut peers = Vec::new();
    for (at, implementation) in (0_u16..).zip(Implementation::TESTED) {
        peers.push(stock_peer(
            &mut lab,
            implementation,
            11 + at,
            (false, SPEAKS),
        )?);
        peers.push(stock_peer(
            &mut lab,
            implementation,
            13 + at,
            (true, WAITS),
        )?);
    }
    let node = lab.node("east-1");
    let pod = node.pod("a");
    let _server = EchoServer::start(pod.netns(), ECHO)?;
    let declared: Vec<_> = peers
        .iter()
        .map(|peer| peer.declaration(peer.spec().index > 12))
        .collect();
    stock::declare(node, &declared)?;
    for peer in &mut peers {
        let port = peer.geneve()?;
        answered(&port, peer, pod)?;
        drop(port);
        peer.restart(Signal::SIGKILL)?;
        if peer.spec().index <= 12 {
            let name = peer.spec().implementation.name();
            let took = answered(&peer.geneve()?, peer, pod)?;
            println!("{name}, which speaks: back {took:.0?} after its start");
            ensure!(
                took < Duration::from_secs(1),
                "{name}: {took:?} after its start"
            );
        }
    }
    // Those that wait do not know where the node is: only the node can begin, once it has noticed that nothing comes
    // back, 15 s after what it sent (KEEPALIVE_TIMEOUT + REKEY_TIMEOUT).
    let socket = silent(pod)?;
    let mut waiting: Vec<(&StockPeer, GenevePort)> = Vec::new();
    for peer in peers.iter().filter(|peer| peer.spec().index > 12) {
        waiting.push((peer, peer.geneve()?));
    }
    let start = Instant::now();
    while !waiting.is_empty() {
        ensure!(
            start.elapsed() < PATIENCE,
            "{} and others are not back after {PATIENCE:?}",
            waiting[0].0.spec().implementation.name()
        );
        let mut back = Vec::new();
        for (at, (peer, port)) in waiting.iter().enumerate() {
            socket.send_to(b"hello again", (peer.inner(Family::V4), OWN))?;
            if port.receive(AGAIN)?.is_some() {
                let name = peer.spec().implementation.name();
                println!(
                    "{name}, which waits: back after {:.1?} of traffic",
                    start.elapsed()
                );
                back.push(at);
            }
        }
        for at in back.into_iter().rev() {
            waiting.remove(at);
        }
    }
    Ok(())
}

#[test]
fn a_wrong_preshared_key_makes_no_session_and_the_right_one_mends_it() -> Result<()> {
    let mut lab = stock::lab(1500)?;
    let mut peers = Vec::new();
    for (at, implementation) in (0_u16..).zip(Implementation::TESTED) {
        peers.push(stock_peer(
            &mut lab,
            implementation,
            11 + at,
            (true, SPEAKS),
        )?);
        peers.push(stock_peer(
            &mut lab,
            implementation,
            13 + at,
            (true, WAITS),
        )?);
    }
    let node = lab.node("east-1");
    let pod = node.pod("a");
    let _server = EchoServer::start(pod.netns(), ECHO)?;
    let log = WireLog::start(node.link())?;
    for peer in &peers {
        peer.set_preshared_key(false)?;
    }
    let declared: Vec<_> = peers
        .iter()
        .map(|peer| peer.declaration(peer.spec().index > 12))
        .collect();
    stock::declare(node, &declared)?;
    let mut ports = Vec::new();
    for peer in &peers {
        let port = peer.geneve()?;
        port.send(&from_peer(peer, pod, ECHO, b"knock"))?;
        ports.push(port);
    }
    // Two attempts of each that begins, both answered: the key is no part of an initiation.
    let responses = |peer: &StockPeer| {
        let mut all = log.messages();
        all.retain(|message| {
            message.kind == MessageKind::Response
                && (message.from == peer.endpoint() || message.to == peer.endpoint())
        });
        all.len()
    };
    wait_until("each has been answered twice", PATIENCE, || {
        Ok(peers.iter().all(|peer| responses(peer) >= 2))
    })?;
    // The node sees it in the responses that it gets; where it gives them, the peer does.
    wait_until("the node has refused the responses", PATIENCE, || {
        Ok(stock::drops(node, "wg_handshake")? >= 4)
    })?;
    for peer in &peers {
        let title = format!("{}, {}", peer.name(), peer.spec().implementation.name());
        ensure!(!has_session(node, peer)?, "{title}: a session");
        let received = peer
            .netns()
            .output("wg", &["show", peer.device(), "transfer"])?;
        println!("{title}: {}", received.trim());
    }
    for port in &ports {
        ensure!(port.receive(AGAIN)?.is_none(), "something came through");
    }
    let start = Instant::now();
    for peer in &peers {
        peer.set_preshared_key(true)?;
    }
    for (peer, port) in peers.iter().zip(&ports) {
        let title = format!("{}, {}", peer.name(), peer.spec().implementation.name());
        answered(port, peer, pod).with_context(|| title.clone())?;
        let took = start.elapsed();
        println!("{title}: answered {took:.1?} after the right key");
        ensure!(took < Duration::from_secs(12), "{title}: {took:?}");
        ensure!(has_session(node, peer)?, "{title}: no session");
    }
    Ok(())
}
