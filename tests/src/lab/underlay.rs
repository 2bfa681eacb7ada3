//! The network between the nodes of a lab, as written in the file for `lab up`.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::topology::Family;
use super::wired::Wired;

/// The largest MTU of a TAP.
const MOST_WIRED: u32 = 65_521;

/// The network between the nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UnderlaySpec {
    /// The family by which nodes reach each other. Nodes always have addresses of both.
    pub family: Family,
    /// The MTU of every link, pods' links too, in bytes: 1280-65535.
    pub mtu: u32,
    /// The UDP port of WireGuard.
    pub port: u16,
    /// Nodes whose link is a wire that can be made bad; the others have a bare veth.
    #[serde(skip_serializing_if = "Wired::is_none")]
    pub wired: Wired,
    /// What the wires draw their faults from. Each wire and direction draws differently.
    pub seed: u64,
    /// The `eth0` of the two nodes are the ends of one veth: no bridge and no router between them, which cost time for
    /// each frame.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub direct: bool,
}

impl Default for UnderlaySpec {
    fn default() -> Self {
        Self {
            family: Family::V4,
            mtu: 1500,
            port: 51820,
            wired: Wired::default(),
            seed: 1,
            direct: false,
        }
    }
}

impl UnderlaySpec {
    /// Checks everything that does not depend on another field of the topology than the names of its nodes.
    pub(super) fn check(&self, nodes: &[String]) -> Result<()> {
        if !(1280..=65535).contains(&self.mtu) {
            bail!("underlay.mtu: {}: must be 1280 to 65535", self.mtu);
        }
        if self.port == 0 {
            bail!("underlay.port: 0: must be 1 to 65535");
        }
        self.wired.check(nodes)?;
        if !self.wired.is_none() && self.mtu > MOST_WIRED {
            bail!(
                "underlay.mtu: {}: must be 1280 to {MOST_WIRED} with wires",
                self.mtu
            );
        }
        if self.direct && nodes.len() != 2 {
            bail!(
                "underlay.direct: true: one veth joins two nodes; there are {}",
                nodes.len()
            );
        }
        if self.direct && !self.wired.is_none() {
            bail!("underlay.direct: true: goes without wires; leave underlay.wired out");
        }
        Ok(())
    }
}
