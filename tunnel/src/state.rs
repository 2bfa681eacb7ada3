//! The desired state of a node's data plane: what an agent sends, whole or by change.
//!
//! [`State`] is plain data and may be wrong; [`Checked`] is the proof that it is not. Digests are
//! equal exactly where states are equal, so a peer that reconnects learns with one round trip that
//! nothing is to be done.

use crate::guard::Guard;
use crate::identity::Identity;
use crate::key::{PresharedKey, PublicKey};
use crate::node::{ClusterId, NodeId};
use crate::vni::Vni;
use blake2::{Blake2s256, Digest as _};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

mod change;
mod check;
pub use change::{Change, ChangeError};
pub use check::{Checked, StateError, is_host, martian};

/// Everything that the data plane of one node is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct State {
    /// The network of the clusterset.
    pub vni: Vni,
    /// This node.
    pub node: NodeId,
    /// The pod prefixes of this node.
    pub prefixes: BTreeSet<IpNet>,
    /// Local addresses and whose they are: pods, and the router addresses as [`Identity::HOST`].
    pub endpoints: BTreeMap<IpAddr, Identity>,
    /// Every cluster, this node's own included.
    pub clusters: BTreeMap<ClusterId, Cluster>,
    /// Every other node.
    pub peers: BTreeMap<NodeId, Peer>,
    /// What must never be on an underlay link in clear.
    pub guard: Guard,
    /// What becomes of the transport checksums of packets that pods leave to be offloaded.
    #[serde(default, skip_serializing_if = "Checksums::is_default")]
    pub checksums: Checksums,
}

/// What becomes of transport checksums that a pod's kernel left to be filled in, on the way to nodes that speak our
/// option. Foreign peers always get them filled in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Checksums {
    /// They stay as they are; the receiver's kernel fills them in where a packet leaves over hardware.
    #[default]
    Left,
    /// They are filled in here.
    Filled,
}

impl Checksums {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What is known of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cluster {
    /// Its name, for people.
    pub name: String,
    /// All its pod prefixes; those of its nodes lie inside.
    pub prefixes: BTreeSet<IpNet>,
    /// The identities that it published.
    pub identities: BTreeSet<Identity>,
}

/// Another node, as a WireGuard peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Peer {
    /// Its name, for people.
    pub name: String,
    /// Whether it speaks our Geneve option.
    pub kind: PeerKind,
    /// The pod prefixes that it owns.
    pub prefixes: BTreeSet<IpNet>,
    /// Its lanes; a flow keeps to one of them.
    pub lanes: Vec<Lane>,
    /// The MTU of the underlay path to it, in bytes.
    pub path_mtu: u16,
    /// Whether it is in use, so that its death must be known: it is probed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub watched: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum PeerKind {
    /// A Hawser node.
    Native,
    /// A stock WireGuard peer without our option; all its packets have this identity.
    Foreign {
        /// The identity that its packets get.
        identity: Identity,
    },
}

/// One WireGuard key and UDP port of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lane {
    /// The lane's key.
    pub public_key: PublicKey,
    /// Where to reach it at first; it may roam. `None`: it must speak first.
    pub endpoint: Option<SocketAddr>,
    /// The pre-shared key with this lane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preshared_key: Option<PresharedKey>,
    /// Whether there may be no session without one: packets wait for it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub needs_key: bool,
}

impl Lane {
    /// Whether no session may be made yet, for want of a pre-shared key.
    pub fn awaits_key(&self) -> bool {
        self.needs_key && self.preshared_key.is_none()
    }
}

/// BLAKE2s of a state's canonical form; hexadecimal in text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// A state in force: a number that grows with each change and the digest of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Revision {
    /// Grows by one with every change; kept over restarts.
    pub number: u64,
    /// The content.
    pub digest: Digest,
}

impl State {
    /// The digest of this state.
    pub fn digest(&self) -> Digest {
        // Every collection is ordered, so the JSON is canonical.
        let json = zeroize::Zeroizing::new(
            serde_json::to_vec(self).expect("a state has only string-like keys"),
        );
        Digest(Blake2s256::digest(&*json).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        const RULE: &str = "a digest is 64 hexadecimal digits";
        let mut bytes = [0; 32];
        // `from_str_radix` alone would take a sign.
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(RULE);
        }
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| RULE)?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
pub(crate) mod tests;
