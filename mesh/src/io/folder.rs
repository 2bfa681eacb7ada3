//! Small files of a folder: looked at, and put there whole.

use crate::hub::manifest::{Content, Look};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use tempfile::{Builder, NamedTempFile};

/// The longest file that is read where nothing else is said, in bytes. 10,000 pods in one file take about 10 MB.
const LONGEST: u64 = 64 << 20;

/// Device, inode, size, time of change.
type Fingerprint = (u64, u64, u64, i64, i64);

/// A folder, and how its files looked last.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    longest: u64,
    known: BTreeMap<String, Fingerprint>,
}

/// The endings of manifests.
pub(crate) const MANIFESTS: &[&str] = &[".yaml", ".yml", ".json"];
/// Any ending.
pub(crate) const ANY: &[&str] = &[""];

impl Folder {
    /// A folder that was not looked at yet.
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            longest: LONGEST,
            known: BTreeMap::new(),
        }
    }

    /// Makes the folder, for nobody else to read.
    pub(crate) fn make(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Self::new(path))
    }

    /// Reads no file that is longer than this, in bytes.
    pub(crate) fn at_most(self, longest: u64) -> Self {
        Self { longest, ..self }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at the files with these endings; hidden ones and folders are none. Text only of those that look different
    /// from the last time.
    pub(crate) fn look(&mut self, endings: &[&str]) -> io::Result<Look> {
        let mut look = Look::default();
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(&self.path)? {
            let Ok(name) = entry?.file_name().into_string() else {
                continue;
            };
            if name.starts_with('.') || !endings.iter().any(|ending| name.ends_with(ending)) {
                continue;
            }
            let path = self.path.join(&name);
            let fingerprint = match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => continue,
                Ok(metadata) => fingerprint(&metadata),
                // It went while we looked.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    let reason = super::secret_file::reason(&error);
                    look.files.insert(name, Content::Unreadable(reason));
                    continue;
                }
            };
            let content = if self.known.get(&name) == Some(&fingerprint) {
                Content::Unchanged
            } else {
                match read(&path, self.longest) {
                    Ok(text) => Content::Text(text),
                    Err(reason) => Content::Unreadable(reason),
                }
            };
            if !matches!(content, Content::Unreadable(_)) {
                known.insert(name.clone(), fingerprint);
            }
            look.files.insert(name, content);
        }
        self.known = known;
        Ok(look)
    }

    /// Puts a file there, readable for its owner alone: the whole of it, or what was there before. Replicas of a hub may do
    /// so at the same time, so each writes a draft of its own.
    pub(crate) fn put(&self, name: &str, text: &str) -> io::Result<()> {
        self.draft(text)?.persist(self.path.join(name))?;
        Ok(())
    }

    /// The same, and it is on the disk when this returns.
    pub(crate) fn put_durably(&self, name: &str, text: &str) -> io::Result<()> {
        let draft = self.draft(text)?;
        draft.as_file().sync_all()?;
        draft.persist(self.path.join(name))?;
        File::open(&self.path)?.sync_all()
    }

    fn draft(&self, text: &str) -> io::Result<NamedTempFile> {
        let mut draft = Builder::new().prefix(".draft-").tempfile_in(&self.path)?;
        draft.write_all(text.as_bytes())?;
        Ok(draft)
    }

    /// The text of a file, if it is there.
    pub(crate) fn get(&self, name: &str) -> io::Result<Option<String>> {
        match fs::read_to_string(self.path.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn fingerprint(metadata: &fs::Metadata) -> Fingerprint {
    (
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    )
}

fn read(path: &Path, longest: u64) -> Result<String, String> {
    let size = fs::metadata(path).map_err(|error| super::secret_file::reason(&error))?;
    if !size.is_file() {
        return Err("is no file; remove it".to_owned());
    }
    if size.len() > longest {
        return Err(format!(
            "has {} bytes; must be at most {longest}; split it",
            size.len()
        ));
    }
    fs::read_to_string(path).map_err(|error| {
        if error.kind() == io::ErrorKind::InvalidData {
            return "is no text in UTF-8; write it again".to_owned();
        }
        let reason = super::secret_file::reason(&error);
        format!("{reason}; correct the permissions")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn who_puts_a_file_at_the_same_time_as_others_puts_the_whole_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let texts: Vec<String> = ["a", "b", "c"].map(|letter| letter.repeat(9_999)).into();
        std::thread::scope(|scope| {
            for text in &texts {
                let folder = Folder::new(folder.path());
                scope.spawn(move || {
                    for _ in 0..200 {
                        folder.put("lanes", text).unwrap();
                        let found = folder.get("lanes").unwrap().unwrap();
                        assert!(texts_have(found.as_bytes()), "{} bytes", found.len());
                    }
                });
            }
        });
        let mut names = fs::read_dir(folder.path()).unwrap();
        let only = names.next().unwrap().unwrap();
        assert!(names.next().is_none(), "no draft is left");
        assert_eq!(only.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    /// One of them, and nothing else.
    fn texts_have(found: &[u8]) -> bool {
        found.len() == 9_999 && found.iter().all(|byte| *byte == found[0])
    }
}
