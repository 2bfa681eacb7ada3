//! WireGuard keys. Secrets have no `Debug` and wipe themselves.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The public half of a WireGuard key, which names one lane of one peer. Base64 in text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

/// The private half. It never leaves the node. Its bytes stay at one place, which is wiped: whoever moves it leaves no
/// copy behind.
#[derive(Clone)]
pub struct PrivateKey(Box<[u8; 32]>);

/// The WireGuard keys of one of this node's lanes.
#[derive(Clone, Debug)]
pub struct OwnKeys {
    /// The one that peers shall know.
    pub newest: PrivateKey,
    /// The one before, as long as there may be peers that know no other.
    pub older: Option<PrivateKey>,
}

/// The optional symmetric key of a pair of lanes (WireGuard's PSK).
#[derive(Clone, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
#[serde(try_from = "Base64Secret", into = "Base64Secret")]
pub struct PresharedKey([u8; 32]);

/// Text that is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 32 bytes in base64 (44 characters), as `wg genkey` prints")]
pub struct KeyError;

/// The text form of a secret between serde and the key; wiped when dropped.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Base64Secret(String);

impl Drop for Base64Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

fn decode(text: &str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    // One byte more than a key has: the decoder's estimate rounds up to whole groups.
    let mut bytes = Zeroizing::new([0; 33]);
    let length = STANDARD
        .decode_slice(text, bytes.as_mut_slice())
        .map_err(|_| KeyError)?;
    if length != 32 {
        return Err(KeyError);
    }
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(&bytes[..32]);
    Ok(key)
}

impl PublicKey {
    /// Takes 32 bytes as they are; whether they are a good point shows at the handshake.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PrivateKey {
    /// Makes a new key out of 32 random bytes.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(Box::new(bytes))
    }

    /// Reads base64; leading and trailing white space is ignored.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        Ok(Self(Box::new(*decode(text.trim())?)))
    }

    /// Base64, wiped when dropped.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0.as_slice()))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(*x25519_dalek::PublicKey::from(&self.to_static_secret()).as_bytes())
    }

    /// The form in which secrets are exchanged; it wipes itself as well.
    pub(crate) fn to_static_secret(&self) -> x25519_dalek::StaticSecret {
        x25519_dalek::StaticSecret::from(*self.0)
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for PrivateKey {}

impl From<PrivateKey> for OwnKeys {
    fn from(newest: PrivateKey) -> Self {
        Self {
            newest,
            older: None,
        }
    }
}

impl PresharedKey {
    /// Takes 32 secret bytes as they are.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(*bytes)
    }

    /// Reads base64; leading and trailing white space is ignored.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        Ok(Self(*decode(text.trim())?))
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for PresharedKey {
    fn eq(&self, other: &Self) -> bool {
        // Folds over every byte so that the time does not tell where two keys differ.
        self.0
            .iter()
            .zip(&other.0)
            .fold(0, |acc, (a, b)| acc | (a ^ b))
            == 0
    }
}

impl Eq for PresharedKey {}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(redacted)")
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(redacted)")
    }
}

impl TryFrom<Base64Secret> for PresharedKey {
    type Error = KeyError;
    fn try_from(text: Base64Secret) -> Result<Self, KeyError> {
        Self::from_base64(&text.0)
    }
}

impl From<PresharedKey> for Base64Secret {
    fn from(key: PresharedKey) -> Self {
        Self(STANDARD.encode(key.0))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        Ok(Self(*decode(text)?))
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;
    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_bad_text_is_refused() {
        let private = PrivateKey::from_random([7; 32]);
        let again = PrivateKey::from_base64(&private.to_base64()).unwrap();
        assert_eq!(again.public(), private.public());
        let text = private.public().to_string();
        assert_eq!(text.parse(), Ok(private.public()));
        for bad in ["", "short", &text[1..], &format!("{text}AAAA"), "!!!!"] {
            assert_eq!(bad.parse::<PublicKey>(), Err(KeyError), "{bad}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let key = PresharedKey::from_base64(&STANDARD.encode([9; 32])).unwrap();
        assert_eq!(format!("{key:?}"), "PresharedKey(redacted)");
        assert_eq!(
            format!("{:?}", PrivateKey::from_random([9; 32])),
            "PrivateKey(redacted)"
        );
    }
}
