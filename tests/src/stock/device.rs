//! One device of somebody else's WireGuard: its program, its key, and what `wg` says and is told.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use super::Implementation;
use crate::io::Netns;
use crate::lab::{Process, wait_until};

/// Where userspace implementations put their sockets, by the name of the device.
const SOCKETS: &str = "/var/run/wireguard";
/// How long a program may take to answer `wg`.
const START: Duration = Duration::from_secs(10);

/// A TUN device and the program that carries it. Dropping it ends the program, and the device goes with it.
#[derive(Debug)]
pub(crate) struct StockDevice {
    implementation: Implementation,
    /// For errors.
    owner: String,
    /// Its name. Namespaces share the folder of the sockets, so it must be unique on the machine.
    device: String,
    port: u16,
    netns: Netns,
    directory: PathBuf,
    public_key: String,
    process: Process,
}

impl StockDevice {
    /// Makes its key in `directory` and starts its program. The device is down, listens, and knows nobody.
    pub(crate) fn start(
        implementation: Implementation,
        owner: &str,
        netns: &Netns,
        (device, port): (&str, u16),
        directory: &Path,
    ) -> Result<Self> {
        fs::create_dir_all(directory)
            .with_context(|| format!("failed to make {}", directory.display()))?;
        let mut made = Self {
            implementation,
            owner: owner.to_owned(),
            device: device.to_owned(),
            port,
            netns: netns.clone(),
            directory: directory.to_owned(),
            public_key: String::new(),
            process: Process::new(directory, implementation.name()),
        };
        let private = made.wg(&["genkey"], "")?;
        write_secret(&made.private_key(), &private)?;
        made.public_key = made.wg(&["pubkey"], &private)?.trim().to_owned();
        made.run()?;
        Ok(made)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.device
    }

    /// Its public key, as `wg` writes it.
    pub(crate) fn public_key(&self) -> &str {
        &self.public_key
    }

    /// Its program's process, while it lives.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.process.pid()
    }

    /// What its program has logged so far.
    pub(crate) fn log(&self) -> String {
        self.process.log_text()
    }

    /// Ends its program by `signal` and starts it again with the same key. Address, routes and peers are gone then.
    pub(crate) fn restart(&mut self, signal: Signal) -> Result<()> {
        self.process.end(signal)?;
        self.run()
    }

    fn private_key(&self) -> PathBuf {
        self.directory.join("private.key")
    }

    fn run(&mut self) -> Result<()> {
        let program = self.implementation.program()?;
        self.remove_socket();
        let mut command = self.netns.command(program);
        command
            .args(self.implementation.foreground())
            .arg(&self.device)
            .env("LOG_LEVEL", "error");
        self.process.start(command)?;
        let mut ended = None;
        wait_until(&format!("{} answers wg", self.owner), START, || {
            ended = self.process.check().err();
            Ok(ended.is_some() || self.wg(&["show", &self.device], "").is_ok())
        })?;
        if let Some(error) = ended {
            return Err(error.context(format!("{}: {}", self.owner, self.log())));
        }
        let (key, port) = (
            self.private_key().display().to_string(),
            self.port.to_string(),
        );
        self.set(&["private-key", &key, "listen-port", &port])
    }

    /// `wg set` of this device.
    pub(crate) fn set(&self, words: &[&str]) -> Result<()> {
        let words = [&["set", &self.device], words].concat();
        self.wg(&words, "").map(drop)
    }

    /// Runs `wg` in the namespace and returns what it wrote.
    pub(crate) fn wg(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = self.netns.command("wg");
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("failed to start wg")?;
        let mut stdin = child.stdin.take().context("wg has no stdin")?;
        // A command that reads nothing may have closed it already.
        stdin.write_all(input.as_bytes()).ok();
        drop(stdin);
        let output = child.wait_with_output().context("failed to wait for wg")?;
        if !output.status.success() {
            bail!(
                "`wg {}` for {}: {}",
                arguments.first().unwrap_or(&""),
                self.owner,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A killed program leaves its socket behind, outside of every namespace.
    fn remove_socket(&self) {
        fs::remove_file(Path::new(SOCKETS).join(format!("{}.sock", self.device))).ok();
    }
}

impl Drop for StockDevice {
    fn drop(&mut self) {
        if let Err(error) = self.process.end(Signal::SIGTERM) {
            writeln!(std::io::stderr(), "warning: {}: {error:#}", self.owner).ok();
        }
        self.remove_socket();
    }
}

/// Writes a file that only its owner reads.
pub(super) fn write_secret(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;

    let mut file = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("failed to make {}", path.display()))?;
    file.write_all(text.trim().as_bytes())
        .with_context(|| format!("failed to write {}", path.display()))
}
