//! Whole TCP connections, both ways at once, with a SHA-256 of what each end sent and got.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use sha2::{Digest as _, Sha256};

use super::{Stream, address};
use crate::lab::{Family, Lab};
use crate::leak::Chance;

/// Bytes that are read or written at once at most.
const PIECE: usize = 128 << 10;

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Its number: with the seed, what its bytes follow from.
    pub number: u64,
    /// The pod that connects.
    pub from: String,
    /// The pod that listens.
    pub to: String,
    /// By which family.
    pub family: Family,
    /// Bytes that the pod which connects sends.
    pub there: u64,
    /// Bytes that it gets.
    pub back: u64,
}

/// What came of them; all of it right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowsReport {
    /// Connections.
    pub flows: usize,
    /// Bytes that arrived.
    pub bytes: u64,
    /// From the first connection's begin to the last one's end.
    pub took: Duration,
}

/// What one end sent and got.
#[derive(Debug, PartialEq, Eq)]
struct Account {
    sent: [u8; 32],
    got: [u8; 32],
}

impl Flow {
    /// So many connections between all pods of different nodes, in both families. Lengths are spread over all orders of
    /// magnitude from 1 byte to `longest`, and both ends of that are among them.
    #[must_use]
    pub fn many(lab: &Lab, count: u64, longest: u64, chance: &mut Chance) -> Vec<Self> {
        let pairs = lab.cross_pairs(None);
        let mut length = |number: u64| match number {
            0 => longest,
            1 => 1,
            _ => {
                let bits = u64::from(64 - longest.leading_zeros());
                let below = 1_u64 << (1 + chance.below(bits));
                1 + chance.below(below.min(longest))
            }
        };
        let flow = |(number, pair): (u64, &crate::lab::Pair)| Self {
            number,
            from: pair.from.clone(),
            to: pair.to.clone(),
            family: pair.family,
            there: length(number),
            back: length((number + 2) % count),
        };
        (0..count).zip(pairs.iter().cycle()).map(flow).collect()
    }

    fn run(&self, lab: &Lab, seed: u64, patience: Duration) -> Result<()> {
        let (from, to) = (lab.pod(&self.from).netns(), lab.pod(&self.to));
        let at = SocketAddr::new(address(to, self.family)?, 0);
        let listener = to.netns().run(|| TcpListener::bind(at))?;
        let listener = listener.with_context(|| format!("failed to listen on {at}"))?;
        let at = listener.local_addr()?;
        let client = from.run(|| TcpStream::connect_timeout(&at, patience))?;
        let client = client.with_context(|| format!("failed to connect to {at}"))?;
        let (server, _) = listener.accept()?;
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
        }
        let there = (self.number * 2, self.there);
        let back = (self.number * 2 + 1, self.back);
        let (client, server) = thread::scope(|scope| {
            let client = scope.spawn(|| end(&client, seed, there, back));
            let server = end(&server, seed, back, there).context("the pod that listens");
            let client = client.join().map_err(|_| anyhow!("a thread died"));
            let client = client.and_then(|client| client.context("the pod that connects"));
            (client, server)
        });
        // Whoever found a mistake says more than whoever was hung up on.
        let (client, server) = match (client, server) {
            (Ok(client), Ok(server)) => (client, server),
            (Err(one), Err(other)) => bail!("{one:#}; {other:#}"),
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        ensure!(
            client.sent == server.got && server.sent == client.got,
            "SHA-256 differs: {client:02x?} {server:02x?}"
        );
        Ok(())
    }
}

/// Runs them all at once.
///
/// # Errors
/// Names the flow and the first byte that is wrong, or what is missing.
pub fn run_flows(lab: &Lab, flows: &[Flow], seed: u64, patience: Duration) -> Result<FlowsReport> {
    let begin = Instant::now();
    thread::scope(|scope| {
        let running = flows.iter().map(|flow| {
            let thread = scope.spawn(move || flow.run(lab, seed, patience));
            (flow, thread)
        });
        // All are started before the first is waited for.
        let running: Vec<_> = running.collect();
        let ended = running.into_iter().map(|(flow, thread)| {
            let outcome = thread.join().map_err(|_| anyhow!("a thread died"));
            let outcome = outcome.and_then(|outcome| outcome);
            outcome.with_context(|| format!("seed {seed}, {flow:?}"))
        });
        // And all are waited for before the first that failed is told.
        let ended: Vec<Result<()>> = ended.collect();
        ended.into_iter().collect::<Result<()>>()
    })?;
    Ok(FlowsReport {
        flows: flows.len(),
        bytes: flows.iter().map(|flow| flow.there + flow.back).sum(),
        took: begin.elapsed(),
    })
}

/// Sends one run of bytes while it gets the other.
fn end(stream: &TcpStream, seed: u64, sends: (u64, u64), gets: (u64, u64)) -> Result<Account> {
    thread::scope(|scope| {
        let sender = scope.spawn(|| send(stream, seed, sends));
        let got = receive(stream, seed, gets);
        if got.is_err() {
            // Neither end need wait for what does not come. It may be closed already.
            stream.shutdown(Shutdown::Both).ok();
        }
        let sent = sender.join().map_err(|_| anyhow!("a thread died"))?;
        Ok(Account {
            got: got?,
            sent: sent?,
        })
    })
}

fn send(mut stream: &TcpStream, seed: u64, (number, length): (u64, u64)) -> Result<[u8; 32]> {
    let (mut bytes, mut digest) = (Stream::new(seed, number), Sha256::new());
    let mut chance = Chance::new(seed ^ number);
    let (mut buffer, mut left) = (vec![0; PIECE], length);
    while left > 0 {
        // Small writes, some of a few packets, and long ones.
        let most = [100, 5_000, PIECE as u64, PIECE as u64];
        let kind = usize::try_from(chance.below(4))?;
        let piece = (1 + chance.below(most[kind])).min(left);
        let piece = &mut buffer[..usize::try_from(piece)?];
        bytes.fill(piece);
        digest.update(&*piece);
        let sent = length - left;
        let failed = || format!("failed to send after {sent} of {length} bytes");
        stream.write_all(piece).with_context(failed)?;
        left -= piece.len() as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(digest.finalize().into())
}

fn receive(mut stream: &TcpStream, seed: u64, (number, length): (u64, u64)) -> Result<[u8; 32]> {
    let (mut bytes, mut digest) = (Stream::new(seed, number), Sha256::new());
    let (mut buffer, mut got) = (vec![0; PIECE], 0);
    loop {
        let failed = || format!("failed to receive after {got} of {length} bytes");
        let piece = stream.read(&mut buffer).with_context(failed)?;
        let piece = &buffer[..piece];
        if let Some(at) = bytes.differs(piece) {
            let whole = got + at as u64;
            let shown = &piece[at..piece.len().min(at + 16)];
            return Err(anyhow!("byte {whole} of {length} is wrong: {shown:02x?}"));
        }
        digest.update(piece);
        got += piece.len() as u64;
        ensure!(got <= length, "{got} bytes and not {length}");
        if piece.is_empty() {
            ensure!(got == length, "the end after {got} of {length} bytes");
            return Ok(digest.finalize().into());
        }
    }
}
