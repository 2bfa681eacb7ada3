//! Watched peers: two data planes in one thread that probe each other through the tunnel.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod world;

use hawser_tunnel::batch::Datagrams;
use hawser_tunnel::device::Device;
use hawser_tunnel::identity::Identity;
use hawser_tunnel::liveness::{Event, State as Liveness, TICK};
use hawser_tunnel::node::NodeId;
use hawser_tunnel::overlay::Ends;
use hawser_tunnel::probe::{self, Kind, Probe};
use hawser_tunnel::state::PeerKind;
use hawser_tunnel::status::PeerLiveness;
use std::net::Ipv4Addr;
use std::time::Duration;
use world::liar::Liar;
use world::{World, pod, private_key, state, udp};

const SECOND: Duration = Duration::from_secs(1);
/// From the moment of a death to the verdict.
const VERDICT: Duration = Duration::from_millis(1_500);
const ENDS: Ends = Ends {
    source: Ipv4Addr::new(240, 1, 0, 1),
    destination: Ipv4Addr::new(240, 2, 0, 1),
};

/// Node 0 watches node 1.
struct Watched {
    world: World,
    events: Vec<Event>,
    ticks: u32,
}

impl Watched {
    fn new() -> Self {
        let mut watched = Self {
            world: World::new(),
            events: Vec::new(),
            ticks: 0,
        };
        watched.watch(true);
        watched
    }

    fn watch(&mut self, watched: bool) {
        let mut state = state(0, PeerKind::Native);
        let peers = state.peers.values_mut();
        peers.for_each(|peer| peer.watched = watched);
        self.world.apply(0, state);
        self.world.settle();
    }

    fn peer() -> NodeId {
        "2/1".parse().unwrap()
    }

    fn report(&self) -> PeerLiveness {
        let world = &self.world;
        let status = world.nodes[0].device.peer_status(world.now);
        let liveness = world.nodes[0].device.liveness(world.now);
        let of_peer = status[0].liveness.unwrap();
        assert_eq!(liveness.peers[&Self::peer()], of_peer, "the same by both");
        assert_eq!(liveness.changes, self.events.len() as u64);
        of_peer
    }

