//! The node's own keys change: when it is time, and what the data plane says to it.

use super::Node;
use crate::agent::rotation::Rotation;
use crate::config::NodeConfig;
use crate::io::key_age;
use crate::lot;
use hawser_tunnel::control::{Refusal, Request};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// With keys as old as they are.
pub(super) fn begin(config: &NodeConfig) -> Rotation {
    let folder = config.hub.as_ref().map(|hub| &hub.state_directory);
    let age = folder.map(|folder| key_age::age(folder, SystemTime::now()));
    let age = age.unwrap_or(Ok(Duration::ZERO)).unwrap_or_else(|error| {
        tracing::warn!(%error, "how old this node's keys are is not known; they count as new");
        Duration::ZERO
    });
    Rotation::new(config.key_rotation, age, lot::drawn(), Instant::now())
}

impl Node {
    /// Whether a hub is there, which tells others of this node's keys.
    pub(in crate::agent) fn set_heard(&mut self, is_heard: bool) {
        self.is_heard = is_heard;
    }

    /// Somebody wants other keys for this node.
    pub(in crate::agent) fn rotate(&mut self) {
        self.rotation.hurry(Instant::now());
    }

    /// Other keys, when it is time and others can hear of them.
    pub(super) fn poll_rotation(&mut self) -> Option<Request> {
        let is_heard = self.is_heard && self.announcement.is_told();
        if !self.rotation.is_due(is_heard, Instant::now()) {
            return None;
        }
        self.conversation.poll_new_keys()
    }

    pub(super) fn handle_new_keys(&mut self) {
        tracing::info!("this node has other keys; the old ones stay until its peers use the new");
        self.rotation.handle_done(Instant::now());
        if let Some(hub) = &self.config.hub
            && let Err(error) = key_age::note(&hub.state_directory)
        {
            tracing::warn!(%error, "that the keys changed cannot be noted; the next agent may change them early");
        }
        self.announcement.look_at_keys();
    }

    pub(super) fn handle_keys_stay(&mut self, reason: Refusal, detail: &str) {
        // The change before is not over as long as a peer is late.
        if reason == Refusal::KeyChangeGoingOn {
            tracing::debug!(detail, "keys are changed later");
        } else {
            tracing::warn!(?reason, detail, "keys are changed later");
        }
        self.rotation.handle_put_off(Instant::now());
    }
}
