//! What the agent sets, repairs and leaves alone.

use crate::ground::{Ground, NODE, WEST_2, until, within};
use std::time::Duration;

/// A repair is done within this time, on a busy machine too.
const REPAIR: Duration = Duration::from_secs(2);

const MESH_V4: &str = "10.2.1.0/24 via 169.254.1.1 dev hawser0 proto 72 src 10.1.1.1 onlink";
const MESH_V6: &str = "fd01:2:1::/64 via fe80::1 dev hawser0 proto 72 src fd01:1:1::1 metric 1";

fn ready() -> (Ground, crate::ground::Agent) {
    let ground = Ground::new();
    ground.add_tap();
    ground.configure(NODE);
    let agent = ground.start_agent();
    agent.says("kernel stands");
    agent.says("segment size clamp written");
    (ground, agent)
}

fn routes(ground: &Ground) -> String {
    ground.ip("route") + &ground.ip("-6 route")
}

/// Our tables without counters' values; empty where one is missing.
fn tables(ground: &Ground) -> Option<String> {
    ["inet hawser", "inet hawser_guard", "netdev hawser_guard"]
        .map(|table| {
            let mut nft = ground.command("nft");
            let output = nft
                .args(["-s", "list", "table"])
                .args(table.split(' '))
                .output()
                .unwrap();
            output
                .status
                .success()
                .then(|| String::from_utf8(output.stdout).unwrap())
        })
        .into_iter()
        .collect()
}

#[test]
fn a_node_is_set_up_and_a_second_start_writes_nothing() {
    let (ground, agent) = ready();
    let routes_now = routes(&ground);
    for line in [
        MESH_V4,
        MESH_V6,
        "unreachable 10.1.0.0/16",
        "unreachable 10.1.1.0/24",
        "unreachable 10.2.0.0/16",
        "unreachable fd01:2::/32",
    ] {
        assert!(routes_now.contains(line), "{line} in {routes_now}");
    }
    assert_eq!(routes_now.matches("mtu 1392").count(), 2, "{routes_now}");
    let device = ground.ip("addr show dev hawser0");
    for line in [
        "mtu 1392",
        "inet 10.1.1.1/32 scope global noprefixroute",
        "inet6 fd01:1:1::1/128 scope global nodad noprefixroute",
    ] {
        assert!(device.contains(line), "{line} in {device}");
    }
    assert!(!device.contains("inet6 fe80"), "{device}");
    let neighbours = ground.ip("neigh show dev hawser0 nud permanent");
    for gateway in ["169.254.1.1", "fe80::1"] {
        assert!(
            neighbours.contains(&format!("{gateway} lladdr 02:00:00:00:00:01 PERMANENT")),
            "{neighbours}"
        );
    }
    for (name, value) in [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv6.conf.all.forwarding", "1"),
        ("net.ipv4.conf.hawser0.rp_filter", "0"),
        ("net.ipv6.conf.hawser0.accept_ra", "0"),
        ("net.ipv6.conf.hawser0.disable_ipv6", "0"),
        ("net.ipv6.conf.hawser0.addr_gen_mode", "1"),
        ("net.ipv4.conf.hawser0.send_redirects", "0"),
    ] {
        assert_eq!(ground.sysctl(name), value, "{name}");
    }
    let guard = ground.run("nft", &["list", "table", "inet", "hawser_guard"]);
    assert!(guard.contains("10.2.0.0/16"), "{guard}");

    assert_eq!(agent.stop().code(), Some(0));
    assert_eq!(routes(&ground), routes_now, "everything stays");
    let monitor = ground.monitor();
    let agent = ground.start_agent();
    agent.says("kernel stands");
    agent.says("segment size clamp stands");
    assert_eq!(agent.stop().code(), Some(0));
    assert_eq!(monitor.changes(), [] as [&str; 0]);
}

