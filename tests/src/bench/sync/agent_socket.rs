//! The agent's own socket: what it knows of each origin, and what it hears as it hears it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hawser_mesh::record::{Key, Version};
use hawser_tunnel::node::ClusterId;
use serde_json::{Value, json};

use super::far::Written;

/// Where the agent listens.
#[derive(Clone, Debug)]
pub(super) struct AgentSocket {
    path: PathBuf,
}

/// What the agent says of itself.
#[derive(Clone, Debug)]
pub(super) struct Status(Value);

/// Events as they come. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Watch {
    stream: UnixStream,
    thread: Option<JoinHandle<()>>,
    events: Mutex<Events>,
}

#[derive(Debug)]
struct Events {
    from: Receiver<Result<Event>>,
    /// When an endpoint was last heard of, of those that nobody has asked for.
    seen: BTreeMap<Name, Instant>,
}

/// A record: whose, and its key as text.
type Name = (u64, String);
type Event = (Name, Instant);

impl AgentSocket {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Asks for its status.
    pub(super) fn status(&self) -> Result<Status> {
        let mut lines = BufReader::new(self.ask(&json!({ "status": {} }))?).lines();
        let line = lines.next().context("the agent does not answer")??;
        Ok(Status(serde_json::from_str(&line)?))
    }

    /// Every event of endpoints of services from now on.
    pub(super) fn watch(&self) -> Result<Watch> {
        let stream = self.ask(&json!({ "watch": { "prefixes": ["endpoint:s"] } }))?;
        let own = stream.try_clone().context("failed to share a socket")?;
        let (to, from) = mpsc::channel();
        let mut lines = BufReader::new(own).lines();
        let thread = thread::Builder::new().name("watch".into()).spawn(move || {
            for line in lines.by_ref().map_while(Result::ok) {
                let at = Instant::now();
                if to.send(event(&line, at)).is_err() {
                    break;
                }
            }
        });
        Ok(Watch {
            stream,
            thread: Some(thread.context("failed to start a thread")?),
            events: Mutex::new(Events {
                from,
                seen: BTreeMap::new(),
            }),
        })
    }

    fn ask(&self, request: &Value) -> Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.path)
            .with_context(|| format!("failed to connect to {}", self.path.display()))?;
        writeln!(stream, "{request}").context("failed to ask the agent")?;
        Ok(stream)
    }
}

fn event(line: &str, at: Instant) -> Result<Event> {
    let value: Value = serde_json::from_str(line)?;
    bail!("{value} {at:?}");
}

impl Status {
    /// Whether it has all these origins in whole, at these versions or later ones.
    pub(super) fn has(&self, wanted: &BTreeMap<ClusterId, Version>) -> bool {
        wanted.is_empty() && self.0.is_null()
    }

    /// Whether it follows the hub that listens there.
    pub(super) fn follows(&self, hub: SocketAddr) -> bool {
        self.0 == hub.to_string()
    }
}

impl Watch {
    /// Waits until each key of a change was told, and says when the last was.
    pub(super) fn wait_for(&self, written: &Written, patience: Duration) -> Result<Instant> {
        let mut last = written.at;
        for key in &written.keys {
            last = last.max(self.wait_for_key(written.origin, key, patience)?);
        }
        Ok(last)
    }

    fn wait_for_key(&self, origin: ClusterId, key: &Key, patience: Duration) -> Result<Instant> {
        let name: Name = (u16::from(origin).into(), key.to_string());
        let end = Instant::now() + patience;
        let mut events = self.events.lock().ok().context("a thread died")?;
        loop {
            if let Some(at) = events.seen.remove(&name) {
                return Ok(at);
            }
            match events
                .from
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(event) => {
                    let (name, at) = event?;
                    events.seen.insert(name, at);
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{key} of cluster {origin:?} was not told within {patience:?}")
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the agent has gone"),
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Both).ok();
        self.thread.take().map(JoinHandle::join);
    }
}
