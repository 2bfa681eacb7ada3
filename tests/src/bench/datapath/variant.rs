//! The ways from pod to pod that are compared.

use crate::stock::Implementation;

/// One way from a pod of one node to a pod of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Variant {
    /// In clear, straight over the underlay.
    Raw,
    /// Through somebody else's WireGuard, without Geneve.
    Stock(Implementation),
    /// Through Hawser.
    Hawser,
    /// Through Hawser built with a cipher that does nothing: what is left is the rest of the path.
    NullCipher,
    /// Through Hawser with two lanes, both open.
    TwoLanes,
    /// Through Hawser with sixteen lanes, all open: far more than this machine has processors.
    SixteenLanes,
}

pub(super) const RAW: &str = "raw";
pub(super) const BORINGTUN: &str = "boringtun";
pub(super) const GOTATUN: &str = "gotatun";
pub(super) const WIREGUARD_GO: &str = "wireguard-go";
pub(super) const NEWEST: &str = "wireguard-go-newest";
pub(super) const HAWSER: &str = "hawser";
pub(super) const NULL_CIPHER: &str = "null-cipher";
pub(super) const TWO_LANES: &str = "two-lanes";
pub(super) const SIXTEEN_LANES: &str = "sixteen-lanes";

/// Every variant by its name.
pub(super) const NAMES: [&str; 9] = [
    RAW,
    BORINGTUN,
    GOTATUN,
    WIREGUARD_GO,
    NEWEST,
    HAWSER,
    NULL_CIPHER,
    TWO_LANES,
    SIXTEEN_LANES,
];

impl Variant {
    /// The variant of one of [`NAMES`].
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            RAW => Self::Raw,
            BORINGTUN => Self::Stock(Implementation::Boringtun),
            GOTATUN => Self::Stock(Implementation::Gotatun),
            WIREGUARD_GO => Self::Stock(Implementation::WireguardGo),
            NEWEST => Self::Stock(Implementation::WireguardGoNewest),
            HAWSER => Self::Hawser,
            NULL_CIPHER => Self::NullCipher,
            TWO_LANES => Self::TwoLanes,
            SIXTEEN_LANES => Self::SixteenLanes,
            _ => return None,
        })
    }

    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Raw => RAW,
            Self::Stock(Implementation::Boringtun) => BORINGTUN,
            Self::Stock(Implementation::Gotatun) => GOTATUN,
            Self::Stock(Implementation::WireguardGo) => WIREGUARD_GO,
            Self::Stock(Implementation::WireguardGoNewest) => NEWEST,
            Self::Hawser => HAWSER,
            Self::NullCipher => NULL_CIPHER,
            Self::TwoLanes => TWO_LANES,
            Self::SixteenLanes => SIXTEEN_LANES,
        }
    }

    /// Whether it is a build of Hawser.
    pub(super) const fn is_ours(self) -> bool {
        !matches!(self, Self::Raw | Self::Stock(_))
    }

    /// How many lanes each of its nodes has, where that is what is compared.
    pub(super) const fn lanes(self) -> Option<u8> {
        match self {
            Self::TwoLanes => Some(2),
            Self::SixteenLanes => Some(16),
            Self::Raw | Self::Stock(_) | Self::Hawser | Self::NullCipher => None,
        }
    }

    /// Whether it has a pair of nodes of its own: another build of the same program, or another number of lanes.
    pub(super) const fn is_apart(self) -> bool {
        matches!(self, Self::NullCipher) || self.lanes().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_variants_belong_together() {
        for name in NAMES {
            assert_eq!(Variant::named(name).map(Variant::name), Some(name));
        }
        assert_eq!(Variant::named("warp"), None);
    }
}
