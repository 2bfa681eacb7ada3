//! The data plane of a node: the keeper's child, killed, renewed, or upgraded.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::binary;
use super::node::Node;
use super::wait::wait_until;
use crate::io::{children_of, send_signal};

/// How long a data plane may take to hand over: longer than it lingers for its last packets.
const HANDOVER: Duration = Duration::from_secs(15);
/// The command under which a keeper starts a data plane.
const COMMAND: &[u8] = b"data-plane";

impl Node {
    /// The data planes that run: one, or two while one hands over to the other.
    #[must_use]
    pub fn data_plane_pids(&self) -> Vec<i32> {
        let is_data_plane = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).nth(1) == Some(COMMAND)
        };
        // The keeper also runs short-lived programs such as nft.
        let children = self.keeper_pid().map(children_of).unwrap_or_default();
        children.into_iter().filter(is_data_plane).collect()
    }

    /// The data plane's process id: the keeper's child.
    #[must_use]
    pub fn data_plane_pid(&self) -> Option<i32> {
        self.data_plane_pids().first().copied()
    }

    /// Kills the data plane by SIGKILL; the keeper starts the next one.
    ///
    /// # Errors
    /// When there is none.
    pub fn kill_data_plane(&self) -> Result<()> {
        let pid = self.data_plane_pid().with_context(|| {
            format!(
                "node {} has no data plane: {}",
                self.name,
                self.keeper_log()
            )
        })?;
        send_signal(pid, Signal::SIGKILL)
    }

    /// Has the keeper replace the data plane by a new one (SIGHUP), and waits until it has.
    ///
    /// # Errors
    /// When the old one is still there after a while, or no keeper runs.
    pub fn renew_data_plane(&self) -> Result<()> {
        let old = self.data_plane_pids();
        self.keeper.signal(Signal::SIGHUP)?;
        wait_until(
            &format!("{} has another data plane", self.name),
            HANDOVER,
            || {
                let now = self.data_plane_pids();
                Ok(now.len() == 1 && !old.contains(&now[0]))
            },
        )
    }

    /// The tunnel's program: the node's own copy once [`Self::upgrade_tunnel`] made one.
    pub(super) fn tunnel_program(&self) -> Result<PathBuf> {
        let own = self.own_tunnel_program();
        if own.is_file() {
            return Ok(own);
        }
        binary("hawser-tunnel")
    }

    fn own_tunnel_program(&self) -> PathBuf {
        self.dir().join("hawser-tunnel")
    }

    /// Has the node run this build of `hawser-tunnel` from its next start on: a copy in the node's own directory.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn install_tunnel(&self, program: &Path) -> Result<()> {
        let own = self.own_tunnel_program();
        fs::create_dir_all(self.dir())
            .with_context(|| format!("failed to make {}", self.dir().display()))?;
        fs::copy(program, &own).with_context(|| {
            format!("failed to copy {} to {}", program.display(), own.display())
        })?;
        Ok(())
    }

    /// Puts a new program file in place of the node's own, as an upgrade does: the same code, but
    /// another file with other bytes at its end. Processes that run keep the old one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn upgrade_tunnel(&self) -> Result<PathBuf> {
        let (own, draft) = (
            self.own_tunnel_program(),
            self.dir().join("hawser-tunnel.new"),
        );
        fs::copy(self.tunnel_program()?, &draft).context("failed to copy the tunnel's program")?;
        let mut file = fs::File::options().append(true).open(&draft)?;
        file.write_all(b"upgrade")?;
        drop(file);
        fs::rename(&draft, &own).with_context(|| format!("failed to write {}", own.display()))?;
        Ok(own)
    }
}
