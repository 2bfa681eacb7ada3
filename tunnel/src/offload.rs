//! What the kernel does for us where it can: one enum for flags, status and log. Each can be missing, can fail later,
//! or can be switched off where a device does it wrongly; packets arrive all the same, at a higher cost.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

/// One offload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Offload {
    /// Frames of the TAP come with their checksums left to be made (TUN_F_CSUM).
    TapChecksum,
    /// TCP comes from the TAP in super-frames (TUN_F_TSO4, TUN_F_TSO6).
    TapTcp,
    /// UDP comes from the TAP in super-frames where its sender made such (TUN_F_USO4, TUN_F_USO6).
    TapUdp,
    /// TCP is written to the TAP in super-frames.
    JoinTcp,
    /// UDP is written to the TAP in super-frames.
    JoinUdp,
    /// One send carries many datagrams (UDP_SEGMENT).
    UdpGso,
    /// One receive brings many datagrams (UDP_GRO).
    UdpGro,
}

/// Whether an offload is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It is.
    Used,
    /// The kernel or a device refused it.
    Refused,
    /// An operator switched it off.
    SwitchedOff,
}

/// Offloads that an operator does not want.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Without(BTreeSet<Offload>);

/// How all of them stand, shared by the threads.
#[derive(Debug)]
pub struct Offloads([AtomicU8; Offload::ALL.len()]);

/// A name that no offload has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no offload: choose of tap-checksum, tap-tcp, tap-udp, join-tcp, join-udp, udp-gso, udp-gro"
)]
pub struct UnknownOffload(String);

impl Offload {
    /// Every offload.
    pub const ALL: [Self; 7] = [
        Self::TapChecksum,
        Self::TapTcp,
        Self::TapUdp,
        Self::JoinTcp,
        Self::JoinUdp,
        Self::UdpGso,
        Self::UdpGro,
    ];

    /// Its name in flags, status and log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TapChecksum => "tap-checksum",
            Self::TapTcp => "tap-tcp",
            Self::TapUdp => "tap-udp",
            Self::JoinTcp => "join-tcp",
            Self::JoinUdp => "join-udp",
            Self::UdpGso => "udp-gso",
            Self::UdpGro => "udp-gro",
        }
    }

    const fn at(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Offload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Offload {
    type Err = UnknownOffload;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|offload| offload.name() == text);
        found.ok_or_else(|| UnknownOffload(text.to_owned()))
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Used => "used",
            Self::Refused => "refused by the kernel",
            Self::SwitchedOff => "switched off",
        })
    }
}

impl FromIterator<Offload> for Without {
    fn from_iter<I: IntoIterator<Item = Offload>>(all: I) -> Self {
        Self(all.into_iter().collect())
    }
}

impl Without {
    /// Those that are not wanted.
    pub fn iter(&self) -> impl Iterator<Item = Offload> {
        self.0.iter().copied()
    }
}

impl Offloads {
    /// All in use but those that are not wanted.
    pub fn new(without: &Without) -> Self {
        let offloads = Self([const { AtomicU8::new(Standing::Used as u8) }; Offload::ALL.len()]);
        for offload in without.iter() {
            offloads.set(offload, Standing::SwitchedOff);
        }
        // A super-frame always leaves its checksums to be made.
        if !offloads.uses(Offload::TapChecksum) {
            offloads.set(Offload::TapTcp, Standing::SwitchedOff);
            offloads.set(Offload::TapUdp, Standing::SwitchedOff);
        }
        offloads
    }

    fn set(&self, offload: Offload, standing: Standing) {
        self.0[offload.at()].store(standing as u8, Ordering::Relaxed);
    }

    /// Whether one is in use.
    pub fn uses(&self, offload: Offload) -> bool {
        self.standing(offload) == Standing::Used
    }

    /// How one stands.
    pub fn standing(&self, offload: Offload) -> Standing {
        match self.0[offload.at()].load(Ordering::Relaxed) {
            0 => Standing::Used,
            1 => Standing::Refused,
            _ => Standing::SwitchedOff,
        }
    }

    /// Remembers that the kernel refused one. Returns whether that is news.
    pub fn refuse(&self, offload: Offload) -> bool {
        let (used, refused) = (Standing::Used as u8, Standing::Refused as u8);
        self.0[offload.at()]
            .compare_exchange(used, refused, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// All of them, for status.
    pub fn standings(&self) -> BTreeMap<Offload, Standing> {
        Offload::ALL
            .into_iter()
            .map(|offload| (offload, self.standing(offload)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_offload_has_one_name_for_flags_status_and_order() {
        for (at, offload) in Offload::ALL.into_iter().enumerate() {
            assert_eq!(offload.name().parse(), Ok(offload));
            assert_eq!(serde_json::to_value(offload).unwrap(), offload.name());
            assert_eq!(offload.at(), at);
        }
        let unknown = "gso".parse::<Offload>().unwrap_err().to_string();
        for offload in Offload::ALL {
            assert!(unknown.contains(offload.name()), "{unknown}");
        }
    }

    #[test]
    fn a_refusal_is_news_once_and_never_of_what_was_switched_off() {
        let without = Without::from_iter([Offload::UdpGro]);
        let offloads = Offloads::new(&without);
        assert!(offloads.uses(Offload::UdpGso));
        assert!(offloads.refuse(Offload::UdpGso));
        assert!(!offloads.refuse(Offload::UdpGso));
        assert!(!offloads.refuse(Offload::UdpGro));
        assert_eq!(offloads.standing(Offload::UdpGso), Standing::Refused);
        assert_eq!(offloads.standing(Offload::UdpGro), Standing::SwitchedOff);
    }
}
