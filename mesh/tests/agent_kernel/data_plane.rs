//! The agent and the calls of an operator against the other side of the control socket.
//!
//! The other side speaks the real protocol over the real framing and keeps a state as the data
//! plane does, without a packet.

use crate::ground::{Ground, NODE, WEST_2, until};
use hawser_tunnel::control::{Refusal, Request, Response, Role};
use hawser_tunnel::io::message;
use hawser_tunnel::key::PublicKey;
use hawser_tunnel::liveness;
use hawser_tunnel::state::Revision;
use hawser_tunnel::state::State;
use hawser_tunnel::status::{Counters, LivenessStatus, NodeLanes, PeerLiveness, Pids, Status};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

/// What the other side was told.
#[derive(Default)]
struct Told {
    requests: Vec<String>,
    in_force: Option<(u64, State)>,
    open: Vec<UnixStream>,
    liveness: LivenessStatus,
}

pub(crate) struct DataPlane {
    told: Arc<Mutex<Told>>,
    socket: PathBuf,
}

impl DataPlane {
    pub(crate) fn start(ground: &Ground) -> Self {
        let told = Arc::new(Mutex::new(Told::default()));
        let data_plane = Self {
            told,
            socket: ground.socket(),
        };
        data_plane.listen();
        data_plane
    }

    fn listen(&self) {
        let _ = std::fs::remove_file(&self.socket);
        let listener = UnixListener::bind(&self.socket).unwrap();
        let told = Arc::clone(&self.told);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                told.lock().unwrap().open.push(stream.try_clone().unwrap());
                let told = Arc::clone(&told);
                std::thread::spawn(move || serve(&stream, &told));
            }
        });
    }

    /// Hangs up on everybody, as a data plane that dies does.
    fn hang_up(&self) {
        for stream in self.told.lock().unwrap().open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.told.lock().unwrap().requests)
    }

    /// Waits until it was asked exactly this since [`Self::requests`] was called last.
    fn is_asked(&self, requests: &[&str]) {
        until(&format!("asked {requests:?}"), || {
            self.told.lock().unwrap().requests == requests
        });
        self.requests();
    }

    /// What it thinks of the only watched peer from now on.
    fn thinks(&self, state: liveness::State, deaths: u64) {
        let peer = PeerLiveness {
            state,
            last_reply_ms: None,
            round_trip_us: None,
            deaths,
            hold_down_ms: 0,
        };
        self.told.lock().unwrap().liveness = LivenessStatus {
            changes: deaths,
            peers: BTreeMap::from([("2/1".parse().unwrap(), peer)]),
        };
    }

    pub(crate) fn in_force(&self) -> Option<(u64, State)> {
        self.told.lock().unwrap().in_force.clone()
    }
}

fn serve(stream: &UnixStream, told: &Mutex<Told>) {
    while let Ok(Some(request)) = message::read::<Request>(stream) {
        let mut told = told.lock().unwrap();
        told.requests.push(name(&request).to_owned());
        if let Request::Capture(_) = request {
            let _ = message::write(stream, &Response::Capturing);
            drop(told);
            return capture(stream);
        }
        if message::write(stream, &answer(request, &mut told)).is_err() {
            return;
        }
    }
}

fn name(request: &Request) -> &'static str {
    match request {
        Request::Hello {
            role: Role::Agent, ..
        } => "hello",
        Request::Hello {
            role: Role::Operator,
            ..
        } => "operator",
        Request::Revision => "revision",
        Request::State => "state",
        Request::Replace { .. } => "replace",
        Request::Change { .. } => "change",
        Request::Status => "status",
        Request::Counters => "counters",
        Request::Liveness => "liveness",
        Request::Demand => "demand",
        Request::Keys => "keys",
        Request::Rekey { .. } => "rekey",
        Request::NewKeys => "newKeys",
        Request::ForgetKeys => "forgetKeys",
        Request::Capture(_) => "capture",
    }
}

