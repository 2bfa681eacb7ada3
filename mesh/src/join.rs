//! Clusters that join by invitation (docs/security.md, "Joining"): what each side offers, what may not be, and what the
//! operator agrees to.
//!
//! ```text
//!   operator of east                                     operator of west
//!   hawser invite west  --- token, by any safe way --->  hawser join TOKEN
//!
//!   hub of east  <--- look: west's offer, the secret ---  hub of west
//!                ---- east's offer, its grant ---------->   shows both, is told yes
//!                <--- join: the same, what was agreed ---
//!   uses the token up, writes west                          writes east
//! ```
//!
//! Nothing changes anywhere before both sides have looked at both offers. Nothing here reads a clock, a socket or a file.

pub mod conflict;
pub mod file;
pub mod message;
pub mod offer;
pub mod table;

pub use conflict::Conflict;
pub use message::Terms;

pub use offer::{Grant, Offer, OfferFault, Protocols};
