//! Which parts of the node must be looked at again, and which notifications say so.

use ipnet::IpNet;
use std::collections::BTreeSet;
use std::ops::{BitOr, BitOrAssign};

/// A set of parts to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dirty {
    /// The TAP, its addresses and neighbours, our routes, sysctls.
    pub(crate) kernel: bool,
    /// The underlay paths to peers.
    pub(crate) paths: bool,
    /// The guard tables.
    pub(crate) guard: bool,
    /// The table that clamps TCP's segment size.
    pub(crate) clamp: bool,
}

impl Dirty {
    const NONE: Self = Self {
        kernel: false,
        paths: false,
        guard: false,
        clamp: false,
    };
    /// The TAP and what stands around it.
    pub(crate) const KERNEL: Self = Self {
        kernel: true,
        ..Self::NONE
    };
    /// The underlay paths.
    pub(crate) const PATHS: Self = Self {
        paths: true,
        ..Self::NONE
    };
    /// The guard tables.
    pub(crate) const GUARD: Self = Self {
        guard: true,
        ..Self::NONE
    };
    /// The clamp table.
    pub(crate) const CLAMP: Self = Self {
        clamp: true,
        ..Self::NONE
    };
    /// All of nftables.
    pub(crate) const NFTABLES: Self = Self {
        guard: true,
        clamp: true,
        ..Self::NONE
    };
    /// Everything.
    pub(crate) const ALL: Self = Self {
        kernel: true,
        paths: true,
        guard: true,
        clamp: true,
    };

    /// What a change in an nftables table means; `None`: the name was not told.
    pub(crate) fn of_table(name: Option<&[u8]>) -> Self {
        if name == Some(hawser_tunnel::guard::TABLE.as_bytes()) {
            Self::GUARD
        } else if name == Some(super::clamp::TABLE.as_bytes()) {
            Self::CLAMP
        } else {
            Self::NONE
        }
    }
}

impl BitOr for Dirty {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self {
            kernel: self.kernel || other.kernel,
            paths: self.paths || other.paths,
            guard: self.guard || other.guard,
            clamp: self.clamp || other.clamp,
        }
    }
}

impl BitOrAssign for Dirty {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

/// What notifications are held against. Pods come and go on a node without a meaning for us.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    /// The TAP's name.
    pub(crate) device: String,
    /// The TAP's index while it exists.
    pub(crate) index: Option<u32>,
    /// Devices that lead to other nodes.
    pub(crate) underlay: BTreeSet<String>,
    /// All mesh prefixes: no underlay path leads through them.
    pub(crate) mesh: BTreeSet<IpNet>,
    /// Prefixes that we have routes to: another route to one of them may have taken the place of ours, and the
    /// kernel then tells of the new one only.
    pub(crate) routes: BTreeSet<IpNet>,
}

impl Scope {
    /// A device appeared, vanished or changed.
    pub(crate) fn of_link(&self, index: u32, name: Option<&str>) -> Dirty {
        let Some(name) = name else { return Dirty::ALL };
        if name == self.device || self.index == Some(index) {
            return Dirty::KERNEL;
        }
        if self.underlay.contains(name) {
            return Dirty::PATHS | Dirty::GUARD;
        }
        Dirty::default()
    }

    /// An address changed on a device.
    pub(crate) fn of_address(&self, device: u32) -> Dirty {
        self.of_tap(device)
    }

    /// A neighbour entry changed on a device.
    pub(crate) fn of_neighbour(&self, device: u32) -> Dirty {
        self.of_tap(device)
    }

    fn of_tap(&self, device: u32) -> Dirty {
        if self.index == Some(device) {
            Dirty::KERNEL
        } else {
            Dirty::default()
        }
    }

    /// A route changed; `ours` by its protocol number. A default route has no destination.
    pub(crate) fn of_route(&self, ours: bool, destination: Option<IpNet>) -> Dirty {
        let inside = |net: IpNet| self.mesh.iter().any(|prefix| prefix.contains(&net));
        if ours || destination.is_some_and(|net| self.routes.contains(&net)) {
            Dirty::KERNEL
        } else if destination.is_some_and(inside) {
            Dirty::default()
        } else {
            Dirty::PATHS
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_that_come_and_go_wake_nobody() {
        let scope = Scope {
            device: "hawser0".to_owned(),
            index: Some(7),
            underlay: BTreeSet::from(["eth0".to_owned()]),
            mesh: BTreeSet::from(["10.1.0.0/16".parse().unwrap()]),
            routes: BTreeSet::from(["10.1.2.0/24".parse().unwrap()]),
        };
        let pod: IpNet = "10.1.1.10/32".parse().unwrap();
        assert_eq!(scope.of_link(12, Some("veth12")), Dirty::default());
        assert_eq!(scope.of_route(false, Some(pod)), Dirty::default());
        assert_eq!(
            scope.of_neighbour(12) | scope.of_address(12),
            Dirty::default()
        );

        assert_eq!(
            scope.of_link(9, Some("hawser0")),
            Dirty::KERNEL,
            "created again"
        );
        assert_eq!(scope.of_link(7, Some("renamed")), Dirty::KERNEL);
        assert_eq!(scope.of_link(2, Some("eth0")), Dirty::PATHS | Dirty::GUARD);
        assert_eq!(scope.of_route(true, Some(pod)), Dirty::KERNEL);
        let replaced = "10.1.2.0/24".parse().unwrap();
        assert_eq!(
            scope.of_route(false, Some(replaced)),
            Dirty::KERNEL,
            "ours may be gone"
        );
        assert_eq!(scope.of_route(false, None), Dirty::PATHS);
        assert_eq!(scope.of_address(7), Dirty::KERNEL);
    }
}
