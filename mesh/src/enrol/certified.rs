//! A node's certificate with all that goes with it, checked before it is used.

use super::renewal::Validity;
use crate::ca::show;
use crate::trust::{CaError, CredentialError, Credentials, PeerId, Side, Trust, Untrusted};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use std::time::SystemTime;

/// What a node shows, whom it trusts, and how long that is good.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Certified {
    /// Its certificate and key.
    pub credentials: Credentials,
    /// Its cluster's CAs.
    pub trust: Trust,
    /// Of the certificate.
    pub validity: Validity,
}

/// Why a certificate is not this node's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertifiedError {
    /// It is none, or not of the key.
    #[error("the certificate {0}")]
    Credentials(#[from] CredentialError),
    /// It is somebody else's.
    #[error("the certificate is that of {found}; must be that of {expected}")]
    Other {
        /// Whose it is.
        found: PeerId,
        /// Who we are.
        expected: PeerId,
    },
    /// The CA is none.
    #[error("the CA {0}")]
    Ca(#[from] CaError),
    /// The CA has not signed it, or it is not good now.
    #[error("the certificate is not taken: {0}")]
    Untrusted(#[from] Untrusted),
}

impl Certified {
    /// Reads what was stored, or was answered: a certificate of `expected` for this key. It may be over.
    ///
    /// # Errors
    /// It is not.
    pub fn read(
        chain: &str,
        key: &str,
        ca: &str,
        expected: &PeerId,
    ) -> Result<Self, CertifiedError> {
        let credentials = Credentials::from_pem(chain, key)?;
        if credentials.id() != expected {
            return Err(CertifiedError::Other {
                found: credentials.id().clone(),
                expected: expected.clone(),
            });
        }
        let mut trust = Trust::new(credentials.clusterset());
        trust.set(&expected.cluster, ca)?;
        let shown = show::of_pem(chain).ok_or(CredentialError::Certificate)?;
        Ok(Self {
            credentials,
            trust,
            validity: Validity::of(shown.not_before, shown.not_after),
        })
    }

    /// Checks that the CA has signed it, and that it is good now.
    ///
    /// # Errors
    /// It is not.
    pub fn verify(&self, chain: &str, now: SystemTime) -> Result<(), CertifiedError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let chain = chain.map_err(|_| CredentialError::Certificate)?;
        let (leaf, rest) = chain.split_first().ok_or(CredentialError::Certificate)?;
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        let now = UnixTime::since_unix_epoch(since.unwrap_or_default());
        self.trust.verify(leaf, rest, Side::Client, now)?;
        Ok(())
    }

    /// Takes what the own hub says of the cluster's CAs, in PEM. Of a certificate that the first of them, which signs by
    /// now, did not make, the next one is to be asked for.
    ///
    /// # Errors
    /// They are none, or none of them has signed this certificate.
    pub fn with_cas(
        &self,
        chain: &str,
        ca: &str,
        now: SystemTime,
    ) -> Result<(Self, bool), CertifiedError> {
        let cluster = &self.credentials.id().cluster;
        let trusting = |ca: &str| {
            let mut trust = Trust::new(self.credentials.clusterset());
            trust.set(cluster, ca)?;
            Ok::<_, CertifiedError>(Self {
                trust,
                ..self.clone()
            })
        };
        let next = trusting(ca)?;
        // One that has ended is renewed by a token.
        match next.verify(chain, now) {
            Ok(()) | Err(CertifiedError::Untrusted(Untrusted::Expired)) => {}
            Err(error) => return Err(error),
        }
        let first = show::ders(ca).into_iter().next().unwrap_or_default();
        let is_current = trusting(&show::pem(&first))?.verify(chain, now).is_ok();
        Ok((next, is_current))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::csr::{Csr, new_key, request_of};
    use crate::ca::{Ca, init};
    use std::time::Duration;

    #[test]
    fn a_certificate_is_taken_that_is_this_nodes_of_its_key_and_of_its_ca() {
        let now = SystemTime::now();
        let cluster = || {
            let root = init("set.example", "east", now).unwrap();
            (
                Ca::from_pem(&root.certificate, &root.key).unwrap(),
                root.certificate,
            )
        };
        let ((ca, pem), (other, of_other)) = (cluster(), cluster());
        let key = new_key().unwrap();
        let csr = Csr::parse(&request_of(&key).unwrap()).unwrap();
        let day = Duration::from_secs(86_400);
        let chain = ca.node_for("east-1", &csr, day, now).unwrap();
        let me = PeerId::node("east", "east-1");
        let good = Certified::read(&chain, &key, &pem, &me).unwrap();
        good.verify(&chain, now).unwrap();
        let Validity { made, ends } = good.validity;
        assert!(now.duration_since(made).unwrap_or_default() < Duration::from_secs(2));
        assert!(ends.duration_since(now).unwrap() > day - Duration::from_secs(2));
        let late = good.verify(&chain, now + 2 * day).unwrap_err();
        assert_eq!(late, CertifiedError::Untrusted(Untrusted::Expired));
        let early = good.verify(&chain, now - day).unwrap_err();
        assert_eq!(early, CertifiedError::Untrusted(Untrusted::NotYetValid));

        let someone = PeerId::node("east", "east-2");
        for refused in [
            Certified::read(&chain, &new_key().unwrap(), &pem, &me),
            Certified::read(&chain, &key, &pem, &someone),
            Certified::read(&chain, &key, &chain, &me),
            Certified::read(&chain, &key, "", &me),
            Certified::read("", &key, &pem, &me),
        ] {
            assert!(!refused.unwrap_err().to_string().contains('\n'));
        }
        let strange = Certified::read(&chain, &key, &of_other, &me).unwrap();
        let refused = strange.verify(&chain, now).unwrap_err();
        assert_eq!(refused, CertifiedError::Untrusted(Untrusted::IssuerUnknown));
        drop(other);
    }
}
