//! Reads a file that holds a key.

use crate::config::Rule;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use zeroize::Zeroizing;

/// Longer than any key in base64 with a line end; what is longer is no key.
const LONGEST: u64 = 256;

/// Reads a small text file that nobody but its owner can read.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, Rule> {
    let unreadable = |error: std::io::Error| Rule::SecretUnreadable {
        error: reason(&error),
    };
    // Looked at before it is opened: opening a pipe would wait for a writer for ever.
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Rule::SecretNotFile);
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Rule::SecretMode { mode });
    }
    let file = File::open(path).map_err(unreadable)?;
    let mut text = Zeroizing::new(String::with_capacity(300));
    match file.take(LONGEST).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Err(Rule::SecretContent),
        Err(error) => Err(unreadable(error)),
    }
}

/// The system's answer in words, without its number.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}
