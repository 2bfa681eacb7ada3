//! The hub of a cluster.

pub mod manifest;
