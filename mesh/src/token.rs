//! Tokens: what a hub gives to whom it invites, on one line (docs/security.md, "Tokens").
//!
//! A token says where the hubs are, by which key their CA is known, and a secret that is good once. Nothing here reads a
//! clock; who has the secret is for `hub::tokens` to say.

mod fault;
mod pin;
mod secret;

pub use fault::{Stranger, TokenError};
pub(crate) use pin::pins;
pub use pin::{Pin, PinError};
pub use secret::{Secret, SecretHash};

use crate::dial::Target;
use crate::record::{check_label, check_name};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr as _;
use std::time::{Duration, SystemTime};
use zeroize::{Zeroize as _, Zeroizing};

/// The longest that a token is good.
pub const MAX_LIFE: Duration = Duration::from_secs(15 * 60);
/// The most hubs that one names.
pub const MAX_HUBS: usize = 8;
/// The longest text, in characters; the longest names and eight hubs take 4,000.
pub const MAX_TEXT: usize = 8192;
/// The bytes of SHA-256 behind the message.
const CHECKSUM: usize = 4;
/// In base64 with the checksum, fewer characters hold no secret.
const SHORTEST: usize = (Secret::LENGTH + Pin::LENGTH + CHECKSUM) * 4 / 3;

/// What a token is good for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// A node gets its certificate.
    Node,
    /// A cluster joins.
    Cluster,
}

impl Purpose {
    fn prefix(self) -> &'static str {
        match self {
            Self::Node => "hawser-node.",
            Self::Cluster => "hawser-join.",
        }
    }

    /// Names are as strict as what they become.
    fn check_name(self, name: &str) -> Result<(), crate::record::NameError> {
        match self {
            Self::Node => check_name(name),
            Self::Cluster => check_label(name),
        }
    }
}

/// What a hub gives to whom it invites.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// What it is good for.
    pub purpose: Purpose,
    /// The clusterset.
    pub clusterset: String,
    /// The cluster whose hub made it.
    pub cluster: String,
    /// Whom it is for: a node, or a cluster that joins.
    pub name: String,
    /// Where its hubs are: HOST:PORT.
    pub hubs: Vec<String>,
    /// Its CA.
    pub pin: Pin,
    /// Good once.
    pub secret: Secret,
    /// Good until then, in whole seconds.
    pub expires: SystemTime,
}

/// Without the secret.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("purpose", &self.purpose)
            .field("cluster", &self.cluster)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Its message. Fields are added, never renumbered; who does not know one skips it.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
