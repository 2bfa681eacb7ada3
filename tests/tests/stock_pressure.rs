//! Handshakes with stock peers when it gets tight: both sides begin at once, and one side is flooded and asks for
//! cookies.

use anyhow::{Context as _, Result, ensure};
use hawser_tests::depth;
use hawser_tests::io::{Netns, PacketSocket};
use hawser_tests::lab::{Family, Lab, Link, wait_until};
use hawser_tests::sniffer::hexdump;
use hawser_tests::stock::packet::{self, Body};
use hawser_tests::stock::{
    self, Implementation, Meeting, MessageKind, StockPeer, StockSpec, WireLog, WireMessage,
};
use hawser_tests::traffic::EchoServer;
use hawser_tunnel::engine::{Engine as _, NoiseEngine};
use hawser_tunnel::key::{PrivateKey, PublicKey};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
const ECHO: u16 = 7007;
/// A socket in the pod that sends and does not expect to be answered.
const POD: u16 = 7009;
const OWN: u16 = 40_000;
/// How long somebody waits for an answer before he asks again.
const AGAIN: Duration = Duration::from_millis(50);

fn stock_peer(
    lab: &mut Lab,
    implementation: Implementation,
    index: u16,
    speaks: bool,
) -> Result<StockPeer> {
    let spec = StockSpec {
        implementation,
        cluster: stock::CLUSTER,
        index,
        family: Family::V4,
        preshared: false,
    };
    let mut peer = StockPeer::start(lab, spec)?;
    let meeting = Meeting {
        endpoint: speaks,
        keepalive: None,
    };
    peer.meet(lab.node("east-1"), meeting)?;
    Ok(peer)
}

/// Initiations do not pass the router while this is there.
struct Held<'a>(&'a Netns);

impl<'a> Held<'a> {
    fn hold(router: &'a Netns, links: [&Link; 2]) -> Result<Self> {
        // 148 bytes of message and 8 of UDP.
        let rules = links.map(|link| {
            let device = &link.device;
            format!(
                "add chain netdev held {device} {{ type filter hook ingress device {device} priority 0; }}; \
                 add rule netdev held {device} udp length 156 drop; "
            )
        });
        router.output(
            "nft",
            &[&format!("add table netdev held; {}", rules.concat())],
        )?;
        Ok(Self(router))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.output("nft", &["delete table netdev held"]).ok();
    }
}

/// The same frame, to be sent by hand: without a UDP checksum, which the device would have filled in.
fn again(message: &WireMessage) -> Vec<u8> {
    let mut frame = message.frame.clone();
    frame[14 + 20 + 6..14 + 20 + 8].fill(0);
    frame
}

/// Two that begin at once have a session within this time.
const AT_ONCE: Duration = Duration::from_secs(1);
/// KEEPALIVE_TIMEOUT and REKEY_TIMEOUT, and time to shake hands on a busy machine.
const FORGOTTEN: Duration = Duration::from_secs(17);

