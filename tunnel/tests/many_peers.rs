//! One node of a mesh of 25,000: what a peer costs that nobody talks to, and one that is talked to.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stdout, reason = "the figures are worth reading")]
#![allow(
    clippy::disallowed_methods,
    reason = "what things cost is measured in real time"
)]

mod world;

use hawser_tunnel::batch::Datagrams;
use hawser_tunnel::device::{Device, TICK};
use hawser_tunnel::engine::{Engine as _, NoiseEngine};
use hawser_tunnel::inbound::Inbound;
use hawser_tunnel::key::PrivateKey;
use hawser_tunnel::outbound::Outbound;
use hawser_tunnel::state::{Cluster, Lane, Peer, PeerKind, State};
use hawser_tunnel::virtio;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use world::{private_key, udp};

const CLUSTERS: u16 = 100;
const NODES: u16 = 250;
const PEERS: usize = CLUSTERS as usize * NODES as usize;
const ACTIVE: usize = 200;
const MANY: usize = 10_000;

/// Between two peers that begin: all together have a share of 2,000 handshakes a second.
const BETWEEN: Duration = Duration::from_millis(2);

/// Cluster and index of a peer: clusters 2 to 101, nodes 1 to 250.
fn place(peer: usize) -> (u16, u16) {
    let peer = u16::try_from(peer).unwrap();
    (2 + peer / NODES, 1 + peer % NODES)
}

fn key(peer: usize) -> PrivateKey {
    let mut bytes = [0x5a; 32];
    bytes[8..16].copy_from_slice(&(peer as u64).to_le_bytes());
    PrivateKey::from_random(bytes)
}

fn address(peer: usize) -> SocketAddr {
    let [_, _, high, low] = u32::try_from(peer).unwrap().to_be_bytes();
    SocketAddr::from(([172, 16, high, low], 51820))
}

/// 1/1, with every other node as a peer, IPv4 and IPv6.
fn state() -> State {
    let mut state = world::state(0, PeerKind::Native);
    let own = state.clusters.remove(&state.node.cluster).unwrap();
    state.clusters = BTreeMap::from([(state.node.cluster, own)]);
    state.peers.clear();
    for cluster in 2..2 + CLUSTERS {
        let prefixes = [
            format!("10.{cluster}.0.0/16"),
            format!("fd01:{cluster}::/32"),
        ];
        let identity = (1000 + u32::from(cluster)).try_into().unwrap();
        let cluster = Cluster {
            name: format!("c{cluster}"),
            prefixes: prefixes.iter().map(|text| text.parse().unwrap()).collect(),
            identities: [identity].into(),
        };
        state.guard.mesh.extend(&cluster.prefixes);
        let id = format!("{}/1", cluster.name.trim_start_matches('c'));
        let id: hawser_tunnel::node::NodeId = id.parse().unwrap();
        state.clusters.insert(id.cluster, cluster);
    }
    for peer in 0..PEERS {
        let (cluster, node) = place(peer);
        let prefixes = [
            format!("10.{cluster}.{node}.0/24"),
            format!("fd01:{cluster}:{node}::/64"),
        ];
        state.peers.insert(
            format!("{cluster}/{node}").parse().unwrap(),
            Peer {
                name: format!("c{cluster}-node-{node}"),
                kind: PeerKind::Native,
                prefixes: prefixes.iter().map(|text| text.parse().unwrap()).collect(),
                lanes: vec![Lane {
                    public_key: key(peer).public(),
                    endpoint: Some(address(peer)),
                    preshared_key: None,
                    needs_key: false,
                }],
                path_mtu: 1500,
                watched: false,
            },
        );
    }
    state
}

/// What this process has of its own, in bytes.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.unwrap().parse::<usize>().unwrap() * 1024
}

