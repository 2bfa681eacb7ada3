//! The half of a connection that takes messages.

use super::connection::{Ended, Link};
use crate::frame::{Stream, encode};
use crate::trust::{Side, Trust, Untrusted};
use bytes::Bytes;
use rustls::pki_types::{CertificateDer, UnixTime};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A stream with so many bytes waiting takes no more messages.
const QUEUE: usize = 128 << 10;

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
    pub(super) fn new(link: &Link, changes: quinn::SendStream, bulk: quinn::SendStream) -> Self {
        let outbox = |stream, send| {
            let outbox = Arc::new(Outbox::default());
            tokio::spawn(write(link.clone(), stream, send, Arc::clone(&outbox)));
            outbox
        };
        Self(Arc::new(Outboxes {
            changes: outbox(Stream::Changes, changes),
            bulk: outbox(Stream::Bulk, bulk),
            link: link.clone(),
        }))
    }

    /// Whether the peer's certificate would be taken by what is trusted now. That it has ended meanwhile ends nothing.
    pub fn is_still_trusted(&self, trust: &Trust) -> bool {
        let identity = self.0.link.connection.peer_identity();
        let chain = identity.and_then(|it| it.downcast::<Vec<CertificateDer<'static>>>().ok());
        let Some((own, rest)) = chain.as_ref().and_then(|chain| chain.split_first()) else {
            return false;
        };
        let peer_is = match self.0.link.connection.side() {
            quinn::Side::Client => Side::Server,
            quinn::Side::Server => Side::Client,
        };
        let verified = trust.verify(own, rest, peer_is, UnixTime::now());
        matches!(verified, Ok(_) | Err(Untrusted::Expired))
    }

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
