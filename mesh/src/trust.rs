//! Who is who between clusters: each cluster has its own CA, and a certificate speaks for exactly the cluster in its name
//! (docs/security.md, "Certificates").

mod authorities;
mod credentials;
mod followed;
mod peer_id;
mod pinned;
mod untrusted;

pub use authorities::{Authorities, AuthoritiesError};
pub use credentials::{CredentialError, Credentials};
pub(crate) use followed::Followed;
pub use peer_id::{PeerId, Role};
pub use pinned::Pinned;
pub use untrusted::Untrusted;

use crate::ca::show;
use crate::psk::Group;
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use std::collections::BTreeMap;
use std::sync::Arc;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;

/// The most certificates between a peer's own and its CA. Ours has none.
const MAX_INTERMEDIATES: usize = 2;
/// The largest certificate that is looked into, in bytes. Ours have 500.
const MAX_CERTIFICATE: usize = 8 << 10;
/// The most CAs of one cluster: the old, the new, and one to spare.
pub const MAX_CAS: usize = 4;

/// Which side of a connection the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It opened the connection.
    Client,
    /// It was dialled.
    Server,
}

/// Whom to talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A hub of this cluster.
    HubOf(String),
    /// Whoever may come to a hub of this cluster: its nodes, and hubs of others.
    GuestOf(String),
    /// This very node.
    Node {
        /// Its cluster.
        cluster: String,
        /// Its name there.
        name: String,
    },
    /// A node of any cluster that is trusted.
    AnyNode,
}

impl Expected {
    /// Whether this one is expected.
    ///
    /// # Errors
    /// [`Untrusted::ClusterOther`], [`Untrusted::RoleOther`] or [`Untrusted::NodeOther`].
    pub fn check(&self, peer: &PeerId) -> Result<(), Untrusted> {
        let other_cluster = || Untrusted::ClusterOther(peer.cluster.clone());
        match (self, &peer.role) {
            (Self::HubOf(cluster), Role::Hub(_)) if *cluster == peer.cluster => Ok(()),
            (Self::HubOf(cluster), Role::Hub(_) | Role::Node(_)) if *cluster != peer.cluster => {
                Err(other_cluster())
            }
            (Self::HubOf(_), Role::Hub(_) | Role::Node(_)) => Err(Untrusted::RoleOther),
            (Self::GuestOf(cluster), Role::Node(_)) if *cluster == peer.cluster => Ok(()),
            (Self::GuestOf(_), Role::Node(_)) => Err(other_cluster()),
            (Self::GuestOf(cluster), Role::Hub(_)) if *cluster != peer.cluster => Ok(()),
            (Self::GuestOf(_), Role::Hub(_)) => Err(Untrusted::RoleOther),
            (Self::Node { cluster, .. }, Role::Node(_)) if *cluster != peer.cluster => {
                Err(other_cluster())
            }
            (Self::Node { name, .. }, Role::Node(other)) if name != other => {
                Err(Untrusted::NodeOther(other.clone()))
            }
            (Self::Node { .. } | Self::AnyNode, Role::Node(_)) => Ok(()),
            (Self::Node { .. } | Self::AnyNode, Role::Hub(_)) => Err(Untrusted::RoleOther),
        }
    }
}

/// The CAs of the clusters of a clusterset.
#[derive(Clone)]
pub struct Trust {
    clusterset: String,
    clusters: BTreeMap<String, Authority>,
}

#[derive(Clone)]
struct Authority {
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    certificates: Arc<[CertificateDer<'static>]>,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let clusters: Vec<_> = self.clusters.keys().collect();
        f.debug_struct("Trust")
            .field("clusterset", &self.clusterset)
            .field("clusters", &clusters)
            .finish()
    }
}

/// Why a text is no CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    /// No PEM, or a certificate that cannot be read.
    #[error("must be certificates in PEM (BEGIN CERTIFICATE)")]
    Malformed,
    /// No certificate in it.
    #[error("must hold at least one certificate in PEM (BEGIN CERTIFICATE)")]
    None,
    /// See [`MAX_CAS`].
    #[error("must hold at most 4 certificates")]
    TooMany,
    /// A certificate that may not sign others.
    #[error("must hold certificates of a CA (basicConstraints CA:TRUE)")]
    NotCa,
}

impl Trust {
    /// Trusts nobody yet.
    pub fn new(clusterset: impl Into<String>) -> Self {
        Self {
            clusterset: clusterset.into(),
            clusters: BTreeMap::new(),
        }
    }

