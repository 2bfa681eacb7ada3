//! The guard against a real kernel: what it stops, what it lets pass, and that it comes back.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a failed step is a failed test, and times are measured"
)]

mod barrier;
mod repair;
mod world;

use hawser_tunnel::guard::Guard;
use hawser_tunnel::io::nft::{Ensured, Nft};
use world::Netns;

/// Counts the frames that reach a device, before and after everybody else has looked.
const SEEN: &str = r#"
table netdev seen {
    counter passed { }
    chain passed {
        type filter hook ingress device "DEVICE" priority 100; policy accept;
        udp dport 2000 counter name passed
        meta protocol { 8021q, 8021ad } counter name passed
    }
}"#;

fn ensure(netns: &Netns, guard: &Guard) -> Ensured {
    let guard = guard.clone();
    netns.run(move || Nft::default().ensure_guard(&guard).unwrap())
}

fn stands(netns: &Netns, guard: &Guard) -> bool {
    let guard = guard.clone();
    netns.run(move || Nft::default().guard_stands(&guard).unwrap())
}

fn watch_frames(netns: &Netns, device: &str) {
    netns.sh(&format!(
        "nft -f - <<'E'\n{}\nE",
        SEEN.replace("DEVICE", device)
    ));
}

fn passed(netns: &Netns) -> u64 {
    let text = netns.sh("nft reset counter netdev seen passed");
    let packets = text
        .split_whitespace()
        .skip_while(|word| *word != "packets")
        .nth(1);
    packets.unwrap().parse().unwrap()
}
