//! Why a single record is not taken. The rest stands.

use crate::record::Key;
use crate::wire::RecordError;
use bytes::Bytes;
use hawser_tunnel::node::ClusterId;

/// The longest value, in bytes: two records and what surrounds them fit in a message.
pub const MAX_VALUE: usize = 256 << 10;

/// Why a record is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Empty or too long.
    #[error("malformed key")]
    KeyMalformed,
    /// See [`MAX_VALUE`].
    #[error("value of more than 262144 bytes")]
    ValueTooLong,
    /// The origin has more records than it may.
    #[error("more records than the quota allows")]
    QuotaRecords,
    /// The origin's records are longer than they may be.
    #[error("more bytes than the quota allows")]
    QuotaBytes,
    /// It is no record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Its origin may not say it: the name of the rule.
    #[error("outside the grant: {0}")]
    Grant(&'static str),
}

impl Refusal {
    /// Its name in metrics, logs and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::KeyMalformed => "key_malformed",
            Self::ValueTooLong => "value_too_long",
            Self::QuotaRecords => "quota_records",
            Self::QuotaBytes => "quota_bytes",
            Self::Record(error) => error.name(),
            Self::Grant(rule) => rule,
        }
    }
}

/// Decides which records an origin may have. Asked once for each record that is new or changed, never for our own.
pub trait Gate {
    /// Whether this record is taken.
    ///
    /// # Errors
    /// The rule that it breaks.
    fn admit(&self, origin: ClusterId, key: &Key, value: &Bytes) -> Result<(), Refusal>;
}

/// Takes everything: for an agent, whose hub has judged already.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdmitAll;

impl Gate for AdmitAll {
    fn admit(&self, _: ClusterId, _: &Key, _: &Bytes) -> Result<(), Refusal> {
        Ok(())
    }
}
