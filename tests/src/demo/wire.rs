//! One packet twice: as an eavesdropper has it, and as the tunnel has it.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::capture::{Inside, Stage, read};
use super::dissect;
use super::figures::PacketFigures;
use super::first_pod;
use super::progress::Progress;
use crate::lab::{Family, Lab, wait_until};
use crate::sniffer::{Sniffer, WireFrame, hexdump};
use crate::traffic::Ping;

/// Packets to capture: two stages of a request and its reply, and some to spare.
const COUNT: u32 = 8;
/// Seconds after which the capture ends by itself.
const SECONDS: u32 = 8;

/// The same packet on the wire and at both stages inside.
pub(super) struct OnePacket {
    wire: WireFrame,
    geneve: Inside,
    plain: Inside,
    sender: String,
}

/// Captures on east-1 while one of its pods pings a pod of the other cluster, and finds a request in both captures.
pub(super) fn one_packet(lab: &Lab, sniffer: &Sniffer) -> Result<OnePacket> {
    let (from, to) = (first_pod(lab, "east-1")?, first_pod(lab, "west-1")?);
    let node = lab.node(from.node());
    let file = lab.dir().join("demo.pcapng");
    let mut command = node.capture_command("both", COUNT, SECONDS, &file)?;
    let command = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut capture = command.spawn().context("failed to start hawser")?;
    let address = to.address(Family::V4).context("no address")?;
    let limit = Duration::from_secs(u64::from(SECONDS) + 4);
    let ended = wait_until("the capture has its packets", limit, || {
        Ping::new(address).canary(lab.canary()).run(from.netns())?;
        Ok(capture
            .try_wait()
            .context("failed to look at hawser capture")?
            .is_some())
    });
    capture.kill().ok();
    let output = capture
        .wait_with_output()
        .context("failed to wait for hawser capture")?;
    ended?;
    if !output.status.success() {
        bail!(
            "hawser capture: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let inside = read(&file)?;
    let wire = sniffer.recent_data()?;
    let is_request = |geneve: &Inside| dissect::is_echo_request(&geneve.bytes);
    for plain in inside
        .iter()
        .filter(|packet| packet.stage == Stage::Plain && is_request(packet))
    {
        let geneve = inside
            .iter()
            .find(|packet| packet.stage == Stage::Geneve && packet.message == plain.message);
        let frame = wire.iter().find(|frame| {
            (frame.receiver, frame.counter) == plain.message && frame.link == node.name()
        });
        if let (Some(geneve), Some(frame)) = (geneve, frame) {
            return Ok(OnePacket {
                wire: frame.clone(),
                geneve: geneve.clone(),
                plain: plain.clone(),
                sender: node.name().to_owned(),
            });
        }
    }
    bail!(
        "none of {} captured packets was found among {} messages on the wire",
        inside.len(),
        wire.len()
    )
}

impl OnePacket {
    /// Prints all three with their headers taken apart.
    pub(super) fn print<W: Write>(&self, progress: &mut Progress<'_, W>) -> Result<()> {
        let Self {
            wire,
            geneve,
            plain,
            sender,
        } = self;
        progress.text(&format!(
            "\nOne packet as it was on the wire (sniffed on {}'s link, {} bytes):",
            wire.link, wire.length
        ))?;
        for line in dissect::wire(&wire.bytes) {
            progress.text(&format!("  {line}"))?;
        }
        progress.text(&indented(&wire.bytes))?;
        progress.text(&format!(
            "\nThe same packet inside {sender}'s tunnel, before encryption (`hawser capture`: {}):",
            geneve.comment
        ))?;
        for line in dissect::geneve(&geneve.bytes) {
            progress.text(&format!("  {line}"))?;
        }
        progress.text(&indented(&geneve.bytes))?;
        progress.text("\nAnd the pod's own packet in it:")?;
        for line in dissect::plain(&plain.bytes) {
            progress.text(&format!("  {line}"))?;
        }
        progress.text(&indented(&plain.bytes))
    }

    /// How to find it again.
    pub(super) fn figures(&self) -> PacketFigures {
        PacketFigures {
            receiver: format!("0x{:08x}", self.wire.receiver),
            counter: self.wire.counter,
            wire_bytes: self.wire.length,
            geneve_bytes: self.geneve.bytes.len(),
            plain_bytes: self.plain.bytes.len(),
        }
    }
}

fn indented(bytes: &[u8]) -> String {
    hexdump(bytes)
        .lines()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}
