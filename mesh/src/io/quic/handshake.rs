//! From a connection that QUIC made to one that can be used: both know each other, both streams are open.

use super::admission::{GuestPlace, Shared};
use super::connection::{Connection, Ended, printable};
use super::guest::Guest;
use super::listener::Arrival;
use super::receiver::Inbox;
use super::tls::{Found, Offered};
use super::{ATTEMPT, ENROL_ALPN, HANDSHAKE, KEY_ALPN, WINDOW, code};
use crate::frame::{FrameError, Stream, encode};
use crate::trust::{PeerId, Untrusted};
use quinn::crypto::rustls::HandshakeData;
use std::net::SocketAddr;
use std::sync::Arc;

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// We do not take the peer's certificate.
    #[error("{0}")]
    Untrusted(#[from] Untrusted),
    /// The peer showed no certificate.
    #[error("certificate_missing")]
    CertificateMissing,
    /// The peer speaks another protocol, or another major version of ours.
    #[error("alpn_other")]
    AlpnOther,
    /// The peer speaks no TLS 1.3.
    #[error("tls_version")]
    TlsVersion,
    /// The peer has nothing in common with us by which a handshake could be made.
    #[error("tls_none_in_common")]
    NoneInCommon,
    /// TLS failed in another way.
    #[error("tls_failed: {0}")]
    Tls(String),
    /// It took more than three seconds.
    #[error("handshake_timeout")]
    Timeout,
    /// There are too many others just now.
    #[error("handshakes_too_many")]
    Busy,
    /// There are too many guests just now, or too many from there.
    #[error("guests_too_many")]
    GuestsBusy,
    /// A guest asks for more than anybody can.
    #[error("enrol_too_long")]
    RequestTooLong,
    /// A stream began with something else.
    #[error("{0}")]
    Opening(#[from] FrameError),
    /// Both streams say that they are the same.
    #[error("stream_twice")]
    StreamTwice,
    /// The connection ended meanwhile.
    #[error("{0}")]
    Ended(Ended),
    /// The system sends nothing there.
    #[error("unreachable: {0}")]
    Unreachable(String),
}

impl HandshakeError {
    /// Its name in metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Untrusted(untrusted) => untrusted.name(),
            Self::CertificateMissing => "certificate_missing",
            Self::AlpnOther => "alpn_other",
            Self::TlsVersion => "tls_version",
            Self::NoneInCommon => "tls_none_in_common",
            Self::Tls(_) => "tls_failed",
            Self::Timeout => "handshake_timeout",
            Self::Busy => "handshakes_too_many",
            Self::GuestsBusy => "guests_too_many",
            Self::RequestTooLong => "enrol_too_long",
            Self::Opening(error) => error.name(),
            Self::StreamTwice => "stream_twice",
            Self::Ended(ended) => ended.name(),
            Self::Unreachable(_) => "unreachable",
        }
    }
}

/// TLS alerts (RFC 8446, section 6) as QUIC carries them (RFC 9001, section 4.8).
const CRYPTO: u64 = 0x100;
const HANDSHAKE_FAILURE: u64 = CRYPTO + 40;
const PROTOCOL_VERSION: u64 = CRYPTO + 70;
const CERTIFICATE_REQUIRED: u64 = CRYPTO + 116;
const NO_APPLICATION_PROTOCOL: u64 = CRYPTO + 120;
const LAST_CRYPTO: u64 = CRYPTO + 255;

impl From<quinn::ConnectionError> for HandshakeError {
    fn from(error: quinn::ConnectionError) -> Self {
        if let quinn::ConnectionError::ConnectionClosed(close) = &error
            && u64::from(close.error_code) == HANDSHAKE_FAILURE
        {
            // The peer saw it first.
            return Self::NoneInCommon;
        }
        let quinn::ConnectionError::TransportError(transport) = &error else {
            return Self::Ended(error.into());
        };
        match u64::from(transport.code) {
            HANDSHAKE_FAILURE => Self::NoneInCommon,
            PROTOCOL_VERSION => Self::TlsVersion,
            CERTIFICATE_REQUIRED => Self::CertificateMissing,
            NO_APPLICATION_PROTOCOL => Self::AlpnOther,
            CRYPTO..=LAST_CRYPTO => Self::Tls(printable(transport.reason.as_bytes())),
            _ => Self::Ended(error.into()),
        }
    }
}

/// What went wrong below, short, and on one line.
pub(super) fn printable_error(error: &dyn std::error::Error) -> String {
    printable(error.to_string().as_bytes())
}

/// Opens a connection in time, or closes it and says why.
pub(super) async fn call(
    connecting: quinn::Connecting,
    found: Found,
) -> Result<Connection, HandshakeError> {
    let address = connecting.remote_address();
    let steps = async {
        let connection = established(connecting, &found).await?;
        let done = open(&connection, &found, address).await;
        told(&connection, done)
    };
    let done = tokio::time::timeout(ATTEMPT, steps).await;
    done.unwrap_or(Err(HandshakeError::Timeout))
}

