//! Reads what `hawser capture` wrote.

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, Result};
use pcap_file::DataLink;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};

/// Where in the tunnel a packet was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The overlay packet that WireGuard encrypts.
    Geneve,
    /// The pod's packet, as a frame.
    Plain,
}

/// A packet inside of the tunnel.
#[derive(Clone, Debug)]
pub(super) struct Inside {
    pub(super) stage: Stage,
    /// Receiver index and counter of the WireGuard message that carries it.
    pub(super) message: (u32, u64),
    pub(super) comment: String,
    pub(super) bytes: Vec<u8>,
}

/// Every packet of a capture that says which WireGuard message carries it.
pub(super) fn read(path: &Path) -> Result<Vec<Inside>> {
    let file = File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
    let mut reader = PcapNgReader::new(file).context("`hawser capture` wrote no pcapng")?;
    let (mut links, mut packets) = (Vec::new(), Vec::new());
    while let Some(block) = reader.next_block() {
        let block = block.context("`hawser capture` wrote a broken pcapng")?;
        if let Block::InterfaceDescription(interface) = &block {
            links.push(interface.linktype);
        }
        let Block::EnhancedPacket(packet) = block else {
            continue;
        };
        let link = usize::try_from(packet.interface_id)
            .ok()
            .and_then(|index| links.get(index));
        let stage = if link == Some(&DataLink::ETHERNET) {
            Stage::Plain
        } else {
            Stage::Geneve
        };
        let mut comments = packet.options.iter().filter_map(|option| match option {
            EnhancedPacketOption::Comment(text) => Some(text),
            EnhancedPacketOption::Flags(_)
            | EnhancedPacketOption::Hash(_)
            | EnhancedPacketOption::DropCount(_)
            | EnhancedPacketOption::CustomBinary(_)
            | EnhancedPacketOption::CustomUtf8(_)
            | EnhancedPacketOption::Unknown(_) => None,
        });
        if let Some((message, comment)) =
            comments.find_map(|text| Some((message(text)?, text.to_string())))
        {
            packets.push(Inside {
                stage,
                message,
                comment,
                bytes: packet.data.into_owned(),
            });
        }
    }
    Ok(packets)
}

/// `wireguard receiver=0x12345678 counter=9`, with anything around it.
fn message(comment: &str) -> Option<(u32, u64)> {
    let value = |key: &str| {
        comment
            .split_whitespace()
            .find_map(|word| word.strip_prefix(key))
    };
    let receiver = u32::from_str_radix(value("receiver=0x")?, 16).ok()?;
    Some((receiver, value("counter=")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_message_is_read_from_the_comment() {
        let comment = "sent to 2/1; wireguard receiver=0x00ab12cd counter=77";
        assert_eq!(super::message(comment), Some((0x00ab_12cd, 77)));
        assert_eq!(super::message("wireguard receiver=0x1"), None);
    }
}
