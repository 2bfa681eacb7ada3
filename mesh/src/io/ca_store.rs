//! The folder of a cluster's own CA.
//!
//! ```text
//!   ca/                 0700
//!   ca/ca.crt           0600  other clusters are given it
//!   ca/ca.key           0600  nobody is
//!   ca/link.crt         0600  its key, certified by the CA before it, once there was one
//!   ca/old-SECONDS.crt  0600  the CA before it, which is trusted until then
//! ```
//!
//! The folder appears whole and once: it is made under another name and then renamed, which fails where there is one
//! already. So of all replicas that start at once, one makes the CA and the others take it. When the CA is rolled, the
//! folder of the next one takes the place of the present one in one step, and that one goes with its key.

use super::pem_file::{PemRule, Readers, text};
use super::secret_file::reason;
use crate::ca::{Ca, IssueError, init};
use crate::trust::Authorities;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

mod roll;

pub(crate) use roll::sweep;
pub use roll::{RollError, retire, roll};

const FOLDER: &str = "ca";
const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";
const LINK: &str = "link.crt";
/// Folders that are not in force: those that are made, and those whose time is over.
const DRAFT: &str = ".ca-";

/// How a folder looked: device, inode, until when an old CA is trusted.
type Stamp = (u64, u64, Option<SystemTime>);

/// A CA as it was found or made.
#[non_exhaustive]
pub struct OwnCa {
    /// It can sign.
    pub ca: Ca,
    /// Its certificate, in PEM.
    pub pem: String,
    /// Whether it was made just now.
    pub is_new: bool,
    /// The CA before it, while it is trusted.
    pub old: Option<OldCa>,
    key: Zeroizing<String>,
    link: Option<String>,
    stamp: Stamp,
}

/// A CA whose place another one has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldCa {
    /// Its certificate, in PEM.
    pub pem: String,
    /// Until then it is trusted; then none of its certificates is good any more.
    pub until: SystemTime,
}

/// Without the key.
impl std::fmt::Debug for OwnCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnCa")
            .field("ca", &self.ca)
            .field("is_new", &self.is_new)
            .field("old", &self.old)
            .finish_non_exhaustive()
    }
}

impl OwnCa {
    /// A secret that stays while the CA does, for one use of many.
    pub(crate) fn secret_for(&self, purpose: &str) -> Zeroizing<Vec<u8>> {
        let mut secret = Zeroizing::new(Vec::with_capacity(self.key.len() + purpose.len() + 1));
        secret.extend_from_slice(self.key.as_bytes());
        secret.push(0);
        secret.extend_from_slice(purpose.as_bytes());
        secret
    }

    /// The certificates of all CAs that are trusted, in PEM, first of which is the one that signs.
    pub fn bundle(&self) -> String {
        let old = self.old.as_ref().map_or("", |old| &old.pem);
        format!("{}{old}", self.pem)
    }

    /// What other clusters are told of them; `None`: there was never another, so they know it.
    pub fn authorities(&self) -> Option<Authorities> {
        let link = self.link.as_ref()?;
        Authorities::of_pem(&self.bundle(), link).ok()
    }

    /// Whether the folder is another by now.
    pub(crate) fn has_changed(&self, state_directory: &Path) -> bool {
        stamp(&state_directory.join(FOLDER)).is_ok_and(|stamp| stamp != self.stamp)
    }
}

/// Why there is no CA.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaStoreError {
    /// A file cannot be read.
    #[error("{}: {rule}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it breaks.
        rule: PemRule,
    },
    /// The folder cannot be used.
    #[error("{}: cannot be used: {}; correct the path or the permissions", path.display(), reason(error))]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The files are no CA.
    #[error("{}: {error}; put the files of a backup there, or remove the folder and enrol all nodes again", path.display())]
    NoCa {
        /// The folder.
        path: PathBuf,
        /// What they are.
        error: IssueError,
    },
    /// It is another cluster's.
    #[error("{}: is the CA of {found}; must be of {wanted}; correct the names or the stateDirectory", path.display())]
    Other {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who we are.
        wanted: String,
    },
}

