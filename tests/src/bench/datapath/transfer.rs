//! `iperf3` over TCP with a number of streams, one way or both.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::IpAddr;
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::io::Netns;

/// Seconds beyond the planned ones after which a transfer has hung.
const PATIENCE: u32 = 15;
/// Where the server listens.
const PORT: &str = "5201";

/// One transfer to plan.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer<'a> {
    pub(super) from: &'a Netns,
    pub(super) to: &'a Netns,
    pub(super) address: IpAddr,
    pub(super) streams: u32,
    pub(super) seconds: u32,
    /// In both directions at once, as many streams each way.
    pub(super) both: bool,
    /// How its TCP finds its rate, as the routes have it.
    pub(super) congestion: &'a str,
}

/// What arrived, counted by the receiver, and what the sender sent again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Arrived {
    pub(super) bits_per_second: f64,
    pub(super) bytes: f64,
    pub(super) retransmits: u64,
}

impl Transfer<'_> {
    /// Runs it to its end.
    pub(super) fn run(&self) -> Result<Arrived> {
        let limit = (self.seconds + PATIENCE).to_string();
        // Kept until the client has ended: dropping it kills the server.
        let _server = Server::start(self.to)?;
        // It would wait for ever in a network that swallows everything.
        let mut client = self.from.command("timeout");
        client.args(["--foreground", &limit, "iperf3"]);
        client.args(["-c", &self.address.to_string(), "-p", PORT, "-J"]);
        client.args(["-t", &self.seconds.to_string(), "-P"]);
        client.args([&self.streams.to_string(), "--connect-timeout", "5000"]);
        if self.both {
            client.arg("--bidir");
        }
        let output = client.stdin(Stdio::null()).output();
        let output = output.context("failed to start iperf3")?;
        if output.stdout.is_empty() {
            bail!(
                "iperf3 to {} ended with {}: {}",
                self.address,
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let json = serde_json::from_slice(&output.stdout).context("iperf3 did not write JSON")?;
        parse(&json, self.congestion).with_context(|| format!("iperf3 to {}", self.address))
    }
}

/// A server for one transfer. Dropping it ends it.
#[derive(Debug)]
struct Server(Child);

impl Server {
    /// Starts it and waits until it says that it listens.
    fn start(netns: &Netns) -> Result<Self> {
        let mut command = netns.command("iperf3");
        command.args(["-s", "-1", "-p", PORT, "--forceflush"]);
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.stderr(Stdio::null()).spawn();
        let mut server = Self(child.context("failed to start iperf3")?);
        let pipe = server.0.stdout.take().context("iperf3 has no stdout")?;
        let mut pipe = BufReader::new(pipe);
        let mut said = String::new();
        while !said.contains("listening") {
            let read = pipe.read_line(&mut said);
            if read.context("failed to read from iperf3")? == 0 {
                bail!(
                    "iperf3 does not listen in {}: {}",
                    netns.name(),
                    said.trim()
                );
            }
        }
        // What it writes later must go somewhere, or it stops when the pipe is full.
        std::thread::spawn(move || pipe.read_to_end(&mut Vec::new()));
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn parse(json: &Value, congestion: &str) -> Result<Arrived> {
    if let Some(error) = json.get("error").and_then(Value::as_str) {
        bail!("{error}");
    }
    let used = json.pointer("/end/sender_tcp_congestion");
    if used.and_then(Value::as_str) != Some(congestion) {
        bail!("TCP found its rate by {used:?}, not by {congestion}: is the kernel module there?");
    }
    let figure = |path: &str| {
        json.pointer(path)
            .and_then(Value::as_f64)
            .with_context(|| format!("the report has no {path}"))
    };
    let retransmits = json.pointer("/end/sum_sent/retransmits");
    let arrived = Arrived {
        bits_per_second: figure("/end/sum_received/bits_per_second")?,
        bytes: figure("/end/sum_received/bytes")?,
        retransmits: retransmits
            .and_then(Value::as_u64)
            .context("the report has no retransmits")?,
    };
    if arrived.bytes <= 0.0 {
        bail!("nothing arrived");
    }
    if json.pointer("/end/sum_received_bidir_reverse").is_none() {
        return Ok(arrived);
    }
    // The way back has sums of its own.
    let back = json.pointer("/end/sum_sent_bidir_reverse/retransmits");
    Ok(Arrived {
        bits_per_second: arrived.bits_per_second
            + figure("/end/sum_received_bidir_reverse/bits_per_second")?,
        bytes: arrived.bytes + figure("/end/sum_received_bidir_reverse/bytes")?,
        retransmits: arrived.retransmits + back.and_then(Value::as_u64).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_receiver_counts_and_the_sender_repeats() {
        let report = json!({"end": {
            "sender_tcp_congestion": "cubic",
            "sum_sent": {"bytes": 600, "bits_per_second": 2400.0, "retransmits": 3},
            "sum_received": {"bytes": 500, "bits_per_second": 2000.0},
        }});
        let arrived = parse(&report, "cubic").unwrap();
        assert_eq!(
            arrived,
            Arrived {
                bits_per_second: 2000.0,
                bytes: 500.0,
                retransmits: 3
            }
        );
        assert!(parse(&report, "bbr").is_err(), "found its rate by CUBIC");
    }

    #[test]
    fn both_directions_are_added() {
        let report = json!({"end": {
            "sender_tcp_congestion": "cubic",
            "sum_sent": {"retransmits": 3},
            "sum_received": {"bytes": 500, "bits_per_second": 2000.0},
            "sum_sent_bidir_reverse": {"retransmits": 4},
            "sum_received_bidir_reverse": {"bytes": 250, "bits_per_second": 1000.0},
        }});
        let arrived = parse(&report, "cubic").unwrap();
        let wanted = Arrived {
            bits_per_second: 3000.0,
            bytes: 750.0,
            retransmits: 7,
        };
        assert_eq!(arrived, wanted);
    }

    #[test]
    fn what_is_missing_is_an_error_and_no_zero() {
        let refused = parse(&json!({"error": "unable to connect"}), "cubic");
        assert_eq!(refused.unwrap_err().to_string(), "unable to connect");
        let sums = |received: Value, sent: Value| json!({"end": {"sender_tcp_congestion": "cubic", "sum_received": received, "sum_sent": sent}});
        let received = json!({"bytes": 500, "bits_per_second": 2000.0});
        assert!(parse(&sums(received, json!({})), "cubic").is_err());
        assert!(
            parse(
                &sums(json!({"bytes": 500}), json!({"retransmits": 0})),
                "cubic"
            )
            .is_err()
        );
        let nothing = json!({"bytes": 0, "bits_per_second": 0.0});
        assert!(parse(&sums(nothing, json!({"retransmits": 0})), "cubic").is_err());
    }
}
