//! What is measured of a variant.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use super::site::Site;
use super::transfer::{Arrived, Transfer};
use super::variant::Variant;
use super::{connections, datagrams, echo};
use crate::bench::meter::Usage;
use crate::bench::sample::Values;

/// Trials of a search for a rate.
pub(super) const TRIALS: u32 = 10;
/// A trial takes this part of the time of a measurement; all of them take 6 s at most.
const TRIAL: f64 = 0.15;
/// Pings on the idle path.
pub(super) const IDLE_PINGS: u32 = 100;
/// Their distance, also beside a transfer. `ping` spins between requests that are 10 ms apart or less, and would have
/// half a core that belongs to what is measured. Beside a transfer the first fifth is left out: TCP takes that time to
/// fill the path.
pub(super) const APART: Duration = Duration::from_millis(20);

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Measurement {
    /// Pings while nothing else is sent.
    Idle,
    /// TCP with so many streams; beside a single one, pings.
    Tcp(u32),
    /// TCP with a stream each way at once.
    Both,
    /// The highest rate of UDP with so many bytes of payload.
    Udp(usize),
    /// New TCP connections.
    Connections,
    /// Peak memory until now.
    Memory,
}

pub(super) const IDLE_RTT: &str = "idle";
pub(super) const TCP_1: &str = "tcp1";
pub(super) const TCP_4: &str = "tcp4";
pub(super) const BOTH: &str = "both";
pub(super) const UDP_64: &str = "udp64";
pub(super) const UDP_512: &str = "udp512";
pub(super) const UDP_1300: &str = "udp1300";
pub(super) const CONNECTIONS: &str = "connections";
pub(super) const MEMORY: &str = "memory";

/// Every measurement by its name.
const ALL: [(&str, Measurement); 9] = [
    (IDLE_RTT, Measurement::Idle),
    (TCP_1, Measurement::Tcp(1)),
    (TCP_4, Measurement::Tcp(4)),
    (BOTH, Measurement::Both),
    (UDP_64, Measurement::Udp(64)),
    (UDP_512, Measurement::Udp(512)),
    (UDP_1300, Measurement::Udp(1300)),
    (CONNECTIONS, Measurement::Connections),
    (MEMORY, Measurement::Memory),
];

/// The names, in the order in which a round has them.
pub(super) const NAMES: [&str; 9] = [
    ALL[0].0, ALL[1].0, ALL[2].0, ALL[3].0, ALL[4].0, ALL[5].0, ALL[6].0, ALL[7].0, ALL[8].0,
];

// What values are called.
pub(super) const GIGABITS: &str = "Gbit/s";
pub(super) const GIGABYTES: &str = "GB";
pub(super) const RETRANSMITS: &str = "retransmits";
pub(super) const TUNNEL_COST: &str = "tunnel CPU-s/GB";
pub(super) const MACHINE_COST: &str = "machine CPU-s/GB";
pub(super) const MEAN: &str = "round trip ms";
pub(super) const P99: &str = "round trip p99 ms";
pub(super) const MAX: &str = "round trip max ms";
pub(super) const LOST: &str = "pings lost";
pub(super) const PACKETS: &str = "kpackets/s";
pub(super) const TRIALS_MADE: &str = "trials";
pub(super) const RATE: &str = "connections/s";
pub(super) const PEAK: &str = "MiB";

/// What a measurement found: values, what it cost, and how many bytes of payload passed the tunnel at least.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) values: Values,
    pub(super) usage: Usage,
    pub(super) bytes: f64,
}

impl Measurement {
    /// The measurement of one of [`NAMES`].
    pub(super) fn named(name: &str) -> Option<Self> {
        let found = ALL.iter().find(|(other, _)| *other == name);
        found.map(|(_, measurement)| *measurement)
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        let found = ALL.iter().find(|(_, measurement)| *measurement == self);
        found.map_or("", |(name, _)| name)
    }

    /// Whether it is made of a variant: without a cipher only what the cipher costs is of interest, and nobody's memory
    /// is measured where nobody runs.
    pub(super) fn applies(self, variant: Variant) -> bool {
        match (self, variant) {
            (Self::Memory, Variant::Raw) => false,
            (Self::Idle | Self::Tcp(_), _) => true,
            (_, variant) => variant != Variant::NullCipher,
        }
    }

