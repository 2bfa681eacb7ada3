//! The half of a connection that gives messages.

use super::connection::{Ended, Link};
use super::handshake::HandshakeError;
use crate::frame::{Decoder, Stream};
use bytes::Bytes;

/// What is read at once, in bytes.
const CHUNK: usize = 64 << 10;

/// Gives the peer's messages. Reading slowly makes the peer wait; nothing piles up here.
#[derive(Debug)]
pub struct Receiver {
    pub(super) link: Link,
    pub(super) changes: Inbox,
    pub(super) bulk: Inbox,
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
