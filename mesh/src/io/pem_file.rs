//! Reads certificates and keys from files.

use super::secret_file::reason;
use crate::trust::{CaError, CredentialError, Credentials, Trust};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The largest file that is read, in bytes. A chain of ours has 1 KiB.
const LONGEST: u64 = 64 << 10;

/// What is wrong with a file: one line with field, value, rule and fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {}: {rule}", path.display())]
pub struct PemFault {
    /// The field that names the file, as in `tls.key`.
    pub field: String,
    /// The file.
    pub path: PathBuf,
    /// What it breaks.
    pub rule: PemRule,
}

/// The rules of these files, each with its fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemRule {
    /// The system does not let us.
    #[error("cannot be read: {error}; correct the path or the permissions")]
    Unreadable {
        /// The system's answer.
        error: String,
    },
    /// A folder, a pipe or the like.
    #[error("must be a file; correct the path")]
    NotFile,
    /// Others can read a key.
    #[error("has mode {mode:04o}; nobody but its owner may read a key: chmod 600")]
    Mode {
        /// As it is.
        mode: u32,
    },
    /// Longer than any certificate or key.
    #[error("has {size} bytes; must be at most 65536; correct the path")]
    TooLong {
        /// In bytes.
        size: u64,
    },
    /// No text at all.
    #[error("must be text in PEM; correct the path or write the file again")]
    NotText,
    /// It is no certificate or no key, or they do not fit together.
    #[error("{0}; correct the path or issue it again with `hawser ca`")]
    Credentials(#[from] CredentialError),
    /// It is no CA.
    #[error("{0}; correct the path or copy the cluster's ca.crt again")]
    Ca(#[from] CaError),
}

/// Reads the certificate in one file and its key in another; `fields` name them in faults.
///
/// # Errors
/// One of them cannot be read, the key is not secret, or they are no credentials.
pub fn credentials(
    certificate: &Path,
    key: &Path,
    fields: (&str, &str),
) -> Result<Credentials, PemFault> {
    let fault = |field: &str, path: &Path, rule| PemFault {
        field: field.to_owned(),
        path: path.to_owned(),
        rule,
    };
    let of_certificate = |rule| fault(fields.0, certificate, rule);
    let of_key = |rule| fault(fields.1, key, rule);
    let chain = text(certificate, Readers::Any).map_err(of_certificate)?;
    let secret = text(key, Readers::Owner).map_err(of_key)?;
    Credentials::from_pem(&chain, &secret).map_err(|error| match error {
        CredentialError::Certificate | CredentialError::Identity(_) => of_certificate(error.into()),
        CredentialError::Key | CredentialError::Mismatch => of_key(error.into()),
    })
}

/// Reads the CAs of a cluster, and trusts them; `field` names the file in faults.
///
/// # Errors
/// It cannot be read or is no CA; what was trusted before stands.
pub fn trust_ca(
    trust: &mut Trust,
    cluster: &str,
    path: &Path,
    field: &str,
) -> Result<(), PemFault> {
    let pem = text(path, Readers::Any);
    let trusted = pem.and_then(|pem| Ok(trust.set(cluster, &pem)?));
    trusted.map_err(|rule| PemFault {
        field: field.to_owned(),
        path: path.to_owned(),
        rule,
    })
}

/// Reads the CAs of a cluster as text; `field` names the file in faults.
///
/// # Errors
/// It cannot be read.
pub(crate) fn ca(path: &Path, field: &str) -> Result<String, PemFault> {
    let pem = text(path, Readers::Any).map_err(|rule| PemFault {
        field: field.to_owned(),
        path: path.to_owned(),
        rule,
    });
    pem.map(|pem| pem.replace('\r', ""))
}

/// Who may be able to read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// It is no secret.
    Any,
    /// It is one.
    Owner,
}

/// Reads a file of PEM.
pub(crate) fn text(path: &Path, readers: Readers) -> Result<Zeroizing<String>, PemRule> {
    let unreadable = |error: std::io::Error| PemRule::Unreadable {
        error: reason(&error),
    };
    // Looked at before it is opened: opening a pipe would wait for a writer for ever.
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(PemRule::NotFile);
    }
    let mode = metadata.mode() & 0o7777;
    if readers == Readers::Owner && mode & 0o077 != 0 {
        return Err(PemRule::Mode { mode });
    }
    let size = metadata.len();
    if size > LONGEST {
        return Err(PemRule::TooLong { size });
    }
    let file = File::open(path).map_err(unreadable)?;
    // Growing would leave copies of a key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(64 << 10));
    file.take(LONGEST)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| PemRule::NotText)?;
    Ok(Zeroizing::new(text.to_owned()))
}
