//! How large a world is, and who is in it.

use std::fmt;

/// How many clusters.
pub(super) const CLUSTERS: usize = 10;
/// Replicas of a cluster's hub, at most.
const HUBS: usize = 2;
/// Agents of a cluster, at most.
pub(super) const AGENTS: usize = 2;
/// The clusters that have so many, the first ones; each of the others has one of each.
const LARGE: usize = 2;
/// All processes of one of the others.
const SMALL_SEATS: usize = 2;
/// Things that a cluster's source can have.
pub(super) const ITEMS: u8 = 32;
/// All processes.
pub(super) const NODES: usize = LARGE * (HUBS + AGENTS) + (CLUSTERS - LARGE) * SMALL_SEATS;

/// How many replicas the hub of a cluster has.
pub(super) fn hubs(cluster: usize) -> usize {
    if cluster < LARGE { HUBS } else { 1 }
}

/// How many agents a cluster has.
pub(super) fn agents(cluster: usize) -> usize {
    if cluster < LARGE { AGENTS } else { 1 }
}

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
        let large = self.cluster.min(LARGE);
        let before = large * (HUBS + AGENTS) + (self.cluster - large) * SMALL_SEATS;
        if self.is_hub() {
            before + self.number()
        } else {
            before + hubs(self.cluster) + self.number()
        }
    }

    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..CLUSTERS).flat_map(Self::all_of)
    }

    pub(super) fn all_of(cluster: usize) -> impl Iterator<Item = Self> {
        Self::hubs_of(cluster).chain(Self::agents_of(cluster))
    }

    pub(super) fn hubs_of(cluster: usize) -> impl Iterator<Item = Self> {
        (0..hubs(cluster)).map(move |replica| Self::hub(cluster, replica))
    }

    pub(super) fn agents_of(cluster: usize) -> impl Iterator<Item = Self> {
        (0..agents(cluster)).map(move |number| Self::agent(cluster, number))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_has_an_index_of_its_own() {
        let indices: Vec<_> = Place::all().map(Place::index).collect();
        assert_eq!(indices, (0..NODES).collect::<Vec<_>>());
    }
}
