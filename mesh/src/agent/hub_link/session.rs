//! A connection to a hub while it lasts.

use crate::io::quic::{Connection, Unsent};
use crate::replica::{SessionId, Stream, Transmit};
use crate::trust::Credentials;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;

/// A connection with its number.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) number: SessionId,
    /// Who the hub is.
    pub(super) peer: String,
    pub(super) address: SocketAddr,
    connection: Connection,
    /// What was shown for it.
    made_with: Option<Arc<Credentials>>,
    /// It takes nothing more on the stream of changes. We send on no other.
    full: bool,
}

/// What came of it.
pub(super) enum Heard {
    Message(Stream, Bytes),
    /// It takes messages again.
    Writable(Stream),
    Ended(String),
}

impl Session {
    pub(super) fn new(
        number: SessionId,
        connection: Connection,
        made_with: Option<Arc<Credentials>>,
    ) -> Self {
        Self {
            number,
            peer: connection.peer.to_string(),
            address: connection.address,
            connection,
            made_with,
            full: false,
        }
    }

    /// Whether the certificate that was shown for it is of the same CA as this one.
    pub(super) fn is_made_with(&self, credentials: &Credentials) -> bool {
        let shown = self.made_with.as_ref();
        shown.is_some_and(|shown| shown.links() == credentials.links())
    }

    /// Sends a message; the stream, if it takes nothing more for now. One that cannot be sent is lost with the
    /// connection, whose end is told by [`next`].
    pub(super) fn send(&mut self, sent: Transmit) -> Option<Stream> {
        if sent.session != self.number {
            return None;
        }
        let stream = sent.stream;
        match self.connection.tx.try_send(stream, sent.bytes) {
            Ok(()) | Err(Unsent::Ended) => {}
            Err(error @ (Unsent::Full | Unsent::TooLong)) => {
                // A message is missing, so the other side would misunderstand all that follows.
                tracing::error!(%error, "message to the hub was not taken");
                self.close("message_not_taken");
            }
        }
        self.full = !self.connection.tx.is_writable(stream);
        self.full.then_some(sent.stream)
    }

    pub(super) fn close(&self, reason: &str) {
        self.connection.tx.close(reason);
    }
}

/// Waits for what comes next; for ever, while there is no session.
pub(super) async fn next(session: &mut Option<Session>) -> Heard {
    let Some(session) = session else {
        return std::future::pending().await;
    };
    let full = session.full;
    let connection = &mut session.connection;
    let sender = connection.tx.clone();
    tokio::select! {
        () = sender.writable(Stream::Changes), if full => {
            session.full = false;
            Heard::Writable(Stream::Changes)
        }
        heard = connection.rx.recv() => match heard {
            Some((stream, bytes)) => Heard::Message(stream, bytes),
            None => {
                let ended = connection.rx.ended();
                Heard::Ended(ended.map_or_else(|| "ended".to_owned(), |it| it.to_string()))
            }
        }
    }
}
