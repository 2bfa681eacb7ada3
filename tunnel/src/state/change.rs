//! A state's difference to the next, and how it is applied.

use super::{Cluster, Peer, State};
use crate::guard::Guard;
use crate::identity::Identity;
use crate::node::{ClusterId, NodeId};
use crate::vni::Vni;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// One step from a state to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Change {
    /// What the node itself is.
    SetNode {
        /// The network of the clusterset.
        vni: Vni,
        /// This node.
        node: NodeId,
        /// Its pod prefixes.
        prefixes: BTreeSet<IpNet>,
    },
    /// A local address appeared or changed identity.
    SetEndpoint {
        /// The address.
        address: IpAddr,
        /// Whose it is now.
        identity: Identity,
    },
    /// A local address is gone.
    RemoveEndpoint {
        /// The address.
        address: IpAddr,
    },
    /// A cluster appeared or changed.
    SetCluster {
        /// Which.
        id: ClusterId,
        /// What it is now.
        cluster: Cluster,
    },
    /// A cluster left.
    RemoveCluster {
        /// Which.
        id: ClusterId,
    },
    /// A peer appeared or changed.
    SetPeer {
        /// Which.
        id: NodeId,
        /// What it is now.
        peer: Peer,
    },
    /// A peer is gone.
    RemovePeer {
        /// Which.
        id: NodeId,
    },
    /// The guard changed.
    SetGuard {
        /// What it protects now.
        guard: Guard,
    },
}

/// A change that does not fit the state it is for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("change removes {what}, which is not there")]
pub struct ChangeError {
    /// What was to be removed.
    pub what: String,
}

fn changed<'a, K: Ord, V: PartialEq>(
    from: &'a BTreeMap<K, V>,
    to: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, Option<&'a V>)> {
    let removed = from
        .keys()
        .filter(|key| !to.contains_key(key))
        .map(|key| (key, None));
    let set = to
        .iter()
        .filter(|(key, value)| from.get(key) != Some(value))
        .map(|(key, value)| (key, Some(value)));
    removed.chain(set)
}

impl State {
    /// The changes that lead from `self` to `next`, in an order that can be applied.
    pub fn changes_to(&self, next: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        if (self.vni, self.node, &self.prefixes) != (next.vni, next.node, &next.prefixes) {
            changes.push(Change::SetNode {
                vni: next.vni,
                node: next.node,
                prefixes: next.prefixes.clone(),
            });
        }
        changes.extend(
            changed(&self.clusters, &next.clusters).map(|(&id, set)| match set {
                Some(cluster) => Change::SetCluster {
                    id,
                    cluster: cluster.clone(),
                },
                None => Change::RemoveCluster { id },
            }),
        );
        changes.extend(
            changed(&self.peers, &next.peers).map(|(&id, set)| match set {
                Some(peer) => Change::SetPeer {
                    id,
                    peer: peer.clone(),
                },
                None => Change::RemovePeer { id },
            }),
        );
        changes.extend(changed(&self.endpoints, &next.endpoints).map(
            |(&address, set)| match set {
                Some(&identity) => Change::SetEndpoint { address, identity },
                None => Change::RemoveEndpoint { address },
            },
        ));
        if self.guard != next.guard {
            changes.push(Change::SetGuard {
                guard: next.guard.clone(),
            });
        }
        changes
    }

    /// Applies changes to a copy. All of them or, on an error, none.
    pub fn with_changes(&self, changes: Vec<Change>) -> Result<Self, ChangeError> {
        let mut state = self.clone();
        for change in changes {
            state.apply(change)?;
        }
        Ok(state)
    }

    fn apply(&mut self, change: Change) -> Result<(), ChangeError> {
        let gone = |what: String| ChangeError { what };
        match change {
            Change::SetNode {
                vni,
                node,
                prefixes,
            } => {
                self.vni = vni;
                self.node = node;
                self.prefixes = prefixes;
            }
            Change::SetEndpoint { address, identity } => {
                self.endpoints.insert(address, identity);
            }
            Change::RemoveEndpoint { address } => {
                self.endpoints
                    .remove(&address)
                    .ok_or_else(|| gone(format!("endpoint {address}")))?;
            }
            Change::SetCluster { id, cluster } => {
                self.clusters.insert(id, cluster);
            }
            Change::RemoveCluster { id } => {
                self.clusters
                    .remove(&id)
                    .ok_or_else(|| gone(format!("cluster {id}")))?;
            }
            Change::SetPeer { id, peer } => {
                self.peers.insert(id, peer);
            }
            Change::RemovePeer { id } => {
                self.peers
                    .remove(&id)
                    .ok_or_else(|| gone(format!("peer {id}")))?;
            }
            Change::SetGuard { guard } => self.guard = guard,
        }
        Ok(())
    }
}
