//! Asks a running hub on its socket.

use crate::hub::admin::Request;
use crate::io::secret_file::reason;
use clap::Args;
use serde_json::Value;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// Longer than a hub takes that asks another one.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which hub.
#[derive(Debug, Args)]
pub(super) struct HubSocket {
    /// The hub's state directory, or its socket there.
    #[arg(long = "hub", value_name = "PATH", default_value = crate::config::hub_yaml::DEFAULT_STATE_DIRECTORY)]
    path: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// No hub is there.
    #[error("--hub: {}: no hub answers there ({why}); start `hawser hub`, or name its state directory", path.display())]
    Silent {
        /// As given.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// The hub says no.
    #[error("{text} [{reason}]")]
    Refused {
        /// One line.
        text: String,
        /// Its name.
        reason: String,
    },
    /// It ended meanwhile, or speaks otherwise.
    #[error("--hub: {}: the hub gave no answer ({why}); look at its log, and ask again", path.display())]
    Broken {
        /// As given.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl HubSocket {
    /// Asks, and takes the answer's part of this name.
    pub(super) fn ask(&self, request: &Request, part: &str) -> Result<Value, AskError> {
        let broken = |why: String| AskError::Broken {
            path: self.path.clone(),
            why,
        };
        let stream = self.connect()?;
        // There may be a token in it.
        let line = serde_json::to_string(request).map_err(|error| broken(error.to_string()))?;
        let answer = converse(&stream, &Zeroizing::new(line));
        let answer = answer.map_err(|error| broken(reason(&error)))?;
        let mut answer: Value =
            serde_json::from_str(&answer).map_err(|_| broken("it is no JSON".to_owned()))?;
        if let Some(text) = answer["error"].as_str() {
            let reason = answer["reason"].as_str().unwrap_or("unknown").to_owned();
            let text = text.to_owned();
            return Err(AskError::Refused { text, reason });
        }
        match answer.get_mut(part) {
            Some(value) => Ok(value.take()),
            None => Err(broken(format!("it has no {part}"))),
        }
    }

    fn connect(&self) -> Result<UnixStream, AskError> {
        let silent = |error: io::Error| AskError::Silent {
            path: self.path.clone(),
            why: reason(&error),
        };
        if !self.path.is_dir() {
            return UnixStream::connect(&self.path).map_err(silent);
        }
        let mut last = io::ErrorKind::NotFound.into();
        for socket in sockets(&self.path).map_err(silent)? {
            match UnixStream::connect(&socket) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(silent(last))
    }
}

/// The sockets of a hub's replicas; those of dead ones are among them.
fn sockets(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut sockets = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with("hub-") && name.ends_with(".sock")) {
            sockets.push(path);
        }
    }
    sockets.sort();
    Ok(sockets)
}

fn converse(mut stream: &UnixStream, line: &str) -> io::Result<Zeroizing<String>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(line.as_bytes())?;
    stream.write_all(b"\n")?;
    let mut answer = Zeroizing::new(String::new());
    BufReader::new(stream).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}
