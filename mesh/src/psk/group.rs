//! How a session's secret was agreed upon, and how it must be.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The group of a TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Group {
    /// Elliptic curves and lattices: a quantum computer does not help.
    #[serde(rename = "X25519MLKEM768")]
    Hybrid,
    /// Elliptic curves alone.
    #[serde(rename = "X25519")]
    Classical,
}

impl Group {
    /// Its name in the registry of TLS.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hybrid => "X25519MLKEM768",
            Self::Classical => "X25519",
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether there may be tunnels that a quantum computer could open later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PostQuantum {
    /// None: packets wait until there is a key of a [`Group::Hybrid`] session.
    Required,
    /// Where there is no such key, it is shown.
    #[default]
    Preferred,
}
