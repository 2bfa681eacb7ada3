//! Connections between agents and hubs on sockets of the loopback: who is taken, who is refused and why, and what
//! a peer that behaves badly can do to others.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails where it stands and says why"
)]

mod flood;
mod groups;
mod guests;
mod hostile;
mod initial;
mod ipv6;
mod keys;
mod lifetime;
mod members;
mod messages;
mod names;
mod raw;
mod refusals;
