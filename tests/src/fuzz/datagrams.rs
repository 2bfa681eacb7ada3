//! Datagrams of anybody, to a data plane in mid-session.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac as _};
use blake2::{Blake2s256, Blake2sMac, Digest as _};
use hawser_tunnel::batch::Datagrams;
use hawser_tunnel::engine::{Engine as _, NoiseEngine};
use hawser_tunnel::inbound::Inbound;
use hawser_tunnel::reject::Reject;

use super::claims::{counts, grown};
use super::source::Source;
use super::world::{World, private_key};

/// Datagrams of an input at most.
const MOST: usize = 24;

/// An honest packet of 1/1: IPv4, UDP, Geneve with our option, and an IPv4 packet without a transport header.
const HONEST: [u8; 80] = {
    let mut bytes = [0; 80];
    let heads: [(usize, &[u8]); 6] = [
        (
            0,
            &[
                0x45, 0, 0, 68, 0, 0, 0x40, 0, 64, 17, 0, 0, 240, 1, 0, 1, 240, 2, 0, 1,
            ],
        ),
        (20, &[0xd0, 0, 0x17, 0xc1, 0, 48, 0, 0]),
        (28, &[3, 0, 8, 0, 0, 0, 1, 0]),
        (36, &[0xff, 0x48, 1, 2, 0, 1, 0, 0, 0, 0, 3, 0xe8]),
        (48, &[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0]),
        (60, &[10, 1, 1, 10, 10, 2, 1, 10]),
    ];
    let mut head = 0;
    while head < heads.len() {
        let (start, part) = heads[head];
        let mut at = 0;
        while at < part.len() {
            bytes[start + at] = part[at];
            at += 1;
        }
        head += 1;
    }
    bytes
};

/// Target: what nobody sealed delivers nothing, moves no endpoint and ends no session.
pub(super) fn mid_session(input: &[u8]) {
    let mut world = World::new();
    let mut source = Source::new(input);
    let mut inbound = Inbound::default();
    let honest = world.native.seal(&HONEST, world.now);
    let mut initiation = Vec::new();
    world
        .native
        .engine
        .initiate(true, world.now, &mut initiation);
    let before = counts(world.device.drops());
    let mut bytes = Vec::new();
    let mut datagrams = Vec::new();
    while !source.is_empty() && datagrams.len() < MOST {
        let start = bytes.len();
        let indices = [index(&honest), index(&world.asked), 0];
        match source.pick(&[0, 1, 2, 3, 4, 5]) {
            0 => bytes.extend(shaped(&mut source, &indices)),
            1 => bytes.extend(falsified(&mut source, &honest)),
            2 => bytes.extend(falsified(&mut source, &initiation)),
            3 => bytes.extend(&world.native.greeting),
            4 => bytes.extend(stranger(world.now)),
            _ => bytes.extend(source.bytes(200)),
        }
        datagrams.push((start..bytes.len(), from(&mut source, world.native.at)));
    }
    let total = datagrams.len();
    world
        .device
        .handle_datagrams(&mut inbound, &bytes, datagrams.into_iter(), world.now);
    let reasons = grown(&before, world.device.drops());
    assert_eq!(inbound.frames().len(), 0, "a packet that nobody sealed");
    assert_eq!(reasons.len(), total, "{reasons:?} of {total} datagrams");
    assert!(
        reasons.iter().all(|&reason| reason <= Reject::WgNoSession),
        "{reasons:?}"
    );
    let replies: usize = inbound.datagrams.iter().map(|(reply, _)| reply.len()).sum();
    assert!(
        replies <= bytes.len(),
        "{replies} bytes answer {}: an amplifier",
        bytes.len()
    );
    inbound.clear();
    world.now += Duration::from_millis(100);
    world
        .device
        .handle_timeout(world.now, &mut Datagrams::default());
    still_in_session(&mut world, &honest, &mut inbound);
}

