//! The agent as a process against the real kernel. Needs root; every test makes its own network
//! namespace and removes it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails where it stands and says why"
)]

mod data_plane;
mod enrolment;
mod from_hub;
mod ground;
mod hub;
mod reconcile;
mod refusals;
