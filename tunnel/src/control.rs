//! What an agent and an operator say to the data plane, over its unix socket.
//!
//! One message is a length (u32, big endian) and that many bytes of JSON; each [`Request`] gets one
//! [`Response`], in order. After [`Response::Capturing`] the rest of the connection is a pcapng
//! file. Only root may connect.

use crate::node::NodeId;
use crate::state::{Change, Digest, Revision, State};
use crate::status::{Counters, LivenessStatus, Status};
use serde::{Deserialize, Serialize};

/// The version of this protocol. A data plane refuses another by name.
pub const PROTOCOL: u32 = 1;

/// The longest message, in bytes: a state of 25,000 peers takes about 10 MB.
pub const MAX_MESSAGE: usize = 64 << 20;

/// A question or an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Request {
    /// Opens a connection; must come first.
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
        /// Who asks.
        role: Role,
    },
    /// Which state is in force.
    Revision,
    /// The whole state in force.
    State,
    /// Puts a whole state in force. The same state again changes nothing.
    Replace {
        /// The state.
        state: Box<State>,
    },
    /// Changes the state in force.
    Change {
        /// The revision that the changes start from.
        from: u64,
        /// The changes, in order; all or none.
        changes: Vec<Change>,
        /// The digest of the state that they lead to.
        digest: Digest,
    },
    /// Peers, lanes, handshakes, bytes.
    Status,
    /// Packets, bytes, and drops by reason.
    Counters,
    /// What is thought of the watched peers.
    Liveness,
    /// Which peers have a session, or want one.
    Demand,
    /// The node's own public keys and where they are reached, as peers are to be told of them.
    Keys,
    /// Starts new handshakes at once; the sessions in use go on until the new ones are proven.
    Rekey {
        /// With whom; `None` for all peers.
        peer: Option<NodeId>,
    },
    /// Begins to change the node's own WireGuard keys: new ones are made, and the old ones are kept until all peers use
    /// the new.
    NewKeys,
    /// Ends such a change: the old keys go at once, whoever still needs them.
    ForgetKeys,
    /// Streams what is inside the tunnel as pcapng until the client hangs up.
    Capture(CaptureRequest),
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// The node's agent: the one that sets the state. A newer one takes the place of an older.
    Agent,
    /// A person or a tool that reads.
    Operator,
}

/// What to capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CaptureRequest {
    /// Overlay packets: IPv4, UDP, Geneve, pod packet.
    pub geneve: bool,
    /// Pod packets as frames, with the identity in the source MAC address.
    pub plain: bool,
    /// Only packets to and from this peer.
    pub peer: Option<NodeId>,
    /// How much of each packet, in bytes.
    pub snap_length: u16,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Response {
    /// To [`Request::Hello`].
    Hello {
        /// The version of `hawser-tunnel`.
        version: String,
        /// The node's WireGuard keys in base64, one a lane.
        public_keys: Vec<String>,
    },
    /// To [`Request::Revision`]; `None` where no state was ever set.
    Revision(Option<Revision>),
    /// To [`Request::State`].
    State(Option<Box<State>>),
    /// To [`Request::Replace`] and [`Request::Change`]: it is in force, on disk, and guarded.
    Applied {
        /// The state now in force.
        revision: Revision,
        /// Whether anything changed.
        changed: bool,
    },
    /// The request was understood and not carried out; the state is as it was.
    Refused {
        /// The named reason.
        reason: Refusal,
        /// One line for people.
        detail: String,
    },
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Counters`].
    Counters(Counters),
    /// To [`Request::Liveness`].
    Liveness(LivenessStatus),
    /// To [`Request::Demand`].
    Demand {
        /// Each of them once.
        peers: Vec<NodeId>,
    },
    /// To [`Request::Keys`].
    Keys {
        /// The newest of the node's WireGuard keys in base64, one a lane.
        public_keys: Vec<String>,
        /// The UDP port of the first lane; further lanes have the ports behind it.
        port: u16,
    },
    /// To [`Request::Rekey`].
    Rekeying {
        /// How many handshakes were started.
        lanes: usize,
    },
    /// To [`Request::NewKeys`]: peers are to be told of these.
    NewKeys {
        /// The newest of the node's WireGuard keys in base64, one a lane.
        public_keys: Vec<String>,
    },
    /// To [`Request::ForgetKeys`].
    KeysForgotten {
        /// Peers that had not shown that they know the new keys.
        late: usize,
    },
    /// To [`Request::Capture`]: pcapng follows.
    Capturing,
}

/// Why a request was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Refusal {
    /// Not JSON, not a request, or too long.
    Malformed,
    /// Another version of the protocol, or no `Hello` first.
    Protocol,
    /// `Change.from` is not the revision in force: fetch it, or replace the whole.
    RevisionGap,
    /// The changes do not lead to the digest that was promised.
    DigestMismatch,
    /// The state breaks a rule.
    InvalidState,
    /// There is no such peer in the state in force.
    UnknownPeer,
    /// Only an agent sets the state, and another one has taken over.
    NotTheAgent,
    /// The guard could not be loaded, so the rest was not applied either.
    GuardFailed,
    /// The state, or keys, could not be kept on disk.
    NotPersisted,
    /// A change of keys is still going on: the one before must have come to its end.
    KeyChangeGoingOn,
    /// There is no change of keys that could end.
    NoKeyChange,
}
