//! Connections between agents and hubs on sockets of the loopback: who is taken, who is refused and why, and what
//! a peer that behaves badly can do to others.

#[expect(
    clippy::unwrap_used,
    reason = "what fails here has no test to be told by"
)]
mod members;
mod messages;
