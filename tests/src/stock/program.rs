//! The implementations and where their programs are.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

/// Somebody else's WireGuard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Implementation {
    /// `wireguard-go`, as Debian packages it.
    WireguardGo,
    /// The newest `wireguard-go`, a Go module, as `tests/peers` builds it.
    WireguardGoNewest,
    /// `boringtun-cli`, of the crate of that name, as `tests/peers` builds it.
    Boringtun,
    /// `gotatun`, of the crate `gotatun-cli`, as `tests/peers` builds it.
    Gotatun,
}

impl Implementation {
    /// Those that the tests hold nodes against: one in Go, one in Rust.
    pub const TESTED: [Self; 2] = [Self::WireguardGo, Self::Gotatun];

    /// What its program is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::WireguardGo => "wireguard-go",
            Self::WireguardGoNewest => "wireguard-go-newest",
            Self::Boringtun => "boringtun-cli",
            Self::Gotatun => "gotatun",
        }
    }

    /// Its program.
    ///
    /// # Errors
    /// When it was not installed: names the command that does it.
    pub(crate) fn program(self) -> Result<PathBuf> {
        match self {
            Self::WireguardGo => Ok(PathBuf::from(self.name())),
            Self::WireguardGoNewest | Self::Boringtun | Self::Gotatun => built(self.name()),
        }
    }

    /// What makes it run in the foreground, behind its program's name.
    pub(super) const fn foreground(self) -> &'static [&'static str] {
        match self {
            Self::WireguardGo | Self::WireguardGoNewest => &["-f"],
            // They would give up root otherwise, and their sockets with it.
            Self::Boringtun | Self::Gotatun => &["-f", "--disable-drop-privileges"],
        }
    }
}

/// A program that `tests/peers` builds: in `$HAWSER_PEERS_DIR`, or in `peers/bin` of the target directory that the
/// running program was built into.
fn built(name: &str) -> Result<PathBuf> {
    if let Some(directory) = env::var_os("HAWSER_PEERS_DIR") {
        let path = PathBuf::from(directory).join(name);
        if path.is_file() {
            return Ok(path);
        }
        bail!("HAWSER_PEERS_DIR: no {name} in it; `tests/peers bench` builds it");
    }
    let own = env::current_exe().context("failed to find the running program")?;
    // target/release/deps/TEST or target/release/lab.
    for directory in own.ancestors().skip(2).take(2) {
        let path = directory.join("peers/bin").join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!("no peers/bin/{name} in the target directory; `tests/peers bench` builds it")
}
