//! Round trips: the mean, what 99 % stayed below, and the longest.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::io::Netns;
use crate::traffic::Ping;

/// Round trips of the answered pings, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Echo {
    pub(super) mean: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
    /// Requests without a reply.
    pub(super) lost: f64,
}

/// Sends `count` pings, one each `interval`, and leaves out the first `skip` numbers.
pub(super) fn measure(
    netns: &Netns,
    to: std::net::IpAddr,
    count: u32,
    interval: Duration,
    skip: u32,
) -> Result<Echo> {
    let ping = Ping::new(to).count(count).interval(interval);
    let report = ping.run(netns)?;
    let times = times(&report.output, skip);
    let lost = f64::from(report.sent.saturating_sub(report.received));
    summary(times, lost).with_context(|| format!("ping {to} in {}", netns.name()))
}

/// The round trips behind `time=` of all answers whose number is larger than `skip`.
fn times(output: &str, skip: u32) -> Vec<f64> {
    let after = |line: &str, key: &str| -> Option<f64> {
        let (_, rest) = line.split_once(key)?;
        rest.split_whitespace().next()?.parse().ok()
    };
    let lines = output.lines().filter_map(|line| {
        let number = after(line, "icmp_seq=")?;
        (number > f64::from(skip)).then(|| after(line, "time="))?
    });
    lines.collect()
}

fn summary(mut times: Vec<f64>, lost: f64) -> Result<Echo> {
    ensure!(!times.is_empty(), "no ping was answered");
    times.sort_by(f64::total_cmp);
    Ok(Echo {
        mean: times.iter().sum::<f64>() / times.len() as f64,
        p99: times[(times.len() * 99).div_ceil(100) - 1],
        max: times[times.len() - 1],
        lost,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_behind_the_first_ones_are_read() {
        let output = "64 bytes from 10.1.1.1: icmp_seq=1 ttl=62 time=9.00 ms\n\
                      64 bytes from 10.1.1.1: icmp_seq=2 ttl=62 time=0.250 ms\n\
                      From 10.1.1.9 icmp_seq=3 Destination Host Unreachable\n\
                      64 bytes from 10.1.1.1: icmp_seq=4 ttl=62 time=0.750 ms\n";
        assert_eq!(times(output, 1), [0.25, 0.75]);
        assert_eq!(times(output, 9), [0.0; 0]);
    }

    #[test]
    fn ninety_nine_of_a_hundred_stay_below_the_99th() {
        let echo = summary((1..=200).rev().map(f64::from).collect(), 3.0).unwrap();
        assert_eq!((echo.mean, echo.p99, echo.max), (100.5, 198.0, 200.0));
        assert_eq!(echo.lost, 3.0);
        let one = summary(vec![2.0], 0.0).unwrap();
        assert_eq!((one.p99, one.max), (2.0, 2.0));
        assert!(summary(Vec::new(), 9.0).is_err());
    }
}