/// Takes a connection that comes, in time, or closes it and says why.
pub(super) async fn welcome(
    connecting: quinn::Connecting,
    (found, offered): (Found, Offered),
    shared: &Arc<Shared>,
) -> Result<Arrival, HandshakeError> {
    let address = connecting.remote_address();
    let deadline = tokio::time::Instant::now() + HANDSHAKE;
    let steps = async {
        let connection = established(connecting, &found).await?;
        let done = if is_guest(&connection) {
            let place = GuestPlace::take(shared, address).ok_or(HandshakeError::GuestsBusy);
            match place {
                Ok(place) => Guest::read(&connection, (&found, offered), place, deadline)
                    .await
                    .map(Arrival::Guest),
                Err(error) => Err(error),
            }
        } else {
            accept(&connection, &found, address)
                .await
                .map(Arrival::Peer)
        };
        told(&connection, done)
    };
    let done = tokio::time::timeout_at(deadline, steps).await;
    done.unwrap_or(Err(HandshakeError::Timeout))
}

/// TLS is done, and took the peer's certificate if it showed one.
pub(super) async fn established(
    connecting: quinn::Connecting,
    found: &Found,
) -> Result<quinn::Connection, HandshakeError> {
    connecting.await.map_err(|error| name(error, found))
}

/// Whether the protocol that was agreed upon has one request and one answer.
fn is_guest(connection: &quinn::Connection) -> bool {
    let data = connection.handshake_data();
    let data = data.and_then(|data| data.downcast::<HandshakeData>().ok());
    let protocol = data.and_then(|data| data.protocol);
    protocol.is_some_and(|protocol| [ENROL_ALPN, KEY_ALPN].contains(&&*protocol))
}

/// The peer is told of a refusal.
fn told<T>(
    connection: &quinn::Connection,
    done: Result<T, HandshakeError>,
) -> Result<T, HandshakeError> {
    if let Err(error) = &done {
        connection.close(code::REFUSED, error.name().as_bytes());
    }
    done
}

/// What we found of the certificate says more than what TLS made of it.
fn name(error: quinn::ConnectionError, found: &Found) -> HandshakeError {
    match found.get() {
        Some(Err(untrusted)) => untrusted.clone().into(),
        Some(Ok(_)) | None => error.into(),
    }
}

/// Who showed a certificate that we take.
pub(super) fn known(found: &Found) -> Result<PeerId, HandshakeError> {
    match found.get() {
        Some(Ok(peer)) => Ok(peer.clone()),
        Some(Err(untrusted)) => Err(untrusted.clone().into()),
        None => Err(HandshakeError::CertificateMissing),
    }
}

async fn open(
    connection: &quinn::Connection,
    found: &Found,
    address: SocketAddr,
) -> Result<Connection, HandshakeError> {
    let peer = known(found)?;
    let changes = open_stream(connection, Stream::Changes).await?;
    let bulk = open_stream(connection, Stream::Bulk).await?;
    let (changes, bulk) = (confirmed(changes).await?, confirmed(bulk).await?);
    let connection = connection.clone();
    Ok(Connection::new(connection, peer, address, changes, bulk))
}

async fn accept(
    connection: &quinn::Connection,
    found: &Found,
    address: SocketAddr,
) -> Result<Connection, HandshakeError> {
    let peer = known(found)?;
    connection.set_receive_window(WINDOW.into());
    let first = accept_stream(connection).await?;
    let second = accept_stream(connection).await?;
    let (mut changes, mut bulk) = match (first.0, second.0) {
        (Stream::Changes, Stream::Bulk) => (first.1, second.1),
        (Stream::Bulk, Stream::Changes) => (second.1, first.1),
        (Stream::Changes, Stream::Changes) | (Stream::Bulk, Stream::Bulk) => {
            return Err(HandshakeError::StreamTwice);
        }
    };
    say(&mut changes.0, Stream::Changes).await?;
    say(&mut bulk.0, Stream::Bulk).await?;
    let connection = connection.clone();
    Ok(Connection::new(connection, peer, address, changes, bulk))
}

type Pair = (quinn::SendStream, Inbox);

async fn say(send: &mut quinn::SendStream, stream: Stream) -> Result<(), HandshakeError> {
    let opening = encode(stream, stream.name().as_bytes())?;
    send.write_chunk(opening)
        .await
        .map_err(|error| HandshakeError::Ended(error.into()))
}

async fn open_stream(
    connection: &quinn::Connection,
    stream: Stream,
) -> Result<(Stream, Pair), HandshakeError> {
    let (mut send, receive) = connection.open_bi().await.map_err(HandshakeError::from)?;
    say(&mut send, stream).await?;
    Ok((stream, (send, Inbox::new(receive))))
}

/// The peer has accepted us, too, when it answers.
async fn confirmed((stream, mut pair): (Stream, Pair)) -> Result<Pair, HandshakeError> {
    if pair.1.opening().await? == stream {
        Ok(pair)
    } else {
        Err(FrameError::Opening.into())
    }
}

async fn accept_stream(connection: &quinn::Connection) -> Result<(Stream, Pair), HandshakeError> {
    let (send, receive) = connection.accept_bi().await.map_err(HandshakeError::from)?;
    let mut inbox = Inbox::new(receive);
    let stream = inbox.opening().await?;
    Ok((stream, (send, inbox)))
}
