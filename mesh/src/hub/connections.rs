//! The hub's connections: those that others opened, and those that we keep open to other clusters' hubs.

use crate::dial::Target;
use crate::io::quic::{Connection, Dialer, Sender, Tls};
use crate::io::resolve::Resolver;
use crate::replica::{SessionId, Stream, Transmit};
use crate::trust::{Expected, PeerId, Role, Trust};
use bytes::Bytes;
use hawser_tunnel::node::ClusterId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

/// Connections are made anew so long after it was found that they should be, and up to [`REDIAL_LOT`] ms later.
const REDIAL: Duration = Duration::from_secs(3);
const REDIAL_LOT: u64 = 2_000;

/// What happened on connections.
#[derive(Debug)]
pub(super) enum Input {
    /// A message came.
    Message(SessionId, Stream, Bytes),
    /// A stream takes more again.
    Writable(SessionId, Stream),
    /// It is over, for this reason.
    Ended(SessionId, &'static str),
    /// A hub of this cluster was reached.
    Dialed(ClusterId, Box<Connection>),
}

impl Input {
    /// How many bytes came with it.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Message(_, _, bytes) => bytes.len(),
            Self::Writable(..) | Self::Ended(..) | Self::Dialed(..) => 0,
        }
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Connections {
    inputs: mpsc::Sender<Input>,
    tls: Arc<Tls>,
    last: SessionId,
    open: BTreeMap<SessionId, Open>,
    dials: BTreeMap<ClusterId, (AbortHandle, Arc<Notify>)>,
    feeding: BTreeMap<ClusterId, SessionId>,
    refused: BTreeMap<&'static str, u64>,
    /// When each other cluster's hubs said something last.
    heard: BTreeMap<String, Instant>,
}

#[derive(Debug)]
struct Open {
    peer: PeerId,
    address: SocketAddr,
    tx: Sender,
}

impl Connections {
    pub(super) fn new(inputs: mpsc::Sender<Input>, tls: Arc<Tls>) -> Self {
        Self {
            inputs,
            tls,
            last: 0,
            open: BTreeMap::new(),
            dials: BTreeMap::new(),
            feeding: BTreeMap::new(),
            refused: BTreeMap::new(),
            heard: BTreeMap::new(),
        }
    }

    /// A number that no session had.
    pub(super) fn next_session(&mut self) -> SessionId {
        self.last += 1;
        self.last
    }

