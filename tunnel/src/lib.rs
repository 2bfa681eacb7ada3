//! Geneve over WireGuard: pod packets to encrypted datagrams and back (RFC 8926).
//!
//! ```text
//! pod ─veth─▶ host ─route─▶ TAP ─▶ hawser-tunnel ─▶ UDP ─▶ underlay
//!
//! outer IP │ UDP │ WireGuard data │ overlay IPv4 │ UDP → 6081 │ Geneve 8 B │ option 12 B │ pod packet
//! ```
//!
//! [`device::Device`] is the whole data plane as a state machine that takes frames, datagrams, states
//! and `now`. Start there. What it is made of has the names of its standards: [`geneve`], [`vni`],
//! [`overlay`], [`identity`], [`owners`], [`forwarding`], [`lane`], [`engine`], [`segment`], [`merge`], [`mtu`],
//! [`reject`], [`probe`], [`liveness`], [`balance`].
//! [`io`] touches the kernel and decides nothing; [`keeper`] and [`data_plane`] are the two processes
//! of `hawser-tunnel`.

pub mod aead;
pub mod balance;
pub mod batch;
pub mod capture;
pub mod control;
pub mod cookie;
pub mod data_plane;
pub mod device;
pub mod engine;
pub mod forwarding;
pub mod geneve;
pub mod guard;
pub mod handover;
pub mod handshake_limit;
pub mod identity;
pub mod inbound;
pub mod io;
pub mod ip;
pub mod keeper;
pub mod key;
pub mod lane;
pub mod liveness;
pub mod merge;
pub mod mtu;
pub mod node;
pub mod offload;
pub mod outbound;
pub mod outgoing;
pub mod overlay;
mod own_key;
pub mod owners;
pub mod probe;
pub mod reassembly;
pub mod reject;
pub mod segment;
pub mod state;
pub mod status;
pub mod steering;
pub mod virtio;
pub mod vni;
pub mod wireguard;
