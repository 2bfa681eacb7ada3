//! Addresses of pods: each is leased to one attachment, and rests when it is given back, so that nobody takes the next pod
//! for the one before.
//!
//! Pure: what is decided is on the disk ([`Disk`]) before it counts, so whatever crashes, no address is given twice and
//! none is lost. Leases that nobody gave back are found by [`Leases::retain`] (CNI GC).

mod pool;

pub use pool::{Pool, PoolStatus};

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// Who has an address: an interface of a container in a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lessee {
    /// The network's name.
    pub network: String,
    /// As the runtime calls the container.
    pub container_id: String,
    /// The interface in it.
    pub ifname: String,
}

/// How it stands with an address that is not free, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Entry {
    /// Somebody has it.
    Leased(Lessee),
    /// It was given back at this time, in seconds since 1970.
    Resting(u64),
}

/// What keeps entries.
pub trait Disk {
    /// Keeps all of these, or none: `None` is a free address. They are on the disk when this returns.
    ///
    /// # Errors
    /// Nothing was kept.
    fn put(&mut self, changes: &[(IpAddr, Option<Entry>)]) -> io::Result<()>;
}

/// Why nothing is leased.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// No prefix is known yet.
    #[error("this node has no pod prefix yet")]
    NoPool,
    /// All are leased, or rest.
    #[error("no address of {family} is free: {leased} are leased, {resting} rest")]
    Exhausted {
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// So many.
        leased: u64,
        /// So many, of which the first is free after `rested`.
        resting: u64,
        /// In seconds; `None`: when a pod goes.
        rested: Option<u64>,
    },
    /// A wish that cannot be granted.
    #[error("address {address}: {rule}")]
    Wish {
        /// Which.
        address: IpAddr,
        /// What it breaks.
        rule: &'static str,
    },
    /// It could not be kept.
    #[error("leases cannot be kept")]
    Disk(#[from] io::Error),
}

/// All leases of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leases {
    rest: Duration,
    pools: Vec<Pool>,
    entries: BTreeMap<IpAddr, Entry>,
    held: BTreeMap<Lessee, BTreeSet<IpAddr>>,
}

impl Leases {
    /// Begins with what was kept. An address rests for `rest`.
    pub fn load(rest: Duration, kept: impl IntoIterator<Item = (IpAddr, Entry)>) -> Self {
        let mut leases = Self {
            rest,
            pools: Vec::new(),
            entries: BTreeMap::new(),
            held: BTreeMap::new(),
        };
        for (address, entry) in kept {
            leases.note(address, Some(entry));
        }
        leases
    }

    /// The prefixes that addresses come from by now. Leases outside of them stand until they are given back.
    pub fn set_pools(&mut self, pools: Vec<Pool>) {
        let before = std::mem::take(&mut self.pools);
        let same = |pool: Pool| {
            let known = before.iter().find(|known| known.is_same(&pool));
            known.cloned().unwrap_or(pool)
        };
        self.pools = pools.into_iter().map(same).collect();
        let used: Vec<IpAddr> = self.entries.keys().copied().collect();
        for pool in &mut self.pools {
            pool.begin_after(&used);
        }
    }

    /// Leases one address of each family that there is a prefix of: those that are wished, or any. Who has some already,
    /// has them. `now` in seconds since 1970.
    ///
    /// # Errors
    /// Nothing was leased.
    pub fn lease(
        &mut self,
        lessee: &Lessee,
        wishes: &[IpAddr],
        now: u64,
        disk: &mut dyn Disk,
    ) -> Result<BTreeSet<IpAddr>, LeaseError> {
        if let Some(held) = self.held.get(lessee) {
            return Ok(held.clone());
        }
        if self.pools.is_empty() {
            return Err(LeaseError::NoPool);
        }
        let mut chosen = BTreeSet::new();
        for &address in wishes {
            self.check_wish(address)?;
            chosen.insert(address);
        }
        let mut pools = self.pools.clone();
        for is_ipv4 in [true, false] {
            let is_wished = chosen.iter().any(|address| address.is_ipv4() == is_ipv4);
            let of_family = pools.iter_mut().filter(|pool| pool.is_ipv4() == is_ipv4);
            let mut of_family = of_family.peekable();
            if is_wished || of_family.peek().is_none() {
                continue;
            }
            let free = of_family.find_map(|pool| pool.next(|address| self.is_free(address, now)));
            chosen.insert(free.ok_or_else(|| self.exhausted(is_ipv4, now))?);
        }
        let changes = chosen.iter().map(|address| {
            let entry = Entry::Leased(lessee.clone());
            (*address, Some(entry))
        });
        self.keep(changes.collect(), disk)?;
        self.pools = pools;
        Ok(chosen)
    }

    /// Gives back what somebody has; whoever has nothing gives nothing back.
    ///
    /// # Errors
    /// The disk's; nothing was given back.
    pub fn release(
        &mut self,
        lessee: &Lessee,
        now: u64,
        disk: &mut dyn Disk,
    ) -> io::Result<BTreeSet<IpAddr>> {
        let held = self.held.get(lessee).cloned().unwrap_or_default();
        self.rest_all(held.iter().copied(), now, disk)?;
        Ok(held)
    }

