//! The file itself: redb, two tables.

use crate::kept::{Batch, Damage, KeptError, KeptOrigin, Loaded, OriginBatch};
use crate::record::{Key, Revision, Version};
use bytes::Bytes;
use hawser_tunnel::node::ClusterId;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError,
    TableDefinition, TableError,
};
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// The form of the tables below.
const FORMAT: u32 = 1;
/// What is read is read once, and batches are small: a greater cache would hold every record a second time.
const CACHE: usize = 4 << 20;

const FORMATS: TableDefinition<'_, (), u32> = TableDefinition::new("format");
const SCOPES: TableDefinition<'_, (), &[u8]> = TableDefinition::new("scope");
/// Cluster ID → incarnation, revision, complete.
const ORIGINS: TableDefinition<'_, u16, (u64, u64, bool)> = TableDefinition::new("origins");
/// Cluster ID, 2 bytes, big endian, and key → revision, 8 bytes, big endian, and value.
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

/// An open file.
#[derive(Debug)]
pub(super) struct KeptFile {
    path: PathBuf,
    database: Database,
}

/// Why a file is not taken.
enum Refusal {
    Damage(Damage),
    Error(redb::Error),
}

impl<E: Into<redb::Error>> From<E> for Refusal {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "of the storage's many errors only these mean something else"
    )]
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::Corrupted(what) => Self::Damage(Damage::Torn(what)),
            redb::Error::UpgradeRequired(format) => {
                Self::Damage(Damage::Torn(format!("storage format {format}")))
            }
            error => Self::Error(error),
        }
    }
}

impl KeptFile {
    /// Opens or makes it, and reads it. See [`super::Kept::open`].
    pub(super) fn open(path: &Path) -> Result<(Self, Loaded), KeptError> {
        let failed = |source| KeptError::File {
            path: path.to_owned(),
            source,
        };
        if let Some(folder) = path.parent() {
            let mut builder = DirBuilder::new();
            builder
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(failed)?;
        }
        match guarded(|| Self::read(path)) {
            Ok((file, loaded)) => Ok((file, loaded)),
            Err(Refusal::Error(error)) => Err(Self::refused(path, error)),
            Err(Refusal::Damage(damage)) => {
                tracing::warn!(
                    file = %path.display(),
                    reason = damage.name(),
                    detail = %damage,
                    "kept state cannot be used; it is put aside, and all is asked for again"
                );
                let mut aside = path.as_os_str().to_owned();
                aside.push(".damaged");
                std::fs::rename(path, PathBuf::from(aside)).map_err(failed)?;
                let (file, loaded) = match guarded(|| Self::read(path)) {
                    Ok(opened) => opened,
                    Err(Refusal::Error(error)) => return Err(Self::refused(path, error)),
                    Err(Refusal::Damage(_)) => return Err(KeptError::Lost),
                };
                let loaded = Loaded {
                    damage: Some(damage),
                    ..loaded
                };
                Ok((file, loaded))
            }
        }
    }

    /// Opens it again after a failure. What it holds must be what was written: else it goes, and says so.
    pub(super) fn open_again(path: &Path) -> Result<Self, KeptError> {
        match Self::open(path) {
            Ok((file, loaded)) if loaded.damage.is_none() => Ok(file),
            Ok(_) => Err(KeptError::Lost),
            Err(error) => Err(error),
        }
    }

    /// Where it lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a batch, all of it or nothing.
    pub(super) fn write(&self, batch: &Batch) -> Result<(), KeptError> {
        let written = guarded(|| {
            let transaction = self.database.begin_write()?;
            if let Some(scope) = &batch.scope {
                transaction.open_table(SCOPES)?.insert((), &scope[..])?;
            }
            {
                let mut origins = transaction.open_table(ORIGINS)?;
                let mut records = transaction.open_table(RECORDS)?;
                for (&origin, changes) in &batch.origins {
                    write_origin(origin.into(), changes, &mut origins, &mut records)?;
                }
            }
            Ok(transaction.commit()?)
        });
        written.map_err(|refusal| match refusal {
            Refusal::Error(error) => Self::refused(&self.path, error),
            Refusal::Damage(_) => KeptError::Lost,
        })
    }

    fn refused(path: &Path, error: redb::Error) -> KeptError {
        if matches!(error, redb::Error::DatabaseAlreadyOpen) {
            return KeptError::Held(path.to_owned());
        }
        KeptError::Storage {
            what: "read or write what is kept",
            source: Box::new(error),
        }
    }

