//! One socket over which many sizes are tried, for each protocol.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use super::{connect, unspecified};
use crate::io::Netns;

/// Type, code, checksum, identifier and sequence number of an ICMP echo.
const ICMP_HEADER: usize = 8;

/// Datagrams to an echo server.
#[derive(Debug)]
pub struct UdpSession {
    socket: UdpSocket,
    to: SocketAddr,
    payload: Vec<u8>,
    buffer: Vec<u8>,
}

impl UdpSession {
    /// Opens a socket inside `netns` towards `to`.
    ///
    /// # Errors
    /// When the kernel gives none.
    pub fn open(
        netns: &Netns,
        to: SocketAddr,
        canary: [u8; 16],
        timeout: Duration,
    ) -> Result<Self> {
        let local = SocketAddr::new(unspecified(to), 0);
        let socket = netns
            .run(|| UdpSocket::bind(local))?
            .with_context(|| format!("failed to bind {local}"))?;
        socket
            .connect(to)
            .with_context(|| format!("failed to connect to {to}"))?;
        socket
            .set_read_timeout(Some(timeout))
            .context("failed to set a timeout")?;
        let payload = canary.iter().copied().cycle().take(65_536).collect();
        Ok(Self {
            socket,
            to,
            payload,
            buffer: vec![0; 65_536],
        })
    }

    /// Sends a datagram of `size` bytes and waits for the same one back.
    ///
    /// # Errors
    /// Nothing or something else came back.
    pub fn exchange(&mut self, size: usize) -> Result<()> {
        self.socket
            .send(&self.payload[..size])
            .with_context(|| format!("failed to send {size} bytes to {}", self.to))?;
        let length = self
            .socket
            .recv(&mut self.buffer)
            .with_context(|| format!("no echo of {size} bytes from {}", self.to))?;
        if self.buffer[..length] != self.payload[..size] {
            bail!(
                "echo of {size} bytes from {} came back changed ({length} bytes)",
                self.to
            );
        }
        Ok(())
    }
}

/// Bytes to an echo server and back, over one connection.
#[derive(Debug)]
pub struct TcpSession {
    stream: TcpStream,
    payload: Vec<u8>,
    buffer: Vec<u8>,
}

impl TcpSession {
    /// Connects from inside `netns`.
    ///
    /// # Errors
    /// When there is no connection within the time.
    pub fn open(
        netns: &Netns,
        to: SocketAddr,
        canary: [u8; 16],
        timeout: Duration,
    ) -> Result<Self> {
        let stream = connect(netns, None, to, timeout)?;
        stream.set_nodelay(true).context("failed to send at once")?;
        Ok(Self {
            stream,
            payload: canary.iter().copied().cycle().take(65_536).collect(),
            buffer: vec![0; 65_536],
        })
    }

    /// Sends `size` bytes in one piece and reads the same back.
    ///
    /// # Errors
    /// Nothing or something else came back.
    pub fn exchange(&mut self, size: usize) -> Result<()> {
        self.stream
            .write_all(&self.payload[..size])
            .with_context(|| format!("failed to send {size} bytes by TCP"))?;
        self.stream
            .read_exact(&mut self.buffer[..size])
            .with_context(|| format!("no echo of {size} bytes by TCP"))?;
        if self.buffer[..size] != self.payload[..size] {
            bail!("echo of {size} bytes by TCP came back changed");
        }
        Ok(())
    }
}

/// Echo requests, which the kernel of the other side answers.
#[derive(Debug)]
pub struct IcmpSession {
    socket: Socket,
    canary: [u8; 16],
    request: u8,
    reply: u8,
    sequence: u16,
    buffer: Vec<u8>,
}

impl IcmpSession {
    /// Opens a ping socket inside `netns`, which root is allowed there from now on.
    ///
    /// # Errors
    /// When the kernel gives none.
    pub fn open(netns: &Netns, to: IpAddr, canary: [u8; 16], timeout: Duration) -> Result<Self> {
        netns.sysctl_set("net.ipv4.ping_group_range", "0 0")?;
        let (domain, protocol, request, reply) = match to {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
        };
        let socket = netns
            .run(|| Socket::new(domain, Type::DGRAM, Some(protocol)))?
            .context("failed to make a ping socket")?;
        socket
            .connect(&SocketAddr::new(to, 0).into())
            .with_context(|| format!("failed to connect to {to}"))?;
        socket
            .set_read_timeout(Some(timeout))
            .context("failed to set a timeout")?;
        Ok(Self {
            socket,
            canary,
            request,
            reply,
            sequence: 0,
            buffer: vec![0; 65_536],
        })
    }

    /// Sends a request with `size` bytes of payload and waits for its reply.
    ///
    /// # Errors
    /// Nothing or something else came back.
    pub fn exchange(&mut self, size: usize) -> Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let [high, low] = self.sequence.to_be_bytes();
        // Checksum and identifier are the kernel's to fill in.
        let mut message = vec![self.request, 0, 0, 0, 0, 0, high, low];
        message.extend(self.canary.iter().copied().cycle().take(size));
        self.socket
            .send(&message)
            .with_context(|| format!("failed to send {size} bytes by ICMP"))?;
        let length = (&self.socket)
            .read(&mut self.buffer)
            .with_context(|| format!("no echo of {size} bytes by ICMP"))?;
        let answer = &self.buffer[..length];
        let same = length == message.len()
            && answer[0] == self.reply
            && answer[6..ICMP_HEADER] == [high, low]
            && answer[ICMP_HEADER..] == message[ICMP_HEADER..];
        if !same {
            bail!("echo of {size} bytes by ICMP came back changed ({length} bytes)");
        }
        Ok(())
    }
}
