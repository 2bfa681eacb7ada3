//! The hub of a cluster.

pub mod allocate;
pub mod derive;
pub mod journal;
pub mod manifest;
pub mod members;
pub mod writer;