    /// Reads a connection from now on.
    pub(super) fn add(&mut self, session: SessionId, connection: Connection) {
        let Connection {
            peer,
            address,
            tx,
            mut rx,
            ..
        } = connection;
        self.open.insert(session, Open { peer, address, tx });
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            while let Some((stream, bytes)) = rx.recv().await {
                let message = Input::Message(session, stream, bytes);
                if inputs.send(message).await.is_err() {
                    return;
                }
            }
            let why = rx.ended().map_or("closed", |ended| ended.name());
            // The hub has ended.
            let _ = inputs.send(Input::Ended(session, why)).await;
        });
    }

    /// Counts somebody who was not served.
    pub(super) fn refuse(&mut self, reason: &'static str) {
        *self.refused.entry(reason).or_default() += 1;
    }

    /// Who was not served, by reason.
    pub(super) fn refused(&self) -> &BTreeMap<&'static str, u64> {
        &self.refused
    }

    /// Where a session's peer is.
    pub(super) fn address_of(&self, session: SessionId) -> Option<SocketAddr> {
        Some(self.open.get(&session)?.address)
    }

    /// The peer of a session said something.
    pub(super) fn heard(&mut self, session: SessionId, now: Instant) {
        let Some(peer) = self.open.get(&session).map(|open| &open.peer) else {
            return;
        };
        if matches!(peer.role, Role::Hub(_)) {
            match self.heard.get_mut(&peer.cluster) {
                Some(heard) => *heard = now,
                None => {
                    self.heard.insert(peer.cluster.clone(), now);
                }
            }
        }
    }

    /// When a cluster's hubs said something last, since the start.
    pub(super) fn heard_of(&self, cluster: &str) -> Option<Instant> {
        self.heard.get(cluster).copied()
    }

    /// Sends a message. Returns whether the stream takes another; if not, [`Input::Writable`] says when it does.
    pub(super) fn send(&self, transmit: Transmit) -> bool {
        let Transmit {
            session,
            stream,
            bytes,
        } = transmit;
        let Some(open) = self.open.get(&session) else {
            return true;
        };
        if let Err(error) = open.tx.try_send(stream, bytes) {
            // An end is told by the reader. A stream that is full was said to be not writable.
            tracing::debug!(session, %error, "message not sent");
        }
        if open.tx.is_writable(stream) {
            return true;
        }
        let (tx, inputs) = (open.tx.clone(), self.inputs.clone());
        tokio::spawn(async move {
            tx.writable(stream).await;
            // The hub has ended.
            let _ = inputs.send(Input::Writable(session, stream)).await;
        });
        false
    }

    /// Closes a connection; the peer is told why.
    pub(super) fn close(&mut self, session: SessionId, reason: &str) {
        if let Some(open) = self.open.remove(&session) {
            open.tx.close(reason);
        }
    }

    /// A connection is over. Returns who was there, if it was not closed here.
    pub(super) fn ended(&mut self, session: SessionId) -> Option<PeerId> {
        self.feeding.retain(|_, fed_by| *fed_by != session);
        Some(self.open.remove(&session)?.peer)
    }

    /// This session feeds us a cluster's state from now on. Returns the one that did.
    pub(super) fn fed_by(&mut self, cluster: ClusterId, session: SessionId) -> Option<SessionId> {
        self.feeding.insert(cluster, session)
    }

    /// Makes another connection to a hub of this cluster soon, and ends the present one once it is there.
    pub(super) fn redial(&self, cluster: ClusterId) {
        if let Some((_, redial)) = self.dials.get(&cluster) {
            redial.notify_one();
        }
    }

    /// The same for all.
    pub(super) fn redial_all(&self) {
        for cluster in self.dials.keys() {
            self.redial(*cluster);
        }
    }

    /// The connections with a cluster whose peer's CA is trusted no longer.
    pub(super) fn untrusted(&self, cluster: &str, trust: &Trust) -> Vec<SessionId> {
        let of_cluster = self
            .open
            .iter()
            .filter(|(_, open)| open.peer.cluster == cluster);
        let untrusted = of_cluster.filter(|(_, open)| !open.tx.is_still_trusted(trust));
        untrusted.map(|(session, _)| *session).collect()
    }

    /// Keeps a connection to a hub of this cluster from now on. Returns the session with the one before, which is
    /// closed.
    pub(super) fn dial(
        &mut self,
        cluster: ClusterId,
        name: String,
        hubs: &[String],
    ) -> Option<SessionId> {
        let old = self.hang(cluster);
        let targets: Vec<Target> = hubs.iter().filter_map(|hub| hub.parse().ok()).collect();
        if targets.is_empty() {
            return old;
        }
        let (tls, expected) = (Arc::clone(&self.tls), Expected::HubOf(name));
        let inputs = self.inputs.clone();
        let redial = Arc::new(Notify::new());
        let wanted = Arc::clone(&redial);
        let task = tokio::spawn(async move {
            let seed = crate::lot::drawn();
            let mut dialer = Dialer::new(targets, tls, expected, Resolver::system(), seed);
            loop {
                let connection = dialer.connect().await;
                let tx = connection.tx.clone();
                if inputs
                    .send(Input::Dialed(cluster, Box::new(connection)))
                    .await
                    .is_err()
                {
                    return;
                }
                // Replicas of a hub learn one after another that their CA is another.
                let anew = async {
                    wanted.notified().await;
                    let lot = crate::lot::drawn() % REDIAL_LOT;
                    tokio::time::sleep(REDIAL + Duration::from_millis(lot)).await;
                };
                tokio::select! {
                    _ = tx.closed() => {}
                    () = anew => {}
                }
            }
        });
        self.dials.insert(cluster, (task.abort_handle(), redial));
        old
    }

    /// Dials a cluster no more. Returns the session that was open, which is closed.
    pub(super) fn hang(&mut self, cluster: ClusterId) -> Option<SessionId> {
        if let Some((task, _)) = self.dials.remove(&cluster) {
            task.abort();
        }
        let session = self.feeding.remove(&cluster)?;
        self.close(session, "dialed_elsewhere");
        Some(session)
    }
}
