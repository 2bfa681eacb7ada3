//! The connection to the data plane, kept open and opened again for ever.

use hawser_tunnel::control::{Request, Response, Role};
use hawser_tunnel::io::control_client::{ControlClient, ControlClientError};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

/// The first wait before another attempt; it doubles up to [`LONGEST_WAIT`].
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// A data plane that comes up is found within this time. Until then its keeper guards by the state
/// that it kept, and we by ours.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// Putting a state in force waits for nftables and the disk.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// What happened on the connection.
#[derive(Debug)]
pub(crate) enum TunnelEvent {
    /// It stands; nothing was asked on it yet.
    Connected {
        /// The version of `hawser-tunnel`.
        version: String,
    },
    /// The first attempt in a row failed; it goes on.
    Waiting(ControlClientError),
    /// The answer to a request.
    Response(Box<Response>),
    /// It broke.
    Lost(String),
}

/// The agent's end: one request at a time goes in, events come out.
#[derive(Debug)]
pub(crate) struct TunnelLink {
    requests: mpsc::Sender<Request>,
    events: mpsc::Receiver<TunnelEvent>,
}

impl TunnelLink {
    /// Starts the task that connects.
    pub(crate) fn open(socket: PathBuf) -> Self {
        // One request is under way at a time; events wait only while the agent reconciles.
        let (requests, asked) = mpsc::channel(1);
        let (tell, events) = mpsc::channel(4);
        tokio::spawn(serve(socket, asked, tell));
        Self { requests, events }
    }

    /// Sends a request. One that is sent while there is no connection is dropped.
    pub(crate) fn send(&self, request: Request) {
        // Full only if two were sent at once, which the conversation does not do.
        let _ = self.requests.try_send(request);
    }

    /// Waits for the next event.
    pub(crate) async fn next(&mut self) -> TunnelEvent {
        match self.events.recv().await {
            Some(event) => event,
            // The task ends only with the agent.
            None => std::future::pending().await,
        }
    }
}

async fn serve(
    socket: PathBuf,
    mut requests: mpsc::Receiver<Request>,
    events: mpsc::Sender<TunnelEvent>,
) {
    loop {
        let Some(client) = connect(&socket, &events).await else {
            return;
        };
        while requests.try_recv().is_ok() {}
        let version = client.version().to_owned();
        if events
            .send(TunnelEvent::Connected { version })
            .await
            .is_err()
        {
            return;
        }
        let reason = talk(client, &mut requests, &events).await;
        if events.send(TunnelEvent::Lost(reason)).await.is_err() {
            return;
        }
    }
}

/// Connects, however long it takes; `None` once nobody waits for it.
async fn connect(socket: &Path, events: &mpsc::Sender<TunnelEvent>) -> Option<ControlClient> {
    let mut wait = SHORTEST_WAIT;
    let mut told = false;
    loop {
        let path = socket.to_owned();
        let attempt = tokio::task::spawn_blocking(move || {
            let client = ControlClient::connect(&path, Role::Agent)?;
            client.socket().set_read_timeout(Some(ANSWER_DEADLINE))?;
            client.socket().set_write_timeout(Some(ANSWER_DEADLINE))?;
            Ok(client)
        });
        match attempt.await.ok()? {
            Ok(client) => return Some(client),
            Err(error) if !told => {
                told = true;
                events.send(TunnelEvent::Waiting(error)).await.ok()?;
            }
            Err(_) if events.is_closed() => return None,
            Err(_) => {}
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Carries requests and answers until the connection breaks; says why it did.
async fn talk(
    mut client: ControlClient,
    requests: &mut mpsc::Receiver<Request>,
    events: &mpsc::Sender<TunnelEvent>,
) -> String {
    loop {
        // Made anew each time: readiness that an answer left behind must not look like a hang-up.
        let idle = match idle(&client) {
            Ok(idle) => idle,
            Err(error) => return format!("failed to watch the socket: {error}"),
        };
        let request = tokio::select! {
            biased;
            request = requests.recv() => request,
            // Nothing was asked, so there is nothing to read but the end.
            _ = idle.readable() => return "hawser-tunnel hung up".to_owned(),
        };
        drop(idle);
        let Some(request) = request else {
            return "the agent stops".to_owned();
        };
        let asked = tokio::task::spawn_blocking(move || {
            let answer = client.request(&request);
            (client, answer)
        });
        let Ok((returned, answer)) = asked.await else {
            return "the request was cut off".to_owned();
        };
        client = returned;
        match answer {
            Ok(response) => {
                if events
                    .send(TunnelEvent::Response(Box::new(response)))
                    .await
                    .is_err()
                {
                    return "the agent stops".to_owned();
                }
            }
            Err(error) => return crate::chain::one_line(&error),
        }
    }
}

#[expect(unsafe_code, reason = "tokio wants a promise about the descriptor")]
fn idle(client: &ControlClient) -> std::io::Result<AsyncFd<UnixStream>> {
    let socket = client.socket().try_clone()?;
    // SAFETY: a `UnixStream` owns its descriptor, which is open and the same until it is dropped,
    // and nothing drops or replaces it inside the `AsyncFd`.
    let idle = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    Ok(idle?)
}
