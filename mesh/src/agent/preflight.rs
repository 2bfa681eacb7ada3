//! What must be so before the agent touches anything.

use super::kernel::Sysctl;
use crate::config::NodeConfig;
use crate::io::netlink::{KernelError, Netlink};
use crate::io::sysctl;
use std::os::unix::fs::MetadataExt as _;

/// A node that the agent cannot work on as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PreflightError {
    /// Not enough rights.
    #[error("user: {uid}: must be 0 (root); run as root: sudo hawser agent")]
    NotRoot {
        /// Who it was.
        uid: u32,
    },
    /// The kernel would drop packets whose replies go another way.
    #[error(
        "net.ipv4.conf.all.rp_filter: {value}: must be 0 or 2, as 1 drops pod packets from the tunnel; \
         run sysctl -w net.ipv4.conf.all.rp_filter=2"
    )]
    ReversePathFilter {
        /// What it is.
        value: String,
    },
    /// An underlay device is not there.
    #[error(
        "underlay.devices: {device}: is not a device of this node; correct the name (ip link shows them)"
    )]
    NoDevice {
        /// Its name.
        device: String,
    },
    /// IPv6 prefixes on a kernel without IPv6.
    #[error("clusters: IPv6 prefixes: this kernel has no IPv6; enable it or remove the prefixes")]
    NoIpv6,
    /// The kernel could not be asked.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A file below `/proc` could not be read.
    #[error("failed to read /proc: {0}")]
    Proc(#[from] std::io::Error),
}

/// Checks the rights, the first of all checks.
pub(super) fn check_root() -> Result<(), PreflightError> {
    // The owner of a process's folder is its effective user.
    let uid = std::fs::metadata("/proc/self")?.uid();
    if uid == 0 {
        Ok(())
    } else {
        Err(PreflightError::NotRoot { uid })
    }
}

/// Checks the node against the configuration.
pub(super) async fn check(config: &NodeConfig, netlink: &Netlink) -> Result<(), PreflightError> {
    let value = sysctl::read(&Sysctl("ipv4/conf/all/rp_filter".to_owned()))?.unwrap_or_default();
    if value == "1" {
        return Err(PreflightError::ReversePathFilter { value });
    }
    if config.uses_ipv6() && !sysctl::has_ipv6() {
        return Err(PreflightError::NoIpv6);
    }
    for device in &config.statics.underlay {
        if netlink.link(device).await?.is_none() {
            return Err(PreflightError::NoDevice {
                device: device.clone(),
            });
        }
    }
    Ok(())
}