/// Takes the CA of a state directory; makes it where there is none.
///
/// # Errors
/// It can neither be taken nor made.
pub fn take_or_make(
    state_directory: &Path,
    clusterset: &str,
    cluster: &str,
    now: SystemTime,
) -> Result<OwnCa, CaStoreError> {
    let folder = state_directory.join(FOLDER);
    let failed = |error| CaStoreError::Folder {
        path: folder.clone(),
        error,
    };
    let is_new = if fs::exists(&folder).map_err(failed)? {
        false
    } else {
        let made = init(clusterset, cluster, now).map_err(|error| CaStoreError::NoCa {
            path: folder.clone(),
            error,
        })?;
        let files = [(KEY, made.key.as_str()), (CERTIFICATE, &made.certificate)];
        put(state_directory, &folder, &files).map_err(failed)?
    };
    let own = take(state_directory, clusterset, cluster)?;
    Ok(OwnCa { is_new, ..own })
}

/// Takes the CA of a state directory.
///
/// # Errors
/// There is none, or it is another's.
pub fn take(
    state_directory: &Path,
    clusterset: &str,
    cluster: &str,
) -> Result<OwnCa, CaStoreError> {
    let folder = state_directory.join(FOLDER);
    let failed = |error| CaStoreError::Folder {
        path: folder.clone(),
        error,
    };
    loop {
        let before = stamp(&folder);
        let read = read(&folder, clusterset, cluster);
        // Another replica may have put the next one there meanwhile.
        if before.as_ref().ok() == stamp(&folder).ok().as_ref() {
            let stamp = before.map_err(failed);
            return read.and_then(|own| {
                Ok(OwnCa {
                    stamp: stamp?,
                    ..own
                })
            });
        }
    }
}

fn read(folder: &Path, clusterset: &str, cluster: &str) -> Result<OwnCa, CaStoreError> {
    let failed = |error| CaStoreError::Folder {
        path: folder.to_owned(),
        error,
    };
    let read = |name: &str, readers| {
        let path = folder.join(name);
        text(&path, readers).map_err(|rule| CaStoreError::File { path, rule })
    };
    let pem = read(CERTIFICATE, Readers::Any)?;
    let key = read(KEY, Readers::Owner)?;
    let mut ca = Ca::from_pem(&pem, &key).map_err(|error| CaStoreError::NoCa {
        path: folder.to_owned(),
        error,
    })?;
    let is = |clusterset: &str, cluster: &str| format!("cluster {cluster} in {clusterset}");
    if (ca.clusterset(), ca.cluster()) != (clusterset, cluster) {
        return Err(CaStoreError::Other {
            path: folder.to_owned(),
            found: is(ca.clusterset(), ca.cluster()),
            wanted: is(clusterset, cluster),
        });
    }
    let link = match fs::exists(folder.join(LINK)).map_err(failed)? {
        true => Some(read(LINK, Readers::Any)?.to_string()),
        false => None,
    };
    if let Some(link) = &link {
        ca = ca.with_link(link.clone());
    }
    let old = match old_file(folder).map_err(failed)? {
        Some((name, until)) => {
            let pem = read(&name, Readers::Any)?.to_string();
            Some(OldCa { pem, until })
        }
        None => None,
    };
    Ok(OwnCa {
        ca,
        pem: pem.to_string(),
        is_new: false,
        old,
        key,
        link,
        stamp: (0, 0, None),
    })
}

/// The file of the CA before, and until when it is trusted.
fn old_file(folder: &Path) -> io::Result<Option<(String, SystemTime)>> {
    for entry in fs::read_dir(folder)? {
        let Ok(name) = entry?.file_name().into_string() else {
            continue;
        };
        let until = name
            .strip_prefix("old-")
            .and_then(|rest| rest.strip_suffix(".crt"));
        if let Some(until) = until.and_then(|seconds| seconds.parse().ok()) {
            return Ok(Some((
                name,
                SystemTime::UNIX_EPOCH + Duration::from_secs(until),
            )));
        }
    }
    Ok(None)
}

fn stamp(folder: &Path) -> io::Result<Stamp> {
    let it = fs::metadata(folder)?;
    let until = old_file(folder)?.map(|(_, until)| until);
    Ok((it.dev(), it.ino(), until))
}

