//! What replicas say to each other, as protobuf (docs/wire.md, "Between clusters").
//!
//! Fields are added, never renumbered; who does not know a field skips it. A record travels as bytes which a relay
//! forwards as they came, so that fields which are newer than the relay survive it.

mod record;

pub use record::{RecordError, WireLane, decode_record, encode_record};

use bytes::Bytes;
use prost::Message as _;

/// The largest message, in bytes of its encoding. Who sends more is cut off before it is read.
pub const MAX_MESSAGE: usize = 1 << 20;

/// How many buckets a digest has. A key is in the bucket of the first byte of its hash.
pub const BUCKETS: usize = 256;

/// The version of the protocol. The major one is the ALPN; this counts what was added within it.
pub const MINOR: u32 = 0;

/// One message, in either direction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Message {
    /// What it says. A message that is newer than its reader has none, and is skipped.
    #[prost(oneof = "Body", tags = "1, 2, 3, 4, 5, 6, 10, 11, 12, 13, 14")]
    pub body: Option<Body>,
}

/// What a message says.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Body {
    /// Both, first of all.
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// A subscriber says what it wants and what it has.
    #[prost(message, tag = "2")]
    Subscribe(Subscribe),
    /// A subscriber's answer to `Compare`, or its own finding that a `Summary` does not fit.
    #[prost(message, tag = "3")]
    Digests(Digests),
    /// A subscriber took a part.
    #[prost(message, tag = "4")]
    Ack(Ack),
    /// A subscriber refused a record.
    #[prost(message, tag = "5")]
    Refused(Refused),
    /// An agent tells its hub of its node.
    #[prost(message, tag = "6")]
    Announce(Announce),
    /// A publisher asks for digests.
    #[prost(message, tag = "10")]
    Compare(Compare),
    /// A publisher's state, or a part of it.
    #[prost(message, tag = "11")]
    Snapshot(Snapshot),
    /// A publisher's changes, in order.
    #[prost(message, tag = "12")]
    Delta(Delta),
    /// A publisher says what a subscriber should have by now.
    #[prost(message, tag = "13")]
    Summary(Summary),
    /// A publisher has an origin no more: its cluster left.
    #[prost(message, tag = "14")]
    Gone(Gone),
}

/// The first message of each side.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    /// See [`MINOR`].
    #[prost(uint32, tag = "1")]
    pub minor: u32,
    /// The program's version, for people.
    #[prost(string, tag = "2")]
    pub program: String,
}

/// What a subscriber wants. A later one takes the place of the one before.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Subscribe {
    /// Counts this session's subscriptions, from 1. What answers an older one is skipped.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// Beginnings of keys; a record under any of them is wanted. Sorted, none under another.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub prefixes: Vec<Bytes>,
    /// The origins that are wanted; empty: all that the publisher has for us.
    #[prost(uint32, repeated, tag = "3")]
    pub origins: Vec<u32>,
    /// What there is of each origin already.
    #[prost(message, repeated, tag = "4")]
    pub have: Vec<Have>,
}

/// What a subscriber has of an origin, of that which it subscribes to.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Have {
    /// The cluster ID.
    #[prost(uint32, tag = "1")]
    pub origin: u32,
    /// Of the newest state that was ever complete here; with `revision`.
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// Of the same.
    #[prost(uint64, tag = "3")]
    pub revision: u64,
    /// Whether the content is that state: deltas may go on from it. Else it is a mix of states and must be compared.
    #[prost(bool, tag = "4")]
    pub complete: bool,
    /// The sum over all records, 16 bytes.
    #[prost(bytes = "bytes", tag = "5")]
    pub digest: Bytes,
    /// How many records.
    #[prost(uint64, tag = "6")]
    pub count: u64,
}

/// The digest of each bucket.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Digests {
    /// Of the subscription that this is about.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// The cluster ID.
    #[prost(uint32, tag = "2")]
    pub origin: u32,
    /// [`BUCKETS`] times 16 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub buckets: Bytes,
    /// Of the newest `Compare` that was heard. Digests from before a `Compare` are no answer to it.
    #[prost(uint32, tag = "4")]
    pub round: u32,
}

/// A subscriber took all parts up to this one; more may be sent.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ack {
    /// Of the subscription that this is about.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// The cluster ID.
    #[prost(uint32, tag = "2")]
    pub origin: u32,
    /// The part's number.
    #[prost(uint64, tag = "3")]
    pub sequence: u64,
}

/// A record was refused; the rest stands.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Refused {
    /// The cluster ID.
    #[prost(uint32, tag = "1")]
    pub origin: u32,
    /// The record's key.
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
    /// A refusal's name, as in metrics and logs.
    #[prost(string, tag = "3")]
    pub reason: String,
}

/// What an agent tells of its own node: all that its credential lets it write.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Announce {
    /// The node's lanes.
    #[prost(message, repeated, tag = "1")]
    pub lanes: Vec<WireLane>,
}

