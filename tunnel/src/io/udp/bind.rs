//! Binds the sockets of a lane: for each family one for data messages and one for all else, which share the port.

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

/// Bytes that may wait in each socket: what arrives at 1 Gbit/s while a data plane is restarted.
const BUFFER: usize = 8 << 20;

/// Why there are no sockets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UdpError {
    /// Another process has the port.
    #[error("port {0}/udp: in use by another process: choose another by --port, or stop it")]
    InUse(u16),
    /// Something else.
    #[error("port {port}/udp: failed to {action}")]
    Failed {
        /// The port.
        port: u16,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Bound sockets of one purpose, as descriptors that are handed to the data plane.
#[derive(Debug)]
pub struct Sockets {
    /// For IPv4.
    pub v4: OwnedFd,
    /// For IPv6, where the kernel has it.
    pub v6: Option<OwnedFd>,
}

/// Both sockets that share the port of a family.
struct Shared {
    data: OwnedFd,
    handshakes: OwnedFd,
}

/// Binds the port for both families, with buffers that outlast a restart: sockets for data messages,
/// and sockets for all else. A flood of handshakes fills only the latter, whoever sends it (T3).
pub fn bind(port: u16) -> Result<(Sockets, Sockets), UdpError> {
    let v4 = bind_both(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into())?;
    let v6 = match bind_both(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into()) {
        Ok(v6) => Some(v6),
        Err(UdpError::Failed { source, .. })
            if matches!(
                source.raw_os_error(),
                Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
            ) =>
        {
            None
        }
        Err(error) => return Err(error),
    };
    let (data6, handshakes6) = v6.map(|v6| (v6.data, v6.handshakes)).unzip();
    let data = Sockets {
        v4: v4.data,
        v6: data6,
    };
    let handshakes = Sockets {
        v4: v4.handshakes,
        v6: handshakes6,
    };
    Ok((data, handshakes))
}

fn bind_both(domain: Domain, address: SocketAddr) -> Result<Shared, UdpError> {
    // Alone first: sockets that share a port would share it with another program's as well.
    drop(bind_one(domain, address, false)?);
    let data = bind_one(domain, address, true)?;
    let handshakes = bind_one(domain, address, true)?;
    // The program's answer is the number of the socket, in the order in which they were bound.
    setsockopt(
        &data,
        sockopt::AttachReusePortCbpf,
        &by_message_type(&mut TO_DATA.to_vec()),
    )
    .map_err(|error| failed(address, "part data from handshakes")(error.into()))?;
    Ok(Shared { data, handshakes })
}

/// Classic BPF over a datagram's payload: load its first byte; 4 (WireGuard data) goes to socket 0,
/// everything else to socket 1, and what is empty to socket 0.
const TO_DATA: [libc::sock_filter; 4] = [
    instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0),
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 4),
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0),
    instruction(libc::BPF_RET | libc::BPF_K, 0, 1),
];

#[expect(clippy::cast_possible_truncation, reason = "the codes fit 16 bits")]
const fn instruction(code: u32, jump_if_false: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: jump_if_false,
        k,
    }
}

/// The kernel copies the program while it is attached.
fn by_message_type(program: &mut [libc::sock_filter]) -> libc::sock_fprog {
    libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap_or_default(),
        filter: program.as_mut_ptr(),
    }
}

fn failed(address: SocketAddr, action: &'static str) -> impl FnOnce(io::Error) -> UdpError {
    move |source| UdpError::Failed {
        port: address.port(),
        action,
        source,
    }
}

fn bind_one(domain: Domain, address: SocketAddr, shared: bool) -> Result<OwnedFd, UdpError> {
    let failed = |action| failed(address, action);
    let socket =
        Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)).map_err(failed("open a socket"))?;
    if domain == Domain::IPV6 {
        socket
            .set_only_v6(true)
            .map_err(failed("keep IPv4 apart"))?;
    }
    socket
        .set_reuse_port(shared)
        .map_err(failed("share the port"))?;
    socket.bind(&address.into()).map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            return UdpError::InUse(address.port());
        }
        failed("bind")(source)
    })?;
    // Past the sysctl limits, as root may; within them otherwise.
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
        socket
            .set_recv_buffer_size(BUFFER)
            .map_err(failed("size its buffer"))?;
    }
    if setsockopt(&socket, sockopt::SndBufForce, &BUFFER).is_err() {
        socket
            .set_send_buffer_size(BUFFER)
            .map_err(failed("size its buffer"))?;
    }
    Ok(socket.into())
}
