//! What is measured of a node with a crowd.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::site::{Site, Size};
use super::stream::Stream;
use super::{ALL, ONE};
use crate::bench::meter::Usage;
use crate::bench::sample::Values;

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measurement {
    /// Runs of datagrams, each run to the next peer.
    Bursts,
    /// Datagrams one by one, each to the next peer.
    Packets,
    /// Nothing is sent.
    Idle,
    /// Peak memory until now.
    Memory,
}

pub(super) const BURSTS: &str = "bursts";
pub(super) const PACKETS: &str = "packets";
pub(super) const IDLE: &str = "idle";
pub(super) const MEMORY: &str = "memory";

/// The names, in the order in which a round has them.
pub(super) const NAMES: [&str; 4] = [IDLE, BURSTS, PACKETS, MEMORY];

// What values are called.
pub(super) const GIGABITS: &str = "Gbit/s";
pub(super) const TUNNEL: &str = "tunnel cores";
pub(super) const PEAK: &str = "MiB";

/// Until queues are as full as they get.
const WARM: Duration = Duration::from_millis(300);

impl Measurement {
    /// The measurement of one of [`NAMES`].
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            BURSTS => Self::Bursts,
            PACKETS => Self::Packets,
            IDLE => Self::Idle,
            MEMORY => Self::Memory,
            _ => return None,
        })
    }

    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bursts => BURSTS,
            Self::Packets => PACKETS,
            Self::Idle => IDLE,
            Self::Memory => MEMORY,
        }
    }

    const fn sends(self) -> bool {
        matches!(self, Self::Bursts | Self::Packets)
    }

    /// Whether it is made with such a crowd: throughput is compared among peers that are all active.
    pub(super) const fn applies(self, size: Size) -> bool {
        !self.sends() || matches!(size, Size::Hundred)
    }

    /// Whether it is made of a variant: what is sent to one peer or to all, anything else of the whole.
    pub(super) fn is_of(self, variant: &str) -> bool {
        variant == ALL || (self.sends() && variant == ONE)
    }

    /// Measures for about `seconds`.
    pub(super) fn run(
        self,
        site: &mut Site,
        variant: &str,
        seconds: u32,
    ) -> Result<(Values, Usage)> {
        let time = Duration::from_secs(seconds.into());
        let meter = site.meter()?;
        match self {
            Self::Bursts | Self::Packets => {
                let to = if variant == ONE { 1 } else { site.active() };
                let before = site.crowd().got();
                let stream = Stream::start(site.pod(), site.address(), to, self == Self::Bursts)?;
                thread::sleep(WARM);
                let (carried, usage) = meter.measure(|| {
                    let before = site.carried()?;
                    thread::sleep(time);
                    Ok(site.carried()? - before)
                })?;
                stream.stop()?;
                site.drain()?;
                let after = site.crowd().got();
                let heard: Vec<bool> = before.iter().zip(&after).map(|(b, a)| a > b).collect();
                check_heard(&heard, to.into())?;
                let values = [
                    (GIGABITS, carried as f64 * 8.0 / usage.seconds / 1e9),
                    (TUNNEL, usage.watched / usage.seconds),
                ];
                Ok((values.into(), usage))
            }
            Self::Idle => {
                let sleep = || {
                    thread::sleep(time.mul_f64(2.5));
                    Ok(())
                };
                let ((), usage) = meter.measure(sleep)?;
                Ok(([(TUNNEL, usage.watched / usage.seconds)].into(), usage))
            }
            Self::Memory => Ok(([(PEAK, site.peak_memory()?)].into(), Usage::default())),
        }
    }
}

/// Checks that what was sent reached those that it was for, and nobody else. Only samples of it are heard, so a few may
/// have missed theirs.
fn check_heard(heard: &[bool], to: usize) -> Result<()> {
    let (meant, others) = heard.split_at(to.min(heard.len()));
    let count = meant.iter().filter(|heard| **heard).count();
    ensure!(
        count * 10 >= to * 8,
        "only {count} of {to} peers heard anything: the traffic went elsewhere"
    );
    let strangers = others.iter().filter(|heard| **heard).count();
    ensure!(
        strangers == 0,
        "{strangers} peers heard what was for others"
    );
    Ok(())
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

    #[test]
    fn traffic_that_went_elsewhere_is_noticed() {
        check_heard(&[true, false, false], 1).unwrap();
        check_heard(&[true; 100], 100).unwrap();
        assert!(check_heard(&[false, false], 1).is_err(), "nobody");
        assert!(check_heard(&[true, true], 1).is_err(), "somebody else");
        let half: Vec<bool> = (0..100).map(|number| number % 2 == 0).collect();
        assert!(check_heard(&half, 100).is_err(), "too few");
    }
}
