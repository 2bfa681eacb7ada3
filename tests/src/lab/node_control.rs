//! What a node's data plane says on its control socket, without the `hawser` program between.

use anyhow::{Context as _, Result, bail};
use hawser_tunnel::control::{Request, Response, Role};
use hawser_tunnel::io::control_client::ControlClient;
use hawser_tunnel::reject::Reject;
use hawser_tunnel::status::Counters;

use super::node::Node;

impl Node {
    /// A connection to the data plane, as an operator.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn control(&self) -> Result<ControlClient> {
        ControlClient::connect(&self.tunnel_socket(), Role::Operator)
            .with_context(|| format!("node {}", self.name))
    }

    /// Packets, bytes and drops so far.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn counters(&self) -> Result<Counters> {
        let response = self.control()?.request(&Request::Counters)?;
        let Response::Counters(counters) = response else {
            bail!("node {}: asked for counters, got {response:?}", self.name);
        };
        Ok(counters)
    }

    /// How much was dropped for a reason.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn dropped(&self, reason: Reject) -> Result<u64> {
        let counters = self.counters()?;
        Ok(counters.drops.get(reason.name()).copied().unwrap_or(0))
    }

    /// Has the node shake hands anew with all its peers; returns with how many.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn rekey(&self) -> Result<usize> {
        let response = self.control()?.request(&Request::Rekey { peer: None })?;
        let Response::Rekeying { lanes } = response else {
            bail!("node {}: asked for new keys, got {response:?}", self.name);
        };
        Ok(lanes)
    }

    /// Has the node change its WireGuard keys; returns the new public ones, one a lane.
    ///
    /// # Errors
    /// When nobody answers, or the change before still goes on.
    pub fn new_keys(&self) -> Result<Vec<String>> {
        let response = self.control()?.request(&Request::NewKeys)?;
        let Response::NewKeys { public_keys } = response else {
            bail!("node {}: asked for new keys, got {response:?}", self.name);
        };
        Ok(public_keys)
    }

    /// Handshakes that led to a session since the data plane started, with all peers together.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn handshakes(&self) -> Result<u64> {
        let response = self.control()?.request(&Request::Status)?;
        let Response::Status(status) = response else {
            bail!("node {}: asked for its status, got {response:?}", self.name);
        };
        let lanes = status.peers.iter().flat_map(|peer| &peer.lanes);
        Ok(lanes.map(|lane| lane.handshakes).sum())
    }
}
