//! The data plane's side of control: states in force and on disk, and answers about them.

use super::DataPlane;
use crate::control::{CaptureRequest, Refusal, Request, Response, Role};
use crate::io::control_server::Answer;
use crate::io::state_file::{Found, Kept, StateFile};
use crate::io::{capture_stream, clock};
use crate::keeper::KeeperClient;
use crate::node::NodeId;
use crate::outgoing::PerLane;
use crate::state::{Change, Checked, Digest, Revision, State};
use crate::status::{Counters, NodeLanes, Pids, Status};
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use tracing::{info, warn};

/// What only control touches.
pub(super) struct Control {
    file: StateFile,
    revision: Option<Revision>,
    keeper: KeeperClient,
    sessions: u64,
    /// The session of the agent, the newest that said so.
    agent: Option<u64>,
    /// A successor has the state: what would change it is for that one.
    frozen: bool,
}

impl Control {
    /// Nothing in force yet, and nobody connected.
    /// Frozen where a predecessor still judges packets by its own state.
    pub(super) fn new(file: StateFile, keeper: KeeperClient, frozen: bool) -> Self {
        Self {
            file,
            revision: None,
            keeper,
            sessions: 0,
            agent: None,
            frozen,
        }
    }

    /// Whether one data plane takes over from another.
    pub(super) fn is_frozen(&self) -> bool {
        self.frozen
    }
}

impl DataPlane {
    /// Puts the last state in force, with nobody asked.
    pub(super) fn restore(&self) {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        if control.frozen && !matches!(control.file.peek(), Ok(Some(_))) {
            // The predecessor's is in force, and stays where it is.
            return warn!("kept state cannot be read");
        }
        match control.file.load() {
            Ok(Found::Nothing) => info!("no state was kept: waiting for an agent"),
            Ok(Found::State(kept)) => {
                let Kept {
                    revision, state, ..
                } = *kept;
                match state.check() {
                    Ok(state) => {
                        info!(
                            revision = revision.number,
                            peers = state.peers.len(),
                            "kept state is in force"
                        );
                        // A data plane that died half way through a change left the guard of both;
                        // one that hands over left its own.
                        if !control.frozen
                            && let Err(error) = control.keeper.guard(&state.guard)
                        {
                            warn!(%error, "guard of the kept state could not be put in force");
                        }
                        self.put_in_force(state);
                        control.revision = Some(revision);
                    }
                    Err(error) => warn!(%error, "kept state breaks a rule: waiting for an agent"),
                }
            }
            Ok(Found::SetAside { path, reason }) => {
                warn!(path = %path.display(), reason, "kept state was set aside: waiting for an agent");
            }
            Err(error) => warn!(%error, "kept state could not be read: waiting for an agent"),
        }
    }

    /// Has flows that begin go by the first `count` lanes.
    pub(super) fn open_lanes(&self, count: u8) -> io::Result<()> {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        control.keeper.open_lanes(count)?;
        self.open_lanes.store(count, Ordering::Relaxed);
        info!(count, "lanes open");
        Ok(())
    }

    /// Whether agents are sent away, until the successor answers them.
    pub(super) fn freeze(&self, frozen: bool) {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        control.frozen = frozen;
    }

    fn put_in_force(&self, state: Checked) {
        let mut out = PerLane::default();
        self.device.apply(state, clock::now(), &mut out);
        self.transmit(&out);
        self.wake_watcher();
    }

    /// Guards, keeps and puts in force a state: all, or nothing.
    fn replace(&self, control: &mut Control, state: State) -> Response {
        let digest = state.digest();
        let table = self.device.table();
        let old = table.as_ref().map(|table| &table.state.guard);
        if let Some(revision) = control
            .revision
            .filter(|revision| revision.digest == digest)
        {
            // It is in force; so is its guard, whatever an earlier attempt left half done.
            return match old.map_or(Ok(()), |guard| control.keeper.guard(guard)) {
                Ok(()) => Response::Applied {
                    revision,
                    changed: false,
                },
                Err(error) => refused(Refusal::GuardFailed, error.to_string()),
            };
        }
        let state = match state.check() {
            Ok(state) if state.guard.device == self.options.device => state,
            Ok(state) => {
                let detail = format!(
                    "guard: device {} is not the TAP, which is {}",
                    state.guard.device, self.options.device
                );
                return refused(Refusal::InvalidState, detail);
            }
            Err(error) => return refused(Refusal::InvalidState, error.to_string()),
        };
        // The guard of both first: a prefix is protected before anything leads there, and until
        // nothing leads there any more.
        let both = old.map_or_else(|| state.guard.clone(), |old| old.with(&state.guard));
        if let Err(error) = control.keeper.guard(&both) {
            return refused(Refusal::GuardFailed, error.to_string());
        }
        let number = control.revision.map_or(0, |revision| revision.number);
        let revision = Revision {
            number: number.wrapping_add(1),
            digest,
        };
        if let Err(error) = control.file.store(revision, &state) {
            let back = old.map(|old| control.keeper.guard(old));
            if let Some(Err(error)) = back {
                warn!(%error, "guard of a state that was not kept stays beside the old one's");
            }
            return refused(Refusal::NotPersisted, error.to_string());
        }
        control.revision = Some(revision);
        info!(
            revision = revision.number,
            peers = state.peers.len(),
            endpoints = state.endpoints.len(),
            "state is in force"
        );
        let guard = state.guard.clone();
        self.put_in_force(state);
        if guard != both
            && let Err(error) = control.keeper.guard(&guard)
        {
            warn!(%error, "guard of the old state stays beside the new one's");
        }
        Response::Applied {
            revision,
            changed: true,
        }
    }

