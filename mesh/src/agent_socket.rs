//! What an operator asks the agent over its socket, `agent.sock` beside the data plane's: a line of JSON each way.
//!
//! | request | answer |
//! |---|---|
//! | `{"status":{}}` | `{"status":{...}}`: the hub, and what is known of each origin; with `"digest":true` its digest too |
//! | `{"renewKeys":{}}` | `{"renewing":{"peers":N}}`: pre-shared keys with all peers are derived anew, within seconds |
//! | `{"watch":{"prefixes":["endpoint"]}}` | `"watching"`, then a line for each record that comes or goes, until you hang up |
//!
//! A prefix is a kind, as in `node`, or a kind and the beginning of the rest behind a colon, as a key is printed. Only
//! root may connect. Who watches and reads too slowly is told `"tooSlow"` and hung up on.

use crate::agent::follower::OriginStatus;
use crate::kept::KeptStats;
use crate::psk::Group;
use crate::record::{KeyError, Kind, Prefix};
use crate::replica::Digest;
use hawser_tunnel::node::{ClusterId, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The longest request, in bytes.
pub const MAX_REQUEST: u64 = 64 << 10;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Request {
    /// How it is.
    Status {
        /// With the digests of all origins, which costs a look at every record.
        #[serde(default)]
        digest: bool,
    },
    /// Has other pre-shared keys derived with all peers.
    RenewKeys {},
    /// Has the node's own keys changed, and then the pre-shared keys, which are bound to them.
    Rotate {},
    /// Tells of records from now on.
    Watch {
        /// Which: kinds, or beginnings of keys.
        prefixes: Vec<String>,
        /// With what is in them, in hexadecimal.
        #[serde(default)]
        values: bool,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<StatusReply>),
    /// To [`Request::RenewKeys`] and [`Request::Rotate`]: it begins.
    Renewing {
        /// With how many.
        peers: usize,
    },
    /// To [`Request::Watch`]; lines follow.
    Watching,
    /// The watcher reads more slowly than records come; nothing follows.
    TooSlow,
    /// The request was not understood.
    Refused {
        /// A named reason.
        reason: Refusal,
        /// One line for people.
        detail: String,
    },
}

/// Why a request was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Refusal {
    /// Not JSON, not a request, or too long.
    Malformed,
    /// A prefix begins with no kind that we know.
    UnknownKind,
}

/// The agent and what it knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusReply {
    /// Its cluster's name.
    pub cluster: String,
    /// Its own.
    pub name: String,
    /// What became of it for the data plane.
    pub node: NodeStatus,
    /// The connection to a hub.
    pub hub: HubStatus,
    /// In the order of their ids.
    pub origins: Vec<OriginReport>,
    /// What was written to disk.
    pub kept: KeptStatus,
    /// The pre-shared keys with each peer that a hub told of, in the order of their ids.
    #[serde(default)]
    pub keys: Vec<PeerKeyStatus>,
    /// Sessions of others that led to no keys, by the name of the reason.
    #[serde(default)]
    pub key_refusals: BTreeMap<String, u64>,
}

/// How it stands with the pre-shared keys of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerKeyStatus {
    /// The peer.
    pub id: NodeId,
    /// Where they come from.
    pub post_quantum: KeyOrigin,
    /// Their number; only of those that this agent took.
    pub epoch: Option<u64>,
    /// Milliseconds since then.
    pub age_ms: Option<u64>,
    /// Why the last session for newer ones led to nothing.
    pub failure: Option<String>,
}

/// Where pre-shared keys come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyOrigin {
    /// A session by both groups: a quantum computer does not help.
    #[serde(rename = "X25519MLKEM768")]
    Hybrid,
    /// A session by elliptic curves alone.
    #[serde(rename = "X25519")]
    Classical,
    /// The data plane had them when this agent started.
    #[serde(rename = "kept")]
    Kept,
    /// There are none.
    #[serde(rename = "none")]
    None,
}

impl KeyOrigin {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hybrid => Group::Hybrid.name(),
            Self::Classical => Group::Classical.name(),
            Self::Kept => "kept",
            Self::None => "none",
        }
    }
}

impl From<Group> for KeyOrigin {
    fn from(group: Group) -> Self {
        match group {
            Group::Hybrid => Self::Hybrid,
            Group::Classical => Self::Classical,
        }
    }
}

/// What became of what was heard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Which node this is, once it was told.
    pub id: Option<NodeId>,
    /// How many peers are wanted.
    pub peers: usize,
    /// What is missing before anything is wanted, by name.
    pub waiting: Option<String>,
    /// What was left out: its name, and a line for people.
    pub conflicts: Vec<(String, String)>,
}

/// The connection to a hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HubStatus {
    /// Whether there is one.
    pub connected: bool,
    /// Who the hub is.
    pub peer: Option<String>,
    /// Where it is.
    pub address: Option<SocketAddr>,
    /// Milliseconds since it was connected, or lost.
    pub since_ms: u64,
    /// Connections so far.
    pub sessions: u64,
    /// What failed last, by address or name.
    pub failures: Vec<String>,
    /// Messages that came in, over all connections.
    pub messages_in: u64,
    /// Their bytes, not compressed.
    pub bytes_in: u64,
}

