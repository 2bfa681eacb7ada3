//! The folder of what became of other clusters' CAs: `authorities/NAME.json` for each whose CA was rolled. Replicas of a
//! hub share it.

use super::folder::Folder;
use super::named_files::NamedFiles;
use crate::trust::Followed;
use std::io;
use std::path::Path;

const FOLDER: &str = "authorities";
const ENDING: &str = ".json";
/// The longest file that is read, in bytes: four CAs of the longest, in PEM, and the keys of four.
const LONGEST: u64 = 128 << 10;

/// The folder, and what stands of it.
#[derive(Debug)]
pub(crate) struct FollowedFolder(NamedFiles<Followed>);

impl FollowedFolder {
    /// Makes the folder where it is missing, and reads it.
    pub(crate) fn open(state_directory: &Path) -> io::Result<Self> {
        let folder = Folder::make(&state_directory.join(FOLDER))?.at_most(LONGEST);
        let mut it = Self(NamedFiles::new(folder, FOLDER, ENDING));
        it.look()?;
        Ok(it)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Looks at the folder. Returns the names of clusters whose file came, changed, went or broke.
    pub(crate) fn look(&mut self) -> io::Result<Vec<String>> {
        let read = |_: &str, text: &str| serde_json::from_str(text).map_err(|it| it.to_string());
        self.0.look(read)
    }

    /// What became of a cluster's CAs.
    pub(crate) fn get(&self, name: &str) -> Option<&Followed> {
        self.0.get(name)
    }

    /// What is wrong with files, a line each.
    pub(crate) fn complaints(&self) -> impl Iterator<Item = String> {
        self.0.complaints()
    }

    /// Forgets it: the cluster left.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    /// Keeps it; it is on the disk then. [`Self::look`] finds it.
    pub(crate) fn put(&self, name: &str, followed: &Followed) -> io::Result<()> {
        self.0.put(name, &serde_json::to_string(followed)?)
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
            assert_eq!(other.look().unwrap(), ["west"], "{text}");
            assert_eq!(other.get("west"), Some(&followed));
            let lines: Vec<_> = other.complaints().collect();
            assert!(lines[0].starts_with("authorities/west.json: "), "{lines:?}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(other.look().unwrap(), ["west"]);
        assert_eq!(other.get("west"), None);
    }
}
