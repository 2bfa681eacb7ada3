use super::*;
use crate::agent_socket::{KeyOrigin, PeerKeyStatus};
use hawser_tunnel::offload::Offload;
use hawser_tunnel::status::{Counters, KeyChange, LaneStatus, NodeLanes, Pids, PodMtu};

fn status() -> Status {
    let lane = |endpoint: Option<&str>, handshake_age_ms| LaneStatus {
        public_key: "k".to_owned(),
        endpoint: endpoint.map(|text| text.parse().unwrap()),
        handshake_age_ms,
        handshakes: 1,
        tx_bytes: 1536,
        rx_bytes: 5 << 30,
        tx_packets: 2,
        rx_packets: 3,
        preshared_key: false,
    };
    let peer = |id: &str, name: &str, foreign, lanes| PeerStatus {
        id: id.parse().unwrap(),
        name: name.to_owned(),
        foreign,
        pod_mtu: PodMtu {
            ipv4: 1392,
            ipv6: 1392,
        },
        liveness: None,
        lanes,
    };
    Status {
        version: "0.1.0".to_owned(),
        node: Some("1/1".parse().unwrap()),
        revision: None,
        device: "hawser0".to_owned(),
        port: 51820,
        public_keys: vec!["key".to_owned(), "other".to_owned()],
        key_change: None,
        lanes: NodeLanes { all: 2, open: 1 },
        uptime_ms: 61_000,
        agent_connected: true,
        pids: Pids {
            keeper: 10,
            data_plane: 11,
        },
        peers: vec![
            peer(
                "2/1",
                "west-1",
                false,
                vec![
                    lane(Some("192.0.2.11:51820"), Some(2_000)),
                    lane(None, None),
                ],
            ),
            peer(
                "2/2",
                "west-2",
                true,
                vec![lane(Some("[2001:db8::12]:51820"), Some(90_061_000))],
            ),
        ],
        counters: Counters {
            drops: BTreeMap::from([("MissingOption".to_owned(), 7)]),
            ..Counters::default()
        },
        offloads: BTreeMap::from([
            (Offload::TapUdp, Standing::Used),
            (Offload::UdpGso, Standing::Refused),
            (Offload::UdpGro, Standing::SwitchedOff),
        ]),
    }
}

#[test]
fn the_table_is_for_people() {
    let wanted = "\
node      1/1, device hawser0, port 51820
process   hawser-tunnel 0.1.0, up 1m1s, pids 10 (keeper) 11 (data plane)
agent     connected, state revision none
key       key other
lanes     2, 1 open
traffic   sent 0 packets 0 B, received 0 packets 0 B
without   udp-gso: refused by the kernel
without   udp-gro: switched off

 NAME              ID   ENDPOINT              HANDSHAKE       RX       TX  MTU4  MTU6
 west-1            2/1  192.0.2.11:51820         2s ago  5.0 GiB  1.5 KiB  1392  1392
   lane 1          2/1  unknown                    none  5.0 GiB  1.5 KiB  1392  1392
 west-2 (foreign)  2/2  [2001:db8::12]:51820   1d1h ago  5.0 GiB  1.5 KiB  1392  1392

 DROPPED BECAUSE  PACKETS
 MissingOption          7
";
    assert_eq!(text(&status(), &PeerKeys::default()).unwrap(), wanted);
}

#[test]
fn who_changes_keys_sees_who_is_late() {
    let mut status = status();
    status.key_change = Some(KeyChange {
        old_public_keys: vec!["before".to_owned()],
        age_ms: 60_000,
        late: (1..=4)
            .map(|index| format!("2/{index}").parse().unwrap())
            .collect(),
        in_use: Vec::new(),
    });
    let text = text(&status, &PeerKeys::default()).unwrap();
    let line = text.lines().find(|line| line.starts_with("old key"));
    assert_eq!(
        line.unwrap(),
        "old key   before, since 1m0s; peers that have not shown that they know the new one: \
         4 (2/1, 2/2, 2/3, ...), with a session by the old: 0"
    );
}

#[test]
fn who_watches_peers_sees_how_they_are() {
    let mut status = status();
    let mut shown = |state, last_reply_ms, round_trip_us, hold_down_ms| {
        status.peers[0].liveness = Some(PeerLiveness {
            state,
            last_reply_ms,
            round_trip_us,
            deaths: 3,
            hold_down_ms,
        });
        let text = text(&status, &PeerKeys::default()).unwrap();
        let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap();
        assert!(line("NAME").ends_with("MTU6  LIVENESS"));
        assert!(line("lane 1").ends_with("1392"), "once for each peer");
        assert!(line("west-2").ends_with("1392"), "not watched");
        let (_, shown) = line("west-1").split_once("1392  1392").unwrap();
        shown.trim().to_owned()
    };
    assert_eq!(shown(State::Unknown, None, None, 0), "unknown");
    assert_eq!(shown(State::Alive, Some(9), Some(1_250), 0), "alive 1.2 ms");
    assert_eq!(shown(State::Dead, Some(61_000), Some(1), 0), "dead 1m1s");
    assert_eq!(shown(State::Dead, None, None, 0), "dead");
    assert_eq!(
        shown(State::Damped, Some(9), Some(1), 4_000),
        "damped held 4s"
    );
}

#[test]
fn who_has_keys_sees_of_what_kind_they_are() {
    let mut status = status();
    for lane in &mut status.peers[1].lanes {
        lane.preshared_key = true;
    }
    let shown = |post_quantum: KeyOrigin, age_ms: Option<u64>, failure: Option<&str>| {
        let keys = PeerKeys::new(vec![PeerKeyStatus {
            id: "2/1".parse().unwrap(),
            post_quantum,
            epoch: age_ms.map(|_| 7),
            age_ms,
            failure: failure.map(str::to_owned),
        }]);
        let json = keys.json(&status).unwrap();
        assert_eq!(json["peers"][0]["keys"]["postQuantum"], post_quantum.name());
        assert!(json["peers"][1].get("keys").is_none());
        let text = text(&status, &keys).unwrap();
        let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap();
        assert!(line("NAME").ends_with("MTU6  POST-QUANTUM"));
        assert!(line("west-2").ends_with("1392  file"), "not by a hub");
        let told = failure.is_none_or(|why| text.contains(&format!("2/1                 {why}")));
        assert!(told, "{text}");
        let (_, shown) = line("west-1").split_once("1392  1392").unwrap();
        shown.trim().to_owned()
    };
    let hybrid = shown(KeyOrigin::Hybrid, Some(61_000), None);
    assert_eq!(hybrid, "X25519MLKEM768 1m1s");
    let classical = shown(KeyOrigin::Classical, Some(1_000), Some("handshake_timeout"));
    assert_eq!(classical, "X25519 1s");
    assert_eq!(shown(KeyOrigin::Kept, None, None), "kept");
    assert_eq!(shown(KeyOrigin::None, None, None), "none");
}

#[test]
fn amounts_and_ages_have_units() {
    for (count, text) in [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1 << 20, "1.0 MiB"),
        (u64::MAX, "16383.9 PiB"),
    ] {
        assert_eq!(bytes(count), text);
    }
    for (ms, text) in [
        (999, "999ms"),
        (59_999, "59s"),
        (3_600_000, "1h0m"),
        (86_400_000, "1d0h"),
    ] {
        assert_eq!(age(ms), text);
    }
}
