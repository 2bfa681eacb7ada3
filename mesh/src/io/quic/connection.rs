//! A connection whose peer is known.

use super::code;
use super::handshake::HandshakeError;
use crate::frame::{Decoder, FrameError, Stream, encode};
use crate::trust::PeerId;
use bytes::Bytes;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::Notify;

/// A stream with so many bytes waiting takes no more messages.
const QUEUE: usize = 128 << 10;
/// The longest reason that is sent or kept, in bytes.
const LONGEST_REASON: usize = 200;
/// What is read at once, in bytes.
const CHUNK: usize = 64 << 10;

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
        let outbox = |stream, send| {
            let outbox = Arc::new(Outbox::default());
            tokio::spawn(write(link.clone(), stream, send, Arc::clone(&outbox)));
            outbox
        };
        let tx = Sender(Arc::new(Outboxes {
            changes: outbox(Stream::Changes, changes_out),
            bulk: outbox(Stream::Bulk, bulk_out),
            link: link.clone(),
        }));
        Self {
            peer,
            address,
            tx,
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
struct Link {
    connection: quinn::Connection,
    ended: Arc<OnceLock<Ended>>,
}

impl Link {
    fn end(&self, ended: Ended) {
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

    fn ended(&self) -> Option<Ended> {
        let reason = self.connection.close_reason()?;
        Some(self.ended.get().cloned().unwrap_or_else(|| reason.into()))
    }
}

/// A message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    /// Too much waits already; see [`Sender::writable`].
    #[error("the peer reads too slowly")]
    Full,
    /// The connection has ended.
    #[error("the connection has ended")]
    Ended,
    /// The message is longer than any may be.
    #[error("the message is too long")]
    TooLong,
}

/// Takes messages for the peer. Clones send to the same peer.
#[derive(Clone, Debug)]
pub struct Sender(Arc<Outboxes>);

#[derive(Debug)]
struct Outboxes {
    changes: Arc<Outbox>,
    bulk: Arc<Outbox>,
    link: Link,
}

impl Drop for Outboxes {
    fn drop(&mut self) {
        if self.link.connection.close_reason().is_none() {
            self.link.end(Ended::ByUs("done".to_owned()));
        }
    }
}

impl Sender {
    fn outbox(&self, stream: Stream) -> &Outbox {
        match stream {
            Stream::Changes => &self.0.changes,
            Stream::Bulk => &self.0.bulk,
        }
    }

    /// Takes a message for a stream. Messages of a stream arrive in order.
    ///
    /// # Errors
    /// It is not taken: the stream is not writable, or the connection has ended.
    pub fn try_send(&self, stream: Stream, message: Bytes) -> Result<(), Unsent> {
        if message.len() > crate::wire::MAX_MESSAGE {
            return Err(Unsent::TooLong);
        }
        if self.0.link.connection.close_reason().is_some() {
            return Err(Unsent::Ended);
        }
        self.outbox(stream).put(message)
    }

    /// Whether [`Self::try_send`] would take a message, of any size.
    pub fn is_writable(&self, stream: Stream) -> bool {
        self.outbox(stream).lock().bytes < QUEUE
    }

    /// Waits until it would, or until the connection has ended.
    pub async fn writable(&self, stream: Stream) {
        let outbox = self.outbox(stream);
        let ready = async {
            loop {
                let drained = outbox.drained.notified();
                if outbox.lock().bytes < QUEUE {
                    return;
                }
                drained.await;
            }
        };
        tokio::select! {
            () = ready => {}
            _ = self.0.link.connection.closed() => {}
        }
    }

    /// Ends the connection; the peer is told the reason. What waits is not sent.
    pub fn close(&self, reason: &str) {
        if self.0.link.connection.close_reason().is_none() {
            self.0.link.end(Ended::ByUs(reason.to_owned()));
        }
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) -> Ended {
        let reason = self.0.link.connection.closed().await;
        self.0.link.ended().unwrap_or_else(|| reason.into())
    }

    /// How the connection ended, if it has.
    pub fn ended(&self) -> Option<Ended> {
        self.0.link.ended()
    }

    pub(super) fn quic(&self) -> &quinn::Connection {
        &self.0.link.connection
    }
}

/// Messages that wait for their stream.
#[derive(Debug, Default)]
struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
    drained: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Bytes>,
    bytes: usize,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, message: Bytes) -> Result<(), Unsent> {
        let mut waiting = self.lock();
        if waiting.bytes >= QUEUE {
            return Err(Unsent::Full);
        }
        // An empty message costs something, too.
        waiting.bytes += message.len().max(1);
        waiting.messages.push_back(message);
        drop(waiting);
        self.filled.notify_one();
        Ok(())
    }

    /// The next message; it counts until it is [`Self::sent`].
    async fn next(&self) -> Bytes {
        loop {
            if let Some(message) = self.lock().messages.pop_front() {
                return message;
            }
            self.filled.notified().await;
        }
    }

    fn sent(&self, length: usize) {
        let mut waiting = self.lock();
        let was_full = waiting.bytes >= QUEUE;
        waiting.bytes -= length.max(1);
        let is_full = waiting.bytes >= QUEUE;
        drop(waiting);
        if was_full && !is_full {
            self.drained.notify_waiters();
        }
    }
}

