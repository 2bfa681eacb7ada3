//! The folder of what became of other clusters' CAs: `authorities/NAME.json` for each whose CA was rolled. Replicas of a
//! hub share it.

use super::folder::Folder;
use crate::hub::manifest::Content;
use crate::trust::Followed;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

const FOLDER: &str = "authorities";
const ENDING: &str = ".json";
/// The longest file that is read, in bytes: four CAs of the longest, in PEM, and the keys of four.
const LONGEST: u64 = 128 << 10;

/// The folder, and what stands of it.
#[derive(Debug)]
pub(crate) struct FollowedFolder {
    folder: Folder,
    followed: BTreeMap<String, Followed>,
}

impl FollowedFolder {
    /// Makes the folder where it is missing, and reads it.
    pub(crate) fn open(state_directory: &Path) -> io::Result<Self> {
        let folder = Folder::make(&state_directory.join(FOLDER))?;
        let mut it = Self {
            folder: folder.at_most(LONGEST),
            followed: BTreeMap::new(),
        };
        it.look()?;
        Ok(it)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Looks at the folder. Returns the names of clusters of which it says something else than before. Of what cannot be
    /// read, what stood before stands.
    pub(crate) fn look(&mut self) -> io::Result<Vec<String>> {
        let look = self.folder.look(&[ENDING])?;
        let mut changed = Vec::new();
        let is_there = |name: &String| look.files.contains_key(&format!("{name}{ENDING}"));
        self.followed.retain(|name, _| {
            let stays = is_there(name);
            if !stays {
                changed.push(name.clone());
            }
            stays
        });
        for (file, content) in look.files {
            let name = file.strip_suffix(ENDING).unwrap_or(&file);
            let read = match content {
                Content::Unchanged => continue,
                Content::Unreadable(what) => Err(what),
                Content::Text(text) => {
                    serde_json::from_str::<Followed>(&text).map_err(|error| error.to_string())
                }
            };
            match read {
                Ok(followed) => {
                    let old = self.followed.insert(name.to_owned(), followed.clone());
                    if old != Some(followed) {
                        changed.push(name.to_owned());
                    }
                }
                Err(what) => {
                    let file = format!("{FOLDER}/{file}");
                    tracing::error!(
                        file,
                        what,
                        "the CAs of a cluster cannot be read; those before stand"
                    );
                }
            }
        }
        Ok(changed)
    }

    /// What became of a cluster's CAs.
    pub(crate) fn get(&self, name: &str) -> Option<&Followed> {
        self.followed.get(name)
    }

    /// Forgets it: the cluster left.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.remove(&format!("{name}{ENDING}"))
    }

    /// Keeps it; it is on the disk then. [`Self::look`] finds it.
    pub(crate) fn put(&self, name: &str, followed: &Followed) -> io::Result<()> {
        let text = serde_json::to_string(followed)?;
        self.folder.put_durably(&format!("{name}{ENDING}"), &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::pins;
    use std::fs;

    #[test]
    fn what_one_replica_keeps_another_finds_and_what_is_broken_changes_nothing() {
        let state = tempfile::tempdir().unwrap();
        let mut one = FollowedFolder::open(state.path()).unwrap();
        let mut other = FollowedFolder::open(state.path()).unwrap();
        let ca = crate::ca::init("set.example", "west", std::time::SystemTime::now());
        let ca = ca.unwrap().certificate;
        let followed = Followed {
            said: pins(&ca),
            ca,
        };
        one.put("west", &followed).unwrap();
        assert_eq!(one.look().unwrap(), ["west"]);
        assert_eq!(other.look().unwrap(), ["west"]);
        assert!(other.look().unwrap().is_empty(), "nothing new");
        let again = FollowedFolder::open(state.path()).unwrap();
        assert_eq!(again.get("west"), Some(&followed));
        let path = other.path().join("west.json");
        for text in ["", "{", "{\"said\": [7], \"ca\": \"\"}", "{\"said\": []}"] {
            fs::write(&path, text).unwrap();
            assert!(other.look().unwrap().is_empty(), "{text}");
            assert_eq!(other.get("west"), Some(&followed));
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(other.look().unwrap(), ["west"]);
        assert_eq!(other.get("west"), None);
    }
}
