//! Every field that can be wrong, and the line that says so.

use super::{KEY_1, KEY_2, assert_lines};

#[test]
fn every_bad_field_has_its_line() {
    let long_socket = format!("/{}", "s".repeat(107));
    let two_lanes =
        format!("lanes: [ {{ publicKey: \"{KEY_2}\" }}, {{ publicKey: \"{KEY_1}\" }} ]");
    let west_2 =
        format!("lanes: [ {{ publicKey: \"{KEY_2}\", endpoint: \"[2001:db8::12]:51820\" }} ]");
    let long = "x".repeat(300);
    let cases: &[(&str, &str, &str)] = &[
        (
            "vni: 7",
            "vni: 16777216",
            "clusterset.vni: 16777216: must be 0 to 16777215 (24 bits); choose another",
        ),
        (
            "vni: 7",
            "vni: seven",
            "clusterset.vni: seven: must be 0 to 16777215 (24 bits); choose another",
        ),
        (
            "device: hawser0 }",
            "device: hawser0, checksums: none }",
            "tunnel.checksums: none: must be left or filled; leave it out for left",
        ),
        (
            "clusterset:",
            "keyRotation: 1\nclusterset:",
            "keyRotation: 1: must be off, or 5m to 24h, as in 90m or 2h; leave it out for 1h",
        ),
        (
            "clusterset:",
            "keyRotation: 4m\nclusterset:",
            "keyRotation: 4m: must be off, or 5m to 24h, as in 90m or 2h; leave it out for 1h",
        ),
        (
            "clusterset:",
            "keyRotation: 99999999999999999999h\nclusterset:",
            "keyRotation: 99999999999999999999h: must be off, or 5m to 24h, as in 90m or 2h; leave it out for 1h",
        ),
        (
            "clusterset:",
            "postQuantum: always\nclusterset:",
            "postQuantum: always: must be required or preferred; leave it out for preferred",
        ),
        (
            "clusterset:",
            "postQuantum: required\nclusterset:",
            "peers[0].lanes[0].presharedKeyFile: (empty): must be there with postQuantum: required; name a file with a key, \
             or remove the peer and leave it to a hub",
        ),
        (
            "name: west, id: 2",
            "name: west, id: 4096",
            "clusters[1].id: 4096: must be 1 to 2047; choose another",
        ),
        (
            "name: west, id: 2",
            "name: west, id: 0",
            "clusters[1].id: 0: must be 1 to 2047; choose another",
        ),
        (
            "name: west, id: 2",
            "name: west, id: -2",
            "clusters[1].id: -2: must be 1 to 2047; choose another",
        ),
        (
            "name: west, id: 2",
            "name: west, id: 1",
            "clusters[1].id: 1 of west: is also the id of cluster east; give each cluster its own",
        ),
        (
            "name: west, id: 2",
            "name: east, id: 2",
            "clusters[1].name: east: is listed twice; remove one",
        ),
        (
            "name: west, id: 2",
            "name: West, id: 2",
            "clusters[1].name: West: must be a DNS label (a-z, 0-9 and -, at most 63 characters, no - at either end); rename it",
        ),
        (
            "cluster: { name: east, id: 1 }",
            "cluster: { name: north, id: 1 }",
            "cluster.name: north: is not in clusters; add it there with its id and prefixes",
        ),
        (
            "cluster: { name: east, id: 1 }",
            "cluster: { name: east, id: 3 }",
            "cluster.id: 3: clusters gives cluster east the id 1; write the same in both places",
        ),
        (
            "cluster: { name: east, id: 1 }",
            "cluster: { name: east, id: 2048 }",
            "cluster.id: 2048: must be 1 to 2047; choose another",
        ),
        (
            "name: east-1, index: 1",
            "name: east-1, index: 65535",
            "node.index: 65535: must be 1 to 65534; choose another",
        ),
        (
            "name: east-1, index: 1",
            "name: east-1, index: 0",
            "node.index: 0: must be 1 to 65534; choose another",
        ),
        (
            "name: east-1, index: 1",
            "name: east_1, index: 1",
            "node.name: east_1: must be a DNS name (a-z, 0-9, - and ., at most 253 characters); rename it",
        ),
        (
            "/run/hawser/tunnel.sock",
            "run/tunnel.sock",
            "tunnel.socket: run/tunnel.sock: must be an absolute path; start it with /",
        ),
        (
            "/run/hawser/tunnel.sock",
            &long_socket,
            &format!(
                "tunnel.socket: {long_socket}: has 108 bytes; a socket's path has at most 107; shorten it"
            ),
        ),
        (
            "device: hawser0",
            "device: hawser0123456789",
            "tunnel.device: hawser0123456789: must be 1 to 15 printable characters without / and :; correct the name",
        ),
        (
            "device: hawser0",
            "device: ha/ser",
            "tunnel.device: ha/ser: must be 1 to 15 printable characters without / and :; correct the name",
        ),
        (
            "device: hawser0",
            "device: ..",
            "tunnel.device: ..: must be 1 to 15 printable characters without / and :; correct the name",
        ),
        (
            "devices: [eth0]",
            "devices: []",
            "underlay.devices: []: must name at least one device; add the one that leads to the other nodes",
        ),
        (
            "devices: [eth0]",
            "devices: [eth0, \"\"]",
            "underlay.devices[1]: (empty): must be 1 to 15 printable characters without / and :; correct the name",
        ),
        (
            "devices: [eth0]",
            "devices: [eth0, hawser0]",
            "underlay.devices[1]: hawser0: is the tunnel's own device; name the device that leads to the other nodes",
        ),
        (
            "devices: [eth0]",
            "devices: [eth0, eth0]",
            "underlay.devices[1]: eth0: is listed twice; remove one",
        ),
        (
            "cidr: 10.1.1.0/24",
            "cidr: 10.1.1.0",
            "pods[0].cidr: 10.1.1.0: must be a prefix, as in 10.1.0.0/16 or fd01:1::/32; write ADDRESS/LENGTH",
        ),
        (
            "cidr: 10.1.1.0/24",
            "cidr: 10.1.1.0/33",
            "pods[0].cidr: 10.1.1.0/33: must be a prefix, as in 10.1.0.0/16 or fd01:1::/32; write ADDRESS/LENGTH",
        ),
        (
            "cidr: 10.1.1.0/24",
            "cidr: 10.1.1.7/24",
            "pods[0].cidr: 10.1.1.7/24: has host bits set; write 10.1.1.0/24",
        ),
        (
            "\"fd01:1:1::/64\"",
            "\"fd01:1:1::5/64\"",
            "pods[1].cidr: fd01:1:1::5/64: has host bits set; write fd01:1:1::/64",
        ),
        (
            "cidr: 10.1.1.0/24",
            "cidr: 10.3.1.0/24",
            "pods[0].cidr: 10.3.1.0/24: lies outside the prefixes of cluster east (10.1.0.0/16, fd01:1::/32); correct it or add it there",
        ),
        (
            "router: 10.1.1.1",
            "router: 10.1.2.1",
            "pods[0].router: 10.1.2.1: lies outside 10.1.1.0/24; choose an address inside",
        ),
        (
            "router: 10.1.1.1",
            "router: gateway",
            "pods[0].router: gateway: must be an IP address, as in 10.1.1.1 or fd01:1:1::1; correct it",
        ),
        (
            "cidr: \"fd01:1:1::/64\", router: \"fd01:1:1::1\" }",
            "cidr: \"fd01:1:1::/64\", router: \"fd01:1:1::1\" }\n  - { cidr: 10.1.1.128/25, router: 10.1.1.129 }",
            "pods[2].cidr: 10.1.1.128/25: of node east-1 overlaps 10.1.1.0/24 of node east-1; a prefix has one owner: change one",
        ),
        (
            "addresses: [10.1.1.11]",
            "addresses: [10.1.9.11]",
            "endpoints[1].addresses[0]: 10.1.9.11: lies outside this node's pod prefixes (10.1.1.0/24, fd01:1:1::/64); correct it",
        ),
        (
            "addresses: [10.1.1.11]",
            "addresses: [10.1.1.10]",
            "endpoints[1].addresses[0]: 10.1.1.10: already belongs to default/a; give each its own",
        ),
        (
            "addresses: [10.1.1.11]",
            "addresses: [10.1.1.1]",
            "endpoints[1].addresses[0]: 10.1.1.1: already belongs to this node, as router address; give each its own",
        ),
        (
            "addresses: [10.1.1.11]",
            "addresses: [10.1.1]",
            "endpoints[1].addresses[0]: 10.1.1: must be an IP address, as in 10.1.1.1 or fd01:1:1::1; correct it",
        ),
        (
            "addresses: [10.1.1.11]",
            "addresses: []",
            "endpoints[1].addresses: []: must have at least one address; add it or remove the entry",
        ),
        (
            "name: default/b",
            "name: default/a",
            "endpoints[1].name: default/a: is listed twice; remove one",
        ),
        (
            "name: default/b",
            "name: \"a\\nb\"",
            "endpoints[1].name: a\\nb: must be 1 to 253 printable characters without white space; rename it",
        ),
        (
            "identity: 1002",
            "identity: 268435456",
            "endpoints[1].identity: 268435456: must be 1 to 268435455 (28 bits); choose another",
        ),
        (
            "identity: 1002",
            "identity: 0",
            "endpoints[1].identity: 0: must be 1 to 268435455 (28 bits); choose another",
        ),
        (
            "identity: 1002",
            "identity: 255",
            "endpoints[1].identity: 255: 1 to 255 are reserved; choose 256 or more",
        ),
        (
            "identity: 1002",
            "identity: 2001",
            "endpoints[1].identity: 2001: is not among the identities of cluster east; add it there or correct it",
        ),
        (
            "identities: [2001]",
            "identities: [2001, 4]",
            "clusters[1].identities[1]: 4: 1 to 255 are reserved; choose 256 or more",
        ),
        (
            "identities: [2001]",
            "identities: [2001, 2001]",
            "clusters[1].identities[1]: 2001: is listed twice; remove one",
        ),
        (
            "[10.2.0.0/16, \"fd01:2::/32\"]",
            "[10.1.128.0/17]",
            "clusters[1].prefixes[0]: 10.1.128.0/17: of cluster west overlaps 10.1.0.0/16 of cluster east; a prefix has one owner: change one",
        ),
        (
            "[10.2.0.0/16, \"fd01:2::/32\"]",
            "[10.0.0.0/8]",
            "clusters[1].prefixes[0]: 10.0.0.0/8: of cluster west overlaps 10.1.0.0/16 of cluster east; a prefix has one owner: change one",
        ),
        (
            "[10.2.0.0/16, \"fd01:2::/32\"]",
            "[10.2.0.0/16, 10.2.0.0/16]",
            "clusters[1].prefixes[1]: 10.2.0.0/16: is listed twice; remove one",
        ),
        (
            "[10.2.0.0/16, \"fd01:2::/32\"]",
            "[10.2.0.0/16, \"fd01:2::/32\", 127.1.0.0/16]",
            "prefix 127.1.0.0/16 of cluster 2: lies in 127.0.0.0/8, which is not for pods; correct it",
        ),
        (
            "name: west-2\n    cluster: west",
            "name: west-2\n    cluster: north",
            "peers[1].cluster: north: is not in clusters (east, west); add it there or correct it",
        ),
        (
            "name: west-2\n    cluster: west\n    index: 2",
            "name: west-2\n    cluster: west\n    index: 1",
            "peers[1].index: 1: is also the index of peer west-1; give each node of a cluster its own",
        ),
        (
            "name: west-2\n    cluster: west\n    index: 2",
            "name: west-2\n    cluster: west\n    index: 70000",
            "peers[1].index: 70000: must be 1 to 65534; choose another",
        ),
        (
            "name: west-2\n    cluster: west\n    index: 2",
            "name: east-2\n    cluster: east\n    index: 1",
            "peers[1].index: 1: is this node itself; remove the entry",
        ),
        (
            "name: west-2\n",
            "name: west-1\n",
            "peers[1].name: west-1: is listed twice; remove one",
        ),
        (
            "[10.2.2.0/24]",
            "[10.2.1.128/25]",
            "peers[1].prefixes[0]: 10.2.1.128/25: of node west-2 overlaps 10.2.1.0/24 of node west-1; a prefix has one owner: change one",
        ),
        (
            "[10.2.2.0/24]",
            "[10.2.1.0/24]",
            "peers[1].prefixes[0]: 10.2.1.0/24: of node west-2 overlaps 10.2.1.0/24 of node west-1; a prefix has one owner: change one",
        ),
        (
            "[10.2.2.0/24]",
            "[10.1.1.64/26]",
            "peers[1].prefixes[0]: 10.1.1.64/26: lies outside the prefixes of cluster west (10.2.0.0/16, fd01:2::/32); correct it or add it there",
        ),
        (
            "[10.2.2.0/24]",
            "[10.2.3.0/24, 10.2.2.1/24]",
            "peers[1].prefixes[1]: 10.2.2.1/24: has host bits set; write 10.2.2.0/24",
        ),
        (
            &west_2,
            "lanes: []",
            "peers[1].lanes: 0: must have 1 to 64 lanes; add one with publicKey and endpoint, or remove some",
        ),
        (
            &west_2,
            &two_lanes,
            "peers[1].lanes: 2: a foreign peer has exactly one lane; remove the others",
        ),
        (
            KEY_2,
            "short",
            "peers[1].lanes[0].publicKey: short: must be 32 bytes in base64 (44 characters), as `hawser-tunnel key` prints; copy it again",
        ),
        (
            KEY_2,
            &KEY_2[..43],
            "peers[1].lanes[0].publicKey: AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI: must be 32 bytes in base64 (44 characters), as `hawser-tunnel key` prints; copy it again",
        ),
        (
            KEY_2,
            KEY_1,
            "peers[1].lanes[0].publicKey: AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=: is also the key of peer west-1; every lane has its own",
        ),
        (
            "192.0.2.11:51820",
            "192.0.2.11",
            "peers[0].lanes[0].endpoint: 192.0.2.11: has no port; write 192.0.2.11:51820",
        ),
        (
            "[2001:db8::12]:51820",
            "2001:db8::12",
            "peers[1].lanes[0].endpoint: 2001:db8::12: has no port; write [2001:db8::12]:51820",
        ),
        (
            "192.0.2.11:51820",
            "west-1.example:51820",
            "peers[0].lanes[0].endpoint: west-1.example:51820: must be ADDRESS:PORT, as in 192.0.2.11:51820 or [2001:db8::11]:51820; correct it",
        ),
        (
            "192.0.2.11:51820",
            "192.0.2.11:0",
            "peers[0].lanes[0].endpoint: 192.0.2.11:0: port 0 cannot be reached; write the port of the peer, as in 51820",
        ),
        (
            "192.0.2.11:51820",
            "192.0.2.11:70000",
            "peers[0].lanes[0].endpoint: 192.0.2.11:70000: must be ADDRESS:PORT, as in 192.0.2.11:51820 or [2001:db8::11]:51820; correct it",
        ),
        (
            "192.0.2.11:51820",
            "224.0.0.1:51820",
            "peers[0].lanes[0].endpoint: 224.0.0.1:51820: is no node's address; write the address by which the peer is reached",
        ),
        (
            "192.0.2.11:51820",
            "10.2.1.4:51820",
            "peers[0].lanes[0].endpoint: 10.2.1.4:51820: lies inside 10.2.0.0/16 of cluster west; write the node's underlay address",
        ),
        (
            "foreign: { identity: 3 }",
            "foreign: { identity: 3 }\n    watched: true",
            "peers[1].watched: true: a foreign peer answers no probes and cannot be watched; leave it out",
        ),
        (
            "foreign: { identity: 3 }",
            "watched: yes",
            "peers[1].watched: yes: must be true or false; leave it out for false",
        ),
        (
            "foreign: { identity: 3 }",
            "foreign: { identity: 1 }",
            "peers[1].foreign.identity: 1: must be 3 (world) or an identity of cluster west; correct it",
        ),
        (
            "foreign: { identity: 3 }",
            "foreign: { identity: 1001 }",
            "peers[1].foreign.identity: 1001: must be 3 (world) or an identity of cluster west; correct it",
        ),
        (
            "[10.9.0.0/16]",
            "[10.2.0.0/15]",
            "releasedPrefixes[0]: 10.2.0.0/15: 10.2.0.0/16 of cluster west is still in use there; remove one of the two",
        ),
        (
            "[10.9.0.0/16]",
            "[10.9.0.0/16, 10.9.0.0/16]",
            "releasedPrefixes[1]: 10.9.0.0/16: is listed twice; remove one",
        ),
        (
            "[10.9.0.0/16]",
            &format!("[{long}]"),
            &format!(
                "releasedPrefixes[0]: {}…: must be a prefix, as in 10.1.0.0/16 or fd01:1::/32; write ADDRESS/LENGTH",
                &long[..120]
            ),
        ),
    ];
    assert!(cases.len() >= 60);
    assert_lines(cases);
}
