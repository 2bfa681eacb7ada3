//! A connection whose peer is known.

use super::code;
use super::receiver::{Inbox, Receiver};
use super::sender::Sender;
use crate::frame::FrameError;
use crate::trust::PeerId;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

/// The longest reason that is sent or kept, in bytes.
const LONGEST_REASON: usize = 200;

/// A connection; it ends when all its [`Sender`]s are gone.
#[derive(Debug)]
#[non_exhaustive]
pub struct Connection {
    /// Who is there.
    pub peer: PeerId,
    /// Where.
    pub address: SocketAddr,
    /// Takes messages.
    pub tx: Sender,
    /// Gives messages.
    pub rx: Receiver,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// The peer closed it, and said why.
    #[error("closed by the peer: {0}")]
    ByPeer(String),
    /// We closed it, and said why.
    #[error("closed: {0}")]
    ByUs(String),
    /// The peer sent something that is no frame.
    #[error("{0}")]
    Frame(FrameError),
    /// The peer ended one of the streams, or will not read it.
    #[error("stream_ended")]
    StreamEnded,
    /// Nothing came for too long.
    #[error("timed_out")]
    TimedOut,
    /// The peer has started again and does not know it.
    #[error("peer_restarted")]
    PeerRestarted,
    /// QUIC failed.
    #[error("transport_failed: {0}")]
    Transport(String),
}

impl Ended {
    /// Its name in metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ByPeer(_) => "closed_by_peer",
            Self::ByUs(_) => "closed",
            Self::Frame(error) => error.name(),
            Self::StreamEnded => "stream_ended",
            Self::TimedOut => "timed_out",
            Self::PeerRestarted => "peer_restarted",
            Self::Transport(_) => "transport_failed",
        }
    }
}

impl From<quinn::ConnectionError> for Ended {
    fn from(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as Error;
        match error {
            Error::TimedOut => Self::TimedOut,
            Error::Reset => Self::PeerRestarted,
            Error::ApplicationClosed(close) => Self::ByPeer(printable(&close.reason)),
            Error::ConnectionClosed(close) => Self::ByPeer(printable(&close.reason)),
            Error::LocallyClosed => Self::ByUs("closed".to_owned()),
            Error::VersionMismatch | Error::TransportError(_) | Error::CidsExhausted => {
                Self::Transport(printable(error.to_string().as_bytes()))
            }
        }
    }
}

impl From<quinn::WriteError> for Ended {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::ConnectionLost(error) => error.into(),
            quinn::WriteError::Stopped(_)
            | quinn::WriteError::ClosedStream
            | quinn::WriteError::ZeroRttRejected => Self::StreamEnded,
        }
    }
}

impl From<quinn::ReadError> for Ended {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::ConnectionLost(error) => error.into(),
            quinn::ReadError::Reset(_)
            | quinn::ReadError::ClosedStream
            | quinn::ReadError::IllegalOrderedRead
            | quinn::ReadError::ZeroRttRejected => Self::StreamEnded,
        }
    }
}

/// What a peer says, short, and on one line.
pub(super) fn printable(bytes: &[u8]) -> String {
    let short = bytes.get(..LONGEST_REASON).unwrap_or(bytes);
    let text = String::from_utf8_lossy(short);
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

impl Connection {
    pub(super) fn new(
        connection: quinn::Connection,
        peer: PeerId,
        address: SocketAddr,
        (changes_out, changes): (quinn::SendStream, Inbox),
        (bulk_out, bulk): (quinn::SendStream, Inbox),
    ) -> Self {
        let link = Link {
            connection,
            ended: Arc::default(),
        };
        Self {
            peer,
            address,
            tx: Sender::new(&link, changes_out, bulk_out),
            rx: Receiver {
                link,
                changes,
                bulk,
            },
        }
    }
}

/// The connection and how we ended it.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) connection: quinn::Connection,
    ended: Arc<OnceLock<Ended>>,
}

impl Link {
    pub(super) fn end(&self, ended: Ended) {
        let (code, reason) = match &ended {
            Ended::ByUs(reason) => (code::DONE, reason.as_str()),
            Ended::Frame(_) | Ended::StreamEnded => (code::REFUSED, ended.name()),
            // It has ended by itself.
            Ended::ByPeer(_) | Ended::TimedOut | Ended::PeerRestarted | Ended::Transport(_) => {
                (code::DONE, "")
            }
        };
        let reason = reason.as_bytes();
        let short = reason.get(..LONGEST_REASON).unwrap_or(reason);
        self.connection.close(code, short);
        let _ = self.ended.set(ended);
    }

    pub(super) fn ended(&self) -> Option<Ended> {
        let reason = self.connection.close_reason()?;
        Some(self.ended.get().cloned().unwrap_or_else(|| reason.into()))
    }
}
