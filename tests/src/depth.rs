//! How long the long tests are: in full for `make soak`, in short for `make test`.

use std::env;

/// Set by `make soak`.
const SOAK: &str = "HAWSER_SOAK";

/// Whether tests run in full.
#[must_use]
pub fn is_soak() -> bool {
    env::var_os(SOAK).is_some_and(|value| !value.is_empty() && value != "0")
}

/// How many rounds a test does: `full` for a soak, `short` otherwise.
#[must_use]
pub fn rounds(short: u32, full: u32) -> u32 {
    if is_soak() { full } else { short }
}
