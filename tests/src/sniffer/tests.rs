use super::*;
use crate::lab::{Family, Lab, Topology, world};
use crate::traffic::{Iperf, LoadSpec, Ping, SequenceLoad};

/// Lets pods reach each other without a tunnel, in clear.
fn in_clear(lab: &Lab) {
    for node in lab.nodes() {
        for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
            node.netns().sysctl_set(key, "1").unwrap();
        }
        for family in Family::BOTH {
            let (cidr, via) = (
                node.pod_cidr(family).unwrap().to_string(),
                node.underlay(family).to_string(),
            );
            lab.router()
                .output("ip", &["route", "add", &cidr, "via", &via])
                .unwrap();
        }
    }
}

#[test]
fn every_planted_leak_is_caught() {
    let lab = Lab::new(Topology::two_by_two()).unwrap();
    let sniffer = lab.sniffer().unwrap();
    for round in 0..20 {
        for plant in Plant::ALL {
            let before = sniffer.report().unwrap();
            sniffer.plant(&lab, "east-2", plant).unwrap();
            let after = sniffer.report().unwrap();
            assert!(
                after.plaintext > before.plaintext,
                "{plant:?} in round {round}"
            );
            // What looks like WireGuard is given away by its content alone.
            assert_eq!(
                after.foreign > before.foreign,
                plant != Plant::Canary,
                "{plant:?} in round {round}"
            );
        }
    }
    let report = sniffer.stop().unwrap();
    assert_eq!(report.leaks.len(), 32);
    assert!(
        report.leaks[0].canary
            && report.leaks[0].mesh
            && report.leaks[0].hex.contains("0000  ff ff")
    );
    assert!(
        report
            .check()
            .unwrap_err()
            .to_string()
            .contains("plaintext")
    );
}

#[test]
fn egress_is_foreign_until_it_is_declared() {
    let lab = Lab::new(Topology::two_by_two()).unwrap();
    let sniffer = lab.sniffer().unwrap();
    let ping = |family| {
        Ping::new(world(family))
            .run(lab.node("east-1").netns())
            .unwrap()
            .is_complete()
    };
    assert!(ping(Family::V4));
    assert_eq!(sniffer.report().unwrap().foreign, 2);
    sniffer
        .allow(|allow| allow.egress = Family::BOTH.map(|family| world(family).into()).to_vec())
        .unwrap();
    assert!(ping(Family::V4) && ping(Family::V6));
    let report = sniffer.stop().unwrap();
    assert_eq!(
        (report.foreign, report.of(Kind::Egress), report.plaintext),
        (2, 4, 0),
        "{:?}",
        report.by_kind
    );
}

#[test]
fn traffic_in_clear_is_seen_packet_by_packet_and_none_is_missed() {
    let lab = Lab::new(Topology::two_by_two()).unwrap();
    in_clear(&lab);
    let sniffer = lab.sniffer().unwrap();
    let load = SequenceLoad::start(&lab, LoadSpec::all_pairs(&lab, 10_000)).unwrap();
    let (from, to) = (lab.pod("east-1-a"), lab.pod("west-1-b"));
    let transfer = Iperf::new(to.v4(), 1)
        .start(to.netns(), from.netns())
        .unwrap()
        .finish()
        .unwrap();
    let load = load.stop().unwrap();
    load.check().unwrap();
    let report = sniffer.stop().unwrap();
    // Each packet of the load passes two links; iperf3's and ARP come on top.
    assert!(
        report.plaintext > 2 * load.sent,
        "{} of {}",
        report.plaintext,
        2 * load.sent
    );
    assert_eq!(
        report.lost,
        0,
        "at {:.1} Gbit/s",
        transfer.bits_per_second / 1e9
    );
}

#[test]
fn a_load_accounts_for_what_the_network_does_to_it() {
    let lab = Lab::new(Topology::two_by_two()).unwrap();
    in_clear(&lab);
    // Every tenth packet between nodes goes missing.
    let rules = "table inet t { chain c { type filter hook forward priority 0; udp dport 7007 numgen inc mod 10 0 drop; }; }";
    lab.router().output("nft", &[rules]).unwrap();
    let load = SequenceLoad::start(&lab, LoadSpec::all_pairs(&lab, 5_000)).unwrap();
    crate::lab::wait_until(
        "a few packets were sent",
        ANSWER,
        || Ok(load.sent() > 2_000),
    )
    .unwrap();
    let report = load.stop().unwrap();
    assert_eq!(report.sent, report.received + report.lost);
    let share = report.lost * 100 / report.sent;
    assert!(
        (9..=10).contains(&share),
        "{share} % of {} lost",
        report.sent
    );
    assert_eq!(
        (report.duplicated, report.corrupted, report.receiver_drops),
        (0, 0, 0)
    );
    assert!(
        report
            .check()
            .unwrap_err()
            .to_string()
            .contains("were lost")
    );
    assert!(report.pairs.iter().all(|pair| pair.sources.len() <= 1));
}
