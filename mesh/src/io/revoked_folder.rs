//! The folder of revocations. Replicas of a hub share it.
//!
//! ```text
//!   revoked/own.json         what this cluster decided itself, and the list that its CA signed
//!   revoked/by-NORTH.json    what the newest list of cluster NORTH says
//! ```
//!
//! A file that cannot be read lets nobody in: what it said before, stands; and a hub does not start with one.

use super::folder::Folder;
use crate::hub::manifest::Content;
use crate::revocation::{Heard, Own, Standing};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

const FOLDER: &str = "revoked";
const OWN: &str = "own.json";
const BY: &str = "by-";
const ENDING: &str = ".json";
/// The longest file that is read, in bytes: twice the longest list, with its text.
const LONGEST: u64 = 1 << 20;

/// The folder, and what stands of it.
#[derive(Debug)]
pub(crate) struct RevokedFolder {
    folder: Folder,
    standing: Standing,
    /// What is wrong with files, by name.
    faults: BTreeMap<String, String>,
}

impl RevokedFolder {
    /// Makes the folder where it is missing, and reads it.
    ///
    /// # Errors
    /// It cannot be made, or a file in it cannot be read.
    pub(crate) fn open(state_directory: &Path) -> io::Result<Self> {
        let path = state_directory.join(FOLDER);
        let mut opened = Self {
            folder: Folder::make(&path)?.at_most(LONGEST),
            standing: Standing::default(),
            faults: BTreeMap::new(),
        };
        opened.look()?;
        let fault = opened.complaints().next();
        match fault {
            None => Ok(opened),
            Some(line) => Err(io::Error::new(io::ErrorKind::InvalidData, line)),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What stands.
    pub(crate) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// What is wrong with files, a line each.
    pub(crate) fn complaints(&self) -> impl Iterator<Item = String> {
        let faults = self.faults.iter();
        faults.map(|(file, what)| {
            format!("{FOLDER}/{file}: {what}; restore it from a backup, or remove it, which lets in whom it cut off")
        })
    }

    /// Looks at the folder. Returns whether anything changed.
    pub(crate) fn look(&mut self) -> io::Result<bool> {
        let look = self.folder.look(&[ENDING])?;
        let before = self.standing.clone();
        self.faults.retain(|file, _| look.files.contains_key(file));
        if !look.files.contains_key(OWN) {
            self.standing.own = Own::default();
        }
        let is_there = |issuer: &String| look.files.contains_key(&file_of(issuer));
        self.standing.heard.retain(|issuer, _| is_there(issuer));
        for (file, content) in look.files {
            let read = match content {
                Content::Unchanged => continue,
                Content::Unreadable(what) => Err(what),
                Content::Text(text) => self.take(&file, &text),
            };
            match read {
                Ok(()) => {
                    self.faults.remove(&file);
                }
                Err(what) => {
                    if self.faults.get(&file) != Some(&what) {
                        tracing::error!(
                            file = format!("{FOLDER}/{file}"),
                            what,
                            "revocations cannot be read; what stood before, stands"
                        );
                    }
                    self.faults.insert(file, what);
                }
            }
        }
        Ok(before != self.standing)
    }

    fn take(&mut self, file: &str, text: &str) -> Result<(), String> {
        if file == OWN {
            let own: Own = read(text)?;
            own.signed().map_err(|error| error.to_string())?;
            self.standing.own = own;
            return Ok(());
        }
        let issuer = file
            .strip_prefix(BY)
            .and_then(|rest| rest.strip_suffix(ENDING));
        let issuer = issuer.ok_or("is none of the hub's files")?;
        self.standing.heard.insert(issuer.to_owned(), read(text)?);
        Ok(())
    }

    /// Keeps what this cluster decided; it is on the disk then. [`Self::look`] finds it.
    pub(crate) fn put_own(&self, own: &Own) -> io::Result<()> {
        self.folder.put_durably(OWN, &serde_json::to_string(own)?)
    }

    /// Keeps what another cluster's newest list says; it is on the disk then. [`Self::look`] finds it.
    pub(crate) fn put_heard(&self, issuer: &str, heard: &Heard) -> io::Result<()> {
        let text = serde_json::to_string(heard)?;
        self.folder.put_durably(&file_of(issuer), &text)
    }
}

/// Whether a node of the own cluster is cut off, for those who are no replica of the hub.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn is_node_revoked(state_directory: &Path, node: &str) -> io::Result<bool> {
    let folder = Folder::new(&state_directory.join(FOLDER));
    let Some(text) = folder.get(OWN)? else {
        return Ok(false);
    };
    let own: Own = read(&text).map_err(|what| io::Error::new(io::ErrorKind::InvalidData, what))?;
    Ok(own.nodes.contains_key(node))
}

fn file_of(issuer: &str) -> String {
    format!("{BY}{issuer}{ENDING}")
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revocation::{Epoch, Revoked};
    use std::fs;

    #[test]
    fn what_one_replica_keeps_another_finds_also_after_a_restart() {
        let state = tempfile::tempdir().unwrap();
        let mut one = RevokedFolder::open(state.path()).unwrap();
        let mut other = RevokedFolder::open(state.path()).unwrap();
        let mut own = Own::default();
        own.revoke_node("worker-1", 7);
        one.put_own(&own).unwrap();
        let heard = Heard {
            epoch: Epoch(8),
            clusters: BTreeMap::from([("west".to_owned(), Revoked::default())]),
        };
        one.put_heard("north", &heard).unwrap();
        assert!(one.look().unwrap() && other.look().unwrap());
        assert!(!other.look().unwrap(), "nothing new");
        let standing = Standing {
            own,
            heard: BTreeMap::from([("north".to_owned(), heard)]),
        };
        assert_eq!(*other.standing(), standing);
        assert_eq!(
            *RevokedFolder::open(state.path()).unwrap().standing(),
            standing
        );
        assert!(is_node_revoked(state.path(), "worker-1").unwrap());
        assert!(!is_node_revoked(state.path(), "worker-2").unwrap());
        assert!(!is_node_revoked(&state.path().join("none"), "worker-1").unwrap());
    }

    #[test]
    fn a_file_that_somebody_broke_lets_nobody_in() {
        let state = tempfile::tempdir().unwrap();
        let mut folder = RevokedFolder::open(state.path()).unwrap();
        let mut own = Own::default();
        own.revoke_node("worker-1", 7);
        folder.put_own(&own).unwrap();
        folder.look().unwrap();
        for (file, text) in [
            ("own.json", "{"),
            ("own.json", "{\"nodes\": [7]}"),
            ("by-north.json", "{}"),
            ("other.json", "{}"),
        ] {
            let path = state.path().join(FOLDER).join(file);
            fs::write(&path, text).unwrap();
            assert!(!folder.look().unwrap(), "{file}: {text}");
            assert_eq!(folder.standing().own, own);
            let lines: Vec<_> = folder.complaints().collect();
            assert!(
                lines[0].starts_with(&format!("revoked/{file}: ")),
                "{lines:?}"
            );
            let error = RevokedFolder::open(state.path()).unwrap_err();
            assert_eq!(error.to_string(), lines[0]);
            if file == "own.json" {
                assert!(is_node_revoked(state.path(), "worker-1").is_err());
                folder.put_own(&own).unwrap();
            } else {
                fs::remove_file(&path).unwrap();
            }
            assert!(!folder.look().unwrap());
            assert_eq!(folder.complaints().count(), 0);
        }
    }
}
