//! What a capture sends: pcapng with one interface a stage (draft-ietf-opsawg-pcapng).
//!
//! Each packet has a comment `wireguard receiver=0x… counter=…`, by which the WireGuard message that
//! carries it is found in a capture of the underlay.

use crate::capture::{Capture, Captured, Direction, Stage};
use crate::control::CaptureRequest;
use crate::io::clock;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};
use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

/// How soon a client that hung up is noticed while nothing passes.
const HANG_UP: Duration = Duration::from_millis(200);

/// The if_tsresol of nanoseconds.
const NANOSECONDS: u8 = 9;

fn broken(error: PcapError) -> io::Error {
    if let PcapError::IoError(error) = error {
        return error;
    }
    io::Error::other(error)
}

fn interface(
    name: &'static str,
    linktype: DataLink,
    snap_length: u16,
) -> InterfaceDescriptionBlock<'static> {
    InterfaceDescriptionBlock {
        linktype,
        snaplen: snap_length.into(),
        options: vec![
            InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
            InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
        ],
    }
}

fn block<'a>(captured: &'a Captured, snap_length: u16) -> EnhancedPacketBlock<'a> {
    let kept = captured.bytes.len().min(snap_length.into());
    let way = match captured.direction {
        Direction::Received => 1,
        Direction::Sent => 2,
    };
    let message = captured.message;
    let comment = format!(
        "wireguard receiver={:#010x} counter={} peer={}",
        message.receiver, message.counter, captured.peer
    );
    EnhancedPacketBlock {
        interface_id: match captured.stage {
            Stage::Geneve => 0,
            Stage::Plain => 1,
        },
        timestamp: clock::since_epoch(),
        original_len: u32::try_from(captured.bytes.len()).unwrap_or(u32::MAX),
        data: Cow::Borrowed(&captured.bytes[..kept]),
        options: vec![
            EnhancedPacketOption::Comment(Cow::Owned(comment)),
            EnhancedPacketOption::Flags(way),
        ],
    }
}

/// Streams what passes until the client hangs up. Returns how many packets it was too slow for.
pub fn run(capture: &Capture, request: CaptureRequest, socket: &UnixStream) -> io::Result<usize> {
    let subscription = capture.subscribe();
    let mut writer = PcapNgWriter::new(socket).map_err(broken)?;
    writer
        .write_pcapng_block(interface("geneve", DataLink::IPV4, request.snap_length))
        .map_err(broken)?;
    writer
        .write_pcapng_block(interface("plain", DataLink::ETHERNET, request.snap_length))
        .map_err(broken)?;
    writer.get_mut().flush()?;
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(Duration::from_millis(1)))?;
    loop {
        match subscription.packets.recv_timeout(HANG_UP) {
            Ok(captured) => {
                let stage = match captured.stage {
                    Stage::Geneve => request.geneve,
                    Stage::Plain => request.plain,
                };
                if stage && request.peer.is_none_or(|peer| peer == captured.peer) {
                    writer
                        .write_pcapng_block(block(&captured, request.snap_length))
                        .map_err(broken)?;
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                if hung_up(socket)? {
                    return Ok(subscription.lost());
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(subscription.lost()),
        }
    }
}

fn hung_up(mut socket: &UnixStream) -> io::Result<bool> {
    match socket.read(&mut [0]) {
        Ok(count) => Ok(count == 0),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
