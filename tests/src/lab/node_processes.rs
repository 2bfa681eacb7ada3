//! The programs of a node: tunnel and agent.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::binary;
use super::node::Node;
use super::node_config::NodeConfig;
use super::wait::wait_until;

/// How long the tunnel may take until it answers on its socket.
const TUNNEL_START: Duration = Duration::from_secs(10);

impl Node {
    /// The public WireGuard key of its first lane; made now if there was none.
    ///
    /// # Errors
    /// When `hawser-tunnel key` fails.
    pub fn public_key(&self) -> Result<String> {
        self.public_keys()?
            .into_iter()
            .next()
            .with_context(|| format!("node {} has no lane", self.name))
    }

    /// The public WireGuard keys of its lanes; made now where there were none.
    ///
    /// # Errors
    /// When `hawser-tunnel key` fails.
    pub fn public_keys(&self) -> Result<Vec<String>> {
        let program = self.tunnel_program()?;
        let directory = self.state_dir();
        fs::create_dir_all(&directory)
            .with_context(|| format!("failed to make {}", directory.display()))?;
        let (program, directory) = (program.to_string_lossy(), directory.to_string_lossy());
        let lanes = self.lanes.to_string();
        let arguments = ["key", "--state-dir", &directory, "--lanes", &lanes];
        let keys = self.netns.output(&program, &arguments)?;
        Ok(keys.lines().map(str::to_owned).collect())
    }

    /// Starts the tunnel and waits until its control socket answers.
    ///
    /// # Errors
    /// When it ends by itself or does not answer.
    pub fn start_keeper(&mut self) -> Result<()> {
        self.launch_keeper()?;
        let socket = self.tunnel_socket();
        let mut ended = None;
        wait_until(
            &format!("the tunnel of {} answers", self.name),
            TUNNEL_START,
            || {
                ended = self.keeper.check().err();
                Ok(ended.is_some() || UnixStream::connect(&socket).is_ok())
            },
        )?;
        ended.map_or(Ok(()), |error| {
            Err(error.context(format!("node {}", self.name)))
        })
    }

