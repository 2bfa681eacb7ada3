//! What the guard stops and what it lets pass.

use std::net::UdpSocket;
use std::time::Duration;

use hawser_tunnel::guard::{EGRESS, GENEVE, INGRESS, POSTROUTING, TAGGED};
use hawser_tunnel::io::nft::{Ensured, Nft};

use crate::world::{Netns, World, frame};
use crate::{ensure, passed, watch_frames};

const TAGS: [&[u16]; 5] = [
    &[],
    &[0x8100],
    &[0x88a8],
    &[0x88a8, 0x8100],
    &[0x8100, 0x8100],
];
const MESH: [(&str, &str); 6] = [
    ("10.1.1.10", "198.51.100.9"),
    ("198.51.100.9", "10.2.0.7"),
    ("10.1.1.10", "10.2.0.7"),
    ("fd01:1:1::10", "2001:db8:9::9"),
    ("2001:db8:9::9", "fd01:2::7"),
    ("fd01:1:1::10", "fd01:2::7"),
];
const OTHERS: [(&str, &str); 4] = [
    ("192.0.2.1", "192.0.2.2"),
    ("10.3.0.1", "11.1.0.1"),
    ("2001:db8::1", "2001:db8::2"),
    ("fd01:3::1", "fe80::5"),
];

#[test]
fn mesh_frames_neither_leave_nor_enter_by_the_underlay() {
    let world = World::new();
    watch_frames(&world.wire, "p0");
    watch_frames(&world.node, "eth0");
    let directions = [
        (&world.node, "eth0", &world.wire, EGRESS),
        (&world.wire, "p0", &world.node, INGRESS),
    ];
    for (from, device, to, counter) in directions {
        let all = || {
            TAGS.into_iter()
                .flat_map(|tags| MESH.map(|pair| (tags, pair)))
        };
        for (tags, (source, destination)) in all() {
            from.inject(device, frame(tags, source, destination));
            assert_eq!(
                passed(to),
                1,
                "control: {tags:x?} {source} > {destination} without a guard"
            );
        }
        assert_eq!(ensure(&world.node, &world.guard()), Ensured::Written);
        for (nth, (tags, (source, destination))) in all().enumerate() {
            from.inject(device, frame(tags, source, destination));
            assert_eq!(
                passed(to),
                0,
                "{tags:x?} {source} > {destination} towards {counter}"
            );
            let drops = world.node.drops();
            assert_eq!(
                drops[counter] + drops[TAGGED],
                nth as u64 + 1,
                "{tags:x?} {source} > {destination}"
            );
        }
        for tags in TAGS {
            for (source, destination) in OTHERS {
                from.inject(device, frame(tags, source, destination));
                assert_eq!(
                    passed(to),
                    1,
                    "{tags:x?} {source} > {destination} is not ours"
                );
            }
        }
        world.node.run(|| Nft::default().remove_guard().unwrap());
    }
}

#[test]
fn what_is_not_mesh_on_the_underlay_passes() {
    let world = World::new();
    ensure(&world.node, &world.guard());
    // Neighbour discovery, node to node, both families.
    world
        .node
        .sh("ping -nqc1 -W2 192.0.2.2; ping -nqc1 -W2 2001:db8::2");
    // WireGuard is UDP between node addresses.
    for (node, wire) in [
        ("192.0.2.1:51820", "192.0.2.2:51820"),
        ("[2001:db8::1]:51820", "[2001:db8::2]:51820"),
    ] {
        let open = |at: &'static str| {
            move || {
                let socket = UdpSocket::bind(at).unwrap();
                socket
                    .set_read_timeout(Some(Duration::from_secs(2)))
                    .unwrap();
                socket
            }
        };
        let (here, there) = (world.node.run(open(node)), world.wire.run(open(wire)));
        for (from, to, address) in [(&here, &there, wire), (&there, &here, node)] {
            from.send_to(&[4; 1440], address).unwrap();
            assert_eq!(to.recv(&mut [0; 2048]).expect("not delivered"), 1440);
        }
    }
    // A pod reaches the world behind the node's address.
    let ping = "ping -nqc1 -W1 192.0.2.2 || ping -nqc1 -W1 2001:db8::2";
    assert!(
        !world.pod.attempt(ping).0,
        "with its own address it must not"
    );
    world.node.sh(
        "nft 'table inet masq { chain post { type nat hook postrouting priority 110
           oifname eth0 ip saddr 10.1.0.0/16 masquerade
           oifname eth0 ip6 saddr fd01:1::/32 masquerade
           }
         }'",
    );
    let before = world.node.drops();
    world
        .pod
        .sh("ping -nqc1 -W2 192.0.2.2; ping -nqc1 -W2 2001:db8::2");
    assert_eq!(world.node.drops(), before);
    // The world reaches a pod by a port of the node; the replies leave with the node's address.
    world.node.sh(
        "nft 'table inet nodeport { chain pre { type nat hook prerouting priority -100
           iifname eth0 udp dport 30000 dnat ip to 10.1.1.10:4000
           }
         }'",
    );
    let pod = world.pod.run(|| UdpSocket::bind("10.1.1.10:4000").unwrap());
    let client = world.wire.run(|| UdpSocket::bind("192.0.2.2:0").unwrap());
    for socket in [&pod, &client] {
        socket
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
    }
    client.send_to(b"request", "192.0.2.1:30000").unwrap();
    let (_, from) = pod.recv_from(&mut [0; 64]).expect("request not delivered");
    pod.send_to(b"reply", from).unwrap();
    let (_, from) = client.recv_from(&mut [0; 64]).expect("reply not delivered");
    assert_eq!(from.to_string(), "192.0.2.1:30000");
    assert_eq!(world.node.drops(), before);
}