    /// Trusts the CAs in a PEM text, and from now on only those, for one cluster.
    ///
    /// # Errors
    /// The text is no CA; what was trusted before stands.
    pub fn set(&mut self, cluster: &str, pem: &str) -> Result<(), CaError> {
        let mut roots = RootCertStore::empty();
        let mut certificates = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|_| CaError::Malformed)?;
            let (rest, parsed) = x509_parser::parse_x509_certificate(&certificate)
                .map_err(|_| CaError::Malformed)?;
            if !rest.is_empty() {
                return Err(CaError::Malformed);
            }
            if !parsed.is_ca() {
                return Err(CaError::NotCa);
            }
            certificates.push(certificate.clone());
            roots.add(certificate).map_err(|_| CaError::Malformed)?;
        }
        match roots.len() {
            0 => return Err(CaError::None),
            1..=MAX_CAS => {}
            _ => return Err(CaError::TooMany),
        }
        let roots = Arc::new(roots);
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider()).build();
        let clients = clients.map_err(|_| CaError::Malformed)?;
        let authority = Authority {
            roots,
            clients,
            certificates: certificates.into(),
        };
        self.clusters.insert(cluster.to_owned(), authority);
        Ok(())
    }

    /// Trusts a cluster no longer.
    pub fn remove(&mut self, cluster: &str) {
        self.clusters.remove(cluster);
    }

    /// The clusters that are trusted.
    pub fn clusters(&self) -> impl Iterator<Item = &str> {
        self.clusters.keys().map(String::as_str)
    }

    /// The CAs of a cluster, as they are shown to those who do not know them yet.
    pub fn authorities(&self, cluster: &str) -> &[CertificateDer<'static>] {
        self.clusters
            .get(cluster)
            .map_or(&[], |authority| &authority.certificates)
    }

    /// The name of the clusterset.
    pub fn clusterset(&self) -> &str {
        &self.clusterset
    }

    /// Says who shows this certificate: its chain leads to a CA of the very cluster that it names, now.
    ///
    /// # Errors
    /// It speaks for nobody that we know, or not now.
    pub fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        side: Side,
        now: UnixTime,
    ) -> Result<PeerId, Untrusted> {
        let most = match side {
            Side::Client => MAX_INTERMEDIATES,
            // A hub shows its CAs to guests.
            Side::Server => MAX_INTERMEDIATES + MAX_CAS,
        };
        if intermediates.len() > most {
            return Err(Untrusted::ChainTooLong);
        }
        let mut all = std::iter::once(certificate).chain(intermediates);
        if all.any(|certificate| certificate.len() > MAX_CERTIFICATE) {
            return Err(Untrusted::CertificateTooLong);
        }
        let (clusterset, peer) = peer_id::of_certificate(certificate)?;
        if clusterset != self.clusterset {
            return Err(Untrusted::ClustersetOther(clusterset));
        }
        let Some(authority) = self.clusters.get(&peer.cluster) else {
            return Err(Untrusted::ClusterUnknown(peer.cluster));
        };
        match side {
            Side::Client => authority
                .clients
                .verify_client_cert(certificate, intermediates, now)
                .map(drop)?,
            Side::Server => verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(certificate)?,
                &authority.roots,
                intermediates,
                now,
                provider().signature_verification_algorithms.all,
            )?,
        }
        Ok(peer)
    }
}

/// Whether the key of a certificate signed a message.
pub(crate) fn is_signed_by(key: &show::Shown, message: &[u8], signature: &[u8]) -> bool {
    let Ok((_, info)) = SubjectPublicKeyInfo::from_der(&key.public_key) else {
        return false;
    };
    // A key of another kind than an algorithm's verifies nothing.
    let key = &info.subject_public_key.data;
    let algorithms = provider().signature_verification_algorithms.all;
    let mut verified = algorithms
        .iter()
        .map(|algorithm| algorithm.verify_signature(key, message, signature));
    verified.any(|verified| verified.is_ok())
}

/// Our cryptography: aws-lc-rs, only what TLS 1.3 has, the post-quantum group first. It is never installed as the
/// process's default, so that nothing uses it by chance.
pub fn provider() -> Arc<CryptoProvider> {
    use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    let provider = PROVIDER.get_or_init(|| {
        Arc::new(CryptoProvider {
            cipher_suites: vec![
                cipher_suite::TLS13_AES_256_GCM_SHA384,
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519],
            ..aws_lc_rs::default_provider()
        })
    });
    Arc::clone(provider)
}

/// The same with one group alone: so that it is known by which a handshake was made.
pub(crate) fn provider_of(group: Group) -> Arc<CryptoProvider> {
    use rustls::crypto::aws_lc_rs::kx_group;
    let only = match group {
        Group::Hybrid => kx_group::X25519MLKEM768,
        Group::Classical => kx_group::X25519,
    };
    Arc::new(CryptoProvider {
        kx_groups: vec![only],
        ..CryptoProvider::clone(&provider())
    })
}

#[cfg(test)]
mod tests;
