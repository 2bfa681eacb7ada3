//! What hubs and agents say of themselves on their own sockets.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::hub::HUB_PORT;
use super::{Hub, Lab, Node, wait_until};

/// The longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(5);

impl Hub {
    /// Its status, with the digest of what other clusters may have of each origin.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self, lab: &Lab) -> Result<Value> {
        let state = lab.state_directory(self.cluster());
        // Replicas share the directory, and each listens on its own node, so the file names differ by more than the port.
        let path = state.join(format!("hub-{}-{HUB_PORT}.sock", self.node()));
        ask(&path, &json!({ "status": { "digest": true } }))
    }
}

impl Node {
    /// What its agent says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn agent_status(&self) -> Result<Value> {
        let mut reply = ask(&self.agent_socket(), &json!({ "status": {} }))?;
        Ok(reply["status"].take())
    }

    /// How it stands with the pre-shared keys of each peer, by its id, as the agent says.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn keys(&self) -> Result<BTreeMap<String, Value>> {
        let status = self.agent_status()?;
        let keys = status["keys"].as_array().context("no keys")?.iter();
        let by_id = |peer: &Value| {
            (
                peer["id"].as_str().unwrap_or_default().to_owned(),
                peer.clone(),
            )
        };
        Ok(keys.map(by_id).collect())
    }

    /// Has its agent derive other pre-shared keys with all peers.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn renew_keys(&self) -> Result<()> {
        let reply = ask(&self.agent_socket(), &json!({ "renewKeys": {} }))?;
        ensure!(reply["renewing"].is_object(), "the agent answered {reply}");
        Ok(())
    }

    /// Whether it has pre-shared keys with so many peers, and its data plane uses them.
    ///
    /// # Errors
    /// When one of the two does not answer.
    pub fn is_keyed(&self, peers: usize) -> Result<bool> {
        let keys = self.keys()?;
        let status = self.status()?;
        let told = status["peers"].as_array().context("no peers")?.iter();
        let lanes = told.flat_map(|peer| peer["lanes"].as_array().into_iter().flatten());
        Ok(keys.len() == peers
            && keys.values().all(|peer| peer["postQuantum"] != "none")
            && lanes
                .map(|lane| &lane["presharedKey"])
                .all(|used| *used == true))
    }

    /// Whether its agent has a hub.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn hub_connected(&self) -> Result<bool> {
        Ok(self.agent_status()?["hub"]["connected"] == true)
    }
}

impl Lab {
    /// Waits until all nodes have pre-shared keys with all others.
    ///
    /// # Errors
    /// When they do not in time.
    pub fn wait_keyed(&self, time: Duration) -> Result<()> {
        let peers = self.nodes().len() - 1;
        wait_until("pre-shared keys between all nodes", time, || {
            let mut nodes = self.nodes().iter();
            // An agent that has just started does not answer yet.
            Ok(nodes.all(|node| node.is_keyed(peers).unwrap_or(false)))
        })
    }

    /// Whether all hubs that live have the same of a cluster.
    ///
    /// # Errors
    /// When one of them does not answer.
    pub fn agree(&self, cluster: &str) -> Result<bool> {
        let mut digests = Vec::new();
        for hub in self.hubs().iter().filter(|hub| hub.pid().is_some()) {
            let status = hub.status(self)?;
            let origins = status["origins"].as_array().context("no origins")?;
            let origin = origins.iter().find(|origin| origin["name"] == cluster);
            let origin = origin
                .with_context(|| format!("the hub on {} has not heard of {cluster}", hub.node()))?;
            let digest = origin["digest"].as_str().context("no digest")?;
            digests.push((origin["complete"] == true).then(|| digest.to_owned()));
        }
        ensure!(!digests.is_empty(), "no hub lives");
        Ok(digests
            .iter()
            .all(|digest| digest.is_some() && *digest == digests[0]))
    }
}

fn ask(path: &Path, request: &Value) -> Result<Value> {
    let mut stream = UnixStream::connect(path)
        .with_context(|| format!("failed to connect to {}", path.display()))?;
    stream.set_read_timeout(Some(ANSWER))?;
    writeln!(stream, "{request}")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    serde_json::from_str(&line).with_context(|| format!("{} answered {line:?}", path.display()))
}
