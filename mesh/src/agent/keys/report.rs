//! How it stands with each peer, for who asks.

use crate::agent_socket::{KeyOrigin, PeerKeyStatus};
use crate::psk::{Agenda, Partner};
use hawser_tunnel::node::NodeId;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;

/// What is shown of keys, never a key; and what somebody who saw it wants.
#[derive(Debug, Default)]
pub(in crate::agent) struct Report {
    shown: Mutex<Shown>,
    renewal: Notify,
    rotation: Notify,
}

#[derive(Debug, Default)]
struct Shown {
    peers: BTreeMap<NodeId, Standing>,
    refusals: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Standing {
    origin: KeyOrigin,
    epoch: Option<u64>,
    since: Option<Instant>,
    failure: Option<String>,
}

impl Report {
    /// Shows how it stands now. `failures`: why the last session of a peer led to nothing.
    pub(super) fn show(
        &self,
        partners: &BTreeMap<NodeId, Partner>,
        agenda: &Agenda,
        failures: &BTreeMap<NodeId, String>,
        refusals: BTreeMap<&'static str, u64>,
    ) {
        let standing = |(&peer, partner): (&NodeId, &Partner)| {
            let taken = agenda.taken(peer);
            let origin = match (taken, partner.has_keys) {
                (Some(taken), _) => taken.group.into(),
                (None, true) => KeyOrigin::Kept,
                (None, false) => KeyOrigin::None,
            };
            let standing = Standing {
                origin,
                epoch: taken.map(|taken| taken.epoch),
                since: taken.map(|taken| taken.at),
                failure: failures.get(&peer).cloned(),
            };
            (peer, standing)
        };
        let named = |(name, count): (&str, u64)| (name.to_owned(), count);
        let shown = Shown {
            peers: partners.iter().map(standing).collect(),
            refusals: refusals.into_iter().map(named).collect(),
        };
        *self.lock() = shown;
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has other keys derived, soon. Returns with how many peers at most.
    pub(in crate::agent) fn renew(&self) -> usize {
        self.renewal.notify_one();
        self.lock().peers.len()
    }

    /// Waits until somebody wants that.
    pub(super) async fn renewal(&self) {
        self.renewal.notified().await;
    }

    /// Has the node's own keys changed, soon. Returns how many peers are to hear of it at most.
    pub(in crate::agent) fn rotate(&self) -> usize {
        self.rotation.notify_one();
        self.lock().peers.len()
    }

    /// Waits until somebody wants that.
    pub(in crate::agent) async fn rotation(&self) {
        self.rotation.notified().await;
    }

    /// Each peer, and how many sessions of others were refused by which reason.
    pub(in crate::agent) fn status(
        &self,
        now: Instant,
    ) -> (Vec<PeerKeyStatus>, BTreeMap<String, u64>) {
        let shown = self.lock();
        let age = |since: Instant| {
            let age = now.saturating_duration_since(since).as_millis();
            u64::try_from(age).unwrap_or(u64::MAX)
        };
        let peers = shown.peers.iter().map(|(&id, standing)| PeerKeyStatus {
            id,
            post_quantum: standing.origin,
            epoch: standing.epoch,
            age_ms: standing.since.map(age),
            failure: standing.failure.clone(),
        });
        (peers.collect(), shown.refusals.clone())
    }
}
