//! What to ask the data plane next, and what its answers mean.
//!
//! One request is under way at a time. On a connection the data plane is first asked for its
//! revision: with the digest that is wanted nothing more is said. Otherwise its state is fetched, and
//! the difference sent; or the whole, where it has none or the difference did not fit.

use hawser_tunnel::control::{Refusal, Request, Response};
use hawser_tunnel::node::NodeId;
use hawser_tunnel::state::{Digest, Revision, State};
use hawser_tunnel::status::LivenessStatus;
use std::sync::Arc;

/// One agent's side of the talk.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    in_force: InForce,
    under_way: Option<Asked>,
    /// The next one is sent whole.
    whole: bool,
    /// The data plane is older than the question for liveness.
    no_liveness: bool,
    /// The data plane is older than the question for peers in demand.
    no_demand: bool,
    /// The data plane is older than the question for its keys.
    no_keys: bool,
    /// A state that was refused is not sent again before [`Self::retry`].
    refused: Option<Digest>,
}

/// What is known of the state in force.
#[derive(Debug, Default)]
enum InForce {
    /// Not connected.
    #[default]
    Unconnected,
    /// Not asked yet.
    Unknown,
    /// Its revision only; `None`: there is none.
    Revision(Option<Revision>),
    /// All of it.
    State(Revision, Arc<State>),
}

#[derive(Debug)]
enum Asked {
    Revision,
    State,
    Liveness,
    Demand,
    Keys,
    NewKeys,
    /// To put this state in force.
    Apply(Arc<State>),
}

/// What an answer changed for the agent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing to do but ask on.
    Nothing,
    /// The state in force came; its guard may block more than the file says.
    InForce,
    /// Which watched peers are alive.
    Liveness(LivenessStatus),
    /// Which peers have a session, or want one.
    Demand(Vec<NodeId>),
    /// The node's own keys and the first lane's port.
    Keys {
        /// In base64, one a lane.
        public_keys: Vec<String>,
        /// The UDP port of the first.
        port: u16,
    },
    /// The node has other keys from now on, beside those before.
    NewKeys,
    /// It keeps those that it has, for now.
    KeysStay {
        /// Why.
        reason: Refusal,
        /// One line.
        detail: String,
    },
    /// The wanted state is in force.
    Applied {
        /// Its number.
        revision: u64,
        /// Whether it was not before.
        changed: bool,
    },
    /// It was refused.
    Refused {
        /// Why.
        reason: Refusal,
        /// One line.
        detail: String,
    },
    /// An answer to something else: the connection is of no use.
    OutOfOrder,
}

impl Conversation {
    /// A connection stands.
    pub(crate) fn handle_connected(&mut self) {
        *self = Self {
            in_force: InForce::Unknown,
            ..Self::default()
        };
    }

    /// The connection is gone.
    pub(crate) fn handle_lost(&mut self) {
        *self = Self::default();
    }

    /// A refused state may be tried again.
    pub(crate) fn retry(&mut self) {
        self.refused = None;
    }

    /// Whether there is a connection.
    pub(crate) fn is_connected(&self) -> bool {
        !matches!(self.in_force, InForce::Unconnected)
    }

    /// Whether the state with this digest is in force.
    pub(crate) fn is_settled(&self, wanted: Digest) -> bool {
        matches!(
            self.under_way,
            None | Some(Asked::Liveness | Asked::Demand | Asked::Keys | Asked::NewKeys)
        ) && self
            .revision()
            .is_some_and(|revision| revision.digest == wanted)
    }

    /// The state in force, where it is known in full.
    pub(crate) fn state(&self) -> Option<&State> {
        match &self.in_force {
            InForce::State(_, state) => Some(state),
            InForce::Unconnected | InForce::Unknown | InForce::Revision(_) => None,
        }
    }

    fn revision(&self) -> Option<Revision> {
        match &self.in_force {
            InForce::Revision(revision) => *revision,
            InForce::State(revision, _) => Some(*revision),
            InForce::Unconnected | InForce::Unknown => None,
        }
    }

    /// The next request, if one is due. The answer goes to [`Self::handle_response`].
    pub(crate) fn poll_request(&mut self, wanted: &Arc<State>, digest: Digest) -> Option<Request> {
        if self.under_way.is_some() || self.refused == Some(digest) {
            return None;
        }
        let (asked, request) = match &self.in_force {
            InForce::Unconnected => return None,
            InForce::Unknown => (Asked::Revision, Request::Revision),
            InForce::Revision(Some(revision)) if revision.digest == digest => return None,
            InForce::State(revision, _) if revision.digest == digest => return None,
            InForce::Revision(Some(_)) if !self.whole => (Asked::State, Request::State),
            InForce::State(revision, state) if !self.whole => {
                let changes = state.changes_to(wanted);
                let request = Request::Change {
                    from: revision.number,
                    changes,
                    digest,
                };
                (Asked::Apply(Arc::clone(wanted)), request)
            }
            InForce::Revision(_) | InForce::State(..) => {
                let state = Box::new(State::clone(wanted));
                (Asked::Apply(Arc::clone(wanted)), Request::Replace { state })
            }
        };
        self.under_way = Some(asked);
        Some(request)
    }

