//! Derives what is wanted from the file, from what hubs said, and from what was learnt of the node.

use super::keys::KnownKeys;
use super::{COALESCE, Node, Records, blocking};
use crate::agent::departed::subtract;
use crate::agent::desired::Desired;
use crate::agent::dirty::{Dirty, Scope};
use crate::agent::learned::Learned;
use crate::agent::paths::{self, Paths};
use crate::agent::replicated::{Composed, Conflict, Contact, Waiting, compose};
use crate::config::NodeConfig;
use hawser_tunnel::node::NodeId;
use hawser_tunnel::state::{Digest, State};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::time::Instant;

/// Of the time between two derivations at most one part in so many is spent in them, however fast nodes come and go. With
/// 25,000 peers one takes a few tenths of a second.
const SHARE: u32 = 10;

/// What is to be in force.
#[derive(Debug)]
pub(super) struct Wanted {
    /// In the data plane.
    pub(super) state: Arc<State>,
    pub(super) digest: Digest,
    /// In the kernel.
    pub(super) desired: Desired,
    /// Peers that records tell of.
    pub(super) contacts: BTreeMap<NodeId, Contact>,
    /// The CAs of other clusters in PEM, by name.
    pub(super) authorities: BTreeMap<String, String>,
}

/// What it is derived from beside file and records.
#[derive(Debug)]
struct Known {
    blocked: BTreeSet<IpNet>,
    paths: Arc<Paths>,
    fallback: u32,
    keys: KnownKeys,
}

impl Wanted {
    fn new(config: &NodeConfig, composed: Composed, known: &Known) -> Self {
        let mut state = composed.state;
        let listed = state.guard.mesh.union(&config.released);
        let departed = subtract(&known.blocked, &listed.copied().collect());
        state.guard.mesh.extend(departed);
        paths::measure(&mut state, &known.paths, known.fallback);
        let contacts = composed.contacts;
        known.keys.fill(&mut state, &contacts, config.post_quantum);
        Self {
            digest: state.digest(),
            desired: Desired::new(&state, &composed.routers),
            state: Arc::new(state),
            contacts,
            authorities: composed.authorities,
        }
    }
}

impl Node {
    /// Hubs said something new of the mesh. It is looked at soon, together with what comes next.
    pub(in crate::agent) fn handle_records(&mut self, records: Records) {
        self.records = records;
        self.rebuild_soon();
    }

    /// Derives everything anew, together with what comes next.
    pub(super) fn rebuild_soon(&mut self) {
        let (took, done) = self.derived;
        let due = (Instant::now() + COALESCE).max(done + took * (SHARE - 1));
        self.stale = Some(self.stale.map_or(due, |stale| stale.min(due)));
    }

    /// Derives everything that is wanted. While that cannot be told, what was wanted before stays so.
    pub(super) async fn rebuild(&mut self) {
        self.stale = None;
        self.reports = true;
        self.roster_stale = true;
        let start = Instant::now();
        let (config, records) = (Arc::clone(&self.config), Arc::clone(&self.records));
        let composed = match blocking(move || derive(&config, &records)).await {
            Ok(composed) => composed,
            Err(waiting) => return self.note_waiting(Some(waiting)),
        };
        self.note_waiting(None);
        self.note_conflicts(&composed.conflicts);
        if self.guarded {
            self.look_up_new_paths(&composed.state).await;
        }
        if let Some(before) = &self.wanted {
            self.blocked.extend(&before.state.guard.mesh);
        }
        self.keys.retain(&composed.contacts);
        let known = Known {
            keys: self.keys.clone(),
            blocked: self.blocked.clone(),
            paths: Arc::clone(&self.paths),
            fallback: self.fallback,
        };
        let config = Arc::clone(&self.config);
        let wanted = blocking(move || Wanted::new(&config, composed, &known)).await;
        let before = self.wanted.as_ref();
        if before.is_none_or(|before| before.digest != wanted.digest) {
            self.conversation.retry();
            self.look_at(Dirty::KERNEL | Dirty::GUARD);
        }
        let guard = &wanted.state.guard;
        self.scope = Scope {
            device: guard.device.clone(),
            index: self.scope.index,
            underlay: guard.underlay.clone(),
            mesh: guard.mesh.clone(),
            routes: wanted.desired.prefixes(),
        };
        self.wanted = Some(wanted);
        self.derived = (start.elapsed(), Instant::now());
    }

    fn note_waiting(&mut self, waiting: Option<Waiting>) {
        if self.waiting == waiting {
            return;
        }
        self.waiting = waiting;
        match waiting {
            Some(waiting) => {
                let keeps = self.wanted.is_some();
                tracing::warn!(reason = waiting.name(), keeps, "{waiting}");
            }
            None => tracing::info!("a hub has told which node this is"),
        }
    }

    /// Tells of conflicts that are new, and of those that are over.
    fn note_conflicts(&mut self, conflicts: &BTreeSet<Conflict>) {
        for conflict in conflicts.difference(&self.conflicts) {
            tracing::warn!(reason = conflict.name(), "left out: {conflict}");
        }
        for conflict in self.conflicts.difference(conflicts) {
            tracing::info!(reason = conflict.name(), "over: {conflict}");
        }
        self.conflicts.clone_from(conflicts);
    }
}

fn derive(config: &NodeConfig, records: &Records) -> Result<Composed, Waiting> {
    // Without a hub the file is all there is, and was checked whole.
    if config.hub.is_none()
        && let Some(state) = config.state()
    {
        return Ok(Composed {
            state,
            routers: config.routers.clone(),
            contacts: BTreeMap::new(),
            authorities: BTreeMap::new(),
            conflicts: BTreeSet::new(),
        });
    }
    let learned = Learned::read(&config.cluster, &config.name, records.iter().cloned());
    compose(config, learned)
}
