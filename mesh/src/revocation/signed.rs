//! A list with the signature of its cluster's CA.

use super::list::{List, ListError};
use crate::ca::{Ca, IssueError, show};
use crate::trust::is_signed_by;
use bytes::Bytes;

/// The longest signature, in bytes: RSA with 4,096 bits. Ours have 72.
pub const MAX_SIGNATURE: usize = 512;

/// What is signed begins so: a signature of it is good for nothing else.
const DOMAIN: &[u8] = b"hawser revocations 1\0";

/// A list as it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    list: List,
    bytes: Bytes,
    signature: Bytes,
}

impl Signed {
    /// Signs a list with the CA of its issuer.
    ///
    /// # Errors
    /// The CA cannot sign.
    pub fn new(list: List, ca: &Ca) -> Result<Self, IssueError> {
        let bytes = list.encode();
        let signature = ca.sign_message(&message(&bytes))?.into();
        Ok(Self {
            list,
            bytes,
            signature,
        })
    }

    /// Takes a list and a signature from the wire or the disk. Whether they belong together, [`Self::is_by`] says.
    ///
    /// # Errors
    /// It is no list, or no signature can be like this.
    pub fn parse(bytes: Bytes, signature: Bytes) -> Result<Self, ListError> {
        if signature.is_empty() || signature.len() > MAX_SIGNATURE {
            return Err(ListError::Signature);
        }
        Ok(Self {
            list: List::decode(&bytes)?,
            bytes,
            signature,
        })
    }

    /// What it says.
    pub fn list(&self) -> &List {
        &self.list
    }

    /// The bytes of the list.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Of those bytes.
    pub fn signature(&self) -> &Bytes {
        &self.signature
    }

    /// Whether one of the CAs in a PEM text signed it.
    pub fn is_by(&self, ca: &str) -> bool {
        let message = message(&self.bytes);
        let all = show::all_of_pem(ca).unwrap_or_default();
        let mut all = all.iter().filter(|shown| shown.is_ca);
        all.any(|shown| is_signed_by(shown, &message, &self.signature))
    }
}

fn message(bytes: &[u8]) -> Vec<u8> {
    [DOMAIN, bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::super::list::tests::list;
    use super::*;
    use crate::ca::{Issued, init};
    use std::time::SystemTime;

    fn ca(cluster: &str) -> Issued {
        init("set.example", cluster, SystemTime::now()).unwrap()
    }

    fn signed(by: &Issued) -> Signed {
        let ca = Ca::from_pem(&by.certificate, &by.key).unwrap();
        Signed::new(list("east", 9, &["west"]), &ca).unwrap()
    }

    #[test]
    fn a_list_is_its_issuers_and_nobody_elses() {
        let (east, other) = (ca("east"), ca("east"));
        let list = signed(&east);
        assert!(list.is_by(&east.certificate));
        assert!(!list.is_by(&other.certificate), "of the same name");
        assert!(!list.is_by(""));
        // While a CA is rolled there are two.
        let both = format!("{}{}", other.certificate, east.certificate);
        assert!(list.is_by(&both));
        let again = Signed::parse(list.bytes.clone(), list.signature.clone()).unwrap();
        assert_eq!(again, list);
    }

    #[test]
    fn a_changed_bit_anywhere_is_seen() {
        let east = ca("east");
        let right = signed(&east);
        let flip = |bytes: &Bytes, at: usize| {
            let mut bytes = bytes.to_vec();
            bytes[at / 8] ^= 1 << (at % 8);
            Bytes::from(bytes)
        };
        for at in 0..right.bytes.len() * 8 {
            let changed = Signed::parse(flip(&right.bytes, at), right.signature.clone());
            assert!(changed.is_err() || !changed.unwrap().is_by(&east.certificate));
        }
        for at in 0..right.signature.len() * 8 {
            let changed = Signed::parse(right.bytes.clone(), flip(&right.signature, at)).unwrap();
            assert!(!changed.is_by(&east.certificate));
        }
        for signature in [Bytes::new(), vec![0; MAX_SIGNATURE + 1].into()] {
            let parsed = Signed::parse(right.bytes.clone(), signature);
            assert_eq!(parsed, Err(ListError::Signature));
        }
    }

    #[test]
    fn what_the_ca_signed_for_another_end_is_no_list() {
        let east = ca("east");
        let key = Ca::from_pem(&east.certificate, &east.key).unwrap();
        let bytes = list("east", 9, &["west"]).encode();
        let bare = key.sign_message(&bytes).unwrap();
        let parsed = Signed::parse(bytes, bare.into()).unwrap();
        assert!(!parsed.is_by(&east.certificate));
    }
}
