//! The CAs that a cluster says are its own, and which of them another cluster believes: those that it trusts already, and
//! those whose keys one of these has certified. So a CA changes without anybody being told by hand.

use super::{MAX_CAS, MAX_CERTIFICATE, is_signed_by};
use crate::ca::show::{self, Shown};
use bytes::Bytes;
use std::collections::BTreeSet;

/// What a cluster says; each certificate in DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorities {
    /// Its CAs; the first is the one that signs.
    cas: Vec<Bytes>,
    /// Keys of CAs, each certified by the CA before it ([`crate::ca::Successor::link`]).
    links: Vec<Bytes>,
}

/// Why these are no cluster's CAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthoritiesError {
    /// None, or more than [`MAX_CAS`].
    #[error("authorities: must be 1 to 4 CAs, and as many links at most")]
    Count,
    /// Longer than anybody's.
    #[error("authorities: a certificate is empty or longer than 8 KiB")]
    Length,
}

impl Authorities {
    /// Takes what came from the wire. Whether it is to be believed, [`Self::vouched`] says.
    ///
    /// # Errors
    /// Nobody says so.
    pub fn new(cas: Vec<Bytes>, links: Vec<Bytes>) -> Result<Self, AuthoritiesError> {
        if cas.is_empty() || cas.len() > MAX_CAS || links.len() > MAX_CAS {
            return Err(AuthoritiesError::Count);
        }
        let mut all = cas.iter().chain(&links);
        if all.any(|der| der.is_empty() || der.len() > MAX_CERTIFICATE) {
            return Err(AuthoritiesError::Length);
        }
        Ok(Self { cas, links })
    }

    /// Of texts in PEM.
    ///
    /// # Errors
    /// They hold none, or too many.
    pub fn of_pem(cas: &str, links: &str) -> Result<Self, AuthoritiesError> {
        Self::new(show::ders(cas), show::ders(links))
    }

    /// The certificates of CAs.
    pub fn cas(&self) -> &[Bytes] {
        &self.cas
    }

    /// The links.
    pub fn links(&self) -> &[Bytes] {
        &self.links
    }

    /// Those that whoever trusts `trusted` (PEM) believes, in PEM, in their order. `None`: none of them.
    pub fn vouched(&self, trusted: &str) -> Option<String> {
        let trusted = show::all_of_pem(trusted).unwrap_or_default();
        let trusted: Vec<Shown> = trusted.into_iter().filter(|it| it.is_ca).collect();
        let known: BTreeSet<&Vec<u8>> = trusted.iter().map(|it| &it.public_key).collect();
        let is_linked = |ca: &Shown| {
            let links = self.links.iter();
            let mut signers =
                links.flat_map(|link| trusted.iter().map(move |signer| (link, signer)));
            signers.any(|(link, signer)| is_link(link, ca, signer))
        };
        let mut believed = String::new();
        for der in &self.cas {
            let Some(ca) = show::of_der(der).filter(|it| it.is_ca) else {
                continue;
            };
            if known.contains(&ca.public_key) || is_linked(&ca) {
                believed.push_str(&show::pem(der));
            }
        }
        (!believed.is_empty()).then_some(believed)
    }
}

