//! Looks at the parts of a node and writes what differs.

use super::{Node, blocking};
use crate::agent::departed::blocked;
use crate::agent::dirty::Dirty;
use crate::agent::kernel::Link;
use crate::agent::paths;
use crate::agent::plan::plan;
use crate::chain::one_line;
use crate::io::netlink::{KernelError, Path};
use crate::io::sysctl;
use hawser_tunnel::guard::Guard;
use hawser_tunnel::io::nft::{Ensured, NftError};
use hawser_tunnel::mtu;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Writes change what the kernel does by itself, so a plan is checked; it settles in two rounds.
const ROUNDS: usize = 4;

impl Node {
    /// Looks up the underlay paths to all peers.
    pub(super) async fn measure(&mut self) {
        match self.look_up_paths().await {
            Ok((paths, fallback)) => {
                self.note("paths", Dirty::PATHS, None);
                let (sources, paths) = paths::sources(paths);
                self.look_at_sources(&sources).await;
                if paths != self.paths || fallback != self.fallback {
                    self.paths = paths;
                    self.fallback = fallback;
                    self.warn_of_narrow_paths();
                    self.rebuild();
                    self.look_at(Dirty::KERNEL);
                }
            }
            Err(error) => self.note("paths", Dirty::PATHS, Some(one_line(&error))),
        }
    }

    async fn look_up_paths(&self) -> Result<(BTreeMap<IpAddr, Path>, u32), KernelError> {
        let mut found = BTreeMap::new();
        for address in paths::destinations(&self.config.state) {
            if let Some(path) = self.netlink.path(address).await? {
                found.insert(address, path);
            }
        }
        let mut fallback = None;
        for device in &self.config.state.guard.underlay {
            let mtu = self.netlink.link(device).await?.map(|link| link.mtu);
            fallback = fallback.into_iter().chain(mtu).min();
        }
        Ok((
            found,
            fallback.unwrap_or_else(|| u32::from(mtu::MIN_UNDERLAY)),
        ))
    }

    /// Mends a fault of the kernel. Who sends by IPv4 while an address is taken from a device can have it remember, for
    /// all routes over that device, that there is no address to send from (or the one that goes), until some address
    /// changes again: `fib_result_prefsrc` reads the address before the change and the number of the change after it.
    async fn look_at_sources(&mut self, sources: &BTreeSet<Option<IpAddr>>) {
        let own = match self.netlink.own_addresses().await {
            Ok(own) => own,
            Err(error) => return self.note("sources", Dirty::PATHS, Some(one_line(&error))),
        };
        if !paths::are_forgotten(sources, &own) {
            if std::mem::take(&mut self.sources_refreshed) {
                tracing::info!("kernel sends from this node's addresses again");
            }
            return self.note("sources", Dirty::PATHS, None);
        }
        // Once: where it does not help, there is another reason.
        if !std::mem::replace(&mut self.sources_refreshed, true) {
            tracing::warn!(
                "kernel sends from an address that is not this node's: has it choose again"
            );
            let done = self.netlink.refresh_sources().await;
            self.note(
                "sources",
                Dirty::PATHS,
                done.err().map(|error| one_line(&error)),
            );
        }
    }

    fn warn_of_narrow_paths(&self) {
        for (address, mtu) in self
            .paths
            .iter()
            .filter(|(_, mtu)| **mtu < u32::from(mtu::MIN_UNDERLAY))
        {
            tracing::warn!(%address, mtu, "underlay path carries less than 1280 bytes; large packets will be lost");
        }
    }

    /// Takes over what the guard in the kernel blocks. Without a data plane to ask, that is all that
    /// is known of clusters that left; a keeper that has just started may have put it there.
    pub(super) async fn learn_blocked(&mut self) -> Result<(), NftError> {
        let nft = Arc::clone(&self.nft);
        let listing = blocking(move || nft.read("inet")).await?;
        let before = self.blocked.len();
        self.blocked.extend(blocked(&listing.unwrap_or_default()));
        if self.blocked.len() != before {
            self.rebuild();
            self.look_at(Dirty::KERNEL);
        }
        Ok(())
    }

    /// Makes the guard in the kernel the one that is wanted.
    pub(super) async fn ensure_guard(&mut self) -> Result<(), NftError> {
        if !self.conversation.is_connected() {
            self.learn_blocked().await?;
        }
        let (nft, guard): (_, Guard) = (Arc::clone(&self.nft), self.wanted.guard.clone());
        match blocking(move || nft.ensure_guard(&guard)).await? {
            Ensured::Written => tracing::info!("guard written"),
            Ensured::Unchanged => tracing::debug!("guard stands"),
        }
        Ok(())
    }

    /// Observes, plans, applies, until there is nothing left to do.
    pub(super) async fn reconcile(&mut self) -> Result<(), KernelError> {
        let mut failure = None;
        for _ in 0..ROUNDS {
            let mut observed = self.netlink.observe(&self.desired.device).await?;
            for name in self.desired.sysctls() {
                observed
                    .sysctls
                    .insert(name.clone(), sysctl::read(name).ok().flatten());
            }
            self.say_whether_device_exists(observed.link);
            self.scope.index = observed.link.map(|link| link.index);
            let steps = plan(&self.desired, &observed);
            if steps.is_empty() {
                tracing::debug!("kernel stands");
                return Ok(());
            }
            tracing::info!(writes = steps.len(), "kernel differs from what is wanted");
            failure = None;
            for step in &steps {
                tracing::debug!(?step, "kernel write");
                // One that fails must not keep the others from being done.
                let done = self
                    .netlink
                    .apply(step, self.scope.index.unwrap_or_default())
                    .await;
                failure = failure.or_else(|| done.err());
            }
            if failure.is_some() {
                break;
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn say_whether_device_exists(&mut self, link: Option<Link>) {
        let missing = link.is_none_or(|link| !link.tap);
        if missing && link.is_some() && !self.waits_for_device {
            tracing::error!(
                device = self.scope.device,
                "device is no TAP, so no packet is routed to it; remove or rename it"
            );
        } else if missing && !self.waits_for_device {
            tracing::info!(
                device = self.scope.device,
                "waiting for the device, which hawser-tunnel makes"
            );
        }
        self.waits_for_device = missing;
    }
}