    fn change(
        &self,
        control: &mut Control,
        from: u64,
        changes: Vec<Change>,
        digest: Digest,
    ) -> Response {
        let in_force = self.device.table();
        let Some(table) = in_force.filter(|_| {
            control
                .revision
                .is_some_and(|revision| revision.number == from)
        }) else {
            let detail = match control.revision {
                Some(Revision { number, .. }) => {
                    format!("revision in force is {number}, not {from}")
                }
                None => format!("no state is in force, and not revision {from}"),
            };
            return refused(Refusal::RevisionGap, detail);
        };
        match table.state.with_changes(changes) {
            Ok(state) if state.digest() == digest => self.replace(control, state),
            Ok(_) => refused(Refusal::DigestMismatch, "the changes lead to another state"),
            Err(error) => refused(Refusal::InvalidState, error.to_string()),
        }
    }

    fn rekey(&self, peer: Option<NodeId>) -> Response {
        let mut out = PerLane::default();
        let lanes = self.device.rekey(peer, clock::now(), &mut out);
        self.transmit(&out);
        match peer {
            Some(peer) if lanes == 0 => refused(
                Refusal::UnknownPeer,
                format!("peer {peer}: not in the state in force"),
            ),
            _ => Response::Rekeying { lanes },
        }
    }

    pub(super) fn public_keys(&self) -> Vec<String> {
        self.device
            .public_keys()
            .map(|key| key.to_string())
            .collect()
    }

    fn counters(&self, control: &mut Control) -> Counters {
        Counters {
            guard: control.keeper.guard_drops().unwrap_or_default(),
            ..self.device.counters()
        }
    }

    fn status(&self, control: &mut Control) -> Status {
        let now = clock::now();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.device.table().map(|table| table.node),
            revision: control.revision,
            device: self.options.device.clone(),
            port: self.options.port,
            public_keys: self.public_keys(),
            key_change: self.device.key_change(now),
            lanes: NodeLanes {
                all: u8::try_from(self.lanes.len()).unwrap_or(u8::MAX),
                open: self.open_lanes.load(Ordering::Relaxed),
            },
            uptime_ms: u64::try_from(now.saturating_duration_since(self.started).as_millis())
                .unwrap_or(u64::MAX),
            agent_connected: control.agent.is_some(),
            pids: Pids {
                keeper: std::os::unix::process::parent_id(),
                data_plane: std::process::id(),
            },
            peers: self.device.peer_status(now),
            counters: self.counters(control),
            offloads: self.offloads.standings(),
        }
    }
}

pub(super) fn refused(reason: Refusal, detail: impl Into<String>) -> Response {
    Response::Refused {
        reason,
        detail: detail.into(),
    }
}

impl Answer for DataPlane {
    fn opened(&self, role: Role) -> Option<(Response, u64)> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        if control.frozen && role == Role::Agent {
            return None;
        }
        control.sessions += 1;
        if role == Role::Agent {
            control.agent = Some(control.sessions);
        }
        let hello = Response::Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            public_keys: self.public_keys(),
        };
        Some((hello, control.sessions))
    }

    fn closed(&self, session: u64) {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        if control.agent == Some(session) {
            control.agent = None;
        }
    }

    fn answer(&self, session: u64, request: Request) -> Option<Response> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let control = &mut *control;
        let sets = matches!(request, Request::Replace { .. } | Request::Change { .. });
        let begins = matches!(
            request,
            Request::Rekey { .. } | Request::NewKeys | Request::ForgetKeys
        );
        if control.frozen && (sets || begins) {
            return None;
        }
        if sets && control.agent != Some(session) {
            let detail = "another agent has taken over, or this is none";
            return Some(refused(Refusal::NotTheAgent, detail));
        }
        Some(match request {
            Request::Hello { .. } => refused(Refusal::Protocol, "hello was said already"),
            Request::Revision => Response::Revision(control.revision),
            Request::State => Response::State(
                self.device
                    .table()
                    .map(|table| Box::new(State::clone(&table.state))),
            ),
            Request::Replace { state } => self.replace(control, *state),
            Request::Change {
                from,
                changes,
                digest,
            } => self.change(control, from, changes, digest),
            Request::Status => Response::Status(Box::new(self.status(control))),
            Request::Counters => Response::Counters(self.counters(control)),
            Request::Liveness => Response::Liveness(self.device.liveness(clock::now())),
            Request::Demand => Response::Demand {
                peers: self.device.in_demand(),
            },
            Request::Keys => Response::Keys {
                public_keys: self.public_keys(),
                port: self.options.port,
            },
            Request::Rekey { peer } => self.rekey(peer),
            Request::NewKeys => self.make_new_keys(),
            Request::ForgetKeys => self.forget_old_keys(),
            Request::Capture(_) => {
                refused(Refusal::Protocol, "a capture takes the whole connection")
            }
        })
    }

    fn capture(&self, request: CaptureRequest, socket: &UnixStream) -> io::Result<()> {
        let lost = capture_stream::run(self.device.capture(), request, socket)?;
        if lost > 0 {
            warn!(lost, "a capture was too slow");
        }
        Ok(())
    }
}
