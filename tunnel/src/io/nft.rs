//! The guard tables in the kernel, by way of the program `nft`.
//!
//! Every write is one transaction, so there is no moment without a guard, and several processes may do this at
//! once: the agent before anything else, the keeper when somebody tampers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use nix::net::if_::if_nameindex;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::guard::{self, Counts, FAMILIES, Guard, Listing, TABLE};

/// Loading 5,000 prefixes takes 1 to 3 s; a program that needs this long will not answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// What [`Nft::ensure_guard`] had to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ensured {
    /// The tables stood as they should; nothing was written.
    Unchanged,
    /// The tables were written.
    Written,
}

/// Why the guard could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NftError {
    /// There is no such program.
    #[error("nft: the program {} was not found: install the package nftables", program.display())]
    Missing {
        /// The program that was looked for.
        program: PathBuf,
    },
    /// The program could not be run.
    #[error("nft: failed to run {}", program.display())]
    Run {
        /// The program that was run.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The program did not end in time and was killed.
    #[error("nft: no answer within {} seconds", DEADLINE.as_secs())]
    Deadline,
    /// The program ended with an error.
    #[error("nft: {message}")]
    Refused {
        /// The program's own words, on one line.
        message: String,
    },
    /// The program printed something that is not its own JSON.
    #[error("nft: answer not understood")]
    Answer(#[source] serde_json::Error),
    /// The network devices could not be listed.
    #[error("failed to list network devices")]
    Devices(#[source] nix::Error),
}

/// Reads and writes the guard tables of the network namespace that the calling thread is in.
#[derive(Debug)]
pub struct Nft {
    program: PathBuf,
    /// How this `nft` lists what was last written, kept only when it uses other words than the plan. Without it,
    /// a release of nft with a new spelling would have us write the same tables for ever.
    dialect: Mutex<Option<(Guard, Listing)>>,
}

impl Default for Nft {
    fn default() -> Self {
        Self::with_program("nft")
    }
}

impl Nft {
    /// Uses another program than the `nft` found in `PATH`.
    #[must_use]
    pub fn with_program(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            dialect: Mutex::new(None),
        }
    }

    /// Makes the guard tables what `guard` asks for; writes nothing if they are so already.
    ///
    /// Counters keep their values over a repair, unless the tables were gone altogether.
    ///
    /// # Errors
    /// When `nft` is missing, silent, or refuses; the tables are then as they were.
    pub fn ensure_guard(&self, guard: &Guard) -> Result<Ensured, NftError> {
        let present = present_devices()?;
        let found = self.observe()?;
        if self.stands(&found, guard, &present) {
            return Ok(Ensured::Unchanged);
        }
        self.write(guard, &present, found.counts())?;
        let written = self.observe()?;
        if !self.stands(&written, guard, &present) {
            self.learn(guard, &present, written)?;
        }
        Ok(Ensured::Written)
    }

    /// Tells whether the tables are what `guard` asks for, and changes nothing.
    ///
    /// # Errors
    /// As [`Self::ensure_guard`].
    pub fn guard_stands(&self, guard: &Guard) -> Result<bool, NftError> {
        Ok(self.stands(&self.observe()?, guard, &present_devices()?))
    }

    /// Removes the guard tables, whether they exist or not.
    ///
    /// # Errors
    /// As [`Self::ensure_guard`].
    pub fn remove_guard(&self) -> Result<(), NftError> {
        self.apply(&json!({ "nftables": guard::clear() }))
    }

    /// Returns how many packets each named counter of the guard has dropped; empty while there is no guard.
    ///
    /// # Errors
    /// As [`Self::ensure_guard`].
    pub fn guard_drops(&self) -> Result<BTreeMap<String, u64>, NftError> {
        let mut drops = BTreeMap::new();
        for family in FAMILIES {
            let answer = self.list(&["-j", "list", "counters", "table", family, TABLE])?;
            let objects =
                guard::objects_of(&answer.unwrap_or_else(|| b"{\"nftables\":[]}".to_vec()));
            let listing = Listing::new(objects.map_err(NftError::Answer)?);
            for ((_, name), (packets, _)) in listing.counts() {
                drops.insert(name.clone(), *packets);
            }
        }
        Ok(drops)
    }

    /// Reads one table; `None` if it does not exist.
    ///
    /// # Errors
    /// As [`Self::ensure_guard`].
    pub fn read(&self, family: &str) -> Result<Option<Vec<Value>>, NftError> {
        let Some(answer) = self.list(&["-j", "list", "table", family, TABLE])? else {
            return Ok(None);
        };
        let mut objects = guard::objects_of(&answer).map_err(NftError::Answer)?;
        if family == "netdev" {
            let text = self.list(&["-t", "list", "table", family, TABLE])?;
            let text = text.unwrap_or_default();
            guard::name_devices(&mut objects, &String::from_utf8_lossy(&text));
        }
        Ok(Some(objects))
    }

    /// Runs one transaction.
    ///
    /// # Errors
    /// As [`Self::ensure_guard`].
    pub fn apply(&self, batch: &Value) -> Result<(), NftError> {
        self.run(&["-j", "-f", "-"], batch.to_string().into_bytes())
            .map(drop)
    }

    /// What stands now. A table that nft cannot list counts as absent: somebody tampered, and it is written anew.
    fn observe(&self) -> Result<Listing, NftError> {
        let mut objects = Vec::new();
        for family in FAMILIES {
            match self.read(family) {
                Ok(found) => objects.extend(found.unwrap_or_default()),
                Err(NftError::Refused { .. } | NftError::Answer(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Listing::new(objects))
    }

    fn stands(&self, found: &Listing, guard: &Guard, present: &BTreeSet<String>) -> bool {
        let dialect = self.dialect.lock().unwrap_or_else(PoisonError::into_inner);
        let known = dialect
            .as_ref()
            .is_some_and(|(of, listing)| of == guard && listing.says_the_same(found));
        known || found.is_in_force(guard, present)
    }

    fn write(
        &self,
        guard: &Guard,
        present: &BTreeSet<String>,
        counts: &Counts,
    ) -> Result<(), NftError> {
        let whole = self.apply(&guard::plan(guard, &guard.underlay).batch(counts));
        match whole {
            // An older kernel wants every device to exist.
            Err(NftError::Refused { .. }) if !guard.underlay.is_subset(present) => {
                self.apply(&guard::plan(guard, present).batch(counts))
            }
            done => done,
        }
    }

    /// Takes what nft lists after a write for the plan in its own spelling, if it says so twice and names the
    /// same objects; anything else is somebody else's doing, and the next look at it repairs it.
    fn learn(
        &self,
        guard: &Guard,
        present: &BTreeSet<String>,
        first: Listing,
    ) -> Result<(), NftError> {
        self.write(guard, present, first.counts())?;
        let second = self.observe()?;
        let expected = guard::plan(guard, &second.devices()).listing();
        if !second.says_the_same(&first) || !second.names_the_same(&expected) {
            return Ok(());
        }
        tracing::warn!("nft lists the guard in other words than it was written in");
        *self.dialect.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((guard.clone(), second));
        Ok(())
    }

    /// Runs a listing; `None` if what it names does not exist.
    fn list(&self, arguments: &[&str]) -> Result<Option<Vec<u8>>, NftError> {
        match self.run(arguments, Vec::new()) {
            Ok(output) => Ok(Some(output)),
            Err(NftError::Refused { message }) if message.contains("No such file or directory") => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn run(&self, arguments: &[&str], input: Vec<u8>) -> Result<Vec<u8>, NftError> {
        let program = || self.program.clone();
        let mut command = Command::new(&self.program);
        command.args(arguments).env("LC_ALL", "C");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| {
            let program = program();
            if source.kind() == io::ErrorKind::NotFound {
                NftError::Missing { program }
            } else {
                NftError::Run { program, source }
            }
        })?;
        let pid = Pid::from_raw(child.id().cast_signed());
        let (answer, answered) = mpsc::sync_channel(1);
        let feed = move || {
            // A program that ends early closes its input; its message says why.
            let _ = child.stdin.take().map(|mut stdin| stdin.write_all(&input));
            let _ = answer.send(child.wait_with_output());
        };
        thread::Builder::new()
            .name("nft".to_owned())
            .spawn(feed)
            .map_err(|source| {
                let _ = kill(pid, Signal::SIGKILL);
                let program = program();
                NftError::Run { program, source }
            })?;
        let Ok(output) = answered.recv_timeout(DEADLINE) else {
            let _ = kill(pid, Signal::SIGKILL);
            return Err(NftError::Deadline);
        };
        let output = output.map_err(|source| NftError::Run {
            program: program(),
            source,
        })?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(NftError::Refused {
            message: first_error(&output),
        })
    }
}

/// The line of nft's complaint that says what is wrong.
fn first_error(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text
        .lines()
        .find_map(|line| line.split_once("Error: "))
        .map(|(_, message)| message.trim());
    let line = line.or_else(|| text.lines().map(str::trim).find(|line| !line.is_empty()));
    line.map_or_else(|| format!("ended with {}", output.status), str::to_owned)
}

fn present_devices() -> Result<BTreeSet<String>, NftError> {
    let devices = if_nameindex().map_err(NftError::Devices)?;
    Ok(devices
        .iter()
        .map(|device| device.name().to_string_lossy().into_owned())
        .collect())
}
