//! The hub of a cluster.

pub mod allocate;
pub mod bump;
mod connections;
pub mod core;
pub mod derive;
pub mod grants;
pub mod journal;
pub mod manifest;
pub mod members;
pub mod run;
mod scribe;
mod status;
pub mod writer;