/// Whether `signer` has certified the key of `ca` as one of a CA.
fn is_link(link: &[u8], ca: &Shown, signer: &Shown) -> bool {
    let Ok((rest, parsed)) = x509_parser::parse_x509_certificate(link) else {
        return false;
    };
    rest.is_empty()
        && parsed.is_ca()
        && parsed.public_key().raw == ca.public_key
        // What is not signed must not say otherwise.
        && parsed.signature_algorithm == parsed.tbs_certificate.signature
        && parsed.signature_value.unused_bits == 0
        && is_signed_by(
            signer,
            parsed.tbs_certificate.as_ref(),
            &parsed.signature_value.data,
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{Ca, Issued, Successor, init};
    use std::time::SystemTime;

    fn first() -> (Issued, Ca) {
        let root = init("set.example", "east", SystemTime::now()).unwrap();
        let ca = Ca::from_pem(&root.certificate, &root.key).unwrap();
        (root, ca)
    }

    fn next(ca: &Ca) -> (Successor, Ca) {
        let next = ca.successor(SystemTime::now()).unwrap();
        let ca = Ca::from_pem(&next.ca.certificate, &next.ca.key).unwrap();
        (next, ca)
    }

    #[test]
    fn a_cas_successor_is_believed_by_who_trusts_it_and_by_nobody_else() {
        let (old, ca) = first();
        let (new, ca) = next(&ca);
        let (other, _) = first();
        let both = format!("{}{}", new.ca.certificate, old.certificate);
        let said = Authorities::of_pem(&both, &new.link).unwrap();
        assert_eq!(said.vouched(&old.certificate), Some(both.clone()));
        assert_eq!(said.vouched(&both), Some(both.clone()));
        assert_eq!(said.vouched(&other.certificate), None);
        assert_eq!(said.vouched(""), None);
        // Whoever knows the new one alone does not believe the old one.
        let new_alone = new.ca.certificate.clone();
        assert_eq!(said.vouched(&new_alone), Some(new_alone.clone()));
        // The old one is taken away; who heard nothing meanwhile follows.
        let alone = Authorities::of_pem(&new_alone, &new.link).unwrap();
        assert_eq!(alone.vouched(&old.certificate), Some(new_alone.clone()));
        assert_eq!(alone.vouched(&both), Some(new_alone));
        // One step at a time.
        let (third, _) = next(&ca);
        let third = Authorities::of_pem(&third.ca.certificate, &third.link).unwrap();
        assert!(third.vouched(&new.ca.certificate).is_some());
        assert_eq!(third.vouched(&old.certificate), None);
    }

    #[test]
    fn a_link_is_the_trusted_cas_own_for_that_very_key() {
        let (old, ca) = first();
        let (new, _) = next(&ca);
        let (foreign, foreign_ca) = first();
        let (strange, _) = next(&foreign_ca);
        let leaf = ca.node("east-1", crate::ca::LEAF_LIFE, SystemTime::now());
        let leaf = leaf.unwrap();
        for (name, cas, links) in [
            ("none", &*foreign.certificate, ""),
            ("another key's", &*foreign.certificate, &*new.link),
            ("another signer's", &*strange.ca.certificate, &*strange.link),
            ("of itself", &*foreign.certificate, &*foreign.certificate),
            ("no CA", &*leaf.certificate, &*leaf.certificate),
            ("a leaf's link", &*foreign.certificate, &*leaf.certificate),
        ] {
            let said = Authorities::of_pem(cas, links).unwrap();
            assert_eq!(said.vouched(&old.certificate), None, "{name}");
        }
        // A bit is flipped in what was signed, or in its signature. The frame around them says nothing.
        let right = Authorities::of_pem(&new.ca.certificate, &new.link).unwrap();
        let parts = |der: &[u8]| {
            let (_, it) = x509_parser::parse_x509_certificate(der).ok()?;
            let signed = it.tbs_certificate.as_ref().to_vec();
            Some((signed, it.signature_value.data.into_owned()))
        };
        let mut framed = 0;
        for at in 0..right.links[0].len() * 8 {
            let mut spoiled = right.links[0].to_vec();
            spoiled[at / 8] ^= 1 << (at % 8);
            if parts(&spoiled) == parts(&right.links[0]) {
                framed += 1;
                continue;
            }
            let said = Authorities::new(right.cas.clone(), vec![spoiled.into()]).unwrap();
            assert_eq!(said.vouched(&old.certificate), None, "bit {at}");
        }
        assert!(framed < 200, "{framed}");
    }

    #[test]
    fn sizes_are_bounded() {
        let one = Bytes::from_static(b"x");
        let error = |cas: Vec<Bytes>, links: Vec<Bytes>| Authorities::new(cas, links).unwrap_err();
        assert_eq!(error(Vec::new(), Vec::new()), AuthoritiesError::Count);
        assert_eq!(
            error(vec![one.clone(); 5], Vec::new()),
            AuthoritiesError::Count
        );
        assert_eq!(
            error(vec![one.clone()], vec![one.clone(); 5]),
            AuthoritiesError::Count
        );
        assert_eq!(
            error(vec![Bytes::new()], Vec::new()),
            AuthoritiesError::Length
        );
        let long = Bytes::from(vec![0; MAX_CERTIFICATE + 1]);
        assert_eq!(error(vec![one], vec![long]), AuthoritiesError::Length);
    }
}
