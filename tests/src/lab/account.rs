//! What a lab lost and where, for the text of a test that failed: the data planes' drops by reason, what the kernels of
//! nodes and pods discarded, and the ends of the nodes' logs.

use std::fmt::Write as _;

use anyhow::{Result, bail};

use super::{Lab, Node};
use crate::io::Netns;

/// Words of the kernel's counters that speak of packets that went no further.
const LOSSES: [&str; 6] = [
    "Discards",
    "NoRoutes",
    "Errors",
    "Drop",
    "ReasmFails",
    "AddrErr",
];
/// Lines of each log that are told.
const LINES: usize = 12;

impl Lab {
    /// Everything that was dropped since the lab was made and is not nothing, a line for each place.
    #[must_use]
    pub fn account(&self) -> String {
        let mut text = String::new();
        for node in self.nodes() {
            let drops = node.counters().map(|counters| counters.drops);
            let drops = drops.unwrap_or_default().into_iter();
            let drops: Vec<_> = drops.filter(|(_, count)| *count > 0).collect();
            let _ = writeln!(text, "{}: data plane {drops:?}", node.name());
            let _ = writeln!(text, "{}: kernel {}", node.name(), lost(node.netns()));
            for pod in node.pods() {
                let _ = writeln!(text, "{}: kernel {}", pod.name(), lost(pod.netns()));
            }
            for log in [node.keeper_log(), node.agent_log()] {
                let skipped = log.lines().count().saturating_sub(LINES);
                for line in log.lines().skip(skipped) {
                    let _ = writeln!(text, "{}: {line}", node.name());
                }
            }
        }
        text
    }
}

impl Node {
    /// UDP packets that came to this node and were thrown away by the kernel because nobody read them in time.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn unread(&self) -> Result<u64> {
        let [v4, v6] = self.netns().run(|| -> Result<_> {
            let read =
                |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
            Ok([read("snmp")?, read("snmp6")?])
        })??;
        let udp: Vec<&str> = v4.lines().filter(|line| line.starts_with("Udp:")).collect();
        let [names, values] = udp[..] else {
            bail!("no counters of UDP");
        };
        let named = names.split_whitespace().zip(values.split_whitespace());
        let v6 = v6.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.strip_prefix("Udp6")?, words.next()?))
        });
        let full = named.chain(v6).filter(|(name, _)| *name == "RcvbufErrors");
        let counts: Result<Vec<u64>, _> = full.map(|(_, count)| count.parse()).collect();
        Ok(counts?.iter().sum())
    }
}

/// Counters of a kernel's network stack and devices that are above zero and tell of losses.
fn lost(netns: &Netns) -> String {
    let read = || {
        // Not /proc/net: that is the main thread's.
        let files = ["snmp", "snmp6", "netstat", "dev"];
        files.map(|file| {
            std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default()
        })
    };
    let Ok([snmp, snmp6, netstat, devices]) = netns.run(read) else {
        return "cannot be asked".to_owned();
    };
    let tells = |name: &str| LOSSES.iter().any(|word| name.contains(word));
    let mut found = Vec::new();
    for text in [snmp, netstat] {
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.chunks_exact(2) {
            let values = pair[1].split_whitespace();
            let named = pair[0].split_whitespace().zip(values);
            found.extend(
                named
                    .filter(|(name, value)| tells(name) && *value != "0")
                    .map(|(name, value)| format!("{name} {value}")),
            );
        }
    }
    let pairs = snmp6.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.next()?))
    });
    found.extend(
        pairs
            .filter(|(name, value)| tells(name) && *value != "0")
            .map(|(name, value)| format!("{name} {value}")),
    );
    for line in devices.lines().skip(2) {
        let words: Vec<&str> = line.split_whitespace().collect();
        // Received: bytes packets errs drop fifo frame compressed multicast; sent: bytes packets errs drop.
        let count = |at: usize| words.get(at).copied().unwrap_or_default();
        let all = [count(3), count(4), count(11), count(12)];
        if all.iter().any(|count| *count != "0") {
            let [rx_errors, rx_drops, tx_errors, tx_drops] = all;
            let device = count(0);
            found.push(format!(
                "{device} rx {rx_errors} errors {rx_drops} drops, tx {tx_errors} errors {tx_drops} drops"
            ));
        }
    }
    found.join(", ")
}
