//! What a capture sends: pcapng with one interface a stage (draft-ietf-opsawg-pcapng).
//!
//! Each packet has a comment `wireguard receiver=0x… counter=…`, by which the WireGuard message that
//! carries it is found in a capture of the underlay.

use crate::capture::{Capture, Captured, Direction, Stage, Wants};
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

/// How long a client may take nothing before it is hung up on.
const STUCK: Duration = Duration::from_secs(5);

/// How soon a client that hung up is noticed, whatever passes.
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

fn block(captured: &Captured, interface_id: u32) -> EnhancedPacketBlock<'_> {
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
        interface_id,
        timestamp: clock::since_epoch(),
        original_len: u32::try_from(captured.length).unwrap_or(u32::MAX),
        data: Cow::Borrowed(&captured.bytes),
        options: vec![
            EnhancedPacketOption::Comment(Cow::Owned(comment)),
            EnhancedPacketOption::Flags(way),
        ],
    }
}

/// Writes what was captured as a pcapng file, as it comes.
pub struct PcapNg<W: Write> {
    writer: PcapNgWriter<W>,
    interfaces: Vec<Stage>,
}

impl<W: Write> std::fmt::Debug for PcapNg<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PcapNg")
            .field("interfaces", &self.interfaces)
            .finish_non_exhaustive()
    }
}

impl<W: Write> PcapNg<W> {
    /// Writes the head of the file: one interface for each stage that was asked for, since tcpdump
    /// reads only files of one link type.
    ///
    /// # Errors
    /// When `out` takes nothing more.
    pub fn new(out: W, request: CaptureRequest) -> io::Result<Self> {
        let stages = [
            (request.geneve, Stage::Geneve, "geneve", DataLink::IPV4),
            (request.plain, Stage::Plain, "plain", DataLink::ETHERNET),
        ];
        let mut writer = PcapNgWriter::new(out).map_err(broken)?;
        let mut interfaces = Vec::new();
        for (_, stage, name, linktype) in stages.into_iter().filter(|(asked, ..)| *asked) {
            writer
                .write_pcapng_block(interface(name, linktype, request.snap_length))
                .map_err(broken)?;
            interfaces.push(stage);
        }
        writer.get_mut().flush()?;
        Ok(Self { writer, interfaces })
    }

    /// Writes one packet; one of a stage that was not asked for is passed over.
    ///
    /// # Errors
    /// When the file takes nothing more.
    pub fn write(&mut self, captured: &Captured) -> io::Result<()> {
        let at = self
            .interfaces
            .iter()
            .position(|&stage| stage == captured.stage);
        let Some(id) = at.and_then(|at| u32::try_from(at).ok()) else {
            return Ok(());
        };
        let written = self.writer.write_pcapng_block(block(captured, id));
        written.map(drop).map_err(broken)
    }
}

/// Streams what passes until the client hangs up. Returns how many packets it was too slow for.
pub fn run(capture: &Capture, request: CaptureRequest, socket: &UnixStream) -> io::Result<usize> {
    // A reader that takes nothing any more does not keep its place.
    socket.set_write_timeout(Some(STUCK))?;
    socket.set_read_timeout(Some(Duration::from_millis(1)))?;
    let mut file = PcapNg::new(socket, request)?;
    let subscription = capture.subscribe(Wants {
        geneve: request.geneve,
        plain: request.plain,
        peer: request.peer,
        snap_length: request.snap_length.into(),
    });
    let mut looked = clock::now();
    loop {
        match subscription.packets.recv_timeout(HANG_UP) {
            Ok(captured) => file.write(&captured)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(subscription.lost()),
        }
        let now = clock::now();
        if now.saturating_duration_since(looked) >= HANG_UP {
            looked = now;
            if hung_up(socket)? {
                return Ok(subscription.lost());
            }
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
