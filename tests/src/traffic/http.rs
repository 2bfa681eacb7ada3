//! A small web server and one fetch from it. `curl` understands it too.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::echo::{accept_all, connect, listen};
use crate::io::Netns;

/// The longest head of a request or an answer, in bytes.
const HEAD: u64 = 16_384;
/// The longest answer that is read, in bytes.
const BODY: u64 = 256 << 20;

/// Answers every GET with one body. Ends when dropped.
#[derive(Debug)]
pub struct HttpServer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl HttpServer {
    /// Starts a server inside `netns`, IPv4 and IPv6.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(netns: &Netns, port: u16, body: Vec<u8>) -> Result<Self> {
        let body = Arc::new(body);
        let mut server = Self {
            stop: Arc::default(),
            threads: Vec::new(),
        };
        for address in [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ] {
            let listener = listen(netns, SocketAddr::new(address, port))?;
            let (stop, body) = (Arc::clone(&server.stop), Arc::clone(&body));
            server.threads.push(thread::spawn(move || {
                accept_all(&listener, &stop, |stream, _| {
                    let body = Arc::clone(&body);
                    thread::spawn(move || answer(stream, &body).ok());
                });
            }));
        }
        Ok(server)
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// 200 when all is well.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
    /// From the start of the connection to its end.
    pub took: Duration,
}

/// Fetches `path` from inside `netns`.
///
/// # Errors
/// No connection within `timeout`, or an answer that is not HTTP or shorter than it says.
pub fn fetch(netns: &Netns, to: SocketAddr, path: &str, timeout: Duration) -> Result<Response> {
    let start = Instant::now();
    let mut stream = connect(netns, None, to, timeout)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .with_context(|| format!("failed to ask {to}"))?;
    let mut reader = BufReader::new(stream);
    let head = read_head(&mut reader).with_context(|| format!("no HTTP answer from {to}"))?;
    let status = head
        .first()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|word| word.parse().ok());
    let status: u16 = status.with_context(|| format!("no HTTP status from {to}"))?;
    let length = head.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") {
            value.trim().parse::<usize>().ok()
        } else {
            None
        }
    });
    let mut body = Vec::new();
    reader
        .take(BODY)
        .read_to_end(&mut body)
        .with_context(|| format!("the answer of {to} broke off"))?;
    if let Some(length) = length.filter(|length| *length != body.len()) {
        bail!(
            "the answer of {to} has {} bytes and should have {length}",
            body.len()
        );
    }
    Ok(Response {
        status,
        body,
        took: start.elapsed(),
    })
}

fn answer(mut stream: TcpStream, body: &[u8]) -> Result<()> {
    let head = read_head(&mut BufReader::new(&stream))?;
    let method = head
        .first()
        .and_then(|line| line.split(' ').next())
        .unwrap_or_default();
    let (status, body) = match method {
        "GET" => ("200 OK", body),
        _ => ("405 Method Not Allowed", &b"only GET\n"[..]),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream
        .write_all(head.as_bytes())
        .context("failed to answer")?;
    stream.write_all(body).context("failed to answer")
}

/// Lines up to the empty one.
fn read_head(reader: &mut impl std::io::BufRead) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for line in reader.take(HEAD).lines() {
        let line = line.context("the connection broke off")?;
        if line.is_empty() {
            return Ok(lines);
        }
        lines.push(line);
    }
    bail!("no end of the head")
}
