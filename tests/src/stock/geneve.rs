//! Geneve (RFC 8926) as the owner of a stock peer would write it, and as the tests check it.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use crate::io::Netns;

/// Geneve's UDP port.
pub const PORT: u16 = 6081;
/// Our header and option, in bytes.
pub const LENGTH: usize = 20;
/// The network that a lab uses.
pub const VNI: u32 = 1;

/// Class 0xff48, type 0x01 with the critical bit clear, two words of data.
const OPTION: [u8; 4] = [0xff, 0x48, 0x01, 0x02];

/// What came in a Geneve packet that is as docs/wire.md says, to the byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The cluster that its sender names.
    pub cluster: u16,
    /// The identity that its sender names.
    pub identity: u32,
    /// The pod packet.
    pub packet: Vec<u8>,
}

/// A Geneve packet around a pod packet, with these options.
///
/// # Panics
/// When the options are no whole words, or more than 63.
#[must_use]
pub fn encode(vni: u32, options: &[u8], packet: &[u8]) -> Vec<u8> {
    assert!(options.len().is_multiple_of(4) && options.len() <= 252);
    let words = u8::try_from(options.len() / 4).expect("checked above");
    let protocol: [u8; 2] = match packet.first().map(|first| first >> 4) {
        Some(6) => [0x86, 0xdd],
        _ => [0x08, 0x00],
    };
    let [_, a, b, c] = vni.to_be_bytes();
    let header = [words, 0, protocol[0], protocol[1], a, b, c, 0];
    [&header[..], options, packet].concat()
}

/// Takes a Geneve packet of a Hawser node apart, and fails for any byte that should be another.
///
/// # Errors
/// What is wrong with it.
pub fn open(datagram: &[u8]) -> Result<Opened> {
    ensure!(
        datagram.len() > LENGTH,
        "Geneve of {} bytes",
        datagram.len()
    );
    let (header, packet) = datagram.split_at(LENGTH);
    let protocol = match packet[0] >> 4 {
        4 => [0x08, 0x00],
        6 => [0x86, 0xdd],
        version => bail!("Geneve around IP version {version}"),
    };
    let [_, a, b, c] = VNI.to_be_bytes();
    let fixed = [3, 0, protocol[0], protocol[1], a, b, c, 0];
    ensure!(
        header[..8] == fixed,
        "Geneve header is {:02x?}, not {fixed:02x?}",
        &header[..8]
    );
    ensure!(
        header[8..12] == OPTION,
        "option is {:02x?}, not {OPTION:02x?}",
        &header[8..12]
    );
    // A stock peer has no kernel of ours that would finish a checksum.
    ensure!(
        header[14..16] == [0, 0],
        "flags are {:02x?}",
        &header[14..16]
    );
    Ok(Opened {
        cluster: u16::from_be_bytes([header[12], header[13]]),
        identity: u32::from_be_bytes([header[16], header[17], header[18], header[19]]),
        packet: packet.to_vec(),
    })
}

/// The UDP port of Geneve inside the tunnel of a stock peer.
#[derive(Debug)]
pub struct GenevePort {
    socket: UdpSocket,
    hawser: Ipv4Addr,
}

impl GenevePort {
    /// Opens the port on the overlay address `own`; the node at the other end is `hawser`.
    ///
    /// # Errors
    /// When the address is not there or the port is taken.
    pub fn open(netns: &Netns, own: Ipv4Addr, hawser: Ipv4Addr) -> Result<Self> {
        let socket = netns
            .run(|| UdpSocket::bind((own, PORT)))?
            .with_context(|| format!("failed to bind {own}:{PORT}"))?;
        setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))
            .context("failed to enlarge a receive buffer")?;
        Ok(Self { socket, hawser })
    }

    /// Sends a pod packet to the node in the plainest Geneve there is: no options.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send(&self, packet: &[u8]) -> Result<()> {
        self.send_bytes(&encode(VNI, &[], packet))
    }

    /// Sends any bytes to the node's Geneve port.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send_bytes(&self, datagram: &[u8]) -> Result<()> {
        let to = SocketAddrV4::new(self.hawser, PORT);
        self.socket
            .send_to(datagram, to)
            .with_context(|| format!("failed to send {} bytes to {to}", datagram.len()))?;
        Ok(())
    }

    /// The next packet of the node, checked to the byte; `None` when `timeout` passed.
    ///
    /// # Errors
    /// When it is not as it should be.
    pub fn receive(&self, timeout: Duration) -> Result<Option<Opened>> {
        self.socket
            .set_read_timeout(Some(timeout.max(Duration::from_millis(1))))
            .context("failed to set a timeout")?;
        let mut buffer = vec![0; 65_536];
        match self.socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                let SocketAddr::V4(from) = from else {
                    bail!("Geneve from {from}");
                };
                ensure!(
                    *from.ip() == self.hawser,
                    "Geneve from {from}, not from {}",
                    self.hawser
                );
                ensure!(
                    from.port() >= 0xc000,
                    "source port {}: must be 49152 or more",
                    from.port()
                );
                open(&buffer[..length]).map(Some)
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error).context("failed to receive Geneve"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/wire.md, "Golden bytes", from Geneve on.
    const GOLDEN: [u8; 24] = [
        0x03, 0, 0x08, 0, 0, 0, 1, 0, 0xff, 0x48, 1, 2, 0, 1, 0, 0, 0, 0, 1, 0, 0x45, 0xee, 0xee,
        0xee,
    ];

    #[test]
    fn the_golden_bytes_open_and_no_changed_byte_of_the_header_passes_as_them() {
        let opened = open(&GOLDEN).unwrap();
        assert_eq!((opened.cluster, opened.identity), (1, 256));
        assert_eq!(opened.packet, GOLDEN[LENGTH..]);
        for at in 0..LENGTH {
            let mut changed = GOLDEN;
            changed[at] ^= 1;
            assert!(
                open(&changed).map_or(true, |other| other != opened),
                "byte {at}"
            );
        }
    }

    #[test]
    fn a_packet_without_options_has_eight_bytes_of_header() {
        let packet = [0x60, 1, 2, 3];
        assert_eq!(
            encode(0xab_cdef, &[], &packet),
            [0, 0, 0x86, 0xdd, 0xab, 0xcd, 0xef, 0, 0x60, 1, 2, 3]
        );
        assert_eq!(encode(1, &GOLDEN[8..20], &GOLDEN[20..]), GOLDEN);
    }
}