struct Wire {
    #[prost(string, tag = "1")]
    clusterset: String,
    #[prost(string, tag = "2")]
    cluster: String,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, repeated, tag = "4")]
    hubs: Vec<String>,
    #[prost(bytes = "vec", tag = "5")]
    pin: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    secret: Vec<u8>,
    /// Seconds since 1970.
    #[prost(uint64, tag = "7")]
    expires: u64,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl Token {
    /// Its text, on one line and without an end of line.
    pub fn encode(&self) -> Zeroizing<String> {
        let since = self.expires.duration_since(SystemTime::UNIX_EPOCH);
        let wire = Wire {
            clusterset: self.clusterset.clone(),
            cluster: self.cluster.clone(),
            name: self.name.clone(),
            hubs: self.hubs.clone(),
            pin: self.pin.as_bytes().to_vec(),
            secret: self.secret.as_bytes().to_vec(),
            expires: since.unwrap_or_default().as_secs(),
        };
        // Growing would leave copies of the secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(wire.encoded_len() + CHECKSUM));
        wire.encode(&mut *bytes)
            .expect("a vector takes all that is put into it");
        let checksum = checksum(self.purpose, &bytes);
        bytes.extend_from_slice(&checksum);
        let prefix = self.purpose.prefix();
        let mut text = Zeroizing::new(String::with_capacity(
            prefix.len() + bytes.len() * 4 / 3 + 4,
        ));
        text.push_str(prefix);
        URL_SAFE_NO_PAD.encode_string(&*bytes, &mut text);
        text
    }

    /// Reads a token of any purpose. Blanks and line ends around it are none of it.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TokenError::Missing);
        }
        let strange = text
            .chars()
            .enumerate()
            .find_map(|(at, c)| Some((at, Stranger::of(c)?)));
        if let Some((at, kind)) = strange {
            return Err(TokenError::Alphabet { at: at + 1, kind });
        }
        let all = [Purpose::Node, Purpose::Cluster];
        let found = all
            .into_iter()
            .find_map(|p| Some((p, text.strip_prefix(p.prefix())?)));
        let (purpose, body) = found.ok_or(TokenError::Prefix)?;
        let length = text.len();
        if length > MAX_TEXT {
            return Err(TokenError::TooLong { length });
        }
        if body.len() < SHORTEST {
            return Err(TokenError::Truncated { length });
        }
        // A dot in the middle, or bits of a cut character.
        let bytes = URL_SAFE_NO_PAD
            .decode(body)
            .map_err(|_| TokenError::Checksum)?;
        let bytes = Zeroizing::new(bytes);
        let (message, sum) = bytes
            .split_last_chunk::<CHECKSUM>()
            .ok_or(TokenError::Checksum)?;
        if checksum(purpose, message) != *sum {
            return Err(TokenError::Checksum);
        }
        let wire = Wire::decode(message);
        let wire = wire.map_err(|_| field("message", "must be of protobuf"))?;
        Self::check(purpose, &wire)
    }

    /// Reads a token that must be good for something certain.
    ///
    /// # Errors
    /// It is none, or is good for something else.
    pub fn parse_for(wanted: Purpose, text: &str) -> Result<Self, TokenError> {
        let token = Self::parse(text)?;
        if token.purpose != wanted {
            let got = token.purpose;
            return Err(TokenError::Purpose { wanted, got });
        }
        Ok(token)
    }

    /// Whether it is good still, by this clock. The hub's own counts in the end.
    ///
    /// # Errors
    /// [`TokenError::Expired`].
    pub fn check_time(&self, now: SystemTime) -> Result<(), TokenError> {
        match now.duration_since(self.expires) {
            Ok(over) if !over.is_zero() => Err(TokenError::Expired {
                ago: over.as_secs(),
            }),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn check(purpose: Purpose, wire: &Wire) -> Result<Self, TokenError> {
        let name = |name, rule: Result<(), crate::record::NameError>| {
            rule.map_err(|rule| field(name, &rule.to_string()))
        };
        name("clusterset", check_name(&wire.clusterset))?;
        name("cluster", check_label(&wire.cluster))?;
        name("name", purpose.check_name(&wire.name))?;
        if !(1..=MAX_HUBS).contains(&wire.hubs.len()) {
            return Err(field("hubs", "must be 1 to 8"));
        }
        for hub in &wire.hubs {
            Target::from_str(hub).map_err(|rule| field("hubs", &rule.to_string()))?;
        }
        let pin = Pin::from_slice(&wire.pin);
        let secret = Secret::from_slice(&wire.secret);
        let expires = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(wire.expires));
        Ok(Self {
            purpose,
            clusterset: wire.clusterset.clone(),
            cluster: wire.cluster.clone(),
            name: wire.name.clone(),
            hubs: wire.hubs.clone(),
            pin: pin.ok_or_else(|| field("pin", "must be 32 bytes"))?,
            secret: secret.ok_or_else(|| field("secret", "must be 32 bytes"))?,
            expires: expires.ok_or_else(|| field("expires", "must be a time"))?,
        })
    }
}

fn field(field: &'static str, rule: &str) -> TokenError {
    TokenError::Field {
        field,
        rule: rule.to_owned(),
    }
}

/// The purpose is under it, so that nobody makes another of it.
fn checksum(purpose: Purpose, message: &[u8]) -> [u8; CHECKSUM] {
    let mut hash = Sha256::new();
    hash.update(purpose.prefix());
    hash.update(message);
    let hash: [u8; 32] = hash.finalize().into();
    [hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests;