/// Moves a stream's messages to QUIC until the connection ends.
async fn write(link: Link, stream: Stream, mut send: quinn::SendStream, outbox: Arc<Outbox>) {
    loop {
        let message = tokio::select! {
            message = outbox.next() => message,
            _ = link.connection.closed() => return,
        };
        let length = message.len();
        // `try_send` let no longer one in.
        let Ok(frame) = encode(stream, &message) else {
            outbox.sent(length);
            continue;
        };
        drop(message);
        if let Err(error) = send.write_chunk(frame).await {
            if link.connection.close_reason().is_none() {
                link.end(error.into());
            }
            return;
        }
        outbox.sent(length);
    }
}

/// Gives the peer's messages. Reading slowly makes the peer wait; nothing piles up here.
#[derive(Debug)]
pub struct Receiver {
    link: Link,
    changes: Inbox,
    bulk: Inbox,
}

impl Receiver {
    /// The next message of either stream; none: the connection has ended ([`Self::ended`]). May be cancelled at any
    /// time, nothing is lost.
    pub async fn recv(&mut self) -> Option<(Stream, Bytes)> {
        let (changes, bulk) = (&mut self.changes, &mut self.bulk);
        let next = tokio::select! {
            message = changes.next() => message.map(|message| (Stream::Changes, message)),
            message = bulk.next() => message.map(|message| (Stream::Bulk, message)),
        };
        match next {
            Ok(next) => Some(next),
            Err(ended) => {
                if self.link.connection.close_reason().is_none() {
                    self.link.end(ended);
                }
                None
            }
        }
    }

    /// How the connection ended, if it has.
    pub fn ended(&self) -> Option<Ended> {
        self.link.ended()
    }
}

/// One stream's incoming half.
#[derive(Debug)]
pub(super) struct Inbox {
    stream: quinn::RecvStream,
    decoder: Decoder,
}

impl Inbox {
    pub(super) fn new(stream: quinn::RecvStream) -> Self {
        Self {
            stream,
            decoder: Decoder::default(),
        }
    }

    async fn next(&mut self) -> Result<Bytes, Ended> {
        loop {
            if let Some(message) = self.decoder.poll_frame().map_err(Ended::Frame)? {
                return Ok(message);
            }
            let Some(chunk) = self.stream.read_chunk(CHUNK, true).await? else {
                self.decoder.finish().map_err(Ended::Frame)?;
                return Err(Ended::StreamEnded);
            };
            self.decoder.handle_bytes(&chunk.bytes);
        }
    }

    /// Which stream the first frame says this is.
    pub(super) async fn opening(&mut self) -> Result<Stream, HandshakeError> {
        let frame = self.next().await.map_err(HandshakeError::Ended)?;
        Ok(Stream::of_opening(&frame)?)
    }
}
