//! `iperf3` between two namespaces.

use std::io::Read as _;
use std::net::IpAddr;
use std::process::{Child, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::io::Netns;
use crate::lab::wait_until;

/// What `iperf3 --repeating-payload` fills its packets with; sniffers look for it.
pub const IPERF_PATTERN: &[u8] = b"0123456789";

/// How long a server may take to listen, and a client to end after its time.
const PATIENCE: Duration = Duration::from_secs(15);

/// A measurement that has not begun.
#[derive(Clone, Debug)]
pub struct Iperf {
    to: IpAddr,
    seconds: u32,
    port: u16,
    udp: Option<u64>,
    streams: u32,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct IperfReport {
    /// What the receiver got, in bits per second.
    pub bits_per_second: f64,
    /// TCP segments that were sent again; for UDP, packets lost.
    pub retransmits: u64,
    /// How long it took.
    pub seconds: f64,
    /// Everything that `iperf3` says.
    pub json: Value,
}

impl Iperf {
    /// TCP to `to` for some seconds.
    #[must_use]
    pub const fn new(to: IpAddr, seconds: u32) -> Self {
        Self {
            to,
            seconds,
            port: 5201,
            udp: None,
            streams: 1,
        }
    }

    /// Another port than 5201.
    #[must_use]
    pub const fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// So many connections at once.
    #[must_use]
    pub const fn streams(mut self, streams: u32) -> Self {
        self.streams = streams;
        self
    }

    /// UDP at a given rate in place of TCP.
    #[must_use]
    pub const fn udp(mut self, bits_per_second: u64) -> Self {
        self.udp = Some(bits_per_second);
        self
    }

    /// Starts the server, waits until it listens, and starts the client.
    ///
    /// # Errors
    /// When `iperf3` is missing or its port is taken.
    pub fn start(&self, server: &Netns, client: &Netns) -> Result<IperfRun> {
        let mut command = server.command("iperf3");
        command.args(["-s", "-1", "-p", &self.port.to_string()]);
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server_child = command.spawn().context("failed to start iperf3")?;
        let mut run = IperfRun {
            server: server_child,
            client: None,
            output: None,
            seconds: self.seconds,
        };
        wait_until(
            &format!("iperf3 listens in {}", server.name()),
            PATIENCE,
            || {
                if let Some(status) = run.server.try_wait().context("failed to look at iperf3")? {
                    bail!("iperf3 ended with {status}");
                }
                server.run(|| is_listening(self.port))?
            },
        )?;

        let mut command = client.command("iperf3");
        command.args([
            "-c",
            &self.to.to_string(),
            "-p",
            &self.port.to_string(),
            "-t",
            &self.seconds.to_string(),
        ]);
        command.args(["-J", "--repeating-payload", "--connect-timeout", "5000"]);
        if self.streams > 1 {
            command.args(["-P", &self.streams.to_string()]);
        }
        if let Some(rate) = self.udp {
            command.args(["-u", "-b", &rate.to_string()]);
        }
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("failed to start iperf3")?;
        // Read as it comes, or a long report fills the pipe and iperf3 never ends.
        let mut pipe = child.stdout.take().context("iperf3 has no stdout")?;
        run.output = Some(thread::spawn(move || {
            let mut text = Vec::new();
            pipe.read_to_end(&mut text).map(|_| text)
        }));
        run.client = Some(child);
        Ok(run)
    }
}

/// A measurement under way. Dropping it ends it.
#[derive(Debug)]
pub struct IperfRun {
    server: Child,
    client: Option<Child>,
    output: Option<JoinHandle<std::io::Result<Vec<u8>>>>,
    seconds: u32,
}

impl IperfRun {
    /// Whether it still sends.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.client
            .as_mut()
            .is_some_and(|client| matches!(client.try_wait(), Ok(None)))
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When the client cannot connect, or does not end in time.
    pub fn finish(mut self) -> Result<IperfReport> {
        let mut client = self.client.take().context("iperf3 has no client")?;
        let patience = Duration::from_secs(self.seconds.into()) + PATIENCE;
        let ended = wait_until("iperf3 ends", patience, || Ok(client.try_wait()?.is_some()));
        if ended.is_err() {
            client.kill().ok();
            client.wait().ok();
        }
        ended?;
        let output = self.output.take().context("iperf3 has no output")?;
        let output = output
            .join()
            .map_err(|_| anyhow::anyhow!("the reader of iperf3 died"))?;
        let output = output.context("failed to read from iperf3")?;
        let json: Value = serde_json::from_slice(&output).context("iperf3 did not write JSON")?;
        if let Some(error) = json.get("error").and_then(Value::as_str) {
            bail!("iperf3: {error}");
        }
        let figure = |path: &str| json.pointer(path).and_then(Value::as_f64);
        let count = |path: &str| json.pointer(path).and_then(Value::as_u64);
        let rate = figure("/end/sum_received/bits_per_second")
            .or_else(|| figure("/end/sum/bits_per_second"));
        Ok(IperfReport {
            bits_per_second: rate.context("iperf3 gave no rate")?,
            retransmits: count("/end/sum_sent/retransmits")
                .or_else(|| count("/end/sum/lost_packets"))
                .unwrap_or(0),
            seconds: figure("/end/sum_received/seconds")
                .or_else(|| figure("/end/sum/seconds"))
                .unwrap_or_default(),
            json,
        })
    }
}

impl Drop for IperfRun {
    fn drop(&mut self) {
        for child in self.client.iter_mut().chain([&mut self.server]) {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Whether a TCP port is open in the namespace of the calling thread.
fn is_listening(port: u16) -> Result<bool> {
    let suffix = format!(":{port:04X}");
    for table in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/thread-self/net/{table}"))
            .context("failed to read sockets")?;
        let open = text.lines().skip(1).any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.get(1).is_some_and(|local| local.ends_with(&suffix))
                && words.get(3) == Some(&"0A")
        });
        if open {
            return Ok(true);
        }
    }
    Ok(false)
}
