//! How many clusters there are beside the one under test, and how large they are.

use super::measurement::Measurement;

/// One size of the clusterset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// For tests and the quick form: everything works.
    Ten,
    /// What the bounds are of.
    Bounds,
    /// Twice the clusters, four times the endpoints: where the curve goes.
    Curve,
}

pub(super) const TEN: &str = "clusters-10";
pub(super) const BOUNDS: &str = "clusters-250";
pub(super) const CURVE: &str = "clusters-500";
/// Their names.
pub(super) const NAMES: [&str; 3] = [TEN, BOUNDS, CURVE];

impl Size {
    pub(super) const ALL: [Self; 3] = [Self::Ten, Self::Bounds, Self::Curve];

    /// The size of one of [`NAMES`].
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.name() == name)
    }

    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ten => TEN,
            Self::Bounds => BOUNDS,
            Self::Curve => CURVE,
        }
    }

    /// Clusters beside the one under test.
    pub(super) const fn clusters(self) -> u16 {
        match self {
            Self::Ten => 10,
            Self::Bounds => 250,
            Self::Curve => 500,
        }
    }

    /// Nodes of each cluster.
    pub(super) const fn nodes(self) -> u16 {
        match self {
            Self::Ten => 20,
            Self::Bounds | Self::Curve => 100,
        }
    }

    /// Endpoints of each cluster.
    pub(super) const fn endpoints(self) -> u32 {
        match self {
            Self::Ten => 400,
            Self::Bounds => 1_000,
            Self::Curve => 2_000,
        }
    }

    /// Services of each cluster, and as many identities.
    pub(super) const fn services(self) -> u32 {
        match self {
            Self::Ten => 5,
            Self::Bounds | Self::Curve => 20,
        }
    }

    /// Backends of one service more, which the first cluster has.
    pub(super) const fn backends(self) -> u32 {
        match self {
            Self::Ten => 500,
            Self::Bounds => 5_000,
            Self::Curve => 0,
        }
    }

    /// Endpoints of all clusters.
    pub(super) fn all_endpoints(self) -> u32 {
        u32::from(self.clusters()) * self.endpoints() + self.backends()
    }

    /// Whether a measurement is made in it: the curve is one of time, processor and memory.
    pub(super) const fn has(self, measurement: Measurement) -> bool {
        match self {
            Self::Ten | Self::Bounds => true,
            Self::Curve => measurement.is_of_the_curve(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_of_so_many() {
        for name in NAMES {
            assert_eq!(Size::named(name).map(Size::name), Some(name));
        }
        let nodes = u32::from(Size::Bounds.clusters()) * u32::from(Size::Bounds.nodes());
        assert_eq!(nodes, 25_000);
        assert_eq!(Size::Bounds.all_endpoints(), 255_000);
        assert_eq!(Size::Curve.all_endpoints(), 1_000_000);
    }
}
