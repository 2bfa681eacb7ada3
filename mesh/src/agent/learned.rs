//! What the records of all clusters say of the mesh, decoded.

use crate::record::{Cluster, Key, Kind, Node, Pod, Record};
use crate::wire::decode_record;
use bytes::Bytes;
use hawser_tunnel::identity::Identity;
use hawser_tunnel::node::{ClusterId, NodeId, NodeIndex};
use std::collections::{BTreeMap, BTreeSet};

/// The kinds of records that make the state of a data plane. Others may come and go without a look at it.
pub(crate) const KINDS: [Kind; 4] = [Kind::Node, Kind::Identity, Kind::Pod, Kind::Cluster];

/// Whether a record under this key is one of [`KINDS`].
pub(crate) fn makes_state(key: &Key) -> bool {
    key.kind().is_some_and(|kind| KINDS.contains(&kind))
}

/// What was heard, by its meaning. Which of it can be true together is for [`super::replicated`] to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// The cluster whose hub tells all this.
    pub own_cluster: Option<ClusterId>,
    /// The members of the clusterset, as the own hub granted them.
    pub clusters: BTreeMap<ClusterId, Cluster>,
    /// The identities that each of them published.
    pub identities: BTreeMap<ClusterId, BTreeSet<Identity>>,
    /// Every node.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Pods of the own cluster, each with the node that it runs on.
    pub pods: Vec<Pod>,
    /// Nodes of this node's name, of which the first is taken for it.
    pub namesakes: Vec<NodeIndex>,
}

impl Learned {
    /// Reads records of [`KINDS`]. Those that are malformed are left out: they were refused and counted as they came.
    ///
    /// `cluster` and `node` are the names of this node and its cluster. What only the own hub may tell counts from the
    /// own origin alone: the one that lists itself under the cluster's name.
    pub fn read(
        cluster: &str,
        node: &str,
        records: impl IntoIterator<Item = (ClusterId, Key, Bytes)>,
    ) -> Self {
        let mut learned = Self::default();
        let mut members: BTreeMap<ClusterId, Vec<Cluster>> = BTreeMap::new();
        let mut pods: BTreeMap<ClusterId, Vec<Pod>> = BTreeMap::new();
        for (origin, key, value) in records {
            match decode_record(&key, &value) {
                Ok(Record::Node(node)) => {
                    let index = node.index;
                    let id = NodeId {
                        cluster: origin,
                        index,
                    };
                    learned.nodes.insert(id, node);
                }
                Ok(Record::Identity(identity)) => {
                    let identities = learned.identities.entry(origin).or_default();
                    identities.insert(identity.number);
                }
                Ok(Record::Pod(pod)) => pods.entry(origin).or_default().push(pod),
                Ok(Record::Cluster(member)) => members.entry(origin).or_default().push(member),
                Ok(
                    Record::Service(_)
                    | Record::Endpoint(_)
                    | Record::Revocations(_)
                    | Record::Authorities(_)
                    | Record::Policy(_)
                    | Record::Namespace(_),
                )
                | Err(_) => {}
            }
        }
        let is_own = |&(&origin, members): &(&ClusterId, &Vec<Cluster>)| {
            let own = |member: &Cluster| member.id == origin && member.name == cluster;
            members.iter().any(own)
        };
        let Some(own) = members.iter().find(is_own).map(|(&origin, _)| origin) else {
            return learned;
        };
        learned.own_cluster = Some(own);
        let members = members.remove(&own).unwrap_or_default();
        learned.clusters = members
            .into_iter()
            .map(|member| (member.id, member))
            .collect();
        let named = learned
            .nodes
            .iter()
            .filter(|(id, record)| id.cluster == own && record.name == node);
        learned.namesakes = named.map(|(id, _)| id.index).collect();
        learned.pods = pods.remove(&own).unwrap_or_default();
        learned
    }

    /// This node, where its record came.
    pub fn node(&self) -> Option<NodeId> {
        Some(NodeId {
            cluster: self.own_cluster?,
            index: *self.namesakes.first()?,
        })
    }
}
