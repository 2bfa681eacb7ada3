//! The answering side of the control socket: one thread a connection, a few connections.

use crate::control::{CaptureRequest, PROTOCOL, Refusal, Request, Response, Role};
use crate::io::message;
use nix::sys::socket::{getsockopt, sockopt};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Connections at once: an agent, a scraper, some people. One more is hung up on.
const MAX_CONNECTIONS: usize = 32;

/// How long a connection may take to say hello.
const HELLO: Duration = Duration::from_secs(5);

/// Pause after a connection that could not be taken, in milliseconds.
const PAUSE_MS: u16 = 100;

/// Who answers.
pub trait Answer: Send + Sync + 'static {
    /// Answers one request, or hangs up; `session` is what [`Self::opened`] gave.
    fn answer(&self, session: u64, request: Request) -> Option<Response>;
    /// A connection said hello; returns the version, the keys, and a number for the session, or
    /// hangs up.
    fn opened(&self, role: Role) -> Option<(Response, u64)>;
    /// It went away.
    fn closed(&self, session: u64);
    /// Runs a capture until the client hangs up.
    fn capture(&self, request: CaptureRequest, socket: &UnixStream) -> io::Result<()>;
}

/// Serves connections for ever.
pub fn serve(listener: &UnixListener, answer: &Arc<impl Answer>) -> ! {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) => {
                // Out of descriptors or memory, say: packets go on, and it may pass.
                tracing::warn!(%error, "failed to accept a connection");
                let _ = nix::poll::poll(&mut [], nix::poll::PollTimeout::from(PAUSE_MS));
                continue;
            }
        };
        if open.load(Ordering::Relaxed) >= MAX_CONNECTIONS || !is_root(&socket) {
            continue;
        }
        open.fetch_add(1, Ordering::Relaxed);
        let (answer, place) = (Arc::clone(answer), Arc::clone(&open));
        let spawned = thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                // A connection that breaks is the client's affair; it comes again if it wants something.
                let _ = converse(&socket, &*answer);
                place.fetch_sub(1, Ordering::Relaxed);
            });
        if let Err(error) = spawned {
            open.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!(%error, "failed to start a thread for a connection");
        }
    }
}

fn is_root(socket: &UnixStream) -> bool {
    getsockopt(socket, sockopt::PeerCredentials).is_ok_and(|peer| peer.uid() == 0)
}

fn refused(reason: Refusal, detail: impl Into<String>) -> Response {
    Response::Refused {
        reason,
        detail: detail.into(),
    }
}

/// Serves one connection until it ends: hello, then requests and their answers in order.
///
/// # Errors
/// When the connection breaks, in the middle of a message too.
pub fn converse(socket: &UnixStream, answer: &impl Answer) -> io::Result<()> {
    // Who connects and says nothing does not keep a place from the agent.
    socket.set_read_timeout(Some(HELLO))?;
    let Some(hello) = read_request(socket)? else {
        return Ok(());
    };
    socket.set_read_timeout(None)?;
    let role = match hello {
        Ok(Request::Hello {
            protocol: PROTOCOL,
            role,
        }) => role,
        Ok(Request::Hello { protocol, .. }) => {
            let detail = format!("protocol {protocol}: this hawser-tunnel speaks {PROTOCOL}");
            return message::write(socket, &refused(Refusal::Protocol, detail));
        }
        Ok(_) => {
            return message::write(socket, &refused(Refusal::Protocol, "hello must come first"));
        }
        Err(malformed) => return message::write(socket, &malformed),
    };
    let Some((hello, session)) = answer.opened(role) else {
        return Ok(());
    };
    let done = message::write(socket, &hello).and_then(|()| questions(socket, answer, session));
    answer.closed(session);
    done
}

fn questions(socket: &UnixStream, answer: &impl Answer, session: u64) -> io::Result<()> {
    while let Some(request) = read_request(socket)? {
        let response = match request {
            Ok(Request::Capture(request)) => {
                message::write(socket, &Response::Capturing)?;
                return answer.capture(request, socket);
            }
            Ok(request) => match answer.answer(session, request) {
                Some(response) => response,
                None => return Ok(()),
            },
            Err(malformed) => malformed,
        };
        message::write(socket, &response)?;
    }
    Ok(())
}

/// A request, or the answer to bytes that are none.
fn read_request(socket: &UnixStream) -> io::Result<Option<Result<Request, Response>>> {
    let Some(bytes) = message::read_bytes(socket)? else {
        return Ok(None);
    };
    let parsed = serde_json::from_slice(&bytes);
    Ok(Some(parsed.map_err(|error| {
        refused(Refusal::Malformed, error.to_string())
    })))
}