#[test]
fn two_that_begin_at_once_end_with_one_session() -> Result<()> {
    let rounds = depth::rounds(20, 200);
    let mut lab = stock::lab(1500)?;
    for (index, implementation) in (11..).zip(Implementation::TESTED) {
        let peer = stock_peer(&mut lab, implementation, index, true)?;
        let node = lab.node("east-1");
        let pod = node.pod("a");
        let _server = EchoServer::start(pod.netns(), ECHO)?;
        stock::declare(node, &[peer.declaration(true)])?;
        let at = SocketAddr::new(pod.v4(), POD);
        let socket = pod.netns().run(|| UdpSocket::bind(at))??;
        let port = peer.geneve()?;
        let inner = SocketAddr::new(peer.inner(Family::V4), OWN);
        let hawser = SocketAddr::new(node.underlay(Family::V4), node.endpoint().port());
        let (by_node, by_peer) = (WireLog::start(node.link())?, WireLog::start(peer.link())?);
        let wires = [
            PacketSocket::open(node.netns(), "eth0")?,
            PacketSocket::open(peer.netns(), "eth0")?,
        ];
        let (mut times, mut repeated) = (Vec::new(), 0);
        for round in 0..rounds {
            let title = format!("{}, round {round}", implementation.name());
            // Both forget their session and begin, and neither hears of the other.
            let held = Held::hold(lab.router(), [node.link(), peer.link()])?;
            by_node.clear();
            by_peer.clear();
            let old = node.data_plane_pid();
            node.kill_data_plane()?;
            wait_until(&format!("{title}: the node begins"), PATIENCE, || {
                let pid = node.data_plane_pid();
                let said = by_node.said_by(hawser, MessageKind::Initiation);
                Ok(pid.is_some() && pid != old && said.iter().any(|m| m.to == peer.endpoint()))
            })?;
            peer.forget_and_meet_again()?;
            let question = SocketAddr::new(pod.v4(), ECHO);
            port.send(&packet::udp(inner, question, &round.to_be_bytes()))?;
            wait_until(&format!("{title}: the peer begins"), PATIENCE, || {
                Ok(!by_peer
                    .said_by(peer.endpoint(), MessageKind::Initiation)
                    .is_empty())
            })?;
            socket.send_to(&round.to_be_bytes(), inner)?;
            drop(held);

            // Now both initiations arrive, each where one has already been sent.
            let mut own = by_node.said_by(hawser, MessageKind::Initiation);
            own.retain(|message| message.to == peer.endpoint());
            let own = again(own.last().context("no initiation")?);
            let theirs = by_peer.said_by(peer.endpoint(), MessageKind::Initiation);
            let theirs = again(theirs.last().context("no initiation")?);
            let start = Instant::now();
            let mut crossing = [(&wires[0], &own), (&wires[1], &theirs)];
            if round % 2 == 1 {
                crossing.reverse();
            }
            for (wire, frame) in crossing {
                wire.send(frame)?;
            }
            let (mut answer, mut word, mut asked) = (None, None, start);
            while answer.is_none() || word.is_none() {
                ensure!(
                    start.elapsed() < PATIENCE,
                    "{title}: after {PATIENCE:?} answer {answer:?}, word of the pod {word:?}"
                );
                // Both messages in one instant race in wireguard-go: now and then it forgets the index of a session that
                // it goes on to use, and what comes for that is lost. Who gets no answer asks again.
                if asked.elapsed() > AGAIN {
                    asked = Instant::now();
                    repeated += 1;
                    port.send(&packet::udp(inner, question, &round.to_be_bytes()))?;
                    socket.send_to(&round.to_be_bytes(), inner)?;
                }
                let Some(opened) = port.receive(Duration::from_millis(10))? else {
                    continue;
                };
                let Body::Udp { from, payload, .. } = packet::parse(&opened.packet)?.body else {
                    continue;
                };
                if payload == round.to_be_bytes() {
                    match from {
                        ECHO => answer.get_or_insert_with(|| start.elapsed()),
                        _ => word.get_or_insert_with(|| start.elapsed()),
                    };
                }
            }
            times.push(answer.max(word).context("no time")?);
        }
        times.sort();
        let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
        println!(
            "{}: {rounds} rounds; both ways after {median:.1?} at the median, {longest:.1?} at most; asked again {repeated} times",
            implementation.name()
        );
        // What wireguard-go forgot it makes anew when it has heard nothing for 15 s (whitepaper, section 6.5): nobody else
        // can know. It is rare, and no other peer does it.
        let (bound, rare) = match implementation {
            Implementation::WireguardGo | Implementation::WireguardGoNewest => {
                (FORGOTTEN, times.len() / 4)
            }
            Implementation::Boringtun | Implementation::Gotatun => (AT_ONCE, 0),
        };
        let slow = times.iter().filter(|time| **time >= AT_ONCE).count();
        ensure!(
            longest < bound && slow <= rare,
            "{}: {longest:?} until packets went both ways; all: {times:?}",
            implementation.name()
        );
    }
    Ok(())
}

/// Initiations by keys that nobody knows, with a good first MAC, as fast as `rate` a second, from inside a namespace.
struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64>>>,
}

impl Flood {
    fn start(netns: &Netns, victim: SocketAddr, key: &str, rate: u32) -> Result<Self> {
        let socket = netns.run(|| UdpSocket::bind("0.0.0.0:0"))??;
        socket.connect(victim)?;
        let victim: PublicKey = key.parse().map_err(|_| anyhow::anyhow!("key {key}"))?;
        let own = PrivateKey::from_random([77; 32]);
        let mut engine = NoiseEngine::new(&own, &victim, None, 77);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut sent, mut message, start) = (0_u64, Vec::new(), Instant::now());
            // One message over and over would do for the first MAC; a new one each time costs the victim a key exchange.
            while !stopped.load(Ordering::Relaxed) {
                while start.elapsed().as_secs_f64() * f64::from(rate) > sent as f64 {
                    ensure!(
                        engine.initiate(true, Instant::now(), &mut message),
                        "no initiation"
                    );
                    // A full queue is the victim's trouble, a closed port's error only an earlier packet's.
                    socket.send(&message).ok();
                    sent += 1;
                }
                thread::sleep(Duration::from_millis(1));
            }
            Ok(sent)
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("no flood")?;
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("the flood died"))?
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Sends a packet in the peer's name, which waits for the handshake, and waits for its answer.
fn answer(peer: &StockPeer, lab: &Lab) -> Result<Duration> {
    let pod = lab.node("east-1").pod("a");
    let port = peer.geneve()?;
    let from = SocketAddr::new(peer.inner(Family::V4), OWN);
    let start = Instant::now();
    port.send(&packet::udp(
        from,
        SocketAddr::new(pod.v4(), ECHO),
        b"let me in",
    ))?;
    port.receive(PATIENCE)?
        .with_context(|| format!("no answer within {PATIENCE:?}"))?;
    Ok(start.elapsed())
}