    /// Starts the tunnel and waits for nothing.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch_keeper(&mut self) -> Result<()> {
        let mut command = self.netns.command(self.tunnel_program()?);
        command
            .arg("run")
            .arg("--state-dir")
            .arg(self.state_dir())
            .arg("--socket")
            .arg(self.tunnel_socket());
        command.args([
            "--device",
            "hawser0",
            "--port",
            &self.underlay.port.to_string(),
        ]);
        if self.lanes > 1 {
            let (lanes, open) = (self.lanes.to_string(), self.open_lanes.to_string());
            command.args(["--lanes", &lanes, "--open-lanes", &open]);
        }
        for offload in &self.without {
            command.args(["--without", offload.name()]);
        }
        self.keeper
            .start(command)
            .with_context(|| format!("node {}", self.name))
    }

    /// Stops the tunnel by SIGTERM.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop_keeper(&mut self) -> Result<()> {
        self.keeper.end(Signal::SIGTERM)
    }

    /// Kills the keeper by SIGKILL.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill_keeper(&mut self) -> Result<()> {
        self.keeper.end(Signal::SIGKILL)
    }

    /// Stops and starts the tunnel.
    ///
    /// # Errors
    /// When either fails.
    pub fn restart_keeper(&mut self) -> Result<()> {
        self.stop_keeper()?;
        self.start_keeper()
    }

    /// Starts the agent on the node's node.yaml. What it does takes a moment: see [`Self::wait_ready`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_agent(&mut self) -> Result<()> {
        let mut command = self.netns.command(binary("hawser")?);
        command.args(["agent", "--config"]).arg(self.config_path());
        self.agent
            .start(command)
            .with_context(|| format!("node {}", self.name))
    }

    /// Stops the agent by SIGTERM.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop_agent(&mut self) -> Result<()> {
        self.agent.end(Signal::SIGTERM)
    }

    /// Kills the agent by SIGKILL.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill_agent(&mut self) -> Result<()> {
        self.agent.end(Signal::SIGKILL)
    }

    /// Stops and starts the agent.
    ///
    /// # Errors
    /// When either fails.
    pub fn restart_agent(&mut self) -> Result<()> {
        self.stop_agent()?;
        self.start_agent()
    }

    /// Tells the agent to read its node.yaml again.
    ///
    /// # Errors
    /// When no agent runs.
    pub fn reload_agent(&self) -> Result<()> {
        self.agent.signal(Signal::SIGHUP)
    }

    /// The keeper's process id, while it lives.
    #[must_use]
    pub fn keeper_pid(&self) -> Option<i32> {
        self.keeper.pid()
    }

    /// The agent's process id, while it lives.
    #[must_use]
    pub fn agent_pid(&self) -> Option<i32> {
        self.agent.pid()
    }

    /// Fails with its last words if the agent ended by itself.
    ///
    /// # Errors
    /// When it is dead.
    pub fn check_agent(&self) -> Result<()> {
        self.agent
            .check()
            .with_context(|| format!("node {}", self.name))
    }

    /// What the agent has logged so far, over all its runs.
    #[must_use]
    pub fn agent_log(&self) -> String {
        self.agent.log_text()
    }

    /// What keeper and data plane have logged so far, over all their runs.
    #[must_use]
    pub fn keeper_log(&self) -> String {
        self.keeper.log_text()
    }

    /// A `hawser` command inside the node's namespace.
    ///
    /// # Errors
    /// When `hawser` has not been built.
    pub fn hawser(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.netns.command(binary("hawser")?);
        command.args(arguments);
        Ok(command)
    }

    /// `hawser capture` of `stage` (`geneve`, `plain` or `both`) into `file`.
    ///
    /// # Errors
    /// When `hawser` has not been built.
    pub fn capture_command(
        &self,
        stage: &str,
        count: u32,
        seconds: u32,
        file: &Path,
    ) -> Result<Command> {
        let mut command = self.hawser(&["capture"])?;
        command
            .arg("--socket")
            .arg(self.tunnel_socket())
            .args(["--stage", stage]);
        command
            .args([
                "--count",
                &count.to_string(),
                "--seconds",
                &seconds.to_string(),
                "-w",
            ])
            .arg(file);
        Ok(command)
    }

    /// `hawser status -o json`.
    ///
    /// # Errors
    /// When it fails, or writes something else than JSON.
    pub fn status(&self) -> Result<Value> {
        let mut command = self.hawser(&["status", "-o", "json", "--socket"])?;
        let output = command
            .arg(self.tunnel_socket())
            .output()
            .context("failed to start hawser")?;
        if !output.status.success() {
            bail!(
                "hawser status on {}: {}",
                self.name,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("hawser status on {} is not JSON", self.name))
    }

    /// Whether at least `peers` peers are known and every lane of every peer has had a handshake.
    ///
    /// # Errors
    /// When the status cannot be had.
    pub fn is_ready(&self, peers: usize) -> Result<bool> {
        let status = self.status()?;
        let known = status
            .get("peers")
            .and_then(Value::as_array)
            .context("status without peers")?;
        let shaken = |lane: &Value| {
            ["handshakeAgeMs", "handshake_age_ms"]
                .iter()
                .any(|key| lane.get(key).is_some_and(|age| !age.is_null()))
        };
        // Further lanes shake hands when a flow goes by them.
        let up = |peer: &Value| {
            let lanes = peer.get("lanes").and_then(Value::as_array);
            lanes.and_then(|lanes| lanes.first()).is_some_and(shaken)
        };
        Ok(known.len() >= peers && known.iter().all(up))
    }

    /// Waits until [`Self::is_ready`], then until the routes to the pods have a source.
    ///
    /// # Errors
    /// When `timeout` passes, or a program ended by itself.
    pub fn wait_ready(&self, peers: usize, timeout: Duration) -> Result<()> {
        let mut ended = None;
        wait_until(
            &format!("{} has a handshake with {peers} peers", self.name),
            timeout,
            || {
                ended = self.keeper.check().and_then(|()| self.agent.check()).err();
                Ok(ended.is_some() || self.is_ready(peers)?)
            },
        )?;
        if let Some(error) = ended {
            return Err(error.context(format!("node {}", self.name)));
        }
        wait_until(
            &format!("{} has its router addresses", self.name),
            timeout,
            || self.route_pods().map(|()| true),
        )
    }

    /// Its node.yaml as it is now.
    ///
    /// # Errors
    /// When it is missing or not as [`NodeConfig`] describes it.
    pub fn config(&self) -> Result<NodeConfig> {
        let path = self.config_path();
        let text = fs::read_to_string(&path)
            .with_context(|| format!("failed to read {}", path.display()))?;
        serde_saphyr::from_str(&text).with_context(|| format!("failed to parse {}", path.display()))
    }

    /// Replaces its node.yaml in one step. A running agent sees that the file changed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_config(&self, config: &NodeConfig) -> Result<()> {
        let text = serde_saphyr::to_string(config).context("failed to write node.yaml")?;
        self.write_config_text(&text)
    }

    /// The same with any text, for configurations that are wrong on purpose.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_config_text(&self, text: &str) -> Result<()> {
        let (path, draft) = (self.config_path(), self.dir().join("node.yaml.new"));
        fs::write(&draft, text).with_context(|| format!("failed to write {}", draft.display()))?;
        fs::rename(&draft, &path).with_context(|| format!("failed to write {}", path.display()))
    }

    /// Changes its node.yaml.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn edit_config(&self, edit: impl FnOnce(&mut NodeConfig)) -> Result<()> {
        let mut config = self.config()?;
        edit(&mut config);
        self.write_config(&config)
    }
}
