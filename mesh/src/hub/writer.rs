//! The replica that writes: from changes of manifests to frames of the journal.
//!
//! [`Writer`] does no I/O by itself: what it needs of the state directory is [`Disk`]. What it returns is to be on the
//! disk before anybody is told of it.

use super::allocate::{Allocation, Exhausted, Ledger, Step};
use super::derive::{Claim, ClaimChange, Complaint, Derive, Rules};
use super::journal::{Frame, Live};
use super::manifest::{ClusterPeer, Object, ObjectKey};
use crate::record::{Incarnation, Key, LaneRecord, Revision, Version};
use crate::revocation::Signed;
use crate::trust::Authorities;
use hawser_tunnel::identity::Identity;
use hawser_tunnel::node::{ClusterId, NodeIndex};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

/// The kinds of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NumberKind {
    /// Node indices.
    Node,
    /// Identities.
    Identity,
}

/// Where the objects of numbers are.
pub trait Disk {
    /// Makes the object of a number. `Ok(Some)`: there was one, and it says this.
    ///
    /// # Errors
    /// The disk's.
    fn create(
        &mut self,
        kind: NumberKind,
        number: u32,
        allocation: &Allocation,
    ) -> io::Result<Option<Existing>>;

    /// Puts another content in the place of an object's.
    ///
    /// # Errors
    /// The disk's.
    fn replace(&mut self, kind: NumberKind, number: u32, allocation: &Allocation)
    -> io::Result<()>;

    /// Removes an object.
    ///
    /// # Errors
    /// The disk's.
    fn remove(&mut self, kind: NumberKind, number: u32) -> io::Result<()>;

    /// Returns when all of the above is on the disk.
    ///
    /// # Errors
    /// The disk's.
    fn sync(&mut self) -> io::Result<()>;
}

/// What an object says that was there before; `None`: it cannot be read.
pub type Existing = Option<Allocation>;

/// All objects of numbers that a disk has.
pub type Numbers = BTreeMap<(NumberKind, u32), Existing>;

/// Makes the own cluster's changes.
#[derive(Debug)]
pub struct Writer {
    derive: Derive,
    nodes: Ledger,
    identities: Ledger,
    live: Live,
    /// Nothing was written since the process began to write: what it made does not count as complete yet.
    fresh: bool,
    /// Claims that found no number.
    exhausted: BTreeMap<NumberKind, u64>,
}

impl Writer {
    /// Goes on from what the journal and the disk have. A number rests for `rest` before it is used again; `now` in
    /// seconds since 1970.
    pub fn new(rules: Rules, live: Live, numbers: Numbers, rest: Duration, now: u64) -> Self {
        let last = u32::from(NodeIndex::MAX);
        let mut nodes = Ledger::new(1..=last, rest);
        let mut identities = Ledger::new(Identity::FIRST_UNRESERVED..=Identity::MAX, rest);
        for ((kind, number), allocation) in numbers {
            let ledger = match kind {
                NumberKind::Node => &mut nodes,
                NumberKind::Identity => &mut identities,
            };
            ledger.note(number, allocation, now);
        }
        Self {
            derive: Derive::new(rules),
            nodes,
            identities,
            live,
            fresh: true,
            exhausted: BTreeMap::new(),
        }
    }

    /// Takes an object's newest state; `None`: it is gone.
    pub fn apply(&mut self, key: &ObjectKey, object: Option<&Object>) {
        self.derive.apply(key, object);
    }

    /// Takes a member of the clusterset; `None`: it left.
    pub fn set_member(&mut self, id: ClusterId, name: &str, peer: Option<&ClusterPeer>) {
        self.derive.set_member(id, name, peer);
    }

    /// Takes the list of those whom this cluster has cut off.
    pub fn set_revocations(&mut self, signed: Option<Signed>) {
        self.derive.set_revocations(signed);
    }

    /// Takes this cluster's CAs, see [`Derive::set_authorities`].
    pub fn set_authorities(&mut self, authorities: Option<Authorities>, pem: String) {
        self.derive.set_authorities(authorities, pem);
    }

