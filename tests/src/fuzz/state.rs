//! Desired states: JSON, the rules, the digest, differences, and a table made of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use hawser_tunnel::batch::Datagrams;
use hawser_tunnel::device::Device;
use hawser_tunnel::identity::Identity;
use hawser_tunnel::inbound::Inbound;
use hawser_tunnel::key::{PresharedKey, PrivateKey, PublicKey};
use hawser_tunnel::node::{ClusterId, NodeId, NodeIndex};
use hawser_tunnel::outbound::Outbound;
use hawser_tunnel::state::{Change, Checked, Lane, Peer, PeerKind, State};
use hawser_tunnel::virtio::Header;
use hawser_tunnel::vni::Vni;
use ipnet::IpNet;

use super::source::Source;
use super::world;

/// Target: any text as a state. One that keeps every rule can be put in force.
pub(super) fn json(input: &[u8]) {
    let Ok(state) = serde_json::from_slice::<State>(input) else {
        return;
    };
    read_again(&state);
    if let Some(state) = checked(state) {
        put_in_force(state);
    }
}

/// Target: states that are nearly right, and the way from one to the other.
pub(super) fn changes(input: &[u8]) {
    let mut source = Source::new(input);
    let one = altered(&mut source, world::state());
    let two = altered(&mut source, one.clone());
    let changes = one.changes_to(&two);
    assert_eq!(changes.is_empty(), one == two);
    assert_eq!(
        one.digest() == two.digest(),
        one == two,
        "digests are equal exactly where states are"
    );
    let text = serde_json::to_vec(&changes).expect("changes are JSON");
    let read: Vec<Change> = serde_json::from_slice(&text).expect("what was written is read");
    assert_eq!(read, changes);
    assert_eq!(
        one.with_changes(read).as_ref(),
        Ok(&two),
        "changes lead there"
    );
    read_again(&two);
    if let Some(one) = checked(one) {
        let device = put_in_force(one);
        if let Some(two) = checked(two) {
            device.apply(two.clone(), Instant::now(), &mut Datagrams::default());
            assert_eq!(*device.table().expect("a table").state, two);
        }
    }
}

fn read_again(state: &State) {
    let text = serde_json::to_vec(state).expect("a state is JSON");
    let read: State = serde_json::from_slice(&text).expect("what was written is read");
    assert_eq!((&read, read.digest()), (state, state.digest()));
}

/// The state, if it keeps every rule; otherwise there is one line that says which it breaks.
fn checked(state: State) -> Option<Checked> {
    let checked = state.check();
    if let Err(error) = &checked {
        let line = error.to_string();
        assert!(
            !line.is_empty() && !line.contains('\n'),
            "{line:?} is not one line"
        );
    }
    checked.ok()
}

/// Puts a state in force, and has its table asked.
fn put_in_force(checked: Checked) -> Device {
    let asked: Vec<IpAddr> = checked.endpoints.keys().copied().collect();
    let now = Instant::now();
    let device = Device::new(PrivateKey::from_random([2; 32]), [2; 32]);
    let mut out = Datagrams::default();
    device.apply(checked.clone(), now, &mut out);
    let table = device.table().expect("a table");
    assert_eq!(*table.state, checked);
    for address in asked {
        assert_eq!(
            table.owner(address),
            Some(table.node),
            "{address} is this node's"
        );
        assert!(table.local_identity(address).is_some());
    }
    for (id, peer) in &checked.peers {
        let lanes = table.peer(*id).map(|peer| peer.lanes.len());
        assert_eq!(lanes, Some(peer.lanes.len()));
        for endpoint in peer.lanes.iter().filter_map(|lane| lane.endpoint) {
            let told = out.iter().any(|(_, to)| *to == endpoint);
            assert!(told, "no handshake with {id} at {endpoint}");
        }
    }
    let mut outbound = Outbound::default();
    device.handle_frame(&mut outbound, Header::COMPLETE, &[0; 60], now);
    device.flush(&mut outbound, now);
    let datagrams = [(0..148, SocketAddr::from(([192, 0, 2, 9], 9)))].into_iter();
    device.handle_datagrams(&mut Inbound::default(), &[1; 148], datagrams, now);
    device.handle_timeout(now, &mut Datagrams::default());
    assert_eq!(device.peer_status(now).len(), checked.peers.len());
    device
}

