//! What the data plane says of itself.

use crate::liveness;
use crate::node::NodeId;
use crate::offload::{Offload, Standing};
use crate::state::Revision;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The answer to "how is it".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The version of `hawser-tunnel`.
    pub version: String,
    /// This node, once it was told.
    pub node: Option<NodeId>,
    /// The state in force.
    pub revision: Option<Revision>,
    /// The TAP.
    pub device: String,
    /// UDP port.
    pub port: u16,
    /// The node's WireGuard keys in base64, one a lane.
    pub public_keys: Vec<String>,
    /// While they take the place of others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_change: Option<KeyChange>,
    /// Its lanes.
    #[serde(default)]
    pub lanes: NodeLanes,
    /// Milliseconds since the data plane started.
    pub uptime_ms: u64,
    /// Whether an agent is connected.
    pub agent_connected: bool,
    /// Processes: the keeper and this data plane.
    pub pids: Pids,
    /// The peers, in the order of their ids.
    pub peers: Vec<PeerStatus>,
    /// Packets, bytes and drops.
    pub counters: Counters,
    /// Which of the kernel's offloads are in use.
    pub offloads: BTreeMap<Offload, Standing>,
}

/// A change of this node's own keys that is going on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyChange {
    /// The keys before in base64, by which peers that are late still come.
    pub old_public_keys: Vec<String>,
    /// Milliseconds since it began, or since the data plane started.
    pub age_ms: u64,
    /// Peers that have not shown yet that they know the new keys.
    pub late: Vec<NodeId>,
    /// Peers with a session by the old ones.
    pub in_use: Vec<NodeId>,
}

/// How many lanes the node has.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeLanes {
    /// Those that it was started with: each is listened to.
    pub all: u8,
    /// Those that get flows which begin now.
    pub open: u8,
}

/// Process ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pids {
    /// The keeper's.
    pub keeper: u32,
    /// The data plane's.
    pub data_plane: u32,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// Cluster and index.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Whether it is a stock WireGuard peer.
    pub foreign: bool,
    /// MTU for pods over this path by family, in bytes.
    pub pod_mtu: PodMtu,
    /// Whether it answers probes; only of peers that are watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<PeerLiveness>,
    /// Its lanes.
    pub lanes: Vec<LaneStatus>,
}

/// The watched peers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LivenessStatus {
    /// How often any of them died or came back since the data plane started.
    pub changes: u64,
    /// Each of them.
    pub peers: BTreeMap<NodeId, PeerLiveness>,
}

/// What is thought of a watched peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerLiveness {
    /// Whether it answers.
    pub state: liveness::State,
    /// Milliseconds since its last reply, without time in which the data plane did not run; `None` without a reply.
    pub last_reply_ms: Option<u64>,
    /// Smoothed round trip, in microseconds.
    pub round_trip_us: Option<u64>,
    /// How often it died since it is watched.
    pub deaths: u64,
    /// For how long it is held once it answers again, in milliseconds; 0 while it does not flap.
    pub hold_down_ms: u64,
}

impl From<liveness::Report> for PeerLiveness {
    fn from(report: liveness::Report) -> Self {
        let whole = |count: u128| u64::try_from(count).unwrap_or(u64::MAX);
        Self {
            state: report.state,
            last_reply_ms: report.last_reply.map(|time| whole(time.as_millis())),
            round_trip_us: report.round_trip.map(|time| whole(time.as_micros())),
            deaths: report.deaths,
            hold_down_ms: whole(report.hold_down.as_millis()),
        }
    }
}

/// The MTU that a route to a peer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodMtu {
    /// For IPv4 pod packets.
    pub ipv4: u16,
    /// For IPv6 pod packets; 1280 at least.
    pub ipv6: u16,
}

/// One lane of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaneStatus {
    /// Base64.
    pub public_key: String,
    /// Where it is reached now.
    pub endpoint: Option<SocketAddr>,
    /// Milliseconds since the handshake of the session in use; `None` without a session.
    pub handshake_age_ms: Option<u64>,
    /// Handshakes completed since the data plane started.
    pub handshakes: u64,
    /// Bytes of overlay packets sent.
    pub tx_bytes: u64,
    /// Bytes of overlay packets received.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Whether a pre-shared key is in use.
    pub preshared_key: bool,
}

/// Sums over all peers since the data plane started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    /// Pod packets taken for a peer: sealed, or waiting for its handshake.
    pub tx_packets: u64,
    /// Pod packets delivered to the TAP.
    pub rx_packets: u64,
    /// Bytes of them.
    pub tx_bytes: u64,
    /// Bytes of pod packets delivered.
    pub rx_bytes: u64,
    /// Drops by reason; only reasons that were seen.
    pub drops: BTreeMap<String, u64>,
    /// Packets of the guard's named counters: what it kept off the underlay.
    pub guard: BTreeMap<String, u64>,
}
