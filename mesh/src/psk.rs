//! Pre-shared keys between nodes, which nobody sends: the agents of two nodes open a short QUIC session, and both derive
//! the keys from its secret (RFC 8446, section 7.5), bound to their WireGuard keys, the lane and an epoch
//! (docs/wire.md, "Pre-shared keys").
//!
//! Nothing here reads a clock or a socket: [`Agenda`] says with whom to open a session when, and whom to answer;
//! [`Terms`] derive the keys of one session from whatever can export them.

mod agenda;
mod group;
mod message;
mod refusal;
mod terms;

pub use agenda::{Agenda, Begin, Demand, EAGER, Failure, PATIENCE, Partner, RENEWAL, Taken};
pub use group::{Group, PostQuantum};
pub use message::{Answer, MAX_MESSAGE, Request};
pub use refusal::Refusal;
pub use terms::{Exporter, ExporterFailed, Keys, Side, Terms};
