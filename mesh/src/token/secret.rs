//! The secret of a token, and what is kept of it.

use sha2::{Digest as _, Sha256};
use std::fmt;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// 256 bits by which a guest proves that it was invited. They are wiped when they are dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<[u8; Self::LENGTH]>);

/// In the same time wherever they differ.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&*other.0).into()
    }
}

impl Eq for Secret {}

/// Without the secret.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// In bytes.
    pub const LENGTH: usize = 32;

    /// Draws one.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; Self::LENGTH]);
        getrandom::fill(bytes.as_mut_slice())?;
        Ok(Self(bytes))
    }

    /// Takes one that somebody shows; nothing, if it has another length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut secret = Zeroizing::new([0; Self::LENGTH]);
        if bytes.len() != Self::LENGTH {
            return None;
        }
        secret.copy_from_slice(bytes);
        Some(Self(secret))
    }

    /// What is kept of it: nobody finds the secret from that.
    pub fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.as_bytes()).into())
    }

    /// For the wire alone.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }
}

/// SHA-256 of a [`Secret`]. It is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretHash([u8; 32]);

/// As a file is named by it: 64 hexadecimal digits.
impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
