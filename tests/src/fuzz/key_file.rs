//! The key on disk.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use hawser_tunnel::io::key_file::{KeyFileError, load_or_make};
use hawser_tunnel::key::PrivateKey;
use hawser_tunnel::lane::LaneNumber;

use super::state_file::folder;

/// Target: a key file of any content is 32 bytes in base64, or refused by name; it is never written over.
pub(super) fn load(input: &[u8]) {
    thread_local!(static FOLDER: tempfile::TempDir = folder());
    FOLDER.with(|folder| {
        let path = folder.path().join("wireguard.key");
        fs::write(&path, input).expect("the folder is ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("the file is ours");
        let text = std::str::from_utf8(input).map(PrivateKey::from_base64);
        match (load_or_make(folder.path(), LaneNumber::FIRST), text) {
            (Ok(key), Ok(Ok(read))) => {
                assert_eq!(key.public(), read.public());
                assert_eq!(
                    *key.to_base64(),
                    *std::str::from_utf8(input).expect("text").trim()
                );
            }
            (Err(KeyFileError::Content { .. }), Ok(Err(_))) => {}
            (
                Err(KeyFileError::File {
                    action: "read the key",
                    ..
                }),
                Err(_),
            ) => {}
            (made, _) => panic!("{:?} of such a file", made.map(|_| "a key")),
        }
        assert_eq!(
            fs::read(&path).expect("the file is there"),
            input,
            "the file was changed"
        );
    });
}
