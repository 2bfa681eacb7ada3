//! A conversation over the control socket, with a data plane behind it.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::Instant;

use hawser_tunnel::batch::Datagrams;
use hawser_tunnel::control::{CaptureRequest, PROTOCOL, Refusal, Request, Response, Role};
use hawser_tunnel::device::Device;
use hawser_tunnel::io::control_server::{Answer, converse};
use hawser_tunnel::io::message;
use hawser_tunnel::key::PrivateKey;
use hawser_tunnel::state::{Revision, State};

use super::source::Source;
use super::world;

/// Bytes that a client says at most: every answer then fits a socket's buffer, and nobody waits for the other.
const MOST: usize = 1500;

/// Target: any bytes from a client. Each request gets one answer, and what is no state changes nothing.
pub(super) fn conversation(input: &[u8]) {
    let mut source = Source::new(input);
    let mut said = Vec::new();
    if !source.once_in(8) {
        let hello = Request::Hello {
            protocol: PROTOCOL,
            role: source.pick(&[Role::Agent, Role::Operator]),
        };
        message::write(&mut said, &hello).expect("a vector takes everything");
    }
    while !source.is_empty() && said.len() < MOST {
        phrase(&mut source, &mut said);
    }
    let plane = Plane::new();
    let (mut client, server) = UnixStream::pair().expect("a pair of sockets");
    client
        .write_all(&said)
        .expect("a short text fits the buffer");
    client
        .shutdown(Shutdown::Write)
        .expect("the socket is open");
    let ended = converse(&server, &plane);
    drop(server);
    let mut answers = Vec::new();
    // What the server left unread resets the connection, behind everything that it answered.
    if let Err(error) = client.read_to_end(&mut answers) {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    let mut answers = answers.as_slice();
    let mut count = 0;
    while let Some(answer) = message::read::<Response>(&mut answers).expect("every answer is whole")
    {
        if let Response::Refused { detail, .. } = &answer {
            assert!(!detail.is_empty(), "a refusal without a reason");
        }
        count += 1;
        if answer == Response::Capturing {
            return;
        }
    }
    let (asked, whole) = framed(&said);
    assert!(ended.is_ok() || !whole, "{ended:?} after whole messages");
    // Who does not say hello first is told so, and nothing more.
    assert!(
        count == asked || count == 1 && asked > 0,
        "{count} answers to {asked} requests"
    );
    let state = plane.device.table().map(|table| State::clone(&table.state));
    let kept = plane
        .revision
        .lock()
        .expect("one thread")
        .map(|revision| revision.digest);
    assert_eq!(
        state.map(|state| state.digest()),
        kept,
        "the digest is not the state's"
    );
}

/// How many whole messages there are, and whether there is nothing else.
fn framed(mut bytes: &[u8]) -> (usize, bool) {
    let mut count = 0;
    loop {
        match message::read_bytes(&mut bytes) {
            Ok(Some(_)) => count += 1,
            Ok(None) => return (count, true),
            Err(_) => return (count, false),
        }
    }
}

fn phrase(source: &mut Source<'_>, said: &mut Vec<u8>) {
    let request = match source.pick(&[0, 1, 2, 3, 4, 5, 6, 7]) {
        0 => Request::Revision,
        1 => Request::Counters,
        2 => Request::Change {
            from: source.pick(&[0, 1, u64::MAX]),
            changes: Vec::new(),
            digest: world::state().digest(),
        },
        3 => Request::Hello {
            protocol: source.any(),
            role: Role::Agent,
        },
        4 => {
            // A whole state, once: it is long.
            let state = Request::Replace {
                state: Box::new(world::state()),
            };
            let fits = said.len() < 200;
            if fits {
                message::write(&mut *said, &state).expect("a vector takes everything");
            }
            return;
        }
        5 => {
            let body = source.bytes(400);
            let length = u32::try_from(body.len()).expect("a short body");
            said.extend(length.to_be_bytes());
            return said.extend(body);
        }
        6 => Request::Liveness,
        _ => return said.extend(source.bytes(16)),
    };
    message::write(said, &request).expect("a vector takes everything");
}

/// What stands behind the socket: the device and the rules of a state, without keeper, disk and kernel.
struct Plane {
    device: Device,
    revision: Mutex<Option<Revision>>,
}

impl Plane {
    fn new() -> Self {
        Self {
            device: Device::new(PrivateKey::from_random([2; 32]), [2; 32]),
            revision: Mutex::new(None),
        }
    }

    fn replace(&self, state: State) -> Response {
        let digest = state.digest();
        match state.check() {
            Ok(checked) => {
                let mut revision = self.revision.lock().expect("one thread");
                let number = revision
                    .map_or(0, |revision| revision.number)
                    .wrapping_add(1);
                self.device
                    .apply(checked, Instant::now(), &mut Datagrams::default());
                let now = Revision { number, digest };
                *revision = Some(now);
                Response::Applied {
                    revision: now,
                    changed: true,
                }
            }
            Err(error) => refused(Refusal::InvalidState, &error.to_string()),
        }
    }
}

fn refused(reason: Refusal, detail: &str) -> Response {
    Response::Refused {
        reason,
        detail: detail.to_owned(),
    }
}

impl Answer for Plane {
    fn answer(&self, _session: u64, request: Request) -> Option<Response> {
        let table = self.device.table();
        Some(match request {
            Request::Hello { .. } | Request::Capture(_) => {
                refused(Refusal::Protocol, "out of order")
            }
            Request::Revision => Response::Revision(*self.revision.lock().expect("one thread")),
            Request::State => {
                Response::State(table.map(|table| Box::new(State::clone(&table.state))))
            }
            Request::Replace { state } => self.replace(*state),
            Request::Change {
                changes, digest, ..
            } => {
                let changed = table.map(|table| table.state.with_changes(changes));
                match changed {
                    Some(Ok(state)) if state.digest() == digest => self.replace(state),
                    Some(Ok(_)) => refused(Refusal::DigestMismatch, "another state"),
                    Some(Err(error)) => refused(Refusal::InvalidState, &error.to_string()),
                    None => refused(Refusal::RevisionGap, "no state"),
                }
            }
            Request::Status | Request::Counters => Response::Counters(self.device.counters()),
            Request::Liveness => Response::Liveness(self.device.liveness(Instant::now())),
            Request::Demand => Response::Demand {
                peers: self.device.in_demand(),
            },
            Request::Keys => Response::Keys {
                public_keys: self
                    .device
                    .public_keys()
                    .map(|key| key.to_string())
                    .collect(),
                port: 51820,
            },
            Request::Rekey { peer } => {
                let mut out = Datagrams::default();
                let lanes = self.device.rekey(peer, Instant::now(), &mut out);
                Response::Rekeying { lanes }
            }
            // Their files are the data plane's affair.
            Request::NewKeys => refused(Refusal::KeyChangeGoingOn, "no files"),
            Request::ForgetKeys => {
                let late = self.device.key_change(Instant::now());
                let late = late.map_or(0, |change| change.late.len());
                let mut out = Datagrams::default();
                self.device.forget_keys(Instant::now(), &mut out);
                Response::KeysForgotten { late }
            }
        })
    }

    fn opened(&self, _role: Role) -> Option<(Response, u64)> {
        let hello = Response::Hello {
            version: "0".to_owned(),
            public_keys: vec![self.device.public_key().to_string()],
        };
        Some((hello, 1))
    }

    fn closed(&self, _session: u64) {}

    fn capture(&self, _request: CaptureRequest, _socket: &UnixStream) -> io::Result<()> {
        Ok(())
    }
}
