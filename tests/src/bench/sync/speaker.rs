//! A replica of the product's library with its connections: what a hub is to the other side of the wire.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use hawser_mesh::io::quic::{Connection, Sender, Unsent};
use hawser_mesh::replica::{Replica, SessionId, Stream};
use tokio::sync::mpsc;
use tokio::time::sleep_until;

/// What connections have told and the replica has not heard: a stream's window is much less.
const TOLD: usize = 256;

/// A replica and whoever speaks with it.
#[derive(Debug)]
pub(super) struct Speaker {
    pub(super) replica: Replica,
    open: BTreeMap<SessionId, Sender>,
    last: SessionId,
    tell: mpsc::Sender<Told>,
    told: mpsc::Receiver<Told>,
}

/// What comes from a connection.
#[derive(Debug)]
enum Told {
    Message(SessionId, Stream, Bytes),
    Writable(SessionId, Stream),
    Ended(SessionId),
}

impl Speaker {
    pub(super) fn new(replica: Replica) -> Self {
        let (tell, told) = mpsc::channel(TOLD);
        Self {
            replica,
            open: BTreeMap::new(),
            last: 0,
            tell,
            told,
        }
    }

    /// Takes a connection. The caller tells the replica which side of it it is.
    pub(super) fn open(&mut self, connection: Connection) -> SessionId {
        self.last += 1;
        let (session, tell, mut rx) = (self.last, self.tell.clone(), connection.rx);
        self.open.insert(session, connection.tx);
        tokio::spawn(async move {
            while let Some((stream, bytes)) = rx.recv().await {
                if tell
                    .send(Told::Message(session, stream, bytes))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            tell.send(Told::Ended(session)).await.ok();
        });
        session
    }

    /// Says everything that is to be said.
    pub(super) fn speak(&mut self) {
        while let Some(transmit) = self.replica.poll_transmit(Instant::now()) {
            let (session, stream) = (transmit.session, transmit.stream);
            let Some(sender) = self.open.get(&session) else {
                continue;
            };
            match sender.try_send(stream, transmit.bytes) {
                Ok(()) if sender.is_writable(stream) => (),
                // A message that was not taken would be missed: the session begins anew.
                Err(Unsent::Full | Unsent::TooLong | Unsent::Ended) => {
                    self.close(session, "unsent")
                }
                Ok(()) => {
                    self.replica.set_writable(session, stream, false);
                    let (sender, tell) = (sender.clone(), self.tell.clone());
                    tokio::spawn(async move {
                        sender.writable(stream).await;
                        tell.send(Told::Writable(session, stream)).await.ok();
                    });
                }
            }
        }
    }

    /// Waits for what comes next, which may be a timer, and hears it. Returns a message, for those who count.
    pub(super) async fn hear(&mut self) -> Option<(SessionId, Bytes)> {
        let timeout = self.replica.poll_timeout();
        let told = tokio::select! {
            told = self.told.recv() => told,
            () = async { sleep_until(timeout.unwrap_or_else(Instant::now).into()).await }, if timeout.is_some() => None,
        };
        let now = Instant::now();
        match told {
            Some(Told::Message(session, stream, bytes)) => {
                if !self.open.contains_key(&session) {
                    return None;
                }
                let heard = self
                    .replica
                    .handle_message(session, stream, bytes.clone(), now);
                if let Err(reject) = heard {
                    self.close(session, reject.name());
                }
                return Some((session, bytes));
            }
            Some(Told::Writable(session, stream)) if self.open.contains_key(&session) => {
                self.replica.set_writable(session, stream, true);
            }
            Some(Told::Writable(..)) => (),
            Some(Told::Ended(session)) => self.close(session, "ended"),
            None => self.replica.handle_timeout(now),
        }
        None
    }

    /// Whether a session goes on.
    pub(super) fn is_open(&self, session: SessionId) -> bool {
        self.open.contains_key(&session)
    }

    /// Whether nobody has given a session up, whether or not that was heard.
    pub(super) fn is_alive(&self) -> bool {
        self.open.values().all(|sender| sender.ended().is_none())
    }

    fn close(&mut self, session: SessionId, reason: &str) {
        if let Some(sender) = self.open.remove(&session) {
            sender.close(reason);
            self.replica.close(session);
        }
    }
}
