//! How those come in who are not known yet, and how those stay who are: nodes get their certificates (docs/security.md,
//! "Enrolment").
//!
//! Nothing here reads a clock, a socket or a file.

pub mod certified;
pub mod desk;
pub mod message;
pub mod renewal;
