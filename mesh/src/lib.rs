//! The agent and the command line of Hawser.
//!
//! `hawser agent` owns the desired state of a node ([`agent`]): it reads `node.yaml` ([`config`]), loads
//! the guard, sets up the kernel and tells the data plane, `hawser-tunnel`, whom to reach and how. It
//! may die at any time; the data plane and the kernel go on with what they were told. The rest of
//! the command line ([`cli`]) asks the data plane.

pub mod agent;
pub mod agent_socket;
pub mod ca;
mod chain;
pub mod cli;
pub mod config;
pub mod dial;
pub mod enrol;
pub mod frame;
pub mod hub;
pub mod io;
pub mod join;
pub mod kept;
mod lot;
pub mod psk;
pub mod record;
pub mod replica;
pub mod revocation;
pub mod token;
pub mod trust;
pub mod wire;
