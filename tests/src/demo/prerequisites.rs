//! What the demo needs of the machine.

use std::env;

use anyhow::{Result, bail};

use crate::lab::binary;

/// Programs and the Debian packages that they come from.
const TOOLS: [(&str, &str); 4] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iperf3", "iperf3"),
    ("ping", "iputils-ping"),
];

/// Checks for root, tools and our own programs.
///
/// # Errors
/// One line with what is missing and how to get it.
pub(super) fn check() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("not root: the demo makes network namespaces; run it as root");
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        bail!("no /dev/net/tun: load the module by `modprobe tun`");
    }
    let paths: Vec<_> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    let missing: Vec<&str> = TOOLS
        .iter()
        .filter(|(tool, _)| !paths.iter().any(|path| path.join(tool).is_file()))
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        bail!(
            "missing tools: install them by `apt-get install {}`",
            missing.join(" ")
        );
    }
    binary("hawser-tunnel")?;
    binary("hawser")?;
    Ok(())
}
