//! Certificate signing requests (PKCS #10): a key that is to be certified, and the proof that whoever asks has it.

use crate::token::Pin;
use bytes::Bytes;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, KeyPair,
    PKCS_ECDSA_P256_SHA256, PublicKey, PublicKeyData as _,
};
use zeroize::Zeroizing;

/// A request whose signature holds. Nothing of it counts but its key.
#[derive(Debug)]
pub struct Csr {
    pub(super) key: PublicKey,
}

/// Why there is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CsrError {
    /// It is none, or whoever made it does not have the key.
    #[error("must be a certificate signing request (PKCS #10) that its own key has signed")]
    Malformed,
    /// The key is of another kind than ours.
    #[error("must be for a key of ECDSA on P-256")]
    Algorithm,
    /// The key's text is none.
    #[error("must be a private key in PEM (BEGIN PRIVATE KEY); remove it, and enrol again")]
    Key,
}

impl CsrError {
    /// Its name in metrics, logs and answers.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Malformed => "csr_malformed",
            Self::Algorithm => "csr_algorithm",
            Self::Key => "csr_key",
        }
    }
}

impl Csr {
    /// Reads a request in DER, and checks its signature.
    ///
    /// # Errors
    /// It is none, or for a key of another kind.
    pub fn parse(der: &[u8]) -> Result<Self, CsrError> {
        let csr = CertificateSigningRequestParams::from_der(&der.into());
        let key = csr.map_err(|_| CsrError::Malformed)?.public_key;
        if *key.algorithm() != PKCS_ECDSA_P256_SHA256 {
            return Err(CsrError::Algorithm);
        }
        Ok(Self { key })
    }

    /// By what the key is known again.
    pub fn fingerprint(&self) -> String {
        Pin::of_public_key(&self.key.subject_public_key_info()).to_string()
    }
}

/// Makes a private key, in PEM.
///
/// # Errors
/// The system gives no randomness.
pub fn new_key() -> Result<Zeroizing<String>, rcgen::Error> {
    let key = Zeroizing::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?);
    Ok(Zeroizing::new(key.serialize_pem()))
}

/// Makes a request for the certificate of a key in PEM.
///
/// # Errors
/// It is no key of ours.
pub fn request_of(key: &str) -> Result<Bytes, CsrError> {
    let key = Zeroizing::new(KeyPair::from_pem(key).map_err(|_| CsrError::Key)?);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&*key);
    let request = request.map_err(|_| CsrError::Key)?;
    Ok(Bytes::copy_from_slice(request.der()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::show;
    use crate::ca::{Ca, init};
    use proptest::prelude::*;
    use rcgen::{PKCS_ED25519, SanType};
    use std::time::{Duration, SystemTime};

    #[test]
    fn a_certificate_is_for_the_key_of_the_request_and_for_nothing_else_in_it() {
        let now = SystemTime::now();
        let root = init("set.example", "east", now).unwrap();
        let ca = Ca::from_pem(&root.certificate, &root.key).unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        // It asks for another's name, and to be a CA.
        let mut params = CertificateParams::default();
        let other = "spiffe://set.example/cluster/east/hub/hub-1"
            .try_into()
            .unwrap();
        params.subject_alt_names = vec![SanType::URI(other)];
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let der = params.serialize_request(&key).unwrap();
        let csr = Csr::parse(der.der()).unwrap();
        let life = Duration::from_secs(86_400);
        let certificate = ca.node_for("east-1", &csr, life, now).unwrap();
        let shown = show::of_pem(&certificate).unwrap();
        assert_eq!(
            shown.uris,
            ["spiffe://set.example/cluster/east/node/east-1"]
        );
        assert!(!shown.is_ca);
        assert_eq!(shown.public_key, key.subject_public_key_info());
        assert_eq!(
            csr.fingerprint(),
            Pin::of_public_key(&shown.public_key).to_string()
        );
    }

    #[test]
    fn a_request_by_our_own_hand_is_read_and_another_kind_of_key_refused() {
        let key = new_key().unwrap();
        let fingerprint = |key: &str| Csr::parse(&request_of(key).unwrap()).unwrap().fingerprint();
        assert_eq!(fingerprint(&key), fingerprint(&key));
        assert_ne!(fingerprint(&key), fingerprint(&new_key().unwrap()));
        assert_eq!(request_of("no key"), Err(CsrError::Key));
        let other = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let der = CertificateParams::default()
            .serialize_request(&other)
            .unwrap();
        assert_eq!(Csr::parse(der.der()).unwrap_err(), CsrError::Algorithm);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Csr::parse(&bytes);
        }

        #[test]
        fn a_mangled_request_is_refused_or_for_the_same_key(at in 0usize..300, byte: u8) {
            let key = new_key().unwrap();
            let good = request_of(&key).unwrap();
            let mut bytes = good.to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(csr) = Csr::parse(&bytes) {
                prop_assert_eq!(csr.fingerprint(), Csr::parse(&good).unwrap().fingerprint());
            }
        }
    }
}