    /// Takes the lanes that a node's agent told.
    pub fn set_lanes(&mut self, node: &str, lanes: Vec<LaneRecord>) {
        self.derive.set_lanes(node, lanes);
    }

    /// The state that was made so far.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Nodes that lack a prefix because another node has it.
    pub fn crowded(&self) -> impl Iterator<Item = &str> {
        self.derive.crowded()
    }

    /// What is wrong with exports, as of the last [`Self::settle`].
    pub fn complaints(&self) -> impl Iterator<Item = &Complaint> {
        self.derive.complaints()
    }

    /// Complaints that were not there at the last call, and whether any came, changed or went.
    pub fn take_news(&mut self) -> (Vec<Complaint>, bool) {
        self.derive.take_news()
    }

    /// Claims that found no number, by kind.
    pub fn exhausted(&self) -> &BTreeMap<NumberKind, u64> {
        &self.exhausted
    }

    /// Gives numbers to what needs some, and makes the next frame if anything changed. Call it after the last of some
    /// changes that belong together. The first call after the start must come when all objects are known: what is not
    /// among them is gone. `now` in seconds since 1970.
    ///
    /// # Errors
    /// The disk's; nothing is lost, and the next call tries again.
    pub fn settle(&mut self, disk: &mut dyn Disk, now: u64) -> io::Result<Option<Frame>> {
        self.allocate(disk, now)?;
        let mut changes: BTreeMap<_, _> = self.derive.drain();
        if std::mem::take(&mut self.fresh) {
            let keys = self.derive.keys();
            let known = self.live.records.keys();
            let gone = known.filter(|key| !keys.contains(key)).cloned();
            changes.extend(gone.map(|key| (key, None)).collect::<Vec<_>>());
        }
        changes.retain(|key, value| {
            let had = self.live.records.get(key).map(|(_, had)| had);
            had != value.as_ref()
        });
        let begins = self.live.version == Version::NONE;
        if changes.is_empty() && !begins {
            return Ok(None);
        }
        let version = Version {
            incarnation: Incarnation(self.live.version.incarnation.0.max(1)),
            revision: Revision(self.live.version.revision.0 + 1),
        };
        let changes = changes.into_iter().collect();
        let frame = Frame { version, changes };
        self.live.apply(&frame);
        Ok(Some(frame))
    }

    /// Begins another incarnation: a frame without changes. `None`: it is not greater than the one that there is.
    pub fn bump(&mut self, to: Incarnation) -> Option<Frame> {
        if to <= self.live.version.incarnation {
            return None;
        }
        let version = Version {
            incarnation: to,
            revision: Revision(self.live.version.revision.0 + 1),
        };
        let changes = Vec::new();
        let frame = Frame { version, changes };
        self.live.apply(&frame);
        Some(frame)
    }

    fn allocate(&mut self, disk: &mut dyn Disk, now: u64) -> io::Result<()> {
        for kind in [NumberKind::Node, NumberKind::Identity] {
            // It was given back, and then the disk failed or the writer died before the journal said so: for others it
            // is in use until now, so its rest has not begun.
            let at_rest: Vec<u32> = self.ledger(kind).at_rest().collect();
            for number in at_rest {
                if self.is_in_force(kind, number) {
                    self.rest_again(kind, number, disk, now)?;
                }
            }
            for number in self.ledger(kind).rested(now) {
                disk.remove(kind, number)?;
                self.ledger(kind).forget(number);
            }
        }
        let mut touched = false;
        while let Some(change) = self.derive.poll_claim() {
            let (claim, want) = match change {
                ClaimChange::Wanted(claim) => (claim, true),
                ClaimChange::Unwanted(claim) => (claim, false),
            };
            let kind = kind_of(&claim);
            let done = if want {
                self.give(kind, &claim, disk, now)
            } else {
                self.release(kind, &claim.to_string(), disk, now)
            };
            match done {
                Ok(changed) => touched |= changed,
                Err(error) => {
                    self.derive.again(claim, want);
                    return Err(error);
                }
            }
        }
        if self.fresh {
            touched |= self.release_unwanted(disk, now)?;
        }
        if touched { disk.sync() } else { Ok(()) }
    }

