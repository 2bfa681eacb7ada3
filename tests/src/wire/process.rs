//! The process that holds the wires of a lab (`lab wire`): one thread a wire, and one for requests.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, anyhow};

use super::{Answer, Request, WireState};

mod carrier;

use carrier::Carrier;

/// Where the process that holds the wires of a lab listens.
#[must_use]
pub fn socket(lab: &Path) -> PathBuf {
    lab.join("wire.sock")
}

/// The fate log of a node's wire.
#[must_use]
pub fn fate_log(lab: &Path, node: &str) -> PathBuf {
    lab.join(format!("wire-{node}.fates"))
}

type Carriers = Mutex<BTreeMap<String, Arc<Carrier>>>;

/// Holds the wires of the lab whose files are in `lab`, until the process is ended by a signal.
///
/// # Errors
/// When its socket cannot be made.
pub fn run(lab: &Path) -> Result<()> {
    let path = socket(lab);
    if path.exists() {
        fs::remove_file(&path).with_context(|| format!("failed to remove {}", path.display()))?;
    }
    let listener =
        UnixListener::bind(&path).with_context(|| format!("failed to bind {}", path.display()))?;
    let carriers: Arc<Carriers> = Arc::default();
    loop {
        let (stream, _) = listener.accept().context("failed to accept a request")?;
        let (carriers, lab) = (Arc::clone(&carriers), lab.to_owned());
        thread::Builder::new()
            .name("wire-control".into())
            // A client that went away is no error of ours.
            .spawn(move || serve(&stream, &carriers, &lab).ok())
            .context("failed to start a thread")?;
    }
}

fn serve(stream: &UnixStream, carriers: &Carriers, lab: &Path) -> Result<()> {
    let mut writer = stream;
    for line in BufReader::new(stream).lines() {
        let request = serde_json::from_str(&line.context("failed to read a request")?);
        let answer = request
            .context("request: must be one of this program's own version")
            .and_then(|request: Request| execute(request, carriers, lab));
        let answer = match answer {
            Ok(state) => Answer::State(Box::new(state)),
            Err(error) => Answer::Error(format!("{error:#}")),
        };
        let mut text = serde_json::to_string(&answer).context("failed to write an answer")?;
        text.push('\n');
        writer
            .write_all(text.as_bytes())
            .context("failed to answer")?;
    }
    Ok(())
}

fn execute(request: Request, carriers: &Carriers, lab: &Path) -> Result<WireState> {
    let mut all = lock(carriers);
    if let Request::Attach(node, attach) = request {
        let carrier = match all.get(&node) {
            Some(carrier) => Arc::clone(carrier),
            None => {
                let log = fate_log(lab, &node);
                let carrier = Carrier::start(&node, log, &attach)?;
                all.insert(node, Arc::clone(&carrier));
                carrier
            }
        };
        drop(all);
        return carrier.attach(&attach);
    }
    let carrier = all.get(request.node()).cloned();
    drop(all);
    carrier
        .ok_or_else(|| anyhow!("node {}: it has no wire", request.node()))?
        .execute(&request)
}

/// A thread that panicked with the lock has left what it guards as good as it was.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
