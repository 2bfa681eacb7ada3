//! TCP writes of given sizes, one after the other, both ways at once.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::socket::{setsockopt, sockopt};

use super::{Stream, address};
use crate::lab::{Family, Lab};

/// How long one write may be under way.
const PATIENCE: Duration = Duration::from_secs(10);
/// Two writes fit, so that neither end waits for the other while it writes.
const BUFFER: usize = 1 << 20;

/// One connection without delays (`TCP_NODELAY`); for each size both ends write that much at once, and then read it, so
/// each write goes as packets of its own.
#[derive(Clone, Copy, Debug)]
pub struct Writes<'a> {
    /// Where.
    pub lab: &'a Lab,
    /// The pod that connects.
    pub from: &'a str,
    /// The pod that listens.
    pub to: &'a str,
    /// By which family.
    pub family: Family,
    /// Bytes of each write.
    pub sizes: &'a [usize],
    /// What the bytes follow from.
    pub seed: u64,
}

/// What came of them; all of it right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WritesReport {
    /// Writes of each end.
    pub writes: usize,
    /// Half of them were exchanged in less.
    pub median: Duration,
    /// The slowest exchange.
    pub longest: Duration,
}

impl Writes<'_> {
    /// Does them all.
    ///
    /// # Errors
    /// Names the write and the byte that is wrong.
    pub fn run(&self) -> Result<WritesReport> {
        let (from, to) = (self.lab.pod(self.from), self.lab.pod(self.to));
        let at = SocketAddr::new(address(to, self.family)?, 0);
        let listener = to.netns().run(|| TcpListener::bind(at))?;
        let listener = listener.with_context(|| format!("failed to listen on {at}"))?;
        let at = listener.local_addr()?;
        let client = from
            .netns()
            .run(|| TcpStream::connect_timeout(&at, PATIENCE))?;
        let client = client.with_context(|| format!("failed to connect to {at}"))?;
        let (server, _) = listener.accept()?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            setsockopt(stream, sockopt::SndBufForce, &BUFFER)?;
            setsockopt(stream, sockopt::RcvBufForce, &BUFFER)?;
        }
        let (client, server) = thread::scope(|scope| {
            let client = scope.spawn(|| self.end(&client, [0, 1]));
            let server = self.end(&server, [1, 0]);
            (client.join(), server)
        });
        // The end that found the mistake says more than the one that it hung up on.
        let client = client.map_err(|_| anyhow!("a thread died"))?;
        let (mut times, _) = match (client, server) {
            (Ok(client), Ok(server)) => (client, server),
            (Err(one), Err(other)) => bail!("{one:#}; the other end: {other:#}"),
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        times.sort_unstable();
        Ok(WritesReport {
            writes: times.len(),
            median: times.get(times.len() / 2).copied().unwrap_or_default(),
            longest: times.last().copied().unwrap_or_default(),
        })
    }

    fn end(&self, mut stream: &TcpStream, [sends, gets]: [u64; 2]) -> Result<Vec<Duration>> {
        let (mut out, mut back) = (Stream::new(self.seed, sends), Stream::new(self.seed, gets));
        let mut buffer = vec![0; self.sizes.iter().copied().max().unwrap_or_default()];
        let exchange = |(number, size): (usize, &usize)| -> Result<Duration> {
            let what = || {
                let Self { from, to, seed, .. } = self;
                format!("seed {seed}, {from} to {to}, write {number} of {size} bytes")
            };
            let buffer = &mut buffer[..*size];
            out.fill(buffer);
            let begin = Instant::now();
            stream.write_all(buffer).with_context(what)?;
            stream.read_exact(buffer).with_context(what)?;
            let took = begin.elapsed();
            match back.differs(buffer) {
                None => Ok(took),
                Some(at) => Err(anyhow!("byte {at} is wrong").context(what())),
            }
        };
        let times = self.sizes.iter().enumerate().map(exchange).collect();
        // The other end need not wait for what does not come.
        stream.shutdown(Shutdown::Write)?;
        times
    }
}
