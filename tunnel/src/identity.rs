//! Identities, and the MAC address by which nftables learns them.

use crate::node::ClusterId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A 28-bit number, scoped by its cluster, that stands for a set of labels.
///
/// 1 to 255 are reserved and 0 is none; see the constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Identity(u32);

/// A number that is no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("identity {0}: must be 1 to 268435455 (28 bits)")]
pub struct IdentityOutOfRange(pub u32);

impl Identity {
    /// The node itself, as seen on that node.
    pub const HOST: Self = Self(1);
    /// Another node of the clusterset: what a peer's [`Self::HOST`] becomes here.
    pub const REMOTE_NODE: Self = Self(2);
    /// Everything outside the clusterset.
    pub const WORLD: Self = Self(3);
    /// Health probes.
    pub const HEALTH: Self = Self(4);
    /// The first identity that stands for labels.
    pub const FIRST_UNRESERVED: u32 = 256;
    /// The largest value: 28 bits.
    pub const MAX: u32 = 0x0fff_ffff;

    /// Checks the range.
    pub fn new(value: u32) -> Result<Self, IdentityOutOfRange> {
        if value == 0 || value > Self::MAX {
            return Err(IdentityOutOfRange(value));
        }
        Ok(Self(value))
    }

    /// Whether the number is one of 1 to 255, which no cluster may publish.
    pub fn is_reserved(self) -> bool {
        self.0 < Self::FIRST_UNRESERVED
    }
}

impl TryFrom<u32> for Identity {
    type Error = IdentityOutOfRange;
    fn try_from(value: u32) -> Result<Self, IdentityOutOfRange> {
        Self::new(value)
    }
}

impl From<Identity> for u32 {
    fn from(identity: Identity) -> Self {
        identity.0
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A MAC address, in the order of its bytes on the wire.
pub type Mac = [u8; 6];

/// The source MAC address that carries (cluster, identity) into nftables:
/// `02 | cluster ID (12 bits) | identity (28 bits)`. Locally administered, unicast.
pub fn identity_mac(cluster: ClusterId, identity: Identity) -> Mac {
    let value = 0x02_u64 << 40 | u64::from(u16::from(cluster)) << 28 | u64::from(identity.0);
    let [_, _, mac @ ..] = value.to_be_bytes();
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    #[test]
    fn twenty_eight_bits_and_never_zero() {
        assert_eq!(Identity::new(0), Err(IdentityOutOfRange(0)));
        assert!(Identity::new(Identity::MAX).is_ok());
        assert_eq!(Identity::new(1 << 28), Err(IdentityOutOfRange(1 << 28)));
    }

    #[test]
    fn mac_holds_cluster_and_identity_side_by_side() {
        let cluster = ClusterId::new(0x7ff).unwrap();
        let identity = Identity::new(0x0abc_def1).unwrap();
        assert_eq!(identity_mac(cluster, identity), hex!("02 7f fa bc de f1"));
        let cluster = ClusterId::new(1).unwrap();
        assert_eq!(
            identity_mac(cluster, Identity::HOST),
            hex!("02 00 10 00 00 01")
        );
    }
}
