//! Clusters of a lab join each other as their operators would have them: by `hawser invite` and `hawser join`.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{Lab, binary, wait_until};

/// How long a hub on a busy machine may take until it answers.
const READY: Duration = Duration::from_secs(30);

impl Lab {
    /// Has each cluster invite every one that follows it, which joins.
    ///
    /// # Errors
    /// What a hub refuses, or that one does not answer.
    pub(super) fn join_clusters(&self) -> Result<()> {
        let names = self.topology().clusters.iter();
        let names: Vec<&str> = names.map(|cluster| cluster.name.as_str()).collect();
        for name in &names {
            let hubs = || self.hubs().iter().filter(|hub| hub.cluster() == *name);
            let mut ended = None;
            wait_until("a hub answers", READY, || {
                ended = hubs().try_for_each(|hub| hub.check()).err();
                Ok(ended.is_some() || self.members(name).is_ok())
            })?;
            ended.map_or(Ok(()), Err)?;
        }
        let grant: &[&str] = if self.topology().revoking {
            &["--may-revoke"]
        } else {
            &[]
        };
        for (at, inviting) in names.iter().enumerate() {
            for joining in &names[at + 1..] {
                let token = self.ask_hub(inviting, &[&["invite", joining], grant].concat(), "")?;
                let words = [&["join", "-", "--yes"], grant].concat();
                self.ask_hub(joining, &words, &token)?;
            }
        }
        Ok(())
    }

    /// Gives each node a token of its cluster's hub, by which it gets its certificate.
    ///
    /// # Errors
    /// When a hub's files are of no use, or the file cannot be written.
    pub(super) fn give_tokens(&self) -> Result<()> {
        for node in self.nodes() {
            let mut hubs = self.hubs().iter();
            let hub = hubs.find(|hub| hub.cluster() == node.cluster());
            let hub = hub.with_context(|| format!("{} has no hub", node.cluster()))?;
            let output = Command::new(binary("hawser")?)
                .arg("node-token")
                .arg("--config")
                .arg(hub.config_path())
                .arg(node.name())
                .output()
                .context("failed to start hawser")?;
            let complaint = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "hawser node-token: {complaint}");
            let path = node.token_path();
            let mut file = File::options();
            let file = file.write(true).create(true).truncate(true).mode(0o600);
            let written = file
                .open(&path)
                .and_then(|mut file| file.write_all(&output.stdout));
            written.with_context(|| format!("failed to write {}", path.display()))?;
        }
        Ok(())
    }

    /// Has a cluster's hub cut off a member or a node (`hawser revoke`).
    ///
    /// # Errors
    /// What it complains of.
    pub fn revoke(&self, cluster: &str, name: &str) -> Result<String> {
        self.ask_hub(cluster, &["revoke", name], "")
    }

    /// Has a cluster's hub let in again whom it cut off (`hawser readmit`).
    ///
    /// # Errors
    /// What it complains of.
    pub fn readmit(&self, cluster: &str, name: &str) -> Result<String> {
        self.ask_hub(cluster, &["readmit", name], "")
    }

    /// Has a cluster's hub roll its CA (`hawser ca roll`).
    ///
    /// # Errors
    /// What it complains of.
    pub fn roll_ca(&self, cluster: &str) -> Result<String> {
        self.ask_hub(cluster, &["ca", "roll"], "")
    }

    /// Has it trust the old one no longer (`hawser ca retire`).
    ///
    /// # Errors
    /// What it complains of.
    pub fn retire_ca(&self, cluster: &str) -> Result<String> {
        self.ask_hub(cluster, &["ca", "retire"], "")
    }

    /// What a cluster's hub says of the others (`hawser clusters list`).
    ///
    /// # Errors
    /// When no hub of it answers.
    pub fn members(&self, cluster: &str) -> Result<Vec<Value>> {
        let text = self.ask_hub(cluster, &["clusters", "list", "-o", "json"], "")?;
        serde_json::from_str(&text).context("hawser clusters list: no JSON")
    }

    /// Runs `hawser` against a cluster's hub, with `input`; returns what it prints.
    ///
    /// # Errors
    /// What it complains of.
    fn ask_hub(&self, cluster: &str, words: &[&str], input: &str) -> Result<String> {
        let mut child = Command::new(binary("hawser")?)
            .args(words)
            .arg("--hub")
            .arg(self.state_directory(cluster))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("failed to start hawser")?;
        let stdin = child.stdin.take();
        let mut stdin = stdin.context("no standard input")?;
        // One that complains early does not read.
        let unread = stdin.write_all(input.as_bytes()).err();
        drop(stdin);
        let output = child.wait_with_output().context("failed to run hawser")?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!(
                "hawser {} in {cluster}: {}",
                words.join(" "),
                complaint.trim()
            );
        }
        ensure!(
            unread.is_none(),
            "hawser {} reads no token",
            words.join(" ")
        );
        String::from_utf8(output.stdout).context("hawser prints no text")
    }
}