const PREFIXES: [&str; 14] = [
    "10.1.0.0/16",
    "10.2.1.0/24",
    "10.2.1.0/25",
    "10.2.1.128/32",
    "10.3.0.0/16",
    "10.0.0.0/8",
    "0.0.0.0/0",
    "::/0",
    "fd01:2:1::/64",
    "fd01:2::/32",
    "fd01:2:1::5/64",
    "240.0.0.0/8",
    "fe80::/10",
    "::ffff:10.0.0.0/104",
];
const ADDRESSES: [&str; 9] = [
    "10.2.1.10",
    "10.2.1.200",
    "fd01:2:1::77",
    "192.0.2.1",
    "0.0.0.0",
    "255.255.255.255",
    "::",
    "::ffff:192.0.2.1",
    "fe80::1",
];

fn prefix(source: &mut Source<'_>) -> IpNet {
    if source.once_in(4) {
        let address = IpAddr::from(source.array::<16>());
        return IpNet::new(address, source.any::<u8>() % 129).expect("at most 128");
    }
    source.pick(&PREFIXES).parse().expect("a prefix")
}

fn address(source: &mut Source<'_>) -> IpAddr {
    source.pick(&ADDRESSES).parse().expect("an address")
}

fn identity(source: &mut Source<'_>) -> Identity {
    let number: u32 = source.pick(&[2000, 1, 1000, 255, 256, Identity::MAX, 3]);
    Identity::new(number).expect("28 bits")
}

fn cluster(source: &mut Source<'_>) -> ClusterId {
    ClusterId::new(source.pick(&[1, 2, 3, 4, 2047])).expect("eleven bits")
}

fn node(source: &mut Source<'_>) -> NodeId {
    NodeId {
        cluster: cluster(source),
        index: NodeIndex::new(source.pick(&[1, 2, 65534])).expect("a node index"),
    }
}

fn lane(source: &mut Source<'_>) -> Lane {
    let key = [source.pick(&[1, 2, 3, 4, 0, 0xff]); 32];
    Lane {
        public_key: match source.once_in(4) {
            true => PublicKey::new(key),
            false => PrivateKey::from_random(key).public(),
        },
        endpoint: source
            .pick(&[true, true, false])
            .then(|| SocketAddr::new(address(source), source.pick(&[51820, 0, 1]))),
        preshared_key: source.once_in(4).then(|| {
            PresharedKey::from_base64("CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=")
                .expect("a key")
        }),
        needs_key: false,
    }
}

fn name(source: &mut Source<'_>) -> String {
    String::from_utf8_lossy(source.bytes(12)).into_owned()
}

/// Changes a state in a few places, often to one that breaks a rule.
fn altered(source: &mut Source<'_>, mut state: State) -> State {
    for _ in 0..source.pick(&[1, 0, 2, 4]) {
        match source.pick(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]) {
            0 => drop(state.prefixes.insert(prefix(source))),
            1 => drop(state.endpoints.insert(address(source), identity(source))),
            2 => drop(
                state
                    .clusters
                    .entry(cluster(source))
                    .or_default()
                    .prefixes
                    .insert(prefix(source)),
            ),
            3 => drop(
                state
                    .clusters
                    .entry(cluster(source))
                    .or_default()
                    .identities
                    .insert(identity(source)),
            ),
            4 => drop(state.clusters.remove(&cluster(source))),
            5 => drop(state.peers.remove(&node(source))),
            6 => {
                let lanes = source.pick(&[1, 2, 0, 65]);
                let identity = identity(source);
                let peer = Peer {
                    name: name(source),
                    kind: source.pick(&[PeerKind::Native, PeerKind::Foreign { identity }]),
                    prefixes: (0..source.below(3)).map(|_| prefix(source)).collect(),
                    lanes: (0..lanes).map(|_| lane(source)).collect(),
                    path_mtu: source.pick(&[1500, 1280, 1279, 0, 65535, 9000]),
                    watched: source.once_in(4),
                };
                state.peers.insert(node(source), peer);
            }
            7 => state.node = node(source),
            8 => state.vni = Vni::from_be_bytes(source.array()),
            9 => {
                state.guard.device = name(source);
                state.guard.underlay.insert(name(source));
                state.guard.mesh.insert(prefix(source));
                state.guard.local = state.prefixes.clone();
            }
            _ => state.endpoints = BTreeMap::new(),
        }
    }
    state
}
