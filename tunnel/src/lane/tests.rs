//! What shows only inside: what a lane holds while nobody uses it, and what it remembers.

use super::*;
use crate::engine::Opened;
use crate::key::PrivateKey;

const TICK: Duration = Duration::from_millis(100);

/// Two lanes that talk to each other, and the packets that came.
struct Pair {
    lanes: [Lane; 2],
    now: Instant,
    drops: Drops,
    /// What was said, by whom, in order.
    said: Vec<(usize, Vec<u8>)>,
    received: [usize; 2],
    refused: Vec<Reject>,
}

fn endpoint(of: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, u8::try_from(of).unwrap()], 51820))
}

fn lane(own: u8, peer: u8) -> Lane {
    let desired = crate::state::Lane {
        public_key: PrivateKey::from_random([peer; 32]).public(),
        endpoint: Some(endpoint(usize::from(peer - 1))),
        preshared_key: None,
        needs_key: false,
    };
    let keys = LaneKeys {
        own: LaneNumber::FIRST,
        ordered: false,
        key: &Arc::new(OwnKey::new(PrivateKey::from_random([own; 32]))),
        index: 0x00ab_cd00 | u32::from(own),
    };
    Lane::new("1/1".parse().unwrap(), &desired, &keys)
}

impl Pair {
    fn new() -> Self {
        Self {
            lanes: [lane(1, 2), lane(2, 1)],
            now: crate::io::clock::now(),
            drops: Drops::default(),
            said: Vec::new(),
            received: [0; 2],
            refused: Vec::new(),
        }
    }

    fn send(&mut self, by: usize) {
        let mut packet = [0; 32];
        packet[..4].copy_from_slice(&[0x45, 0, 0, 32]);
        let (mut batch, mut out) = (Batch::default(), Datagrams::default());
        batch.push(&packet, ());
        self.lanes[by].send(&batch, self.now, &self.drops, &mut out);
        self.deliver(by, &out);
    }

    fn deliver(&mut self, by: usize, out: &Datagrams) {
        for (message, _) in out.iter() {
            self.said.push((by, message.to_vec()));
            self.hear(1 - by, message);
        }
    }

    fn hear(&mut self, to: usize, message: &[u8]) {
        let (mut out, from) = (Datagrams::default(), endpoint(1 - to));
        let lane = &self.lanes[to];
        if message[0] == 4 {
            let mut opened = Batch::default();
            let messages = std::iter::once(message);
            lane.receive(messages, from, self.now, &mut opened, &mut out);
            let packets = opened.iter().filter(|(_, what)| **what == Opened::Packet);
            self.received[to] += packets.count();
        } else if let Err(reason) = lane.handle_handshake(message, from, self.now, &mut out) {
            self.refused.push(reason);
        }
        self.deliver(to, &out);
    }

    fn pass(&mut self, seconds: u32) {
        for _ in 0..10 * seconds {
            self.now += TICK;
            for by in 0..2 {
                let mut out = Datagrams::default();
                self.lanes[by].handle_timeout(self.now, &self.drops, &mut out);
                self.deliver(by, &out);
            }
        }
    }

    fn active(&self) -> [bool; 2] {
        [0, 1].map(|at| {
            let active = self.lanes[at].lock().active.is_some();
            assert_eq!(active, self.lanes[at].awake.load(Ordering::Relaxed));
            active
        })
    }

    fn kinds(&self, from: usize) -> Vec<(usize, u8)> {
        let said = self.said[from..].iter();
        said.map(|(by, message)| (*by, message[0])).collect()
    }
}

