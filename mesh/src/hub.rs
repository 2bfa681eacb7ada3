//! The hub of a cluster: what the cluster is, for its own agents and for other clusters' hubs.
//!
//! ```text
//!   manifests -> Catalog -> Writer (Derive, Ledger) -> journal -> Core (Replica) <-> agents, other hubs
//!                              numbers, lanes                        |
//!                                                                  kept: other clusters' records
//! ```
//!
//! Replicas of a hub share a state directory. The one that holds its lock writes: it turns manifests into records
//! ([`mod@derive`]), gives numbers ([`allocate`]) and appends to the [`journal`]. The others read along, serve the same, and one of
//! them goes on when the writer dies. A change is on the disk before anybody is told of it, so revisions and numbers mean
//! one thing for ever. [`mod@core`] decides whom to dial, whom to serve and what to take; [`run`] is the shell around it.
//!
//! In the state directory:
//!
//! | name | what |
//! |---|---|
//! | `lock` | held by the replica that writes |
//! | `journal` | the own cluster's records, change by change |
//! | `nodes/`, `identities/` | a file for each number that was given |
//! | `accepted/` | manifests as they were right last |
//! | `peers/` | a file for each cluster that joined by invitation |
//! | `announced/` | a file with the lanes of each node |
//! | `ca/` | the cluster's CA, unless certificates are brought |
//! | `tokens/` | a file for each token that was given away, and one beside it once it was used |
//! | `ahead/` | a file of each replica: who told it of newer states than there are |
//! | `kept-HUB-PORT.redb` | a replica's own: records of other clusters |
//! | `hub-PORT.sock` | a replica's own: where root asks it |

pub(crate) mod admin;
pub mod allocate;
pub mod bump;
mod certificates;
mod connections;
pub mod core;
pub mod derive;
mod enrolment;
pub mod grants;
mod joining;
pub mod journal;
pub mod manifest;
pub mod members;
pub mod protected;
pub mod run;
mod scribe;
mod status;
pub mod tokens;
pub mod writer;