    /// Asks which watched peers are alive, unless something else is under way or no state is in force yet.
    pub(crate) fn poll_liveness(&mut self) -> Option<Request> {
        if self.under_way.is_some() || self.no_liveness || self.revision().is_none() {
            return None;
        }
        self.under_way = Some(Asked::Liveness);
        Some(Request::Liveness)
    }

    /// Asks which peers are in demand, unless something else is under way or no state is in force yet.
    pub(crate) fn poll_demand(&mut self) -> Option<Request> {
        if self.under_way.is_some() || self.no_demand || self.revision().is_none() {
            return None;
        }
        self.under_way = Some(Asked::Demand);
        Some(Request::Demand)
    }

    /// Asks for the node's own keys, unless something else is under way.
    pub(crate) fn poll_keys(&mut self) -> Option<Request> {
        if self.under_way.is_some() || self.no_keys || !self.is_connected() {
            return None;
        }
        self.under_way = Some(Asked::Keys);
        Some(Request::Keys)
    }

    /// Asks for other keys of the node, unless something else is under way or no state is in force yet.
    pub(crate) fn poll_new_keys(&mut self) -> Option<Request> {
        if self.under_way.is_some() || self.revision().is_none() {
            return None;
        }
        self.under_way = Some(Asked::NewKeys);
        Some(Request::NewKeys)
    }

    /// Takes the answer to the request under way.
    pub(crate) fn handle_response(&mut self, response: Response) -> Heard {
        match (self.under_way.take(), response) {
            (Some(Asked::Revision), Response::Revision(revision)) => {
                self.in_force = InForce::Revision(revision);
                Heard::Nothing
            }
            (Some(Asked::State), Response::State(state)) => {
                let revision = self.revision();
                // What came may be newer than the revision that was asked for.
                let known = state
                    .zip(revision)
                    .filter(|(state, at)| state.digest() == at.digest);
                self.in_force = match known {
                    Some((state, revision)) => InForce::State(revision, state.into()),
                    None => {
                        self.whole = true;
                        InForce::Unknown
                    }
                };
                Heard::InForce
            }
            (Some(Asked::Liveness), Response::Liveness(status)) => Heard::Liveness(status),
            (Some(Asked::Liveness), Response::Refused { .. }) => {
                self.no_liveness = true;
                Heard::Nothing
            }
            (Some(Asked::Demand), Response::Demand { peers }) => Heard::Demand(peers),
            (Some(Asked::Demand), Response::Refused { .. }) => {
                self.no_demand = true;
                Heard::Nothing
            }
            (Some(Asked::Keys), Response::Keys { public_keys, port }) => {
                Heard::Keys { public_keys, port }
            }
            (Some(Asked::Keys), Response::Refused { .. }) => {
                self.no_keys = true;
                Heard::Nothing
            }
            (Some(Asked::NewKeys), Response::NewKeys { .. }) => Heard::NewKeys,
            (Some(Asked::NewKeys), Response::Refused { reason, detail }) => {
                Heard::KeysStay { reason, detail }
            }
            (Some(Asked::Apply(state)), Response::Applied { revision, changed }) => {
                self.in_force = InForce::State(revision, state);
                self.whole = false;
                Heard::Applied {
                    revision: revision.number,
                    changed,
                }
            }
            (Some(Asked::Apply(state)), Response::Refused { reason, detail }) => {
                self.handle_refusal(&state, reason);
                Heard::Refused { reason, detail }
            }
            _ => Heard::OutOfOrder,
        }
    }

    fn handle_refusal(&mut self, state: &State, reason: Refusal) {
        match reason {
            // It restarted with another state, or somebody else set one: start over.
            Refusal::RevisionGap => self.in_force = InForce::Unknown,
            // The difference does not lead there, so the two disagree on what is in force.
            Refusal::DigestMismatch if !self.whole => self.whole = true,
            Refusal::DigestMismatch
            | Refusal::Malformed
            | Refusal::Protocol
            | Refusal::InvalidState
            | Refusal::NotTheAgent
            | Refusal::UnknownPeer
            | Refusal::GuardFailed
            | Refusal::NotPersisted
            | Refusal::KeyChangeGoingOn
            | Refusal::NoKeyChange => self.refused = Some(state.digest()),
        }
    }
}

#[cfg(test)]
mod tests;
