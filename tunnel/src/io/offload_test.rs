//! Tries the kernel's offloads before they are relied on: kernels were known to grant one and refuse or garble it in
//! use. What cannot be tried (a device that is down, no loopback) is believed, and found out in use.

use crate::inbound::GATEWAY_MAC;
use crate::io::tap::Tap;
use crate::offload::{Offload, Offloads};
use crate::segment::ETHERNET_LEN;
use crate::virtio::Header;
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;
use tracing::warn;

/// Bytes of payload of each packet that is sent, and how many.
const SIZE: usize = 100;
const COUNT: usize = 3;

/// Asks the TAP for its offloads and tries the others.
pub fn run(tap: &Tap, offloads: &Offloads) {
    tap.set_offloads(offloads);
    for (offload, header, frame) in [
        (Offload::JoinTcp, tcp_header(), tcp_frame()),
        (Offload::JoinUdp, udp_header(), udp_frame()),
    ] {
        if offloads.uses(offload)
            && let Err(error) = tap.write(header, std::iter::once(&frame[..]))
            && error.raw_os_error() == Some(libc::EINVAL)
        {
            refuse(offloads, offload, &error);
        }
    }
    if !(offloads.uses(Offload::UdpGso) || offloads.uses(Offload::UdpGro)) {
        return;
    }
    match send_to_itself(offloads) {
        Ok(true) => {}
        Ok(false) => {
            let garbled = io::Error::other("what arrived is not what was sent");
            refuse(offloads, Offload::UdpGso, &garbled);
            refuse(offloads, Offload::UdpGro, &garbled);
        }
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIO)) => {
            refuse(offloads, Offload::UdpGso, &error);
        }
        // No loopback, or it is down.
        Err(_) => {}
    }
}

fn refuse(offloads: &Offloads, offload: Offload, error: &io::Error) {
    if offloads.refuse(offload) {
        warn!(%offload, %error, "refused when it was tried: not used");
    }
}

/// Sends datagrams in one call over the loopback, and looks at what arrives.
fn send_to_itself(offloads: &Offloads) -> io::Result<bool> {
    let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    let (sender, receiver) = (bind()?, bind()?);
    receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
    let (sending, receiving) = (
        UdpSocketState::new(UdpSockRef::from(&sender))?,
        UdpSocketState::new(UdpSockRef::from(&receiver))?,
    );
    receiver.set_nonblocking(false)?;
    if !offloads.uses(Offload::UdpGro) {
        let _ = setsockopt(&receiver, sockopt::UdpGroSegment, &false);
    }
    let contents: Vec<u8> = (0..SIZE * COUNT)
        .map(|at| u8::try_from(at / SIZE * 64 + at % 61).unwrap_or_default())
        .collect();
    let segmented = offloads.uses(Offload::UdpGso) && sending.max_gso_segments() >= COUNT;
    for chunk in contents.chunks(if segmented { SIZE * COUNT } else { SIZE }) {
        let transmit = Transmit {
            destination: receiver.local_addr()?,
            ecn: None,
            contents: chunk,
            segment_size: segmented.then_some(SIZE),
            src_ip: None,
        };
        sending.try_send(UdpSockRef::from(&sender), &transmit)?;
    }
    let mut arrived = Vec::new();
    while arrived.len() < contents.len() {
        let mut room = [0; 4 * SIZE * COUNT];
        let mut meta = [RecvMeta::default()];
        let mut slices = [IoSliceMut::new(&mut room)];
        match receiving.recv(UdpSockRef::from(&receiver), &mut slices, &mut meta) {
            Ok(_) => arrived.extend_from_slice(&room[..meta[0].len]),
            // Nothing more comes: some of it was swallowed.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        if meta[0].stride != SIZE {
            return Ok(false);
        }
    }
    Ok(arrived == contents)
}

/// A super-frame from one address for documentation to another, for nobody: the kernel takes it and drops it.
fn frame(protocol: u8, transport: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET_LEN + 20 + transport.len() + SIZE * COUNT);
    frame.extend_from_slice(&GATEWAY_MAC);
    frame.extend_from_slice(&GATEWAY_MAC);
    frame.extend_from_slice(&[0x08, 0x00]);
    let length = u16::try_from(20 + transport.len() + SIZE * COUNT).unwrap_or_default();
    let [high, low] = length.to_be_bytes();
    let mut ip = [
        0x45, 0, high, low, 0, 0, 0x40, 0, 1, protocol, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2,
    ];
    let sum = !crate::ip::checksum::fold(crate::ip::checksum::sum(&ip));
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend_from_slice(&ip);
    frame.extend_from_slice(transport);
    frame.resize(frame.len() + SIZE * COUNT, 0);
    frame
}

fn header(gso_type: u8, transport: u16, csum_offset: u16) -> Header {
    Header {
        flags: Header::NEEDS_CSUM,
        gso_type,
        hdr_len: 34 + transport,
        gso_size: 100,
        csum_start: 34,
        csum_offset,
    }
}

fn tcp_header() -> Header {
    header(1, 20, 16)
}

fn udp_header() -> Header {
    header(5, 8, 6)
}

fn tcp_frame() -> Vec<u8> {
    let mut tcp = [0; 20];
    // Data offset and ACK.
    tcp[12] = 0x50;
    tcp[13] = 0x10;
    frame(crate::ip::protocol::TCP, &tcp)
}

fn udp_frame() -> Vec<u8> {
    let [high, low] = u16::try_from(8 + SIZE * COUNT)
        .unwrap_or_default()
        .to_be_bytes();
    frame(crate::ip::protocol::UDP, &[0, 9, 0, 9, high, low, 0, 0])
}