    /// Whether the journal still says what has a number.
    fn is_in_force(&self, kind: NumberKind, number: u32) -> bool {
        let key = match kind {
            NumberKind::Node => u16::try_from(number)
                .ok()
                .and_then(|index| NodeIndex::new(index).ok())
                .map(Key::node),
            NumberKind::Identity => Identity::new(number).ok().map(Key::identity),
        };
        key.is_some_and(|key| self.live.records.contains_key(&key))
    }

    /// The rest of a number begins now.
    fn rest_again(
        &mut self,
        kind: NumberKind,
        number: u32,
        disk: &mut dyn Disk,
        now: u64,
    ) -> io::Result<()> {
        let Some(claim) = self.ledger(kind).claim_of(number) else {
            return Ok(());
        };
        let allocation = Allocation {
            claim: claim.to_owned(),
            released: Some(now),
        };
        disk.replace(kind, number, &allocation)?;
        self.ledger(kind).note(number, Some(allocation), now);
        Ok(())
    }

    fn ledger(&mut self, kind: NumberKind) -> &mut Ledger {
        match kind {
            NumberKind::Node => &mut self.nodes,
            NumberKind::Identity => &mut self.identities,
        }
    }

    fn give(
        &mut self,
        kind: NumberKind,
        claim: &Claim,
        disk: &mut dyn Disk,
        now: u64,
    ) -> io::Result<bool> {
        let text = claim.to_string();
        let allocation = Allocation {
            claim: text.clone(),
            released: None,
        };
        loop {
            match self.ledger(kind).claim(&text) {
                Ok(Step::Has(number)) => {
                    self.derive.allocated(claim, number);
                    return Ok(false);
                }
                Ok(Step::Revive(number)) => {
                    disk.replace(kind, number, &allocation)?;
                    self.ledger(kind).note(number, Some(allocation), now);
                    self.derive.allocated(claim, number);
                    return Ok(true);
                }
                Ok(Step::Create(number)) => {
                    let existing = disk.create(kind, number, &allocation)?;
                    let ours = existing.is_none();
                    let says = existing.unwrap_or_else(|| Some(allocation.clone()));
                    self.ledger(kind).note(number, says, now);
                    if ours {
                        self.derive.allocated(claim, number);
                        return Ok(true);
                    }
                }
                Err(Exhausted) => {
                    *self.exhausted.entry(kind).or_default() += 1;
                    return Ok(false);
                }
            }
        }
    }

    fn release(
        &mut self,
        kind: NumberKind,
        claim: &str,
        disk: &mut dyn Disk,
        now: u64,
    ) -> io::Result<bool> {
        let Some(number) = self.ledger(kind).release(claim) else {
            return Ok(false);
        };
        let allocation = Allocation {
            claim: claim.to_owned(),
            released: Some(now),
        };
        disk.replace(kind, number, &allocation)?;
        self.ledger(kind).note(number, Some(allocation), now);
        Ok(true)
    }

    /// Numbers whose claim went while nobody wrote.
    fn release_unwanted(&mut self, disk: &mut dyn Disk, now: u64) -> io::Result<bool> {
        let wanted = self.derive.wanted();
        let wanted: BTreeSet<(NumberKind, String)> = wanted
            .iter()
            .map(|claim| (kind_of(claim), claim.to_string()))
            .collect();
        let mut touched = false;
        for kind in [NumberKind::Node, NumberKind::Identity] {
            let used = self.ledger(kind).in_use();
            let used: Vec<String> = used.map(|(claim, _)| claim.to_owned()).collect();
            for claim in used {
                if !wanted.contains(&(kind, claim.clone())) {
                    touched |= self.release(kind, &claim, disk, now)?;
                }
            }
        }
        Ok(touched)
    }
}

fn kind_of(claim: &Claim) -> NumberKind {
    match claim {
        Claim::Node(_) => NumberKind::Node,
        Claim::Identity { .. } => NumberKind::Identity,
    }
}

#[cfg(test)]
mod tests;
