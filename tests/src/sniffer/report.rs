//! What a sniffer has seen.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::frame::{Decoded, hexdump};
use super::judge::{Kind, Verdict};
use crate::io::RingFrame;
use crate::lab::Family;

/// Frames that are kept as evidence. The first ones show how it began.
const LEAKS: usize = 32;
/// Bytes shown of each.
const SHOWN: usize = 256;

/// What a sniffer has seen since it was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Frames by what they are. A frame from one node to another passes two links and counts twice.
    pub by_kind: BTreeMap<Kind, u64>,
    /// All frames.
    pub frames: u64,
    /// Frames that are not on the allow-list.
    pub foreign: u64,
    /// Frames with a known payload or a mesh address in clear.
    pub plaintext: u64,
    /// The same by the family of their outermost IP header.
    pub plaintext_by_family: BTreeMap<Family, u64>,
    /// Frames that the kernel had no room for: nothing is known of them.
    pub lost: u64,
    /// The first frames that were foreign or plaintext.
    pub leaks: Vec<Leak>,
}

/// One frame that should not have been there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Leak {
    /// The link.
    pub link: String,
    /// What is wrong with it.
    pub why: String,
    /// Its headers in one line.
    pub summary: String,
    /// A known payload was in it.
    pub canary: bool,
    /// A mesh address was in its IP header.
    pub mesh: bool,
    /// Its first bytes.
    pub hex: String,
}

impl Report {
    pub(super) fn count(
        &mut self,
        link: &str,
        frame: &RingFrame<'_>,
        decoded: &Decoded,
        verdict: &Verdict,
        canary: bool,
    ) {
        self.frames += 1;
        *self.by_kind.entry(verdict.kind).or_default() += 1;
        let foreign = verdict.kind == Kind::Foreign;
        let plaintext = canary || verdict.mesh;
        self.foreign += u64::from(foreign);
        self.plaintext += u64::from(plaintext);
        if let (true, Some((from, _))) = (plaintext, decoded.addresses) {
            *self
                .plaintext_by_family
                .entry(Family::of(from))
                .or_default() += 1;
        }
        if (foreign || plaintext) && self.leaks.len() < LEAKS {
            self.leaks.push(Leak {
                link: link.to_owned(),
                why: if canary {
                    "a known payload in clear"
                } else {
                    verdict.why
                }
                .to_owned(),
                summary: decoded.summary(),
                canary,
                mesh: verdict.mesh,
                hex: hexdump(&frame.bytes[..frame.bytes.len().min(SHOWN)]),
            });
        }
    }

    /// How many frames of one kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> u64 {
        self.by_kind.get(&kind).copied().unwrap_or_default()
    }

    /// Fails unless the underlay was clean and nothing was missed.
    ///
    /// # Errors
    /// One line with the numbers and the first offender.
    pub fn check(&self) -> Result<()> {
        if self.foreign > 0 || self.plaintext > 0 {
            let first = self.leaks.first();
            let first = first
                .map(|leak| format!("{}: {} ({})", leak.link, leak.summary, leak.why))
                .unwrap_or_default();
            bail!(
                "sniffers saw {} plaintext and {} foreign frames, the first on {first}",
                self.plaintext,
                self.foreign
            );
        }
        if self.lost > 0 {
            bail!(
                "sniffer lost frames: {} of {}",
                self.lost,
                self.lost + self.frames
            );
        }
        Ok(())
    }
}
