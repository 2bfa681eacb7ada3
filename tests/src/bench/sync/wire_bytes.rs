//! Bytes that pass between a node and the hubs of its cluster, IP headers included, as the kernel counts them.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::io::Netns;
use crate::lab::HUB_PORT;

/// The table that counts.
const TABLE: &str = "bench";

/// Counts what the programs of a namespace say to hubs and hear of them. The node has no hub itself.
#[derive(Clone, Debug)]
pub(super) struct WireBytes {
    netns: Netns,
}

impl WireBytes {
    /// Begins to count.
    pub(super) fn start(netns: &Netns) -> Result<Self> {
        let rules = format!(
            "add table inet {TABLE}; \
             add chain inet {TABLE} in {{ type filter hook input priority -400; }}; \
             add chain inet {TABLE} out {{ type filter hook output priority 400; }}; \
             add rule inet {TABLE} in udp sport {HUB_PORT} counter; \
             add rule inet {TABLE} out udp dport {HUB_PORT} counter"
        );
        netns.output("nft", &[&rules])?;
        let netns = netns.clone();
        Ok(Self { netns })
    }

    /// Both ways together, since the beginning.
    pub(super) fn count(&self) -> Result<u64> {
        let text = self
            .netns
            .output("nft", &["-j", "list", "table", "inet", TABLE])?;
        sum(&text)
    }
}

/// The bytes of all counters in a table as JSON.
fn sum(text: &str) -> Result<u64> {
    let table: Value = serde_json::from_str(text).context("nft does not speak JSON")?;
    let objects = table["nftables"].as_array().context("no table")?;
    let parts = objects
        .iter()
        .filter_map(|object| object["rule"]["expr"].as_array())
        .flatten();
    let counters: Vec<u64> = parts
        .filter_map(|part| part["counter"]["bytes"].as_u64())
        .collect();
    anyhow::ensure!(counters.len() == 2, "{} counters: {text}", counters.len());
    Ok(counters.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_are_counted_together() {
        let rule = |bytes: u32| {
            format!(
                r#"{{"rule": {{"expr": [{{"match": {{}}}}, {{"counter": {{"packets": 1, "bytes": {bytes}}}}}]}}}}"#
            )
        };
        let text = format!(
            r#"{{"nftables": [{{"metainfo": {{}}}}, {}, {}]}}"#,
            rule(40),
            rule(2)
        );
        assert_eq!(sum(&text).unwrap(), 42);
        assert!(sum(r#"{"nftables": []}"#).is_err());
    }
}
