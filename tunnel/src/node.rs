//! Who a node is: cluster ID, node index, and the overlay address made of both.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// The number of a cluster in its clusterset, 1 to 2047.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct ClusterId(u16);

/// The number of a node in its cluster, 1 to 65534.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct NodeIndex(u16);

/// A node of the clusterset; written `cluster/index`, as in `2/17`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId {
    /// The cluster that the node belongs to.
    pub cluster: ClusterId,
    /// Its number there.
    pub index: NodeIndex,
}

/// A number outside the range of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeIdError {
    /// Not a cluster ID.
    #[error("cluster id {0}: must be 1 to 2047")]
    Cluster(u16),
    /// Not a node index.
    #[error("node index {0}: must be 1 to 65534")]
    Index(u16),
    /// Not two numbers with a slash between them.
    #[error("node id: must be CLUSTER/INDEX, as in 2/17")]
    Form,
}

impl ClusterId {
    /// The largest cluster ID: eleven bits, so that overlay addresses stay inside 240.0.0.0/5.
    pub const MAX: u16 = 2047;

    /// Checks the range.
    pub fn new(value: u16) -> Result<Self, NodeIdError> {
        if value == 0 || value > Self::MAX {
            return Err(NodeIdError::Cluster(value));
        }
        Ok(Self(value))
    }
}

impl NodeIndex {
    /// The largest node index.
    pub const MAX: u16 = 65534;

    /// Checks the range.
    pub fn new(value: u16) -> Result<Self, NodeIdError> {
        if value == 0 || value > Self::MAX {
            return Err(NodeIdError::Index(value));
        }
        Ok(Self(value))
    }
}

impl NodeId {
    /// The overlay address: `240.0.0.0 | cluster ID << 16 | node index`. It exists only inside
    /// WireGuard.
    pub fn overlay_address(self) -> Ipv4Addr {
        let cluster = u32::from(self.cluster.0);
        let index = u32::from(self.index.0);
        Ipv4Addr::from(0xf000_0000 | cluster << 16 | index)
    }

    /// The node behind an overlay address, or `None` where the address is no node's.
    pub fn from_overlay_address(address: Ipv4Addr) -> Option<Self> {
        let [high, low, index_high, index_low] = address.octets();
        if high >> 3 != 0xf0 >> 3 {
            return None;
        }
        Some(Self {
            cluster: ClusterId::new(u16::from_be_bytes([high & 0x07, low])).ok()?,
            index: NodeIndex::new(u16::from_be_bytes([index_high, index_low])).ok()?,
        })
    }
}

impl TryFrom<u16> for ClusterId {
    type Error = NodeIdError;
    fn try_from(value: u16) -> Result<Self, NodeIdError> {
        Self::new(value)
    }
}

impl From<ClusterId> for u16 {
    fn from(id: ClusterId) -> Self {
        id.0
    }
}

impl TryFrom<u16> for NodeIndex {
    type Error = NodeIdError;
    fn try_from(value: u16) -> Result<Self, NodeIdError> {
        Self::new(value)
    }
}

impl From<NodeIndex> for u16 {
    fn from(index: NodeIndex) -> Self {
        index.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster.0, self.index.0)
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;
    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        let (cluster, index) = text.split_once('/').ok_or(NodeIdError::Form)?;
        Ok(Self {
            cluster: ClusterId::new(cluster.parse().map_err(|_| NodeIdError::Form)?)?,
            index: NodeIndex::new(index.parse().map_err(|_| NodeIdError::Form)?)?,
        })
    }
}

impl TryFrom<String> for NodeId {
    type Error = NodeIdError;
    fn try_from(text: String) -> Result<Self, NodeIdError> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_of_cluster_id_and_node_index() {
        assert_eq!(ClusterId::new(0), Err(NodeIdError::Cluster(0)));
        assert!(ClusterId::new(2047).is_ok());
        assert_eq!(ClusterId::new(2048), Err(NodeIdError::Cluster(2048)));
        assert_eq!(NodeIndex::new(0), Err(NodeIdError::Index(0)));
        assert!(NodeIndex::new(65534).is_ok());
        assert_eq!(NodeIndex::new(65535), Err(NodeIdError::Index(65535)));
    }

    #[test]
    fn the_highest_overlay_address_is_still_inside_240_slash_5() {
        let id: NodeId = "2047/65534".parse().unwrap();
        assert_eq!(id.overlay_address(), Ipv4Addr::new(247, 255, 255, 254));
        assert_eq!(
            NodeId::from_overlay_address(Ipv4Addr::new(248, 0, 0, 1)),
            None
        );
        assert_eq!(
            NodeId::from_overlay_address(Ipv4Addr::new(240, 0, 0, 1)),
            None
        );
    }

    proptest! {
        #[test]
        fn overlay_address_and_text_round_trip(cluster in 1u16..=2047, index in 1u16..=65534) {
            let id = NodeId { cluster: ClusterId::new(cluster).unwrap(), index: NodeIndex::new(index).unwrap() };
            prop_assert_eq!(NodeId::from_overlay_address(id.overlay_address()), Some(id));
            prop_assert_eq!(id.to_string().parse::<NodeId>(), Ok(id));
        }
    }
}