    /// One tick of the thread that watches, and WireGuard's timers every fifth.
    fn tick(&mut self) {
        self.world.now += TICK;
        let now = self.world.now;
        let mut out = Datagrams::default();
        let device = &self.world.nodes[0].device;
        if device.watch_timeout().is_some_and(|due| due <= now) {
            device.handle_watch_timeout(now, now, &mut out);
        }
        while let Some((peer, event)) = device.poll_liveness(now, &mut out) {
            assert_eq!(peer, Self::peer());
            self.events.push(event);
        }
        self.world.send(0, &out);
        self.world.settle();
        self.ticks += 1;
        if self.ticks.is_multiple_of(5) {
            for node in 0..2 {
                let mut out = Datagrams::default();
                self.world.nodes[node].device.handle_timeout(now, &mut out);
                self.world.send(node, &out);
                self.world.settle();
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.world.now + time;
        while self.world.now < end {
            self.tick();
        }
    }

    /// Lets time pass until the peer is thought to be `wanted`; returns how long it took.
    fn until(&mut self, wanted: Liveness) -> Duration {
        let start = self.world.now;
        while self.report().state != wanted {
            self.tick();
            assert!(self.world.now < start + 10 * SECOND, "never {wanted}");
        }
        // The event of a verdict that a reply brought is told at the next tick.
        let took = self.world.now - start;
        self.tick();
        took
    }
}

#[test]
fn a_watched_peer_is_alive_dies_in_time_and_lives_again_at_once() {
    let mut watched = Watched::new();
    assert_eq!(watched.report().state, Liveness::Unknown);
    watched.until(Liveness::Alive);
    watched.pass(SECOND);
    let report = watched.report();
    assert!(report.last_reply_ms.unwrap() <= 310, "{report:?}");
    assert_eq!((report.deaths, report.hold_down_ms), (0, 0));
    let ways: [fn(&mut World, bool); 3] = [
        |world, cut| world.cut = cut,
        |world, cut| world.mute[0] = cut,
        |world, cut| world.mute[1] = cut,
    ];
    for (way, cut) in ways.into_iter().enumerate() {
        // Each by itself: deaths in a row are damped.
        watched.watch(false);
        watched.watch(true);
        watched.until(Liveness::Alive);
        watched.pass(SECOND);
        let events = watched.events.len();
        cut(&mut watched.world, true);
        let took = watched.until(Liveness::Dead);
        assert!(took <= VERDICT, "way {way}: {took:?}");
        assert_eq!(watched.report().deaths, 1);
        watched.pass(10 * SECOND);
        assert_eq!(watched.report().state, Liveness::Dead);
        cut(&mut watched.world, false);
        let took = watched.until(Liveness::Alive);
        assert!(took <= SECOND / 10, "way {way}: {took:?}");
        let [Event::Dead { .. }, Event::Alive { silent }] = watched.events[events..] else {
            panic!("way {way}: {:?}", watched.events)
        };
        assert!(silent > 10 * SECOND);
    }
}

#[test]
fn probes_are_no_pod_packets_and_never_come_to_the_tap() {
    let mut watched = Watched::new();
    watched.pass(10 * SECOND);
    for node in &watched.world.nodes {
        assert!(node.delivered.is_empty());
        let counters = node.device.counters();
        assert_eq!((counters.tx_packets, counters.rx_packets), (0, 0));
        assert_eq!((counters.tx_bytes, counters.rx_bytes), (0, 0));
        assert!(counters.drops.is_empty(), "{:?}", counters.drops);
        let lane = &node.device.peer_status(watched.world.now)[0].lanes[0];
        // One after 250 to 310 ms, and its reply.
        assert!((30..=45).contains(&lane.tx_packets), "{lane:?}");
        assert!((30..=45).contains(&lane.rx_packets), "{lane:?}");
    }
    let packet = udp(pod(0), pod(1), b"between probes");
    watched.world.frame(0, &packet);
    watched.world.settle();
    assert_eq!(watched.world.nodes[1].delivered.len(), 1);
}

#[test]
fn nobody_is_asked_who_is_not_watched() {
    let mut watched = Watched::new();
    watched.pass(SECOND);
    watched.watch(false);
    let device = &watched.world.nodes[0].device;
    assert_eq!(device.watch_timeout(), None);
    let status = device.peer_status(watched.world.now);
    assert_eq!(status[0].liveness, None);
    assert!(device.liveness(watched.world.now).peers.is_empty());
    let sent = watched.world.on_wire[&4];
    watched.pass(5 * SECOND);
    assert_eq!(watched.world.on_wire[&4], sent);
}

/// A node that restarts has no session: the probes ask for one, and none of them waits for it.
#[test]
fn probes_ask_for_a_session_and_do_not_wait_for_it() {
    let mut watched = Watched::new();
    watched.world.cut = true;
    watched.world.nodes[0].device = Device::new(private_key(0), [5; 32]);
    watched.watch(true);
    let before = watched.world.on_wire.clone();
    watched.events.clear();
    watched.pass(30 * SECOND);
    assert_eq!(watched.report().state, Liveness::Dead);
    let initiations = watched.world.on_wire[&1] - before[&1];
    assert!((3..=10).contains(&initiations), "{initiations} in 30 s");
    assert_eq!(watched.world.on_wire.get(&4), before.get(&4));
    watched.world.cut = false;
    let took = watched.until(Liveness::Alive);
    assert!(took <= 6 * SECOND, "{took:?}");
    let lane = &watched.world.nodes[0].device.peer_status(watched.world.now)[0].lanes[0];
    assert!(lane.tx_packets <= 2, "{} had waited", lane.tx_packets);
}

/// The peer's process is another one, and nobody but the one that watches wants a session.
#[test]
fn a_peer_that_restarted_and_says_nothing_is_found_alive() {
    let mut watched = Watched::new();
    watched.until(Liveness::Alive);
    watched.pass(SECOND);
    watched.world.cut = true;
    watched.world.nodes[1].device = Device::new(private_key(1), [6; 32]);
    watched.world.apply(1, state(1, PeerKind::Native));
    watched.until(Liveness::Dead);
    // What it said at its start is lost, and it tries for a session no more than we must notice.
    watched.world.cut = false;
    let took = watched.until(Liveness::Alive);
    assert!(took <= 6 * SECOND, "{took:?}");
}

#[test]
fn a_foreign_peer_cannot_be_watched() {
    let identity = Identity::WORLD;
    let mut state = state(0, PeerKind::Foreign { identity });
    state
        .peers
        .values_mut()
        .for_each(|peer| peer.watched = true);
    assert_eq!(
        state.check().unwrap_err().to_string(),
        "foreign peer 2/1: cannot be watched; it answers no probes"
    );
}

fn request() -> Probe {
    Probe {
        kind: Kind::Request,
        sequence: 7,
        cookie: 9,
    }
}

fn said(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let cluster = 1.try_into().unwrap();
    let mut plaintext = probe::encode(ENDS, Default::default(), cluster, request()).to_vec();
    change(&mut plaintext);
    plaintext
}

#[test]
fn a_request_of_a_peer_that_is_not_watched_is_answered_once() {
    let mut liar = Liar::new(PeerKind::Native);
    let sealed =
        |liar: &Liar| liar.world.nodes[1].device.peer_status(liar.world.now)[0].lanes[0].tx_packets;
    let before = sealed(&liar);
    assert_eq!(liar.say(&said(|_| ())), (0, vec![]));
    assert_eq!(sealed(&liar), before + 1);
    let reply = probe::encode(
        ENDS,
        Default::default(),
        1.try_into().unwrap(),
        request().reply().unwrap(),
    );
    let stale = vec!["probe_stale".to_owned()];
    assert_eq!(liar.say(&reply), (0, stale), "nobody asked");
    assert_eq!(sealed(&liar), before + 1, "a reply has no reply");
}

#[test]
fn what_a_probe_claims_is_checked_and_refused_by_name() {
    let mut liar = Liar::new(PeerKind::Native);
    let option = 20 + 8 + 8;
    let cases: [(&str, usize, u8, &str); 8] = [
        ("another node's overlay address", 15, 9, "overlay_source"),
        ("to another node", 19, 9, "overlay_destination"),
        ("another network", option - 2, 9, "geneve_vni"),
        ("no option", option, 0, "missing_option"),
        ("another cluster", option + 5, 2, "option_cluster"),
        ("the host's identity", option + 11, 1, "geneve_control"),
        ("a kind that is none", option + 12, 3, "geneve_control"),
        ("another Ethertype", 30, 8, "geneve_control"),
    ];
    for (what, at, byte, reason) in cases {
        let said = liar.say(&said(|bytes| bytes[at] = byte));
        assert_eq!(said, (0, vec![reason.to_owned()]), "{what}");
    }
    let identity = Identity::WORLD;
    let mut foreign = Liar::new(PeerKind::Foreign { identity });
    let refused = vec!["geneve_control".to_owned()];
    assert_eq!(foreign.say(&said(|_| ())), (0, refused), "foreign");
    let lane = &foreign.world.nodes[1].device.peer_status(foreign.world.now)[0].lanes[0];
    assert_eq!(lane.tx_packets, 0, "it is not answered");
}
