//! Many TCP connections that are mostly idle, with an account of every one that broke.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use serde::Serialize;

use crate::lab::{Family, Lab, Pair, wait_until};

/// Every server listens here.
const PORT: u16 = 7008;
/// Connection, number of the request, and the canary twice.
const REQUEST: usize = 48;
/// The longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// The longest wait for the last answers.
const DRAIN: Duration = Duration::from_secs(5);
/// Marks the events of the serving end of a connection.
const SERVER: u64 = 1 << 32;

/// What became of the connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionsReport {
    /// Connections that were opened.
    pub connections: usize,
    /// Those that an error ended.
    pub resets: usize,
    /// Those that the other side closed.
    pub closed: usize,
    /// Requests that were sent.
    pub requests: u64,
    /// Right answers to them.
    pub answers: u64,
    /// Answers that differ from what was asked.
    pub wrong: u64,
    /// The longest wait for an answer.
    pub longest_answer: Duration,
}

impl ConnectionsReport {
    /// Fails unless every connection lives and every request was answered.
    ///
    /// # Errors
    /// One line with the numbers.
    pub fn check(&self) -> Result<()> {
        if self.requests == 0
            || self.resets + self.closed > 0
            || self.wrong > 0
            || self.answers < self.requests
        {
            bail!("connections: not every one lives and was answered: {self:?}");
        }
        Ok(())
    }
}

/// Connections that live. Dropping them closes them without an account.
#[derive(Debug)]
pub struct Connections {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<ConnectionsReport>>,
}

#[derive(Debug, Default)]
struct Shared {
    draining: AtomicBool,
    stop: AtomicBool,
    requests: AtomicU64,
    answers: AtomicU64,
}

/// The asking end.
struct Client {
    stream: TcpStream,
    due: Instant,
    sequence: u64,
    asked: Option<Instant>,
    got: Vec<u8>,
    broken: bool,
}

struct Crowd {
    clients: Vec<Client>,
    listeners: Vec<TcpListener>,
    servers: Vec<Option<TcpStream>>,
    every: Duration,
    canary: [u8; 16],
    epoll: Epoll,
    shared: Arc<Shared>,
    report: ConnectionsReport,
}

