//! The file of what is kept, and the thread that writes it.

mod file;

use crate::chain::one_line;
use crate::kept::{Batch, KeptError, KeptStats, Loaded, due};
use crate::record::{Key, Revision, Version};
use bytes::Bytes;
use file::KeptFile;
use hawser_tunnel::node::ClusterId;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// A batch with so many records is written without waiting for more: what waits is in memory twice.
const EARLY: usize = 8192;

/// A file that follows what it is told. Dropping it writes what is left.
#[derive(Debug)]
pub struct Kept {
    desk: Arc<Desk>,
    writer: Option<JoinHandle<()>>,
}

/// Where changes wait for the writer.
#[derive(Debug, Default)]
struct Desk {
    waiting: Mutex<Waiting>,
    /// Something to do for the writer.
    wake: Condvar,
    /// A batch was written, or failed.
    done: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    batch: Batch,
    /// When the batch's first change came.
    since: Option<Instant>,
    /// Somebody waits for the disk.
    urgent: bool,
    stops: bool,
    /// Notes so far, and how many of them are on disk.
    noted: u64,
    written: u64,
    /// The file was damaged in use.
    lost: bool,
    stats: KeptStats,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Opens the file, or makes it, and reads all of it. One that is damaged is put aside as `<path>.damaged`, and an
    /// empty one begun: [`Loaded::damage`].
    ///
    /// # Errors
    /// Another process has it, or the disk refuses.
    pub fn open(path: &Path) -> Result<(Self, Loaded), KeptError> {
        let (file, loaded) = KeptFile::open(path)?;
        let desk = Arc::new(Desk::default());
        let its = Arc::clone(&desk);
        let writer = std::thread::Builder::new()
            .name("hawser-kept".to_owned())
            .spawn(move || write(&its, file))
            .map_err(|source| KeptError::File {
                path: path.to_owned(),
                source,
            })?;
        let kept = Self {
            desk,
            writer: Some(writer),
        };
        Ok((kept, loaded))
    }

    /// Takes changes of an origin, after which it is at `version`. They are on disk soon; all of a note or nothing.
    pub fn note(
        &self,
        origin: ClusterId,
        version: Version,
        complete: bool,
        changes: impl IntoIterator<Item = (Key, Option<(Revision, Bytes)>)>,
    ) {
        self.add(|batch| batch.note(origin, version, complete, changes));
    }

    /// Nothing of that origin is kept any more.
    pub fn forget(&self, origin: ClusterId) {
        self.add(|batch| batch.forget(origin));
    }

    /// Says of what all that is kept is a part, in words of the caller's own: what was asked for.
    pub fn note_scope(&self, scope: Bytes) {
        self.add(|batch| batch.scope = Some(scope));
    }

    /// Waits until everything that was noted is on disk.
    ///
    /// # Errors
    /// It could not be written. It will be tried again.
    pub fn flush(&self) -> Result<(), KeptError> {
        let mut waiting = self.desk.lock();
        let (target, failures) = (waiting.noted, waiting.stats.failures);
        while waiting.written < target {
            if waiting.lost {
                return Err(KeptError::Lost);
            }
            if waiting.stats.failures > failures {
                return Err(KeptError::NotYet);
            }
            waiting.urgent = true;
            self.desk.wake.notify_one();
            waiting = self
                .desk
                .done
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// What was written so far.
    pub fn stats(&self) -> KeptStats {
        self.desk.lock().stats
    }

    fn add(&self, change: impl FnOnce(&mut Batch)) {
        let mut waiting = self.desk.lock();
        if waiting.lost {
            return;
        }
        change(&mut waiting.batch);
        waiting.noted += 1;
        if waiting.batch.len() >= EARLY {
            self.desk.wake.notify_one();
        }
        if waiting.since.is_none() {
            waiting.since = Some(Instant::now());
            self.desk.wake.notify_one();
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.desk.lock().stops = true;
        self.desk.wake.notify_one();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has said so.
            let _ = writer.join();
        }
    }
}

/// Writes batch after batch until the end.
fn write(desk: &Desk, file: KeptFile) {
    let mut file = Some(file);
    let path = file.as_ref().map(|file| file.path().to_owned());
    let path = path.expect("it was put there");
    let mut last: Option<Instant> = None;
    let mut failed = false;
    while let Some((batch, noted, stops)) = next(desk, last, failed) {
        last = Some(Instant::now());
        let records = batch.len();
        // After a failure the file is opened anew: the storage refuses to go on with the old one.
        let done = match file.take() {
            Some(open) => Ok(open),
            None => KeptFile::open_again(&path),
        }
        .and_then(|open| open.write(&batch).map(|()| file = Some(open)));
        let mut waiting = desk.lock();
        match done {
            Ok(()) => {
                if failed {
                    tracing::info!(file = %path.display(), "state is kept again");
                }
                failed = false;
                waiting.written = noted;
                waiting.stats.batches += 1;
                waiting.stats.records += u64::try_from(records).unwrap_or(u64::MAX);
            }
            Err(error) => {
                if !failed {
                    tracing::warn!(file = %path.display(), error = one_line(&error), "failed to keep state; will be tried again");
                }
                failed = true;
                waiting.lost = matches!(error, KeptError::Lost);
                waiting.stats.failures += 1;
                waiting.batch.put_back(batch);
                waiting.since.get_or_insert_with(Instant::now);
                waiting.urgent = false;
            }
        }
        let ends = stops || waiting.lost;
        drop(waiting);
        desk.done.notify_all();
        if ends {
            return;
        }
    }
}

/// Waits for the next batch, the number of notes that it ends with, and whether it is the last; `None`: nothing is
/// left.
fn next(desk: &Desk, last: Option<Instant>, failed: bool) -> Option<(Batch, u64, bool)> {
    let mut waiting = desk.lock();
    loop {
        let now = Instant::now();
        let due = waiting.since.map(|since| due(since, last, failed));
        // A disk that refuses is not asked more often because more is waiting.
        let is_full = !failed && waiting.batch.len() >= EARLY;
        let is_due = is_full || due.is_some_and(|due| due <= now);
        let ready = !waiting.batch.is_empty() && (waiting.stops || waiting.urgent || is_due);
        if ready {
            waiting.since = None;
            waiting.urgent = false;
            let batch = std::mem::take(&mut waiting.batch);
            return Some((batch, waiting.noted, waiting.stops));
        }
        if waiting.stops {
            return None;
        }
        waiting = match due {
            Some(due) => desk
                .wake
                .wait_timeout(waiting, due - now)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(waiting, _)| waiting),
            None => desk
                .wake
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner),
        };
    }
}