/// Puts a folder with these files there, on the disk, unless there is one: whether it did.
fn put(parent: &Path, folder: &Path, files: &[(&str, &str)]) -> io::Result<bool> {
    let mut folders = DirBuilder::new();
    folders.mode(0o700).recursive(true).create(parent)?;
    let first = draft(parent, files)?;
    match fs::rename(&first, folder) {
        Ok(()) => {
            File::open(parent)?.sync_all()?;
            Ok(true)
        }
        Err(error) => {
            // What stays has a key that signed nothing.
            let _ = fs::remove_dir_all(&first);
            let taken = [
                io::ErrorKind::DirectoryNotEmpty,
                io::ErrorKind::AlreadyExists,
            ];
            if taken.contains(&error.kind()) {
                Ok(false)
            } else {
                Err(error)
            }
        }
    }
}

/// Makes a folder with these files, on the disk, that is not in force yet.
fn draft(parent: &Path, files: &[(&str, &str)]) -> io::Result<PathBuf> {
    let mut lot = [0; 8];
    getrandom::fill(&mut lot).map_err(io::Error::other)?;
    let folder = parent.join(format!("{DRAFT}{:016x}", u64::from_ne_bytes(lot)));
    DirBuilder::new().mode(0o700).create(&folder)?;
    let written = files.iter().try_for_each(|(name, text)| {
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(folder.join(name))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    let done = written.and_then(|()| File::open(&folder)?.sync_all());
    if let Err(error) = done {
        let _ = fs::remove_dir_all(&folder);
        return Err(error);
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Barrier;

    fn make(state: &Path) -> Result<OwnCa, CaStoreError> {
        take_or_make(state, "set.example", "east", SystemTime::now())
    }

    #[test]
    fn it_is_made_once_and_for_nobody_else_to_read() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let first = make(&state).unwrap();
        assert!(first.is_new);
        let again = make(&state).unwrap();
        assert!(!again.is_new);
        assert_eq!(first.pem, again.pem);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&state.join("ca")), 0o700);
        assert_eq!(mode(&state.join("ca/ca.key")), 0o600);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
        assert_ne!(first.secret_for("a"), first.secret_for("b"));
        assert_eq!(first.secret_for("a"), again.secret_for("a"));
    }

    #[test]
    fn of_many_that_start_at_once_one_makes_it_and_all_have_it() {
        for _ in 0..50 {
            let folder = tempfile::tempdir().unwrap();
            let barrier = Barrier::new(4);
            let all: Vec<_> = std::thread::scope(|scope| {
                let start = || {
                    barrier.wait();
                    make(folder.path()).unwrap()
                };
                let racers = [(); 4].map(|()| scope.spawn(start));
                racers
                    .map(|racer| racer.join().unwrap())
                    .into_iter()
                    .collect()
            });
            assert_eq!(all.iter().filter(|own| own.is_new).count(), 1);
            assert!(all.iter().all(|own| own.pem == all[0].pem));
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn what_is_no_ca_of_ours_is_left_alone_and_told_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        let line = |done: Result<OwnCa, CaStoreError>| {
            let line = done.unwrap_err().to_string();
            assert!(!line.contains('\n') && line.contains("; "), "{line}");
            line
        };
        assert!(line(take(state, "set.example", "east")).contains("ca.crt: cannot be read"));
        make(state).unwrap();
        let other = line(take_or_make(
            state,
            "set.example",
            "west",
            SystemTime::now(),
        ));
        assert!(
            other.contains("is the CA of cluster east in set.example; must be of cluster west")
        );
        let key = state.join("ca/ca.key");
        let good = fs::read(&key).unwrap();
        for bad in [
            &b""[..],
            b"-----BEGIN PRIVATE KEY-----",
            &good[..100],
            b"\xff\xfe",
        ] {
            fs::write(&key, bad).unwrap();
            line(make(state));
            assert_eq!(fs::read(&key).unwrap(), bad);
        }
        fs::write(&key, &good).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(line(make(state)).contains("mode 0644"));
        fs::remove_file(&key).unwrap();
        assert!(line(make(state)).contains("ca.key: cannot be read"));
    }
}