fn answer(request: Request, told: &mut Told) -> Response {
    let revision = |(number, state): &(u64, State)| Revision {
        number: *number,
        digest: state.digest(),
    };
    let at = told.in_force.as_ref().map_or(0, |(number, _)| *number);
    match request {
        Request::Hello { .. } => Response::Hello {
            version: "0.1.0".to_owned(),
            public_keys: vec!["key".to_owned()],
        },
        Request::Revision => Response::Revision(told.in_force.as_ref().map(revision)),
        Request::State => Response::State(told.in_force.clone().map(|(_, state)| Box::new(state))),
        Request::Replace { state } => {
            state
                .clone()
                .check()
                .expect("an agent sends only states that keep the rules");
            let next = (at + 1, *state);
            let revision = revision(&next);
            told.in_force = Some(next);
            Response::Applied {
                revision,
                changed: true,
            }
        }
        Request::Change {
            from,
            changes,
            digest,
        } => {
            let Some((_, state)) = told.in_force.as_ref().filter(|(number, _)| *number == from)
            else {
                return Response::Refused {
                    reason: Refusal::RevisionGap,
                    detail: "elsewhere".to_owned(),
                };
            };
            let next = (at + 1, state.with_changes(changes).unwrap());
            assert_eq!(next.1.digest(), digest);
            let revision = revision(&next);
            told.in_force = Some(next);
            Response::Applied {
                revision,
                changed: true,
            }
        }
        Request::Status => Response::Status(Box::new(status())),
        Request::Demand => Response::Demand { peers: Vec::new() },
        Request::Liveness => Response::Liveness(told.liveness.clone()),
        Request::Keys => Response::Keys {
            public_keys: vec![PublicKey::new([9; 32]).to_string()],
            port: 51820,
        },
        Request::Rekey { .. } => Response::Rekeying { lanes: 1 },
        Request::NewKeys => Response::NewKeys {
            public_keys: vec!["newer".to_owned()],
        },
        Request::ForgetKeys => Response::Refused {
            reason: Refusal::NoKeyChange,
            detail: "no change of keys is going on".to_owned(),
        },
        Request::Counters | Request::Capture(_) => Response::Counters(Counters::default()),
    }
}

fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        node: Some("1/1".parse().unwrap()),
        revision: None,
        device: "hawser0".to_owned(),
        port: 51820,
        public_keys: Vec::new(),
        key_change: None,
        lanes: NodeLanes { all: 1, open: 1 },
        uptime_ms: 1,
        agent_connected: false,
        pids: Pids {
            keeper: 1,
            data_plane: 2,
        },
        peers: Vec::new(),
        counters: Counters::default(),
        offloads: BTreeMap::new(),
    }
}

/// A section header, and packets until nobody reads.
fn capture(mut stream: &UnixStream) {
    let block = |kind: u32, body: &[u8]| {
        let length = u32::try_from(12 + body.len()).unwrap().to_ne_bytes();
        [&kind.to_ne_bytes()[..], &length, body, &length].concat()
    };
    let _ = stream.write_all(&block(0x0a0d_0d0a, &[0; 16]));
    while stream.write_all(&block(6, &[0; 32])).is_ok() {}
}

#[test]
fn a_state_is_sent_once_and_after_that_only_what_changes() {
    let ground = Ground::new();
    let data_plane = DataPlane::start(&ground);
    ground.configure(NODE);
    let agent = ground.start_agent();
    until("a state is in force", || data_plane.in_force().is_some());
    agent.says("kernel stands");
    assert_eq!(data_plane.requests(), ["hello", "revision", "replace"]);
    let (_, state) = data_plane.in_force().unwrap();
    assert_eq!(state.peers.values().next().unwrap().path_mtu, 1500);

    ground.configure(&(NODE.to_owned() + WEST_2));
    until("the change is in force", || {
        data_plane.in_force().unwrap().1.peers.len() == 2
    });
    assert_eq!(data_plane.requests(), ["change"]);

    data_plane.hang_up();
    agent.says("data plane lost");
    data_plane.is_asked(&["hello", "revision"]);

    drop(agent);
    let agent = ground.start_agent();
    agent.says("data plane connected");
    data_plane.is_asked(&["hello", "revision"]);
    assert_eq!(data_plane.in_force().unwrap().0, 2);
    assert!(!agent.log().contains("guard written"));
}

#[test]
fn a_data_plane_that_comes_back_with_an_older_state_gets_the_difference() {
    let ground = Ground::new();
    ground.configure(&(NODE.to_owned() + WEST_2));
    let data_plane = DataPlane::start(&ground);
    let agent = ground.start_agent();
    until("a state is in force", || data_plane.in_force().is_some());
    data_plane.requests();
    data_plane
        .told
        .lock()
        .unwrap()
        .in_force
        .as_mut()
        .unwrap()
        .1
        .peers
        .pop_last();
    data_plane.hang_up();
    until("both peers again", || {
        data_plane.in_force().unwrap().1.peers.len() == 2
    });
    let requests = data_plane.requests();
    assert!(
        requests.ends_with(&["state".to_owned(), "change".to_owned()]),
        "{requests:?}"
    );
    drop(agent);
}

