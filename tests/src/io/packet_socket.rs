//! A raw socket on one device: whole Ethernet frames out and in.

use std::io::{ErrorKind, Read as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use super::Netns;
use super::packet_ring::set_option;

/// Room for super-frames that nobody has looked at yet, in bytes.
const BUFFER: usize = 64 << 20;

/// Every protocol, as `socket(2)` wants it for AF_PACKET: in network byte order.
pub(super) const ETH_P_ALL: u16 = 0x0003_u16.to_be();

/// A raw socket bound to one device of one namespace.
#[derive(Debug)]
pub struct PacketSocket {
    socket: Socket,
}

impl PacketSocket {
    /// Opens a socket on `device` inside `netns`.
    ///
    /// # Errors
    /// When the device does not exist, or without root.
    pub fn open(netns: &Netns, device: &str) -> Result<Self> {
        let socket = netns.run(|| bound_socket(device))??;
        Ok(Self { socket })
    }

    /// From now on each frame has a virtio-net header in front, both ways: what is sent may be a super-frame, and what
    /// comes is seen as the kernel carries it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn with_virtio_headers(self) -> Result<Self> {
        set_option(&self.socket, libc::PACKET_VNET_HDR, &1_i32)
            .context("failed to ask for virtio-net headers")?;
        setsockopt(&self.socket, sockopt::RcvBufForce, &BUFFER)
            .context("failed to enlarge a receive buffer")?;
        Ok(self)
    }

    /// Sends one Ethernet frame as it is.
    ///
    /// # Errors
    /// When the kernel refuses it: device down, frame longer than the MTU.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.socket.send(frame).context("failed to send a frame")?;
        Ok(())
    }

    /// Waits for the next frame, of either direction, and copies it into `buffer`; `None` when `timeout` passed.
    ///
    /// # Errors
    /// When the device went away.
    pub fn receive(&self, buffer: &mut [u8], timeout: Duration) -> Result<Option<usize>> {
        let end = Instant::now() + timeout;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            // A timeout of zero would mean "for ever".
            self.socket
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))
                .context("failed to set timeout")?;
            match (&self.socket).read(buffer) {
                Ok(length) => return Ok(Some(length)),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error).context("failed to receive a frame"),
            }
        }
    }
}

/// A packet socket bound to `device`, in the namespace of the calling thread.
///
/// It is made with protocol 0 and bound afterwards, so that it never holds a frame of another device.
pub(super) fn bound_socket(device: &str) -> Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))
        .context("failed to make a packet socket (root is needed)")?;
    bind(&socket, device)?;
    Ok(socket)
}

/// Binds a packet socket to `device` for every protocol.
pub(super) fn bind(socket: &Socket, device: &str) -> Result<()> {
    let index = if_nametoindex(device).with_context(|| format!("no device {device}"))?;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the address types that `sockaddr_storage` is made to hold, and zeroed is valid.
    #[expect(unsafe_code, reason = "socket2 has no type for packet addresses")]
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET
        .try_into()
        .context("AF_PACKET does not fit")?;
    link.sll_protocol = ETH_P_ALL;
    link.sll_ifindex = index.try_into().context("device index does not fit")?;
    let length = size_of::<libc::sockaddr_ll>()
        .try_into()
        .context("address length does not fit")?;
    // SAFETY: the storage holds a whole `sockaddr_ll`, written just above.
    #[expect(unsafe_code, reason = "socket2 has no type for packet addresses")]
    let address = unsafe { SockAddr::new(storage, length) };
    socket
        .bind(&address)
        .with_context(|| format!("failed to bind a packet socket to {device}"))
}
