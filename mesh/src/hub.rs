//! The hub of a cluster.

pub mod allocate;
pub mod bump;
pub mod core;
pub mod derive;
pub mod grants;
pub mod journal;
pub mod manifest;
pub mod members;
pub mod writer;
