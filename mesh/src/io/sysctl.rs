//! Files below `/proc/sys/net`, of the network namespace that the calling thread is in.

use crate::agent::kernel::Sysctl;
use std::io;
use std::path::{Path, PathBuf};

const ROOT: &str = "/proc/sys/net";

/// Reads one; `None` where the kernel has no such file.
pub(crate) fn read(sysctl: &Sysctl) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path(sysctl)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes one.
pub(crate) fn write(sysctl: &Sysctl, value: &str) -> io::Result<()> {
    std::fs::write(path(sysctl), value)
}

/// Whether the kernel has IPv6 at all.
pub(crate) fn has_ipv6() -> bool {
    Path::new(ROOT).join("ipv6").exists()
}

fn path(sysctl: &Sysctl) -> PathBuf {
    Path::new(ROOT).join(&sysctl.0)
}
