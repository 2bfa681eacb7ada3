//! Ways to make a clear pod packet appear on an underlay link, and the hunt that tries all of them.
//!
//! A [`Way`] is a mistake that people and programs make on real nodes: a route, a rule, a device, a process that
//! dies, a firewall that is loaded over ours. The [`Hunt`] shows two things of each. First that it has teeth: with
//! the barrier that should stop it taken away, the same act puts pod packets in clear on the wire, and the sniffers
//! see them. Then that Hawser holds: with everything as shipped, nothing is seen while the act stands and while it
//! is undone, and afterwards every pair of pods talks again.
//!
//! [`LIMITS`] are the acts that get past every barrier. They are named in `docs/security.md`, and the hunt shows
//! that they still do what is said there.

use anyhow::Result;

use crate::lab::Family;

mod addresses;
mod barrier;
mod chance;
mod configuration;
mod devices;
mod hunt;
mod limits;
mod masters;
mod mirrors;
mod order;
mod packets;
mod processes;
mod routes;
mod rules;
mod site;
mod sockets;
mod tables;
mod translation;
mod underlay;

pub use barrier::Barrier;
pub use chance::Chance;
pub use hunt::{Hunt, Outcome, table};
pub use limits::LIMITS;
pub use site::Site;

/// One way to make a clear packet appear.
#[derive(Debug)]
pub struct Way {
    /// What is done, in a few words.
    pub name: &'static str,
    /// Who does that on a real node.
    pub mistake: &'static str,
    /// What keeps it off the wire.
    pub barrier: Barrier,
    /// The families whose packets it brings out.
    pub families: &'static [Family],
    /// Does it.
    pub provoke: fn(&mut Site) -> Result<()>,
    /// Takes back what Hawser does not repair by itself.
    pub undo: fn(&mut Site) -> Result<()>,
}

/// Ways that have something in common.
#[derive(Debug)]
pub struct Group {
    /// What they have in common.
    pub name: &'static str,
    /// The ways.
    pub ways: &'static [Way],
}

/// Every way there is.
pub const GROUPS: [Group; 12] = [
    Group {
        name: "routes",
        ways: routes::WAYS,
    },
    Group {
        name: "rules",
        ways: rules::WAYS,
    },
    Group {
        name: "addresses",
        ways: addresses::WAYS,
    },
    Group {
        name: "devices",
        ways: devices::WAYS,
    },
    Group {
        name: "masters",
        ways: masters::WAYS,
    },
    Group {
        name: "mirrors",
        ways: mirrors::WAYS,
    },
    Group {
        name: "translation",
        ways: translation::WAYS,
    },
    Group {
        name: "tables",
        ways: tables::WAYS,
    },
    Group {
        name: "sockets",
        ways: sockets::WAYS,
    },
    Group {
        name: "packets",
        ways: packets::WAYS,
    },
    Group {
        name: "processes",
        ways: processes::WAYS,
    },
    Group {
        name: "configuration",
        ways: configuration::WAYS,
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn there_are_ways_enough_and_none_twice() {
        let names: Vec<&str> = GROUPS
            .iter()
            .flat_map(|group| group.ways)
            .map(|way| way.name)
            .collect();
        assert!(names.len() >= 30, "{}", names.len());
        let different: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(different.len(), names.len());
    }
}
