//! Nodes in one thread, on time that the test drives, with a wire that the test cuts.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test uses its part of the world"
)]

pub mod liar;

use etherparse::PacketBuilder;
use hawser_tunnel::batch::Datagrams;
use hawser_tunnel::device::{Device, TICK};
use hawser_tunnel::inbound::Inbound;
use hawser_tunnel::key::PrivateKey;
use hawser_tunnel::node::NodeId;
use hawser_tunnel::outbound::Outbound;
use hawser_tunnel::state::{Cluster, Lane, Peer, PeerKind, State};
use hawser_tunnel::virtio;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Two nodes in two clusters: 1/1 with 10.1.1.0/24 and 2/1 with 10.2.1.0/24.
pub struct World {
    pub nodes: [Node; 2],
    pub now: Instant,
    /// Whether the wire loses everything.
    pub cut: bool,
    /// Whether it loses what a node sends.
    pub mute: [bool; 2],
    /// Messages on the wire by their type.
    pub on_wire: BTreeMap<u8, u64>,
    /// The newest message that any node sent, also on a wire that was cut.
    pub last_sent: Vec<u8>,
    wire: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
}

pub struct Node {
    pub id: NodeId,
    pub device: Device,
    pub outbound: Outbound,
    pub inbound: Inbound,
    pub delivered: Vec<(virtio::Header, Vec<u8>)>,
}

pub fn address(node: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, u8::try_from(node).unwrap() + 1], 51820))
}

pub fn private_key(node: usize) -> PrivateKey {
    PrivateKey::from_random([u8::try_from(node).unwrap() + 1; 32])
}

fn id(node: usize) -> NodeId {
    format!("{}/1", node + 1).parse().unwrap()
}

pub fn pod(node: usize) -> IpAddr {
    IpAddr::from([10, u8::try_from(node).unwrap() + 1, 1, 10])
}

/// What node `node` is told.
pub fn state(node: usize, kind: PeerKind) -> State {
    let prefixes = |node: usize| {
        [
            format!("10.{}.1.0/24", node + 1),
            format!("fd01:{}:1::/64", node + 1),
        ]
    };
    let parse = |texts: [String; 2]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let identity = |number: u32| number.try_into().unwrap();
    let other = 1 - node;
    State {
        checksums: hawser_tunnel::state::Checksums::Left,
        vni: Default::default(),
        node: id(node),
        prefixes: parse(prefixes(node)),
        endpoints: BTreeMap::from([
            (pod(node), identity(1000 + u32::try_from(node).unwrap())),
            (format!("10.{}.1.1", node + 1).parse().unwrap(), identity(1)),
            (
                format!("fd01:{}:1::10", node + 1).parse().unwrap(),
                identity(1000 + u32::try_from(node).unwrap()),
            ),
        ]),
        clusters: (0..2_usize)
            .map(|node| {
                let identities = [identity(1000 + u32::try_from(node).unwrap())].into();
                (
                    id(node).cluster,
                    Cluster {
                        name: format!("c{node}"),
                        prefixes: parse(prefixes(node)),
                        identities,
                    },
                )
            })
            .collect(),
        peers: BTreeMap::from([(
            id(other),
            Peer {
                name: format!("n{other}"),
                kind,
                prefixes: parse(prefixes(other)),
                lanes: vec![Lane {
                    public_key: private_key(other).public(),
                    endpoint: Some(address(other)),
                    preshared_key: None,
                    needs_key: false,
                }],
                path_mtu: 1500,
                watched: false,
            },
        )]),
        guard: hawser_tunnel::guard::Guard {
            device: "hawser0".to_owned(),
            mesh: (0..2).flat_map(|node| parse(prefixes(node))).collect(),
            local: parse(prefixes(node)),
            ..Default::default()
        },
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a world starts somewhere in time"
)]
pub fn start() -> Instant {
    Instant::now()
}