#[test]
fn what_somebody_takes_away_comes_back() {
    let (ground, _agent) = ready();
    let before = (routes(&ground), tables(&ground));
    let device_before = ground.ip("addr show dev hawser0 to 10.1.1.1");
    for harm in [
        "route del 10.2.1.0/24",
        "-6 route del fd01:2:1::/64 dev hawser0",
        "route del unreachable 10.2.0.0/16 metric 4294967294",
        "addr flush dev hawser0",
        "addr del 10.1.1.1/32 dev hawser0",
        "neigh flush dev hawser0 nud permanent",
        "neigh replace 169.254.1.1 lladdr 02:00:00:00:00:09 nud permanent dev hawser0",
        "route replace 10.2.1.0/24 dev eth0 proto 72",
        "route replace 10.2.1.0/24 dev eth0",
        "-6 route replace fd01:2:1::/64 dev eth0 metric 1",
        "route change 10.2.1.0/24 via 169.254.1.1 dev hawser0 onlink proto 72 src 10.1.1.1 mtu 1500",
        "link set hawser0 down",
        "link set hawser0 mtu 1500",
        "link set hawser0 mtu 1200",
    ] {
        ground.ip(harm);
        within(REPAIR, harm, || {
            let neighbours = ground.ip("neigh show dev hawser0 nud permanent");
            routes(&ground) == before.0
                && ground.ip("addr show dev hawser0 to 10.1.1.1") == device_before
                && neighbours.matches("lladdr 02:00:00:00:00:01").count() == 2
        });
    }
    for harm in [
        "flush ruleset",
        "delete table inet hawser",
        "flush chain inet hawser_guard postrouting",
        "delete table netdev hawser_guard",
    ] {
        ground.run("nft", &harm.split(' ').collect::<Vec<_>>());
        within(REPAIR, harm, || tables(&ground) == before.1);
    }
}

#[test]
fn a_device_of_another_kind_under_the_taps_name_gets_no_route() {
    let ground = Ground::new();
    ground.ip("link add hawser0 type veth peer name other0");
    ground.ip("link set hawser0 up");
    ground.configure(NODE);
    let agent = ground.start_agent();
    agent.says("device is no TAP");
    agent.says("kernel stands");
    let routes_now = routes(&ground);
    assert!(
        routes_now.contains("unreachable 10.2.0.0/16"),
        "{routes_now}"
    );
    assert!(!routes_now.contains("proto 72 src"), "{routes_now}");
    assert_eq!(ground.ip("-4 addr show dev hawser0"), "");
    ground.ip("link del hawser0");
    ground.add_tap();
    within(REPAIR, "mesh routes", || routes(&ground).contains(MESH_V4));
}

#[test]
fn a_device_that_is_made_later_or_again_is_set_up() {
    let ground = Ground::new();
    ground.configure(NODE);
    let agent = ground.start_agent();
    agent.says("waiting for the device");
    until("the fail-safe stands", || {
        routes(&ground).contains("unreachable 10.2.0.0/16")
    });
    for _ in 0..3 {
        ground.add_tap();
        within(REPAIR, "mesh routes", || {
            let routes = routes(&ground);
            routes.contains(MESH_V4) && routes.contains(MESH_V6)
        });
        ground.ip("link del hawser0");
        assert!(routes(&ground).contains("unreachable 10.2.0.0/16"));
    }
}

#[test]
fn routes_follow_the_underlay_path() {
    let (ground, _agent) = ready();
    for (underlay, v4, v6) in [
        (9000, 8880, 8880),
        (1280, 1168, 1280),
        (1452, 1344, 1344),
        (1500, 1392, 1392),
    ] {
        ground.ip(&format!("link set eth0 mtu {underlay}"));
        within(REPAIR, &format!("underlay {underlay}"), || {
            ground
                .ip("route")
                .contains(&format!("onlink linkdown mtu {v4}"))
                && ground
                    .ip("-6 route")
                    .contains(&format!("onlink linkdown mtu {v6}"))
                && ground
                    .ip("link show hawser0")
                    .contains(&format!("mtu {}", v4.max(1280)))
        });
    }
    // A route of the underlay may know better than its device.
    ground.ip("route add 192.0.2.11 dev eth0 mtu 1300");
    within(REPAIR, "a narrow route", || {
        ground.ip("route").contains("onlink linkdown mtu 1184")
    });
}

