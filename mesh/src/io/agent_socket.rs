//! The agent's socket: takes connections, reads lines, writes lines.

use crate::agent_socket::{
    MAX_REQUEST, PrefixError, Refusal, Request, Response, StatusReply, WatchLine, parse_prefix,
};
use crate::replica::Filter;
use serde::Serialize;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Connections at once: some people and a scraper. One more waits.
const MAX_CONNECTIONS: usize = 32;
/// Lines that wait for who watches: some seconds of what a big mesh tells.
const LINES: usize = 4096;

/// A question for the link.
#[derive(Debug)]
pub(crate) enum Asked {
    /// How it is.
    Status {
        digest: bool,
        reply: oneshot::Sender<StatusReply>,
    },
    /// To have other pre-shared keys derived; told with how many peers.
    RenewKeys { reply: oneshot::Sender<usize> },
    /// To have the node's own keys changed, told likewise.
    Rotate { reply: oneshot::Sender<usize> },
    /// To be told of records. The channel is closed on who is too slow.
    Watch {
        filter: Filter,
        values: bool,
        lines: mpsc::Sender<WatchLine>,
        /// Told once nothing is missed any more.
        begun: oneshot::Sender<()>,
    },
}

/// A socket that is bound; served by the runtime in which [`Self::next`] is first awaited.
#[derive(Debug)]
pub(crate) struct Listening {
    socket: Option<std::os::unix::net::UnixListener>,
    asked: mpsc::Receiver<Asked>,
    ask: mpsc::Sender<Asked>,
}

impl Listening {
    /// Takes the place of whoever listened there before; the agent's lock says that nobody does.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let socket = std::os::unix::net::UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        socket.set_nonblocking(true)?;
        let (ask, asked) = mpsc::channel(MAX_CONNECTIONS);
        Ok(Self {
            socket: Some(socket),
            asked,
            ask,
        })
    }

    /// Waits for the next question.
    pub(crate) async fn next(&mut self) -> Asked {
        if let Some(socket) = self.socket.take() {
            match tokio::net::UnixListener::from_std(socket) {
                Ok(socket) => drop(tokio::spawn(accept(socket, self.ask.clone()))),
                Err(error) => tracing::error!(%error, "failed to serve the agent's socket"),
            }
        }
        match self.asked.recv().await {
            Some(asked) => asked,
            // We hold a sender ourselves.
            None => std::future::pending().await,
        }
    }
}

async fn accept(socket: tokio::net::UnixListener, ask: mpsc::Sender<Asked>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match socket.accept().await {
            Ok((stream, _)) if is_root(&stream) => {
                let ask = ask.clone();
                tokio::spawn(async move {
                    // A connection that breaks is the client's affair.
                    let _ = converse(stream, ask).await;
                    drop(place);
                });
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                // Out of descriptors, say; it may pass.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

fn is_root(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0)
}

async fn converse(stream: UnixStream, ask: mpsc::Sender<Asked>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut read).take(MAX_REQUEST);
        if limited.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        if !line.ends_with(b"\n") {
            let refused = refused(Refusal::Malformed, "must be a line of at most 65536 bytes");
            return say(&mut write, &refused).await;
        }
        match serde_json::from_slice(&line) {
            Ok(Request::Status { digest }) => {
                let (reply, answer) = oneshot::channel();
                if ask.send(Asked::Status { digest, reply }).await.is_err() {
                    return Ok(());
                }
                let Ok(status) = answer.await else {
                    return Ok(());
                };
                say(&mut write, &Response::Status(Box::new(status))).await?;
            }
            Ok(Request::RenewKeys {}) => {
                let (reply, answer) = oneshot::channel();
                if ask.send(Asked::RenewKeys { reply }).await.is_err() {
                    return Ok(());
                }
                let Ok(peers) = answer.await else {
                    return Ok(());
                };
                say(&mut write, &Response::Renewing { peers }).await?;
            }
            Ok(Request::Rotate {}) => {
                let (reply, answer) = oneshot::channel();
                if ask.send(Asked::Rotate { reply }).await.is_err() {
                    return Ok(());
                }
                let Ok(peers) = answer.await else {
                    return Ok(());
                };
                say(&mut write, &Response::Renewing { peers }).await?;
            }
            Ok(Request::Watch { prefixes, values }) => match filter(&prefixes) {
                Ok(filter) => return watch(read, write, &ask, filter, values).await,
                Err(error) => {
                    let reason = match error {
                        PrefixError::UnknownKind => Refusal::UnknownKind,
                        PrefixError::Escape | PrefixError::Key(_) => Refusal::Malformed,
                    };
                    say(&mut write, &refused(reason, &error.to_string())).await?;
                }
            },
            Err(error) => {
                let refused = refused(Refusal::Malformed, &error.to_string());
                say(&mut write, &refused).await?;
            }
        }
    }
}

/// Writes lines until the client hangs up or is too slow.
async fn watch(
    mut read: BufReader<OwnedReadHalf>,
    mut write: OwnedWriteHalf,
    ask: &mpsc::Sender<Asked>,
    filter: Filter,
    values: bool,
) -> io::Result<()> {
    let (lines, mut told) = mpsc::channel(LINES);
    let (begun, begins) = oneshot::channel();
    let watch = Asked::Watch {
        filter,
        values,
        lines,
        begun,
    };
    if ask.send(watch).await.is_err() || begins.await.is_err() {
        return Ok(());
    }
    say(&mut write, &Response::Watching).await?;
    let mut ignored = [0; 64];
    loop {
        tokio::select! {
            line = told.recv() => match line {
                Some(line) => say(&mut write, &line).await?,
                None => return say(&mut write, &Response::TooSlow).await,
            },
            read = read.read(&mut ignored) => if read? == 0 {
                return Ok(());
            },
        }
    }
}

fn filter(prefixes: &[String]) -> Result<Filter, PrefixError> {
    let parsed: Result<Vec<_>, _> = prefixes.iter().map(|text| parse_prefix(text)).collect();
    Ok(Filter::new(parsed?))
}

fn refused(reason: Refusal, detail: &str) -> Response {
    Response::Refused {
        reason,
        detail: detail.to_owned(),
    }
}

async fn say(write: &mut OwnedWriteHalf, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    write.write_all(&line).await
}
