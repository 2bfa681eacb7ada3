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

use anyhow::{Context as _, Result, bail};
use hawser_mesh::agent_socket::{Request, Response, StatusReply, WatchLine};
use hawser_mesh::record::{Key, Version};
use hawser_tunnel::node::ClusterId;

use super::far::Written;
use super::population::NAMESPACE;

/// Endpoints of services, as the agent is asked for them.
const ENDPOINTS: &str = "endpoint:s";

/// Where the agent listens.
#[derive(Clone, Debug)]
pub(super) struct AgentSocket {
    path: PathBuf,
}

/// What the agent says of itself.
#[derive(Clone, Debug)]
pub(super) struct Status(Box<StatusReply>);

/// Events as they come. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Watch {
    stream: UnixStream,
    thread: Option<JoinHandle<()>>,
    events: Mutex<Events>,
}

#[derive(Debug)]
struct Events {
    /// Lines, and when each came.
    from: Receiver<(String, Instant)>,
    /// When an endpoint was last heard of, of those that nobody has asked for.
    seen: BTreeMap<Name, Instant>,
}

/// A record: whose, and its key as text.
type Name = (ClusterId, String);

impl AgentSocket {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Asks for its status.
    pub(super) fn status(&self) -> Result<Status> {
        let mut lines = BufReader::new(self.ask(&Request::Status { digest: false })?).lines();
        match answer(&mut lines)? {
            Response::Status(status) => Ok(Status(status)),
            other @ (Response::Watching
            | Response::Renewing { .. }
            | Response::TooSlow
            | Response::Refused { .. }) => {
                bail!("asked the agent for its status, got {other:?}")
            }
        }
    }

    /// Every event of endpoints of services from now on, those of a flood left out.
    pub(super) fn watch(&self) -> Result<Watch> {
        let stream = self.ask(&Request::Watch {
            prefixes: vec![format!("{ENDPOINTS}{NAMESPACE}")],
            values: false,
        })?;
        let own = stream.try_clone().context("failed to share a socket")?;
        let mut lines = BufReader::new(own).lines();
        match answer(&mut lines)? {
            Response::Watching => (),
            other @ (Response::Status(_)
            | Response::Renewing { .. }
            | Response::TooSlow
            | Response::Refused { .. }) => {
                bail!("asked the agent to tell of endpoints, got {other:?}")
            }
        }
        let (to, from) = mpsc::channel();
        let thread = thread::Builder::new().name("watch".into()).spawn(move || {
            for line in lines.map_while(Result::ok) {
                let at = Instant::now();
                if to.send((line, at)).is_err() {
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

    fn ask(&self, request: &Request) -> Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.path)
            .with_context(|| format!("failed to connect to {}", self.path.display()))?;
        let request = serde_json::to_string(request).context("failed to write a request")?;
        writeln!(stream, "{request}").context("failed to ask the agent")?;
        Ok(stream)
    }
}

fn answer(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> Result<Response> {
    let line = lines.next().context("the agent does not answer")?;
    let line = line.context("failed to hear the agent")?;
    serde_json::from_str(&line).with_context(|| format!("the agent's answer: {line}"))
}

impl Status {
    /// Whether it has all these origins in whole, at these versions or later ones.
    pub(super) fn has(&self, wanted: &BTreeMap<ClusterId, Version>) -> Result<bool> {
        let mut known = BTreeMap::new();
        for origin in self.0.origins.iter().filter(|origin| origin.complete) {
            known.insert(origin.id, version(&origin.version)?);
        }
        Ok(wanted
            .iter()
            .all(|(id, version)| known.get(id).is_some_and(|known| known >= version)))
    }

    /// Whether it follows the hub that listens there.
    pub(super) fn follows(&self, hub: SocketAddr) -> bool {
        let address = self.0.hub.address;
        self.0.hub.connected
            && address
                .is_some_and(|at| at.ip().to_canonical() == hub.ip() && at.port() == hub.port())
    }
}

/// Reads `INCARNATION.REVISION`.
fn version(text: &str) -> Result<Version> {
    let (incarnation, revision) = text.split_once('.').context("a version without a dot")?;
    Ok(Version::new(incarnation.parse()?, revision.parse()?))
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
        let name: Name = (origin, key.to_string());
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
                Ok((line, at)) => {
                    if let Some(name) = event(&line)? {
                        events.seen.insert(name, at);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{key} of cluster {origin:?} was not told within {patience:?}")
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the agent has gone"),
            }
        }
    }
}

/// Which record a line is of.
fn event(line: &str) -> Result<Option<Name>> {
    let told: WatchLine = serde_json::from_str(line).with_context(|| {
        format!("the agent says {line}: it was not read fast enough, or has ended")
    })?;
    Ok(match told {
        WatchLine::Apply { origin, key, .. } | WatchLine::Delete { origin, key, .. } => {
            Some((origin, key))
        }
        WatchLine::Forgotten { .. } => None,
    })
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Both).ok();
        self.thread.take().map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_record_as_its_key_is_printed() {
        let key = Key::service("shop", "orders");
        let line = WatchLine::Apply {
            origin: ClusterId::new(7).unwrap(),
            key: key.to_string(),
            value: None,
            at_ns: 1,
        };
        let line = serde_json::to_string(&line).unwrap();
        let name = event(&line).unwrap().unwrap();
        assert_eq!((u16::from(name.0), name.1), (7, key.to_string()));
        assert!(event("\"tooSlow\"").is_err());
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(version("1.10").unwrap() > version("1.9").unwrap());
        assert!(version("1").is_err());
    }
}