    /// Measures a variant for about `seconds`; `near` is what an earlier search found.
    pub(super) fn run(
        self,
        site: &Site,
        variant: Variant,
        seconds: u32,
        near: Option<f64>,
    ) -> Result<Outcome> {
        let [own, other] = site.way(variant)?.addresses;
        let (from, to) = (site.from(), site.to());
        let meter = site.meter(variant)?;
        let time = Duration::from_secs(seconds.into());
        match self {
            Self::Idle => {
                let (count, apart) = (IDLE_PINGS, APART);
                let (echo, usage) =
                    meter.measure(|| echo::measure(from, other, count, apart, 0))?;
                let values = echo_values(&echo);
                let bytes = f64::from(count) * 56.0;
                Ok(Outcome {
                    values,
                    usage,
                    bytes,
                })
            }
            Self::Tcp(streams) => {
                let transfer = transfer(site, other, streams, seconds, false);
                if streams > 1 {
                    let (arrived, usage) = meter.measure(|| transfer.run())?;
                    return Ok(transferred(&arrived, usage));
                }
                let count = u32::try_from(time.as_millis() / APART.as_millis())?;
                let ping = || echo::measure(from, other, count, APART, count / 5);
                let work = || {
                    let (arrived, echo) = std::thread::scope(|scope| {
                        let pings = scope.spawn(ping);
                        (transfer.run(), pings.join())
                    });
                    let echo = echo.map_err(|_| anyhow!("the thread of the pings died"))?;
                    Ok((arrived?, echo?))
                };
                let ((arrived, echo), usage) = meter.measure(work)?;
                let mut outcome = transferred(&arrived, usage);
                outcome.values.extend(echo_values(&echo));
                Ok(outcome)
            }
            Self::Both => {
                let transfer = transfer(site, other, 1, seconds, true);
                let (arrived, usage) = meter.measure(|| transfer.run())?;
                Ok(transferred(&arrived, usage))
            }
            Self::Udp(size) => {
                let sockets = datagrams::Datagrams::open(from, to, [own, other], size)?;
                let each = time
                    .mul_f64(TRIAL)
                    .clamp(Duration::from_millis(200), Duration::from_millis(600));
                let near = near.map(|thousands| thousands * 1e3);
                let work = || sockets.search(near, each, TRIALS);
                let (found, usage) = meter.measure(work)?;
                let values = [(PACKETS, found.rate / 1e3), (TRIALS_MADE, found.trials)];
                Ok(Outcome {
                    values: values.into(),
                    usage,
                    bytes: found.bytes,
                })
            }
            Self::Connections => {
                let (reached, usage) =
                    meter.measure(|| connections::measure(from, to, other, time))?;
                Ok(Outcome {
                    values: [(RATE, reached.rate)].into(),
                    usage,
                    bytes: reached.count * connections::BYTES,
                })
            }
            Self::Memory => {
                let peak = site.peak_memory(variant)?;
                let peak = peak.context("a variant without processes has no memory")?;
                Ok(Outcome {
                    values: [(PEAK, peak)].into(),
                    usage: Usage::default(),
                    bytes: 0.0,
                })
            }
        }
    }

    /// The value that a search of the next round begins at.
    pub(super) fn near(self, values: &Values) -> Option<f64> {
        values.get(PACKETS).copied()
    }
}

fn transfer(
    site: &Site,
    address: std::net::IpAddr,
    streams: u32,
    seconds: u32,
    both: bool,
) -> Transfer<'_> {
    Transfer {
        from: site.from(),
        to: site.to(),
        address,
        streams,
        seconds,
        both,
        congestion: site.congestion_control(),
    }
}

fn transferred(arrived: &Arrived, usage: Usage) -> Outcome {
    let gigabytes = arrived.bytes / 1e9;
    let values = [
        (GIGABITS, arrived.bits_per_second / 1e9),
        (GIGABYTES, gigabytes),
        (RETRANSMITS, arrived.retransmits as f64),
        (TUNNEL_COST, usage.watched / gigabytes),
        (MACHINE_COST, usage.machine / gigabytes),
    ];
    Outcome {
        values: values.into(),
        usage,
        bytes: arrived.bytes,
    }
}

fn echo_values(echo: &echo::Echo) -> Values {
    let values = [
        (MEAN, echo.mean),
        (P99, echo.p99),
        (MAX, echo.max),
        (LOST, echo.lost),
    ];
    values.into()
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
    fn cost_is_processor_time_by_what_arrived() {
        let arrived = Arrived {
            bits_per_second: 4e9,
            bytes: 2e9,
            retransmits: 7,
        };
        let usage = Usage {
            watched: 3.0,
            machine: 8.0,
            ..Usage::default()
        };
        let values = transferred(&arrived, usage).values;
        assert_eq!((values[TUNNEL_COST], values[MACHINE_COST]), (1.5, 4.0));
        assert_eq!((values[GIGABITS], values[GIGABYTES]), (4.0, 2.0));
    }
}
