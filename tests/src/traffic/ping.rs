//! `ping`, with its answer taken apart.

use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::io::Netns;

/// A ping to one address.
#[derive(Clone, Debug)]
pub struct Ping {
    to: IpAddr,
    count: u32,
    interval: Duration,
    size: Option<usize>,
    from: Option<String>,
    dont_fragment: bool,
    deadline: Duration,
    canary: Option<[u8; 16]>,
    hops: Option<u8>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PingReport {
    /// Requests sent.
    pub sent: u32,
    /// Replies received.
    pub received: u32,
    /// Mean time from request to reply.
    pub average: Option<Duration>,
    /// The MTU that a "too big" named, be it the own kernel's or a router's.
    pub too_big: Option<u32>,
    /// What `ping` wrote.
    pub output: String,
}

impl PingReport {
    /// Whether every request was answered.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.sent > 0 && self.sent == self.received
    }
}

impl Ping {
    /// One request to `to`, with two seconds for the reply.
    #[must_use]
    pub const fn new(to: IpAddr) -> Self {
        Self {
            to,
            count: 1,
            interval: Duration::from_millis(100),
            size: None,
            from: None,
            dont_fragment: false,
            deadline: Duration::from_secs(2),
            canary: None,
            hops: None,
        }
    }

    /// How many requests.
    #[must_use]
    pub const fn count(mut self, count: u32) -> Self {
        self.count = count;
        self
    }

    /// Time between requests.
    #[must_use]
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Bytes after the ICMP header of 8.
    #[must_use]
    pub const fn size(mut self, size: usize) -> Self {
        self.size = Some(size);
        self
    }

    /// Source address.
    #[must_use]
    pub fn from(mut self, address: IpAddr) -> Self {
        self.from = Some(address.to_string());
        self
    }

    /// Packets that do not fit are answered, not cut.
    #[must_use]
    pub const fn dont_fragment(mut self) -> Self {
        self.dont_fragment = true;
        self
    }

    /// How long to wait for the reply to the last request.
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// What the payload repeats.
    #[must_use]
    pub const fn canary(mut self, canary: [u8; 16]) -> Self {
        self.canary = Some(canary);
        self
    }

    /// Time to live or hop limit.
    #[must_use]
    pub const fn hops(mut self, hops: u8) -> Self {
        self.hops = Some(hops);
        self
    }

    /// Runs it inside `netns`.
    ///
    /// # Errors
    /// When `ping` cannot be run or says something that it never says. No reply is no error.
    pub fn run(&self, netns: &Netns) -> Result<PingReport> {
        let mut command = netns.command("ping");
        command
            .env("LC_ALL", "C")
            .arg(if self.to.is_ipv4() { "-4" } else { "-6" })
            .arg("-n");
        command.args([
            "-c",
            &self.count.to_string(),
            "-i",
            &format!("{:.3}", self.interval.as_secs_f64()),
        ]);
        command.args(["-W", &format!("{:.3}", self.deadline.as_secs_f64())]);
        if let Some(size) = self.size {
            command.args(["-s", &size.to_string()]);
        }
        if let Some(from) = &self.from {
            command.args(["-I", from]);
        }
        if self.dont_fragment {
            command.args(["-M", "do"]);
        }
        if let Some(canary) = self.canary {
            let hex: String = canary.iter().map(|byte| format!("{byte:02x}")).collect();
            command.args(["-p", &hex]);
        }
        if let Some(hops) = self.hops {
            command.args(["-t", &hops.to_string()]);
        }
        let output = command
            .arg(self.to.to_string())
            .stdin(Stdio::null())
            .output()
            .context("failed to start ping")?;
        let text = [output.stdout, output.stderr].concat();
        parse(&String::from_utf8_lossy(&text))
            .with_context(|| format!("ping {} in {}", self.to, netns.name()))
    }
}

fn parse(text: &str) -> Result<PingReport> {
    let Some(summary) = text
        .lines()
        .find(|line| line.contains("packets transmitted"))
    else {
        bail!(
            "{}",
            text.trim().lines().last().unwrap_or("ping said nothing")
        );
    };
    let number = |part: &str| -> Option<u32> {
        let part = summary.split(',').find(|words| words.contains(part))?;
        part.split_whitespace().next()?.parse().ok()
    };
    let average = text.lines().find_map(|line| {
        let (_, times) = line.split_once("min/avg/max")?;
        let (_, times) = times.split_once('=')?;
        times.split('/').nth(1)?.trim().parse::<f64>().ok()
    });
    let too_big = text.lines().find_map(|line| {
        let lower = line.to_ascii_lowercase();
        let (_, rest) = lower.split_once("mtu")?;
        let digits: String = rest
            .chars()
            .skip_while(|c| !c.is_ascii_digit())
            .take_while(char::is_ascii_digit)
            .collect();
        digits.parse().ok()
    });
    Ok(PingReport {
        sent: number("transmitted").context("ping did not say how many it sent")?,
        received: number("received").context("ping did not say how many it received")?,
        average: average.map(|milliseconds| Duration::from_secs_f64(milliseconds / 1000.0)),
        too_big,
        output: text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let text = "3 packets transmitted, 2 received, 33% packet loss, time 401ms\n\
                    rtt min/avg/max/mdev = 0.055/0.062/0.068/0.005 ms\n";
        let report = parse(text).unwrap();
        assert_eq!((report.sent, report.received, report.too_big), (3, 2, None));
        assert_eq!(report.average, Some(Duration::from_micros(62)));
        for (line, mtu) in [
            ("ping: local error: message too long, mtu=1392", 1392),
            (
                "From 10.1.1.1 icmp_seq=1 Frag needed and DF set (mtu = 1168)",
                1168,
            ),
            ("From fd01:1:1::1 icmp_seq=1 Packet too big: mtu=1280", 1280),
        ] {
            let text = format!(
                "{line}\n1 packets transmitted, 0 received, +1 errors, 100% packet loss, time 0ms\n"
            );
            assert_eq!(parse(&text).unwrap().too_big, Some(mtu));
        }
        assert!(
            parse("ping: connect: Network is unreachable\n")
                .unwrap_err()
                .to_string()
                .contains("unreachable")
        );
    }
}
