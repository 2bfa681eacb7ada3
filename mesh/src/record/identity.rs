//! What an identity stands for.

use hawser_tunnel::identity::Identity;
use std::collections::BTreeMap;

/// An identity of the origin: pods of one namespace with the same labels, of those that matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityRecord {
    /// The number on every packet; never a reserved one.
    pub number: Identity,
    /// A DNS label.
    pub namespace: String,
    /// The labels that matter.
    pub labels: BTreeMap<String, String>,
}
