//! What we show others: a certificate and its key.

use super::{PeerId, Untrusted, peer_id};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use zeroize::{Zeroize as _, Zeroizing};

/// A certificate, its chain and its private key, which fit together.
#[derive(Clone)]
pub struct Credentials {
    clusterset: String,
    id: PeerId,
    expires: SystemTime,
    certified: Arc<CertifiedKey>,
    reset: Zeroizing<[u8; 32]>,
}

/// Without the key.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Why texts are no credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// The certificate's text.
    #[error("must be a certificate in PEM (BEGIN CERTIFICATE)")]
    Certificate,
    /// The certificate's name.
    #[error(
        "must be a certificate whose only name is spiffe://CLUSTERSET/cluster/NAME/node/NAME or .../hub/NAME ({0})"
    )]
    Identity(#[from] Untrusted),
    /// The key's text.
    #[error("must be a private key in PEM (BEGIN PRIVATE KEY)")]
    Key,
    /// The key is of another certificate.
    #[error("must be the private key of the certificate")]
    Mismatch,
}

impl Credentials {
    /// Reads a certificate, with its chain behind it, and its key.
    ///
    /// # Errors
    /// One of the texts is none, or they do not fit together.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, CredentialError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| CredentialError::Certificate)?;
        let own = chain.first().ok_or(CredentialError::Certificate)?;
        let (clusterset, id) = peer_id::of_certificate(own)?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(own).map_err(|_| CredentialError::Certificate)?;
        let expires = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        let mut der =
            PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| CredentialError::Key)?;
        let reset = reset_key(der.secret_der());
        let key = any_supported_type(&der);
        der.zeroize();
        let key = key.map_err(|_| CredentialError::Key)?;
        let certified = CertifiedKey::new(chain, key);
        certified
            .keys_match()
            .map_err(|_| CredentialError::Mismatch)?;
        Ok(Self {
            clusterset,
            id,
            expires: SystemTime::UNIX_EPOCH + Duration::from_secs(expires),
            certified: Arc::new(certified),
            reset,
        })
    }

    /// Who we are by it.
    pub fn id(&self) -> &PeerId {
        &self.id
    }

    /// Where.
    pub fn clusterset(&self) -> &str {
        &self.clusterset
    }

    /// What stands behind the certificate: by it certificates of one CA and of the next can be told from each other.
    pub fn links(&self) -> &[CertificateDer<'static>] {
        self.certified.cert.get(1..).unwrap_or_default()
    }

    /// When it ends.
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// The same, whose peers are told of a restart by another secret than the key: by one that is the same after it.
    #[must_use]
    pub fn with_reset(self, secret: &[u8]) -> Self {
        let reset = reset_key(secret);
        Self { reset, ..self }
    }

    /// What TLS needs of it.
    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    /// A key that a restart does not change: peers of the process before are told at once that it is gone.
    pub(crate) fn reset(&self) -> &Zeroizing<[u8; 32]> {
        &self.reset
    }
}

fn reset_key(secret: &[u8]) -> Zeroizing<[u8; 32]> {
    use blake2::{Blake2s256, Digest as _};
    let mut hash = Blake2s256::new();
    hash.update(b"hawser stateless reset");
    hash.update(secret);
    Zeroizing::new(hash.finalize().into())
}
