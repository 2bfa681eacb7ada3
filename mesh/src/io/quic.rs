//! Connections between agents and hubs: QUIC, TLS 1.3, certificates on both sides (docs/security.md, "Certificates").
//!
//! A [`Listener`] gives connections that were accepted, a [`Dialer`] one that was opened, both only after each side has
//! checked the other. A [`Connection`] has two streams of messages; what is too much waits in bounded queues.
//!
//! On the same port a [`Listener`] gives a [`Guest`] that asks one thing by [`ask()`], and need not have a certificate.
//!
//! Agents derive keys from a session of their own ([`KeySession`]); a [`Listener`] on another port gives each as a
//! [`Guest`].

mod admission;
mod ask;
mod connection;
mod dialer;
mod guest;
mod handshake;
mod key_session;
mod listener;
mod receiver;
mod reset;
mod sender;
mod tls;

pub use crate::frame::Stream;
pub use ask::{Answered, AskCheck, AskError, ask};
pub use connection::{Connection, Ended};
pub use dialer::{Dialer, connect};
pub use guest::Guest;
pub use handshake::HandshakeError;
pub use key_session::KeySession;
pub use listener::{Arrival, Listener};
pub use receiver::Receiver;
pub use sender::{Sender, Unsent};
pub use tls::Tls;

use quinn::{IdleTimeout, TransportConfig, VarInt};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// The protocol with its major version.
pub const ALPN: &[u8] = b"hawser/1";
/// The protocol of guests, who ask one thing: nodes that want a certificate, clusters that want to join.
pub const ENROL_ALPN: &[u8] = b"hawser-enrol/1";

/// The protocol of two agents that derive keys.
pub const KEY_ALPN: &[u8] = b"hawser-key/1";

/// A peer that is silent for so long is gone. The time begins again with the first packet that we send after its last
/// (RFC 9000, section 10.1), so that a dead hub is noticed after at most this and [`KEEP_ALIVE`]: within two seconds.
const IDLE: Duration = Duration::from_millis(1500);
/// The first sign of life after silence; QUIC repeats it if it is lost.
const KEEP_ALIVE: Duration = Duration::from_millis(400);
/// From the first packet to both streams being open, at the side that was called.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// The same at the side that calls, which then calls anew: a path that is healed is used within a second.
const ATTEMPT: Duration = Duration::from_millis(1250);
/// Until the path's own is known, a third of the time after which a first packet is repeated. QUIC's own default would
/// have the side that calls say nothing for a second.
const FIRST_ROUND_TRIP: Duration = Duration::from_millis(50);
/// What a peer may have sent on a stream and we have not read, in bytes. 5 MB/s over 100 ms.
const STREAM_WINDOW: u32 = 512 << 10;
/// The same for the connection: one stream's flood leaves room for the other.
const WINDOW: u32 = 768 << 10;
/// The same for one whose peer is not known yet, or is a guest: one request, and the openings of two streams.
const GUEST_WINDOW: u32 = 96 << 10;
/// What we have sent and the peer has not taken, in bytes.
const SEND_WINDOW: u64 = 512 << 10;
/// Buffers of the socket, in bytes: a burst of a thousand agents that come at once.
const SOCKET_BUFFER: usize = 4 << 20;

/// The side that opens connections has both streams, and the signs of life.
fn transport(side: quinn::Side) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    let (streams, keep_alive, window) = match side {
        quinn::Side::Client => (0u32, Some(KEEP_ALIVE), WINDOW),
        quinn::Side::Server => (2, None, GUEST_WINDOW),
    };
    if side == quinn::Side::Client {
        transport.initial_rtt(FIRST_ROUND_TRIP);
    }
    let idle = IdleTimeout::try_from(IDLE).expect("seconds fit into 62 bits of milliseconds");
    transport
        .max_concurrent_bidi_streams(streams.into())
        .max_concurrent_uni_streams(0u32.into())
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(keep_alive)
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(window.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .allow_spin(false);
    Arc::new(transport)
}

/// A socket of both families where the address is `[::]`.
fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // Where the system gives less, it gives what it has.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Codes by which connections are closed; the reason says it in words.
mod code {
    use super::VarInt;

    /// Nothing is wrong.
    pub(super) const DONE: VarInt = VarInt::from_u32(0);
    /// The peer broke the protocol.
    pub(super) const REFUSED: VarInt = VarInt::from_u32(1);
}