#[test]
fn prefixes_that_the_data_plane_guards_stay_guarded() {
    let ground = Ground::new();
    ground.configure(NODE);
    let data_plane = DataPlane::start(&ground);
    let agent = ground.start_agent();
    until("a state is in force", || data_plane.in_force().is_some());
    drop(agent);
    // As after a reboot: the kernel has no guard any more, the data plane's state is on disk.
    ground.run("nft", &["flush", "ruleset"]);
    let left = "10.77.0.0/16".parse().unwrap();
    data_plane
        .told
        .lock()
        .unwrap()
        .in_force
        .as_mut()
        .unwrap()
        .1
        .guard
        .mesh
        .insert(left);
    let _agent = ground.start_agent();
    until("the guard blocks it", || {
        ground
            .run("nft", &["list", "ruleset"])
            .contains("10.77.0.0/16")
            && ground.ip("route").contains("unreachable 10.77.0.0/16")
    });
    assert!(data_plane.in_force().unwrap().1.guard.mesh.contains(&left));
}

#[test]
fn a_death_is_asked_for_only_where_peers_are_watched_and_told_once() {
    let ground = Ground::new();
    ground.configure(NODE);
    let data_plane = DataPlane::start(&ground);
    data_plane.thinks(liveness::State::Alive, 0);
    let agent = ground.start_agent();
    until("a state is in force", || data_plane.in_force().is_some());
    agent.says("kernel stands");
    assert_eq!(data_plane.requests(), ["hello", "revision", "replace"]);
    // The file is looked at about as often as the data plane would be asked: meanwhile it is not.
    let both = NODE.to_owned() + WEST_2;
    for (text, peers) in [(&*both, 2), (NODE, 1)].repeat(3) {
        ground.configure(text);
        until("the file is in force", || {
            data_plane.in_force().unwrap().1.peers.len() == peers
        });
    }
    assert_eq!(data_plane.requests(), ["change"; 6]);

    ground.configure(&(NODE.to_owned() + "    watched: true\n"));
    until("the peer is watched", || {
        data_plane
            .in_force()
            .unwrap()
            .1
            .peers
            .values()
            .all(|peer| peer.watched)
    });
    agent.says("peer is alive");
    let deaths = || agent.log().matches("peer is dead").count();
    assert_eq!(deaths(), 0);
    data_plane.thinks(liveness::State::Dead, 1);
    until("the death is told", || deaths() > 0);
    data_plane.requests();
    let mut asked = 0;
    until("asked again", || {
        asked += data_plane.requests().len();
        asked >= 2
    });
    assert_eq!(deaths(), 1, "once");
    // It came back and died again between two questions.
    data_plane.thinks(liveness::State::Dead, 2);
    until("the next death is told", || deaths() == 2);
}

#[test]
fn an_operator_sees_status_and_captures() {
    let ground = Ground::new();
    let data_plane = DataPlane::start(&ground);
    let socket = data_plane.socket.to_str().unwrap();
    let output = ground
        .hawser(&["status", "--socket", socket, "-o", "json"])
        .output()
        .unwrap();
    assert_eq!(
        serde_json::from_slice::<Status>(&output.stdout).unwrap(),
        status()
    );
    let table = ground.run(
        env!("CARGO_BIN_EXE_hawser"),
        &["status", "--socket", socket],
    );
    assert!(
        table.contains("NAME  ID  ENDPOINT  HANDSHAKE  RX  TX  MTU4  MTU6"),
        "{table}"
    );

    let file = ground.folder.path().join("c.pcapng");
    let arguments = [
        "capture",
        "--socket",
        socket,
        "--count",
        "5",
        "-w",
        file.to_str().unwrap(),
    ];
    assert!(ground.hawser(&arguments).status().unwrap().success());
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 28 + 5 * 44);

    // A reader that has seen enough ends the capture, and that is no error.
    let mut child = ground
        .hawser(&["capture", "--socket", socket, "-w", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}
