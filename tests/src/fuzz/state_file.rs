//! The kept state on disk.

use std::fs;

use hawser_tunnel::io::state_file::{Found, StateFile};
use hawser_tunnel::state::{Revision, State};

use super::world;

/// A folder in memory where there is one: thousands of files a second are no work for a disk.
pub(super) fn folder() -> tempfile::TempDir {
    let made = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    made.expect("a folder for the run")
}

/// Target: a file of any content is believed only where its digest fits; otherwise it is set aside as it was.
pub(super) fn load(input: &[u8]) {
    thread_local!(static FOLDER: tempfile::TempDir = folder());
    FOLDER.with(|folder| {
        let path = folder.path().join("state.json");
        let file = StateFile::new(folder.path());
        fs::write(&path, input).expect("the folder is ours");
        let peeked = file.peek().expect("the file can be read");
        match file.load().expect("the file can be read") {
            Found::Nothing => panic!("there was a file"),
            Found::State(kept) => {
                assert_eq!(
                    kept.state.digest(),
                    kept.revision.digest,
                    "a digest that does not fit was believed"
                );
                assert_eq!(peeked.as_ref(), Some(&kept.state));
                stored(&file, kept.revision, &kept.state);
            }
            Found::SetAside {
                path: aside,
                reason,
            } => {
                assert!(!path.exists() && peeked.is_none() && !reason.is_empty());
                assert_eq!(
                    fs::read(&aside).expect("the file that was set aside"),
                    input
                );
                assert!(matches!(file.load(), Ok(Found::Nothing)));
            }
        }
        // Whatever was there, a state can be kept.
        let state = world::state();
        let revision = Revision {
            number: u64::MAX,
            digest: state.digest(),
        };
        stored(&file, revision, &state);
    });
}

fn stored(file: &StateFile, revision: Revision, state: &State) {
    file.store(revision, state).expect("the folder is ours");
    let Ok(Found::State(kept)) = file.load() else {
        panic!("what was stored is not loaded");
    };
    assert_eq!((kept.revision, &kept.state), (revision, state));
}
