//! Looks at the parts of a node and writes what differs.

use super::{Node, blocking};
use crate::agent::departed::blocked;
use crate::agent::dirty::Dirty;
use crate::agent::kernel::Link;
use crate::agent::paths::{self, Paths};
use crate::agent::plan::plan;
use crate::chain::one_line;
use crate::io::netlink::{KernelError, Path};
use crate::io::sysctl;
use hawser_tunnel::guard::Guard;
use hawser_tunnel::io::nft::{Ensured, NftError};
use hawser_tunnel::mtu;
use hawser_tunnel::state::{State, is_host};
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
                if paths != *self.paths || fallback != self.fallback {
                    self.paths = Arc::new(paths);
                    self.fallback = fallback;
                    self.warn_of_narrow_paths();
                    self.rebuild().await;
                }
            }
            Err(error) => self.note("paths", Dirty::PATHS, Some(one_line(&error))),
        }
    }

    async fn look_up_paths(&self) -> Result<(BTreeMap<IpAddr, Path>, u32), KernelError> {
        let mut found = BTreeMap::new();
        let wanted = self.wanted.as_ref();
        let destinations = wanted.map(|wanted| paths::destinations(&wanted.state));
        for address in destinations.into_iter().flatten() {
            if let Some(path) = self.netlink.path(address).await? {
                found.insert(address, path);
            }
        }
        let mut fallback = None;
        for device in &self.config.statics.underlay {
            let mtu = self.netlink.link(device).await?.map(|link| link.mtu);
            fallback = fallback.into_iter().chain(mtu).min();
        }
        Ok((
            found,
            fallback.unwrap_or_else(|| u32::from(mtu::MIN_UNDERLAY)),
        ))
    }

    /// Looks up the paths to peers that are new.
    pub(super) async fn look_up_new_paths(&mut self, state: &State) {
        let destinations = paths::destinations(state).into_iter();
        let new = destinations.filter(|address| !self.paths.contains_key(address));
        let mut paths: Option<Paths> = None;
        for address in new.collect::<Vec<_>>() {
            match self.netlink.path(address).await {
                Ok(Some(path)) => {
                    let paths = paths.get_or_insert_with(|| Paths::clone(&self.paths));
                    paths.insert(address, path.mtu);
                }
                Ok(None) => {}
                Err(error) => return self.note("paths", Dirty::PATHS, Some(one_line(&error))),
            }
        }
        if let Some(paths) = paths {
            self.paths = Arc::new(paths);
        }
    }

    /// The first address of the underlay devices by which others can reach this node.
    pub(super) async fn underlay_address(&self) -> Result<Option<IpAddr>, KernelError> {
        let mut found: Vec<IpAddr> = Vec::new();
        for device in &self.config.statics.underlay {
            let addresses = self.netlink.addresses_of(device).await?;
            found.extend(addresses.into_iter().filter(|&address| is_host(address)));
        }
        let link_local = |address: &IpAddr| match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        found.retain(|address| !link_local(address));
        let v4 = found.iter().find(|address| address.is_ipv4());
        Ok(v4.or(found.first()).copied())
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
            self.rebuild().await;
        }
        Ok(())
    }

    /// Makes the guard in the kernel the one that is wanted.
    pub(super) async fn ensure_guard(&mut self) -> Result<(), NftError> {
        if !self.conversation.is_connected() {
            self.learn_blocked().await?;
        }
        let Some(wanted) = &self.wanted else {
            return Ok(());
        };
        let (nft, guard): (_, Guard) = (Arc::clone(&self.nft), wanted.state.guard.clone());
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
            let Some(wanted) = &self.wanted else {
                return Ok(());
            };
            let mut observed = self.netlink.observe(&wanted.desired.device).await?;
            for name in wanted.desired.sysctls() {
                observed
                    .sysctls
                    .insert(name.clone(), sysctl::read(name).ok().flatten());
            }
            let steps = plan(&wanted.desired, &observed);
            self.say_whether_device_exists(observed.link);
            self.scope.index = observed.link.map(|link| link.index);
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