/// A peer makes two sessions with us, as after a rekey, gets a packet and is gone: what stays is ours.
fn talk(device: &Device, inbound: &mut Inbound, peer: usize, now: Instant) {
    let ours = device.public_key();
    let mut engine = NoiseEngine::new(&key(peer), &ours, None, 77);
    let mut message = Vec::new();
    let mut tell = |message: &[u8]| {
        let datagrams = [(0..message.len(), address(peer))].into_iter();
        device.handle_datagrams(inbound, message, datagrams, now);
        let reply = inbound.datagrams.iter().next();
        let reply = reply.map(|(reply, _)| reply.to_vec());
        inbound.clear();
        reply
    };
    for _ in 0..2 {
        assert!(engine.initiate(true, now, &mut message));
        let reply = tell(&message).unwrap();
        engine.handle_handshake(&reply, now, &mut message).unwrap();
        assert_eq!(tell(&message), None);
    }
    let (cluster, node) = place(peer);
    let pod = format!("10.{cluster}.{node}.10").parse().unwrap();
    let packet = udp(world::pod(0), pod, b"talk");
    let frame = [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0][..], &packet].concat();
    let mut outbound = Outbound::default();
    device.handle_frame(&mut outbound, virtio::Header::COMPLETE, &frame, now);
    device.flush(&mut outbound, now);
    let kinds: Vec<u8> = outbound.datagrams.iter().map(|(sent, _)| sent[0]).collect();
    assert_eq!(kinds, [4], "a data message, at once");
}

/// The shortest of some calls, for whatever else the machine does only adds.
fn tick_time(device: &Device, mut now: Instant) -> Duration {
    let ticks = (0..50).map(|_| {
        now += TICK;
        let start = Instant::now();
        device.handle_timeout(now, &mut Datagrams::default());
        start.elapsed()
    });
    ticks.min().unwrap()
}

#[test]
fn peers_that_nobody_talks_to_cost_little() {
    let mut now = Instant::now();
    let device = Device::new(private_key(0), [7; 32]);
    let mut inbound = Inbound::default();
    let before = memory();
    let state = state();
    let told = memory();
    let checked = state.check().unwrap();
    let mut out = Datagrams::default();
    let start = Instant::now();
    device.apply(checked, now, &mut out);
    let applied = start.elapsed();
    assert!(out.is_empty(), "nobody is met before somebody sends");
    let idle = memory();
    let tick_idle = tick_time(&device, now);
    for peer in 0..ACTIVE {
        now += BETWEEN;
        talk(&device, &mut inbound, peer, now);
    }
    let active = memory() - before;
    let tick_active = tick_time(&device, now);
    let sessions = |now| {
        let status = device.peer_status(now);
        let lanes = status.iter().flat_map(|peer| &peer.lanes);
        lanes.filter(|lane| lane.handshake_age_ms.is_some()).count()
    };
    assert_eq!(sessions(now), ACTIVE);
    // When their sessions are over and what was sent is forgotten, they are as the others are.
    for _ in 0..7_000 {
        now += TICK;
        device.handle_timeout(now, &mut out);
        out.clear();
    }
    assert_eq!(sessions(now), 0);
    let tick_over = tick_time(&device, now);
    // So many that what was free before does not hide what they take.
    let quiet = memory();
    for peer in 0..MANY {
        now += BETWEEN;
        talk(&device, &mut inbound, peer, now);
    }
    let each = memory().saturating_sub(quiet) / MANY;
    assert_eq!(sessions(now), MANY);

    let table = (idle - told) / PEERS;
    let whole = (idle - before) / PEERS;
    println!(
        "{PEERS} peers: applied in {applied:?}, {whole} bytes each, {table} of them table and lanes"
    );
    println!(
        "{ACTIVE} of them with two sessions: {} KiB in all",
        active / 1024
    );
    println!("{each} bytes more for each of {MANY} with two sessions");
    println!(
        "a tick takes {tick_idle:?} before, {tick_active:?} with {ACTIVE} in session, {tick_over:?} after them"
    );
    assert!(table <= 1_000, "{table} bytes for the table and the lanes");
    assert!(whole <= 1_800, "{whole} bytes for an idle peer");
    assert!(active <= 48 << 20, "{active} bytes in all");
    assert!(
        (1_024..=6 * 1_024).contains(&each),
        "{each} bytes for an active peer"
    );
    assert!(applied < Duration::from_secs(2), "{applied:?}");
    assert!(tick_active < TICK / 10, "{tick_active:?}");
}
