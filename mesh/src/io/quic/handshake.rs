//! From a connection that QUIC made to one that can be used: both know each other, both streams are open.

use super::connection::{Connection, Ended, Inbox, printable};
use super::tls::Found;
use super::{HANDSHAKE, code};
use crate::frame::{FrameError, Stream, encode};
use crate::trust::Untrusted;
use std::net::SocketAddr;

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
    /// TLS failed in another way.
    #[error("tls_failed: {0}")]
    Tls(String),
    /// It took more than three seconds.
    #[error("handshake_timeout")]
    Timeout,
    /// There are too many others just now.
    #[error("handshakes_too_many")]
    Busy,
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
            Self::Tls(_) => "tls_failed",
            Self::Timeout => "handshake_timeout",
            Self::Busy => "handshakes_too_many",
            Self::Opening(error) => error.name(),
            Self::StreamTwice => "stream_twice",
            Self::Ended(ended) => ended.name(),
            Self::Unreachable(_) => "unreachable",
        }
    }
}

/// TLS alerts (RFC 8446, section 6) as QUIC carries them (RFC 9001, section 4.8).
const CRYPTO: u64 = 0x100;
const PROTOCOL_VERSION: u64 = CRYPTO + 70;
const CERTIFICATE_REQUIRED: u64 = CRYPTO + 116;
const NO_APPLICATION_PROTOCOL: u64 = CRYPTO + 120;
const LAST_CRYPTO: u64 = CRYPTO + 255;

impl From<quinn::ConnectionError> for HandshakeError {
    fn from(error: quinn::ConnectionError) -> Self {
        let quinn::ConnectionError::TransportError(transport) = &error else {
            return Self::Ended(error.into());
        };
        match u64::from(transport.code) {
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

/// Who opened the connection.
#[derive(Clone, Copy)]
pub(super) enum Opener {
    Us,
    Peer,
}

/// Goes through it in time, or closes the connection and says why.
pub(super) async fn complete(
    connecting: quinn::Connecting,
    found: Found,
    opener: Opener,
) -> Result<Connection, HandshakeError> {
    let address = connecting.remote_address();
    let steps = async {
        let connection = match connecting.await {
            Ok(connection) => connection,
            Err(error) => return Err(name(error, &found)),
        };
        let done = open(&connection, &found, opener, address).await;
        if let Err(error) = &done {
            connection.close(code::REFUSED, error.name().as_bytes());
        }
        done
    };
    let done = tokio::time::timeout(HANDSHAKE, steps).await;
    done.unwrap_or(Err(HandshakeError::Timeout))
}

/// What we found of the certificate says more than what TLS made of it.
fn name(error: quinn::ConnectionError, found: &Found) -> HandshakeError {
    match found.get() {
        Some(Err(untrusted)) => untrusted.clone().into(),
        Some(Ok(_)) | None => error.into(),
    }
}

async fn open(
    connection: &quinn::Connection,
    found: &Found,
    opener: Opener,
    address: SocketAddr,
) -> Result<Connection, HandshakeError> {
    let peer = match found.get() {
        Some(Ok(peer)) => peer.clone(),
        Some(Err(untrusted)) => return Err(untrusted.clone().into()),
        None => return Err(HandshakeError::CertificateMissing),
    };
    let (changes, bulk) = match opener {
        Opener::Us => {
            let changes = open_stream(connection, Stream::Changes).await?;
            let bulk = open_stream(connection, Stream::Bulk).await?;
            (confirmed(changes).await?, confirmed(bulk).await?)
        }
        Opener::Peer => {
            let first = accept_stream(connection).await?;
            let second = accept_stream(connection).await?;
            match (first.0, second.0) {
                (Stream::Changes, Stream::Bulk) => (first.1, second.1),
                (Stream::Bulk, Stream::Changes) => (second.1, first.1),
                (Stream::Changes, Stream::Changes) | (Stream::Bulk, Stream::Bulk) => {
                    return Err(HandshakeError::StreamTwice);
                }
            }
        }
    };
    let (mut changes, mut bulk) = (changes, bulk);
    if let Opener::Peer = opener {
        say(&mut changes.0, Stream::Changes).await?;
        say(&mut bulk.0, Stream::Bulk).await?;
    }
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