/// What is known of an origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OriginReport {
    /// The cluster.
    pub id: ClusterId,
    /// `INCARNATION.REVISION` of the newest state that was ever complete here.
    pub version: String,
    /// Whether the records are that state.
    pub complete: bool,
    /// Whether the hub that is connected has told all that it has.
    pub synced: bool,
    /// How many records.
    pub records: usize,
    /// How many were refused.
    pub refused: usize,
    /// Bytes of keys and values.
    pub bytes: usize,
    /// The sum over all records, in hexadecimal; only if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

impl OriginReport {
    pub(crate) fn new(id: ClusterId, origin: &OriginStatus, digest: Option<Digest>) -> Self {
        Self {
            id,
            version: origin.version.to_string(),
            complete: origin.complete,
            synced: origin.synced,
            records: origin.records,
            refused: origin.refused,
            bytes: origin.bytes,
            digest: digest.map(|digest| digest.to_string()),
        }
    }
}

/// What was written to disk since the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptStatus {
    /// Batches.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Batches that failed.
    pub failures: u64,
}

impl From<KeptStats> for KeptStatus {
    fn from(stats: KeptStats) -> Self {
        Self {
            batches: stats.batches,
            records: stats.records,
            failures: stats.failures,
        }
    }
}

/// A line for who watches. Times are nanoseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum WatchLine {
    /// A record is new or changed.
    Apply {
        /// Whose.
        origin: ClusterId,
        /// Its key, as it is printed.
        key: String,
        /// The record in hexadecimal, where it was asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<String>,
        /// When it was seen here.
        at_ns: u64,
    },
    /// A record is gone.
    Delete {
        /// Whose.
        origin: ClusterId,
        /// Its key.
        key: String,
        /// When it was seen here.
        at_ns: u64,
    },
    /// A cluster left with all its records.
    Forgotten {
        /// Which.
        origin: ClusterId,
        /// When it was seen here.
        at_ns: u64,
    },
}

/// Reads a prefix: `KIND` or `KIND:REST`, of which the rest may have `\x00` and the like for bytes that are no text.
///
/// # Errors
/// No kind of that name, or too long.
pub fn parse_prefix(text: &str) -> Result<Prefix, PrefixError> {
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    let known = Kind::ALL.into_iter().find(|known| known.name() == kind);
    let known = known.ok_or(PrefixError::UnknownKind)?;
    let mut bytes = vec![known as u8];
    let mut rest = rest.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let escaped = behind.strip_prefix(b"x").and_then(|hex| hex.get(..2));
        match (first, escaped, behind.first()) {
            (b'\\', Some(hex), _) => {
                let hex = std::str::from_utf8(hex).map_err(|_| PrefixError::Escape)?;
                bytes.push(u8::from_str_radix(hex, 16).map_err(|_| PrefixError::Escape)?);
                rest = &behind[3..];
            }
            (b'\\', None, Some(&next)) => {
                let plain = match next {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'\\' | b'\'' | b'"' => next,
                    _ => return Err(PrefixError::Escape),
                };
                bytes.push(plain);
                rest = &behind[1..];
            }
            (b'\\', None, None) => return Err(PrefixError::Escape),
            (plain, _, _) => {
                bytes.push(plain);
                rest = behind;
            }
        }
    }
    Ok(Prefix::parse(bytes.into())?)
}

/// Why a text is no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrefixError {
    /// It begins with none.
    #[error(
        "must begin with a kind: node, identity, service, endpoint, policy, namespace, pod or cluster"
    )]
    UnknownKind,
    /// A `\` with something else behind it than Rust's escapes of bytes.
    #[error("has a malformed escape; write bytes as \\x00")]
    Escape,
    /// Longer than any key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Key;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_key_as_it_is_printed_is_a_prefix_of_itself(rest in proptest::collection::vec(any::<u8>(), 0..40)) {
            let bytes = [vec![Kind::Endpoint as u8], rest].concat();
            let key = Key::parse(bytes.clone().into()).unwrap();
            let prefix = parse_prefix(&key.to_string()).unwrap();
            prop_assert_eq!(&prefix.as_bytes()[..], &bytes[..]);
        }

        #[test]
        fn no_text_makes_it_panic(text in "(node|endpoint|x)?:?.{0,30}") {
            let _ = parse_prefix(&text);
        }
    }

    #[test]
    fn texts_that_are_no_prefix_are_refused_by_name() {
        assert_eq!(parse_prefix("endpoints"), Err(PrefixError::UnknownKind));
        assert_eq!(parse_prefix("node:\\x0"), Err(PrefixError::Escape));
        assert_eq!(parse_prefix("node:\\"), Err(PrefixError::Escape));
        assert_eq!(parse_prefix("node"), Ok(Prefix::kind(Kind::Node)));
    }

    #[test]
    fn requests_are_these_lines() {
        let status = Request::Status { digest: false };
        assert_eq!(
            serde_json::from_str::<Request>("{\"status\":{}}").unwrap(),
            status
        );
        let watch: Request = serde_json::from_str("{\"watch\":{\"prefixes\":[\"node\"]}}").unwrap();
        let prefixes = vec!["node".to_owned()];
        assert_eq!(
            watch,
            Request::Watch {
                prefixes,
                values: false
            }
        );
        assert!(serde_json::from_str::<Request>("{\"status\":{\"x\":1}}").is_err());
    }
}
