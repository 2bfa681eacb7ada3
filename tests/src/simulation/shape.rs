//! How large a world is, and who is in it.

use std::fmt;

/// How many clusters.
pub(super) const CLUSTERS: usize = 10;
/// Replicas of a cluster's hub.
pub(super) const HUBS: usize = 2;
/// Agents of a cluster.
pub(super) const AGENTS: usize = 2;
/// Things that a cluster's source can have.
pub(super) const ITEMS: u8 = 32;
/// All processes.
pub(super) const NODES: usize = CLUSTERS * (HUBS + AGENTS);

/// A process: its cluster, and its seat there. Hubs come first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) cluster: usize,
    seat: usize,
}

impl Place {
    pub(super) fn hub(cluster: usize, replica: usize) -> Self {
        Self {
            cluster,
            seat: replica,
        }
    }

    pub(super) fn agent(cluster: usize, number: usize) -> Self {
        Self {
            cluster,
            seat: HUBS + number,
        }
    }

    pub(super) fn is_hub(self) -> bool {
        self.seat < HUBS
    }

    /// The number of the replica or agent.
    pub(super) fn number(self) -> usize {
        if self.is_hub() {
            self.seat
        } else {
            self.seat - HUBS
        }
    }

    /// Unique in the world.
    pub(super) fn index(self) -> usize {
        self.cluster * (HUBS + AGENTS) + self.seat
    }

    pub(super) fn at(index: usize) -> Self {
        Self {
            cluster: index / (HUBS + AGENTS),
            seat: index % (HUBS + AGENTS),
        }
    }

    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..NODES).map(Self::at)
    }

    pub(super) fn all_of(cluster: usize) -> impl Iterator<Item = Self> {
        (0..HUBS + AGENTS).map(move |seat| Self { cluster, seat })
    }

    pub(super) fn hubs_of(cluster: usize) -> impl Iterator<Item = Self> {
        (0..HUBS).map(move |seat| Self { cluster, seat })
    }

    pub(super) fn agents_of(cluster: usize) -> impl Iterator<Item = Self> {
        (0..AGENTS).map(move |number| Self::agent(cluster, number))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_hub() { "hub" } else { "agent" };
        write!(f, "{kind} {} of cluster {}", self.number(), self.cluster)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
