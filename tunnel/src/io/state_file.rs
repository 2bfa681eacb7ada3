//! The last state on disk, so that a node comes up as it was with nobody to ask.

use crate::state::{Revision, State};
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The version of the file's form; another one is set aside, not guessed at.
const SCHEMA: u32 = 1;

/// Where the state is kept.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
}

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    schema: u32,
    /// Number and digest.
    pub revision: Revision,
    /// The state.
    pub state: State,
}

/// What was found on disk.
#[derive(Debug)]
pub enum Found {
    /// No file.
    Nothing,
    /// A state.
    State(Box<Kept>),
    /// A file that is no state of ours; it was set aside under this name.
    SetAside {
        /// Where it is now.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

enum Read {
    Nothing,
    State(Box<Kept>),
    Unusable(String),
}

impl StateFile {
    /// The file of a state directory.
    pub fn new(directory: &Path) -> Self {
        Self {
            path: directory.join("state.json"),
        }
    }

    /// Reads the state. A file that cannot be used is set aside so that it can be looked at.
    pub fn load(&self) -> io::Result<Found> {
        match self.read()? {
            Read::Nothing => Ok(Found::Nothing),
            Read::State(kept) => Ok(Found::State(kept)),
            Read::Unusable(reason) => {
                let path = self.path.with_extension("json.refused");
                fs::rename(&self.path, &path)?;
                Ok(Found::SetAside { path, reason })
            }
        }
    }

    /// Reads the state and touches nothing.
    pub fn peek(&self) -> io::Result<Option<State>> {
        match self.read()? {
            Read::State(kept) => Ok(Some(kept.state)),
            Read::Nothing | Read::Unusable(_) => Ok(None),
        }
    }

    fn read(&self) -> io::Result<Read> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Read::Nothing),
            Err(error) => return Err(error),
        };
        let reason = match serde_json::from_slice::<Kept>(&bytes) {
            Ok(kept) if kept.schema != SCHEMA => format!("schema {} is not {SCHEMA}", kept.schema),
            Ok(kept) if kept.state.digest() != kept.revision.digest => {
                "digest does not fit the state".to_owned()
            }
            Ok(kept) => return Ok(Read::State(Box::new(kept))),
            Err(error) => error.to_string(),
        };
        Ok(Read::Unusable(reason))
    }

    /// Keeps a state: either the old file or the new one is there, whatever happens.
    pub fn store(&self, revision: Revision, state: &State) -> io::Result<()> {
        #[derive(Serialize)]
        struct Keep<'a> {
            schema: u32,
            revision: Revision,
            state: &'a State,
        }
        let bytes = Zeroizing::new(serde_json::to_vec(&Keep {
            schema: SCHEMA,
            revision,
            state,
        })?);
        let new = self.path.with_extension("json.new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        let directory = self.path.parent().unwrap_or_else(|| Path::new("/"));
        fs::File::open(directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::small_state;

    fn stored(directory: &Path) -> (StateFile, State) {
        let file = StateFile::new(directory);
        let state = small_state();
        file.store(
            Revision {
                number: 7,
                digest: state.digest(),
            },
            &state,
        )
        .unwrap();
        (file, state)
    }

    #[test]
    fn what_was_stored_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let (file, state) = stored(directory.path());
        let Found::State(kept) = file.load().unwrap() else {
            panic!("a state was stored")
        };
        assert_eq!((kept.revision.number, kept.state), (7, state));
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_set_aside_and_never_believed() {
        let directory = tempfile::tempdir().unwrap();
        let (file, state) = stored(directory.path());
        let path = directory.path().join("state.json");
        let good = fs::read(&path).unwrap();
        let mut damaged: Vec<Vec<u8>> = (0..good.len())
            .step_by(7)
            .map(|cut| good[..cut].to_vec())
            .collect();
        damaged.extend((0..good.len()).map(|at| {
            let mut bytes = good.clone();
            bytes[at] ^= 0x01;
            bytes
        }));
        for bytes in damaged {
            fs::write(&path, &bytes).unwrap();
            match file.load().unwrap() {
                Found::SetAside { .. } => assert!(!path.exists()),
                // The number alone is not part of the digest.
                Found::State(kept) => assert_eq!(kept.state, state),
                Found::Nothing => panic!("there was a file"),
            }
        }
    }
}
