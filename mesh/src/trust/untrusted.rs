//! Why a peer's certificate is not taken.

use rustls::CertificateError;

/// Why a certificate speaks for nobody here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Untrusted {
    /// It cannot be read.
    #[error("certificate_malformed")]
    Malformed,
    /// It has more than 8 KiB.
    #[error("certificate_too_long")]
    CertificateTooLong,
    /// More certificates came than a chain of ours has.
    #[error("certificate_chain_too_long")]
    ChainTooLong,
    /// It does not have exactly one URI as its name.
    #[error("identity_missing")]
    IdentityMissing,
    /// Its name is not `spiffe://CLUSTERSET/cluster/NAME/node/NAME` or `.../hub/NAME`.
    #[error("identity_malformed")]
    IdentityMalformed,
    /// It is of another clusterset.
    #[error("clusterset_other: {0}")]
    ClustersetOther(String),
    /// It is of a cluster that we do not know.
    #[error("cluster_unknown: {0}")]
    ClusterUnknown(String),
    /// It is of a cluster that was not expected here.
    #[error("cluster_other: {0}")]
    ClusterOther(String),
    /// A node where a hub was expected, a hub where a node was, or a hub of our own cluster where guests are.
    #[error("role_other")]
    RoleOther,
    /// Another node of the cluster than the one that was dialled.
    #[error("node_other: {0}")]
    NodeOther(String),
    /// No CA of the cluster that it names has signed it.
    #[error("issuer_unknown")]
    IssuerUnknown,
    /// None of the CAs that it shows has the key that the token names.
    #[error("pin_other")]
    PinOther,
    /// It is over, by our clock.
    #[error("certificate_expired")]
    Expired,
    /// It has not begun, by our clock.
    #[error("certificate_not_yet_valid")]
    NotYetValid,
    /// It is not made for this side of a connection.
    #[error("certificate_usage")]
    Usage,
    /// Something else that a certificate may not be.
    #[error("certificate_refused")]
    Refused,
}

impl Untrusted {
    /// Its name in metrics, logs and closing reasons.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Malformed => "certificate_malformed",
            Self::CertificateTooLong => "certificate_too_long",
            Self::ChainTooLong => "certificate_chain_too_long",
            Self::IdentityMissing => "identity_missing",
            Self::IdentityMalformed => "identity_malformed",
            Self::ClustersetOther(_) => "clusterset_other",
            Self::ClusterUnknown(_) => "cluster_unknown",
            Self::ClusterOther(_) => "cluster_other",
            Self::RoleOther => "role_other",
            Self::NodeOther(_) => "node_other",
            Self::IssuerUnknown => "issuer_unknown",
            Self::PinOther => "pin_other",
            Self::Expired => "certificate_expired",
            Self::NotYetValid => "certificate_not_yet_valid",
            Self::Usage => "certificate_usage",
            Self::Refused => "certificate_refused",
        }
    }
}

impl From<rustls::Error> for Untrusted {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "rustls has many errors, and its enums grow"
    )]
    fn from(error: rustls::Error) -> Self {
        let rustls::Error::InvalidCertificate(error) = error else {
            return Self::Refused;
        };
        match error {
            CertificateError::BadEncoding => Self::Malformed,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::IssuerUnknown,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::Usage
            }
            _ => Self::Refused,
        }
    }
}