#[test]
fn a_changed_file_is_taken_and_a_wrong_one_is_not() {
    let (ground, agent) = ready();
    ground.configure(&(NODE.to_owned() + WEST_2));
    within(REPAIR, "a new peer", || {
        ground.ip("route").contains("10.2.2.0/24 via 169.254.1.1")
    });
    ground.configure(&NODE.replace("id: 2", "id: 5000"));
    let line = "clusters[1].id: 5000: must be 1 to 2047; choose another; the configuration before it stays in force";
    agent.says(line);
    assert!(ground.ip("route").contains("10.2.2.0/24 via 169.254.1.1"));
    ground.configure(&NODE.replace("eth0", "eth7"));
    agent.says("underlay.devices: eth7: is not a device of this node");
    ground.configure(NODE);
    within(REPAIR, "the peer is gone", || {
        !ground.ip("route").contains("10.2.2.0/24")
    });
    let read = |agent: &crate::ground::Agent| agent.log().matches("configuration read").count();
    let before = read(&agent);
    agent.signal("-HUP");
    within(REPAIR, "a signal reads the file", || {
        read(&agent) == before + 1
    });
}

#[test]
fn a_cluster_that_left_stays_blocked_until_it_is_released() {
    let (ground, agent) = ready();
    let alone = NODE.split("  - { name: west").next().unwrap().to_owned();
    let guarded = |ground: &Ground| {
        ground
            .run("nft", &["list", "table", "inet", "hawser_guard"])
            .contains("10.2.0.0/16")
    };
    ground.configure(&alone);
    within(REPAIR, "its nodes are gone", || {
        !ground.ip("route").contains("10.2.1.0/24")
    });
    assert!(guarded(&ground) && routes(&ground).contains("unreachable 10.2.0.0/16"));

    // An agent that starts later knows it from the guard.
    assert_eq!(agent.stop().code(), Some(0));
    let agent = ground.start_agent();
    agent.says("kernel stands");
    assert!(guarded(&ground) && routes(&ground).contains("unreachable fd01:2::/32"));

    ground.configure(&(alone + "releasedPrefixes: [10.2.0.0/16]\n"));
    within(REPAIR, "released", || {
        !guarded(&ground) && !routes(&ground).contains("10.2.0.0/16")
    });
    assert!(
        routes(&ground).contains("unreachable fd01:2::/32"),
        "only what was released"
    );
}

#[test]
fn a_source_that_is_nobodys_is_chosen_again_once_and_nothing_is_left_behind() {
    let (ground, agent) = ready();
    // What the kernel does by a fault of its own, as near as one can bring it about: packets to the peer leave from an
    // address that no device has.
    ground.ip("route add local 198.51.100.77 dev lo");
    ground.ip("route add 192.0.2.11/32 dev eth0 src 198.51.100.77");
    let monitor = ground.monitor();
    agent.says("sends from an address that is not this node's");
    ground.ip("route del 192.0.2.11/32 dev eth0");
    agent.says("sends from this node's addresses again");
    // The next time is noticed too.
    ground.ip("route add 192.0.2.11/32 dev eth0 src 198.51.100.77");
    until("noticed again", || {
        let log = agent.log();
        log.matches("address that is not this node's").count() == 2
    });
    let changes = monitor.changes();
    let passing = |line: &&String| line.contains("127.72.87.83");
    assert!(changes.iter().any(|line| passing(&line)), "{changes:?}");
    assert!(!ground.ip("addr show dev lo").contains("127.72.87.83"));
}