#[test]
fn routed_mesh_packets_leave_by_the_tap_or_to_local_pods_only() {
    let world = World::new();
    let elsewhere = Netns::new();
    world.node.link("other0", &elsewhere, "eth0");
    world.node.sh(
        "ip route add 10.2.0.0/24 dev other0; ip neigh add 10.2.0.7 lladdr 02:00:00:00:00:07 dev other0
         ip route add fd01:2:0::/64 dev other0; ip neigh add fd01:2::7 lladdr 02:00:00:00:00:07 dev other0
         ip route add 10.2.1.0/24 dev hawser0; ip neigh add 10.2.1.7 lladdr 02:00:00:00:00:07 dev hawser0
         ip route add fd01:2:0:1::/64 dev hawser0; ip neigh add fd01:2:0:1::7 lladdr 02:00:00:00:00:07 dev hawser0",
    );
    ensure(&world.node, &world.guard());
    let postrouting = || world.node.drops()[POSTROUTING];
    // Host to pod, pod to host, by name of the router address and of the node.
    world
        .node
        .sh("ping -nqc1 -W2 10.1.1.10; ping -nqc1 -W2 fd01:1:1::10");
    world
        .pod
        .sh("ping -nqc1 -W2 10.1.1.1; ping -nqc1 -W2 fd01:1:1::1; ping -nqc1 -W2 192.0.2.1");
    world.node.attempt(
        "ping -nqc1 -W1 -I 10.1.1.1 10.2.1.7 || ping -nqc1 -W1 -I fd01:1:1::1 fd01:2:0:1::7",
    );
    assert_eq!(
        postrouting(),
        0,
        "the TAP, loopback and local pods are open"
    );
    for (from, destination) in [
        (&world.node, "10.2.0.7"),
        (&world.node, "fd01:2::7"),
        (&world.pod, "10.2.0.7"),
        (&world.pod, "fd01:2::7"),
    ] {
        let before = postrouting();
        from.attempt(&format!("ping -nqc1 -W1 {destination}"));
        assert_eq!(
            postrouting(),
            before + 1,
            "to {destination} by another device"
        );
    }
    // No mesh route: the default route leads to the underlay.
    world
        .node
        .sh("ip route add default via 192.0.2.2; ip -6 route add default via 2001:db8::2");
    let before = postrouting();
    world
        .pod
        .attempt("ping -nqc1 -W1 10.2.9.9 || ping -nqc1 -W1 fd01:2:9::9");
    assert_eq!(postrouting(), before + 2);
    // A pod prefix of this node routed to the underlay is no delivery.
    world.node.sh("ip route add 10.1.1.77 via 192.0.2.2");
    world.node.attempt("ping -nqc1 -W1 10.1.1.77");
    assert_eq!(postrouting(), before + 3);
}

#[test]
fn geneve_to_the_node_itself_is_dropped() {
    let world = World::new();
    let node = world.node.run(|| UdpSocket::bind("0.0.0.0:6081").unwrap());
    node.set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let sources = [
        (&world.wire, "192.0.2.1:6081"),
        (&world.pod, "10.1.1.1:6081"),
    ];
    let send = |from: &Netns, to: &'static str| {
        from.run(move || {
            UdpSocket::bind("0.0.0.0:0")
                .unwrap()
                .send_to(b"geneve", to)
                .unwrap()
        });
        node.recv(&mut [0; 64]).is_ok()
    };
    // The wire may not reach a pod's router address in clear, so each sends to the address it may use.
    for (from, to) in sources {
        assert!(send(from, to), "control: {to} without a guard");
    }
    ensure(&world.node, &world.guard());
    for (nth, (from, to)) in sources.into_iter().enumerate() {
        assert!(!send(from, to), "{to}");
        assert_eq!(world.node.drops()[GENEVE], nth as u64 + 1);
    }
}
