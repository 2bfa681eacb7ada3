//! Revocation: whom a cluster has cut off (docs/security.md, "Revocation").
//!
//! A cluster decides for itself ([`Own`]). Of other clusters it publishes the list, signed by its CA ([`Signed`]); others
//! follow it where their grant says so ([`Standing`]). Lists have epochs that only grow: an older list is refused,
//! whoever shows it, whenever. Nothing here reads a clock or a file.

mod list;
mod own;
mod signed;
mod standing;

pub use list::{Epoch, List, ListError, MAX_PINS, MAX_REVOKED, Revoked};
pub use own::{Kind, Own};
pub use signed::{MAX_SIGNATURE, Signed};
pub use standing::{Heard, Standing, Verdict};
