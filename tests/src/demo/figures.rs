//! The figures of a demo, for `--json`.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;

use super::progress::Progress;
use crate::lab::Pair;
use crate::sniffer::Report;

/// Everything that the demo measured.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Whether all of it was as it should be.
    pub passed: bool,
    /// What was not.
    pub problems: Vec<String>,
    /// How long the demo took, in seconds.
    pub seconds: f64,
    /// Pings between pods of different nodes.
    pub pings: Vec<Reach>,
    /// HTTP fetches between the clusters.
    pub fetches: Vec<Reach>,
    /// From a pod's manifest to its first answer from the other cluster, in milliseconds, each time.
    pub followed: Vec<f64>,
    /// Packets between all pods while nobody was in control.
    pub alone: Option<Alone>,
    /// iperf3 between the clusters.
    pub transfers: Vec<Transfer>,
    /// What was on the underlay.
    pub sniffers: Report,
    /// The packet that was shown.
    pub packet: Option<PacketFigures>,
}

/// Whether one pod reached another.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reach {
    /// Who tried to reach whom.
    #[serde(flatten)]
    pub pair: Pair,
    /// How long it took, in milliseconds; none when it failed.
    pub milliseconds: Option<f64>,
    /// Why it failed.
    pub error: Option<String>,
}

/// One transfer, and what was done to the agents meanwhile.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Transfer {
    /// Who sent to whom.
    #[serde(flatten)]
    pub pair: Pair,
    /// What happened during it.
    pub during: String,
    /// Received bits per second.
    pub bits_per_second: f64,
    /// TCP segments sent again.
    pub retransmits: u64,
    /// The slowest second, in bits per second.
    pub slowest: f64,
}

/// Packets that went while every hub and every agent was dead.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Alone {
    /// So many were sent.
    pub sent: u64,
    /// So many did not arrive.
    pub lost: u64,
}

/// How the packet that was shown is found in both captures.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PacketFigures {
    /// WireGuard's receiver index.
    pub receiver: String,
    /// WireGuard's counter.
    pub counter: u64,
    /// Bytes of the frame on the wire.
    pub wire_bytes: usize,
    /// Bytes of the overlay packet inside.
    pub geneve_bytes: usize,
    /// Bytes of the pod packet inside of that.
    pub plain_bytes: usize,
}

impl Figures {
    /// Prints what the sniffers saw.
    pub(super) fn print_sniffers<W: Write>(&self, progress: &mut Progress<'_, W>) -> Result<()> {
        progress.text(
            "\nWhat the sniffers saw on the underlay, from before the start of the first tunnel:",
        )?;
        for (kind, count) in &self.sniffers.by_kind {
            progress.text(&format!("  {count:>9}  {}", kind.name()))?;
        }
        let Report {
            frames,
            foreign,
            plaintext,
            lost,
            leaks,
            ..
        } = &self.sniffers;
        progress.text(&format!(
            "  {frames:>9}  frames in all; plaintext {plaintext}, foreign {foreign}, missed {lost}"
        ))?;
        for leak in leaks.iter().take(3) {
            progress.text(&format!(
                "  leak on {}: {} ({})\n{}",
                leak.link, leak.summary, leak.why, leak.hex
            ))?;
        }
        Ok(())
    }
}
