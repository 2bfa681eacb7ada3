//! The kernel takes the program that parts flows over lanes, and it does what it says. Needs root.

use hawser_tunnel::io::steering::Steering;
use hawser_tunnel::steering::PAUSE;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Longer than a slot keeps its lane without a packet.
#[expect(
    clippy::disallowed_methods,
    reason = "the kernel's time is what is waited for"
)]
fn pause() {
    let pause = Duration::from_nanos(PAUSE.unsigned_abs().into());
    std::thread::sleep(2 * pause);
}

fn v4(source: [u8; 4], port: u16, protocol: u8) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([
        0x08, 0x00, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, protocol, 0, 0,
    ]);
    frame.extend(source);
    frame.extend([10, 2, 1, 10]);
    frame.extend(port.to_be_bytes());
    frame.extend([0, 80]);
    frame.resize(80, 0);
    frame
}

fn v6(port: u16, next: u8) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, next, 64]);
    frame.extend([0xfd, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10]);
    frame.extend([0xfd, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10]);
    frame.extend(port.to_be_bytes());
    frame.extend([0, 80]);
    frame.resize(100, 0);
    frame
}

/// How many of `count` flows go by each lane.
fn shares(steering: &Steering, flow: impl Fn(u16) -> Vec<u8>, count: u16) -> BTreeMap<u32, u32> {
    let mut shares = BTreeMap::new();
    for port in 0..count {
        let lane = steering.run(&flow(40_000 + port)).expect("a run");
        *shares.entry(lane).or_default() += 1;
    }
    shares
}

#[test]
fn flows_are_spread_over_the_lanes_that_are_open_and_keep_to_them() {
    let steering = Steering::load_without_device(8).expect("bpf(2) as root");
    for flow in [
        (|port| v4([10, 1, 1, 10], port, 6)) as fn(u16) -> Vec<u8>,
        |port| v4([10, 1, 1, 10], port, 17),
        |port| v6(port, 6),
        |port| v6(port, 17),
    ] {
        let shares = shares(&steering, flow, 800);
        assert_eq!(shares.len(), 8, "{shares:?}");
        assert!(
            shares.values().all(|share| (50..=150).contains(share)),
            "{shares:?}"
        );
        let lanes: BTreeSet<u32> = (0..100)
            .map(|_| steering.run(&flow(40_000)).unwrap())
            .collect();
        assert_eq!(lanes.len(), 1, "a flow changed its lane");
    }
}

#[test]
fn a_flow_that_goes_on_keeps_its_lane_when_others_open_and_one_that_pauses_may_change() {
    let steering = Steering::load_without_device(1).unwrap();
    let flow = |port| v4([10, 1, 1, 10], port, 6);
    assert_eq!(shares(&steering, flow, 100), [(0, 100)].into());
    steering.set_open(4).unwrap();
    assert_eq!(steering.open().unwrap(), 4);
    assert_eq!(shares(&steering, flow, 100), [(0, 100)].into());
    pause();
    let opened = shares(&steering, flow, 100);
    assert_eq!(opened.len(), 4, "{opened:?}");
    // Closed again: whoever goes on is left alone.
    steering.set_open(1).unwrap();
    assert_eq!(shares(&steering, flow, 100), opened);
    pause();
    assert_eq!(shares(&steering, flow, 100), [(0, 100)].into());
}

#[test]
fn fragments_keep_together_and_whatever_is_no_ip_goes_by_the_first_lane() {
    let steering = Steering::load_without_device(16).unwrap();
    for source in 0..50 {
        let mut first = v4([10, 1, 1, source], 1, 17);
        first[20] = 0x20;
        let mut last = v4([10, 1, 1, source], 2, 17);
        last[21] = 0x10;
        let lanes = [&first, &last].map(|frame| steering.run(frame).unwrap());
        assert_eq!(lanes[0], lanes[1]);
        // Protocols without ports: what would be ports means nothing.
        let icmp = [1, 2].map(|port| steering.run(&v4([10, 1, 1, source], port, 1)).unwrap());
        assert_eq!(icmp[0], icmp[1]);
    }
    let mut arp = v4([10, 1, 1, 1], 1, 6);
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(steering.run(&arp).unwrap(), 0);
    // Cut off in the middle of its headers.
    for length in 14..34 {
        assert_eq!(
            steering
                .run(&v4([10, 1, 1, 1], 1, 6)[..length])
                .unwrap_or(0),
            0
        );
    }
    // Ports behind IPv4 options are found.
    let mut lanes = BTreeSet::new();
    for port in 0..64_u16 {
        let mut frame = v4([10, 1, 1, 1], 7, 6);
        frame[14] = 0x46;
        frame[38..40].copy_from_slice(&port.to_be_bytes());
        lanes.insert(steering.run(&frame).unwrap());
    }
    assert!(lanes.len() > 8, "{lanes:?}");
}