#[test]
fn a_lane_rests_when_its_session_is_over_and_comes_back_by_its_first_packet() {
    let mut pair = Pair::new();
    assert_eq!(pair.active(), [false; 2], "before anybody sends");
    pair.send(0);
    assert_eq!((pair.active(), pair.received), ([true; 2], [0, 1]));
    let first = pair.said[0].1.clone();
    let totals = [0, 1].map(|at| pair.lanes[at].snapshot(pair.now).totals);
    pair.pass(179);
    assert_eq!(pair.active(), [true; 2], "the session may still be used");
    pair.pass(2);
    assert_eq!(pair.active(), [false; 2]);
    for (at, totals) in totals.into_iter().enumerate() {
        let snapshot = pair.lanes[at].snapshot(pair.now);
        assert_eq!((snapshot.totals, snapshot.handshake_age), (totals, None));
        assert_eq!(snapshot.endpoint, Some(endpoint(1 - at)));
    }
    // What it remembers: who sends the old initiation again makes nothing.
    let before = pair.said.len();
    pair.hear(1, &first);
    assert_eq!(pair.refused, [Reject::WgTimestamp]);
    assert_eq!((pair.active(), pair.said.len()), ([false; 2], before));
    // One handshake, and the packet that began it.
    pair.send(0);
    assert_eq!(pair.received, [0, 2]);
    let kinds = pair.kinds(before);
    assert_eq!(kinds[..2], [(0, 1), (1, 2)]);
    assert!(kinds[2..].iter().all(|kind| *kind == (0, 4)), "{kinds:?}");
    assert_ne!(first[4..8], pair.said[before].1[4..8], "another index");
    assert_eq!(pair.active(), [true; 2]);
    assert_eq!(pair.lanes[0].snapshot(pair.now).totals.handshakes, 2);
}

#[test]
fn who_is_not_answered_rests_when_nobody_has_sent_anything_for_long() {
    let pair = Pair::new();
    let (lane, mut now) = (&pair.lanes[0], pair.now);
    let mut tries = |seconds: u32| {
        let mut out = Datagrams::default();
        for _ in 0..10 * seconds {
            now += TICK;
            lane.handle_timeout(now, &pair.drops, &mut out);
        }
        out.len()
    };
    // A forced rekey is tried for once, a packet's sake for as long as demand is remembered.
    lane.initiate(pair.now, &mut Datagrams::default());
    assert!((15..=18).contains(&tries(100)));
    assert_eq!((pair.active(), tries(100)), ([false; 2], 0));
    let mut batch = Batch::default();
    batch.push(&[0x45; 32], ());
    lane.send(
        &batch,
        pair.now + 200 * 10 * TICK,
        &pair.drops,
        &mut Datagrams::default(),
    );
    assert!(tries(500) >= 90, "still wanted");
    tries(300);
    assert_eq!((pair.active(), tries(100)), ([false; 2], 0));
    assert_eq!(pair.drops.of(Reject::QueueExpired), 1);
}

#[test]
fn messages_for_a_lane_at_rest_make_no_engine() {
    let mut pair = Pair::new();
    let mut data = [0; 32];
    data[0] = 4;
    pair.hear(0, &data);
    let (mut response, mut cookie) = ([0; 92], [0; 64]);
    (response[0], cookie[0]) = (2, 3);
    pair.hear(0, &response);
    pair.hear(0, &cookie);
    let mut forged = [7; 148];
    forged[..4].copy_from_slice(&[1, 0, 0, 0]);
    pair.hear(0, &forged);
    assert_eq!(pair.refused, [Reject::WgHandshake; 3]);
    assert_eq!((pair.active(), pair.received), ([false; 2], [0; 2]));
}

#[test]
fn a_lane_at_rest_is_small_and_one_with_sessions_is_not_large() {
    // Two counters of its `Arc`, and its place in the maps by index (24 bytes, 7/8 full at most, half at least) and by key (48
    // bytes in a tree that is two thirds full).
    let maps = 2 * 8 + 2 * 25 + 48 * 3 / 2;
    let resting = size_of::<Lane>() + maps;
    assert!(resting <= 400, "{resting} bytes");
    let active = size_of::<Active>() + 2 * crate::engine::SESSION_LEN;
    assert!(active <= 5 * 1024, "{active} bytes");
}
