//! `hawser capture`: what is inside the tunnel, as pcapng.
//!
//! The data plane sends the file as it comes. Only whole blocks of it are written, so that the
//! file is sound however the capture ends.

use super::{CaptureArgs, Outcome};
use clap::ValueEnum;
use hawser_tunnel::control::{CaptureRequest, Role};
use hawser_tunnel::io::control_client::ControlClient;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Which packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Stage {
    /// Overlay packets: IPv4, UDP, Geneve, pod packet.
    Geneve,
    /// Pod packets as frames.
    Plain,
    /// Both, as two interfaces of the file.
    Both,
}

/// pcapng's enhanced packet block (draft-ietf-opsawg-pcapng, section 4.3).
const ENHANCED_PACKET: u32 = 6;
/// Type, length, and the length again at the end.
const SHORTEST_BLOCK: usize = 12;
/// Longer than any packet with its options.
const LONGEST_BLOCK: usize = 1 << 20;

/// Asks for a capture and writes it until enough came, time is up, or the data plane hangs up.
pub(super) fn run(args: &CaptureArgs) -> Outcome {
    let request = CaptureRequest {
        geneve: args.stage != Stage::Plain,
        plain: args.stage != Stage::Geneve,
        peer: args.peer,
        snap_length: args.snap_length,
    };
    let client = ControlClient::connect(&args.socket, Role::Operator)?;
    let socket = client.capture(request)?;
    let deadline = args
        .seconds
        .map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let input = Timed { socket, deadline };
    let done = if args.write == Path::new("-") {
        copy(input, io::stdout().lock(), args.count)
    } else {
        let file = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&args.write);
        let file =
            file.map_err(|error| format!("{}: {error}; correct the path", args.write.display()))?;
        copy(input, file, args.count)
    };
    let packets = done?;
    // Whoever asked for a number wants to know when it was not reached.
    if args.count.is_some_and(|count| packets < count) {
        writeln!(io::stderr(), "captured {packets} packets")?;
    }
    Ok(())
}

/// A socket that reads as ended when time is up.
struct Timed {
    socket: UnixStream,
    deadline: Option<Instant>,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(0);
            }
            self.socket.set_read_timeout(Some(left))?;
        }
        match self.socket.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            read => read,
        }
    }
}

/// Copies whole blocks, at most `count` packets; returns how many packets there were.
fn copy(mut input: impl Read, mut output: impl Write, count: Option<u64>) -> io::Result<u64> {
    let mut packets = 0;
    while count.is_none_or(|count| packets < count) {
        let Some(block) = read_block(&mut input)? else {
            break;
        };
        output.write_all(&block)?;
        output.flush()?;
        packets += u64::from(word(&block, 0) == ENHANCED_PACKET);
    }
    Ok(packets)
}

/// Reads one block; `None` at the end, also in the middle of a block.
fn read_block(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut block = vec![0; 8];
    if !fill(input, &mut block)? {
        return Ok(None);
    }
    let length = usize::try_from(word(&block, 4)).unwrap_or(usize::MAX);
    if !(SHORTEST_BLOCK..=LONGEST_BLOCK).contains(&length) || !length.is_multiple_of(4) {
        let text = format!("hawser-tunnel sent a block of {length} bytes, which is no pcapng");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    block.resize(length, 0);
    Ok(fill(input, &mut block[8..])?.then_some(block))
}

fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// A number of the file. Writer and reader are on one machine, so its byte order is ours.
fn word(block: &[u8], at: usize) -> u32 {
    block
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(SHORTEST_BLOCK + body.len())
            .unwrap()
            .to_ne_bytes();
        [&kind.to_ne_bytes()[..], &length, body, &length].concat()
    }

    #[test]
    fn whole_blocks_and_no_more_packets_than_asked_for() {
        let head = block(0x0a0d_0d0a, &[0; 16]);
        let packet = block(ENHANCED_PACKET, &[7; 32]);
        let stream = [head.clone(), packet.clone(), packet.clone()].concat();
        let copied = |count, length: usize| {
            let mut out = Vec::new();
            (copy(&stream[..length], &mut out, count).unwrap(), out)
        };
        assert_eq!(copied(None, stream.len()), (2, stream.clone()));
        assert_eq!(
            copied(Some(1), stream.len()),
            (1, [head.clone(), packet.clone()].concat())
        );
        assert_eq!(
            copied(None, stream.len() - 1),
            (1, [head.clone(), packet].concat())
        );
        assert_eq!(copied(None, head.len() + 3), (0, head));
        let not_pcapng = copy(&[0xff; 64][..], Vec::new(), None).unwrap_err();
        assert_eq!(not_pcapng.kind(), io::ErrorKind::InvalidData);
    }
}
