//! How much is measured, and what one round of it found.

use serde::Serialize;

use super::meter::Usage;
use super::transfer::Arrived;

/// Cores that others may use during a measurement of a round that counts.
pub(super) const QUIET: f64 = 0.10;
/// How often a round is measured again because others were too loud.
pub(super) const REPEATS: u32 = 3;
/// Parallel TCP streams of the second transfer.
pub(super) const STREAMS: u32 = 4;

/// How much is measured.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Plan {
    /// Rounds that count.
    pub(super) rounds: u32,
    /// Seconds of each transfer.
    pub(super) seconds: u32,
    /// Pings of each kind in a round.
    pub(super) pings: u32,
    /// Milliseconds between two pings.
    pub(super) ping_interval: u64,
}

impl Plan {
    pub(super) const fn new(quick: bool) -> Self {
        let (rounds, seconds) = if quick { (2, 2) } else { (4, 4) };
        Self {
            rounds,
            seconds,
            pings: 200,
            ping_interval: 5,
        }
    }
}

/// One TCP transfer.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Flow {
    /// 10^9 bits per second, as the receiver counted.
    pub(super) gigabits: f64,
    /// 10^9 bytes that arrived.
    pub(super) gigabytes: f64,
    /// Segments that the sender sent again.
    pub(super) retransmits: u64,
    pub(super) usage: Usage,
}

impl Flow {
    pub(super) fn new(arrived: Arrived, usage: Usage) -> Self {
        Self {
            gigabits: arrived.bits_per_second / 1e9,
            gigabytes: arrived.bytes / 1e9,
            retransmits: arrived.retransmits,
            usage,
        }
    }

    /// CPU-seconds of keepers and data planes for each 10^9 bytes.
    pub(super) fn tunnel_cost(&self) -> f64 {
        self.usage.tunnels / self.gigabytes
    }

    /// CPU-seconds of the whole machine for each 10^9 bytes.
    pub(super) fn machine_cost(&self) -> f64 {
        self.usage.machine / self.gigabytes
    }
}

/// Pings while nothing else is sent.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Echo {
    /// Mean time from request to reply, in milliseconds.
    pub(super) milliseconds: f64,
    /// Requests without a reply.
    pub(super) lost: u32,
    pub(super) usage: Usage,
}

/// Everything measured once, one after the other.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Round {
    /// From 1.
    pub(super) number: u32,
    /// From 1; more when others were too loud before.
    pub(super) attempt: u32,
    /// Whether the figures are made of it.
    pub(super) kept: bool,
    pub(super) raw_echo: Echo,
    pub(super) echo: Echo,
    pub(super) raw: Flow,
    pub(super) one: Flow,
    pub(super) many: Flow,
    /// The most memory that a data plane has had resident until now, in MiB.
    pub(super) peak_memory: f64,
}

impl Round {
    /// Cores that others used in the loudest measurement of the round.
    pub(super) fn noise(&self) -> f64 {
        let usages = [
            self.raw_echo.usage,
            self.echo.usage,
            self.raw.usage,
            self.one.usage,
            self.many.usage,
        ];
        usages.iter().map(Usage::noise).fold(0.0, f64::max)
    }
}

/// Measures a round until it is quiet, at most [`REPEATS`] times again, and marks the one that counts: the quiet one,
/// else the quietest. Chosen by noise alone, never by what was measured.
pub(super) fn until_quiet<E>(
    mut measure: impl FnMut(u32) -> Result<Round, E>,
) -> Result<Vec<Round>, E> {
    let mut attempts: Vec<Round> = Vec::new();
    for attempt in 1..=1 + REPEATS {
        attempts.push(measure(attempt)?);
        if attempts.last().is_some_and(|round| round.noise() <= QUIET) {
            break;
        }
    }
    let by_noise = |a: &&mut Round, b: &&mut Round| a.noise().total_cmp(&b.noise());
    if let Some(quietest) = attempts.iter_mut().min_by(by_noise) {
        quietest.kept = true;
    }
    Ok(attempts)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A round in which `foreign` cores were used by others and Hawser was as fast as `gigabits`.
    pub(in super::super) fn round(number: u32, foreign: f64, gigabits: f64) -> Round {
        let usage = Usage {
            seconds: 4.0,
            tunnels: 3.0,
            machine: 8.0,
            foreign,
            steal: 0.0,
        };
        let flow = |bits_per_second: f64| {
            let bytes = 2e9;
            let arrived = Arrived {
                bits_per_second,
                bytes,
                retransmits: 7,
            };
            Flow::new(arrived, usage)
        };
        let echo = |milliseconds| Echo {
            milliseconds,
            lost: 0,
            usage: Usage::default(),
        };
        Round {
            number,
            attempt: 1,
            kept: false,
            raw_echo: echo(0.02),
            echo: echo(0.2),
            raw: flow(30e9),
            one: flow(gigabits * 1e9),
            many: flow(gigabits * 2e9),
            peak_memory: 5.0,
        }
    }

    fn attempts(noises: &[f64]) -> Vec<Round> {
        let mut noises = noises.iter();
        until_quiet(|attempt| {
            let noise = noises.next().ok_or("measured once too often")?;
            Ok::<_, &str>(Round {
                attempt,
                ..round(1, *noise, 3.0)
            })
        })
        .unwrap()
    }

    #[test]
    fn a_quiet_round_is_measured_once() {
        let rounds = attempts(&[0.10]);
        assert!(rounds.len() == 1 && rounds[0].kept);
    }

    #[test]
    fn a_loud_round_is_measured_again_until_it_is_quiet() {
        let kept: Vec<bool> = attempts(&[0.5, 0.11, 0.02])
            .iter()
            .map(|round| round.kept)
            .collect();
        assert_eq!(kept, [false, false, true]);
    }

    #[test]
    fn a_machine_that_stays_loud_gives_the_quietest_of_four() {
        let rounds = attempts(&[0.5, 0.2, 0.9, 0.4]);
        let kept: Vec<u32> = rounds
            .iter()
            .filter(|round| round.kept)
            .map(|round| round.attempt)
            .collect();
        assert_eq!((rounds.len(), kept), (4, vec![2]));
    }

    #[test]
    fn the_loudest_measurement_is_the_noise_of_a_round() {
        let mut round = round(1, 0.01, 3.0);
        round.echo.usage.steal = 0.3;
        assert_eq!(round.noise(), 0.3);
    }

    #[test]
    fn cost_is_processor_time_by_what_arrived() {
        let flow = round(1, 0.0, 3.0).one;
        assert_eq!((flow.tunnel_cost(), flow.machine_cost()), (1.5, 4.0));
        assert_eq!((flow.gigabits, flow.gigabytes), (3.0, 2.0));
    }
}