    /// Gives back all of a network whose lessees are not among these. Returns who had them.
    ///
    /// # Errors
    /// The disk's; nothing was given back.
    pub fn retain(
        &mut self,
        network: &str,
        valid: &BTreeSet<Lessee>,
        now: u64,
        disk: &mut dyn Disk,
    ) -> io::Result<BTreeMap<Lessee, BTreeSet<IpAddr>>> {
        let held = self.held.iter();
        let gone = held.filter(|(lessee, _)| lessee.network == network && !valid.contains(lessee));
        let gone: BTreeMap<_, _> = gone
            .map(|(who, held)| (who.clone(), held.clone()))
            .collect();
        self.rest_all(gone.values().flatten().copied(), now, disk)?;
        Ok(gone)
    }

    /// Frees what has rested. Returns when to come again, in seconds since 1970.
    ///
    /// # Errors
    /// The disk's; nothing was freed.
    pub fn sweep(&mut self, now: u64, disk: &mut dyn Disk) -> io::Result<Option<u64>> {
        let rested = self
            .entries
            .iter()
            .filter(|(_, entry)| self.has_rested(entry, now));
        let changes: Vec<_> = rested.map(|(address, _)| (*address, None)).collect();
        self.keep(changes, disk)?;
        let resting = self
            .entries
            .values()
            .filter_map(|entry| self.free_at(entry));
        Ok(resting.min())
    }

    /// What somebody has.
    pub fn held_by(&self, lessee: &Lessee) -> Option<&BTreeSet<IpAddr>> {
        self.held.get(lessee)
    }

    /// Who has an address.
    pub fn lessee_of(&self, address: IpAddr) -> Option<&Lessee> {
        match self.entries.get(&address)? {
            Entry::Leased(lessee) => Some(lessee),
            Entry::Resting(_) => None,
        }
    }

    /// How it stands with each prefix.
    pub fn status(&self) -> Vec<PoolStatus> {
        let count = |pool: &Pool, is: fn(&Entry) -> bool| {
            let mut inside = 0;
            for (address, entry) in &self.entries {
                inside += u64::from(pool.gives(*address) && is(entry));
            }
            inside
        };
        let pools = self.pools.iter();
        pools
            .map(|pool| PoolStatus {
                prefix: pool.prefix(),
                addresses: pool.size(),
                leased: count(pool, |entry| matches!(entry, Entry::Leased(_))),
                resting: count(pool, |entry| matches!(entry, Entry::Resting(_))),
            })
            .collect()
    }

    fn rest_all(
        &mut self,
        addresses: impl Iterator<Item = IpAddr>,
        now: u64,
        disk: &mut dyn Disk,
    ) -> io::Result<()> {
        let changes = addresses.map(|address| (address, Some(Entry::Resting(now))));
        self.keep(changes.collect(), disk)
    }

    /// On the disk first.
    fn keep(
        &mut self,
        changes: Vec<(IpAddr, Option<Entry>)>,
        disk: &mut dyn Disk,
    ) -> io::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        disk.put(&changes)?;
        for (address, entry) in changes {
            self.note(address, entry);
        }
        Ok(())
    }

    fn note(&mut self, address: IpAddr, entry: Option<Entry>) {
        let before = match &entry {
            Some(entry) => self.entries.insert(address, entry.clone()),
            None => self.entries.remove(&address),
        };
        if let Some(Entry::Leased(lessee)) = before
            && let Some(held) = self.held.get_mut(&lessee)
        {
            held.remove(&address);
            if held.is_empty() {
                self.held.remove(&lessee);
            }
        }
        if let Some(Entry::Leased(lessee)) = entry {
            self.held.entry(lessee).or_default().insert(address);
        }
    }

    fn check_wish(&self, address: IpAddr) -> Result<(), LeaseError> {
        let wish = |rule| Err(LeaseError::Wish { address, rule });
        if !self.pools.iter().any(|pool| pool.gives(address)) {
            return wish(
                "must be in a pod prefix of this node, and not its network's, router's or broadcast address",
            );
        }
        match self.entries.get(&address) {
            Some(Entry::Leased(_)) => wish("another pod has it"),
            // Who asks for this very one, knows what it was.
            Some(Entry::Resting(_)) | None => Ok(()),
        }
    }

    fn is_free(&self, address: IpAddr, now: u64) -> bool {
        let entry = self.entries.get(&address);
        entry.is_none_or(|entry| self.has_rested(entry, now))
    }

    fn free_at(&self, entry: &Entry) -> Option<u64> {
        match entry {
            Entry::Leased(_) => None,
            Entry::Resting(since) => Some(since.saturating_add(self.rest.as_secs())),
        }
    }

    fn has_rested(&self, entry: &Entry, now: u64) -> bool {
        // A clock that was set back keeps nobody waiting for longer than that.
        let is_of_the_future = matches!(entry, Entry::Resting(since) if *since > now);
        self.free_at(entry).is_some_and(|free| free <= now) || is_of_the_future
    }

    fn exhausted(&self, is_ipv4: bool, now: u64) -> LeaseError {
        let gives = |pool: &Pool, address| pool.is_ipv4() == is_ipv4 && pool.gives(address);
        let (mut leased, mut resting, mut first) = (0, 0, None);
        for (address, entry) in &self.entries {
            if !self.pools.iter().any(|pool| gives(pool, *address)) {
                continue;
            }
            match self.free_at(entry) {
                None => leased += 1,
                Some(free) => {
                    resting += 1;
                    first = Some(first.map_or(free, |first: u64| first.min(free)));
                }
            }
        }
        LeaseError::Exhausted {
            family: if is_ipv4 { "IPv4" } else { "IPv6" },
            leased,
            resting,
            rested: first.map(|free| free.saturating_sub(now)),
        }
    }
}

#[cfg(test)]
mod tests;
