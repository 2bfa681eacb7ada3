//! Notices that the configuration file was written or replaced.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A file and how it looked last.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    last: Option<Fingerprint>,
}

/// Device, inode, size, time of change in seconds and nanoseconds.
type Fingerprint = (u64, u64, u64, i64, i64);

impl ConfigFile {
    /// Takes how it looks now as known. Call before the file is read.
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            last: fingerprint(path),
        }
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it looks different from the last time. A file that is gone is no news: editors
    /// remove it before they put the next in its place.
    pub(crate) fn has_changed(&mut self) -> bool {
        let now = fingerprint(&self.path);
        let changed = now.is_some() && now != self.last;
        if changed {
            self.last = now;
        }
        changed
    }
}

fn fingerprint(path: &Path) -> Option<Fingerprint> {
    let metadata = std::fs::metadata(path).ok()?;
    // The change time moves also where a tool sets the modification time back.
    Some((
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_news_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.yaml");
        std::fs::write(&path, "a").unwrap();
        let mut file = ConfigFile::new(&path);
        assert!(!file.has_changed());
        std::fs::write(folder.path().join("next"), "b").unwrap();
        std::fs::rename(folder.path().join("next"), &path).unwrap();
        assert!(file.has_changed());
        assert!(!file.has_changed());
        std::fs::remove_file(&path).unwrap();
        assert!(!file.has_changed());
    }
}
