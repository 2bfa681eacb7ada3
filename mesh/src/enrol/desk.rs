//! Who gets which certificate: the decision on one request of a node.

use super::message::{MessageError, Request};
use crate::ca::csr::{Csr, CsrError};
use crate::hub::tokens::TokenRefusal;
use crate::token::SecretHash;
use crate::trust::{PeerId, Role};

/// A certificate that somebody may have, once the proof holds.
#[derive(Debug)]
#[non_exhaustive]
pub struct Wanted {
    /// The node.
    pub node: String,
    /// For this key.
    pub csr: Csr,
    /// By what it is proven.
    pub proof: Proof,
}

/// By what a node proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// By a token, which is used up.
    Token(SecretHash),
    /// By the certificate that it has shown.
    Certificate,
}

/// Why a guest gets nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnrolRefusal {
    /// It is no request.
    #[error("{0}: the request cannot be read; use the same version as the hub")]
    Message(#[from] MessageError),
    /// Its key cannot be certified.
    #[error("{0}")]
    Csr(#[from] CsrError),
    /// It renews a certificate and shows none.
    #[error("a certificate is renewed by whoever shows it; enrol with a token")]
    CertificateMissing,
    /// It shows a certificate that is not renewed here.
    #[error("only nodes of cluster {cluster} renew their certificates here, not {peer}")]
    RoleOther {
        /// The hub's.
        cluster: String,
        /// Who asks.
        peer: PeerId,
    },
    /// The cluster does not have that node any more.
    #[error("cluster {cluster} has no node {node}; add it to the hub's source")]
    NodeUnknown {
        /// The hub's.
        cluster: String,
        /// Who asks.
        node: String,
    },
    /// The node is cut off.
    #[error("node {node} was revoked; an operator lets it in again with `hawser readmit {node}`")]
    NodeRevoked {
        /// Who asks.
        node: String,
    },
    /// Its token is not good.
    #[error("{0}")]
    Token(#[from] TokenRefusal),
    /// The hub's folder of tokens is broken; its log says more.
    #[error("the hub cannot look tokens up; see its log")]
    StoreBroken,
    /// The hub's certificates are brought from elsewhere.
    #[error("this hub issues no certificates (its file has a tls section); bring the node's, too")]
    NotIssuing,
    /// The CA cannot sign; the hub's log says more.
    #[error("the hub cannot issue a certificate; see its log")]
    Issue,
}

impl EnrolRefusal {
    /// Its name in metrics, logs and answers.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Message(error) => error.name(),
            Self::Csr(error) => error.name(),
            Self::CertificateMissing => "certificate_missing",
            Self::RoleOther { .. } => "role_other",
            Self::NodeUnknown { .. } => "node_unknown",
            Self::NodeRevoked { .. } => "node_revoked",
            Self::Token(refusal) => refusal.name(),
            Self::StoreBroken => "token_store_broken",
            Self::NotIssuing => "enrol_off",
            Self::Issue => "issue_failed",
        }
    }
}

/// Says what a node asks for, and by what it must prove that it may have it. A token's proof is still to be looked up.
/// `is_member`: the peer is a node that the cluster has; a node that is let in by a token may come to be one later.
///
/// # Errors
/// It gets nothing, whatever it proves.
pub fn weigh(
    request: Request,
    peer: Option<&PeerId>,
    is_member: bool,
    cluster: &str,
) -> Result<Wanted, EnrolRefusal> {
    match request {
        Request::Node(node) => Ok(Wanted {
            csr: Csr::parse(&node.csr)?,
            proof: Proof::Token(node.secret.hash()),
            node: node.name,
        }),
        // Clusters go to another desk.
        Request::Join(_) => Err(MessageError::Unknown.into()),
        Request::Renew { csr } => {
            let peer = peer.ok_or(EnrolRefusal::CertificateMissing)?;
            match &peer.role {
                Role::Node(name) if peer.cluster == cluster && !is_member => {
                    Err(EnrolRefusal::NodeUnknown {
                        cluster: cluster.to_owned(),
                        node: name.clone(),
                    })
                }
                Role::Node(name) if peer.cluster == cluster => Ok(Wanted {
                    node: name.clone(),
                    csr: Csr::parse(&csr)?,
                    proof: Proof::Certificate,
                }),
                Role::Node(_) | Role::Hub(_) => Err(EnrolRefusal::RoleOther {
                    cluster: cluster.to_owned(),
                    peer: peer.clone(),
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::csr::{new_key, request_of};
    use crate::enrol::message::NodeRequest;
    use crate::token::Secret;
    use bytes::Bytes;

    fn csr() -> Bytes {
        request_of(&new_key().unwrap()).unwrap()
    }

    fn node(csr: Bytes) -> Request {
        Request::Node(NodeRequest {
            secret: Secret::from_slice(&[7; 32]).unwrap(),
            name: "east-1".to_owned(),
            csr,
        })
    }

    #[test]
    fn a_node_without_certificate_proves_itself_by_its_token() {
        let hash = Secret::from_slice(&[7; 32]).unwrap().hash();
        // Whatever it shows besides.
        for peer in [None, Some(&PeerId::node("east", "other"))] {
            let wanted = weigh(node(csr()), peer, false, "east").unwrap();
            assert_eq!(wanted.node, "east-1");
            assert_eq!(wanted.proof, Proof::Token(hash));
        }
    }

    #[test]
    fn a_node_renews_its_own_name_and_nobody_renews_another() {
        let peer = PeerId::node("east", "east-1");
        let renew = || Request::Renew { csr: csr() };
        let wanted = weigh(renew(), Some(&peer), true, "east").unwrap();
        assert_eq!(
            (wanted.node.as_str(), wanted.proof),
            ("east-1", Proof::Certificate)
        );
        for (peer, is_member, name) in [
            (None, false, "certificate_missing"),
            (Some(peer), false, "node_unknown"),
            (Some(PeerId::node("west", "east-1")), true, "role_other"),
            (Some(PeerId::hub("west", "hub-1")), false, "role_other"),
            (Some(PeerId::hub("east", "hub-1")), false, "role_other"),
        ] {
            let refusal = weigh(renew(), peer.as_ref(), is_member, "east").unwrap_err();
            assert_eq!(refusal.name(), name);
            assert!(!refusal.to_string().contains('\n'));
        }
    }

    #[test]
    fn a_key_that_nobody_has_shown_to_have_is_refused_before_a_token_is_used() {
        let mut forged = csr().to_vec();
        *forged.last_mut().unwrap() ^= 1;
        for bytes in [Bytes::from_static(b"csr"), forged.into()] {
            let refusal = weigh(node(bytes.clone()), None, false, "east").unwrap_err();
            assert_eq!(refusal.name(), "csr_malformed");
            let peer = PeerId::node("east", "east-1");
            let refusal =
                weigh(Request::Renew { csr: bytes }, Some(&peer), true, "east").unwrap_err();
            assert_eq!(refusal.name(), "csr_malformed");
        }
    }
}
