//! Puts the next CA in the place of the present one, and takes the old one away.

use super::{CERTIFICATE, CaStoreError, DRAFT, FOLDER, KEY, LINK, OwnCa, draft, old_file, take};
use crate::ca::{IssueError, show};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Why the CA is not changed. It is then as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RollError {
    /// The present one cannot be taken.
    #[error(transparent)]
    Store(#[from] CaStoreError),
    /// The one before it is still trusted.
    #[error(
        "the CA was rolled already, and the old one is trusted until {}; wait, or end that with `hawser ca retire`",
        show::time(*.0)
    )]
    Rolling(SystemTime),
    /// There is none before it.
    #[error("there is no old CA that is trusted")]
    NoneOld,
    /// It certifies no other.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The folder cannot be changed.
    #[error("failed to change the folder of the CA")]
    Folder(#[from] io::Error),
}

/// Makes the next CA, which signs from now on. The present one is trusted for `trusted` more; its key is gone. Let no
/// other replica do so at the same time.
///
/// # Errors
/// Nothing has changed.
pub fn roll(
    state_directory: &Path,
    clusterset: &str,
    cluster: &str,
    now: SystemTime,
    trusted: Duration,
) -> Result<OwnCa, RollError> {
    sweep(state_directory)?;
    let own = take(state_directory, clusterset, cluster)?;
    if let Some(old) = own.old {
        return Err(RollError::Rolling(old.until));
    }
    let next = own.ca.successor(now)?;
    let until = (now + trusted).duration_since(SystemTime::UNIX_EPOCH);
    let old = format!("old-{}.crt", until.unwrap_or_default().as_secs());
    let files = [
        (KEY, next.ca.key.as_str()),
        (CERTIFICATE, &next.ca.certificate),
        (LINK, &next.link),
        (&old, &own.pem),
    ];
    let folder = state_directory.join(FOLDER);
    let first = draft(state_directory, &files)?;
    let exchanged = renameat2(
        AT_FDCWD,
        &first,
        AT_FDCWD,
        &folder,
        RenameFlags::RENAME_EXCHANGE,
    );
    if let Err(error) = exchanged {
        let _ = fs::remove_dir_all(&first);
        return Err(io::Error::from(error).into());
    }
    File::open(state_directory)?.sync_all()?;
    // It has the old key by now. If we die before, the next one who rolls removes it, and a hub that starts.
    sweep(state_directory)?;
    Ok(take(state_directory, clusterset, cluster)?)
}

/// Trusts the old CA no longer: no certificate of it is taken from now on. `over`: only if its time is over then. Let no
/// other replica change the folder at the same time.
///
/// # Errors
/// There is none, or the folder cannot be changed.
pub fn retire(state_directory: &Path, over: Option<SystemTime>) -> Result<(), RollError> {
    let folder = state_directory.join(FOLDER);
    let old = old_file(&folder)?;
    let old = old.filter(|(_, until)| over.is_none_or(|now| *until <= now));
    let (name, _) = old.ok_or(RollError::NoneOld)?;
    fs::remove_file(folder.join(name))?;
    Ok(File::open(&folder)?.sync_all()?)
}

/// Removes folders that are not in force.
pub(crate) fn sweep(state_directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(state_directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(DRAFT)) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::take_or_make;
    use super::*;
    use crate::trust::{Side, Trust};
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, UnixTime};

    const DAY: Duration = Duration::from_secs(86_400);

    fn make(state: &Path) -> OwnCa {
        take_or_make(state, "set.example", "east", SystemTime::now()).unwrap()
    }

    fn rolled(state: &Path) -> Result<OwnCa, RollError> {
        roll(state, "set.example", "east", SystemTime::now(), DAY)
    }

    fn is_taken(by: &str, chain: &str) -> bool {
        let mut trust = Trust::new("set.example");
        trust.set("east", by).unwrap();
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .map(Result::unwrap)
            .collect();
        let verify = |side| trust.verify(&chain[0], &chain[1..], side, UnixTime::now());
        let both = [verify(Side::Client), verify(Side::Server)];
        assert_eq!(both[0].is_ok(), both[1].is_ok());
        both[0].is_ok()
    }

    #[test]
    fn the_next_one_signs_the_old_one_is_trusted_and_its_key_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        let first = make(state);
        assert!(first.authorities().is_none());
        let leaf = |own: &OwnCa| own.ca.hub("hub-1", DAY, SystemTime::now()).unwrap();
        let before = leaf(&first).certificate;
        let old_key = fs::read_to_string(state.join("ca/ca.key")).unwrap();
        // What a crash left.
        fs::create_dir(state.join(".ca-7")).unwrap();
        assert!(!first.has_changed(state));
        let second = rolled(state).unwrap();
        assert!(first.has_changed(state) && !second.has_changed(state));
        assert_ne!(first.pem, second.pem);
        let old = second.old.clone().unwrap();
        assert_eq!(old.pem, first.pem);
        let left = old.until.duration_since(SystemTime::now()).unwrap();
        assert!(left <= DAY && left > DAY - Duration::from_secs(10));
        assert_eq!(fs::read_dir(state).unwrap().count(), 1, "nothing else");
        for entry in fs::read_dir(state.join("ca")).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            assert!(!text.contains(&old_key));
        }
        // Whoever knows the old one alone, the new one alone, or both, takes what the new one signs.
        let after = leaf(&second).certificate;
        for trusted in [&first.pem, &second.pem, &second.bundle()] {
            assert!(is_taken(trusted, &after));
        }
        assert!(is_taken(&second.bundle(), &before));
        assert!(!is_taken(&second.pem, &before));
        let said = second.authorities().unwrap();
        assert_eq!(said.vouched(&first.pem), Some(second.bundle()));

        // One at a time.
        let refused = rolled(state).unwrap_err().to_string();
        assert!(refused.contains("trusted until 20") && refused.contains("; wait, or"));
        assert!(!second.has_changed(state));
        let not_yet = retire(state, Some(SystemTime::now()));
        assert!(matches!(not_yet, Err(RollError::NoneOld)));
        retire(state, None).unwrap();
        assert!(second.has_changed(state));
        let third = make(state);
        assert_eq!((&third.pem, &third.old), (&second.pem, &None));
        assert!(matches!(retire(state, None), Err(RollError::NoneOld)));
        let said = third.authorities().unwrap();
        assert_eq!(said.vouched(&first.pem), Some(second.pem.clone()));
        let fourth = rolled(state).unwrap();
        let said = fourth.authorities().unwrap();
        assert_eq!(said.vouched(&second.pem), Some(fourth.bundle()));
        assert_eq!(said.vouched(&first.pem), None, "two steps at once");
    }

    #[test]
    fn who_reads_meanwhile_finds_the_one_or_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        make(state);
        std::thread::scope(|scope| {
            let roller = scope.spawn(|| {
                for _ in 0..30 {
                    rolled(state).unwrap();
                    retire(state, None).unwrap();
                }
            });
            while !roller.is_finished() {
                take(state, "set.example", "east").unwrap();
            }
        });
    }
}
