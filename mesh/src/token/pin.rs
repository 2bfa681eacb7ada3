//! By which a guest knows a CA that it has never seen.

use crate::ca::show;
use sha2::{Digest as _, Sha256};
use std::fmt;

/// SHA-256 of the SubjectPublicKeyInfo of a CA, as in RFC 7469, section 2.4. It stays when the CA is made anew with the
/// same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pin([u8; Self::LENGTH]);

impl Pin {
    /// In bytes.
    pub const LENGTH: usize = 32;

    /// The pin of a public key with its algorithm (SubjectPublicKeyInfo, DER).
    pub fn of_public_key(info: &[u8]) -> Self {
        Self(Sha256::digest(info).into())
    }

    /// The pin of the first certificate of a PEM text; nothing, if there is none or it is no CA's.
    pub fn of_ca(pem: &str) -> Option<Self> {
        let ca = show::of_pem(pem).filter(|shown| shown.is_ca)?;
        Some(Self::of_public_key(&ca.public_key))
    }

    /// Takes one from a token; nothing, if it has another length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// For the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// 64 hexadecimal digits.
impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
