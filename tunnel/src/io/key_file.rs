//! The WireGuard keys of a node's lanes on disk: made once, mode 0600, used again after restart and reboot.

use crate::io::clock;
use crate::key::PrivateKey;
use crate::lane::LaneNumber;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The directory or file could not be read or made.
    #[error("{}: failed to {action}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Others could read it.
    #[error("{}: mode is {mode:04o}; a key must be a file of mode 0600: chmod 600 it", path.display())]
    Mode {
        /// The path.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Others could put another key there.
    #[error("{}: mode is {mode:04o}; nobody else may write to a state directory: choose another, or chmod go-w it", path.display())]
    DirectoryMode {
        /// The path.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It holds something else.
    #[error("{}: {source}; remove it to have a new key made", path.display())]
    Content {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        source: crate::key::KeyError,
    },
}

/// The name of a lane's key.
fn name(lane: LaneNumber) -> String {
    match lane.index() {
        0 => "wireguard.key".to_owned(),
        number => format!("wireguard-{number}.key"),
    }
}

/// The key of a lane in `directory`, which is made where there is none.
pub fn load_or_make(directory: &Path, lane: LaneNumber) -> Result<PrivateKey, KeyFileError> {
    let path = directory.join(name(lane));
    let failed = |action| {
        let path = path.clone();
        move |source| KeyFileError::File {
            path,
            action,
            source,
        }
    };
    make_directory(directory)?;
    if !path.try_exists().map_err(failed("look for the key"))? {
        make(directory, &path).map_err(failed("make the key"))?;
    }
    let mut file = fs::File::open(&path).map_err(failed("open the key"))?;
    let metadata = file.metadata().map_err(failed("look at the key"))?;
    let mode = metadata.mode() & 0o7777;
    if !metadata.is_file() || mode & 0o077 != 0 {
        return Err(KeyFileError::Mode { path, mode });
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text)
        .map_err(failed("read the key"))?;
    PrivateKey::from_base64(&text).map_err(|source| KeyFileError::Content { path, source })
}

/// Makes a directory that only its owner enters. One that is there stays as it is, if nobody else
/// may write to it.
pub fn make_directory(directory: &Path) -> Result<(), KeyFileError> {
    let failed = |action| {
        let path = directory.to_owned();
        move |source| KeyFileError::File {
            path,
            action,
            source,
        }
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(failed("make the directory"))?;
    let metadata = fs::metadata(directory).map_err(failed("look at the directory"))?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o022 != 0 {
        let path = directory.to_owned();
        return Err(KeyFileError::DirectoryMode { path, mode });
    }
    Ok(())
}

/// Writes a new key beside and links it into place, so that two who make one end with the same.
fn make(directory: &Path, path: &Path) -> io::Result<()> {
    let number = u64::from_le_bytes(clock::random()?);
    let new = directory.join(format!("wireguard.key.{number:016x}"));
    let key = PrivateKey::from_random(clock::random()?);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(key.to_base64().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        match fs::hard_link(&new, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }
    })();
    let removed = fs::remove_file(&new);
    written?;
    removed?;
    // The name too must outlive a power cut: a node that loses its key is another node.
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const FIRST: LaneNumber = LaneNumber::FIRST;

    #[test]
    fn made_once_and_used_again() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("tunnel");
        let key = load_or_make(&state, FIRST).unwrap();
        assert_eq!(load_or_make(&state, FIRST).unwrap().public(), key.public());
        assert_eq!(
            fs::metadata(state.join("wireguard.key")).unwrap().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::metadata(&state).unwrap().mode() & 0o777, 0o700);
        assert_eq!(
            fs::read_dir(&state).unwrap().count(),
            1,
            "nothing else is left"
        );
    }

    #[test]
    fn every_lane_has_a_key_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let keys: std::collections::BTreeSet<_> = LaneNumber::first(16)
            .map(|lane| load_or_make(directory.path(), lane).unwrap().public())
            .collect();
        assert_eq!(keys.len(), 16);
        let last = directory.path().join("wireguard-15.key");
        assert_eq!(fs::metadata(last).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_directory_that_is_there_keeps_its_mode_and_must_be_nobody_elses_to_write() {
        let directory = tempfile::tempdir().unwrap();
        for (mode, refused) in [
            (0o755, false),
            (0o750, false),
            (0o1777, true),
            (0o770, true),
        ] {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
            let made = load_or_make(directory.path(), FIRST);
            assert_eq!(made.is_err(), refused, "{mode:o}");
            if let Err(error) = made {
                assert!(
                    error
                        .to_string()
                        .ends_with("choose another, or chmod go-w it"),
                    "{error}"
                );
            }
            let after = fs::metadata(directory.path()).unwrap().mode() & 0o7777;
            assert_eq!(after, mode, "the mode was changed");
        }
    }

    #[test]
    fn a_key_that_others_can_read_or_that_is_none_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        load_or_make(directory.path(), FIRST).unwrap();
        let path = directory.path().join("wireguard.key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let text = load_or_make(directory.path(), FIRST)
            .unwrap_err()
            .to_string();
        assert!(
            text.ends_with("mode is 0644; a key must be a file of mode 0600: chmod 600 it"),
            "{text}"
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "short\n").unwrap();
        let text = load_or_make(directory.path(), FIRST)
            .unwrap_err()
            .to_string();
        assert!(text.contains("must be 32 bytes in base64"), "{text}");
    }
}
