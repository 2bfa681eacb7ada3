//! The objects of numbers: files that are named by the number.

use crate::hub::allocate::Allocation;
use crate::hub::writer::{Disk, Existing, NumberKind, Numbers};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The folders of a state directory that hold them.
#[derive(Debug)]
pub(crate) struct NumberFiles {
    nodes: PathBuf,
    identities: PathBuf,
}

impl NumberFiles {
    /// Makes the folders.
    pub(crate) fn open(state: &Path) -> io::Result<Self> {
        let files = Self {
            nodes: state.join("nodes"),
            identities: state.join("identities"),
        };
        for folder in [&files.nodes, &files.identities] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
        }
        Ok(files)
    }

    /// All there are.
    pub(crate) fn load(&self) -> io::Result<Numbers> {
        let mut numbers = Numbers::new();
        for kind in [NumberKind::Node, NumberKind::Identity] {
            for entry in fs::read_dir(self.folder(kind))? {
                let name = entry?.file_name();
                let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
                    continue;
                };
                numbers.insert((kind, number), self.says(kind, number)?);
            }
        }
        Ok(numbers)
    }

    fn folder(&self, kind: NumberKind) -> &Path {
        match kind {
            NumberKind::Node => &self.nodes,
            NumberKind::Identity => &self.identities,
        }
    }

    fn path(&self, kind: NumberKind, number: u32) -> PathBuf {
        self.folder(kind).join(number.to_string())
    }

    fn says(&self, kind: NumberKind, number: u32) -> io::Result<Existing> {
        let bytes = fs::read(self.path(kind, number))?;
        Ok(serde_json::from_slice(&bytes).ok())
    }

    /// Writes what will be the object, by a name that is none.
    fn prepare(
        &self,
        kind: NumberKind,
        number: u32,
        allocation: &Allocation,
    ) -> io::Result<PathBuf> {
        let process = std::process::id();
        let next = self.folder(kind).join(format!(".{number}.{process}"));
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&next)?;
        file.write_all(&serde_json::to_vec(allocation)?)?;
        file.sync_data()?;
        Ok(next)
    }
}

impl Disk for NumberFiles {
    fn create(
        &mut self,
        kind: NumberKind,
        number: u32,
        allocation: &Allocation,
    ) -> io::Result<Option<Existing>> {
        let next = self.prepare(kind, number, allocation)?;
        // A link is made for one of all who try, and with its content there.
        let linked = fs::hard_link(&next, self.path(kind, number));
        fs::remove_file(&next)?;
        match linked {
            Ok(()) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(Some(self.says(kind, number)?))
            }
            Err(error) => Err(error),
        }
    }

    fn replace(
        &mut self,
        kind: NumberKind,
        number: u32,
        allocation: &Allocation,
    ) -> io::Result<()> {
        let next = self.prepare(kind, number, allocation)?;
        fs::rename(next, self.path(kind, number))
    }

    fn remove(&mut self, kind: NumberKind, number: u32) -> io::Result<()> {
        match fs::remove_file(self.path(kind, number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        for kind in [NumberKind::Node, NumberKind::Identity] {
            File::open(self.folder(kind))?.sync_all()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocation(claim: &str) -> Allocation {
        Allocation {
            claim: claim.to_owned(),
            released: None,
        }
    }

    #[test]
    fn a_number_is_made_by_one_of_two_and_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let mut one = NumberFiles::open(folder.path()).unwrap();
        let mut two = NumberFiles::open(folder.path()).unwrap();
        let kind = NumberKind::Identity;
        assert_eq!(one.create(kind, 300, &allocation("a")).unwrap(), None);
        let existing = two.create(kind, 300, &allocation("b")).unwrap();
        assert_eq!(existing, Some(Some(allocation("a"))));
        let rests = Allocation {
            released: Some(7),
            ..allocation("a")
        };
        one.replace(kind, 300, &rests).unwrap();
        fs::write(folder.path().join("nodes/4"), "{").unwrap();
        one.sync().unwrap();
        let loaded = NumberFiles::open(folder.path()).unwrap().load().unwrap();
        let expected = Numbers::from([((kind, 300), Some(rests)), ((NumberKind::Node, 4), None)]);
        assert_eq!(loaded, expected);
        one.remove(kind, 300).unwrap();
        assert_eq!(one.load().unwrap().len(), 1);
        let hidden = fs::read_dir(folder.path().join("identities")).unwrap();
        assert_eq!(hidden.count(), 0, "nothing is left behind");
    }
}
