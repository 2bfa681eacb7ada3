//! The folder of tokens that were given away: a file for each, and one beside it once it was used.
//!
//! ```text
//!   tokens/HASH         0600  {"purpose": "node", "name": "east-1", "expires": 1800000900}
//!   tokens/HASH.used    0600  {"by": "6f1c...", "at": 1800000123}
//! ```
//!
//! Both appear whole and once: they are written under another name and then linked, which fails where there is one
//! already. So of all who show a token, in whatever thread, process or replica, the first is exactly one.

use super::secret_file::reason;
use crate::hub::tokens::{Kept, Shown, Standing, TokenRefusal, Used, is_stale, judge, seconds};
use crate::token::{Purpose, SecretHash};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The longest file that is read, in bytes. What a maker wants to know again is in it.
const LONGEST: u64 = 64 << 10;
const USED: &str = ".used";
/// Files under their first name that are older were left by a process that died.
const ORPHAN: Duration = Duration::from_secs(3600);

/// A folder of tokens. Replicas share it.
#[derive(Clone, Debug)]
pub struct TokenStore {
    folder: PathBuf,
}

/// A token that was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumed {
    /// What was kept of it.
    pub kept: Kept,
    /// [`Standing::Unused`] for the first, and for nobody else.
    pub standing: Standing,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenStoreError {
    /// The token is not good.
    #[error("{0}")]
    Refused(#[from] TokenRefusal),
    /// The folder cannot be used. Guests are told no more than that.
    #[error("{}: {rule}", path.display())]
    Broken {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        rule: String,
    },
}

impl TokenStoreError {
    /// Its name in metrics, logs and answers.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.name(),
            Self::Broken { .. } => "token_store_broken",
        }
    }
}

fn broken(path: &Path) -> impl FnOnce(io::Error) -> TokenStoreError {
    let path = path.to_owned();
    move |error| TokenStoreError::Broken {
        path,
        rule: format!(
            "cannot be used: {}; correct the path or the permissions",
            reason(&error)
        ),
    }
}

impl TokenStore {
    /// The tokens of a state directory; the folder is made where it is missing.
    ///
    /// # Errors
    /// It cannot be.
    pub fn open(state_directory: &Path) -> Result<Self, TokenStoreError> {
        let folder = state_directory.join("tokens");
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder);
        made.map_err(broken(&folder))?;
        Ok(Self { folder })
    }

    /// Keeps a new token.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn add(&self, hash: &SecretHash, kept: &Kept) -> Result<(), TokenStoreError> {
        let path = self.folder.join(hash.to_string());
        match self.put(&path, kept) {
            Ok(true) => Ok(()),
            // Nobody draws 256 bits twice.
            Ok(false) => Err(broken(&path)(io::ErrorKind::AlreadyExists.into())),
            Err(error) => Err(broken(&path)(error)),
        }
    }

    /// Says whether a token is good, and uses nothing up.
    ///
    /// # Errors
    /// It is not.
    pub fn look(
        &self,
        hash: &SecretHash,
        shown: Shown<'_>,
        now: SystemTime,
    ) -> Result<Consumed, TokenStoreError> {
        let kept: Option<Kept> = read(&self.folder.join(hash.to_string()))?;
        let used: Option<Used> = read(&self.used(hash))?;
        let standing = judge(kept.as_ref(), used.as_ref(), shown, now)?;
        let kept = kept.ok_or(TokenRefusal::Unknown)?;
        Ok(Consumed { kept, standing })
    }

    /// Uses a token up. Of all who ever show it, exactly one is the first; it may come again, and nobody else may. It is
    /// on the disk before this says so.
    ///
    /// # Errors
    /// It is not good.
    pub fn consume(
        &self,
        hash: &SecretHash,
        shown: Shown<'_>,
        now: SystemTime,
    ) -> Result<Consumed, TokenStoreError> {
        let consumed = self.look(hash, shown, now)?;
        if consumed.standing == Standing::Again {
            return Ok(consumed);
        }
        let used = Used {
            by: shown.by.to_owned(),
            at: seconds(now),
        };
        let path = self.used(hash);
        if self.put(&path, &used).map_err(broken(&path))? {
            return Ok(consumed);
        }
        // Somebody was faster; the file says who.
        self.look(hash, shown, now)
    }

    /// Forgets all tokens for somebody, used or not: nobody comes in by one any more.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn revoke(&self, purpose: Purpose, name: &str) -> Result<(), TokenStoreError> {
        for entry in fs::read_dir(&self.folder).map_err(broken(&self.folder))? {
            let path = entry.map_err(broken(&self.folder))?.path();
            let file = path.file_name().and_then(|file| file.to_str());
            if file.is_none_or(|file| file.starts_with('.') || file.ends_with(USED)) {
                continue;
            }
            // One that cannot be read is good for nobody.
            let kept = read::<Kept>(&path).ok().flatten();
            if kept.is_some_and(|kept| kept.purpose == purpose && kept.name == name) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Forgets the tokens that are long over; how many.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn sweep(&self, now: SystemTime) -> Result<usize, TokenStoreError> {
        let broken_folder = || broken(&self.folder);
        let mut swept = 0;
        for entry in fs::read_dir(&self.folder).map_err(broken_folder())? {
            let entry = entry.map_err(broken_folder())?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let path = entry.path();
            if name.starts_with('.') {
                let modified = entry.metadata().and_then(|metadata| metadata.modified());
                let age = modified.map(|modified| now.duration_since(modified));
                if matches!(age, Ok(Ok(age)) if age > ORPHAN) {
                    remove(&path)?;
                }
                continue;
            }
            if name.ends_with(USED) {
                continue;
            }
            // One that cannot be read is told of when it is shown.
            let kept = read::<Kept>(&path).ok().flatten();
            if kept.is_some_and(|kept| is_stale(&kept, now)) {
                // In this order: a token without its mark is over by then, and a mark without its token says nothing.
                remove(&self.folder.join(name + USED))?;
                remove(&path)?;
                swept += 1;
            }
        }
        Ok(swept)
    }

    fn used(&self, hash: &SecretHash) -> PathBuf {
        self.folder.join(format!("{hash}{USED}"))
    }

    /// Puts a file there, whole and on the disk, unless there is one: whether it did.
    fn put(&self, path: &Path, content: &impl Serialize) -> io::Result<bool> {
        let text = serde_json::to_string(content)?;
        let mut lot = [0; 8];
        getrandom::fill(&mut lot).map_err(io::Error::other)?;
        let first = self
            .folder
            .join(format!(".{:016x}", u64::from_ne_bytes(lot)));
        let mut options = File::options();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&first)?;
        let done =
            file.write_all(text.as_bytes())
                .and_then(|()| match fs::hard_link(&first, path) {
                    Ok(()) => Ok(true),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                    Err(error) => Err(error),
                });
        // One that stays is swept.
        let _ = fs::remove_file(&first);
        if done.as_ref().is_ok_and(|done| *done) {
            // One that a crash cuts off before this is refused as broken, and so never taken twice.
            file.sync_all()?;
            File::open(&self.folder)?.sync_all()?;
        }
        done
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, TokenStoreError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text));
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(broken(path)(error)),
    }
    let parsed = serde_json::from_str(&text);
    parsed.map(Some).map_err(|_| TokenStoreError::Broken {
        path: path.to_owned(),
        rule: "is not as a hub wrote it; remove it, and have another token made".to_owned(),
    })
}

fn remove(path: &Path) -> Result<(), TokenStoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(broken(path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