/// Asks for `Digests`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Compare {
    /// Of the subscription that this is about.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// The cluster ID.
    #[prost(uint32, tag = "2")]
    pub origin: u32,
    /// Counts what was asked about this origin and subscription, from 1.
    #[prost(uint32, tag = "3")]
    pub round: u32,
}

/// A part of an origin's state: of the subscribed keys that are in these buckets and in this range, there are these
/// records and no others. After the last part the state is complete, and at `incarnation`, `revision`; records may be
/// newer already, and then come again.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Snapshot {
    /// Of the subscription that this is about.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// The cluster ID.
    #[prost(uint32, tag = "2")]
    pub origin: u32,
    /// Of the state.
    #[prost(uint64, tag = "3")]
    pub incarnation: u64,
    /// Of the state.
    #[prost(uint64, tag = "4")]
    pub revision: u64,
    /// Counts the parts of all kinds of this origin and subscription, from 1.
    #[prost(uint64, tag = "5")]
    pub sequence: u64,
    /// All buckets.
    #[prost(bool, tag = "6")]
    pub all: bool,
    /// Else these: one bit each, lowest bit of the first byte first; empty: none.
    #[prost(bytes = "bytes", tag = "7")]
    pub buckets: Bytes,
    /// The range's first key; empty: from the beginning.
    #[prost(bytes = "bytes", tag = "8")]
    pub start: Bytes,
    /// The first key behind the range; empty: to the end.
    #[prost(bytes = "bytes", tag = "9")]
    pub end: Bytes,
    /// The records, sorted by key. None is a removal.
    #[prost(message, repeated, tag = "10")]
    pub records: Vec<Change>,
    /// Nothing follows.
    #[prost(bool, tag = "11")]
    pub last: bool,
    /// In the last part: how many records there are under the subscription.
    #[prost(uint64, tag = "12")]
    pub count: u64,
    /// How new a record in it may be, if newer than `revision`: the state is exact when a delta has reached this.
    #[prost(uint64, tag = "13")]
    pub newest: u64,
}

/// Changes in the order of their revisions. Whoever has the state of `from` has that of `to` afterwards.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Delta {
    /// Of the subscription that this is about.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// The cluster ID.
    #[prost(uint32, tag = "2")]
    pub origin: u32,
    /// Of both states.
    #[prost(uint64, tag = "3")]
    pub incarnation: u64,
    /// Of the state before.
    #[prost(uint64, tag = "4")]
    pub from: u64,
    /// Of the state after.
    #[prost(uint64, tag = "5")]
    pub to: u64,
    /// As in `Snapshot`.
    #[prost(uint64, tag = "6")]
    pub sequence: u64,
    /// Each key once, with its newest change.
    #[prost(message, repeated, tag = "7")]
    pub changes: Vec<Change>,
    /// The publisher's state, if newer than `to`. Then what changed before `to` and again after it is missing here, and
    /// the state is exact when a delta has reached this.
    #[prost(uint64, tag = "8")]
    pub newest: u64,
}

/// A record's newest state.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Change {
    /// When it became so.
    #[prost(uint64, tag = "1")]
    pub revision: u64,
    /// Where it is found.
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
    /// The record; `None`: it is gone.
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub value: Option<Bytes>,
}

/// What a subscriber has who took everything so far.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Summary {
    /// Of the subscription that this is about.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// The cluster ID.
    #[prost(uint32, tag = "2")]
    pub origin: u32,
    /// Of the state.
    #[prost(uint64, tag = "3")]
    pub incarnation: u64,
    /// Of the state.
    #[prost(uint64, tag = "4")]
    pub revision: u64,
    /// The sum over all its records, 16 bytes.
    #[prost(bytes = "bytes", tag = "5")]
    pub digest: Bytes,
    /// How many records.
    #[prost(uint64, tag = "6")]
    pub count: u64,
}

/// The publisher does not have this origin any more, and whoever has something of it forgets it, its version too: the
/// next cluster with this ID may begin anew.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Gone {
    /// Of the subscription that this is about.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// The cluster ID.
    #[prost(uint32, tag = "2")]
    pub origin: u32,
    /// As in `Snapshot`.
    #[prost(uint64, tag = "3")]
    pub sequence: u64,
}

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// See [`MAX_MESSAGE`].
    #[error("message of {0} bytes; at most 1048576 are taken")]
    TooLong(usize),
    /// It is no protobuf.
    #[error("malformed message")]
    Malformed(#[from] prost::DecodeError),
}

impl Message {
    /// A message that says this.
    pub fn of(body: Body) -> Self {
        Self { body: Some(body) }
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    /// Reads one. Byte fields share memory with `bytes`.
    ///
    /// # Errors
    /// Too long, or malformed.
    pub fn parse(bytes: Bytes) -> Result<Self, MessageError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(MessageError::TooLong(bytes.len()));
        }
        Ok(Self::decode(bytes)?)
    }
}

impl From<Body> for Message {
    fn from(body: Body) -> Self {
        Self::of(body)
    }
}
