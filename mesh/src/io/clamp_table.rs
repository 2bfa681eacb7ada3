//! The clamp table in the kernel, by way of the program `nft`.

use crate::agent::clamp::{FAMILY, TABLE, batch, normalise, plan};
use nftables::helper::{
    DEFAULT_ARGS, DEFAULT_NFT, NftablesError, apply_ruleset_raw, get_current_ruleset_raw,
};
use serde_json::Value;

/// Makes the table what it should be and remembers nft's own spelling of it.
#[derive(Debug, Default)]
pub(crate) struct ClampTable {
    /// How this `nft` lists what was written, kept only when it uses other words than the plan;
    /// without it, a release with a new spelling would have us write for ever.
    dialect: Option<Vec<Value>>,
}

/// Why the table could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("failed to {what} table {FAMILY} {TABLE}: {reason}")]
pub(crate) struct ClampError {
    what: &'static str,
    reason: String,
}

impl ClampTable {
    /// Writes the table unless it stands already. Tells whether it wrote.
    pub(crate) fn ensure(&mut self, device: &str) -> Result<bool, ClampError> {
        let wanted = plan(device);
        let found = list()?;
        if found == wanted || self.dialect.as_ref() == Some(&found) {
            return Ok(false);
        }
        apply_ruleset_raw(&batch(&wanted).to_string(), DEFAULT_NFT, DEFAULT_ARGS)
            .map_err(|error| failed("write", &error))?;
        let written = list()?;
        self.dialect = (written != wanted).then_some(written);
        Ok(true)
    }
}

fn list() -> Result<Vec<Value>, ClampError> {
    match get_current_ruleset_raw(DEFAULT_NFT, ["list", "table", FAMILY, TABLE]) {
        Ok(text) => serde_json::from_str(&text)
            .map(normalise)
            .map_err(|error| ClampError {
                what: "read",
                reason: error.to_string(),
            }),
        Err(NftablesError::NftFailed { stderr, .. }) if stderr.contains("No such file") => {
            Ok(Vec::new())
        }
        Err(error) => Err(failed("read", &error)),
    }
}

fn failed(what: &'static str, error: &NftablesError) -> ClampError {
    let reason = match error {
        NftablesError::NftFailed { stderr, .. } => {
            stderr.lines().next().unwrap_or_default().to_owned()
        }
        NftablesError::NftExecution { .. }
        | NftablesError::NftOutputEncoding { .. }
        | NftablesError::NftInvalidJson(_) => error.to_string(),
    };
    ClampError { what, reason }
}