impl Connections {
    /// Opens `count` connections, spread over the pairs; each asks once in `every` and is answered.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub fn open(lab: &Lab, pairs: &[Pair], count: usize, every: Duration) -> Result<Self> {
        if pairs.is_empty() || count == 0 {
            bail!("connections: needs pairs and a count above 0");
        }
        let epoll =
            Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("failed to make an epoll")?;
        let mut listeners: BTreeMap<(&str, Family), TcpListener> = BTreeMap::new();
        let mut clients = Vec::new();
        let start = Instant::now();
        for (number, Pair { from, to, family }) in (0..count).zip(pairs.iter().cycle()) {
            let address: IpAddr = lab.pod(to).address(*family).context("no such address")?;
            let address = SocketAddr::new(address, PORT);
            if !listeners.contains_key(&(to.as_str(), *family)) {
                let listener = lab.pod(to).netns().run(|| TcpListener::bind(address))?;
                let listener =
                    listener.with_context(|| format!("failed to listen on {address}"))?;
                listener.set_nonblocking(true)?;
                listeners.insert((to, *family), listener);
            }
            let netns = lab.pod(from).netns();
            let stream = netns.run(|| TcpStream::connect_timeout(&address, CONNECT))?;
            let stream =
                stream.with_context(|| format!("{from} could not connect to {address}"))?;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let number = u64::try_from(number)?;
            epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, number))?;
            // Spread over the interval, not all at once.
            let share = every.mul_f64(number as f64 / count as f64);
            clients.push(Client {
                stream,
                due: start + share,
                sequence: 0,
                asked: None,
                got: Vec::new(),
                broken: false,
            });
        }
        let shared = Arc::new(Shared::default());
        let crowd = Crowd {
            report: ConnectionsReport {
                connections: clients.len(),
                ..ConnectionsReport::default()
            },
            clients,
            listeners: listeners.into_values().collect(),
            servers: Vec::new(),
            every,
            canary: lab.canary(),
            epoll,
            shared: Arc::clone(&shared),
        };
        let thread = thread::Builder::new().name("connections".into());
        Ok(Self {
            shared,
            thread: Some(thread.spawn(move || crowd.run())?),
        })
    }

    /// Requests that were answered so far.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.shared.answers.load(Ordering::Relaxed)
    }

    /// Stops asking, waits for the last answers, and accounts for every connection.
    ///
    /// # Errors
    /// When the thread died.
    pub fn close(mut self) -> Result<ConnectionsReport> {
        self.shared.draining.store(true, Ordering::Relaxed);
        let asked = || self.shared.requests.load(Ordering::Relaxed);
        // What is not answered by then shows in the report.
        wait_until("all answers", DRAIN, || Ok(self.answers() >= asked())).ok();
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self
            .thread
            .take()
            .context("the connections have no thread")?;
        thread
            .join()
            .map_err(|_| anyhow!("the thread of the connections died"))
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

impl Crowd {
    fn run(mut self) -> ConnectionsReport {
        let mut events = [EpollEvent::empty(); 64];
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.accept();
            if !self.shared.draining.load(Ordering::Relaxed) {
                self.ask();
            }
            let ready = self.epoll.wait(&mut events, EpollTimeout::from(2_u8));
            for event in &events[..ready.unwrap_or_default()] {
                let index = usize::try_from(event.data() & (SERVER - 1)).unwrap_or(usize::MAX);
                if event.data() & SERVER != 0 {
                    self.echo(index);
                } else {
                    self.read(index);
                }
            }
        }
        self.report.requests = self.shared.requests.load(Ordering::Relaxed);
        self.report.answers = self.shared.answers.load(Ordering::Relaxed);
        self.report
    }

    fn accept(&mut self) {
        for listener in &self.listeners {
            while let Ok((stream, _)) = listener.accept() {
                let token = SERVER | u64::try_from(self.servers.len()).unwrap_or_default();
                let watched = stream.set_nonblocking(true).is_ok()
                    && stream.set_nodelay(true).is_ok()
                    && self
                        .epoll
                        .add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, token))
                        .is_ok();
                // One that cannot be watched is dropped, which its client sees.
                self.servers.push(watched.then_some(stream));
            }
        }
    }

    fn echo(&mut self, index: usize) {
        let Some(slot) = self.servers.get_mut(index) else {
            return;
        };
        let Some(stream) = slot else {
            return;
        };
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer) {
                // A few bytes on an idle connection always fit; if not, the client sees the end.
                Ok(length) if length > 0 && stream.write_all(&buffer[..length]).is_ok() => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
        *slot = None;
    }

    fn request(&self, index: usize, sequence: u64) -> Vec<u8> {
        let number = u64::try_from(index).unwrap_or_default();
        [
            &number.to_be_bytes()[..],
            &sequence.to_be_bytes(),
            &self.canary,
            &self.canary,
        ]
        .concat()
        .into_iter()
        .take(REQUEST)
        .collect()
    }

    fn ask(&mut self) {
        let now = Instant::now();
        for index in 0..self.clients.len() {
            let client = &self.clients[index];
            if client.broken || client.asked.is_some() || client.due > now {
                continue;
            }
            let request = self.request(index, client.sequence + 1);
            let client = &mut self.clients[index];
            client.sequence += 1;
            client.due = now + self.every;
            client.asked = Some(now);
            self.shared.requests.fetch_add(1, Ordering::Relaxed);
            if client.stream.write_all(&request).is_err() {
                client.broken = true;
                self.report.resets += 1;
            }
        }
    }

    fn read(&mut self, index: usize) {
        let mut buffer = [0; 4096];
        loop {
            let client = &mut self.clients[index];
            match client.stream.read(&mut buffer) {
                Ok(0) => {
                    self.report.closed += usize::from(!client.broken);
                    break;
                }
                Ok(length) => client.got.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.judge(index),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.report.resets += usize::from(!client.broken);
                    break;
                }
            }
        }
        let client = &mut self.clients[index];
        client.broken = true;
        // It would be readable for ever.
        let _ = self.epoll.delete(&client.stream);
    }

    fn judge(&mut self, index: usize) {
        let expected = self.request(index, self.clients[index].sequence);
        let client = &mut self.clients[index];
        if client.got.len() < REQUEST {
            return;
        }
        let right = client.got == expected;
        client.got.clear();
        let Some(asked) = client.asked.take().filter(|_| right) else {
            self.report.wrong += 1;
            return;
        };
        self.report.longest_answer = self.report.longest_answer.max(asked.elapsed());
        self.shared.answers.fetch_add(1, Ordering::Relaxed);
    }
}
