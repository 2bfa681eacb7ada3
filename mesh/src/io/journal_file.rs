//! The journal of a state directory: one writer appends, others read along.

use crate::hub::journal::{End, Frame, HEADER, Live, read_frames};
use bytes::Bytes;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A journal is written anew when it has more than this, in bytes, and four times what its state needs.
const COMPACT_ABOVE: u64 = 4 << 20;

/// Why a journal is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// It was written by something else, or by a later version.
    #[error("{}: is no journal of this version; move it away or use the version that wrote it", .0.display())]
    Foreign(PathBuf),
    /// The disk's.
    #[error("failed to {what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The file, and how far it was read.
#[derive(Debug)]
pub(crate) struct JournalFile {
    path: PathBuf,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    inode: u64,
    at: u64,
}

impl JournalFile {
    /// The journal at this path, which need not be there yet.
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            open: None,
        }
    }

    /// Reads what is new, and brings `live` there. Returns the frames that lead there, which are on the disk by then,
    /// and how the reading ended.
    pub(crate) fn read(&mut self, live: &mut Live) -> Result<(Vec<Frame>, End), JournalError> {
        let inode = match fs::metadata(&self.path) {
            Ok(metadata) => metadata.ino(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((Vec::new(), End::Clean));
            }
            Err(error) => return Err(self.failed("look at", error)),
        };
        let replaced = self.open.as_ref().is_none_or(|open| open.inode != inode);
        if !replaced {
            return self.read_on(live);
        }
        // Written anew: what it leads to is compared with what we have.
        let (file, length) = self.open_file()?;
        if length < HEADER.len() as u64 {
            return Ok((Vec::new(), End::Torn));
        }
        let inode = file
            .metadata()
            .map_err(|e| self.failed("look at", e))?
            .ino();
        let at = HEADER.len() as u64;
        self.open = Some(Open { file, inode, at });
        let mut fresh = Live::default();
        let (frames, end) = self.read_on(&mut fresh)?;
        let was_empty = live.records.is_empty() && live.version == Live::default().version;
        let frames = if was_empty {
            frames
        } else {
            fresh.frames_from(live)
        };
        *live = fresh;
        Ok((frames, end))
    }

    fn open_file(&self) -> Result<(File, u64), JournalError> {
        let opened = File::options().read(true).write(true).open(&self.path);
        let file = opened.map_err(|error| self.failed("open", error))?;
        let mut header = [0; HEADER.len()];
        let length = file
            .metadata()
            .map_err(|e| self.failed("look at", e))?
            .len();
        if length >= HEADER.len() as u64 {
            let read = file.read_exact_at(&mut header, 0);
            read.map_err(|error| self.failed("read", error))?;
            if header != HEADER {
                return Err(JournalError::Foreign(self.path.clone()));
            }
        }
        Ok((file, length))
    }

    fn read_on(&mut self, live: &mut Live) -> Result<(Vec<Frame>, End), JournalError> {
        let path = self.path.clone();
        let failed = |what| {
            move |source| JournalError::Io {
                what,
                path: path.clone(),
                source,
            }
        };
        let Some(open) = &mut self.open else {
            return Ok((Vec::new(), End::Clean));
        };
        let mut bytes = Vec::new();
        let sought = open.file.seek(SeekFrom::Start(open.at));
        sought.map_err(failed.clone()("read"))?;
        let read = open.file.read_to_end(&mut bytes);
        read.map_err(failed.clone()("read"))?;
        let mut frames = Vec::new();
        let (taken, end) = read_frames(&Bytes::from(bytes), |frame| {
            live.apply(&frame);
            frames.push(frame);
        });
        open.at += taken as u64;
        if !frames.is_empty() {
            // Its writer may not have come so far yet, and we are about to tell others.
            open.file.sync_data().map_err(failed("write"))?;
        }
        Ok((frames, end))
    }

    /// Makes the file ready for frames. Only for who holds the lock, and after everything was read.
    pub(crate) fn begin(&mut self, live: &Live, end: End) -> Result<(), JournalError> {
        if let (Some(open), End::Clean | End::Torn) = (&self.open, end) {
            // A frame that is not all there was told to nobody.
            let cut = open.file.set_len(open.at);
            let cut = cut.and_then(|()| open.file.sync_all());
            return cut.map_err(|error| self.failed("shorten", error));
        }
        if self.open.is_some() {
            let mut aside = self.path.clone().into_os_string();
            aside.push(".damaged");
            let copied = fs::copy(&self.path, PathBuf::from(aside));
            copied.map_err(|error| self.failed("put aside", error))?;
        }
        self.rewrite(live)
    }

    /// Appends a frame. It is on the disk afterwards.
    pub(crate) fn append(&mut self, frame: &Frame) -> Result<(), JournalError> {
        let bytes = frame.to_bytes();
        let Some(open) = &mut self.open else {
            return Err(self.failed("write", io::Error::other("it was not begun")));
        };
        let written = open.file.write_all_at(&bytes, open.at);
        let written = written.and_then(|()| open.file.sync_data());
        if let Err(error) = written {
            return Err(self.failed("write", error));
        }
        open.at += bytes.len() as u64;
        Ok(())
    }

    /// Writes the file anew if it holds much that is past.
    pub(crate) fn compact(&mut self, live: &Live) -> Result<bool, JournalError> {
        let at = self.open.as_ref().map_or(0, |open| open.at);
        let needed = u64::try_from(live.size()).unwrap_or(u64::MAX);
        if at < COMPACT_ABOVE.max(needed.saturating_mul(4)) {
            return Ok(false);
        }
        self.rewrite(live)?;
        Ok(true)
    }

    fn rewrite(&mut self, live: &Live) -> Result<(), JournalError> {
        let next = self.path.with_extension("next");
        let mut bytes = HEADER.to_vec();
        if live.version != Live::default().version {
            for frame in live.frames() {
                bytes.extend(frame.to_bytes());
            }
        }
        let write = || -> io::Result<Open> {
            let file = File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&next)?;
            file.write_all_at(&bytes, 0)?;
            file.sync_all()?;
            fs::rename(&next, &self.path)?;
            sync_folder(&self.path)?;
            let inode = file.metadata()?.ino();
            let at = bytes.len() as u64;
            Ok(Open { file, inode, at })
        };
        let opened = write().map_err(|error| self.failed("write", error))?;
        self.open = Some(opened);
        Ok(())
    }

    fn failed(&self, what: &'static str, source: io::Error) -> JournalError {
        JournalError::Io {
            what,
            path: self.path.clone(),
            source,
        }
    }
}

