//! The WireGuard keys of a node's lanes on disk: made once, mode 0600, used again after restart and reboot.
//!
//! While a newer key takes the place of a lane's, it lies beside it, so that whoever starts then has both. To end the
//! change is to rename it.

use crate::io::clock;
use crate::key::{OwnKeys, PrivateKey};
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

/// The name of the one that takes its place.
fn newer_name(lane: LaneNumber) -> String {
    match lane.index() {
        0 => "wireguard.new.key".to_owned(),
        number => format!("wireguard-{number}.new.key"),
    }
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> KeyFileError {
    let path = path.to_owned();
    move |source| KeyFileError::File {
        path,
        action,
        source,
    }
}

/// The key of a lane in `directory`, the newest; it is made where there is none.
pub fn load_or_make(directory: &Path, lane: LaneNumber) -> Result<PrivateKey, KeyFileError> {
    Ok(load(directory, lane)?.newest)
}

/// The keys of a lane in `directory`: two while one takes the place of the other; one is made where there is none.
pub fn load(directory: &Path, lane: LaneNumber) -> Result<OwnKeys, KeyFileError> {
    let path = directory.join(name(lane));
    make_directory(directory)?;
    let exists = |path: &Path| path.try_exists().map_err(failed(path, "look for the key"));
    if !exists(&path)? {
        make(directory, &path).map_err(failed(&path, "make the key"))?;
    }
    let newer = directory.join(newer_name(lane));
    let newer = exists(&newer)?.then(|| read(&newer)).transpose()?;
    let key = read(&path)?;
    let Some(newest) = newer else {
        return Ok(key.into());
    };
    // They are the same where a change ends meanwhile.
    let older = Some(key).filter(|key| key.public() != newest.public());
    Ok(OwnKeys { newest, older })
}

/// Makes keys that shall take the place of the first `lanes` keys, all or none, and returns them.
pub fn make_newer(directory: &Path, lanes: usize) -> Result<Vec<PrivateKey>, KeyFileError> {
    let made = LaneNumber::first(lanes).map(|lane| {
        let path = directory.join(newer_name(lane));
        make(directory, &path).map_err(failed(&path, "make the key"))?;
        read(&path)
    });
    let made = made.collect::<Result<Vec<_>, _>>();
    if made.is_err() {
        for lane in LaneNumber::first(lanes) {
            // Nobody was told of it. What cannot be removed is found by the next data plane, which goes on with it.
            let _ = fs::remove_file(directory.join(newer_name(lane)));
        }
    }
    made
}

/// Puts the newer keys of the first `lanes` lanes into the place of the others, which are gone then.
pub fn forget_older(directory: &Path, lanes: usize) -> Result<(), KeyFileError> {
    for lane in LaneNumber::first(lanes) {
        let newer = directory.join(newer_name(lane));
        match fs::rename(&newer, directory.join(name(lane))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&newer, "rename the key")(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    let synced = fs::File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(failed(directory, "keep the change of keys"))
}

fn read(path: &Path) -> Result<PrivateKey, KeyFileError> {
    let mut file = fs::File::open(path).map_err(failed(path, "open the key"))?;
    let metadata = file.metadata().map_err(failed(path, "look at the key"))?;
    let mode = metadata.mode() & 0o7777;
    if !metadata.is_file() || mode & 0o077 != 0 {
        let path = path.to_owned();
        return Err(KeyFileError::Mode { path, mode });
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text)
        .map_err(failed(path, "read the key"))?;
    PrivateKey::from_base64(&text).map_err(|source| KeyFileError::Content {
        path: path.to_owned(),
        source,
    })
}

/// Makes a directory that only its owner enters. One that is there stays as it is, if nobody else
/// may write to it.
pub fn make_directory(directory: &Path) -> Result<(), KeyFileError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(failed(directory, "make the directory"))?;
    let metadata = fs::metadata(directory).map_err(failed(directory, "look at the directory"))?;
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
    fn a_newer_key_lies_beside_until_it_takes_the_place() {
        let directory = tempfile::tempdir().unwrap();
        let keys = || {
            LaneNumber::first(2).map(|lane| {
                let keys = load(directory.path(), lane).unwrap();
                (keys.newest.public(), keys.older.map(|key| key.public()))
            })
        };
        let first: Vec<_> = keys().map(|(newest, _)| newest).collect();
        assert!(keys().all(|(_, older)| older.is_none()));
        let made = make_newer(directory.path(), 2).unwrap();
        let made: Vec<_> = made.iter().map(PrivateKey::public).collect();
        let both: Vec<_> = keys().collect();
        for lane in 0..2 {
            assert_eq!(both[lane], (made[lane], Some(first[lane])));
        }
        let file = directory.path().join("wireguard-1.new.key");
        assert_eq!(fs::metadata(file).unwrap().mode() & 0o777, 0o600);
        // As if it had been stopped half way through.
        forget_older(directory.path(), 1).unwrap();
        assert_eq!(keys().next().unwrap(), (made[0], None));
        assert_eq!(keys().nth(1).unwrap(), both[1]);
        for _ in 0..2 {
            forget_older(directory.path(), 2).unwrap();
            let now: Vec<_> = keys().collect();
            assert_eq!(now, [(made[0], None), (made[1], None)]);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn newer_keys_are_made_all_or_none() {
        let directory = tempfile::tempdir().unwrap();
        let keys = |lane| load(directory.path(), lane).unwrap();
        let lanes: Vec<_> = LaneNumber::first(2).collect();
        let first = keys(lanes[0]).newest.public();
        keys(lanes[1]);
        fs::create_dir(directory.path().join("wireguard-1.new.key")).unwrap();
        let error = make_newer(directory.path(), 2).unwrap_err();
        assert!(error.to_string().contains("wireguard-1.new.key"), "{error}");
        assert_eq!(keys(lanes[0]).newest.public(), first);
        assert!(keys(lanes[0]).older.is_none());
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
