//! A hub that is known by its CA's key alone: to whoever comes with a token.

use super::{
    Expected, MAX_CAS, MAX_CERTIFICATE, MAX_INTERMEDIATES, PeerId, Side, Trust, Untrusted,
};
use crate::ca::show::{self, pem};
use crate::token::Pin;
use rustls::pki_types::{CertificateDer, UnixTime};

/// A hub of this cluster in this clusterset, under a CA with this key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// The CA's key.
    pub pin: Pin,
    /// The clusterset.
    pub clusterset: String,
    /// The cluster.
    pub cluster: String,
}

impl Pinned {
    /// Says who shows this certificate, and by which CA (PEM): the CA is among those that it shows, has the key, and has
    /// signed it, or the CA that did.
    ///
    /// # Errors
    /// It is none of that cluster's hubs.
    pub fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        shown: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(PeerId, String), Untrusted> {
        if shown.len() > MAX_INTERMEDIATES + MAX_CAS {
            return Err(Untrusted::ChainTooLong);
        }
        let mut all = std::iter::once(certificate).chain(shown);
        if all.any(|certificate| certificate.len() > MAX_CERTIFICATE) {
            return Err(Untrusted::CertificateTooLong);
        }
        let is_pinned = |shown: &&CertificateDer<'_>| {
            show::of_der(shown)
                .is_some_and(|it| it.is_ca && Pin::of_public_key(&it.public_key) == self.pin)
        };
        let ca = shown.iter().find(is_pinned).ok_or(Untrusted::PinOther)?;
        let ca = pem(ca);
        let mut trust = Trust::new(self.clusterset.clone());
        let trusted = trust.set(&self.cluster, &ca);
        trusted.map_err(|_| Untrusted::Malformed)?;
        // While CAs change, the key that is pinned may be the old one's, and the new one's certified by it.
        let peer = trust.verify(certificate, shown, Side::Server, now)?;
        Expected::HubOf(self.cluster.clone()).check(&peer)?;
        Ok((peer, ca))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{Ca, Issued, LEAF_LIFE, init};
    use rustls::pki_types::pem::PemObject as _;
    use std::time::SystemTime;

    fn der(issued: &Issued) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()
    }

    fn cluster(name: &str) -> (Ca, Issued) {
        let root = init("set.example", name, SystemTime::now()).unwrap();
        (Ca::from_pem(&root.certificate, &root.key).unwrap(), root)
    }

    fn pinned(root: &Issued) -> Pinned {
        Pinned {
            pin: Pin::of_ca(&root.certificate).unwrap(),
            clusterset: "set.example".to_owned(),
            cluster: "east".to_owned(),
        }
    }

    #[test]
    fn a_hub_is_known_by_its_cas_key() {
        let ((ca, root), (other, of_other)) = (cluster("east"), cluster("east"));
        let now = SystemTime::now();
        let hub = |ca: &Ca| der(&ca.hub("hub-1", LEAF_LIFE, now).unwrap());
        let good = pinned(&root);
        let verify = |by: &Pinned, leaf: &CertificateDer<'_>, shown: &[CertificateDer<'_>]| {
            by.verify(leaf, shown, UnixTime::now())
        };
        let (peer, pem) = verify(&good, &hub(&ca), &[der(&root)]).unwrap();
        assert_eq!(peer, PeerId::hub("east", "hub-1"));
        assert_eq!(Pin::of_ca(&pem), Some(good.pin));
        // The old CA beside the new one, as while they change.
        assert!(verify(&good, &hub(&ca), &[der(&of_other), der(&root)]).is_ok());

        let own = hub(&ca);
        let node = der(&ca.node("east-1", LEAF_LIFE, now).unwrap());
        let elsewhere = Pinned {
            cluster: "west".to_owned(),
            ..good.clone()
        };
        let set = Pinned {
            clusterset: "other.set".to_owned(),
            ..good.clone()
        };
        for (name, refused) in [
            ("pin_other", verify(&good, &hub(&other), &[der(&of_other)])),
            ("pin_other", verify(&good, &own, &[])),
            // The hub's own key is not its CA's.
            ("pin_other", verify(&good, &own, std::slice::from_ref(&own))),
            // The right CA is shown by somebody whom it has not signed.
            ("issuer_unknown", verify(&good, &hub(&other), &[der(&root)])),
            ("role_other", verify(&good, &node, &[der(&root)])),
            ("cluster_unknown", verify(&elsewhere, &own, &[der(&root)])),
            ("clusterset_other", verify(&set, &own, &[der(&root)])),
            (
                "certificate_chain_too_long",
                verify(&good, &own, &vec![der(&root); 7]),
            ),
            (
                "certificate_malformed",
                verify(&good, &vec![1; 9].into(), &[der(&root)]),
            ),
        ] {
            assert_eq!(refused.unwrap_err().name(), name);
        }
        let late = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1 << 33));
        let refused = good.verify(&own, &[der(&root)], late);
        assert_eq!(refused.unwrap_err().name(), "certificate_expired");
    }
}