/// Returns when what was renamed to this path, or linked there, is on the disk.
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or_else(|| Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Key, Version};

    fn frame(revision: u64, name: &str, value: Option<&str>) -> Frame {
        let value = value.map(|value| Bytes::from(value.to_owned()));
        Frame {
            version: Version::new(1, revision),
            changes: vec![(Key::namespace(name), value)],
        }
    }

    #[test]
    fn a_reader_follows_across_a_torn_end_and_a_rewrite() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut writer, mut live) = (JournalFile::new(&path), Live::default());
        assert_eq!(writer.read(&mut live).unwrap(), (vec![], End::Clean));
        writer.begin(&live, End::Clean).unwrap();
        let append = |writer: &mut JournalFile, live: &mut Live, frame: Frame| {
            live.apply(&frame);
            writer.append(&frame).unwrap();
        };
        append(&mut writer, &mut live, frame(1, "a", Some("1")));
        let (mut reader, mut seen) = (JournalFile::new(&path), Live::default());
        assert_eq!(reader.read(&mut seen).unwrap().0.len(), 1);
        append(&mut writer, &mut live, frame(2, "b", Some("2")));
        append(&mut writer, &mut live, frame(3, "a", None));
        assert_eq!(reader.read(&mut seen).unwrap().0.len(), 2);
        assert_eq!(seen, live);
        append(&mut writer, &mut live, frame(4, "c", Some("4")));
        writer.rewrite(&live).unwrap();
        append(&mut writer, &mut live, frame(5, "d", Some("5")));
        let (frames, _) = reader.read(&mut seen).unwrap();
        let revisions: Vec<u64> = frames.iter().map(|f| f.version.revision.0).collect();
        assert_eq!(revisions, [4, 5]);
        assert_eq!(seen, live);
        // The writer dies in the middle of a frame; the reader takes over.
        let half = frame(6, "e", Some("6")).to_bytes();
        let file = File::options().append(true).open(&path).unwrap();
        io::Write::write_all(&mut &file, &half[..half.len() / 2]).unwrap();
        let (frames, end) = reader.read(&mut seen).unwrap();
        assert_eq!((frames.len(), end), (0, End::Torn));
        reader.begin(&seen, end).unwrap();
        append(&mut reader, &mut seen, frame(6, "f", Some("7")));
        let (mut last, mut read) = (JournalFile::new(&path), Live::default());
        assert_eq!(last.read(&mut read).unwrap().1, End::Clean);
        assert_eq!(read, seen);
    }

    #[test]
    fn what_is_no_journal_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        fs::write(&path, b"something else altogether").unwrap();
        let read = JournalFile::new(&path).read(&mut Live::default());
        assert!(matches!(read, Err(JournalError::Foreign(_))));
    }
}