impl World {
    pub fn new() -> Self {
        let now = start();
        let node = |at: usize| Node {
            id: id(at),
            device: Device::new(private_key(at), [u8::try_from(at).unwrap() + 7; 32]),
            outbound: Outbound::default(),
            inbound: Inbound::default(),
            delivered: Vec::new(),
        };
        let mut world = Self {
            nodes: [node(0), node(1)],
            now,
            cut: false,
            mute: [false; 2],
            on_wire: BTreeMap::new(),
            last_sent: Vec::new(),
            wire: Vec::new(),
        };
        for at in 0..2 {
            world.apply(at, state(at, PeerKind::Native));
        }
        world.settle();
        world
    }

    pub fn apply(&mut self, node: usize, state: State) {
        let mut out = Datagrams::default();
        self.nodes[node]
            .device
            .apply(state.check().unwrap(), self.now, &mut out);
        self.send(node, &out);
    }

    pub fn send(&mut self, node: usize, datagrams: &Datagrams) {
        for (datagram, &to) in datagrams.iter() {
            *self.on_wire.entry(datagram[0]).or_default() += 1;
            self.last_sent = datagram.to_vec();
            if !self.cut && !self.mute[node] {
                self.wire.push((address(node), to, datagram.to_vec()));
            }
        }
    }

    /// Delivers until nothing is on the wire.
    pub fn settle(&mut self) {
        while !self.wire.is_empty() {
            for (from, to, datagram) in std::mem::take(&mut self.wire) {
                let Some(node) = (0..2).find(|&node| address(node) == to) else {
                    continue;
                };
                self.receive(node, from, &datagram);
            }
        }
    }

    pub fn receive(&mut self, node: usize, from: SocketAddr, datagram: &[u8]) {
        let Node {
            device,
            inbound,
            delivered,
            ..
        } = &mut self.nodes[node];
        device.handle_datagrams(
            inbound,
            datagram,
            [(0..datagram.len(), from)].into_iter(),
            self.now,
        );
        delivered.extend(inbound.frames().flat_map(|frame| frame.split()));
        device.count(None, Some(inbound));
        let mut out = Datagrams::default();
        inbound
            .datagrams
            .iter()
            .for_each(|(datagram, &to)| out.push(datagram, to));
        inbound.clear();
        self.send(node, &out);
    }

    pub fn frame(&mut self, node: usize, packet: &[u8]) {
        let ethertype: u16 = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
        let frame = [
            &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..],
            &ethertype.to_be_bytes(),
            packet,
        ]
        .concat();
        let Node {
            device, outbound, ..
        } = &mut self.nodes[node];
        device.handle_frame(outbound, virtio::Header::COMPLETE, &frame, self.now);
        device.flush(outbound, self.now);
        device.count(Some(outbound), None);
        let mut out = Datagrams::default();
        outbound
            .datagrams
            .iter()
            .for_each(|(datagram, &to)| out.push(datagram, to));
        outbound.clear();
        self.send(node, &out);
    }

    /// Lets time pass, tick by tick.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += TICK;
            for node in 0..2 {
                let mut out = Datagrams::default();
                self.nodes[node].device.handle_timeout(self.now, &mut out);
                self.send(node, &out);
                // Two clocks never tick at one instant: what one sends arrives before the other's.
                self.settle();
            }
        }
    }

    /// Lets time pass with a packet each way in every step; all arrive.
    pub fn carry(&mut self, step: Duration, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            for node in 0..2 {
                self.frame(node, &udp(pod(node), pod(1 - node), b"on and on"));
            }
            self.settle();
            for node in 0..2 {
                let delivered = self.nodes[node].delivered.drain(..).count();
                assert_eq!(delivered, 1, "to node {node}");
            }
            self.pass(step);
        }
    }

    pub fn dropped(&self, node: usize) -> BTreeMap<String, u64> {
        self.nodes[node].device.drops().by_name()
    }
}

/// A UDP packet between pods.
pub fn udp(from: IpAddr, to: IpAddr, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64)
            .udp(4000, 5000)
            .write(&mut packet, payload)
            .unwrap(),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64)
            .udp(4000, 5000)
            .write(&mut packet, payload)
            .unwrap(),
        _ => panic!("one family"),
    }
    packet
}
