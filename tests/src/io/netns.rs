//! A named network namespace: run code or programs inside it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};

use super::process_ids;

/// A handle on a named network namespace (`ip netns`). Cloning it is cheap.
///
/// The handle keeps the namespace alive, but not its name: a lab removes the name when it ends.
#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
    file: Arc<File>,
    mark: Option<Arc<str>>,
}

impl Netns {
    /// The environment variable that marks every program started inside a lab, so that the janitor finds those that
    /// moved to another namespace.
    pub const MARK: &'static str = "HAWSER_LAB";

    /// Opens the namespace called `name`.
    ///
    /// # Errors
    /// When there is no such namespace.
    pub fn open(name: &str) -> Result<Self> {
        let path = PathBuf::from("/run/netns").join(name);
        let file = File::open(&path).with_context(|| format!("failed to open namespace {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            file: Arc::new(file),
            mark: None,
        })
    }

    /// The same namespace; programs started through the result carry `mark` in their environment.
    #[must_use]
    pub fn marked(mut self, mark: &str) -> Self {
        self.mark = Some(Arc::from(mark));
        self
    }

    /// Its name under `/run/netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a fresh thread inside the namespace and returns what it returned.
    ///
    /// Sockets made by `work` stay in the namespace and may be used from anywhere. A thread of its own, because a
    /// thread that changed its namespace must not go back to a pool.
    ///
    /// # Errors
    /// When the namespace cannot be entered. A panic of `work` is passed on.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let outcome = thread::scope(|scope| {
            scope
                .spawn(|| -> Result<T> {
                    setns(&self.file, CloneFlags::CLONE_NEWNET).with_context(|| {
                        format!("failed to enter namespace {} (root is needed)", self.name)
                    })?;
                    Ok(work())
                })
                .join()
        });
        match outcome {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// A command that runs `program` inside the namespace, with a /sys that shows the namespace's own devices.
    ///
    /// The process that is spawned becomes the program, so its process id is the program's.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        if let Some(mark) = &self.mark {
            command.env(Self::MARK, mark.as_ref());
        }
        command
    }

    /// Runs a program to its end and returns what it wrote to stdout.
    ///
    /// # Errors
    /// When it cannot be started, or ends with another exit code than 0: the text holds its stderr.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("failed to start {program}"))?;
        if !output.status.success() {
            bail!(
                "`{program} {}` in {} ended with {}: {}",
                arguments.join(" "),
                self.name,
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs many `ip` commands, one a line, in one process.
    ///
    /// # Errors
    /// The first command that fails stops the rest.
    pub fn ip_batch(&self, commands: &str) -> Result<()> {
        ip_batch(Some(&self.name), commands)
    }

    /// Reads a sysctl, dots or slashes between its words.
    ///
    /// # Errors
    /// When there is no such sysctl.
    pub fn sysctl_get(&self, key: &str) -> Result<String> {
        let path = sysctl_path(key);
        let text = self
            .run(|| fs::read_to_string(&path))?
            .with_context(|| format!("failed to read sysctl {key}"))?;
        Ok(text.trim().to_owned())
    }

    /// Writes a sysctl.
    ///
    /// # Errors
    /// When there is no such sysctl or the kernel refuses the value.
    pub fn sysctl_set(&self, key: &str, value: &str) -> Result<()> {
        let path = sysctl_path(key);
        self.run(|| fs::write(&path, value))?
            .with_context(|| format!("failed to write sysctl {key}={value}"))
    }

    /// The processes that live in the namespace, also when its name is gone already.
    ///
    /// # Errors
    /// When the handle cannot be read.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let metadata = self.file.metadata();
        let inode = metadata
            .with_context(|| format!("failed to read namespace {}", self.name))?
            .ino();
        let own = PathBuf::from(format!("net:[{inode}]"));
        let lives_here =
            |pid: &i32| fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|link| link == own);
        Ok(process_ids().into_iter().filter(lives_here).collect())
    }
}

/// Frames that the kernel had to send by a device and dropped, since the device was made.
///
/// # Errors
/// When there is no such device.
pub fn device_drops(netns: &Netns, device: &str) -> Result<u64> {
    // Eight numbers about receiving come first; drops are the fourth of those about sending.
    Ok(device_numbers(netns, device)?[11])
}

/// Bytes that a device has received and sent, since it was made.
///
/// # Errors
/// When there is no such device.
pub fn device_bytes(netns: &Netns, device: &str) -> Result<u64> {
    let numbers = device_numbers(netns, device)?;
    Ok(numbers[0] + numbers[8])
}

/// The numbers of a device in /proc/net/dev.
fn device_numbers(netns: &Netns, device: &str) -> Result<[u64; 16]> {
    let table = netns
        .run(|| fs::read_to_string("/proc/thread-self/net/dev"))?
        .context("failed to read /proc/net/dev")?;
    let found = table.lines().find_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        let numbers = numbers.split_whitespace().map(str::parse);
        let numbers: Vec<u64> = numbers.collect::<Result<_, _>>().ok()?;
        (name.trim() == device).then(|| numbers.try_into().ok())?
    });
    found.with_context(|| format!("no device {device} in {}", netns.name()))
}

/// Runs many `ip` commands in one process, inside namespace `netns` or in the current one.
pub(crate) fn ip_batch(netns: Option<&str>, commands: &str) -> Result<()> {
    use std::io::Write as _;

    if commands.trim().is_empty() {
        return Ok(());
    }
    let mut command = Command::new("ip");
    if let Some(name) = netns {
        command.args(["-n", name]);
    } else {
        // The lines are independent of each other there: one failure must not stop the rest.
        command.arg("-force");
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("failed to start ip (install iproute2)")?;
    let mut input = child
        .stdin
        .take()
        .ok_or_else(|| anyhow!("ip has no stdin"))?;
    input
        .write_all(commands.as_bytes())
        .context("failed to hand commands to ip")?;
    drop(input);
    let output = child.wait_with_output().context("failed to wait for ip")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let text: Vec<&str> = text.lines().map(str::trim).collect();
        // iproute2 names the line that failed: show the command itself.
        let line = text
            .iter()
            .find_map(|line| {
                line.strip_prefix("Command failed -:")
                    .and_then(|number| number.parse::<usize>().ok())
            })
            .and_then(|number| commands.lines().nth(number.saturating_sub(1)))
            .unwrap_or_default();
        bail!(
            "`ip {line}` failed in {}: {}",
            netns.unwrap_or("the host"),
            text.join("; ")
        );
    }
    Ok(())
}

fn sysctl_path(key: &str) -> PathBuf {
    let relative = if key.contains('/') {
        key.to_owned()
    } else {
        key.replace('.', "/")
    };
    PathBuf::from("/proc/sys").join(relative)
}
