//! What is measured of clusters that learn of each other.

use anyhow::Result;

use super::site::Site;
use super::{change_bytes, changes, churn, cold, flood, replica, slow};
use crate::bench::meter::{Usage, peak_memory, resident_memory};
use crate::bench::sample::Values;

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measurement {
    /// An agent that has kept nothing starts.
    Cold,
    /// Endpoints change all the time.
    Changes,
    /// Peak memory until now.
    Memory,
    /// One endpoint of a large service changes.
    OneChange,
    /// Pods come and go that concern nobody elsewhere.
    Churn,
    /// Endpoints change, and other agents of the same hub do not read.
    Slow,
    /// Endpoints change, and one cluster changes far more than it may.
    Flood,
    /// The hub that serves the agent dies, and there is another.
    Replica,
}

pub(super) const COLD: &str = "cold";
pub(super) const CHANGES: &str = "changes";
pub(super) const MEMORY: &str = "memory";
pub(super) const ONE_CHANGE: &str = "one-change";
pub(super) const CHURN: &str = "churn";
pub(super) const SLOW: &str = "slow";
pub(super) const FLOOD: &str = "flood";
pub(super) const REPLICA: &str = "replica";

/// The names, in the order in which a round has them: memory is looked at before a second hub takes its share.
pub(super) const NAMES: [&str; 8] = [
    COLD, CHANGES, ONE_CHANGE, CHURN, SLOW, FLOOD, MEMORY, REPLICA,
];

// What values are called.
pub(super) const SECONDS: &str = "s";
pub(super) const SNAPSHOT: &str = "MiB on the wire";
pub(super) const MEDIAN: &str = "p50 ms";
pub(super) const TAIL: &str = "p99 ms";
pub(super) const CHANGED: &str = "changes/s";
pub(super) const AGENT_CORES: &str = "agent cores";
pub(super) const HUB_CORES: &str = "hub cores";
pub(super) const TUNNEL_CORES: &str = "tunnel cores";
pub(super) const AGENT_PEAK: &str = "agent MiB";
pub(super) const AGENT_NOW: &str = "agent MiB now";
pub(super) const HUB_PEAK: &str = "hub MiB";
pub(super) const TUNNEL_PEAK: &str = "tunnel MiB";
pub(super) const BYTES: &str = "bytes";
pub(super) const GROSS: &str = "bytes, idle traffic included";
pub(super) const HUB_MORE: &str = "hub MiB more";
pub(super) const MEDIANS: &str = "p50 to calm";
pub(super) const TAILS: &str = "p99 to calm";
pub(super) const PODS: &str = "pods";
pub(super) const SHARE: &str = "of a snapshot";

impl Measurement {
    /// The measurement of one of [`NAMES`].
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            COLD => Self::Cold,
            CHANGES => Self::Changes,
            MEMORY => Self::Memory,
            ONE_CHANGE => Self::OneChange,
            CHURN => Self::Churn,
            SLOW => Self::Slow,
            FLOOD => Self::Flood,
            REPLICA => Self::Replica,
            _ => return None,
        })
    }

    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Cold => COLD,
            Self::Changes => CHANGES,
            Self::Memory => MEMORY,
            Self::OneChange => ONE_CHANGE,
            Self::Churn => CHURN,
            Self::Slow => SLOW,
            Self::Flood => FLOOD,
            Self::Replica => REPLICA,
        }
    }

    /// Whether more clusters can bend it.
    pub(super) const fn is_of_the_curve(self) -> bool {
        matches!(self, Self::Cold | Self::Changes | Self::Memory)
    }

    /// Measures for about `seconds`, or as long as it takes.
    pub(super) fn run(self, site: &mut Site, seconds: u32) -> Result<(Values, Usage)> {
        match self {
            Self::Cold => cold::measure(site),
            Self::Changes => changes::measure(site, seconds),
            Self::Memory => memory(site),
            Self::OneChange => change_bytes::measure(site, seconds),
            Self::Churn => churn::measure(site),
            Self::Slow => slow::measure(site, seconds),
            Self::Flood => flood::measure(site, seconds),
            Self::Replica => replica::measure(site),
        }
    }
}

fn memory(site: &Site) -> Result<(Values, Usage)> {
    let values = [
        (AGENT_PEAK, peak_memory(site.agent()?)?),
        (AGENT_NOW, resident_memory(site.agent()?)?),
        (HUB_PEAK, peak_memory(site.hub()?)?),
        (TUNNEL_PEAK, peak_memory(site.tunnel()?)?),
    ];
    Ok((values.into(), Usage::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_measurements_belong_together() {
        for name in NAMES {
            assert_eq!(Measurement::named(name).map(Measurement::name), Some(name));
        }
        assert_eq!(Measurement::named("colour"), None);
    }
}
