//! What a node keeps of its enrolment, in its state directory.
//!
//! ```text
//!   identity/            0700
//!   identity/node.key    0600  made here, and never anywhere else
//!   identity/node.crt    0600
//!   identity/ca.crt      0600  the CAs of its cluster
//! ```

use super::pem_file::{PemRule, Readers, text};
use super::secret_file::reason;
use crate::ca::csr::new_key;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const KEY: &str = "node.key";
const CERTIFICATE: &str = "node.crt";
const CA: &str = "ca.crt";

/// The folder.
#[derive(Clone, Debug)]
pub(crate) struct NodeFiles(PathBuf);

/// What was stored.
pub(crate) struct StoredFiles {
    pub(crate) key: Zeroizing<String>,
    pub(crate) chain: Zeroizing<String>,
    pub(crate) ca: Zeroizing<String>,
}

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {rule}", path.display())]
pub(crate) struct NodeFileFault {
    path: PathBuf,
    rule: PemRule,
}

impl NodeFiles {
    pub(crate) fn of(state_directory: &Path) -> Self {
        Self(state_directory.join("identity"))
    }

    /// Where they are.
    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    /// The node's key; it is made where there is none, and is on the disk before it is used.
    pub(crate) fn key(&self) -> Result<Zeroizing<String>, NodeFileFault> {
        let path = self.0.join(KEY);
        if path.exists() {
            return self.read(KEY, Readers::Owner);
        }
        let key = new_key().map_err(|error| self.fault(KEY, &io::Error::other(error)))?;
        self.put(KEY, &key)?;
        Ok(key)
    }

    /// What was stored; nothing, if no certificate ever was.
    pub(crate) fn stored(&self) -> Result<Option<StoredFiles>, NodeFileFault> {
        if !self.0.join(CERTIFICATE).exists() {
            return Ok(None);
        }
        Ok(Some(StoredFiles {
            key: self.read(KEY, Readers::Owner)?,
            chain: self.read(CERTIFICATE, Readers::Any)?,
            ca: self.read(CA, Readers::Any)?,
        }))
    }

    /// Stores a new certificate. With a crash in between, the one before is good with the new CAs: a hub adds the next
    /// CA long before it takes the last away.
    pub(crate) fn store(&self, chain: &str, ca: &str) -> Result<(), NodeFileFault> {
        self.put(CA, ca)?;
        self.put(CERTIFICATE, chain)
    }

    fn read(&self, name: &str, readers: Readers) -> Result<Zeroizing<String>, NodeFileFault> {
        let path = self.0.join(name);
        text(&path, readers).map_err(|rule| NodeFileFault { path, rule })
    }

    /// The whole of it is on the disk, or what was there before.
    fn put(&self, name: &str, text: &str) -> Result<(), NodeFileFault> {
        let put = || {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.0)?;
            let next = self.0.join(format!(".{name}.next"));
            // One that a crash left may be readable for others.
            match fs::remove_file(&next) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let mut options = File::options();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&next)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&next, self.0.join(name))?;
            File::open(&self.0)?.sync_all()
        };
        put().map_err(|error| self.fault(name, &error))
    }

    fn fault(&self, name: &str, error: &io::Error) -> NodeFileFault {
        NodeFileFault {
            path: self.0.join(name),
            rule: PemRule::Unreadable {
                error: reason(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_key_is_made_once_and_what_is_stored_is_read_again() {
        let state = tempfile::tempdir().unwrap();
        let files = NodeFiles::of(state.path());
        assert!(files.stored().unwrap().is_none());
        let key = files.key().unwrap();
        assert_eq!(*files.key().unwrap(), *key);
        assert!(files.stored().unwrap().is_none(), "a key is no certificate");
        for chain in ["first", "second"] {
            files.store(chain, "ca").unwrap();
            let stored = files.stored().unwrap().unwrap();
            assert_eq!((&**stored.chain, &**stored.ca), (chain, "ca"));
            assert_eq!(*stored.key, *key);
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(files.folder()), 0o700);
        for entry in fs::read_dir(files.folder()).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }
        fs::set_permissions(files.folder().join(KEY), fs::Permissions::from_mode(0o640)).unwrap();
        let fault = files.stored().map(|_| ()).unwrap_err().to_string();
        assert!(fault.contains("node.key: has mode 0640"), "{fault}");
    }
}
