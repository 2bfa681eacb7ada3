//! Where the binaries under test are.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// Finds a binary of the workspace: in `$HAWSER_BIN_DIR`, or in the profile directory that the running program was
/// built into.
///
/// # Errors
/// When it has not been built.
pub fn binary(name: &str) -> Result<PathBuf> {
    if let Some(directory) = env::var_os("HAWSER_BIN_DIR") {
        let path = PathBuf::from(directory).join(name);
        if path.is_file() {
            return Ok(path);
        }
        bail!("HAWSER_BIN_DIR: no {name} in it; build it by `cargo build --release`");
    }
    let own = env::current_exe().context("failed to find the running program")?;
    // A test binary lies in `deps/`, one below the binaries.
    for directory in own.ancestors().skip(1).take(2) {
        let path = directory.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!(
        "no {name} next to {}; build it by `cargo build --release` or set HAWSER_BIN_DIR",
        own.display()
    )
}
