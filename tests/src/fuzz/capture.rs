//! What a capture writes, read again by a reader of pcapng.

use hawser_tunnel::capture::{Captured, Direction, Stage};
use hawser_tunnel::control::CaptureRequest;
use hawser_tunnel::io::capture_stream::PcapNg;
use hawser_tunnel::wireguard::data_header;
use pcap_file::DataLink;
use pcap_file::pcapng::{Block, PcapNgReader};

use super::source::Source;
use super::world::id;

/// Target: any packets make a file that gives them back, each under the interface of its stage.
pub(super) fn file(input: &[u8]) {
    let mut source = Source::new(input);
    let request = CaptureRequest {
        geneve: source.once_in(2),
        plain: source.once_in(2),
        peer: None,
        snap_length: source.any(),
    };
    let mut bytes = Vec::new();
    let mut file = PcapNg::new(&mut bytes, request).expect("a vector takes everything");
    let mut expected = Vec::new();
    for _ in 0..16 {
        if source.is_empty() {
            break;
        }
        let captured = captured(&mut source, request.snap_length);
        file.write(&captured).expect("a vector takes everything");
        let asked = match captured.stage {
            Stage::Geneve => request.geneve,
            Stage::Plain => request.plain,
        };
        if asked {
            expected.push(captured);
        }
    }
    drop(file);
    read_again(&bytes, request, &expected);
}

fn captured(source: &mut Source<'_>, snap_length: u16) -> Captured {
    let message = source.array::<32>();
    let bytes = source.bytes(300);
    Captured {
        stage: source.pick(&[Stage::Geneve, Stage::Plain]),
        direction: source.pick(&[Direction::Sent, Direction::Received]),
        peer: source.pick(&[id("1/1"), id("2047/65534")]),
        message: data_header(&message),
        length: bytes.len(),
        bytes: bytes[..bytes.len().min(snap_length.into())].to_vec(),
    }
}

fn read_again(bytes: &[u8], request: CaptureRequest, expected: &[Captured]) {
    let mut reader = PcapNgReader::new(bytes).expect("a pcapng file");
    let mut packets = expected.iter();
    let mut links = Vec::new();
    while let Some(block) = reader.next_block() {
        match block.expect("a block of a pcapng file") {
            Block::InterfaceDescription(interface) => {
                assert_eq!(interface.snaplen, u32::from(request.snap_length));
                links.push(interface.linktype);
            }
            Block::EnhancedPacket(packet) => {
                let captured = packets.next().expect("a packet that was written");
                assert_eq!(packet.data.as_ref(), captured.bytes);
                assert_eq!(usize::try_from(packet.original_len), Ok(captured.length));
                let link = match captured.stage {
                    Stage::Geneve => DataLink::IPV4,
                    Stage::Plain => DataLink::ETHERNET,
                };
                let interface = usize::try_from(packet.interface_id).expect("a small number");
                assert_eq!(links[interface], link, "the interface of its stage");
                let options = format!("{:?}", packet.options);
                let counter = format!(
                    "counter={} peer={}",
                    captured.message.counter, captured.peer
                );
                assert!(options.contains(&counter), "{options}");
            }
            other @ (Block::SectionHeader(_)
            | Block::Packet(_)
            | Block::SimplePacket(_)
            | Block::NameResolution(_)
            | Block::InterfaceStatistics(_)
            | Block::SystemdJournalExport(_)
            | Block::Unknown(_)) => panic!("{other:?} was never written"),
        }
    }
    assert!(packets.next().is_none(), "a packet is missing");
    assert_eq!(
        links.len(),
        usize::from(request.geneve) + usize::from(request.plain)
    );
}
