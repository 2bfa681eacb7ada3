//! Errors as a runtime is told them (SPEC, "Error").

use crate::SpecVersion;
use serde_json::{Value, json};

/// Well-known codes, and ours from 100 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Code {
    /// The version of the configuration is not spoken.
    IncompatibleVersion = 1,
    /// A field of the configuration asks for what is not supported.
    UnsupportedField = 2,
    /// The container is not known or does not exist; the runtime need not call DEL.
    UnknownContainer = 3,
    /// A variable is missing or breaks a rule.
    InvalidEnvironment = 4,
    /// Reading or writing failed.
    Io = 5,
    /// The configuration cannot be read.
    Decoding = 6,
    /// A field of the configuration breaks a rule.
    InvalidConfig = 7,
    /// Nothing is wrong with the request; try again later.
    TryAgainLater = 11,
    /// ADD would not work now.
    NotAvailable = 50,
    /// The same, and containers that are there may be cut off as well.
    NotAvailableLimited = 51,
    /// The interface is in the namespace already.
    InterfaceExists = 100,
    /// CHECK found something else than ADD left.
    Changed = 101,
    /// Some of what GC was to remove is still there.
    NotCollected = 102,
}

/// Why a command was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}{details}", if details.is_empty() { "" } else { ": " })]
pub struct Error {
    /// Its kind.
    pub code: Code,
    /// One line.
    pub message: String,
    /// One line more, or nothing.
    pub details: String,
}

impl Error {
    /// One line and no more.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: String::new(),
        }
    }

    /// The same, with details.
    #[must_use]
    pub fn with_details(self, details: impl Into<String>) -> Self {
        let details = details.into();
        Self { details, ..self }
    }

    /// As it is written to standard output. `version`: that of the configuration, if it is known.
    pub fn to_json(&self, version: Option<SpecVersion>) -> Value {
        let version = version.unwrap_or(SpecVersion::NEWEST);
        json!({
            "cniVersion": version.name(),
            "code": self.code as u16,
            "msg": self.message,
            "details": self.details,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_as_the_specification_says() {
        let error = Error::new(Code::InvalidConfig, "name: missing").with_details("set it");
        let told = json!({ "cniVersion": "1.0.0", "code": 7, "msg": "name: missing", "details": "set it" });
        assert_eq!(error.to_json(Some(SpecVersion::V1_0_0)), told);
        assert_eq!(error.to_json(None)["cniVersion"], "1.1.0");
        assert_eq!(error.to_string(), "name: missing: set it");
        assert_eq!(Error::new(Code::Io, "a").to_string(), "a");
    }
}