#[test]
fn a_stock_peer_gets_in_by_cookie_while_its_own_address_floods_the_node() -> Result<()> {
    let mut lab = stock::lab(1500)?;
    let mut peers = Vec::new();
    for (index, implementation) in (11..).zip(Implementation::TESTED) {
        peers.push(stock_peer(&mut lab, implementation, index, true)?);
    }
    let node = lab.node("east-1");
    let _server = EchoServer::start(node.pod("a").netns(), ECHO)?;
    let hawser = SocketAddr::new(node.underlay(Family::V4), node.endpoint().port());
    let declared: Vec<_> = peers.iter().map(|peer| peer.declaration(false)).collect();
    stock::declare(node, &declared)?;
    let key = node.public_key()?;
    for peer in &peers {
        let name = peer.spec().implementation.name();
        let log = WireLog::start(peer.link())?;
        let before = stock::drops(node, "wg_source_limit")?;
        let flood = Flood::start(peer.netns(), hawser, &key, 2_000)?;
        wait_until("the node is past its limit", PATIENCE, || {
            Ok(stock::drops(node, "wg_source_limit")? > before + 100)
        })?;
        let took = answer(peer, &lab).with_context(|| name)?;
        let sent = flood.stop()?;
        let own = log.said_by(peer.endpoint(), MessageKind::Initiation);
        let cookies = log.said_by(hawser, MessageKind::Cookie);
        let for_peer = cookies.iter().filter(|m| m.to == peer.endpoint()).count();
        println!(
            "{name}: in after {took:.1?} and {} initiations, {for_peer} cookies for it; flood of {sent}",
            own.len()
        );
        ensure!(for_peer > 0, "{name}: no cookie was sent to it");
        ensure!(!own[0].has_cookie(), "{name}: it had a cookie already");
        let last = own.last().context("no initiation")?;
        ensure!(
            last.has_cookie(),
            "{name}: it got in without a cookie:\n{}",
            hexdump(&last.bytes)
        );
        // Its own timer: 5 s and a third of jitter.
        ensure!(took < Duration::from_secs(8), "{name}: in after {took:?}");
    }
    Ok(())
}

#[test]
fn the_node_gets_in_by_cookie_where_a_stock_peer_is_flooded() -> Result<()> {
    let mut lab = stock::lab(1500)?;
    let peer = stock_peer(&mut lab, Implementation::Gotatun, 11, false)?;
    let node = lab.node("east-1");
    let _server = EchoServer::start(node.pod("a").netns(), ECHO)?;
    let hawser = SocketAddr::new(node.underlay(Family::V4), node.endpoint().port());
    let log = WireLog::start(peer.link())?;
    let declared = peer.declaration(true);
    let key = declared.lanes[0].public_key.clone();
    // It counts by source: the node's own address has to be the flood's.
    let flood = Flood::start(node.netns(), peer.endpoint(), &key, 1_000)?;
    wait_until("the peer asks for cookies", PATIENCE, || {
        Ok(log.said_by(peer.endpoint(), MessageKind::Cookie).len() > 10)
    })?;
    let start = Instant::now();
    stock::declare(node, &[declared])?;
    wait_until("the node has a session", PATIENCE, || {
        let status = node.status()?;
        Ok(!stock::lane(&status, peer.name())?["handshakeAgeMs"].is_null())
    })?;
    let took = start.elapsed();
    let sent = flood.stop()?;
    let own = log.said_by(hawser, MessageKind::Initiation);
    println!(
        "gotatun, flooded by {sent}: the node is in after {took:.1?} and {} initiations",
        own.len()
    );
    let last = own.last().context("no initiation")?;
    ensure!(last.has_cookie(), "the node got in without a cookie");
    ensure!(took < Duration::from_secs(8), "in after {took:?}");
    answer(&peer, &lab).map(drop)
}
