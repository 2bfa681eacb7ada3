//! When this node changed its own keys last, as the agents after this one are to know: the time of a file in the agent's
//! state directory.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

const FILE: &str = "keys-changed";

/// How old the keys are. Where nobody has noted it yet, they count as new from now on.
pub(crate) fn age(state_directory: &Path, now: SystemTime) -> io::Result<Duration> {
    let noted = match fs::metadata(state_directory.join(FILE)) {
        Ok(metadata) => metadata.modified()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            note(state_directory)?;
            now
        }
        Err(error) => return Err(error),
    };
    // The clock may have been set back.
    Ok(now.duration_since(noted).unwrap_or_default())
}

/// They changed just now.
pub(crate) fn note(state_directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_directory)?;
    let file = File::create(state_directory.join(FILE))?;
    file.set_modified(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_age_from_their_change_or_from_when_somebody_first_asked() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
        let second = Duration::from_secs(1);
        assert!(age(&state, now).unwrap() < second);
        let later = age(&state, now + hour).unwrap();
        assert!(later > hour - second && later < hour + second);
        note(&state).unwrap();
        assert!(age(&state, SystemTime::now()).unwrap() < second);
        assert_eq!(age(&state, now - hour).unwrap(), Duration::ZERO);
        assert!(age(&state.join(FILE), now).is_err());
    }
}
