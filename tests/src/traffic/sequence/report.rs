//! What became of a load.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;

use super::super::latency::Latency;
use super::super::tally::PairReport;
use crate::lab::Pair;

/// What became of a load.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadReport {
    /// Packets that the kernel took from the sender.
    pub sent: u64,
    /// Different packets that arrived.
    pub received: u64,
    /// Packets that never arrived.
    pub lost: u64,
    /// Packets that arrived again.
    pub duplicated: u64,
    /// Packets that arrived after a later one of their pair.
    pub reordered: u64,
    /// Packets that arrived with another content, or that nobody sent.
    pub corrupted: u64,
    /// What the kernel said to the sender, and how often. Such packets are not counted as sent.
    pub send_errors: BTreeMap<String, u64>,
    /// Packets that came to a receiver's socket while it was full: the lab's fault, not the network's.
    pub receiver_drops: u64,
    /// The longest time that a pair had no arrival.
    pub longest_gap: Duration,
    /// One-way delay.
    pub latency: Latency,
    /// The same by pair.
    pub pairs: Vec<PairReport>,
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} packets, {} lost, {} twice, {} reordered, longest gap {} ms",
            self.sent,
            self.lost,
            self.duplicated,
            self.reordered,
            self.longest_gap.as_millis()
        )
    }
}

impl LoadReport {
    /// Fails unless every packet arrived once and unchanged.
    ///
    /// # Errors
    /// One line with the numbers.
    pub fn check(&self) -> Result<()> {
        if self.sent == 0 {
            bail!("load: nothing was sent; {:?}", self.send_errors);
        }
        let silent = self.pairs.iter().filter(|pair| pair.sent == 0).count();
        if self.lost + self.duplicated + self.corrupted > 0
            || !self.send_errors.is_empty()
            || silent > 0
        {
            let worst = self.pairs.iter().max_by_key(|pair| pair.lost);
            let worst = worst.map(|report| {
                let Pair { from, to, family } = &report.pair;
                format!(
                    "{from} > {to} {family}: {} of {} lost",
                    report.lost, report.sent
                )
            });
            bail!(
                "load: of {} sent {} were lost ({} of them at a full receiver), {} duplicated, {} corrupted; \
                 {silent} pairs sent nothing; send errors {:?}; worst {}",
                self.sent,
                self.lost,
                self.receiver_drops,
                self.duplicated,
                self.corrupted,
                self.send_errors,
                worst.unwrap_or_default()
            );
        }
        Ok(())
    }
}
