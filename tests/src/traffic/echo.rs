//! Echo over UDP and TCP, for packets of every size.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Socket, Type};

use crate::io::Netns;

mod session;
pub use session::{IcmpSession, TcpSession, UdpSession};

/// How often a server looks whether it shall end.
const LOOK: Duration = Duration::from_millis(50);
/// The longest that a server waits for one connection.
const IDLE: Duration = Duration::from_secs(30);

/// Sends back what it gets, over UDP and TCP, IPv4 and IPv6, on one port. Ends when dropped.
#[derive(Debug)]
pub struct EchoServer {
    stop: Arc<AtomicBool>,
    peers: Arc<Mutex<BTreeSet<SocketAddr>>>,
    threads: Vec<JoinHandle<()>>,
}

impl EchoServer {
    /// Starts a server inside `netns`, on all its addresses.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(netns: &Netns, port: u16) -> Result<Self> {
        let mut server = Self {
            stop: Arc::default(),
            peers: Arc::default(),
            threads: Vec::new(),
        };
        for address in [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ] {
            let address = SocketAddr::new(address, port);
            let datagrams: UdpSocket = netns.run(|| open(address, Type::DGRAM))??.into();
            datagrams
                .set_read_timeout(Some(LOOK))
                .context("failed to set a timeout")?;
            let (stop, peers) = (Arc::clone(&server.stop), Arc::clone(&server.peers));
            server.threads.push(thread::spawn(move || {
                let mut buffer = vec![0; 65_536];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((length, from)) = datagrams.recv_from(&mut buffer) {
                        peers
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .insert(from);
                        datagrams.send_to(&buffer[..length], from).ok();
                    }
                }
            }));
            let streams = listen(netns, address)?;
            let (stop, peers) = (Arc::clone(&server.stop), Arc::clone(&server.peers));
            server.threads.push(thread::spawn(move || {
                accept_all(&streams, &stop, |stream, from| {
                    peers
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(from);
                    thread::spawn(move || repeat(stream));
                });
            }));
        }
        Ok(server)
    }

    /// Addresses and ports that it heard from.
    #[must_use]
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .copied()
            .collect()
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

/// Sends one datagram of `size` bytes and waits for the same one back; returns the time it took.
///
/// # Errors
/// What the kernel said (a message too long, no route), nothing came back in time, or other bytes did.
pub fn udp(
    netns: &Netns,
    from: Option<IpAddr>,
    to: SocketAddr,
    size: usize,
    canary: [u8; 16],
    timeout: Duration,
) -> Result<Duration> {
    let local = SocketAddr::new(from.unwrap_or_else(|| unspecified(to)), 0);
    let socket = netns
        .run(|| UdpSocket::bind(local))?
        .with_context(|| format!("failed to bind {local}"))?;
    socket
        .connect(to)
        .with_context(|| format!("failed to connect to {to}"))?;
    socket
        .set_read_timeout(Some(timeout))
        .context("failed to set a timeout")?;
    let payload: Vec<u8> = canary.iter().copied().cycle().take(size).collect();
    let start = Instant::now();
    socket
        .send(&payload)
        .with_context(|| format!("failed to send {size} bytes to {to}"))?;
    let mut buffer = vec![0; 65_536];
    let length = match socket.recv(&mut buffer) {
        Ok(length) => length,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            bail!("no echo of {size} bytes by UDP from {to} within {timeout:?}")
        }
        Err(error) => {
            return Err(error).with_context(|| format!("no echo of {size} bytes by UDP from {to}"));
        }
    };
    if buffer[..length] != payload {
        bail!("echo of {size} bytes by UDP from {to} came back changed ({length} bytes)");
    }
    Ok(start.elapsed())
}

/// Sends `size` bytes over a new connection and reads the same back; returns the time it took.
///
/// # Errors
/// No connection, no or other bytes within the time.
pub fn tcp(
    netns: &Netns,
    from: Option<IpAddr>,
    to: SocketAddr,
    size: usize,
    canary: [u8; 16],
    timeout: Duration,
) -> Result<Duration> {
    let start = Instant::now();
    let mut stream = connect(netns, from, to, timeout)?;
    let payload: Vec<u8> = canary.iter().copied().cycle().take(size).collect();
    let mut writer = stream.try_clone().context("failed to share a connection")?;
    let mut back = Vec::with_capacity(size);
    thread::scope(|scope| -> Result<()> {
        let writing = scope.spawn(|| {
            writer.write_all(&payload)?;
            writer.shutdown(Shutdown::Write)
        });
        stream
            .read_to_end(&mut back)
            .with_context(|| format!("no echo of {size} bytes by TCP from {to}"))?;
        match writing.join() {
            Ok(result) => {
                result.with_context(|| format!("failed to send {size} bytes by TCP to {to}"))
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    if back != payload {
        bail!(
            "echo of {size} bytes by TCP from {to} came back changed ({} bytes)",
            back.len()
        );
    }
    Ok(start.elapsed())
}

/// Opens a connection from inside `netns`, with `timeout` for connecting and for each read and write.
pub(super) fn connect(
    netns: &Netns,
    from: Option<IpAddr>,
    to: SocketAddr,
    timeout: Duration,
) -> Result<TcpStream> {
    let local = SocketAddr::new(from.unwrap_or_else(|| unspecified(to)), 0);
    let socket = netns.run(|| Socket::new(Domain::for_address(to), Type::STREAM, None))?;
    let socket = socket.context("failed to make a socket")?;
    socket
        .bind(&local.into())
        .with_context(|| format!("failed to bind {local}"))?;
    socket
        .connect_timeout(&to.into(), timeout)
        .with_context(|| format!("failed to connect to {to} by TCP"))?;
    let stream: TcpStream = socket.into();
    stream
        .set_read_timeout(Some(timeout))
        .context("failed to set a timeout")?;
    stream
        .set_write_timeout(Some(timeout))
        .context("failed to set a timeout")?;
    Ok(stream)
}

pub(super) fn listen(netns: &Netns, address: SocketAddr) -> Result<TcpListener> {
    let socket = netns.run(|| open(address, Type::STREAM))??;
    socket.listen(128).context("failed to listen")?;
    Ok(socket.into())
}

/// Hands each connection to `take` until `stop`.
pub(super) fn accept_all(
    listener: &TcpListener,
    stop: &AtomicBool,
    take: impl Fn(TcpStream, SocketAddr),
) {
    let wait = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        if matches!(poll(&mut ready, wait), Ok(1..))
            && let Ok((stream, from)) = listener.accept()
        {
            // A client that goes silent must not hold a thread for ever.
            stream.set_read_timeout(Some(IDLE)).ok();
            stream.set_write_timeout(Some(IDLE)).ok();
            take(stream, from);
        }
    }
}

fn open(address: SocketAddr, kind: Type) -> Result<Socket> {
    let socket =
        Socket::new(Domain::for_address(address), kind, None).context("failed to make a socket")?;
    if address.is_ipv6() {
        socket
            .set_only_v6(true)
            .context("failed to bind IPv6 only")?;
    }
    if kind == Type::STREAM {
        socket
            .set_reuse_address(true)
            .context("failed to reuse an address")?;
    }
    socket
        .bind(&address.into())
        .with_context(|| format!("failed to bind {address}"))?;
    Ok(socket)
}

fn repeat(mut stream: TcpStream) {
    let mut buffer = vec![0; 65_536];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                if stream.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

const fn unspecified(like: SocketAddr) -> IpAddr {
    match like {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}