/// What was sealed before arrives once, from where the peer is, and the way back is open.
fn still_in_session(world: &mut World, honest: &[u8], inbound: &mut Inbound) {
    world.native.tell(&world.device, inbound, honest, world.now);
    assert_eq!(
        inbound.frames().len(),
        1,
        "{:?}",
        world.device.drops().by_name()
    );
    inbound.clear();
    world.native.tell(&world.device, inbound, honest, world.now);
    assert_eq!(inbound.frames().len(), 0, "a replay was delivered");
    let status = world.device.peer_status(world.now);
    for speaker in [&world.native, &world.foreign] {
        let peer = status.iter().find(|peer| peer.id == speaker.id);
        let lane = &peer.expect("a peer").lanes[0];
        assert_eq!(lane.endpoint, Some(speaker.at), "an endpoint was moved");
        assert!(lane.handshake_age_ms.is_some(), "a session was ended");
    }
}

/// The index in a message's first field.
fn index(message: &[u8]) -> u32 {
    let field = message.get(4..8).and_then(|field| field.first_chunk());
    field.map_or(0, |field| u32::from_le_bytes(*field))
}

/// A message of legal type and length, for an index that is ours where the input says so, and with a first MAC that
/// is right: everybody who knows our key can make one.
fn shaped(source: &mut Source<'_>, indices: &[u32]) -> Vec<u8> {
    let (kind, length, field) = source.pick(&[
        (1, 148, 4),
        (2, 92, 8),
        (3, 64, 4),
        (4, 32, 4),
        (4, 48, 4),
        (4, 128, 4),
        (1, 147, 4),
        (5, 148, 4),
    ]);
    let mut message = vec![kind, 0, 0, source.pick(&[0, 0, 0, 1])];
    message.extend(source.array::<32>());
    message.resize(length, source.any());
    if source.once_in(2) {
        let receiver = source.pick(indices) ^ u32::from(source.pick(&[0_u8, 0, 1, 0xff]));
        message[field..field + 4].copy_from_slice(&receiver.to_le_bytes());
    }
    if kind < 3 && !source.once_in(4) {
        sign(&mut message);
    }
    message
}

/// The initiation of a node that knows our key, and that we do not know.
fn stranger(now: Instant) -> Vec<u8> {
    let own = private_key(77);
    let peer = private_key(2).public();
    let mut engine = NoiseEngine::new(&own, &peer, None, 77);
    let mut message = Vec::new();
    assert!(engine.initiate(false, now, &mut message));
    message
}

/// Makes the first MAC of a handshake message (whitepaper, section 5.4.4).
fn sign(message: &mut [u8]) {
    thread_local!(static OURS: [u8; 32] = {
        let public = private_key(2).public();
        let label = Blake2s256::new().chain_update(b"mac1----");
        label.chain_update(public.as_bytes()).finalize().into()
    });
    let signed = message.len() - 32;
    let mac = OURS.with(|key| <Blake2sMac<U16> as KeyInit>::new_from_slice(key));
    let mac = mac
        .expect("32 bytes are a key")
        .chain_update(&message[..signed]);
    message[signed..signed + 16].copy_from_slice(&mac.finalize().into_bytes());
}

/// An honest message with at least one bit of it changed, or cut, or extended.
fn falsified(source: &mut Source<'_>, honest: &[u8]) -> Vec<u8> {
    let mut message = honest.to_vec();
    match source.pick(&[0, 0, 0, 1, 2, 3]) {
        0 => {
            // The second MAC of an initiation is not looked at without load: what it covers is.
            let covered = match message[0] {
                1 => message.len() - 16,
                _ => message.len(),
            };
            let at = source.below(covered);
            message[at] ^= 1 << source.below(8);
        }
        1 => message.truncate(source.below(honest.len())),
        2 => message.extend([source.any::<u8>(), 0, 0, 0]),
        // Behind the sender's index, which is its own to choose, everything is sealed.
        _ => {
            let at = 8 + source.below(108.min(message.len() - 8));
            message[at] ^= 1 << source.below(8);
            if message[0] == 1 {
                sign(&mut message);
            }
        }
    }
    message
}

/// The peer's own address, another port of it, or a stranger.
fn from(source: &mut Source<'_>, peer: SocketAddr) -> SocketAddr {
    match source.pick(&[0, 1, 2]) {
        0 => peer,
        1 => SocketAddr::new(peer.ip(), source.any()),
        _ => SocketAddr::new(std::net::IpAddr::from(source.array::<16>()), source.any()),
    }
}
