//! Writes files that must not be there yet.

use super::secret_file::reason;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NewFileError {
    /// Nothing is ever overwritten.
    #[error("{}: is there already and is not overwritten; remove it or choose another folder", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The system does not let us.
    #[error("{}: cannot be written: {}; correct the path or the permissions", path.display(), reason(error))]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
}

/// Writes all of these files into a folder, readable for their owner alone, or none of them. The folder is made where
/// it is missing.
pub(crate) fn write_all(folder: &Path, files: &[(&str, &str)]) -> Result<(), NewFileError> {
    let mut folders = DirBuilder::new();
    folders.recursive(true).mode(0o700);
    folders
        .create(folder)
        .map_err(|error| NewFileError::Write {
            path: folder.to_owned(),
            error,
        })?;
    for (at, (name, text)) in files.iter().enumerate() {
        if let Err(error) = write(&folder.join(name), text) {
            for (name, _) in &files[..at] {
                // What cannot be removed is told of by the next run.
                let _ = std::fs::remove_file(folder.join(name));
            }
            return Err(error);
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), NewFileError> {
    let fault = |error: io::Error| {
        let path = path.to_owned();
        if error.kind() == io::ErrorKind::AlreadyExists {
            NewFileError::Exists { path }
        } else {
            NewFileError::Write { path, error }
        }
    };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path).map_err(fault)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    written.map_err(|error| {
        let _ = std::fs::remove_file(path);
        fault(error)
    })
}
