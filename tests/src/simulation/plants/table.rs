//! The bugs.

use super::Plant;

/// All of them.
pub const PLANTS: &[Plant] = &[];
