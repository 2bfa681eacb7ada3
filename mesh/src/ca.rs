//! A cluster's own CA: makes the certificates of its hubs and nodes (docs/security.md, "Certificates").
//!
//! Nothing here reads a clock or a file: times come in, PEM goes out.

pub mod csr;
pub mod show;
mod signing_key;

use crate::record::{NameError, check_label, check_name};
use crate::trust::PeerId;
use csr::Csr;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SigningKey,
};
use signing_key::CaKey;
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// How long a CA lives: ten years. Its successor is trusted beside it well before.
pub const CA_LIFE: Duration = Duration::from_secs(3653 * 86_400);
/// How long a hub's or a node's certificate lives where nobody says otherwise: a year. Where the hub renews them by
/// itself it is a day.
pub const LEAF_LIFE: Duration = Duration::from_secs(365 * 86_400);
/// The longest that a certificate lives, in days.
pub const MAX_DAYS: u32 = 3650;
/// Certificates begin so much earlier, for peers whose clocks are late.
pub const EARLY: Duration = Duration::from_secs(300);

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub struct Issued {
    /// May be shown to anybody.
    pub certificate: String,
    /// Never leaves its owner.
    pub key: Zeroizing<String>,
}

/// Without the key.
impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// A name that cannot stand in a certificate.
    #[error("{field}: {name}: {rule}; rename it")]
    Name {
        /// Whose name: of the clusterset, the cluster, or the replica or node.
        field: &'static str,
        /// As it was given.
        name: String,
        /// What it breaks.
        rule: NameError,
    },
    /// The CA's certificate or key cannot be used.
    #[error("must be the certificate and the private key of a CA made by `hawser ca init`")]
    Ca,
    /// It lets no other stand between itself and a leaf.
    #[error(
        "the CA lets no successor be certified (pathlen 0): add the next one to the members' ClusterPeer by hand"
    )]
    NoSuccessor,
    /// The CA's own end comes earlier.
    #[error("the CA ends before the certificate would; make it shorter or renew the CA")]
    OutlivesCa,
    /// The system gives no randomness, or the like.
    #[error("failed to make a certificate")]
    Make(#[from] rcgen::Error),
}

/// A CA that can sign.
pub struct Ca {
    cluster: String,
    clusterset: String,
    ends: SystemTime,
    issuer: Issuer<'static, CaKey>,
    is_succeedable: bool,
    /// What stands behind each certificate that it makes: its own key, certified by the CA before it, in PEM.
    link: Option<String>,
}

/// The CA that takes another one's place.
#[derive(Debug)]
pub struct Successor {
    /// It.
    pub ca: Issued,
    /// Its key, certified by the CA before it, in PEM (`newWithOld`, RFC 4210, section 4.4). With it, whoever trusts only
    /// that one takes the new one's certificates.
    pub link: String,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca")
            .field("cluster", &self.cluster)
            .field("clusterset", &self.clusterset)
            .finish_non_exhaustive()
    }
}

/// Makes the CA of a cluster.
///
/// # Errors
/// The names cannot stand in a certificate.
pub fn init(clusterset: &str, cluster: &str, now: SystemTime) -> Result<Issued, IssueError> {
    check("clusterset", clusterset, check_name)?;
    check("cluster", cluster, check_label)?;
    let params = ca_params(clusterset, cluster, 1, (now, now + CA_LIFE))?;
    let key = CaKey(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?);
    Ok(Issued {
        certificate: params.self_signed(&key)?.pem(),
        key: Zeroizing::new(key.0.serialize_pem()),
    })
}

/// Between this one and a leaf there are at most `between` others: its successor's link.
fn ca_params(
    clusterset: &str,
    cluster: &str,
    between: u8,
    (from, to): (SystemTime, SystemTime),
) -> Result<CertificateParams, IssueError> {
    let mut params = params(from, to);
    params
        .distinguished_name
        .push(DnType::OrganizationName, clusterset);
    params.distinguished_name.push(DnType::CommonName, cluster);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(between));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let uri = format!("spiffe://{clusterset}/cluster/{cluster}");
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    Ok(params)
}

