//! The name in a certificate.

use super::Untrusted;
use crate::record::{check_label, check_name};
use std::fmt;
use x509_parser::extensions::GeneralName;

/// Who a peer is, as its certificate proves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerId {
    /// The name of its cluster.
    pub cluster: String,
    /// What it is there.
    pub role: Role,
}

/// What a peer is in its cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The agent of the node with this name.
    Node(String),
    /// The hub's replica with this name.
    Hub(String),
}

impl PeerId {
    /// A node of a cluster.
    pub fn node(cluster: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            cluster: cluster.into(),
            role: Role::Node(name.into()),
        }
    }

    /// A replica of a cluster's hub.
    pub fn hub(cluster: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            cluster: cluster.into(),
            role: Role::Hub(name.into()),
        }
    }

    /// Its URI in a clusterset.
    pub fn uri(&self, clusterset: &str) -> String {
        format!("spiffe://{clusterset}/{self}")
    }

    /// The clusterset and the peer of a URI.
    ///
    /// # Errors
    /// [`Untrusted::IdentityMalformed`].
    pub fn parse(uri: &str) -> Result<(String, Self), Untrusted> {
        let parse = || {
            let mut parts = uri.strip_prefix("spiffe://")?.split('/');
            let clusterset = parts.next()?;
            let ("cluster", cluster) = (parts.next()?, parts.next()?) else {
                return None;
            };
            let (role, name) = (parts.next()?, parts.next()?);
            check_name(clusterset).ok()?;
            check_label(cluster).ok()?;
            check_name(name).ok()?;
            let role = match role {
                "node" => Role::Node(name.to_owned()),
                "hub" => Role::Hub(name.to_owned()),
                _ => return None,
            };
            let cluster = cluster.to_owned();
            let nothing_follows = parts.next().is_none();
            nothing_follows.then(|| (clusterset.to_owned(), Self { cluster, role }))
        };
        parse().ok_or(Untrusted::IdentityMalformed)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.role {
            Role::Node(name) => write!(f, "cluster/{}/node/{name}", self.cluster),
            Role::Hub(name) => write!(f, "cluster/{}/hub/{name}", self.cluster),
        }
    }
}

/// The clusterset and the peer of a certificate: it has one name, a URI.
pub(super) fn of_certificate(certificate: &[u8]) -> Result<(String, PeerId), Untrusted> {
    let (rest, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|_| Untrusted::Malformed)?;
    if !rest.is_empty() {
        return Err(Untrusted::Malformed);
    }
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| Untrusted::Malformed)?
        .ok_or(Untrusted::IdentityMissing)?;
    let [GeneralName::URI(uri)] = names.value.general_names.as_slice() else {
        return Err(Untrusted::IdentityMissing);
    };
    PeerId::parse(uri)
}
