//! By which a guest knows a CA that it has never seen.

use crate::ca::show;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// SHA-256 of the SubjectPublicKeyInfo of a CA, as in RFC 7469, section 2.4. It stays when the CA is made anew with the
/// same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
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

/// The keys of the CAs in a PEM text; what is none has none.
pub(crate) fn pins(ca: &str) -> BTreeSet<Pin> {
    let all = show::all_of_pem(ca).unwrap_or_default();
    all.iter()
        .map(|ca| Pin::of_public_key(&ca.public_key))
        .collect()
}

/// 64 hexadecimal digits.
impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text that is no pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pin has 64 hexadecimal digits")]
pub struct PinError;

/// What its `Display` says.
impl FromStr for Pin {
    type Err = PinError;
    fn from_str(text: &str) -> Result<Self, PinError> {
        let is_digit = |byte: u8| byte.is_ascii_hexdigit();
        if text.len() != 2 * Self::LENGTH || !text.bytes().all(is_digit) {
            return Err(PinError);
        }
        let mut pin = [0; Self::LENGTH];
        for (at, byte) in pin.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| PinError)?;
        }
        Ok(Self(pin))
    }
}

impl TryFrom<String> for Pin {
    type Error = PinError;
    fn try_from(text: String) -> Result<Self, PinError> {
        text.parse()
    }
}

impl From<Pin> for String {
    fn from(pin: Pin) -> Self {
        pin.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let pin = Pin::of_public_key(b"key");
        assert_eq!(pin.to_string().parse(), Ok(pin));
        for wrong in ["", "00", &"0".repeat(63), &"é".repeat(32), &"+1".repeat(32)] {
            assert_eq!(wrong.parse::<Pin>(), Err(PinError), "{wrong}");
        }
    }
}