impl Ca {
    /// Reads a CA that [`init`] made.
    ///
    /// # Errors
    /// [`IssueError::Ca`].
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, IssueError> {
        let shown = show::of_pem(certificate).ok_or(IssueError::Ca)?;
        let key = CaKey(KeyPair::from_pem(key).map_err(|_| IssueError::Ca)?);
        let uri = shown.uris.first().ok_or(IssueError::Ca)?;
        let name = uri.strip_prefix("spiffe://").ok_or(IssueError::Ca)?;
        let (clusterset, cluster) = name.split_once("/cluster/").ok_or(IssueError::Ca)?;
        check_name(clusterset).map_err(|_| IssueError::Ca)?;
        check_label(cluster).map_err(|_| IssueError::Ca)?;
        if !shown.is_ca || shown.public_key != key.subject_public_key_info() {
            return Err(IssueError::Ca);
        }
        let issuer = Issuer::from_ca_cert_pem(certificate, key).map_err(|_| IssueError::Ca)?;
        Ok(Self {
            cluster: cluster.to_owned(),
            clusterset: clusterset.to_owned(),
            ends: shown.not_after,
            issuer,
            is_succeedable: shown.path_length.is_none_or(|between| between > 0),
            link: None,
        })
    }

    /// The same, whose certificates are also taken by whoever trusts the CA before it: see [`Successor::link`].
    #[must_use]
    pub fn with_link(self, link: String) -> Self {
        let link = Some(link);
        Self { link, ..self }
    }

    /// Makes the CA that takes this one's place.
    ///
    /// # Errors
    /// It cannot certify one.
    pub fn successor(&self, now: SystemTime) -> Result<Successor, IssueError> {
        if !self.is_succeedable {
            return Err(IssueError::NoSuccessor);
        }
        let ca = init(&self.clusterset, &self.cluster, now)?;
        let key = KeyPair::from_pem(&ca.key)?;
        let until = self.ends.min(now + CA_LIFE);
        let params = ca_params(&self.clusterset, &self.cluster, 0, (now, until))?;
        let link = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Successor { ca, link })
    }

    /// The cluster whose CA this is.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The clusterset of that cluster.
    pub fn clusterset(&self) -> &str {
        &self.clusterset
    }

    /// Signs what is no certificate. Let it begin so that it can be taken for nothing else.
    ///
    /// # Errors
    /// The key cannot sign.
    pub(crate) fn sign_message(&self, message: &[u8]) -> Result<Vec<u8>, IssueError> {
        Ok(SigningKey::sign(self.issuer.key(), message)?)
    }

    /// Makes a certificate of a hub's replica, with a new key.
    ///
    /// # Errors
    /// The name cannot stand in a certificate, or it would live longer than the CA.
    pub fn hub(&self, name: &str, life: Duration, now: SystemTime) -> Result<Issued, IssueError> {
        check("name", name, check_name)?;
        self.leaf(&PeerId::hub(&*self.cluster, name), name, life, now)
    }

    /// Makes a certificate of a node, with a new key.
    ///
    /// # Errors
    /// The name cannot stand in a certificate, or it would live longer than the CA.
    pub fn node(&self, name: &str, life: Duration, now: SystemTime) -> Result<Issued, IssueError> {
        check("name", name, check_name)?;
        self.leaf(&PeerId::node(&*self.cluster, name), name, life, now)
    }

    /// Makes a certificate of a node, in PEM, for a key that stays where it is.
    ///
    /// # Errors
    /// The name cannot stand in a certificate, or it would live longer than the CA.
    pub fn node_for(
        &self,
        name: &str,
        csr: &Csr,
        life: Duration,
        now: SystemTime,
    ) -> Result<String, IssueError> {
        check("name", name, check_name)?;
        let peer = PeerId::node(&*self.cluster, name);
        self.sign(&peer, name, life, now, &csr.key)
    }

    fn leaf(
        &self,
        peer: &PeerId,
        name: &str,
        life: Duration,
        now: SystemTime,
    ) -> Result<Issued, IssueError> {
        let key = Zeroizing::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?);
        Ok(Issued {
            certificate: self.sign(peer, name, life, now, &*key)?,
            key: Zeroizing::new(key.serialize_pem()),
        })
    }

    fn sign(
        &self,
        peer: &PeerId,
        name: &str,
        life: Duration,
        now: SystemTime,
        key: &impl PublicKeyData,
    ) -> Result<String, IssueError> {
        if now + life > self.ends {
            return Err(IssueError::OutlivesCa);
        }
        let mut params = params(now, now + life);
        // X.520 ends a common name at 64 characters; the name that counts is the URI.
        let short: String = name.chars().take(64).collect();
        params.distinguished_name.push(DnType::CommonName, short);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let uri = peer.uri(&self.clusterset);
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        let mut chain = params.signed_by(key, &self.issuer)?.pem();
        chain.push_str(self.link.as_deref().unwrap_or_default());
        Ok(chain)
    }
}

fn params(from: SystemTime, to: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = (from - EARLY).into();
    params.not_after = to.into();
    params
}

fn check(
    field: &'static str,
    name: &str,
    rule: fn(&str) -> Result<(), NameError>,
) -> Result<(), IssueError> {
    rule(name).map_err(|rule| IssueError::Name {
        field,
        name: name.to_owned(),
        rule,
    })
}
