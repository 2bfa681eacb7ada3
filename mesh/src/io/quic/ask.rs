//! One request of a guest, and its answer.

use super::dialer::begin;
use super::handshake::{HandshakeError, established, known, printable_error};
use super::tls::{Found, FoundCa, guest};
use super::{ATTEMPT, ENROL_ALPN, HANDSHAKE, Tls, code};
use crate::dial::{Host, MAX_ADDRESSES, Target};
use crate::enrol::message::MAX_MESSAGE;
use crate::io::resolve::Resolver;
use crate::trust::{Expected, PeerId, Pinned};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// For a name. Servers of names that do not answer cost no more.
const RESOLVE: Duration = Duration::from_secs(3);

/// By what the hub is known.
#[derive(Clone, Debug)]
pub enum AskCheck {
    /// By a token; we show no certificate.
    Pinned(Pinned),
    /// As a hub of our own cluster, by its CA; we show our certificate.
    Known(Arc<Tls>),
}

/// An answer, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answered {
    /// The hub.
    pub peer: PeerId,
    /// Its cluster's CA in PEM, if it was known by a token; empty otherwise.
    pub ca: String,
    /// What it says.
    pub answer: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// There is nobody to ask.
    #[error("hubs: {text}: must be HOST:PORT, as in hub.example.org:6082; correct it")]
    Hub {
        /// What is no hub.
        text: String,
    },
    /// None of them answered; each place with its reason.
    #[error("no hub answers: {}", .0.join("; "))]
    Failed(Vec<String>),
}

impl AskError {
    /// Its name in metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hub { .. } => "enrol_hub_malformed",
            Self::Failed(_) => "enrol_no_answer",
        }
    }
}

/// Asks a cluster's hubs one thing. All addresses of all names are tried at the same time; the request goes to one hub at
/// a time, so that it is done twice only if an answer is lost.
///
/// # Errors
/// None of them answers, or not as whom we expect.
pub async fn ask(hubs: &[String], check: AskCheck, request: Bytes) -> Result<Answered, AskError> {
    let mut asking = Asking {
        check,
        seen: BTreeSet::new(),
        steps: JoinSet::new(),
    };
    for hub in hubs {
        let text = hub.clone();
        let target: Target = hub.parse().map_err(|_| AskError::Hub { text })?;
        match target.host {
            Host::Address(ip) => asking.call(SocketAddr::new(ip, target.port)),
            Host::Name(name) => asking.look_up(name, target.port),
        }
    }
    let mut failures = Vec::new();
    while let Some(step) = asking.steps.join_next().await {
        match step {
            Ok(Step::Resolved(port, found)) => {
                for ip in found {
                    asking.call(SocketAddr::new(ip, port));
                }
            }
            Ok(Step::Unresolved(hub, error)) => failures.push(format!("{hub}: {error}")),
            Ok(Step::Called(address, called)) => {
                let answered = match *called {
                    Ok(open) => exchange(open, request.clone()).await,
                    Err(error) => Err(error),
                };
                match answered {
                    Ok(answered) => return Ok(answered),
                    Err(error) => failures.push(format!("{address}: {error}")),
                }
            }
            // One that panicked has said so.
            Err(_) => {}
        }
    }
    Err(AskError::Failed(failures))
}

/// What is under way.
struct Asking {
    check: AskCheck,
    seen: BTreeSet<SocketAddr>,
    steps: JoinSet<Step>,
}

enum Step {
    Resolved(u16, Vec<IpAddr>),
    Unresolved(String, String),
    Called(SocketAddr, Box<Result<Open, HandshakeError>>),
}

impl Asking {
    fn call(&mut self, address: SocketAddr) {
        if self.seen.len() >= MAX_ADDRESSES || !self.seen.insert(address) {
            return;
        }
        let check = self.check.clone();
        self.steps.spawn(async move {
            let called = connect(address, check).await;
            Step::Called(address, Box::new(called))
        });
    }

    fn look_up(&mut self, name: String, port: u16) {
        self.steps.spawn(async move {
            let found = timeout(RESOLVE, Resolver::system().addresses(&name)).await;
            match found {
                Ok(Ok((found, _))) => Step::Resolved(port, found),
                Ok(Err(error)) => {
                    Step::Unresolved(format!("{name}:{port}"), printable_error(&error))
                }
                Err(_) => Step::Unresolved(format!("{name}:{port}"), "names_timeout".to_owned()),
            }
        });
    }
}

/// A connection that is established, and the CA by which its hub is known.
struct Open {
    connection: quinn::Connection,
    found: Found,
    ca: FoundCa,
}

async fn connect(address: SocketAddr, check: AskCheck) -> Result<Open, HandshakeError> {
    let config = match check {
        AskCheck::Pinned(pinned) => guest(pinned),
        AskCheck::Known(tls) => {
            let expected = Expected::HubOf(tls.credentials().id().cluster.clone());
            let config = tls.client(expected, ENROL_ALPN);
            config.map(|(config, found)| (config, found, FoundCa::default()))
        }
    };
    let (config, found, ca) = config.map_err(|error| HandshakeError::Tls(error.to_string()))?;
    let connecting = established(begin(address, config)?, &found);
    let connection = timeout(ATTEMPT, connecting).await;
    let connection = connection.unwrap_or(Err(HandshakeError::Timeout))?;
    Ok(Open {
        connection,
        found,
        ca,
    })
}

async fn exchange(open: Open, request: Bytes) -> Result<Answered, HandshakeError> {
    let Open {
        connection,
        found,
        ca,
    } = open;
    let peer = known(&found)?;
    let answer = converse(&connection, request, MAX_MESSAGE).await?;
    connection.close(code::DONE, b"");
    Ok(Answered {
        peer,
        ca: ca.get().cloned().unwrap_or_default(),
        answer,
    })
}

/// Asks one thing on a connection, and takes the whole answer, of at most so many bytes, in the time of a handshake.
pub(super) async fn converse(
    connection: &quinn::Connection,
    request: Bytes,
    longest: usize,
) -> Result<Bytes, HandshakeError> {
    let steps = async {
        let (mut send, mut receive) = connection.open_bi().await?;
        let sent = send.write_chunk(request).await;
        sent.map_err(|error| HandshakeError::Ended(error.into()))?;
        // It fails only where it was done before.
        let _ = send.finish();
        let answer = receive.read_to_end(longest).await;
        answer.map_err(|error| match error {
            quinn::ReadToEndError::TooLong => HandshakeError::RequestTooLong,
            quinn::ReadToEndError::Read(error) => HandshakeError::Ended(error.into()),
        })
    };
    let answer = timeout(HANDSHAKE, steps).await;
    Ok(answer.unwrap_or(Err(HandshakeError::Timeout))?.into())
}