    fn read(path: &Path) -> Result<(Self, Loaded), Refusal> {
        let database = Builder::new()
            .set_cache_size(CACHE)
            .set_check_integrity_on_open(true)
            .create(path);
        let database = match database {
            // It is no file of the storage at all.
            Err(DatabaseError::Storage(StorageError::Io(error)))
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof
                ) =>
            {
                return Err(Refusal::Damage(Damage::Torn(error.to_string())));
            }
            other => other?,
        };
        // Nobody else need read it.
        let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600));
        let loaded = load(&database)?;
        let file = Self {
            path: path.to_owned(),
            database,
        };
        Ok((file, loaded))
    }
}

/// Bytes that something else put into the file must not end us, whatever the storage makes of them.
fn guarded<T>(body: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        let what = "the storage gave up".to_owned();
        Err(Refusal::Damage(Damage::Torn(what)))
    })
}

type Origins<'t> = redb::Table<'t, u16, (u64, u64, bool)>;
type Records<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

fn write_origin(
    origin: u16,
    changes: &OriginBatch,
    origins: &mut Origins<'_>,
    records: &mut Records<'_>,
) -> Result<(), Refusal> {
    if changes.forget {
        let end = (origin + 1).to_be_bytes();
        records.retain_in(&origin.to_be_bytes()[..]..&end[..], |_, _| false)?;
        origins.remove(origin)?;
    }
    if let Some((version, complete)) = changes.head {
        let head = (version.incarnation.0, version.revision.0, complete);
        origins.insert(origin, head)?;
    }
    let (mut at, mut content) = (Vec::new(), Vec::new());
    for (key, record) in &changes.records {
        at.clear();
        at.extend(origin.to_be_bytes());
        at.extend_from_slice(key.as_bytes());
        match record {
            Some((revision, value)) => {
                content.clear();
                content.extend(revision.0.to_be_bytes());
                content.extend_from_slice(value);
                records.insert(&at[..], &content[..])?;
            }
            None => {
                records.remove(&at[..])?;
            }
        }
    }
    Ok(())
}

fn load(database: &Database) -> Result<Loaded, Refusal> {
    let transaction = database.begin_read()?;
    let format = match transaction.open_table(FORMATS) {
        Ok(formats) => formats.get(())?.map(|format| format.value()),
        Err(TableError::TableDoesNotExist(_)) => {
            drop(transaction);
            begin(database)?;
            return Ok(Loaded::default());
        }
        Err(error) => return Err(table(error)),
    };
    if format != Some(FORMAT) {
        return Err(Refusal::Damage(Damage::Format(format.unwrap_or_default())));
    }
    let content = || Refusal::Damage(Damage::Content);
    let mut loaded = Loaded::default();
    let scopes = transaction.open_table(SCOPES).map_err(table)?;
    if let Some(scope) = scopes.get(())? {
        loaded.scope = Bytes::copy_from_slice(scope.value());
    }
    for row in transaction.open_table(ORIGINS).map_err(table)?.iter()? {
        let (origin, head) = row?;
        let origin = ClusterId::new(origin.value()).map_err(|_| content())?;
        let (incarnation, revision, complete) = head.value();
        let kept = KeptOrigin {
            version: Version::new(incarnation, revision),
            complete,
            records: Vec::new(),
        };
        loaded.origins.insert(origin, kept);
    }
    let records = transaction.open_table(RECORDS).map_err(table)?;
    for row in records.iter()? {
        let (at, record) = row?;
        let (origin, key) = at.value().split_first_chunk().ok_or_else(content)?;
        let (revision, value) = record.value().split_first_chunk().ok_or_else(content)?;
        let key = Key::parse(Bytes::copy_from_slice(key)).map_err(|_| content())?;
        let revision = Revision(u64::from_be_bytes(*revision));
        let origin = ClusterId::new(u16::from_be_bytes(*origin)).map_err(|_| content())?;
        let kept = loaded.origins.get_mut(&origin).ok_or_else(content)?;
        kept.records
            .push((revision, key, Bytes::copy_from_slice(value)));
    }
    Ok(loaded)
}

/// Makes the tables of a new file.
fn begin(database: &Database) -> Result<(), Refusal> {
    let transaction = database.begin_write()?;
    transaction.open_table(FORMATS)?.insert((), FORMAT)?;
    transaction.open_table(SCOPES)?;
    transaction.open_table(ORIGINS)?;
    transaction.open_table(RECORDS)?;
    Ok(transaction.commit()?)
}

/// A table that is there, but is none of ours, is no trouble of the disk.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "of the storage's many errors only these mean something else"
)]
fn table(error: TableError) -> Refusal {
    match error {
        TableError::Storage(error) => error.into(),
        error => Refusal::Damage(Damage::Torn(error.to_string())),
    }
}
