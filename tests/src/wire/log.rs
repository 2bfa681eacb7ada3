//! The fate of every frame, one line each.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};

use super::{Fate, Kind, Way};

/// Bytes of one log: some two million frames. Labs keep their files in memory on most machines.
const FULL: u64 = 64 << 20;

/// One frame and its fate, as written: `out 17 1514 data lost`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Which way it went.
    pub way: Way,
    /// Its number in that direction, from 0.
    pub ordinal: u64,
    /// Its length in bytes, with the Ethernet header.
    pub length: usize,
    /// What it carried.
    pub kind: Kind,
    /// What happened to it.
    pub fate: Fate,
}

impl fmt::Display for LogLine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            way,
            ordinal,
            length,
            kind,
            fate,
        } = self;
        write!(formatter, "{way} {ordinal} {length} {kind} {fate}")
    }
}

impl FromStr for LogLine {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.splitn(5, ' ');
        let (Some(way), Some(ordinal), Some(length), Some(kind), Some(fate)) = (
            words.next(),
            words.next(),
            words.next(),
            words.next(),
            words.next(),
        ) else {
            bail!("{text:?}: must be direction, number, length, kind and fate");
        };
        Ok(Self {
            way: way.parse()?,
            ordinal: ordinal.parse().context("number of a frame")?,
            length: length.parse().context("length of a frame")?,
            kind: kind.parse()?,
            fate: fate.parse()?,
        })
    }
}

/// A log that is being written. It is buffered: what is on disk is complete only after [`Self::flush`].
#[derive(Debug)]
pub struct Log {
    file: BufWriter<File>,
    bytes: u64,
    unlogged: u64,
}

impl Log {
    /// Starts an empty log in place of what was there.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let file =
            File::create(path).with_context(|| format!("failed to make {}", path.display()))?;
        Ok(Self {
            file: BufWriter::new(file),
            bytes: 0,
            unlogged: 0,
        })
    }

    /// Adds a line. A full log, or one that the disk does not take, counts it instead.
    pub fn write(&mut self, line: &LogLine) {
        if self.bytes >= FULL {
            self.unlogged += 1;
            return;
        }
        let text = format!("{line}\n");
        if self.file.write_all(text.as_bytes()).is_err() {
            self.unlogged += 1;
        }
        self.bytes += u64::try_from(text.len()).unwrap_or(u64::MAX);
    }

    /// How many lines are missing because the log was full.
    #[must_use]
    pub const fn unlogged(&self) -> u64 {
        self.unlogged
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().context("failed to write the fate log")
    }

    /// Reads a log.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub fn read(path: &Path) -> Result<Vec<LogLine>> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("failed to read {}", path.display()))?;
        text.lines().map(str::parse).collect()
    }
}
